/* recovery.c - tg-recovery: what the death of a client, or of the daemon, costs, and what it costs the others.
 *
 * Prints medians of several rounds; each has a daemon of its own.  One thing is varied in each table, the rest kept: the
 * objects that the dead held, or the size of the heap.  Linear in the one and flat in the other is what the design
 * promises; docs/recovery-cost.md has the figures of one machine.
 *
 * usage: tg-recovery [--json] [--quick] [--rounds N] [recovery|reserve|restart|stall...]
 */
#include <getopt.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

#define ROUNDS_MAX  99
#define OBJECT_SIZE 64

static unsigned rounds = 5;
static bool quick, as_json;
static json_t *result;

/* ---- what is measured ---- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values)
{
	qsort(values, rounds, sizeof(*values), by_value);
	return values[rounds / 2];
}

static struct bench_recovery recovery(uint64_t n_objects, bool reclaim, uint64_t reserve_gib)
{
	double exits[ROUNDS_MAX], settled[ROUNDS_MAX];
	unsigned i;

	for (i = 0; i < rounds; i++) {
		struct bench_holder holder = {
			.n_objects = n_objects, .size = OBJECT_SIZE, .reclaim = reclaim};
		struct bench_recovery r;
		struct bench b;

		bench_start(&b, reserve_gib);
		bench_hold(&holder);
		bench_watch(&b);
		r = bench_recover(&holder);
		bench_stop(&b);
		exits[i] = r.exit_ms;
		settled[i] = r.settled_ms;
	}
	return (struct bench_recovery){median(exits), median(settled)};
}

/* Negative: this daemon has no keeper. */
static double restart(uint64_t n_objects, uint64_t reserve_gib)
{
	double times[ROUNDS_MAX];
	unsigned i;

	for (i = 0; i < rounds; i++) {
		struct bench_holder holder = {.n_objects = n_objects, .size = OBJECT_SIZE};
		struct bench b;

		bench_start(&b, reserve_gib);
		bench_hold(&holder);
		times[i] = bench_restart(&b);
		bench_release(&holder);
		bench_stop(&b);
		if (times[i] < 0)
			return -1;
	}
	return median(times);
}

/* ---- tables ---- */

