/* scale.c - tg-scale: does what the daemon costs grow with the size of the heap, or with the number of clients?
 *
 * docs/performance-scale.md has the figures of one machine.
 *
 * usage: tg-scale [--json] [--quick] [--rounds N] [clients|page-heap|requests...]
 */
#include "bench/scale.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const struct part {
	const char *name;
	void (*run)(struct scale *scale);
} parts[] = {
	{"clients", scale_clients},
	{"page-heap", scale_pages},
	{"requests", scale_requests},
};
#define N_PARTS (sizeof(parts) / sizeof(parts[0]))

void scale_say(const struct scale *scale, const char *format, ...)
{
	va_list args;

	if (scale->as_json)
		return;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	fflush(stdout);
}

void scale_add(json_t *table, json_t *row)
{
	if (row == NULL || json_array_append_new(table, row) < 0)
		bench_die("out of memory");
}

json_t *scale_table(struct scale *scale, const char *name)
{
	json_t *array = json_array();

	if (json_object_set_new(scale->result, name, array) < 0)
		bench_die("out of memory");
	return array;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double scale_median(double *values, unsigned n)
{
	qsort(values, n, sizeof(*values), by_value);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void read_proc(pid_t pid, const char *name, char *text, size_t size)
{
	char path[64];
	size_t n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	f = fopen(path, "re");
	if (f != NULL) {
		n = fread(text, 1, size - 1, f);
		fclose(f);
	}
	text[n] = '\0';
}

uint64_t scale_memory_of(pid_t pid, const char *field)
{
	char text[4096];
	const char *at;

	read_proc(pid, "status", text, sizeof(text));
	at = strstr(text, field);
	return at == NULL ? 0 : strtoull(at + strlen(field) + 1, NULL, 10) * 1024;
}

double scale_cpu_s(pid_t pid)
{
	unsigned long long ns;
	char text[256];

	/* What the scheduler counts, and not ticks. */
	read_proc(pid, "schedstat", text, sizeof(text));
	if (sscanf(text, "%llu", &ns) != 1)
		bench_die("/proc/PID/schedstat cannot be read");
	return (double)ns / 1e9;
}

static void usage(void)
{
	fprintf(stderr, "usage: tg-scale [--json] [--quick] [--rounds N] "
			"[clients|page-heap|requests...]\n");
	exit(2);
}

static const struct part *part_of(const char *name)
{
	unsigned i;

	for (i = 0; i < N_PARTS; i++) {
		if (strcmp(parts[i].name, name) == 0)
			return &parts[i];
	}
	usage();
	return NULL;
}

/* Two files a client in the daemon, and one here.  As root, more than root is given at first. */
static void raise_open_files(void)
{
	struct rlimit limit = {.rlim_cur = 40000, .rlim_max = 40000};

	if (setrlimit(RLIMIT_NOFILE, &limit) == 0 || getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"quick", no_argument, NULL, 'q'},
		{"rounds", required_argument, NULL, 'r'},
		{NULL, 0, NULL, 0},
	};
	struct scale scale = {.rounds = 3, .result = json_object()};
	int option, i;

	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (option == 'j')
			scale.as_json = true;
		else if (option == 'q')
			scale.quick = true;
		else if (option == 'r')
			scale.rounds = (unsigned)strtoul(optarg, NULL, 10);
		else
			usage();
	}
	if (scale.rounds < 1 || scale.rounds > SCALE_ROUNDS_MAX)
		usage();
	if (scale.result == NULL)
		bench_die("out of memory");
	for (i = optind; i < argc; i++)
		part_of(argv[i]);
	raise_open_files();
	for (i = 0; i < (int)N_PARTS && optind == argc; i++)
		parts[i].run(&scale);
	for (i = optind; i < argc; i++)
		part_of(argv[i])->run(&scale);
	if (scale.as_json) {
		json_dumpf(scale.result, stdout, JSON_INDENT(1));
		printf("\n");
	}
	json_decref(scale.result);
	return 0;
}
