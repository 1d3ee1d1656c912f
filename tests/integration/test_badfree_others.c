/* test_badfree_others - objects that another thread or process frees, too: before, after, or at the same time.
 *
 * Who frees what another has in hand may hear of it late, but each free too many is told once, no slot is handed out
 * twice, and the heap stays exact.  Errors are counted (TG_ON_ERROR=count).  What one thread does wrong alone is
 * test_badfree's.
 */
#include <CUnit/CUnit.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "client/tg.h"
#include "shm/layout.h"
#include "shm/sizeclass.h"
#include "tests/support/badfree.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

/* ---- one after the other ---- */

static void *free_twice(void *object)
{
	tg_free(object);
	tg_free(object);
	return NULL;
}

static void test_another_threads_double_free_is_counted(void)
{
	pthread_t thread;
	unsigned i;

	for (i = 0; i < N_KINDS; i++) {
		void *p = tg_malloc(kinds[i]);

		CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, free_twice, p), 0);
		pthread_join(thread, NULL);
		errors_are(2 * i + 1);
		tgt_check(0);
		/* And once more by the owner, whether or not it has heard of it. */
		tg_free(p);
		errors_are(2 * i + 2);
		tgt_check(0);
	}
}

/* ---- at the same time ---- */

static struct {
	pthread_barrier_t barrier;
	unsigned rounds;
	void *object;
	void *made[2];
} race;

/* Two threads, which meet at the barrier with the one that starts them. */
static void start_race(pthread_t *threads, void *(*run)(void *))
{
	unsigned i;

	race.rounds = tgt_scaled(2000);
	CU_ASSERT_EQUAL_FATAL(pthread_barrier_init(&race.barrier, NULL, 3), 0);
	for (i = 0; i < 2; i++)
		CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, run, &race.made[i]), 0);
}

static void end_race(pthread_t *threads)
{
	unsigned i;

	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&race.barrier);
}

static void *race_to_free(void *unused)
{
	unsigned i;

	(void)unused;
	/* Of its own, so that it has hints. */
	tg_free(tg_malloc(100000));
	for (i = 0; i < race.rounds; i++) {
		pthread_barrier_wait(&race.barrier);
		tg_free(race.object);
		pthread_barrier_wait(&race.barrier);
	}
	return NULL;
}

/* A small object, and one of that size is made after it. */
static void *race_to_free_small(void *arg)
{
	void **made = arg;
	unsigned i;

	tg_free(tg_malloc(64));
	for (i = 0; i < race.rounds; i++) {
		pthread_barrier_wait(&race.barrier);
		tg_free(race.object);
		pthread_barrier_wait(&race.barrier);
		/* One after the other. */
		if (made == race.made + 1)
			pthread_barrier_wait(&race.barrier);
		*made = tg_malloc(64);
		if (made == race.made)
			pthread_barrier_wait(&race.barrier);
		pthread_barrier_wait(&race.barrier);
		tg_free(*made);
		pthread_barrier_wait(&race.barrier);
	}
	return NULL;
}

/* It may show only when the second one would use the slot again or, if it had no room to keep it at hand and buffered its
 * free, when the buffer is emptied: at the latest when it ends. */
static void test_what_two_threads_free_at_once_is_handed_out_once(void)
{
	pthread_t threads[2];
	unsigned i;

	start_race(threads, race_to_free_small);
	for (i = 0; i < race.rounds; i++) {
		race.object = tg_malloc(64);
		pthread_barrier_wait(&race.barrier);
		pthread_barrier_wait(&race.barrier);
		pthread_barrier_wait(&race.barrier);
		pthread_barrier_wait(&race.barrier);
		CU_ASSERT_PTR_NOT_EQUAL(race.made[0], race.made[1]);
		CU_ASSERT_TRUE(tgt_stats().errors <= i + 1);
		pthread_barrier_wait(&race.barrier);
	}
	end_race(threads);
	tgt_check(0);
	errors_are(race.rounds);
}

