/* test_tiny_words - objects of 1 to 15 bytes that others free or that are published, and the words for that, which have
 * memory only in time of need.
 *
 * A span of tiny objects that its owner alone uses takes little more than the objects.  The words that say which of them
 * others have freed and which are published come with the first one.  Where the objects lie is test_tiny's.
 */
#include <CUnit/CUnit.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/process.h"
#include "client/tg.h"
#include "shm/span.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define N_OBJECTS 4096

static void test_published_tiny_objects(void)
{
	uint8_t *p, *q;

	CU_ASSERT_EQUAL(tg_trim(), 0);
	p = tg_malloc(3);
	q = tg_malloc(3);
	CU_ASSERT_EQUAL(tg_publish(p), 0);
	CU_ASSERT_EQUAL(tgt_check_number("published"), 1);
	CU_ASSERT_EQUAL(tg_publish(q), 0);
	CU_ASSERT_EQUAL(tgt_check_number("published"), 2);
	tg_free(p);
	CU_ASSERT_EQUAL(tgt_check_number("published"), 1);
	tg_free(q);
	CU_ASSERT_EQUAL(tgt_check_number("published"), 0);
	/* What comes to lie there next starts out private. */
	p = tg_malloc(3);
	CU_ASSERT_EQUAL(tgt_check_number("published"), 0);
	tg_free(p);
}

static bool has_more(const void *p)
{
	return tgs_has_more(&tgc_heap, TGS_TINY,
			    (uint64_t)((const uint8_t *)p - tgc_heap.data) >> TGS_PAGE_SHIFT);
}

/* Four million objects of 8 bytes, and all that the two files have memory for. */
static void test_small_change_is_cheap(void)
{
	enum { N = 4000000 };
	long long before, after;
	void **p = calloc(N, sizeof(*p));
	unsigned i;

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	before = tgt_status("resident_bytes");
	for (i = 0; i < N; i++)
		p[i] = tg_malloc(8);
	after = tgt_status("resident_bytes");
	printf("%.3f bytes of heap per object ", (double)(after - before) / N);
	CU_ASSERT(after - before <= N * 19LL / 2);
	for (i = 0; i < N; i++) {
		if (p[i] == NULL || has_more(p[i]))
			break;
		tg_free(p[i]);
	}
	CU_ASSERT_EQUAL(i, N);
	free(p);
}

static void free_one(void *arg)
{
	tg_free(*(void **)arg);
}

static void test_words_have_memory_from_the_first_need_on(void)
{
	void *p, *q;
	tg_link *link = tg_calloc(1, 64);

	tgt_fresh_memory();
	p = tg_malloc(8);
	q = tg_malloc(8);
	CU_ASSERT_PTR_EQUAL(q, (uint8_t *)p + 8);
	CU_ASSERT_FALSE(has_more(p));
	CU_ASSERT_EQUAL(tgt_in_child(free_one, &p), 0);
	CU_ASSERT(has_more(q));
	tgt_check(2);
	/* Published. */
	tg_free(q);
	tgt_fresh_memory();
	p = tg_malloc(8);
	CU_ASSERT_FALSE(has_more(p));
	CU_ASSERT_EQUAL(tg_publish(p), 0);
	CU_ASSERT(has_more(p));
	tg_free(p);
	/* Given, then retired. */
	tgt_fresh_memory();
	p = tg_malloc(8);
	CU_ASSERT_FALSE(has_more(p));
	CU_ASSERT(tg_swap(link, NULL, p, TG_GIVE));
	CU_ASSERT(has_more(p));
	CU_ASSERT(tg_swap(link, p, NULL, TG_RETIRE));
	/* Not given, and retired. */
	tgt_fresh_memory();
	p = tg_malloc(8);
	CU_ASSERT(tg_swap(link, NULL, p, 0));
	CU_ASSERT_FALSE(has_more(p));
	CU_ASSERT(tg_swap(link, p, NULL, TG_RETIRE));
	CU_ASSERT_EQUAL(tgt_check_number("objects"), 1);
	/* A root leads to it. */
	tgt_fresh_memory();
	p = tg_malloc(8);
	CU_ASSERT_FALSE(has_more(p));
	CU_ASSERT_EQUAL(tg_root_set("tiny", p), 0);
	CU_ASSERT(has_more(p));
	CU_ASSERT_EQUAL(tgt_check_number("published"), 1);
	CU_ASSERT_EQUAL(tg_root_set("tiny", NULL), 0);
	tg_free(p);
	tg_free(link);
}

