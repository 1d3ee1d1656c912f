/* stress.c - the threads of the stress test and the rings through which they hand objects to each other.
 *
 * One ring for each pair of threads of different processes, in the heap: one writer, one reader, no lock.  A full ring
 * makes its writer free the object itself, so nobody waits.  At its end a thread frees what it holds, says so, and reads
 * its rings until everybody has said so.
 */
#include "tests/support/stress.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"

#define TABLE 512u
#define RING  16u
#define FILL_ALL \
	1024u /* objects up to this size are filled and checked completely, bigger ones here and there */

struct item {
	uint64_t ref;
	uint64_t size;
	uint64_t seed;
};

struct ring {
	_Atomic uint32_t head __attribute__((aligned(64))); /* W: writer */
	_Atomic uint32_t tail __attribute__((aligned(64))); /* W: reader */
	struct item items[RING];
};

struct tgt_stress {
	struct tgt_stress_plan plan;
	_Atomic unsigned n_working; /* threads that may still hand something over */
	_Atomic bool failed;        /* everybody stops */
	_Atomic uint64_t allocations, frees, frees_elsewhere;
	struct ring rings[] __attribute__((aligned(64))); /* [writer * n + reader] */
};

struct worker {
	struct tgt_stress *stress;
	unsigned process, id, n_all;
	uint64_t random;
	uint64_t count;
	uint64_t live_bytes;
	uint64_t released, handed_over;
	uint64_t allocations, frees, frees_elsewhere;
	struct item table[TABLE];
};

