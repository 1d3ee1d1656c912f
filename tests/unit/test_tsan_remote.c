/* test_tsan_remote - owners, freers and a recoverer at once, with freers that die in the middle of what they do.
 *
 * All of them are threads of this process that work on one region, so that ThreadSanitizer sees both sides.  A freer dies
 * by ending its thread with its slot as a kill would have left it: frees buffered, a step noted, a swap done but not
 * noted as done.  Its slot is then settled while owners harvest and other freers free.  Each object that an owner handed
 * out must come back exactly once, whatever happened on its way; the object's memory must be its owner's again by then.
 */
#include <CUnit/CUnit.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "shm/link.h"
#include "shm/remote.h"
#include "shm/settle.h"
#include "shm/step.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/message.h"
#include "tests/support/region.h"
#include "tests/support/runner.h"
#include "tests/support/taken.h"

enum { N_OWNERS = 2, N_FREERS = 3, N_SPANS = 4, QUEUE = 1024, MAX_OBJECTS = 8192 };
enum { FIRST_OWNER = 2, FIRST_FREER = FIRST_OWNER + N_OWNERS };

/* From one owner to one freer's place, whoever works there at the time. */
struct queue {
	_Atomic uint64_t items[QUEUE];
	_Atomic uint64_t head __attribute__((aligned(64)));
	_Atomic uint64_t tail __attribute__((aligned(64)));
};

struct owner {
	unsigned number, slot;
	uint64_t n_to_do;
	uint64_t n_out, n_back; /* objects handed out, and harvested */
	struct tgs_span spans[N_SPANS];
	uint8_t out[N_SPANS][MAX_OBJECTS]; /* handed out and not back */
	unsigned next[N_SPANS];
};

struct freer {
	unsigned number, slot;
	uint64_t random;
	unsigned n_left; /* frees until it dies; 0: lives until all is over */
};

static struct queue queues[N_OWNERS][N_FREERS];
static struct owner owners[N_OWNERS];
static _Atomic unsigned n_owners_left; /* that still hand out */
static _Atomic uint64_t n_deaths;

static uint8_t *address_of(const struct tgs_span *span, unsigned index)
{
	return tgs_page_address(tgt_heap, span->page) +
	       (uint64_t)index * tgs_classes[span->class].size;
}

/* ---- owners ---- */

static bool offer(struct queue *queue, uint64_t item)
{
	uint64_t head = atomic_load_explicit(&queue->head, memory_order_relaxed);

	if (head - atomic_load_explicit(&queue->tail, memory_order_acquire) == QUEUE)
		return false;
	atomic_store_explicit(&queue->items[head % QUEUE], item, memory_order_relaxed);
	atomic_store_explicit(&queue->head, head + 1, memory_order_release);
	return true;
}

/* Takes an object as tg_malloc does, writes to it, and hands it to some freer. */
static bool hand_out(struct owner *owner, uint64_t *random)
{
	unsigned which = (unsigned)(tgt_random(random) % N_SPANS);
	const struct tgs_span *span = &owner->spans[which];
	unsigned kind = tgs_classes[span->class].kind, index = owner->next[which];
	struct queue *queue = &queues[owner->number][tgt_random(random) % N_FREERS];

	owner->next[which] = (index + 1) % span->n_slots;
	if (owner->out[which][index])
		return false;
	*address_of(span, index) = (uint8_t)index;
	tgt_set_taken(tgt_heap, kind, span->page, index);
	owner->out[which][index] = 1;
	if (!offer(queue, span->page << 16 | index)) {
		(void)tgs_taken_clear(tgt_heap, kind, span->page, index / 64,
				      UINT64_C(1) << index % 64);
		owner->out[which][index] = 0;
		return false;
	}
	owner->n_out++;
	return true;
}

static void come_back(struct owner *owner, unsigned which, unsigned unit, uint64_t freed)
{
	for (; freed != 0; freed &= freed - 1) {
		unsigned index = unit * 64 + (unsigned)__builtin_ctzll(freed);

		TGT_EXPECT(owner->out[which][index] == 1);
		TGT_EXPECT(*address_of(&owner->spans[which], index) == (uint8_t)~index);
		*address_of(&owner->spans[which], index) = 0;
		owner->out[which][index] = 0;
		owner->n_back++;
	}
}

