/* targets.c - the figures to reach, each from the medians of one run: what was reached, and against what limit.
 *
 * "The best" is, line by line of the table, the private allocator with the lowest median there; several lines are brought
 * together by the geometric mean of their ratios.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/tgbench/tgbench.h"

struct mean {
	double logs;
	unsigned n;
};

struct context {
	const struct tgb_bench *b;
	struct tgb_target *targets;
	unsigned n;
	int self;
};

static void take(struct mean *mean, double ratio)
{
	if (ratio > 0) {
		mean->logs += log(ratio);
		mean->n++;
	}
}

static void add(struct context *c, const char *what, const char *how, double reach, bool at_least,
		struct mean mean)
{
	struct tgb_target *t = &c->targets[c->n++];

	*t = (struct tgb_target){
		.what = what, .how = how, .reach = reach, .at_least = at_least, .n = mean.n};
	if (mean.n > 0)
		t->value = exp(mean.logs / mean.n);
}

/* A figure of ours, 0 if there is none. */
static double figure(const struct context *c, int allocator, const char *workload, const char *name,
		     const char *key)
{
	int cell = tgb_find_cell(c->b, workload, name), metric;

	if (cell < 0 || allocator < 0)
		return 0;
	metric = tgb_find_metric(&c->b->cells[cell], key);
	return metric < 0 ? 0
			  : tgb_figure(c->b, (unsigned)cell, (unsigned)metric, (unsigned)allocator)
				    .median;
}

static double ratio_to_best(const struct context *c, const char *workload, const char *name,
			    const char *key)
{
	double ours = figure(c, c->self, workload, name, key), best;
	int cell = tgb_find_cell(c->b, workload, name);

	if (ours <= 0)
		return 0;
	best = tgb_best(c->b, (unsigned)cell, (unsigned)tgb_find_metric(&c->b->cells[cell], key),
			TGB_PRIVATE, NULL);
	return best > 0 ? ours / best : 0;
}

/* The names are separated by spaces. */
static struct mean to_best(const struct context *c, const char *workload, const char *names,
			   const char *key)
{
	char *copy = strdup(names), *rest = NULL, *name;
	struct mean mean = {0};

	for (name = strtok_r(copy, " ", &rest); name != NULL; name = strtok_r(NULL, " ", &rest))
		take(&mean, ratio_to_best(c, workload, name, key));
	free(copy);
	return mean;
}

/* How many times as long the other one takes. */
static struct mean times_faster(const struct context *c, const char *other, const char *workload,
				const char *names)
{
	int who = tgb_find_allocator(c->b, other);
	char *copy = strdup(names), *rest = NULL, *name;
	struct mean mean = {0};

	for (name = strtok_r(copy, " ", &rest); name != NULL; name = strtok_r(NULL, " ", &rest)) {
		double ours = figure(c, c->self, workload, name, "ns");

		if (ours > 0)
			take(&mean, figure(c, who, workload, name, "ns") / ours);
	}
	free(copy);
	return mean;
}

static struct mean inverse(struct mean mean)
{
	mean.logs = -mean.logs;
	return mean;
}

static struct mean of_self(const struct context *c, const char *workload, const char *names,
			   const char *key)
{
	char *copy = strdup(names), *rest = NULL, *name;
	struct mean mean = {0};

	for (name = strtok_r(copy, " ", &rest); name != NULL; name = strtok_r(NULL, " ", &rest))
		take(&mean, figure(c, c->self, workload, name, key));
	free(copy);
	return mean;
}

static bool is_small(const struct tgb_cell *cell)
{
	return strcmp(cell->workload, "pair") == 0 || strcmp(cell->workload, "churn") == 0 ||
	       strcmp(cell->workload, "larson") == 0 || strcmp(cell->workload, "prodcons") == 0 ||
	       strcmp(cell->workload, "twoproc") == 0;
}

/* The worst of the small-object workloads: no mean here. */
static void add_daemon(struct context *c)
{
	double messages, cpu, worst_messages = 0, worst_cpu = 0;
	unsigned cell, n = 0;

	for (cell = 0; cell < c->b->n_cells; cell++) {
		if (!is_small(&c->b->cells[cell]) || !tgb_daemon_load(c->b, cell, &messages, &cpu))
			continue;
		worst_messages = fmax(worst_messages, messages);
		worst_cpu = fmax(worst_cpu, cpu);
		n++;
	}
	c->targets[c->n++] =
		(struct tgb_target){.what = "messages for 10,000 operations, the worst line",
				    .how = "<",
				    .reach = 1,
				    .value = worst_messages,
				    .n = n};
	c->targets[c->n++] =
		(struct tgb_target){.what = "daemon CPU, part of the workload's, the worst line",
				    .how = "<",
				    .reach = 0.02,
				    .value = worst_cpu,
				    .n = n};
}

