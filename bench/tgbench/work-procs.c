/* work-procs.c - two at once: one allocates and the other frees (prodcons), or both do pairs (twoproc).
 *
 * prodcons: pointers go through a ring with one producer and one consumer, each with its own cache lines and a copy of
 * the other's position, who tell each other of 32 pointers at a time, so that the ring costs next to nothing.  On a shared
 * heap the two are processes, and with a private allocator threads (threads=1: threads for all).  bare=1: what the way from
 * core to core takes by itself.  The objects are those of a table in turn, and nobody allocates or frees; stores=N: but the
 * producer makes N more stores to memory of its own for each, as an allocator would.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "bench/tgbench/alloc.h"
#include "bench/tgbench/work-pair.h"
#include "bench/tgbench/worker.h"

#if defined(TGB_TOGETHER) || defined(TGB_PEER)
#define IS_SHARED 1
#else
#define IS_SHARED 0
#endif

#define RING     4096
#define TOLD     32   /* pointers put or taken until the other one is told */
#define PER_LOOK 1024 /* objects between two looks at the clock */
#define SPINS    2000 /* before the CPU is left to others */
#define BARE     8192 /* objects of the table */

static _Alignas(64) char bare_objects[BARE][64];
static _Alignas(64) volatile uint64_t own_stores[8];

struct ring {
	/* the producer's own, and what it tells */
	_Alignas(64) uint64_t put;
	uint64_t seen_tail;
	_Alignas(64) _Atomic uint64_t head;
	/* the consumer's own, and what it tells */
	_Alignas(64) uint64_t taken;
	uint64_t seen_head;
	struct tgb_use consumer;
	_Alignas(64) _Atomic uint64_t tail;
	/* written by the producer */
	_Alignas(64) atomic_bool measuring; /* the consumer counts from here on */
	_Alignas(64) void *slots[RING];
};

static void rest(unsigned *spins)
{
	if (++*spins < SPINS)
		tgb_relax();
	else
		sched_yield();
}

static void tell_put(struct ring *r)
{
	atomic_store_explicit(&r->head, r->put, memory_order_release);
}

static void put(struct ring *r, void *object)
{
	unsigned spins = 0;

	while (r->put - r->seen_tail == RING) {
		r->seen_tail = atomic_load_explicit(&r->tail, memory_order_acquire);
		if (r->put - r->seen_tail == RING)
			rest(&spins);
	}
	r->slots[r->put++ % RING] = object;
	if (r->put % TOLD == 0)
		tell_put(r);
}

static void *get(struct ring *r)
{
	unsigned spins = 0;
	void *object;

	while (r->seen_head == r->taken) {
		r->seen_head = atomic_load_explicit(&r->head, memory_order_acquire);
		if (r->seen_head == r->taken)
			rest(&spins);
	}
	object = r->slots[r->taken++ % RING];
	if (r->taken % TOLD == 0)
		atomic_store_explicit(&r->tail, r->taken, memory_order_release);
	return object;
}

/* NULL is the end; an odd pointer the start of the measurement. */
static inline __attribute__((always_inline)) uint64_t consume_all(struct ring *r, bool bare)
{
	uint64_t sum = 0;
	char *object;

	while ((object = get(r)) != NULL) {
		if (((uintptr_t)object & 1) != 0) {
			tgb_use_begin(&r->consumer);
			continue;
		}
		sum += *(volatile uint64_t *)object;
		if (!bare)
			TGB_FREE(object);
	}
	tgb_use_end(&r->consumer);
	return sum;
}

static void *consume(void *arg)
{
	uint64_t sum;

	tgb_pin((int)tgb_arg("cpu2", -1));
	sum = tgb_arg("bare", 0) > 0 ? consume_all(arg, true) : consume_all(arg, false);
	return (void *)(uintptr_t)(sum & 0);
}

static void consume_in_child(void *arg)
{
	tgb_attach_child();
	consume(tgb_shared_find("ring", arg));
}

static double produce(struct ring *r, const uint32_t *sizes, double seconds)
{
	double end = tgb_now_ns() + seconds * 1e9, n = 0;
	uint32_t at = 0, i;

	do {
		for (i = 0; i < PER_LOOK; i++) {
			void *object = TGB_MALLOC(sizes[at++ & (TGB_SIZES - 1)]);

			tgb_write(object, true, i);
			put(r, object);
		}
		n += PER_LOOK;
	} while (tgb_now_ns() < end);
	return n;
}

static double produce_bare(struct ring *r, unsigned n_stores, double seconds)
{
	double end = tgb_now_ns() + seconds * 1e9, n = 0;
	unsigned i, k, at = 0;

	do {
		for (i = 0; i < PER_LOOK; i++) {
			void *object = bare_objects[at++ % BARE];

			for (k = 0; k < n_stores; k++)
				own_stores[k] = i;
			tgb_write(object, true, i);
			put(r, object);
		}
		n += PER_LOOK;
	} while (tgb_now_ns() < end);
	return n;
}

