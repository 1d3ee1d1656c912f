/* results.c - from runs to figures: medians over the rounds, the best of a kind, and what the daemon had to do.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/tgbench/tgbench.h"

struct tgb_run *tgb_run_at(const struct tgb_bench *b, unsigned cell, unsigned allocator,
			   unsigned round)
{
	return &b->runs[((size_t)cell * b->n_allocators + allocator) * b->rounds + round];
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, unsigned n)
{
	qsort(values, n, sizeof(*values), by_value);
	return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

bool tgb_mostly_far(const struct tgb_bench *b, unsigned cell)
{
	unsigned a, r;
	int n = 0;

	for (a = 0; a < b->n_allocators; a++) {
		for (r = 0; r < b->rounds; r++) {
			const struct tgb_run *run = tgb_run_at(b, cell, a, r);

			if (run->outcome == TGB_OK && !run->moved)
				n += run->far ? 1 : -1;
		}
	}
	return n > 0;
}

static bool counts(const struct tgb_bench *b, unsigned cell, const struct tgb_run *run)
{
	if (run->outcome != TGB_OK)
		return false;
	return !b->cells[cell].two_cores || (!run->moved && run->far == tgb_mostly_far(b, cell));
}

struct tgb_figure tgb_figure(const struct tgb_bench *b, unsigned cell, unsigned metric,
			     unsigned allocator)
{
	struct tgb_figure f = {0};
	double values[TGB_ROUNDS];
	unsigned r;

	for (r = 0; r < b->rounds; r++) {
		const struct tgb_run *run = tgb_run_at(b, cell, allocator, r);

		if (counts(b, cell, run) && run->values[metric] >= 0)
			values[f.n++] = run->values[metric];
	}
	if (f.n == 0)
		return f;
	f.median = median(values, f.n);
	f.best = values[0];
	f.worst = values[f.n - 1];
	return f;
}

double tgb_best(const struct tgb_bench *b, unsigned cell, unsigned metric, enum tgb_kind kind,
		int *ret_who)
{
	double best = 0;
	unsigned a;

	if (ret_who != NULL)
		*ret_who = -1;
	for (a = 0; a < b->n_allocators; a++) {
		struct tgb_figure f = {0};

		if (b->allocators[a].kind == kind)
			f = tgb_figure(b, cell, metric, a);
		if (f.n > 0 && (best == 0 || f.median < best)) {
			best = f.median;
			if (ret_who != NULL)
				*ret_who = (int)a;
		}
	}
	return best;
}

int tgb_find_allocator(const struct tgb_bench *b, const char *name)
{
	unsigned a;

	for (a = 0; a < b->n_allocators; a++) {
		if (strcmp(b->allocators[a].name, name) == 0)
			return (int)a;
	}
	return -1;
}

int tgb_find_cell(const struct tgb_bench *b, const char *workload, const char *name)
{
	unsigned c;

	for (c = 0; c < b->n_cells; c++) {
		if (strcmp(b->cells[c].workload, workload) == 0 &&
		    strcmp(b->cells[c].name, name) == 0)
			return (int)c;
	}
	return -1;
}

int tgb_find_metric(const struct tgb_cell *cell, const char *key)
{
	int m;

	for (m = 0; cell->metrics[m].key != NULL; m++) {
		if (strcmp(cell->metrics[m].key, key) == 0)
			return m;
	}
	return -1;
}

bool tgb_daemon_load(const struct tgb_bench *b, unsigned cell, double *ret_messages,
		     double *ret_cpu)
{
	int self = tgb_find_allocator(b, "together");
	double messages[TGB_ROUNDS], cpu[TGB_ROUNDS];
	unsigned r, n = 0;

	for (r = 0; self >= 0 && r < b->rounds; r++) {
		const struct tgb_run *run = tgb_run_at(b, cell, (unsigned)self, r);

		if (run->outcome != TGB_OK || run->n_ops <= 0 || run->cpu_s <= 0)
			continue;
		messages[n] = run->messages / run->n_ops * 1e4;
		cpu[n++] = run->daemon_s / run->cpu_s;
	}
	if (n == 0)
		return false;
	*ret_messages = median(messages, n);
	*ret_cpu = median(cpu, n);
	return true;
}
