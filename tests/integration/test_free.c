/* test_free - explicit frees: Go's own checklist for them, for every size class, and on other threads and processes.
 *
 * What is wrong to free is test_badfree's.
 */
#include <CUnit/CUnit.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/tg.h"
#include "shm/sizeclass.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define N_THREADS 8
#define MANY      1000
#define REUSED    40
#define MIB       ((size_t)1 << 20)

/* Go's list, tiny ones, every class, large ones. */
static size_t sizes[TGS_CLASSES + 32];
static unsigned n_sizes;

static int list_sizes(void)
{
	static const size_t others[] = {1,  2,   4,     7,     8,     12,    15,     16,
					17, 500, 20000, 32760, 32769, 50000, 1 << 20};
	unsigned i;

	n_sizes = 0;
	for (i = 0; i < sizeof(others) / sizeof(*others); i++)
		sizes[n_sizes++] = others[i];
	for (i = 2; i < TGS_CLASSES; i++)
		sizes[n_sizes++] = tgs_classes[i].size;
	return 0;
}

static void take(void **objects, unsigned n, size_t size)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		objects[i] = tg_malloc(size);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
		tgt_fill_object(objects[i], size, i);
	}
}

static void give_back(void **objects, unsigned n, size_t size)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		CU_ASSERT(tgt_is_filled(objects[i], size, i));
		tg_free(objects[i]);
	}
}

/* So many outstanding at a time, again and again: after the first round nothing new is needed, or, if that is more than
 * the thread keeps to itself, a message now and then. */
static void outstanding(unsigned n, unsigned rounds, size_t size_max)
{
	static void *objects[MANY];
	struct tg_stats before = {0};
	uint64_t messages;
	unsigned i, round;

	for (i = 0; i < n_sizes; i++) {
		if (sizes[i] > size_max)
			continue;
		for (round = 0; round < rounds; round++) {
			take(objects, n, sizes[i]);
			give_back(objects, n, sizes[i]);
			if (round == 0)
				before = tgt_stats();
		}
		messages = tgt_stats().messages - before.messages;
		if (n * sizes[i] <= MIB) {
			CU_ASSERT_EQUAL(messages, 0);
			CU_ASSERT_EQUAL(tgt_stats().spans, before.spans);
		} else {
			CU_ASSERT(messages <= (rounds - 1) * (2 * n * sizes[i] / MIB + 8));
		}
	}
}

static void test_null(void)
{
	tg_free(NULL);
	CU_ASSERT_EQUAL(tgt_stats().errors, 0);
}

static void test_one_at_a_time(void)
{
	unsigned i, round;

	for (i = 0; i < n_sizes; i++) {
		void *first = tg_malloc(sizes[i]), *p = first;
		struct tg_stats before = tgt_stats();
		unsigned same = 0;

		for (round = 0; round < 500; round++) {
			tg_free(p);
			p = tg_malloc(sizes[i]);
			CU_ASSERT_PTR_NOT_NULL_FATAL(p);
			same += p == first;
		}
		tg_free(p);
		/* What was freed last is what is still in the processor's cache.  Tiny ones fill their block first. */
		CU_ASSERT(same == 500 || sizes[i] < 16);
		CU_ASSERT_EQUAL(tgt_stats().messages, before.messages);
		CU_ASSERT_EQUAL(tgt_stats().spans, before.spans);
	}
}

static void test_twenty_outstanding(void)
{
	outstanding(20, 50, 100000);
}

static void test_a_thousand_outstanding(void)
{
	outstanding(MANY, 5, TGS_SMALL_MAX);
}

static void test_a_thousand_large_ones(void)
{
	static void *objects[MANY];

	/* More than the process keeps: the rest goes back. */
	take(objects, MANY, 400000);
	CU_ASSERT(tgt_status("span_bytes") >= MANY * 400000LL);
	give_back(objects, MANY, 400000);
	CU_ASSERT(tgt_status("span_bytes") <= 288LL << 20);
}

static int by_address(const void *a, const void *b)
{
	const uint8_t *const *p = a, *const *q = b;

	return *p < *q ? -1 : *p > *q;
}

static void test_no_live_object_is_handed_out_twice(void)
{
	static uint8_t *objects[MANY];
	unsigned i, k, round;

	for (i = 0; i < n_sizes; i++) {
		if (sizes[i] > 4096)
			continue;
		for (k = 0; k < MANY; k++)
			objects[k] = tg_malloc(sizes[i]);
		/* Holes everywhere, filled again, other holes. */
		for (round = 0; round < 5; round++) {
			for (k = round; k < MANY; k += 3)
				tg_free(objects[k]);
			for (k = round; k < MANY; k += 3)
				objects[k] = tg_malloc(sizes[i]);
		}
		qsort(objects, MANY, sizeof(*objects), by_address);
		for (k = 0; k + 1 < MANY; k++)
			CU_ASSERT(objects[k] + sizes[i] <= objects[k + 1]);
		tgt_check(MANY);
		for (k = 0; k < MANY; k++)
			tg_free(objects[k]);
	}
}

