/* work-large.c - large objects again and again (reuse) or more and more of them (fresh), a heap that grows (growth), and
 * objects that do (realloc).
 */
#include <math.h>
#include <string.h>

#include "bench/tgbench/alloc.h"
#include "bench/tgbench/worker.h"

#define PER_STEP 64
#define LIVE_MAX 64

struct reuse {
	size_t size;
	unsigned live, at;
	void *objects[LIVE_MAX];
};

/* One is live, or several are and the oldest is replaced. */
static void reuse(void *arg)
{
	struct reuse *r = arg;
	unsigned k;

	for (k = 0; k < PER_STEP; k++) {
		void **object = &r->objects[r->at];

		TGB_FREE(*object);
		*object = TGB_MALLOC(r->size);
		tgb_write(*object, true, k);
		r->at = r->at + 1 == r->live ? 0 : r->at + 1;
	}
}

static void reuse_one(void *arg)
{
	struct reuse *r = arg;
	unsigned k;

	for (k = 0; k < PER_STEP; k++) {
		void *object = TGB_MALLOC(r->size);

		tgb_write(object, true, k);
		TGB_FREE(object);
	}
}

void tgb_work_reuse(void)
{
	struct reuse r = {.size = (size_t)tgb_arg("size", 65536),
			  .live = (unsigned)tgb_arg("live", 1)};

	tgb_measure(r.live == 1 ? reuse_one : reuse, &r, PER_STEP);
}

/* ---- fresh ---- */

void tgb_work_fresh(void)
{
	size_t size = (size_t)tgb_arg("size", 65536), i, n;
	double bytes = tgb_arg("bytes", 1073741824.0) * tgb_arg("scale", 1);
	struct tgb_use use;
	void **objects;

	n = (size_t)(bytes / (double)size);
	objects = tgb_table(n * sizeof(*objects));
	tgb_use_begin(&use);
	for (i = 0; i < n; i++) {
		objects[i] = TGB_MALLOC(size);
		if (objects[i] == NULL)
			tgb_die("out of memory");
		tgb_touch(objects[i], size);
	}
	for (i = 0; i < n; i++)
		TGB_FREE(objects[i]);
	tgb_use_end(&use);
	tgb_use_report(&use, (double)n);
	tgb_report("ns_kib", use.wall_ns / ((double)(n * size) / 1024));
}

void tgb_work_growth(void)
{
	const uint32_t *sizes =
		tgb_sizes(tgb_arg_text("sizes", "even"), tgb_arg("lo", 1024), tgb_arg("hi", 1024));
	double bytes = tgb_arg("bytes", 2147483648.0) * tgb_arg("scale", 1), done = 0, n = 0;
	struct tgb_use use;
	uint32_t at = 0;

	tgb_use_begin(&use);
	while (done < bytes) {
		uint32_t size = sizes[at++ & (TGB_SIZES - 1)];
		void *object = TGB_MALLOC(size);

		if (object == NULL)
			tgb_die("out of memory");
		tgb_touch(object, size);
		done += size;
		n++;
	}
	tgb_use_end(&use);
	tgb_use_report(&use, n);
	tgb_report("ns_kib", use.wall_ns / (done / 1024));
}

/* ---- realloc ---- */

struct growing {
	double factor;
	size_t plus, to;
};

static size_t next_size(const struct growing *g, size_t size)
{
	size_t next = (size_t)((double)size * g->factor) + g->plus;

	return next > size ? next : size + 1;
}

static void grow(void *arg)
{
	const struct growing *g = arg;
	size_t size = 16;
	char *object = TGB_MALLOC(size);

	tgb_write(object, true, 1);
	while (size < g->to) {
		size = next_size(g, size);
		object = TGB_REALLOC(object, size);
		if (object == NULL)
			tgb_die("out of memory");
		((volatile char *)object)[size - 1] = 1;
	}
	TGB_FREE(object);
}

void tgb_work_realloc(void)
{
	struct growing g = {.factor = tgb_arg("factor", 2),
			    .plus = (size_t)tgb_arg("plus", 0),
			    .to = (size_t)tgb_arg("to", 1 << 20)};
	double steps = 0;
	size_t size;

	for (size = 16; size < g.to; size = next_size(&g, size))
		steps++;
	tgb_measure(grow, &g, steps);
}
