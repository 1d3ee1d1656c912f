/* main.c - tgbench: every workload on every allocator that is here, side by side in one run.
 *
 * In each round, and for each line, the allocators take turns, beginning with another one each round; so what the machine
 * does in the meantime hits them all.  What counts is the median of the rounds.
 *
 * usage: see below, and docs/benchmarks.md.
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench/tgbench/tgbench.h"

#define TRIES 4

enum { QUICK = 256, NO_PLT, LIST, JSON, SVG, PEER, ROUNDS, SECONDS, CPU };

static const char *json_path, *svg_path, *workloads, *allocators;
static bool list_only;
static struct tgb_bench bench = {.cpu = -1, .cpu2 = -1};

void tgb_fail(const char *format, ...)
{
	va_list args;

	fputs("tgbench: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(EXIT_FAILURE);
}

static void usage(FILE *to)
{
	fputs("usage: tgbench [OPTION...]\n"
	      "  -w, --workload NAME[,...]    only these: a workload, or a line of it "
	      "(pair/100x64)\n"
	      "  -a, --allocator NAME[,...]   only these\n"
	      "      --peer NAME=FILE.so      another private allocator, to be preloaded\n"
	      "      --no-plt                 call private allocators without the linkage table, "
	      "too\n"
	      "      --rounds N               how often each is measured (5; with --quick 1)\n"
	      "      --seconds S              how long a timed part takes (0.3; with --quick "
	      "0.05)\n"
	      "      --quick                  one short round, with a tenth of the memory\n"
	      "      --cpu N                  for what runs on one CPU (the last one)\n"
	      "      --json FILE              all figures\n"
	      "      --svg FILE               a chart, drawn by gnuplot\n"
	      "  -l, --list                   what can be measured, and on whom\n",
	      to);
}

static void wrong(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void wrong(const char *format, ...)
{
	va_list args;

	fputs("tgbench: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputs("\n", stderr);
	usage(stderr);
	exit(2);
}

static double number(const char *option, const char *text, double lo, double hi)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end != '\0' || !(value >= lo && value <= hi))
		wrong("%s takes a number from %g to %g, not \"%s\"", option, lo, hi, text);
	return value;
}

static unsigned whole(const char *option, const char *text, double lo, double hi)
{
	double value = number(option, text, lo, hi);

	if (value != (unsigned)value)
		wrong("%s takes a whole number, not \"%s\"", option, text);
	return (unsigned)value;
}

/* ---- which cells and allocators ---- */

/* Is one of the comma-separated words either of these? */
static bool names(const char *words, const char *name, const char *full)
{
	const char *word, *end;

	for (word = words;; word = end + 1) {
		size_t n;

		end = strchrnul(word, ',');
		n = (size_t)(end - word);
		if ((strlen(name) == n && strncmp(word, name, n) == 0) ||
		    (full != NULL && strlen(full) == n && strncmp(word, full, n) == 0))
			return true;
		if (*end == '\0')
			return false;
	}
}

static void choose_cells(void)
{
	char full[64];
	unsigned i;

	for (i = 0; i < tgb_n_all_cells; i++) {
		const struct tgb_cell *cell = &tgb_all_cells[i];

		snprintf(full, sizeof(full), "%s/%s", cell->workload, cell->name);
		if (workloads == NULL || names(workloads, cell->workload, full))
			bench.cells[bench.n_cells++] = *cell;
	}
}