struct batch {
	void **objects;
	unsigned n;
	size_t size;
};

/* CUnit's asserts are not for threads. */
static void *free_them(void *arg)
{
	struct batch *batch = arg;
	unsigned i;

	for (i = 0; i < batch->n; i++) {
		TGT_EXPECT(tgt_is_filled(batch->objects[i], batch->size, i));
		tg_free(batch->objects[i]);
	}
	return NULL;
}

static void test_free_on_another_thread(void)
{
	static void *objects[MANY];
	struct tg_stats stats, before = {0};
	unsigned i, round;

	for (i = 0; i < n_sizes; i++) {
		struct batch batch = {objects, sizes[i] > TGS_SMALL_MAX ? 20 : MANY / 4, sizes[i]};

		for (round = 0; round < 6; round++) {
			pthread_t thread;

			take(objects, batch.n, sizes[i]);
			CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, free_them, &batch), 0);
			pthread_join(thread, NULL);
			stats = tgt_stats();
			/* The second round may need a few more, before the first frees are found. */
			if (round == 1)
				before = stats;
		}
		/* And what was asked for ahead may come later. */
		CU_ASSERT(stats.span_bytes <= before.span_bytes + MIB);
		CU_ASSERT_EQUAL(stats.pending_frees, 0);
	}
	/* Large objects are the process's, so none of them was somebody else's. */
	CU_ASSERT_EQUAL(stats.foreign_frees, (n_sizes - 3) * 6 * (MANY / 4));
}

/* Frees them and makes as many, of the same slots. */
static void *free_and_make(void *arg)
{
	struct batch *batch = arg;
	void *before[REUSED];
	unsigned i, k;

	/* It has a cache, then. */
	tg_free(tg_malloc(batch->size));
	memcpy(before, batch->objects, sizeof(before));
	for (i = 0; i < REUSED; i++)
		tg_free(before[i]);
	for (i = 0; i < REUSED; i++) {
		batch->objects[i] = tg_malloc(batch->size);
		for (k = 0; k < REUSED && before[k] != batch->objects[i]; k++)
			;
		TGT_REQUIRE(k < REUSED);
		before[k] = NULL;
		tgt_fill_object(batch->objects[i], batch->size, i);
	}
	return NULL;
}

/* While its owner, who lives and allocates, never gets one of them. */
static void test_a_thread_uses_again_what_it_frees(void)
{
	static const size_t reused[] = {16, 64, 100, 500, 1024};
	void *objects[REUSED], *others[REUSED];
	struct batch batch = {.objects = objects, .n = REUSED};
	unsigned i, k, round;

	for (i = 0; i < TGS_ARRAY_LEN(reused); i++) {
		batch.size = reused[i];
		take(objects, REUSED, batch.size);
		for (round = 0; round < 3; round++) {
			pthread_t thread;

			CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, free_and_make, &batch),
					      0);
			pthread_join(thread, NULL);
			take(others, REUSED, batch.size);
			tgt_check(2 * REUSED);
			for (k = 0; k < REUSED; k++) {
				CU_ASSERT(tgt_is_filled(objects[k], batch.size, k));
				CU_ASSERT(tgt_is_filled(others[k], batch.size, k));
				tg_free(others[k]);
			}
		}
		/* None of these frees went by way of the owner. */
		CU_ASSERT_EQUAL(tgt_stats().foreign_frees, 0);
		for (k = 0; k < REUSED; k++)
			tg_free(objects[k]);
		tgt_check(0);
	}
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_stats().spans, 0);
}

static void test_many_threads_free_at_once(void)
{
	static void *objects[N_THREADS * MANY];
	struct batch batches[N_THREADS];
	pthread_t threads[N_THREADS];
	unsigned i, round, n = tgt_scaled(64);

	for (round = 0; round < n; round++) {
		size_t size = sizes[round % n_sizes];

		if (size > 4096)
			continue;
		for (i = 0; i < N_THREADS; i++) {
			take(objects + i * MANY, MANY, size);
			batches[i] = (struct batch){objects + i * MANY, MANY, size};
		}
		for (i = 0; i < N_THREADS; i++)
			CU_ASSERT_EQUAL_FATAL(
				pthread_create(&threads[i], NULL, free_them, &batches[i]), 0);
		for (i = 0; i < N_THREADS; i++)
			pthread_join(threads[i], NULL);
	}
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_stats().spans, 0);
}

