/* test_heap_threads: frees by other threads race with everything that the daemon does with the
 * span.
 *
 * One thread is the daemon, and the client that takes objects.  It hands them to freers, and gives
 * their span back at once: so the frees meet the span in the client's hands, in central, in a
 * sweep, in a closet, in a client that is being settled, or in the hands of whoever was granted it
 * next.  No free may be lost on any of these ways: when all is over, the heap must be empty to the
 * last page, without a look at spans that are not marked.
 */
#include <pthread.h>
#include <stdlib.h>

#include "tests/support/heap.h"
#include "tests/support/runner.h"

enum { FREERS = 3, QUEUE = 1 << 12 };

/* From the one that takes to one freer. */
struct queue {
	_Atomic uint64_t item[QUEUE]; /* page << 16 | index; */
	_Atomic uint64_t head, tail;
	_Atomic int closed;
	unsigned slot;
	pthread_t thread;
};

static struct queue queues[FREERS];
static uint64_t random_state;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static bool give(struct queue *queue, uint64_t page, unsigned index)
{
	uint64_t head = atomic_load(&queue->head);

	if (head - atomic_load(&queue->tail) == QUEUE)
		return false;
	atomic_store(&queue->item[head % QUEUE], page << 16 | index);
	atomic_store(&queue->head, head + 1);
	return true;
}

/* An assertion of CUnit may not be made here; a free that finds its bit set is told by what the
 * function returns. */
static void *freer(void *arg)
{
	struct queue *queue = arg;
	uintptr_t twice = 0;

	for (;;) {
		int closed = atomic_load(&queue->closed);
		uint64_t tail = atomic_load(&queue->tail), item;
		struct tgs_span span;
		unsigned index;

		if (tail == atomic_load(&queue->head)) {
			if (closed)
				return (void *)twice;
			sched_yield();
			continue;
		}
		item = atomic_load(&queue->item[tail % QUEUE]);
		index = item & 0xffff;
		if (!tgs_span_at(view, item >> 16, &span))
			twice++;
		else
			twice += tgs_remote_free(view, queue->slot,
						 tgs_remote_word(view, tgs_classes[span.class].kind,
								 item >> 16, index / 64,
								 index % 64 / 32),
						 UINT32_C(1) << index % 32) != 0;
		tgs_step_done(&view->slots[queue->slot]);
		atomic_store(&queue->tail, tail + 1);
	}
}

static void start_freers(void)
{
	uint32_t client = add_client(0);
	unsigned i;

	for (i = 0; i < FREERS; i++) {
		atomic_store(&queues[i].head, 0);
		atomic_store(&queues[i].tail, 0);
		atomic_store(&queues[i].closed, 0);
		queues[i].slot = open_slot(client);
		CU_ASSERT_EQUAL(pthread_create(&queues[i].thread, NULL, freer, &queues[i]), 0);
	}
}

static void join_freers(void)
{
	unsigned i;

	for (i = 0; i < FREERS; i++) {
		void *twice = NULL;

		atomic_store(&queues[i].closed, 1);
		CU_ASSERT_EQUAL(pthread_join(queues[i].thread, &twice), 0);
		CU_ASSERT_PTR_NULL(twice);
	}
}

/* Takes some of what is free in the span and hands it to freers. */
static void take_and_give(uint64_t page, bool publish_some)
{
	struct tgs_span span = span_at(page);
	unsigned step = span.class == TGS_CLASS_TINY ? 16 : 1 + (unsigned)random_next() % 4;
	unsigned i;

	back_state(page);
	for (i = 0; i < span.n_slots; i += step) {
		struct queue *queue = &queues[random_next() % FREERS];

		if (tgs_taken_bits(view, kind_at(page), page, i / 64) >> i % 64 & 1)
			continue;
		take_object(page, i);
		if (publish_some && random_next() % 2)
			publish(page, i);
		if (!give(queue, page, i))
			drop_object(page, i);
	}
}

static void run(uint32_t flags, unsigned rounds, bool clients_die)
{
	static uint64_t now_ms = 1000;
	uint32_t client;
	unsigned slot, i;

	random_state = 88172645463325252u;
	start_freers();
	client = add_client(flags);
	slot = open_slot(client);
	for (i = 0; i < rounds; i++) {
		unsigned class = (unsigned[]){2, 2, 10, 30, 60, TGS_CLASS_TINY}[random_next() % 6];
		uint64_t page = random_next() % 8 == 0 ? get_large(client, slot, 5).page
						       : get_span(client, slot, class).page;

		/* Under TG_RECLAIM, a death frees what is unpublished, and a free on its way would
		 * be the second. */
		take_and_give(page, flags == RECLAIM);
		if (clients_die && i % 16 == 0) {
			CU_ASSERT_EQUAL(tgd_heap_client_end(heap, client), 0);
			client = add_client(flags);
			slot = open_slot(client);
		} else if (random_next() % 4 != 0) {
			CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
		}
		now_ms += 30;
		(void)tgd_heap_work(heap, now_ms);
	}
	join_freers();
	CU_ASSERT_EQUAL(tgd_heap_close_slot(heap, client, slot), 0);
	for (i = 0; i < 100; i++)
		(void)tgd_heap_work(heap, now_ms += 1000);
	CU_ASSERT_EQUAL(status().spans, 0);
	CU_ASSERT_EQUAL(status().span_bytes, 0);
	CU_ASSERT_EQUAL(checked().objects, 0);
}

static void a_heap(void)
{
	start_heap(256 * MIB, 0);
}

static void frees_race_with_puts_grants_and_sweeps(void)
{
	run(0, 8000, false);
}

static void frees_race_with_the_settling_of_the_dead(void)
{
	run(0, 8000, true);
}

static void frees_race_with_closets(void)
{
	run(RECLAIM, 8000, false);
}

static CU_TestInfo races[] = {
	{"frees race with puts, grants and sweeps", frees_race_with_puts_grants_and_sweeps},
	{"frees race with the settling of the dead", frees_race_with_the_settling_of_the_dead},
	{"frees race with closets", frees_race_with_closets},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"races", NULL, NULL, a_heap, end_heap, races},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("heap threads", suites);
}
