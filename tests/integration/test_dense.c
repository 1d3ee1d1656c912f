/* test_dense - the words of dense spans in which others free and publish have memory only in time of need, and few messages
 * are sent for them.
 */
#include <CUnit/CUnit.h>
#include <pthread.h>

#include "client/cache.h"
#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define SIZE    64u
#define IN_SPAN (TGS_PAGE_SIZE / SIZE)
#define MANY    (200 * IN_SPAN)

static void *objects[MANY];

static bool has_more(const void *p)
{
	return tgs_has_more(&tgc_heap, TGS_DENSE_4,
			    (uint64_t)((const uint8_t *)p - tgc_heap.data) >> TGS_PAGE_SHIFT);
}

static void make(unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		objects[i] = tg_malloc(SIZE);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
	}
}

static void free_all(unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++)
		tg_free(objects[i]);
}

static void test_ones_own_frees_need_none(void)
{
	unsigned i;

	tgt_fresh_memory();
	make(MANY);
	free_all(MANY / 2);
	for (i = MANY / 2; i < MANY; i++) {
		if (has_more(objects[i]))
			break;
		tg_free(objects[i]);
	}
	CU_ASSERT_EQUAL(i, MANY);
	tgt_check(0);
}

static void free_first(void *arg)
{
	(void)arg;
	tg_free(objects[0]);
}

static void test_all_ways_to_need_them(void)
{
	tg_link *link = tg_calloc(1, 1000);

	tgt_fresh_memory();
	make(1);
	CU_ASSERT_FALSE(has_more(objects[0]));
	CU_ASSERT_EQUAL(tgt_in_child(free_first, NULL), 0);
	CU_ASSERT(has_more(objects[0]));
	tgt_check(1);
	tgt_fresh_memory();
	make(1);
	CU_ASSERT_FALSE(has_more(objects[0]));
	CU_ASSERT_EQUAL(tg_publish(objects[0]), 0);
	CU_ASSERT(has_more(objects[0]));
	CU_ASSERT_EQUAL(tgt_check_number("published"), 1);
	tg_free(objects[0]);
	tgt_fresh_memory();
	make(1);
	CU_ASSERT(tg_swap(link, NULL, objects[0], TG_GIVE));
	CU_ASSERT(has_more(objects[0]));
	CU_ASSERT(tg_swap(link, objects[0], NULL, TG_RETIRE));
	tgt_fresh_memory();
	make(1);
	CU_ASSERT(tg_swap(link, NULL, objects[0], 0));
	CU_ASSERT_FALSE(has_more(objects[0]));
	CU_ASSERT(tg_swap(link, objects[0], NULL, TG_RETIRE));
	tgt_fresh_memory();
	make(1);
	CU_ASSERT_FALSE(has_more(objects[0]));
	CU_ASSERT_EQUAL(tg_root_set("dense", objects[0]), 0);
	CU_ASSERT(has_more(objects[0]));
	CU_ASSERT_EQUAL(tg_root_set("dense", NULL), 0);
	tg_free(objects[0]);
	tg_free(link);
	tgt_check(0);
}

/* All in its child: 200 spans of its parent's, in 13 groups or some more. */
static void free_them(void *arg)
{
	uint64_t before;

	(void)arg;
	tg_free(tg_malloc(SIZE));
	before = tgt_stats().messages;
	free_all(MANY);
	TGT_EXPECT(tgt_stats().messages - before <= 20);
}

static void test_a_process_that_frees_much_asks_seldom(void)
{
	tgt_fresh_memory();
	make(MANY);
	CU_ASSERT_EQUAL(tgt_in_child(free_them, NULL), 0);
	CU_ASSERT(has_more(objects[0]) && has_more(objects[MANY - 1]));
	tgt_check(0);
	/* Those spans have them from now on. */
	make(MANY);
	CU_ASSERT(has_more(objects[0]) && has_more(objects[MANY - 1]));
	free_all(MANY);
	tgt_check(0);
}

static void *free_here(void *arg)
{
	free_all(MANY);
	return arg;
}

static void test_a_thread_that_frees_anothers_needs_them_when_hints_are_full(void)
{
	uint64_t before;
	pthread_t thread;

	tgt_fresh_memory();
	make(MANY);
	before = tgt_stats().messages;
	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, free_here, NULL), 0);
	pthread_join(thread, NULL);
	/* With those for a slot, and for its end. */
	CU_ASSERT(tgt_stats().messages - before <= 30);
	CU_ASSERT_EQUAL(tgt_stats().errors, 0);
	tgt_check(0);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"One's own frees need none", test_ones_own_frees_need_none},
		{"All ways to need them", test_all_ways_to_need_them},
		{"A process that frees much asks seldom",
		 test_a_process_that_frees_much_asks_seldom},
		{"A thread that frees another's needs them when hints are full",
		 test_a_thread_that_frees_anothers_needs_them_when_hints_are_full},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"dense", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("dense", suites);
}