static void free_all_sizes(void *arg)
{
	void **objects = arg;
	unsigned i;

	for (i = 0; i < n_sizes; i++) {
		TGT_EXPECT(tgt_is_filled(objects[i], sizes[i], i));
		tg_free(objects[i]);
	}
	TGT_EXPECT(tgt_stats().foreign_frees == n_sizes);
}

static void test_free_in_another_process(void)
{
	void *objects[TGS_CLASSES + 32];
	unsigned i, round;

	for (round = 0; round < 5; round++) {
		for (i = 0; i < n_sizes; i++) {
			objects[i] = tg_malloc(sizes[i]);
			CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
			tgt_fill_object(objects[i], sizes[i], i);
		}
		tgt_check(n_sizes);
		CU_ASSERT_EQUAL(tgt_in_child(free_all_sizes, objects), 0);
		/* Whether it applied its last frees itself, or the daemon did it after its end. */
		tgt_check(0);
	}
	CU_ASSERT(tgt_wait_at_least("recovered_clients", 5));
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_stats().spans, 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

/* ---- two processes free each other's objects, all the time ---- */

struct exchange {
	struct tgt_meeting meeting;
	void **theirs, **ours;
};

static void swap_objects(struct exchange *x, bool parent)
{
	void **make = parent ? x->ours : x->theirs, **end = parent ? x->theirs : x->ours;
	unsigned round, i;

	for (round = 0; round < 40; round++) {
		for (i = 0; i < MANY; i++) {
			size_t size = sizes[(round + i) % n_sizes];

			make[i] = tg_malloc(size < 5000 ? size : 500);
			TGT_REQUIRE(make[i] != NULL);
			tgt_fill_object(make[i], 1, round + parent);
		}
		if (parent) {
			tgt_tell_child(&x->meeting);
			TGT_REQUIRE(tgt_wait_child_said(&x->meeting));
		} else {
			tgt_tell_parent(&x->meeting);
			TGT_REQUIRE(tgt_wait_parent_said(&x->meeting));
		}
		for (i = 0; i < MANY; i++) {
			TGT_EXPECT(tgt_is_filled(end[i], 1, round + !parent));
			tg_free(end[i]);
			end[i] = NULL;
		}
		if (parent) {
			tgt_tell_child(&x->meeting);
			TGT_REQUIRE(tgt_wait_child_said(&x->meeting));
		} else {
			tgt_tell_parent(&x->meeting);
			TGT_REQUIRE(tgt_wait_parent_said(&x->meeting));
		}
	}
}

static void swap_child(void *arg)
{
	swap_objects(arg, false);
	/* Their frees and ours come to as much as was allocated. */
	TGT_EXPECT(tgt_stats().foreign_frees == 40 * MANY);
	TGT_EXPECT(tgt_stats().span_bytes <= 16 << 20);
}

static void test_two_processes_free_each_others_objects(void)
{
	struct exchange x;
	void **tables = tg_calloc(2 * MANY, sizeof(*tables));
	pid_t pid;

	CU_ASSERT_PTR_NOT_NULL_FATAL(tables);
	CU_ASSERT_FATAL(tgt_meeting_open(&x.meeting));
	x.ours = tables;
	x.theirs = tables + MANY;
	pid = tgt_fork(swap_child, &x);
	CU_ASSERT_FATAL(pid > 0);
	swap_objects(&x, true);
	CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	CU_ASSERT_EQUAL(tgt_stats().foreign_frees, 40 * MANY);
	CU_ASSERT(tgt_stats().span_bytes <= 16 << 20);
	tgt_meeting_close(&x.meeting);
	tgt_check(1);
	tg_free(tables);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"NULL may be freed", test_null},
		{"One object at a time needs one span, and no message", test_one_at_a_time},
		{"Twenty outstanding objects need nothing new", test_twenty_outstanding},
		{"A thousand outstanding objects need nothing new, or little",
		 test_a_thousand_outstanding},
		{"Of a thousand large ones some stay at hand and the rest goes back",
		 test_a_thousand_large_ones},
		{"No live object is handed out a second time",
		 test_no_live_object_is_handed_out_twice},
		{"Objects freed on another thread come back to their owner",
		 test_free_on_another_thread},
		{"A thread uses again what it frees of another's",
		 test_a_thread_uses_again_what_it_frees},
		{"Many threads free objects of one owner at once", test_many_threads_free_at_once},
		{"Another process frees objects of all sizes", test_free_in_another_process},
		{"Two processes free each other's objects",
		 test_two_processes_free_each_others_objects},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"free", list_sizes, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("free", suites);
}
