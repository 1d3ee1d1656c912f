/* work-churn.c - a set of live objects, of which a random one is replaced again and again; footprint at the end.
 *
 * churn: an object's first word is its size, so that the loop has no other memory than it needs.
 * phases: the set changes 60 times from one mix of sizes to another, piece by piece.
 */
#include <math.h>
#include <string.h>

#include "bench/tgbench/alloc.h"
#include "bench/tgbench/worker.h"

#define PER_STEP      1000
#define WARM_SECONDS  3 /* at the most */
#define PHASES        60
#define PHASE_BYTES   (64u << 20)
#define PHASE_OBJECTS (PHASE_BYTES / 16 + 1)

struct churn {
	void **objects;
	uint32_t n;
	const uint32_t *next_sizes;
	uint32_t at;
	uint64_t state;
};

/* All of it in registers, so that a turn stores what the objects need, and no more. */
static void replace(void *arg)
{
	struct churn *shared = arg, c = *shared;
	unsigned k;

	for (k = 0; k < PER_STEP; k++) {
		uint32_t i = tgb_below(&c.state, c.n),
			 size = c.next_sizes[c.at++ & (TGB_SIZES - 1)];
		void *object;

		TGB_FREE(c.objects[i]);
		object = TGB_MALLOC(size);
		tgb_write(object, true, size);
		c.objects[i] = object;
	}
	*shared = c;
}

/* What is live is meant to be used, so all of its pages count. */
static double touch_all(void *const *objects, uint32_t n)
{
	double bytes = 0;
	uint32_t i;

	for (i = 0; i < n; i++) {
		uint64_t size = *(const uint64_t *)objects[i];

		tgb_touch(objects[i], size);
		bytes += (double)size;
	}
	return bytes;
}

static void report_footprint(double before, double live)
{
	double grown = tgb_memory() - before;

	tgb_report("memory_bytes", grown);
	tgb_report("live_bytes", live);
	tgb_report("footprint", grown / live);
}

void tgb_work_churn(void)
{
	struct churn c = {.n = (uint32_t)tgb_arg("live", 5000), .state = 0x9e3779b97f4a7c15u};
	double before, end, warm = fmax(1e6, 50.0 * c.n) * tgb_arg("scale", 1);
	struct tgb_use use;
	uint32_t i;

	c.next_sizes =
		tgb_sizes(tgb_arg_text("sizes", "exp"), tgb_arg("lo", 16), tgb_arg("hi", 1024));
	c.objects = tgb_table(c.n * sizeof(*c.objects));
	before = tgb_memory();
	for (i = 0; i < c.n; i++) {
		uint32_t size = c.next_sizes[c.at++ & (TGB_SIZES - 1)];

		c.objects[i] = TGB_MALLOC(size);
		if (c.objects[i] == NULL)
			tgb_die("out of memory");
		tgb_write(c.objects[i], true, size);
	}
	end = tgb_now_ns() + WARM_SECONDS * 1e9;
	for (; warm > 0 && tgb_now_ns() < end; warm -= PER_STEP)
		replace(&c);
	tgb_use_begin(&use);
	warm = tgb_repeat(tgb_seconds(), replace, &c);
	tgb_use_end(&use);
	tgb_use_report(&use, warm * PER_STEP);
	report_footprint(before, touch_all(c.objects, c.n));
}

/* ---- phases ---- */

struct set {
	void **objects;
	uint32_t *sizes;
	uint32_t n;
};

static void set_init(struct set *s)
{
	s->objects = tgb_table(PHASE_OBJECTS * sizeof(*s->objects));
	s->sizes = tgb_table(PHASE_OBJECTS * sizeof(*s->sizes));
	s->n = 0;
}

static uint32_t add(struct set *s, uint32_t size)
{
	void *object = TGB_MALLOC(size);

	if (object == NULL)
		tgb_die("out of memory");
	tgb_touch(object, size);
	s->objects[s->n] = object;
	s->sizes[s->n++] = size;
	return size;
}

static uint32_t drop_random(struct set *s, uint64_t *state)
{
	uint32_t i = tgb_below(state, s->n), size = s->sizes[i];

	TGB_FREE(s->objects[i]);
	s->objects[i] = s->objects[--s->n];
	s->sizes[i] = s->sizes[s->n];
	return size;
}

/* Log-uniform between two sizes that differ by 2 to 16 times, somewhere between 16 B and 32 KiB. */
static uint32_t size_in(double lo, double factor, uint64_t *state)
{
	return (uint32_t)(lo * pow(factor, (double)(tgb_random(state) >> 11) / 9007199254740992.0));
}

void tgb_work_phases(void)
{
	double before, live = 0, n_ops = 0, most = PHASE_BYTES * tgb_arg("scale", 1);
	struct set sets[2], *old = &sets[0], *new = &sets[1], *swap;
	uint64_t state = 0x2545f4914f6cdd1du;
	struct tgb_use use;
	unsigned phase;

	set_init(old);
	set_init(new);
	before = tgb_memory();
	tgb_use_begin(&use);
	for (phase = 0; phase < PHASES; phase++) {
		double lo = 16 * pow(2, tgb_below(&state, 8));
		double factor = pow(2, 1 + tgb_below(&state, 4));

		while (old->n > 0 || live < most) {
			while (live < most) {
				live += add(new, size_in(lo, factor, &state));
				n_ops++;
			}
			if (old->n > 0)
				live -= drop_random(old, &state);
		}
		swap = old;
		old = new;
		new = swap;
	}
	tgb_use_end(&use);
	tgb_use_report(&use, n_ops);
	report_footprint(before, live);
}