/* As the client does it: by the hints. */
static void harvest_hinted(struct owner *owner)
{
	unsigned i, which, unit;

	for (i = 0; i < TGS_DIRTY_BITS / 64; i++) {
		uint64_t dirty = atomic_exchange_explicit(&tgt_heap->slots[owner->slot].dirty[i], 0,
							  memory_order_seq_cst);

		for (which = 0; which < N_SPANS; which++) {
			const struct tgs_span *span = &owner->spans[which];
			struct tgs_harvest found = {0};

			if (span->page % TGS_DIRTY_BITS / 64 != i ||
			    !(dirty >> span->page % 64 & 1))
				continue;
			for (unit = 0; unit < tgs_span_units(span->n_slots); unit++)
				come_back(owner, which, unit,
					  tgs_remote_harvest(tgt_heap,
							     tgs_classes[span->class].kind,
							     span->page, unit, &found));
			TGT_EXPECT(found.n_twice == 0);
		}
	}
}

static void *own(void *arg)
{
	struct owner *owner = arg;
	uint64_t random = owner->number + 1, idle = 0;

	while (owner->n_out < owner->n_to_do && tgt_failed_expectations() == 0) {
		if (!hand_out(owner, &random) && ++idle % 64 == 0) {
			harvest_hinted(owner);
			sched_yield();
		}
	}
	atomic_fetch_sub(&n_owners_left, 1);
	while (owner->n_back < owner->n_out && tgt_failed_expectations() == 0) {
		harvest_hinted(owner);
		sched_yield();
	}
	return NULL;
}

/* ---- freers ---- */

static struct tgs_pending *place_of(unsigned slot, uint64_t word_ref)
{
	return &tgt_heap->slots[slot].pending[(word_ref >> 3) % TGS_PENDING_FREES];
}

static void hold_back(struct freer *freer, uint64_t item)
{
	struct tgs_span span = tgt_span(item >> 16);
	unsigned index = item & 0xffff;
	_Atomic uint64_t *word = tgt_remote_word(span.page, index);
	uint64_t ref = tgs_ref_of(tgt_heap, word);
	struct tgs_pending *pending = place_of(freer->slot, ref);

	TGT_EXPECT(*address_of(&span, index) == (uint8_t)index);
	*address_of(&span, index) = (uint8_t)~index;
	if (pending->mask != 0 && pending->word != ref)
		TGT_EXPECT(tgs_pending_apply(tgt_heap, freer->slot, pending) == 0);
	if (pending->mask == 0)
		atomic_store_explicit(&pending->word, ref, memory_order_relaxed);
	atomic_store_explicit(&pending->mask, pending->mask | UINT32_C(1) << index % 32,
			      memory_order_release);
}

static bool take(unsigned number, uint64_t *ret, uint64_t random)
{
	struct queue *queue = &queues[random % N_OWNERS][number];
	uint64_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);

	if (atomic_load_explicit(&queue->head, memory_order_acquire) == tail)
		return false;
	*ret = atomic_load_explicit(&queue->items[tail % QUEUE], memory_order_relaxed);
	atomic_store_explicit(&queue->tail, tail + 1, memory_order_release);
	return true;
}

/* With one of its frees somewhere between noted and done. */
static void die(struct freer *freer)
{
	struct tgs_slot *slot = &tgt_heap->slots[freer->slot];
	unsigned i = (unsigned)(tgt_random(&freer->random) % TGS_PENDING_FREES), k;

	for (k = 0; k < TGS_PENDING_FREES; k++) {
		struct tgs_pending *pending = &slot->pending[(i + k) % TGS_PENDING_FREES];
		_Atomic uint64_t *word = (_Atomic uint64_t *)(tgt_heap->base + pending->word);

		if (pending->mask == 0)
			continue;
		switch (tgt_random(&freer->random) % 4) {
		case 0:
			break;
		case 1:
			tgs_step_begin(tgt_heap, freer->slot, tgs_remote_format(word), word,
				       pending->mask, 0, 0);
			break;
		case 2:
			TGT_EXPECT(tgs_remote_free(tgt_heap, freer->slot, word, pending->mask) ==
				   0);
			break;
		case 3:
			TGT_EXPECT(tgs_remote_free(tgt_heap, freer->slot, word, pending->mask) ==
				   0);
			atomic_store_explicit(&pending->mask, 0, memory_order_release);
			break;
		}
		break;
	}
	atomic_fetch_add(&n_deaths, 1);
}