/* Every word must name something. */
static void check_words(const char *option, const char *words, bool (*is_known)(const char *word))
{
	char *copy = strdup(words), *rest = NULL, *word;
	bool any = false;

	for (word = strtok_r(copy, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
		if (!is_known(word))
			wrong("%s: there is no \"%s\"; --list tells what there is", option, word);
		any = true;
	}
	if (!any)
		wrong("%s needs a name", option);
	free(copy);
}

static bool is_workload(const char *word)
{
	char full[64];
	unsigned i;

	for (i = 0; i < tgb_n_all_cells; i++) {
		snprintf(full, sizeof(full), "%s/%s", tgb_all_cells[i].workload,
			 tgb_all_cells[i].name);
		if (strcmp(word, tgb_all_cells[i].workload) == 0 || strcmp(word, full) == 0)
			return true;
	}
	return false;
}

static bool is_allocator(const char *word)
{
	return tgb_find_allocator(&bench, word) >= 0;
}

static void choose(void)
{
	unsigned i;

	if (workloads != NULL)
		check_words("--workload", workloads, is_workload);
	if (allocators != NULL)
		check_words("--allocator", allocators, is_allocator);
	choose_cells();
	for (i = 0; i < bench.n_allocators; i++) {
		struct tgb_allocator *a = &bench.allocators[i];

		a->wanted = allocators == NULL || names(allocators, a->name, NULL);
	}
	tgb_allocators_probe(&bench);
}

static void list(void)
{
	const char *last = "";
	unsigned i;

	puts("workloads:");
	for (i = 0; i < bench.n_cells; i++) {
		const struct tgb_cell *cell = &bench.cells[i];

		if (strcmp(last, cell->workload) != 0)
			printf("%s  %-10s", *last != '\0' ? "\n" : "", cell->workload);
		printf(" %s", cell->name);
		last = cell->workload;
	}
	puts("\nallocators:");
	for (i = 0; i < bench.n_allocators; i++) {
		const struct tgb_allocator *a = &bench.allocators[i];

		if (a->wanted)
			printf("  %-12s %s%s\n", a->name, a->missing != NULL ? "not here: " : "",
			       a->missing != NULL ? a->missing : "here");
	}
}

/* ---- the run ---- */

static bool can(const struct tgb_allocator *a, const struct tgb_cell *cell)
{
	return a->wanted && a->missing == NULL && (cell->kinds & 1u << a->kind) != 0;
}

static void progress(unsigned round, unsigned cell, const char *who, double started)
{
	const struct tgb_cell *c = &bench.cells[cell];
	unsigned done = round * bench.n_cells + cell, all = bench.rounds * bench.n_cells;
	char left[32] = "";

	if (done > 0)
		snprintf(left, sizeof(left), "; %.0f s to go",
			 (tgb_now_s() - started) / done * (all - done));
	/* On a terminal one line that changes; else a line for each line of the table. */
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[Kround %u of %u: %s %s, %s%s", round + 1, bench.rounds,
			c->workload, c->name, who != NULL ? who : "", left);
	else if (who == NULL)
		fprintf(stderr, "== round %u of %u: %s %s%s\n", round + 1, bench.rounds,
			c->workload, c->name, left);
	fflush(stderr);
}

static bool is_better(const struct tgb_run *run, const struct tgb_run *than)
{
	if (run->outcome != than->outcome)
		return run->outcome == TGB_OK;
	if (run->moved != than->moved)
		return than->moved;
	return run->kept_s * than->wall_s < than->kept_s * run->wall_s;
}

/* Again if the cores were moved in the meantime, or other programs ran on them; what is kept does not depend on what was
 * measured. */
static void measure_run(const struct tgb_cell *cell, const struct tgb_allocator *a,
			struct tgb_run *ret_run)
{
	struct tgb_run run;
	unsigned tries;

	for (tries = 0; tries < (bench.quick ? 1 : TRIES); tries++) {
		tgb_run_cell(&bench, cell, a, &run);
		if (tries == 0 || is_better(&run, ret_run))
			*ret_run = run;
		if (run.outcome != TGB_OK || (!run.moved && !run.disturbed))
			return;
	}
}

/* It would take as long again: once is enough. */
static bool has_hung(unsigned cell, unsigned a, unsigned round)
{
	unsigned r;

	for (r = 0; r < round; r++) {
		if (tgb_run_at(&bench, cell, a, r)->outcome == TGB_HUNG)
			return true;
	}
	return false;
}

static void measure_cell(unsigned round, unsigned cell, double started)
{
	unsigned i;

	progress(round, cell, NULL, started);
	for (i = 0; i < bench.n_allocators; i++) {
		unsigned a = (i + round + cell) % bench.n_allocators;

		if (!can(&bench.allocators[a], &bench.cells[cell]) || has_hung(cell, a, round))
			continue;
		progress(round, cell, bench.allocators[a].name, started);
		measure_run(&bench.cells[cell], &bench.allocators[a],
			    tgb_run_at(&bench, cell, a, round));
	}
}

static void measure(void)
{
	double started = tgb_now_s();
	unsigned round, cell;

	bench.runs = calloc((size_t)bench.n_cells * bench.n_allocators * bench.rounds,
			    sizeof(*bench.runs));
	if (bench.runs == NULL)
		tgb_fail("out of memory");
	for (round = 0; round < bench.rounds; round++) {
		for (cell = 0; cell < bench.n_cells; cell++)
			measure_cell(round, cell, started);
	}
	tgb_ready_give();
	fprintf(stderr, "%smeasured in %.0f s\n",
		isatty(STDERR_FILENO) ? "\r\033[K" : "== ", tgb_now_s() - started);
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {
		{"workload", required_argument, NULL, 'w'},
		{"allocator", required_argument, NULL, 'a'},
		{"list", no_argument, NULL, 'l'},
		{"help", no_argument, NULL, 'h'},
		{"quick", no_argument, NULL, QUICK},
		{"no-plt", no_argument, NULL, NO_PLT},
		{"json", required_argument, NULL, JSON},
		{"svg", required_argument, NULL, SVG},
		{"peer", required_argument, NULL, PEER},
		{"rounds", required_argument, NULL, ROUNDS},
		{"seconds", required_argument, NULL, SECONDS},
		{"cpu", required_argument, NULL, CPU},
		{0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "w:a:lh", options, NULL)) != -1) {
		switch (c) {
		case 'w':
			workloads = optarg;
			break;
		case 'a':
			allocators = optarg;
			break;
		case 'l':
			list_only = true;
			break;
		case 'h':
			usage(stdout);
			exit(EXIT_SUCCESS);
		case NO_PLT:
			bench.no_plt = true;
			break;
		case QUICK:
			bench.quick = true;
			break;
		case JSON:
			json_path = optarg;
			break;
		case SVG:
			svg_path = optarg;
			break;
		case PEER:
			if (!tgb_allocators_add(&bench, optarg))
				wrong("--peer takes NAME=FILE with a new name, not \"%s\"", optarg);
			break;
		case ROUNDS:
			bench.rounds = whole("--rounds", optarg, 1, TGB_ROUNDS);
			break;
		case SECONDS:
			bench.seconds = number("--seconds", optarg, 0.001, 60);
			break;
		case CPU:
			bench.cpu = (int)whole("--cpu", optarg, 0, bench.n_cpus - 1);
			break;
		default:
			usage(stderr);
			exit(2);
		}
	}
	if (optind < argc)
		wrong("\"%s\" is too much", argv[optind]);
}