static void print_row(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void print_row(const char *format, ...)
{
	va_list args;

	if (as_json)
		return;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	fflush(stdout);
}

static void add(json_t *table, json_t *row)
{
	if (row == NULL || json_array_append_new(table, row) < 0)
		bench_die("out of memory");
}

static json_t *table(const char *name)
{
	json_t *array = json_array();

	if (json_object_set_new(result, name, array) < 0)
		bench_die("out of memory");
	return array;
}

static const uint64_t objects[] = {10, 100, 1000, 10000, 100000, 1000000, 10000000};
static const uint64_t reserves[] = {1, 2, 4, 8, 16, 64};

static unsigned n_objects(void)
{
	return sizeof(objects) / sizeof(objects[0]) - (quick ? 2 : 0);
}

static unsigned n_reserves(void)
{
	return sizeof(reserves) / sizeof(reserves[0]);
}

static uint64_t spans_of(uint64_t n)
{
	return (n * OBJECT_SIZE + 8191) / 8192;
}

/* Of the daemon's part.  Below a millisecond that is mostly the way of the news to two processes. */
static double ns_a_span(const struct bench_recovery *r, uint64_t n)
{
	double ms = r->settled_ms - r->exit_ms;

	return ms < 1 ? 0 : ms * 1e6 / (double)spans_of(n);
}

static void one_recovery(json_t *rows, uint64_t n, bool reclaim, uint64_t reserve)
{
	struct bench_recovery r = recovery(n, reclaim, reserve);

	print_row("%10llu %10llu %10llu  %-8s %10.3f %12.3f %10.0f\n", (unsigned long long)reserve,
		  (unsigned long long)n, (unsigned long long)spans_of(n),
		  reclaim ? "reclaim" : "keep", r.exit_ms, r.settled_ms, ns_a_span(&r, n));
	add(rows, json_pack("{s:I, s:I, s:I, s:b, s:f, s:f}", "reserve_gib", (json_int_t)reserve,
			    "objects", (json_int_t)n, "spans", (json_int_t)spans_of(n), "reclaim",
			    reclaim, "exit_ms", r.exit_ms, "settled_ms", r.settled_ms));
}

static void print_recovery_head(const char *what)
{
	print_row("\n%s\n%10s %10s %10s  %-8s %10s %12s %10s\n", what, "GiB", "objects", "spans",
		  "policy", "exit ms", "settled ms", "ns/span");
}

static void recovery_table(void)
{
	json_t *rows = table("recovery");
	unsigned i, reclaim;

	print_recovery_head("A client with objects of 64 bytes is killed");
	for (reclaim = 0; reclaim < 2; reclaim++) {
		for (i = 0; i < n_objects(); i++)
			one_recovery(rows, objects[i], reclaim, 64);
	}
}

static void reserve_table(void)
{
	uint64_t n = quick ? 10000 : 1000000;
	json_t *rows = table("recovery_reserve");
	unsigned i, reclaim;

	print_recovery_head("The same in heaps of different size");
	for (reclaim = 0; reclaim < 2; reclaim++) {
		for (i = 0; i < n_reserves(); i++)
			one_recovery(rows, n, reclaim, reserves[i]);
	}
}

static bool one_restart(json_t *rows, uint64_t n, uint64_t reserve)
{
	double ms = restart(n, reserve);

	if (ms < 0)
		return false;
	print_row("%10llu %10llu %10llu %12.3f\n", (unsigned long long)reserve,
		  (unsigned long long)n, (unsigned long long)spans_of(n), ms);
	add(rows, json_pack("{s:I, s:I, s:I, s:f}", "reserve_gib", (json_int_t)reserve, "objects",
			    (json_int_t)n, "spans", (json_int_t)spans_of(n), "restart_ms", ms));
	return true;
}

static void restart_table(void)
{
	uint64_t n = quick ? 10000 : 1000000;
	json_t *rows = table("restart");
	unsigned i;

	print_row("\nThe daemon is killed, until the next one answers\n%10s %10s %10s %12s\n",
		  "GiB", "objects", "spans", "restart ms");
	for (i = 0; i < n_objects(); i++) {
		if (!one_restart(rows, objects[i], 64)) {
			print_row("this daemon has no keeper: nothing to measure\n");
			return;
		}
	}
	for (i = 0; i < n_reserves(); i++)
		one_restart(rows, n, reserves[i]);
}

static void one_stall(json_t *rows, const char *work, const char *policy, const char *when,
		      const struct bench_stall *stall)
{
	print_row("%-10s %-8s %-8s %10llu %10.1f %10.1f %10.1f %10.1f\n", work, policy, when,
		  (unsigned long long)stall->n, stall->p50_us, stall->p99_us, stall->p999_us,
		  stall->max_us);
	add(rows,
	    json_pack("{s:s, s:s, s:s, s:I, s:f, s:f, s:f, s:f}", "work", work, "policy", policy,
		      "when", when, "n", (json_int_t)stall->n, "p50_us", stall->p50_us, "p99_us",
		      stall->p99_us, "p999_us", stall->p999_us, "max_us", stall->max_us));
}

/* The round whose longest stall is the median one. */
static int by_max(const void *a, const void *b)
{
	double x = ((const struct bench_stall *)a)[1].max_us;
	double y = ((const struct bench_stall *)b)[1].max_us;

	return (x > y) - (x < y);
}

static void stalls(json_t *rows, enum bench_work work, bool reclaim)
{
	struct bench_stall stall[ROUNDS_MAX][2];
	const char *name = work == BENCH_MALLOC ? "malloc" : "8 spans";
	const char *policy = reclaim ? "reclaim" : "keep";
	unsigned i;

	for (i = 0; i < rounds; i++) {
		struct bench_holder holder = {
			.n_objects = quick ? 10000 : 100000, .size = 8192, .reclaim = reclaim};
		struct bench b;

		bench_start(&b, 64);
		bench_hold(&holder);
		bench_survive(&b, &holder, work, &stall[i][0], &stall[i][1]);
		bench_stop(&b);
	}
	qsort(stall, rounds, sizeof(stall[0]), by_max);
	one_stall(rows, name, policy, "before", &stall[rounds / 2][0]);
	one_stall(rows, name, policy, "during", &stall[rounds / 2][1]);
}

static void stall_table(void)
{
	json_t *rows = table("stall");

	print_row("\nA survivor at work before and during the recovery of a client with %s spans\n"
		  "%-10s %-8s %-8s %10s %10s %10s %10s %10s\n",
		  quick ? "10,000" : "100,000", "work", "policy", "when", "n", "p50 us", "p99 us",
		  "p99.9 us", "max us");
	stalls(rows, BENCH_MALLOC, false);
	stalls(rows, BENCH_MALLOC, true);
	stalls(rows, BENCH_REQUESTS, false);
	stalls(rows, BENCH_REQUESTS, true);
}

/* ---- the command line ---- */

static void usage(void)
{
	fprintf(stderr, "usage: tg-recovery [--json] [--quick] [--rounds N] "
			"[recovery|reserve|restart|stall...]\n");
	exit(2);
}

static void run(const char *name)
{
	if (strcmp(name, "recovery") == 0)
		recovery_table();
	else if (strcmp(name, "reserve") == 0)
		reserve_table();
	else if (strcmp(name, "restart") == 0)
		restart_table();
	else if (strcmp(name, "stall") == 0)
		stall_table();
	else
		usage();
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"quick", no_argument, NULL, 'q'},
		{"rounds", required_argument, NULL, 'r'},
		{NULL, 0, NULL, 0},
	};
	static char *all[] = {"recovery", "reserve", "restart", "stall"};
	int option, i;

	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (option == 'j')
			as_json = true;
		else if (option == 'q')
			quick = true;
		else if (option == 'r')
			rounds = (unsigned)strtoul(optarg, NULL, 10);
		else
			usage();
	}
	if (rounds < 1 || rounds > ROUNDS_MAX)
		usage();
	result = json_object();
	if (result == NULL)
		bench_die("out of memory");
	for (i = 0; i < 4 && optind == argc; i++)
		run(all[i]);
	for (; optind < argc; optind++)
		run(argv[optind]);
	if (as_json) {
		json_dumpf(result, stdout, JSON_INDENT(1));
		printf("\n");
	}
	json_decref(result);
	return 0;
}
