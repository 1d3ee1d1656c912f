/* json.c - the report for programs: every figure of every round.
 */
#include <jansson.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bench/tgbench/tgbench.h"

static json_t *real(double value)
{
	return json_real(value);
}

static const char *outcome(enum tgb_outcome o)
{
	static const char *const names[] = {"not run", "ok", "failed", "crashed", "hung"};

	return names[o];
}

/* One allocator's runs of a cell. */
static json_t *runs_of(const struct tgb_bench *b, unsigned c, unsigned a)
{
	const struct tgb_cell *cell = &b->cells[c];
	json_t *list = json_array();
	unsigned r, m;

	for (r = 0; r < b->rounds; r++) {
		const struct tgb_run *run = tgb_run_at(b, c, a, r);
		json_t *one;

		if (run->outcome == TGB_NOT_RUN)
			continue;
		one = json_object();
		json_object_set_new(one, "round", json_integer(r + 1));
		json_object_set_new(one, "outcome", json_string(outcome(run->outcome)));
		if (run->outcome != TGB_OK)
			json_object_set_new(one, "error", json_string(run->error));
		if (cell->two_cores)
			json_object_set_new(one, "cores",
					    json_string(run->moved ? "moved"
							: run->far ? "far"
								   : "near"));
		for (m = 0; run->outcome == TGB_OK && cell->metrics[m].key != NULL; m++) {
			if (run->values[m] >= 0)
				json_object_set_new(one, cell->metrics[m].key,
						    real(run->values[m]));
		}
		if (cell->fresh_bytes > 0)
			json_object_set_new(one, "ready_s", real(run->ready_s));
		if (run->n_ops > 0) {
			json_object_set_new(one, "operations", real(run->n_ops));
			json_object_set_new(one, "wall_s", real(run->wall_s));
			json_object_set_new(one, "cpu_s", real(run->cpu_s));
			json_object_set_new(one, "daemon_s", real(run->daemon_s));
			json_object_set_new(one, "messages", real(run->messages));
			json_object_set_new(one, "kept_s", real(run->kept_s));
			json_object_set_new(one, "disturbed", json_boolean(run->disturbed));
		}
		json_array_append_new(list, one);
	}
	return list;
}

static json_t *medians_of(const struct tgb_bench *b, unsigned c, unsigned a)
{
	const struct tgb_cell *cell = &b->cells[c];
	json_t *medians = json_object();
	unsigned m;

	for (m = 0; cell->metrics[m].key != NULL; m++) {
		struct tgb_figure f = tgb_figure(b, c, m, a);

		if (f.n > 0)
			json_object_set_new(medians, cell->metrics[m].key,
					    json_pack("{s:f, s:f, s:f, s:i}", "median", f.median,
						      "best", f.best, "worst", f.worst, "rounds",
						      (int)f.n));
	}
	return medians;
}

static json_t *ratios_of(const struct tgb_bench *b, unsigned c)
{
	const struct tgb_cell *cell = &b->cells[c];
	int self = tgb_find_allocator(b, "together"), who;
	json_t *ratios = json_object();
	unsigned m;

	for (m = 0; cell->metrics[m].key != NULL; m++) {
		struct tgb_figure ours = tgb_figure(b, c, m, (unsigned)self);
		double best = tgb_best(b, c, m, TGB_PRIVATE, &who);

		if (ours.n > 0 && who >= 0)
			json_object_set_new(ratios, cell->metrics[m].key,
					    json_pack("{s:s, s:f}", "best", b->allocators[who].name,
						      "ratio", ours.median / best));
	}
	return ratios;
}

static json_t *cell_of(const struct tgb_bench *b, unsigned c)
{
	const struct tgb_cell *cell = &b->cells[c];
	json_t *one = json_object(), *all = json_object();
	double messages, cpu;
	unsigned a;

	json_object_set_new(one, "workload", json_string(cell->workload));
	json_object_set_new(one, "name", json_string(cell->name));
	if (cell->two_cores)
		json_object_set_new(one, "cores",
				    json_string(tgb_mostly_far(b, c) ? "far" : "near"));
	for (a = 0; a < b->n_allocators; a++) {
		json_t *runs = runs_of(b, c, a);

		if (json_array_size(runs) > 0)
			json_object_set_new(all, b->allocators[a].name,
					    json_pack("{s:o, s:o}", "figures", medians_of(b, c, a),
						      "runs", json_incref(runs)));
		json_decref(runs);
	}
	json_object_set_new(one, "allocators", all);
	json_object_set_new(one, "ratios", ratios_of(b, c));
	if (tgb_daemon_load(b, c, &messages, &cpu)) {
		json_object_set_new(one, "messages_per_10000", real(messages));
		json_object_set_new(one, "daemon_cpu", real(cpu));
	}
	return one;
}

static json_t *allocators_of(const struct tgb_bench *b)
{
	static const char *const kinds[] = {"private", "together", "preload", "shared", "go"};
	json_t *list = json_array();
	unsigned a;

	for (a = 0; a < b->n_allocators; a++) {
		const struct tgb_allocator *x = &b->allocators[a];
		json_t *one;

		if (!x->wanted)
			continue;
		one = json_pack("{s:s, s:s, s:b}", "name", x->name, "kind", kinds[x->kind],
				"present", x->missing == NULL);
		if (x->missing != NULL)
			json_object_set_new(one, "missing", json_string(x->missing));
		json_array_append_new(list, one);
	}
	return list;
}

static json_t *targets_of(const struct tgb_bench *b)
{
	struct tgb_target all[TGB_TARGETS];
	unsigned n = tgb_targets(b, all), i;
	json_t *list = json_array();

	for (i = 0; i < n; i++) {
		if (all[i].n > 0)
			json_array_append_new(
				list, json_pack("{s:s, s:f, s:f, s:b, s:b, s:i}", "what",
						all[i].what, "reached", all[i].value, "target",
						all[i].reach, "at_least", all[i].at_least, "hit",
						tgb_target_hit(&all[i]), "lines", (int)all[i].n));
	}
	return list;
}

int tgb_json(const struct tgb_bench *b, const char *path)
{
	json_t *cells = json_array(), *all;
	struct utsname system;
	unsigned c;
	int r;

	uname(&system);
	for (c = 0; c < b->n_cells; c++)
		json_array_append_new(cells, cell_of(b, c));
	all = json_pack("{s:s, s:s, s:i, s:i, s:f, s:b, s:b, s:o, s:o, s:o}", "machine",
			system.machine, "kernel", system.release, "cpus", b->n_cpus, "rounds",
			(int)b->rounds, "seconds", b->seconds, "quick", b->quick, "no_plt",
			b->no_plt, "allocators", allocators_of(b), "workloads", cells, "targets",
			targets_of(b));
	if (all == NULL)
		tgb_fail("out of memory");
	r = json_dump_file(all, path, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
	json_decref(all);
	return r;
}
