/* work-threads.c - larson: two threads replace random objects of their sets, then each hands its set to the next.
 *
 * fresh=0: the two threads live on and swap their sets, so that each frees what the other has allocated.
 * fresh=1: a thread ends and a new one goes on with its set, as in Larson's server test.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "bench/tgbench/alloc.h"
#include "bench/tgbench/worker.h"

#define PER_TURN 50000
#define SPINS    2000 /* before the CPU is left to others */

struct set {
	_Alignas(64) void **objects;
	uint32_t n;
	uint32_t at;
	uint64_t state;
};

static struct set sets[2];
static const uint32_t *sizes;
static atomic_uint met; /* how often somebody came to the meeting point */
static int cpus[2];
static double end_ns;
static atomic_bool stop;
static double turns[2];

static void fill(struct set *s, unsigned which)
{
	uint32_t i;

	s->n = (uint32_t)tgb_arg("live", 5000);
	s->objects = tgb_table(s->n * sizeof(*s->objects));
	s->state = 0x9e3779b97f4a7c15u + which;
	s->at = which * 1000;
	for (i = 0; i < s->n; i++) {
		s->objects[i] = TGB_MALLOC(sizes[s->at++ & (TGB_SIZES - 1)]);
		if (s->objects[i] == NULL)
			tgb_die("out of memory");
	}
}

static void turn(struct set *shared)
{
	struct set s = *shared;
	unsigned k;

	for (k = 0; k < PER_TURN; k++) {
		uint32_t i = tgb_below(&s.state, s.n);
		void *object;

		TGB_FREE(s.objects[i]);
		object = TGB_MALLOC(sizes[s.at++ & (TGB_SIZES - 1)]);
		tgb_write(object, true, i);
		s.objects[i] = object;
	}
	*shared = s;
}

/* Waits for the other one without sleeping: waking up would take longer than a tenth of the turn. */
static void meet(unsigned nth)
{
	unsigned spins = 0;

	met++;
	while (met < 2 * nth) {
		if (++spins < SPINS)
			tgb_relax();
		else
			sched_yield();
	}
}

/* Both agree on when to stop: one says so between two meetings. */
static void *swapping(void *arg)
{
	unsigned me = *(unsigned *)arg, which = me, n = 0;

	tgb_pin(cpus[me]);
	for (;;) {
		meet(++n);
		if (me == 0)
			stop = tgb_now_ns() >= end_ns;
		meet(++n);
		if (stop)
			return NULL;
		turn(&sets[which]);
		turns[me]++;
		which ^= 1;
	}
}

static void *one_turn(void *arg)
{
	turn(arg);
	return NULL;
}

static void *inheriting(void *arg)
{
	unsigned me = *(unsigned *)arg;
	pthread_t next;

	tgb_pin(cpus[me]);
	while (tgb_now_ns() < end_ns) {
		/* The new thread stays on this CPU. */
		if (pthread_create(&next, NULL, one_turn, &sets[me]) != 0)
			tgb_die("no thread");
		pthread_join(next, NULL);
		turns[me]++;
	}
	return NULL;
}

static void run_both(double seconds)
{
	void *(*run)(void *) = tgb_arg("fresh", 0) > 0 ? inheriting : swapping;
	unsigned ids[2] = {0, 1}, i;
	pthread_t threads[2];

	end_ns = tgb_now_ns() + seconds * 1e9;
	turns[0] = turns[1] = 0;
	stop = false;
	met = 0;
	for (i = 0; i < 2; i++) {
		if (pthread_create(&threads[i], NULL, run, &ids[i]) != 0)
			tgb_die("no thread");
	}
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
}

void tgb_work_larson(void)
{
	struct tgb_use use;

	sizes = tgb_sizes(tgb_arg_text("sizes", "exp"), 16, 1024);
	cpus[0] = (int)tgb_arg("cpu", -1);
	cpus[1] = (int)tgb_arg("cpu2", -1);
	fill(&sets[0], 0);
	fill(&sets[1], 1);
	run_both(tgb_seconds() / 4);
	tgb_use_begin(&use);
	run_both(tgb_seconds());
	tgb_use_end(&use);
	/* Per thread: two did this at once. */
	tgb_use_report(&use, (turns[0] + turns[1]) * PER_TURN);
	tgb_report("ns", use.wall_ns * 2 / ((turns[0] + turns[1]) * PER_TURN));
}