static double produce_for(struct ring *r, const uint32_t *sizes, double seconds)
{
	double n_stores = tgb_arg("stores", 0);

	if (tgb_arg("bare", 0) > 0)
		return produce_bare(r, n_stores < 8 ? (unsigned)n_stores : 8, seconds);
	return produce(r, sizes, seconds);
}

void tgb_work_prodcons(void)
{
	bool threads = !IS_SHARED || tgb_arg("threads", 0) > 0;
	const uint32_t *sizes = tgb_sizes("even", tgb_arg("lo", 64), tgb_arg("hi", 64));
	struct ring *r = tgb_shared_new("ring", sizeof(*r));
	struct tgb_use use;
	pthread_t thread;
	int pid = 0;
	double n;

	if (!threads)
		pid = tgb_fork(consume_in_child, r);
	else if (pthread_create(&thread, NULL, consume, r) != 0)
		tgb_die("no thread");
	produce_for(r, sizes, tgb_seconds() / 2);
	put(r, (void *)1);
	tgb_use_begin(&use);
	n = produce_for(r, sizes, tgb_seconds());
	put(r, NULL);
	tell_put(r);
	if (threads)
		pthread_join(thread, NULL);
	else
		tgb_wait(pid);
	tgb_use_end(&use);
	if (!threads) {
		use.cpu_ns += r->consumer.cpu_ns;
		use.messages += r->consumer.messages;
		use.kept_ns += r->consumer.kept_ns;
	}
	tgb_use_report(&use, n);
	tgb_report("mobj_s", n / use.wall_ns * 1e3);
}

/* ---- two processes ---- */

struct two {
	pthread_barrier_t barrier; /* they sleep at it */
	atomic_int spinning;       /* and then leave together */
	struct tgb_use use[2];
	double ops[2], alone_ns[2];
};

static struct tgb_pairs pairs;

/* Each alone first, while the other one sleeps; then both. */
static void one_of_two(struct two *two, unsigned me)
{
	void (*step)(void *) = tgb_pairs_step(&pairs);
	struct tgb_use alone;
	unsigned turn;

	for (turn = 0; turn < 2; turn++) {
		if (turn == me) {
			tgb_repeat(tgb_seconds() / 4, step, &pairs);
			tgb_use_begin(&alone);
			two->ops[me] = tgb_repeat(tgb_seconds(), step, &pairs);
			tgb_use_end(&alone);
			two->alone_ns[me] =
				alone.wall_ns / (two->ops[me] * tgb_pairs_per_step(&pairs));
		}
		pthread_barrier_wait(&two->barrier);
	}
	two->spinning++;
	while (two->spinning < 2)
		tgb_relax();
	tgb_repeat(tgb_seconds() / 4, step, &pairs);
	tgb_use_begin(&two->use[me]);
	two->ops[me] = tgb_repeat(tgb_seconds(), step, &pairs) * tgb_pairs_per_step(&pairs);
	tgb_use_end(&two->use[me]);
	/* Neither ends while the other one still counts. */
	tgb_repeat(tgb_seconds() / 4, step, &pairs);
}

static void second(void *arg)
{
	tgb_attach_child();
	tgb_pin((int)tgb_arg("cpu2", -1));
	one_of_two(tgb_shared_find("two", arg), 1);
}

void tgb_work_twoproc(void)
{
	pthread_barrierattr_t attr;
	double ns[2], slowdown = 0;
	struct tgb_use use;
	struct two *two;
	unsigned i;
	int pid;

	tgb_pairs_init(&pairs, (size_t)tgb_arg("size", 64), (unsigned)tgb_arg("batch", 100));
	two = tgb_shared_new("two", sizeof(*two));
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&two->barrier, &attr, 2);
	pid = tgb_fork(second, two);
	one_of_two(two, 0);
	tgb_wait(pid);

	use = two->use[0];
	use.cpu_ns += two->use[1].cpu_ns;
	use.messages += two->use[1].messages;
	use.kept_ns += two->use[1].kept_ns;
	tgb_use_report(&use, two->ops[0] + two->ops[1]);
	for (i = 0; i < 2; i++) {
		ns[i] = two->use[i].wall_ns / two->ops[i];
		slowdown += ns[i] / two->alone_ns[i] / 2;
	}
	/* Per process: the mean of both. */
	tgb_report("ns", (ns[0] + ns[1]) / 2);
	tgb_report("alone_ns", (two->alone_ns[0] + two->alone_ns[1]) / 2);
	tgb_report("slowdown", slowdown);
}