static void *free_objects(void *arg)
{
	struct freer *freer = arg;
	uint64_t item;
	bool mortal = freer->n_left > 0, over = false;
	unsigned i;

	for (;;) {
		if (take(freer->number, &item, tgt_random(&freer->random))) {
			hold_back(freer, item);
			if (mortal && --freer->n_left == 0) {
				die(freer);
				return arg;
			}
			continue;
		}
		/* Twice around both queues with nothing to do after the last object was handed out: then it is over. */
		if (over && !take(freer->number, &item, 0) && !take(freer->number, &item, 1))
			break;
		if (over)
			hold_back(freer, item);
		over = atomic_load(&n_owners_left) == 0 || tgt_failed_expectations() != 0;
		for (i = 0; i < TGS_PENDING_FREES; i++)
			TGT_EXPECT(tgs_pending_apply(tgt_heap, freer->slot,
						     &tgt_heap->slots[freer->slot].pending[i]) ==
				   0);
		sched_yield();
	}
	for (i = 0; i < TGS_PENDING_FREES; i++)
		TGT_EXPECT(tgs_pending_apply(tgt_heap, freer->slot,
					     &tgt_heap->slots[freer->slot].pending[i]) == 0);
	return NULL;
}

/* One place of a freer: one after the other works there, each with a slot that another one had before. */
static void *succession(void *arg)
{
	unsigned number = (unsigned)(uintptr_t)arg;
	struct freer freer = {.number = number, .random = number + 77};
	unsigned generation = 0;
	void *died;

	do {
		pthread_t thread;

		freer.slot = FIRST_FREER + number * 2 + generation++ % 2;
		freer.n_left = 1 + (unsigned)(tgt_random(&freer.random) % 300);
		TGT_REQUIRE(pthread_create(&thread, NULL, free_objects, &freer) == 0);
		pthread_join(thread, &died);
		/* It is dead now: the recoverer's turn, twice, as the first one may have been killed too. */
		if (died)
			tgs_settle_slot(tgt_heap, freer.slot);
		if (died && generation % 3 == 0)
			tgs_settle_slot(tgt_heap, freer.slot);
	} while (died);
	return NULL;
}

/* ---- */

static void start_owner(struct owner *owner, unsigned number, uint64_t n)
{
	static const unsigned classes[N_SPANS] = {30, 5, TGS_CLASS_TINY, 12};
	unsigned i;

	*owner = (struct owner){.number = number, .slot = FIRST_OWNER + number, .n_to_do = n};
	for (i = 0; i < N_SPANS; i++) {
		/* Two spans of an owner share a hint. */
		uint64_t page = 10 + number * 100 + i * 10 + (i == 3 ? TGS_DIRTY_BITS - 10 : 0);

		tgt_put_span(page, classes[i], owner->slot, 0);
		owner->spans[i] = tgt_span(page);
	}
}

static void test_each_object_comes_back_once(void)
{
	pthread_t own_threads[N_OWNERS], places[N_FREERS];
	unsigned i, k;

	for (i = FIRST_OWNER; i < FIRST_FREER + 2 * N_FREERS; i++)
		tgt_open_slot(i);
	memset(queues, 0, sizeof(queues));
	atomic_store(&n_owners_left, N_OWNERS);
	for (i = 0; i < N_OWNERS; i++)
		start_owner(&owners[i], i, tgt_scaled(200000));
	for (i = 0; i < N_OWNERS; i++)
		CU_ASSERT_EQUAL_FATAL(pthread_create(&own_threads[i], NULL, own, &owners[i]), 0);
	for (i = 0; i < N_FREERS; i++)
		CU_ASSERT_EQUAL_FATAL(
			pthread_create(&places[i], NULL, succession, (void *)(uintptr_t)i), 0);
	for (i = 0; i < N_FREERS; i++)
		pthread_join(places[i], NULL);
	for (i = 0; i < N_OWNERS; i++)
		pthread_join(own_threads[i], NULL);
	CU_ASSERT_EQUAL(tgt_failed_expectations(), 0);
	CU_ASSERT(atomic_load(&n_deaths) > 10);
	for (i = 0; i < N_OWNERS; i++) {
		CU_ASSERT_EQUAL(owners[i].n_out, owners[i].n_to_do);
		CU_ASSERT_EQUAL(owners[i].n_back, owners[i].n_out);
		for (k = 0; k < N_SPANS; k++)
			CU_ASSERT_TRUE(tgs_span_empty(tgt_heap, &owners[i].spans[k]));
	}
}