static void defaults(void)
{
	if (bench.rounds == 0)
		bench.rounds = bench.quick ? 1 : 5;
	if (bench.seconds == 0)
		bench.seconds = bench.quick ? 0.05 : 0.3;
	if (bench.cpu < 0)
		bench.cpu = bench.n_cpus - 1;
	bench.cpu2 = bench.n_cpus > 1 ? 1 : 0;
	/* Whom a dead daemon or worker leaves behind becomes our child. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	setenv("TGD", tgb_built("TGD", "../../daemon/tgd"), 1);
	setenv("TGCTL", tgb_built("TGCTL", "../../client/ctl/tgctl"), 1);
	unsetenv("TG_SOCKET");
	unsetenv("LD_PRELOAD");
}

int main(int argc, char **argv)
{
	int failed = 0;

	bench.n_cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
	tgb_allocators_init(&bench);
	parse(argc, argv);
	defaults();
	if (bench.no_plt)
		tgb_allocators_without_plt(&bench);
	choose();
	if (list_only) {
		list();
		return EXIT_SUCCESS;
	}
	measure();
	tgb_table(&bench, stdout);
	if (json_path != NULL && tgb_json(&bench, json_path) < 0) {
		fprintf(stderr, "tgbench: %s cannot be written\n", json_path);
		failed = 1;
	}
	if (svg_path != NULL && tgb_svg(&bench, svg_path) < 0) {
		fprintf(stderr, "tgbench: %s cannot be drawn; is gnuplot here?\n", svg_path);
		failed = 1;
	}
	return failed;
}