unsigned tgb_targets(const struct tgb_bench *b, struct tgb_target targets[TGB_TARGETS])
{
	struct context c = {.b = b, .targets = targets, .self = tgb_find_allocator(b, "together")};
	static const char *const tiny = "100x1 100x2 100x4 100x5 100x7 100x8 100x12 100x15";
	static const char *const best = "x the best";

	add(&c, "(a) pairs 16..1024 B, batches of 100", best, 1, false,
	    to_best(&c, "pair", "100x16 100x24 100x64 100x256 100x1024", "ns"));
	add(&c, "(a) pairs 16..1024 B, batches of 10,000", best, 1, false,
	    to_best(&c, "pair", "10000x16 10000x24 10000x64 10000x256 10000x1024", "ns"));
	add(&c, "(a) pairs 4 KiB and 16 KiB, batches of 100", best, 1, false,
	    to_best(&c, "pair", "100x4096 100x16384", "ns"));
	add(&c, "(a) pairs 4 KiB and 16 KiB, batches of 10,000", best, 1, false,
	    to_best(&c, "pair", "10000x4096 10000x16384", "ns"));
	add(&c, "tiny 1..15 B against Go's mallocgc alone", "x Go", 0.6, false,
	    inverse(times_faster(&c, "go", "pair", tiny)));
	add(&c, "tiny 1..15 B, batches of 100", best, 1, false, to_best(&c, "pair", tiny, "ns"));
	add(&c, "tiny 1..15 B, batches of 10,000", best, 1, false,
	    to_best(&c, "pair", "10000x1 10000x5 10000x8 10000x12", "ns"));
	add(&c, "tiny: bytes of heap for a live 8-byte object", "bytes", 9.5, false,
	    of_self(&c, "tinymix", "8", "object_bytes"));
	add(&c, "(b) churn, 5,000 live, to 1 KiB", best, 1, false,
	    to_best(&c, "churn", "5000x1K", "ns"));
	add(&c, "(b) churn, 100,000 live, to 1 KiB", best, 1, false,
	    to_best(&c, "churn", "100000x1K", "ns"));
	add(&c, "(b) churn, 5,000 live, to 32 KiB", best, 1, false,
	    to_best(&c, "churn", "5000x32K", "ns"));
	add(&c, "(b) churn, 100,000 live, to 32 KiB", best, 1, false,
	    to_best(&c, "churn", "100000x32K", "ns"));
	add(&c, "(c) larson, two threads that swap", best, 1, false,
	    to_best(&c, "larson", "swap", "ns"));
	add(&c, "(c) larson, a new thread each turn", best, 1, false,
	    to_best(&c, "larson", "new-threads", "ns"));
	add(&c, "(d) producer/consumer, 64 B", best, 1, false, to_best(&c, "prodcons", "64", "ns"));
	add(&c, "(d) producer/consumer, 16..1024 B", best, 1, false,
	    to_best(&c, "prodcons", "16..1024", "ns"));
	add(&c, "(e) two processes against one alone", "x alone", 1.05, false,
	    of_self(&c, "twoproc", "16 64 256 1024", "slowdown"));
	add(&c, "Boost.Interprocess, (a) pairs 16..1024 B", "x faster", 15, true,
	    times_faster(&c, "boost", "pair", "100x16 100x64 100x256 100x1024"));
	add(&c, "Boost.Interprocess, (b) churn", "x faster", 25, true,
	    times_faster(&c, "boost", "churn", "5000x1K 100000x1K 5000x32K 100000x32K"));
	add(&c, "Boost.Interprocess, (e) two processes", "x faster", 150, true,
	    times_faster(&c, "boost", "twoproc", "16 64 256 1024"));
	add(&c, "Boost.Interprocess, (d) producer/consumer", "x faster", 25, true,
	    times_faster(&c, "boost", "prodcons", "64 16..1024"));
	add(&c, "(f) large, reuse", best, 1, false,
	    to_best(&c, "large", "reuse-64K reuse-1M reuse-16M reuse8-64K reuse8-1M reuse8-16M",
		    "ns"));
	add(&c, "(j) fresh growth, 1 KiB objects", best, 1.1, false,
	    to_best(&c, "growth", "1K", "ns_kib"));
	add(&c, "(j) fresh growth, mixed objects", best, 1.1, false,
	    to_best(&c, "growth", "64..16K", "ns_kib"));
	add(&c, "(l) footprint, the end of (b)", best, 1.05, false,
	    to_best(&c, "churn", "5000x1K 100000x1K 5000x32K 100000x32K", "footprint"));
	add(&c, "(l) footprint, after 60 phases", best, 1.05, false,
	    to_best(&c, "footprint", "60-phases", "footprint"));
	add_daemon(&c);
	return c.n;
}

bool tgb_target_hit(const struct tgb_target *t)
{
	if (strcmp(t->how, "<") == 0)
		return t->value < t->reach;
	return t->at_least ? t->value >= t->reach : t->value <= t->reach;
}