static void test_of_two_threads_that_free_at_once_one_is_told(void)
{
	pthread_t threads[2];
	unsigned i;

	start_race(threads, race_to_free);
	for (i = 0; i < race.rounds; i++) {
		/* Every other one takes the long way. */
		race.object = tg_malloc(100000);
		if (i % 2 == 1)
			CU_ASSERT_EQUAL(tg_publish(race.object), 0);
		pthread_barrier_wait(&race.barrier);
		pthread_barrier_wait(&race.barrier);
	}
	end_race(threads);
	errors_are(race.rounds);
	tgt_check(0);
}

/* ---- what one thread keeps at hand of another's ---- */

struct keeper {
	pthread_barrier_t met;
	size_t size;
	void *object;
	bool at_hand; /* it was free for this thread, and for nobody else */
};

static void *keep_at_hand(void *arg)
{
	struct keeper *keeper = arg;
	void *p = keeper->object;

	/* It has a cache, then. */
	tg_free(tg_malloc(keeper->size));
	tg_free(p);
	pthread_barrier_wait(&keeper->met);
	/* Now the owner frees it, too. */
	pthread_barrier_wait(&keeper->met);
	keeper->object = tg_malloc(keeper->size);
	keeper->at_hand = keeper->object == p;
	return NULL;
}

static void test_the_owner_frees_what_a_thread_keeps_at_hand(void)
{
	static const size_t sizes[] = {16, 64, 500, 1024};
	struct keeper keeper;
	pthread_t thread;
	unsigned i, k;

	CU_ASSERT_EQUAL_FATAL(pthread_barrier_init(&keeper.met, NULL, 2), 0);
	for (i = 0; i < TGS_ARRAY_LEN(sizes); i++) {
		void *freed, *others[600];

		keeper.size = sizes[i];
		freed = keeper.object = tg_malloc(sizes[i]);
		CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, keep_at_hand, &keeper), 0);
		pthread_barrier_wait(&keeper.met);
		tgt_check(0);
		tg_free(freed);
		errors_are(i + 1);
		/* Not even if it looks for all that is free. */
		for (k = 0; k < TGS_ARRAY_LEN(others); k++) {
			others[k] = tg_malloc(sizes[i]);
			CU_ASSERT_PTR_NOT_EQUAL(others[k], freed);
		}
		pthread_barrier_wait(&keeper.met);
		pthread_join(thread, NULL);
		CU_ASSERT_TRUE(keeper.at_hand);
		for (k = 0; k < TGS_ARRAY_LEN(others); k++)
			tg_free(others[k]);
		tgt_check(1);
		tg_free(keeper.object);
		errors_are(i + 1);
		tgt_check(0);
	}
	pthread_barrier_destroy(&keeper.met);
}

struct thief {
	struct tgt_meeting meeting;
	void *object;
};

/* Frees the object and keeps the free in its buffer until it is told. */
static void keep_a_free(void *arg)
{
	struct thief *thief = arg;

	tg_free(thief->object);
	TGT_EXPECT(tgt_stats().pending_frees == 1);
	tgt_tell_parent(&thief->meeting);
	TGT_REQUIRE(tgt_wait_parent_said(&thief->meeting));
	TGT_EXPECT(tg_trim() == 0);
	TGT_EXPECT(tgt_stats().pending_frees == 0);
	TGT_EXPECT(tgt_stats().errors == 1);
}

static void free_it_first(void *arg)
{
	struct thief *thief = arg;

	tg_free(thief->object);
	TGT_EXPECT(tg_trim() == 0);
	TGT_EXPECT(tgt_stats().errors == 0);
}

/* Both other processes find the object live; the one that comes second with its swap finds out. */
static void test_two_processes_free_one_object(void)
{
	static const size_t held_back[] = {1, 15, 16, 500, 2048};
	unsigned i;

	for (i = 0; i < 5; i++) {
		struct thief thief = {.object = tg_malloc(held_back[i])};
		char *output = NULL;
		pid_t pid;

		CU_ASSERT_FATAL(tgt_meeting_open(&thief.meeting));
		pid = tgt_fork(keep_a_free, &thief);
		CU_ASSERT(tgt_wait_child_said(&thief.meeting));
		tgt_check(0);
		CU_ASSERT_EQUAL(tgt_in_child_output(free_it_first, &thief, &output), 0);
		CU_ASSERT_STRING_EQUAL(output, "");
		free(output);
		tgt_check(0);
		tgt_tell_child(&thief.meeting);
		CU_ASSERT_EQUAL(tgt_wait(pid), 0);
		tgt_check(0);
		tgt_meeting_close(&thief.meeting);
		errors_are(0);
	}
}

