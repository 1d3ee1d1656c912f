/* tgbench.h - the driver: what is measured on whom, and what came out.
 *
 * A cell is one workload with its parameters; a metric is one figure of a cell, and a line of the table; a run is one
 * cell on one allocator in one round, in a process of its own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>
#include <time.h>

#define TGB_METRICS    5 /* with the end of the list */
#define TGB_ALLOCATORS 24
#define TGB_ROUNDS     99
#define TGB_CELLS      120

enum tgb_kind {
	TGB_PRIVATE, /* a malloc: the worker, with a library preloaded or none */
	TGB_SELF,    /* libtg */
	TGB_PRELOAD, /* libtgmalloc.so preloaded */
	TGB_SHARED,  /* shared heaps of others */
	TGB_GO,
	TGB_N_KINDS,
};

struct tgb_allocator {
	const char *name;
	enum tgb_kind kind;
	const char *worker;  /* its program, beside ours */
	const char *preload; /* or NULL */
	const char *setting; /* of the environment, or NULL */
	const char *missing; /* why it cannot be measured; NULL: it can */
	bool wanted;
};

struct tgb_metric {
	const char *key, *unit;
};

struct tgb_cell {
	const char *workload, *name;
	const char *args; /* the worker's: its workload, and name=value */
	unsigned kinds;   /* a bit for each kind that can do it */
	bool two_cores;
	double deadline_s;                /* on top of the time that was asked for */
	const struct tgb_metric *metrics; /* the last one has no key */
	double fresh_bytes; /* that it touches for the first time; 0: it does not matter */
};

enum tgb_outcome {
	TGB_NOT_RUN,
	TGB_OK,
	TGB_FAILED, /* ended with an error, which it has printed */
	TGB_CRASHED,
	TGB_HUNG,
};

struct tgb_run {
	enum tgb_outcome outcome;
	bool far;       /* two_cores: how the cores were placed */
	bool moved;     /* and this changed during the run */
	bool disturbed; /* other programs had the CPU for too long */
	double values[TGB_METRICS];
	double n_ops, wall_s, cpu_s, daemon_s, messages;
	double kept_s;  /* it could have run, but other programs had the CPU */
	double ready_s; /* it took to have fresh_bytes at hand; -1: that failed */
	char error[120];
};

/* A figure of a cell over the rounds. */
struct tgb_figure {
	unsigned n; /* rounds that count; 0: there is no figure */
	double median, best, worst;
};

struct tgb_bench {
	struct tgb_allocator allocators[TGB_ALLOCATORS];
	unsigned n_allocators;
	struct tgb_cell cells[TGB_CELLS]; /* those that are wanted */
	unsigned n_cells;
	unsigned rounds;
	double seconds;
	bool quick;
	bool no_plt;   /* private allocators are called without the linkage table */
	int cpu, cpu2; /* of single-core work; the second of two */
	int n_cpus;
	double ping_us; /* the last one measured; 0: never */
	struct tgb_run *runs;
};

/* cells.c */
extern const struct tgb_cell tgb_all_cells[];
extern const unsigned tgb_n_all_cells;

/* allocators.c: those that are known, and which of them are here. */
void tgb_allocators_init(struct tgb_bench *b);
/* "NAME=FILE": another library to preload. */
bool tgb_allocators_add(struct tgb_bench *b, const char *text);
/* The private ones known so far are called without the linkage table, as tg.h has it for libtg. */
void tgb_allocators_without_plt(struct tgb_bench *b);
void tgb_allocators_probe(struct tgb_bench *b);
/* The path of something that was built: an environment variable, or relative to our own program. */
const char *tgb_built(const char *variable, const char *relative);

/* Seconds on a clock that only goes on. */
static inline double tgb_now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* run.c */
void tgb_run_cell(struct tgb_bench *b, const struct tgb_cell *cell, const struct tgb_allocator *a,
		  struct tgb_run *ret_run);
/* Can the worker be started with the library?  NULL, or why not. */
const char *tgb_run_probe(const struct tgb_allocator *a);

/* pingpong.c: microseconds for there and back between two CPUs, the median. */
double tgb_pingpong_us(int cpu, int cpu2);
#define TGB_NEAR_US 0.22

/* ready.c: so much memory is taken from the machine, until it is given back (take with another size and the end of our
 * process do that, too).  How many seconds it took, though it is held already; -1: it cannot be had. */
double tgb_ready_take(size_t bytes);
void tgb_ready_give(void);

/* results.c */
struct tgb_run *tgb_run_at(const struct tgb_bench *b, unsigned cell, unsigned allocator,
			   unsigned round);
/* Of the runs that count: for two_cores those of the mode that most runs had. */
struct tgb_figure tgb_figure(const struct tgb_bench *b, unsigned cell, unsigned metric,
			     unsigned allocator);
/* Was most of this cell measured with the cores far apart? */
bool tgb_mostly_far(const struct tgb_bench *b, unsigned cell);
/* The lowest median of the allocators of that kind; *ret_who may be NULL.  0: there is none. */
double tgb_best(const struct tgb_bench *b, unsigned cell, unsigned metric, enum tgb_kind kind,
		int *ret_who);
int tgb_find_allocator(const struct tgb_bench *b, const char *name);
/* Index of a cell, and of its metric; -1: not measured. */
int tgb_find_cell(const struct tgb_bench *b, const char *workload, const char *name);
int tgb_find_metric(const struct tgb_cell *cell, const char *key);
/* Together's messages for each 10,000 operations, and the daemon's processor time as a part of the workload's: medians.
 * False: nothing was measured. */
bool tgb_daemon_load(const struct tgb_bench *b, unsigned cell, double *ret_messages,
		     double *ret_cpu);

/* targets.c: the figures to reach. */
struct tgb_target {
	const char *what, *how;
	double reach; /* the limit */
	bool at_least;
	double value;
	unsigned n; /* figures that it was made from; 0: not measured */
};
#define TGB_TARGETS 32
unsigned tgb_targets(const struct tgb_bench *b, struct tgb_target targets[TGB_TARGETS]);
bool tgb_target_hit(const struct tgb_target *target);

/* table.c, json.c, svg.c: the reports. */
void tgb_table(const struct tgb_bench *b, FILE *to);
int tgb_json(const struct tgb_bench *b, const char *path);
int tgb_svg(const struct tgb_bench *b, const char *path);

void tgb_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