/* ---- links: counted up by threads that die, and by the count of their recoverers ---- */

enum { N_LINKS = 3, N_SWINGERS = 4 };

static _Atomic uint64_t counted[N_LINKS];

static struct tgs_tag_format link_format(void)
{
	return (struct tgs_tag_format){tgt_heap->geometry.link_offset_bits,
				       tgt_heap->geometry.link_seq_bits, TGS_STEP_SWAP};
}

static _Atomic uint64_t *link_at(unsigned which)
{
	return (_Atomic uint64_t *)(tgt_heap->data + 64 * which);
}

/* Ends with a step that it does not know the outcome of; which link it was, is its result. */
static void *swing(void *arg)
{
	unsigned self = (unsigned)(uintptr_t)arg & 0xff;
	uint64_t random = (uintptr_t)arg + 1;
	unsigned n = 1 + (unsigned)(tgt_random(&random) % 500), which = 0;
	struct tgs_tag_format format = link_format();

	while (n-- > 0) {
		uint64_t old;
		bool swung;

		which = (unsigned)(tgt_random(&random) % N_LINKS);
		old = tgs_link_get(tgt_heap, link_at(which));
		if (n == 0 && tgt_random(&random) % 3 == 0) {
			tgs_step_begin(tgt_heap, self, &format, link_at(which), 0, old, old + 1);
			break;
		}
		swung = tgs_link_swap(tgt_heap, self, link_at(which), old, old + 1, 0);
		if (n == 0 && tgt_heap->slots[self].step.word != 0)
			break;
		if (swung)
			atomic_fetch_add(&counted[which], 1);
		tgs_step_done(&tgt_heap->slots[self]);
	}
	return (void *)(uintptr_t)which;
}

static void *swing_and_recover(void *arg)
{
	unsigned self = FIRST_OWNER + (unsigned)(uintptr_t)arg;
	unsigned generation, n = tgt_scaled(100) + 10;
	struct tgs_tag_format format = link_format();

	for (generation = 0; generation < n; generation++) {
		pthread_t thread;
		void *which;

		TGT_REQUIRE(pthread_create(&thread, NULL, swing,
					   (void *)(uintptr_t)(generation << 8 | self)) == 0);
		pthread_join(thread, &which);
		if (tgt_heap->slots[self].step.word != 0 &&
		    tgs_step_took_place(tgt_heap, self, &format,
					link_at((unsigned)(uintptr_t)which)))
			atomic_fetch_add(&counted[(uintptr_t)which], 1);
		tgs_step_done(&tgt_heap->slots[self]);
	}
	return NULL;
}

static void test_each_swing_is_counted_once(void)
{
	pthread_t threads[N_SWINGERS];
	uint64_t i, total = 0;

	for (i = 0; i < N_SWINGERS; i++)
		tgt_open_slot(FIRST_OWNER + (unsigned)i);
	for (i = 0; i < N_SWINGERS; i++)
		CU_ASSERT_EQUAL_FATAL(
			pthread_create(&threads[i], NULL, swing_and_recover, (void *)i), 0);
	for (i = 0; i < N_SWINGERS; i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < N_LINKS; i++) {
		CU_ASSERT_EQUAL(tgs_link_get(tgt_heap, link_at((unsigned)i)), counted[i]);
		total += counted[i];
	}
	CU_ASSERT(total > 1000);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Each object comes back exactly once, though freers die",
		 test_each_object_comes_back_once},
		{"Each swing of a link is known to its recoverer", test_each_swing_is_counted_once},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"both sides", NULL, NULL, tgt_region_set_up, tgt_region_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("tsan_remote", suites);
}