static uint64_t next_random(struct worker *w)
{
	uint64_t x = w->random;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	w->random = x;
	return x * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

static void fill(uint8_t *p, uint64_t size, uint64_t seed)
{
	uint64_t at;

	if (size <= FILL_ALL) {
		tgt_fill_object(p, size, seed);
		return;
	}
	for (at = FILL_ALL; at + 72 < size; at += FILL_ALL)
		tgt_fill_object(p + at, 8, seed + at);
	tgt_fill_object(p, 64, seed);
	tgt_fill_object(p + size - 64, 64, ~seed);
}

static bool is_filled(const uint8_t *p, uint64_t size, uint64_t seed)
{
	uint64_t at;

	if (size <= FILL_ALL)
		return tgt_is_filled(p, size, seed);
	for (at = FILL_ALL; at + 72 < size; at += FILL_ALL) {
		if (!tgt_is_filled(p + at, 8, seed + at))
			return false;
	}
	return tgt_is_filled(p, 64, seed) && tgt_is_filled(p + size - 64, 64, ~seed);
}

static void check(struct worker *w, bool holds)
{
	if (!holds)
		atomic_store(&w->stress->failed, true);
}

static void check_and_free(struct worker *w, const struct item *item)
{
	void *p = tg_from_ref(item->ref);

	check(w, TGT_EXPECT(is_filled(p, item->size, item->seed)));
	tg_free(p);
	w->frees++;
}

static uint64_t some_size(struct worker *w)
{
	unsigned n_logs = (unsigned)__builtin_ctzll(w->stress->plan.size_max);
	uint64_t unit = UINT64_C(1) << next_random(w) % n_logs;

	return unit + next_random(w) % unit;
}

static void *some_call(struct worker *w, uint64_t size)
{
	uint64_t which = next_random(w) % 32, align;
	void *p;

	if (which < 4) {
		p = tg_calloc(1, size);
		check(w, TGT_EXPECT(p == NULL || size > 4 * FILL_ALL || tgt_is_zero(p, size)));
		return p;
	}
	if (which == 4) {
		align = UINT64_C(1) << next_random(w) % 14;
		p = tg_aligned_alloc(align, size);
		check(w, TGT_EXPECT(((uintptr_t)p & (align - 1)) == 0));
		return p;
	}
	return tg_malloc(size);
}

static void allocate(struct worker *w, struct item *item, uint64_t size)
{
	void *p = some_call(w, size);

	if (!TGT_EXPECT(p != NULL)) {
		check(w, false);
		return;
	}
	*item = (struct item){
		.ref = tg_to_ref(p),
		.size = size,
		.seed = (uint64_t)w->id << 48 | ++w->count,
	};
	fill(p, size, item->seed);
	w->live_bytes += size;
	w->allocations++;
}

static void resize(struct worker *w, struct item *item)
{
	uint64_t size = next_random(w) % FILL_ALL + 1;
	uint64_t kept = size < item->size ? size : item->size;
	uint8_t *p = tg_realloc(tg_from_ref(item->ref), size);

	if (!TGT_EXPECT(p != NULL)) {
		check(w, false);
		return;
	}
	check(w, TGT_EXPECT(tgt_is_filled(p, kept, item->seed)));
	w->live_bytes += size - item->size;
	item->ref = tg_to_ref(p);
	item->size = size;
	fill(p, size, item->seed);
}

/* A thread of another process. */
static unsigned someone_else(struct worker *w)
{
	unsigned n_threads = w->stress->plan.n_threads;
	unsigned process = (unsigned)(next_random(w) % (w->stress->plan.n_processes - 1));

	process += process >= w->process;
	return process * n_threads + (unsigned)(next_random(w) % n_threads);
}

static bool hand_over(struct worker *w, const struct item *item)
{
	struct ring *ring = &w->stress->rings[w->id * w->n_all + someone_else(w)];
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

	if (head - atomic_load_explicit(&ring->tail, memory_order_acquire) == RING)
		return false;
	ring->items[head % RING] = *item;
	atomic_store_explicit(&ring->head, head + 1, memory_order_release);
	return true;
}

static bool take_over(struct worker *w, unsigned writer)
{
	struct ring *ring = &w->stress->rings[writer * w->n_all + w->id];
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	struct item item;

	if (atomic_load_explicit(&ring->head, memory_order_acquire) == tail)
		return false;
	item = ring->items[tail % RING];
	atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
	check_and_free(w, &item);
	w->frees_elsewhere++;
	return true;
}

static void release(struct worker *w, struct item *item)
{
	w->live_bytes -= item->size;
	w->released++;
	/* Every fourth is handed over; when a ring was full, the next ones make up for it. */
	if (w->stress->plan.n_processes > 1 && 4 * w->handed_over < w->released &&
	    hand_over(w, item))
		w->handed_over++;
	else
		check_and_free(w, item);
	item->ref = 0;
}

static void turn(struct worker *w)
{
	struct item *item = &w->table[next_random(w) % TABLE];
	uint64_t size;

	if (item->ref != 0) {
		if (item->size <= FILL_ALL && next_random(w) % 16 == 0)
			resize(w, item);
		else
			release(w, item);
		return;
	}
	size = some_size(w);
	if (w->live_bytes + size <= w->stress->plan.live_max)
		allocate(w, item, size);
}

static void finish(struct worker *w)
{
	struct tgt_stress *stress = w->stress;
	bool last, any;
	unsigned i;

	for (i = 0; i < TABLE; i++) {
		if (w->table[i].ref != 0)
			release(w, &w->table[i]);
	}
	atomic_fetch_sub(&stress->n_working, 1);
	do {
		last = atomic_load(&stress->n_working) == 0;
		any = false;
		for (i = 0; i < w->n_all; i++)
			any |= take_over(w, i);
		if (!any && !last)
			sched_yield();
	} while ((any || !last) && !atomic_load(&stress->failed));
	atomic_fetch_add(&stress->allocations, w->allocations);
	atomic_fetch_add(&stress->frees, w->frees);
	atomic_fetch_add(&stress->frees_elsewhere, w->frees_elsewhere);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t n = w->stress->plan.n_operations / w->n_all;
	uint64_t done;

	while (!atomic_load_explicit(&w->stress->failed, memory_order_relaxed)) {
		done = w->allocations + w->frees;
		if (done >= n)
			break;
		turn(w);
		/* More often than somebody hands us something. */
		if (done % 4 == 0) {
			unsigned writer = (unsigned)(next_random(w) % w->n_all);

			while (take_over(w, writer))
				;
		}
	}
	finish(w);
	return NULL;
}

struct tgt_stress *tgt_stress_new(const struct tgt_stress_plan *plan)
{
	unsigned n = plan->n_processes * plan->n_threads;
	struct tgt_stress *stress =
		tg_aligned_alloc(64, sizeof(*stress) + (size_t)n * n * sizeof(struct ring));

	if (stress == NULL)
		return NULL;
	memset(stress, 0, sizeof(*stress) + (size_t)n * n * sizeof(struct ring));
	stress->plan = *plan;
	stress->n_working = n;
	return stress;
}

bool tgt_stress_run(struct tgt_stress *stress, unsigned process)
{
	unsigned n = stress->plan.n_threads, i;
	pthread_t threads[64];
	struct worker *workers = calloc(n, sizeof(*workers));

	if (!TGT_EXPECT(workers != NULL))
		return false;
	for (i = 0; i < n; i++) {
		workers[i].stress = stress;
		workers[i].process = process;
		workers[i].id = process * n + i;
		workers[i].n_all = stress->plan.n_processes * n;
		workers[i].random =
			stress->plan.seed + workers[i].id * UINT64_C(0x9e3779b97f4a7c15) + 1;
		if (!TGT_EXPECT(pthread_create(&threads[i], NULL, work, &workers[i]) == 0))
			abort();
	}
	for (i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	free(workers);
	return !atomic_load(&stress->failed);
}

struct tgt_stress_totals tgt_stress_totals(const struct tgt_stress *stress)
{
	struct tgt_stress_totals totals = {
		.allocations = stress->allocations,
		.frees = stress->frees,
		.frees_elsewhere = stress->frees_elsewhere,
	};

	totals.operations = totals.allocations + totals.frees;
	totals.live = totals.allocations - totals.frees;
	return totals;
}
