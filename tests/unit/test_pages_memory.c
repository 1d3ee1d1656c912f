/*
 * test_pages_memory: which pages have memory behind them, and what the scavenger is given.
 *
 * After Go's tests of scavenging (mgcscavenge_test.go): highest address first, in runs of at most
 * so many pages, nothing twice, and nobody is granted what the scavenger holds. Counts are compared
 * with a count over all pages each time.
 */
#include "daemon/pages.h"

#include <CUnit/CUnit.h>

#include "tests/support/pages.h"
#include "tests/support/runner.h"

static void test_backing_failed_half_way(void)
{
	make(2 * CHUNK);
	alloc(600, 0, 600);
	tgd_pages_release(heap, 500, 20, false);
	tgd_pages_release(heap, 0, 500, true);
	alloc(520, 0, 500);
	tgd_pages_undo_alloc(heap, 0, 520, 64);
	counts_are(0, 64, 0, 64, 0);
	counts_are(64, 456, 0, 0, 456);
	heap_has(80, 64);
	alloc(520, 0, 456);
	tgd_pages_undo_alloc(heap, 0, 520, 0);
	heap_has(80, 0);
	alloc(520, 0, 520);
	tgd_pages_undo_alloc(heap, 0, 520, 520);
	heap_has(80, 520);
}

static void scavenge(uint64_t max, uint64_t expected_first, uint64_t expected_n)
{
	uint64_t first = UINT64_MAX, n = tgd_pages_take_scavengable(heap, max, &first);

	CU_ASSERT_EQUAL(n, expected_n);
	CU_ASSERT_EQUAL(first, expected_first);
	if (n && n == expected_n)
		tgd_pages_release(heap, first, n, true);
}

static void test_scavenge_from_the_top(void)
{
	make(10 * CHUNK);
	scavenge(8, UINT64_MAX, 0);
	alloc(6 * CHUNK, 0, 6 * CHUNK);
	scavenge(8, UINT64_MAX, 0);
	tgd_pages_release(heap, 100, 20, false);
	tgd_pages_release(heap, 2 * CHUNK - 30, 60, false);
	tgd_pages_release(heap, 5 * CHUNK, 1, false);
	scavenge(0, UINT64_MAX, 0);
	scavenge(8, 5 * CHUNK, 1);
	scavenge(8, 2 * CHUNK + 22, 8);
	scavenge(40, 2 * CHUNK - 18, 40);
	heap_has(6 * CHUNK - 81, 32);
	scavenge(1000, 2 * CHUNK - 30, 12);
	scavenge(1000, 100, 20);
	scavenge(1000, UINT64_MAX, 0);
	heap_has(6 * CHUNK - 81, 0);
}

static void test_scavenge_a_run_over_many_chunks(void)
{
	make(10 * CHUNK);
	alloc(10 * CHUNK, 0, 10 * CHUNK);
	tgd_pages_release(heap, 0, 10 * CHUNK, false);
	scavenge(CHUNK + 7, 9 * CHUNK - 7, CHUNK + 7);
	scavenge(UINT64_MAX, 0, 9 * CHUNK - 7);
	heap_has(0, 0);
}

static void test_nobody_is_granted_what_the_scavenger_holds(void)
{
	uint64_t first;

	make(CHUNK);
	alloc(CHUNK, 0, CHUNK);
	tgd_pages_release(heap, 0, CHUNK, false);
	CU_ASSERT_EQUAL(tgd_pages_take_scavengable(heap, 500, &first), 500);
	CU_ASSERT_EQUAL(first, 12);
	heap_has(500, 12);
	alloc_fails(13);
	alloc(12, 0, 0);
	CU_ASSERT_EQUAL(tgd_pages_take_scavengable(heap, 500, &first), 0);
	tgd_pages_release(heap, 12, 250, true);
	tgd_pages_release(heap, 262, 250, false);
	alloc(500, 12, 250);
	heap_has(CHUNK, 0);
}

static void test_counts_over_ranges(void)
{
	make(4 * CHUNK + 100);
	alloc(3 * CHUNK, 0, 3 * CHUNK);
	tgd_pages_release(heap, 500, 100, false);
	tgd_pages_release(heap, CHUNK + 200, 50, true);
	counts_are(0, 1, 1, 0, 0);
	counts_are(0, CHUNK, 500, 12, 0);
	counts_are(490, 20, 10, 10, 0);
	counts_are(CHUNK, CHUNK, CHUNK - 138, 88, 50);
	counts_are(10, 3 * CHUNK, 3 * CHUNK - 160, 100, 60);
	counts_are(4 * CHUNK, CHUNK, 0, 0, 100);
	counts_are(4 * CHUNK, UINT64_MAX, 0, 0, 100);
	counts_are(4 * CHUNK + 100, 1, 0, 0, 0);
	counts_are(UINT64_MAX, 1, 0, 0, 0);
	counts_are(5, 0, 0, 0, 0);
}

static CU_TestInfo tests[] = {
	{"a run whose backing failed goes back in two parts", test_backing_failed_half_way},
	{"idle pages are taken from the highest down", test_scavenge_from_the_top},
	{"an idle run may cross chunks", test_scavenge_a_run_over_many_chunks},
	{"what the scavenger holds is granted to nobody",
	 test_nobody_is_granted_what_the_scavenger_holds},
	{"counts over a range are exact", test_counts_over_ranges},
	CU_TEST_INFO_NULL,
};

int main(void)
{
	CU_SuiteInfo suites[] = {
		{"pages and memory", NULL, NULL, NULL, no_heap, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("pages_memory", suites);
}