#define SHELF 200

struct shelf {
	size_t size;
	uint8_t *objects[SHELF];
};

/* Each object once, and with each something that is none: behind the last slot of its page, inside of it, itself again. */
static void free_with_what_is_none(void *arg)
{
	const struct shelf *shelf = arg;
	const struct tgs_class *class = &tgs_classes[tgs_size_to_class(shelf->size)];
	unsigned i;

	for (i = 0; i < SHELF; i++) {
		uint8_t *p = shelf->objects[i];
		uint8_t *page = p - (uintptr_t)p % TGS_PAGE_SIZE;

		tg_free(page + class->n_slots * class->size);
		tg_free(p + 1);
		tg_free(p);
		tg_free(p);
		TGT_EXPECT(tgt_stats().errors == 3 * (i + 1));
	}
	TGT_EXPECT(tgt_stats().foreign_frees == SHELF);
	TGT_EXPECT(tg_trim() == 0);
	TGT_EXPECT(tgt_stats().errors == 3 * SHELF);
}

static void test_what_is_none_of_anothers_objects_is_counted(void)
{
	/* Spans of one page, with some bytes behind the last slot. */
	static const size_t sizes[] = {48, 80, 112, 240};
	struct shelf shelf;
	unsigned i, k;

	for (i = 0; i < TGS_ARRAY_LEN(sizes); i++) {
		const struct tgs_class *class = &tgs_classes[tgs_size_to_class(sizes[i])];

		CU_ASSERT_FATAL(class->n_pages == 1 &&
				class->n_slots * class->size < TGS_PAGE_SIZE);
		shelf.size = sizes[i];
		for (k = 0; k < SHELF; k++)
			shelf.objects[k] = tg_malloc(sizes[i]);
		CU_ASSERT_EQUAL(tgt_in_child(free_with_what_is_none, &shelf), 0);
		tgt_check(0);
		errors_are(0);
	}
}

static void free_and_trim(void *arg)
{
	struct thief *thief = arg;

	tg_free(thief->object);
	tgt_tell_parent(&thief->meeting);
	TGT_REQUIRE(tgt_wait_parent_said(&thief->meeting));
	TGT_EXPECT(tg_trim() == 0);
	TGT_EXPECT(tgt_stats().errors == 1);
}

/* The owner frees it while another one's free waits in a buffer: that one is told when it is applied. */
static void test_the_owner_frees_what_another_is_freeing(void)
{
	struct thief thief = {.object = tg_malloc(500)};
	pid_t pid;

	CU_ASSERT_FATAL(tgt_meeting_open(&thief.meeting));
	pid = tgt_fork(free_and_trim, &thief);
	CU_ASSERT(tgt_wait_child_said(&thief.meeting));
	tg_free(thief.object);
	errors_are(0);
	tgt_tell_child(&thief.meeting);
	CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	errors_are(0);
	tgt_check(0);
	tgt_meeting_close(&thief.meeting);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Of two threads that free a large object at once one is told",
		 test_of_two_threads_that_free_at_once_one_is_told},
		{"What two threads free at once is handed out once",
		 test_what_two_threads_free_at_once_is_handed_out_once},
		{"A double free on another thread is counted, also with one of the owner",
		 test_another_threads_double_free_is_counted},
		{"An owner that frees what another thread keeps at hand is told",
		 test_the_owner_frees_what_a_thread_keeps_at_hand},
		{"Of two processes that free one object the second is told",
		 test_two_processes_free_one_object},
		{"What is none of another process's objects is counted, and its objects are freed",
		 test_what_is_none_of_anothers_objects_is_counted},
		{"An owner that frees what another process is freeing is told",
		 test_the_owner_frees_what_another_is_freeing},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"badfree, others", NULL, NULL, count_errors, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("badfree_others", suites);
}
