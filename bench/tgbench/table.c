/* table.c - the report for people: a table for each workload, what failed, what the daemon had to do, and the figures to
 * reach.
 */
#include <string.h>

#include "bench/tgbench/tgbench.h"

static void cell_text(const struct tgb_bench *b, unsigned cell, unsigned metric, unsigned a,
		      char *text, size_t size)
{
	static const char *const said[] = {"-", "moved", "failed", "crashed", "hung"};
	struct tgb_figure f = tgb_figure(b, cell, metric, a);
	enum tgb_outcome worst = TGB_NOT_RUN;
	unsigned r;

	if (f.n > 0) {
		snprintf(text, size,
			 f.median < 100    ? "%.2f"
			 : f.median < 1000 ? "%.1f"
					   : "%.0f",
			 f.median);
		return;
	}
	for (r = 0; r < b->rounds; r++) {
		const struct tgb_run *run = tgb_run_at(b, cell, a, r);

		if (run->outcome > worst)
			worst = run->outcome;
	}
	/* Measured, but not in the mode that counts: or it is a figure that this one has not. */
	if (worst == TGB_OK && !b->cells[cell].two_cores)
		worst = TGB_NOT_RUN;
	snprintf(text, size, "%s", said[worst]);
}

static bool has_any(const struct tgb_bench *b, const char *workload, unsigned a)
{
	unsigned c, r;

	for (c = 0; c < b->n_cells; c++) {
		for (r = 0; strcmp(b->cells[c].workload, workload) == 0 && r < b->rounds; r++) {
			if (tgb_run_at(b, c, a, r)->outcome != TGB_NOT_RUN)
				return true;
		}
	}
	return false;
}

static void head(const struct tgb_bench *b, const char *workload, FILE *to)
{
	unsigned a;

	fprintf(to, "\n%-10s %-16s %-10s", workload, "", "");
	for (a = 0; a < b->n_allocators; a++) {
		if (has_any(b, workload, a))
			fprintf(to, " %10s", b->allocators[a].name);
	}
	fprintf(to, " %11s %10s\n", "best", "ratio");
}

static void line(const struct tgb_bench *b, unsigned c, unsigned m, FILE *to)
{
	const struct tgb_cell *cell = &b->cells[c];
	int self = tgb_find_allocator(b, "together"), who;
	double best = tgb_best(b, c, m, TGB_PRIVATE, &who);
	struct tgb_figure ours = tgb_figure(b, c, m, (unsigned)self), theirs = {0};
	unsigned a;

	if (who >= 0)
		theirs = tgb_figure(b, c, m, (unsigned)who);
	fprintf(to, "%-10s %-16s %-10s", "", m == 0 ? cell->name : "", cell->metrics[m].unit);
	for (a = 0; a < b->n_allocators; a++) {
		char text[32];

		if (!has_any(b, cell->workload, a))
			continue;
		cell_text(b, c, m, a, text, sizeof(text));
		fprintf(to, " %10s", text);
	}
	if (who < 0)
		fprintf(to, " %11s", "-");
	else
		fprintf(to, " %11s", b->allocators[who].name);
	if (who < 0 || ours.n == 0)
		fprintf(to, " %10s", "-");
	else
		fprintf(to, " %10.3f", ours.median / best);
	if (m == 0 && cell->two_cores)
		fprintf(to, "  %s", tgb_mostly_far(b, c) ? "far" : "near");
	if (cell->fresh_bytes > 0 && who >= 0 && ours.n > 0)
		fprintf(to, "  %.2f %.2f", ours.worst / ours.best, theirs.worst / theirs.best);
	fputc('\n', to);
}

static void figures(const struct tgb_bench *b, FILE *to)
{
	const char *last = "";
	unsigned c, m;

	for (c = 0; c < b->n_cells; c++) {
		const struct tgb_cell *cell = &b->cells[c];

		if (strcmp(last, cell->workload) != 0)
			head(b, cell->workload, to);
		last = cell->workload;
		for (m = 0; cell->metrics[m].key != NULL; m++)
			line(b, c, m, to);
	}
}

static void errors(const struct tgb_bench *b, FILE *to)
{
	unsigned c, a, r;

	for (c = 0; c < b->n_cells; c++) {
		for (a = 0; a < b->n_allocators; a++) {
			for (r = 0; r < b->rounds; r++) {
				const struct tgb_run *run = tgb_run_at(b, c, a, r);

				if (run->outcome > TGB_OK)
					fprintf(to, "! %s %s, %s, round %u: %s\n",
						b->cells[c].workload, b->cells[c].name,
						b->allocators[a].name, r + 1, run->error);
			}
		}
	}
}