/* A link in a tiny object, swung by somebody who does not own it: that object becomes published. */
static void swing(void *arg)
{
	tg_link *link = arg;
	void *p = tg_malloc(64);

	TGT_EXPECT(tg_swap(link, NULL, p, TG_GIVE));
}

static void test_a_link_may_lie_in_a_tiny_object(void)
{
	tg_link *link;

	tgt_fresh_memory();
	link = tg_calloc(1, sizeof(*link));
	CU_ASSERT_FALSE(has_more(link));
	CU_ASSERT_EQUAL(tgt_in_child(swing, link), 0);
	CU_ASSERT(has_more(link));
	CU_ASSERT_EQUAL(tgt_check_number("published"), 2);
	CU_ASSERT(tg_swap(link, tg_link_get(link), NULL, TG_RETIRE));
	tg_free(link);
}

/* Objects go from one process to another all the time: messages must not. */
static void free_rounds(void *arg)
{
	struct tgt_meeting *meeting = arg;
	void **shared = tg_root_get("objects");
	struct tg_stats stats = {.size = sizeof(stats)};
	unsigned i;

	TGT_REQUIRE(shared != NULL);
	while (tgt_wait_parent_said(meeting) && shared[0] != NULL) {
		for (i = 0; i < N_OBJECTS; i++)
			tg_free(shared[i]);
		TGT_EXPECT(tg_trim() == 0);
		tgt_tell_parent(meeting);
	}
	TGT_EXPECT(tg_stats(&stats) == 0);
	/* A trim may tell the daemon something each time; the memory of words it asks for a few times. */
	TGT_EXPECT(stats.messages < 20);
	TGT_EXPECT(stats.foreign_frees == 100 * N_OBJECTS);
}

static void test_a_consumer_asks_a_few_times(void)
{
	void **shared = tg_malloc(N_OBJECTS * sizeof(*shared));
	struct tgt_meeting meeting;
	unsigned round, i;
	pid_t child;

	CU_ASSERT_EQUAL(tg_root_set("objects", shared), 0);
	CU_ASSERT_FATAL(tgt_meeting_open(&meeting));
	child = tgt_fork(free_rounds, &meeting);
	for (round = 0; round < 100; round++) {
		for (i = 0; i < N_OBJECTS; i++)
			shared[i] = tg_malloc(8);
		tgt_tell_child(&meeting);
		CU_ASSERT_FATAL(tgt_wait_child_said(&meeting));
	}
	shared[0] = NULL;
	tgt_tell_child(&meeting);
	CU_ASSERT_EQUAL(tgt_wait(child), 0);
	tgt_meeting_close(&meeting);
	CU_ASSERT_EQUAL(tg_root_set("objects", NULL), 0);
	tg_free(shared);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"A tiny object is published by itself", test_published_tiny_objects},
		{"Eight bytes take nine and a half at most", test_small_change_is_cheap},
		{"Published and remote words have memory from the first need on",
		 test_words_have_memory_from_the_first_need_on},
		{"A link may lie in a tiny object", test_a_link_may_lie_in_a_tiny_object},
		{"Who frees what another makes asks a few times for their memory",
		 test_a_consumer_asks_a_few_times},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"tiny words", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("tiny_words", suites);
}