static void daemon_load(const struct tgb_bench *b, FILE *to)
{
	double messages, cpu;
	bool any = false;
	unsigned c;

	for (c = 0; c < b->n_cells; c++) {
		if (!tgb_daemon_load(b, c, &messages, &cpu))
			continue;
		if (!any)
			fprintf(to, "\n%-27s %20s %12s\n", "together's daemon",
				"messages/10,000 ops", "CPU, % of it");
		any = true;
		fprintf(to, "%-10s %-16s %20.3f %12.2f\n", b->cells[c].workload, b->cells[c].name,
			messages, cpu * 100);
	}
}

static void targets(const struct tgb_bench *b, FILE *to)
{
	struct tgb_target all[TGB_TARGETS];
	unsigned n = tgb_targets(b, all), i;

	fprintf(to, "\n%-50s %10s %12s\n", "figures to reach", "reached", "target");
	for (i = 0; i < n; i++) {
		const struct tgb_target *t = &all[i];

		if (t->n == 0)
			continue;
		fprintf(to, "%-50s %10.3f %s %8.4g %-10s %s\n", t->what, t->value,
			t->at_least ? ">=" : "<=", t->reach, t->how[0] == '<' ? "" : t->how,
			tgb_target_hit(t) ? "hit" : "MISSED");
	}
}

static void fresh_memory(const struct tgb_bench *b, FILE *to)
{
	unsigned c, a, r, n = 0, all = 0;

	for (c = 0; c < b->n_cells; c++) {
		for (a = 0; b->cells[c].fresh_bytes > 0 && a < b->n_allocators; a++) {
			for (r = 0; r < b->rounds; r++) {
				const struct tgb_run *run = tgb_run_at(b, c, a, r);

				all += run->outcome != TGB_NOT_RUN;
				n += run->ready_s < 0;
			}
		}
	}
	if (all > 0)
		fputs("growth, fresh: behind the ratio, the worst of the rounds to the best one: "
		      "together's, and the best allocator's\n",
		      to);
	if (n > 0)
		fprintf(to, "in %u of %u of those the memory could not be had beforehand\n", n,
			all);
}

static void disturbances(const struct tgb_bench *b, FILE *to)
{
	unsigned c, a, r, n = 0, all = 0;

	for (c = 0; c < b->n_cells; c++) {
		for (a = 0; a < b->n_allocators; a++) {
			for (r = 0; r < b->rounds; r++) {
				const struct tgb_run *run = tgb_run_at(b, c, a, r);

				all += run->outcome == TGB_OK;
				n += run->outcome == TGB_OK && run->disturbed;
			}
		}
	}
	if (n > 0)
		fprintf(to,
			"in %u of %u runs other programs had the CPU for more than 3 %% of the "
			"time, also "
			"when they were repeated: do not trust small differences\n",
			n, all);
}

static void notes(const struct tgb_bench *b, FILE *to)
{
	bool two = false;
	unsigned i;

	fprintf(to,
		"medians of %u round%s of %.3g s; less is better; ratio: together to the best "
		"private allocator\n",
		b->rounds, b->rounds == 1 ? "" : "s", b->seconds);
	if (b->no_plt)
		fputs("private allocators are called without the linkage table, too\n", to);
	for (i = 0; i < b->n_cells; i++)
		two = two || b->cells[i].two_cores;
	if (two)
		fprintf(to,
			"near, far: how the two cores were placed (a cache line there and back "
			"under %.2f us or not) "
			"in most runs of the line; runs in the other mode, or during which it "
			"changed, do not count\n",
			TGB_NEAR_US);
	fresh_memory(b, to);
	disturbances(b, to);
	for (i = 0; i < b->n_allocators; i++) {
		if (b->allocators[i].wanted && b->allocators[i].missing != NULL)
			fprintf(to, "%s is not here: %s\n", b->allocators[i].name,
				b->allocators[i].missing);
	}
}

void tgb_table(const struct tgb_bench *b, FILE *to)
{
	notes(b, to);
	figures(b, to);
	errors(b, to);
	daemon_load(b, to);
	targets(b, to);
	fflush(to);
}
