/*
 * test_pages: which pages the page heap grants, and which requests it refuses, case by case.
 *
 * The cases are those of Go's own tests of this allocator (mpagealloc_test.go): which page a
 * request gets when the heap looks so and so, and how many of the pages had no memory behind
 * them. What grows the heap in Go is a matter of the size of the reservation here.
 * test_pages_memory.c has what concerns memory and the scavenger, test_pages_model.c does it all at
 * random.
 */
#include "daemon/pages.h"

#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdio.h>

#include "tests/support/pages.h"
#include "tests/support/runner.h"

static void test_all_free(void)
{
	static const uint64_t sizes[] = {1, 2, 5, 64, 65};

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		make(CHUNK);
		for (uint64_t k = 0; k < 5; k++)
			alloc(sizes[i], k * sizes[i], sizes[i]);
		heap_has(5 * sizes[i], 0);
	}
}

static void test_last_page_of_the_third_chunk(void)
{
	make(3 * CHUNK);
	take(0, 3 * CHUNK - 1);
	alloc(1, 3 * CHUNK - 1, 1);
	alloc_fails(1);
	heap_has(3 * CHUNK, 0);
}

static void test_not_contiguous(void)
{
	make(256 * CHUNK);
	take(0, 255 * CHUNK);
	alloc(1, 255 * CHUNK, 1);
	alloc(1, 255 * CHUNK + 1, 1);
	heap_has(255 * CHUNK + 2, 0);
}

static void test_straddle_two_chunks(void)
{
	make(2 * CHUNK);
	take(0, CHUNK - 1);
	take(CHUNK + 1, CHUNK - 1);
	CU_ASSERT_EQUAL(tgd_pages_largest_run(heap), 2);
	alloc_fails(3);
	alloc(2, CHUNK - 1, 2);
	alloc_fails(1);
}

static void test_fail_big_then_fill_the_rest(void)
{
	make(CHUNK);
	alloc(CHUNK - 3, 0, CHUNK - 3);
	alloc_fails(CHUNK);
	alloc_fails(4);
	alloc(1, CHUNK - 3, 1);
	alloc(2, CHUNK - 2, 2);
	alloc_fails(1);
	heap_has(CHUNK, 0);
}

static void test_a_whole_chunk(void)
{
	make(CHUNK);
	alloc(CHUNK, 0, CHUNK);
	alloc_fails(CHUNK);
	alloc_fails(1);
}

static void test_straddle_a_chunk_and_one(void)
{
	make(3 * CHUNK);
	take(0, CHUNK / 2);
	take(CHUNK / 2 + CHUNK + 1, 2 * CHUNK - CHUNK / 2 - 1);
	alloc_fails(CHUNK + 2);
	alloc(CHUNK + 1, CHUNK / 2, CHUNK + 1);
	alloc_fails(1);
}

static void test_straddle_two_whole_chunks(void)
{
	make(3 * CHUNK);
	take(0, CHUNK / 2);
	take(2 * CHUNK + CHUNK / 2, CHUNK / 2);
	alloc_fails(2 * CHUNK + 1);
	alloc(2 * CHUNK, CHUNK / 2, 2 * CHUNK);
	alloc_fails(1);
}

/* A lone free chunk is skipped for a run that needs two, and found again afterwards. */
static void test_skip_a_lone_chunk_and_come_back(void)
{
	make(66 * CHUNK);
	take(CHUNK, 63 * CHUNK);
	alloc(2 * CHUNK, 64 * CHUNK, 2 * CHUNK);
	alloc_fails(2 * CHUNK);
	alloc(CHUNK, 0, CHUNK);
	alloc_fails(1);
}

static void test_five_quarters_of_a_chunk(void)
{
	const uint64_t n = CHUNK * 5 / 4;

	make(5 * CHUNK);
	for (uint64_t k = 0; k < 4; k++)
		alloc(n, k * n, n);
	alloc_fails(n);
	heap_has(5 * CHUNK, 0);
}

static void test_alloc_and_free(void)
{
	make(CHUNK);
	for (unsigned round = 0; round < 10; round++) {
		alloc(1, 0, round == 0);
		tgd_pages_release(heap, 0, 1, false);
	}
	heap_has(0, 1);
	alloc(2, 0, 1);
	alloc(3, 2, 3);
	tgd_pages_release(heap, 0, 2, false);
	alloc(1, 0, 0);
	alloc(3, 5, 3);
	alloc(1, 1, 0);
	tgd_pages_release(heap, 2, 3, true);
	alloc(3, 2, 3);
	heap_has(8, 0);
}

static void test_exhaust_then_free(void)
{
	static const uint64_t sizes[] = {1, 2, 3, 16, 63, 64, 65, 511, 512, 513, 1024};
	const uint64_t total = 10 * CHUNK + 100;

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t n = sizes[i], fit = total / n;

		make(total);
		for (uint64_t k = 0; k < fit; k++)
			alloc(n, k * n, n);
		alloc_fails(n);
		heap_has(fit * n, 0);
		/* Every second one first, so that the free runs do not touch. */
		for (uint64_t k = 0; k < fit; k += 2)
			tgd_pages_release(heap, k * n, n, false);
		alloc(n, 0, 0);
		tgd_pages_release(heap, 0, n, false);
		for (uint64_t k = 1; k < fit; k += 2)
			tgd_pages_release(heap, k * n, n, false);
		heap_has(0, fit * n);
		CU_ASSERT_EQUAL(tgd_pages_largest_run(heap), total);
		alloc(total, 0, total - fit * n);
	}
}

static void test_parts_and_neighbours_go_back_as_they_come(void)
{
	make(3 * CHUNK);
	alloc(1000, 0, 1000);
	alloc(200, 1000, 200);
	tgd_pages_release(heap, 10, 490, false);
	tgd_pages_release(heap, 900, 250, true);
	heap_has(1200 - 740, 490);
	CU_ASSERT_EQUAL(tgd_pages_largest_run(heap), 490);
	alloc_fails(491);
	alloc(490, 10, 0);
	tgd_pages_release(heap, 500, 400, false);
	tgd_pages_release(heap, 1150, 50, true);
	alloc(700, 500, 300);
}

static void test_alloc_at(void)
{
	uint64_t scavenged = 7;

	make(3 * CHUNK);
	alloc(100, 0, 100);
	CU_ASSERT_EQUAL(tgd_pages_alloc_at(heap, 100, 1000, &scavenged), 0);
	CU_ASSERT_EQUAL(scavenged, 1000);
	tgd_pages_release(heap, 600, 10, false);
	scavenged = 7;
	CU_ASSERT_EQUAL(tgd_pages_alloc_at(heap, 599, 2, &scavenged), -EBUSY);
	CU_ASSERT_EQUAL(tgd_pages_alloc_at(heap, 609, 2, &scavenged), -EBUSY);
	CU_ASSERT_EQUAL(tgd_pages_alloc_at(heap, 1099, 437, &scavenged), -EBUSY);
	CU_ASSERT_EQUAL(tgd_pages_alloc_at(heap, 0, 3 * CHUNK, &scavenged), -EBUSY);
	CU_ASSERT_EQUAL(tgd_pages_alloc_at(heap, 3 * CHUNK - 1, 2, &scavenged), -EINVAL);
	CU_ASSERT_EQUAL(tgd_pages_alloc_at(heap, UINT64_MAX, 2, &scavenged), -EINVAL);
	CU_ASSERT_EQUAL(tgd_pages_alloc_at(heap, 2, UINT64_MAX, &scavenged), -EINVAL);
	CU_ASSERT_EQUAL(tgd_pages_alloc_at(heap, 1200, 0, &scavenged), -EINVAL);
	CU_ASSERT_EQUAL(scavenged, 7);
	CU_ASSERT_EQUAL(tgd_pages_alloc_at(heap, 603, 3, &scavenged), 0);
	CU_ASSERT_EQUAL(scavenged, 0);
	alloc(4, 606, 0);
	alloc(3, 600, 0);
	alloc(1, 1100, 1);
}

static void test_bad_requests(void)
{
	uint64_t first, scavenged;

	heap = NULL;
	CU_ASSERT_EQUAL(tgd_pages_new(&heap, 0), -EINVAL);
	CU_ASSERT_EQUAL(tgd_pages_new(&heap, TGD_PAGES_MAX + 1), -EINVAL);
	CU_ASSERT_EQUAL(tgd_pages_new(&heap, UINT64_MAX), -EINVAL);
	CU_ASSERT_PTR_NULL(heap);
	CU_ASSERT_PTR_NULL(tgd_pages_free(NULL));
	make(CHUNK);
	CU_ASSERT_EQUAL(tgd_pages_alloc(heap, 0, 1, &first, &scavenged), -EINVAL);
	CU_ASSERT_EQUAL(tgd_pages_alloc(heap, 1, 0, &first, &scavenged), -EINVAL);
	CU_ASSERT_EQUAL(tgd_pages_alloc(heap, 1, 3, &first, &scavenged), -EINVAL);
	alloc_fails(UINT64_MAX);
	alloc_fails(CHUNK + 1);
	heap_has(0, 0);
}

static void test_alignment(void)
{
	uint64_t first, scavenged;

	make(8 * CHUNK);
	alloc(1, 0, 1);
	alloc_aligned(3, 4, 4, 3);
	alloc_aligned(1, 2, 2, 1);
	alloc_aligned(600, 512, 512, 600);
	alloc_aligned(1, 512, 1536, 1);
	/* Pages 1 and 3 are too short, and the run from 7 on has its first even page at 8. */
	alloc_aligned(2, 2, 8, 2);
	alloc_aligned(8, 2048, 2048, 8);
	CU_ASSERT_EQUAL(tgd_pages_alloc(heap, 1, 4096, &first, &scavenged), -ENOMEM);
	CU_ASSERT_EQUAL(tgd_pages_alloc(heap, 1, UINT64_C(1) << 63, &first, &scavenged), -ENOMEM);
	tgd_pages_release(heap, 0, 1, false);
	alloc_aligned(1, UINT64_C(1) << 63, 0, 0);
	alloc(1, 1, 1);
}

/* Only odd pages are free for a long way: the search must give up stepping, and still succeed. */
static void test_alignment_in_a_comb(void)
{
	const uint64_t teeth = 6000;

	make(64 * CHUNK);
	alloc(2 * teeth, 0, 2 * teeth);
	for (uint64_t i = 0; i < teeth; i++)
		tgd_pages_release(heap, 2 * i + 1, 1, false);
	alloc_aligned(2, 2, 2 * teeth, 2);
	alloc_aligned(1, 2, 2 * teeth + 2, 1);
	/* With nothing roomy left it must look at all of the comb. */
	take(2 * teeth + 3, 64 * CHUNK - 2 * teeth - 3);
	tgd_pages_release(heap, 2 * teeth - 2, 1, true);
	alloc_aligned(1, 2, 2 * teeth - 2, 1);
	heap_has(64 * CHUNK - teeth, teeth);
}

static void test_reservations_of_any_size(void)
{
	static const uint64_t sizes[] = {1,
					 2,
					 63,
					 64,
					 65,
					 511,
					 512,
					 513,
					 1023,
					 4095,
					 4096,
					 4097,
					 8 * 512 * 8 + 1,
					 64 * 512 * 8 - 1,
					 3 * 512 * 8 * 8 + 77};

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t n = sizes[i];

		make(n);
		CU_ASSERT_EQUAL(tgd_pages_total(heap), n);
		CU_ASSERT_EQUAL(tgd_pages_largest_run(heap), n);
		alloc_fails(n + 1);
		take(n - 1, 1);
		CU_ASSERT_EQUAL(tgd_pages_largest_run(heap), n - 1);
		heap_has(1, 0);
		tgd_pages_release(heap, n - 1, 1, true);
		alloc(n, 0, n);
		alloc_fails(1);
		CU_ASSERT_EQUAL(tgd_pages_largest_run(heap), 0);
		heap_has(n, 0);
		tgd_pages_release(heap, 0, n, false);
		heap_has(0, n);
	}
}

/* Kilobytes of memory that this process has now. */
static long resident_kib(void)
{
	FILE *statm = fopen("/proc/self/statm", "re");
	long total, resident = -1;

	if (statm) {
		if (fscanf(statm, "%ld %ld", &total, &resident) != 2)
			resident = -1;
		fclose(statm);
	}
	return resident < 0 ? -1 : resident * 4;
}

static void test_sixteen_tib(void)
{
	const uint64_t n = UINT64_C(1) << 31, top = UINT64_C(1) << 21;
	long before = resident_kib(), after;

	make(n);
	CU_ASSERT_EQUAL(tgd_pages_largest_run(heap), n);
	alloc(1, 0, 1);
	take(n - 1, 1);
	CU_ASSERT_EQUAL(tgd_pages_largest_run(heap), n - 2);
	/* Over a border of 16 GiB, and first fit past it. */
	take(top - 100, 200);
	alloc(top - 101, 1, top - 101);
	alloc(1, top + 100, 1);
	alloc_aligned(5, top, 2 * top, 5);
	/* The first run of more than 16 GiB lies between two islands. */
	take(4 * top + 7, 1);
	CU_ASSERT_EQUAL(tgd_pages_largest_run(heap), n - 1 - (4 * top + 8));
	tgd_pages_release(heap, 4 * top + 7, 1, true);
	take(700 * top, 1);
	tgd_pages_release(heap, 700 * top, 1, false);
	CU_ASSERT_EQUAL(tgd_pages_free_backed(heap), 1);
	tgd_pages_release(heap, 1, top - 101, true);
	alloc(3, 1, 3);

	after = resident_kib();
	CU_ASSERT(before > 0 && after > 0);
	CU_ASSERT(after - before < 16 * 1024);
}

static void test_hint_follows_releases(void)
{
	make(100 * CHUNK);
	alloc(50 * CHUNK, 0, 50 * CHUNK);
	alloc(1, 50 * CHUNK, 1);
	tgd_pages_release(heap, 3 * CHUNK + 5, 1, false);
	tgd_pages_release(heap, 20 * CHUNK, 30, false);
	/* A big request proves nothing about the small holes that it passed. */
	alloc(31, 50 * CHUNK + 1, 31);
	alloc(30, 20 * CHUNK, 0);
	alloc(1, 3 * CHUNK + 5, 0);
	alloc(1, 50 * CHUNK + 32, 1);
	alloc_fails(100 * CHUNK);
	tgd_pages_release(heap, 0, 1, true);
	alloc(1, 0, 1);
}

static CU_TestInfo tests[] = {
	{"runs follow each other in a free heap", test_all_free},
	{"the last page of the third chunk is found", test_last_page_of_the_third_chunk},
	{"a chunk behind 255 full ones is found", test_not_contiguous},
	{"two pages on either side of a border are a run", test_straddle_two_chunks},
	{"after a big request failed small ones fill the rest", test_fail_big_then_fill_the_rest},
	{"a whole chunk is granted once", test_a_whole_chunk},
	{"a chunk and a page fit across a border", test_straddle_a_chunk_and_one},
	{"two chunks fit across three", test_straddle_two_whole_chunks},
	{"a lone free chunk is skipped and found again", test_skip_a_lone_chunk_and_come_back},
	{"runs of five quarters of a chunk fill five chunks", test_five_quarters_of_a_chunk},
	{"what was freed is granted again, lowest first", test_alloc_and_free},
	{"a heap can be exhausted and emptied in any size", test_exhaust_then_free},
	{"parts of runs go back on their own", test_parts_and_neighbours_go_back_as_they_come},
	{"given pages are taken only if all are free", test_alloc_at},
	{"bad requests are refused and change nothing", test_bad_requests},
	{"aligned runs are the lowest aligned ones", test_alignment},
	{"an aligned run is found behind thousands of bad ones", test_alignment_in_a_comb},
	{"reservations of odd sizes end where they should", test_reservations_of_any_size},
	{"16 TiB cost what is touched", test_sixteen_tib},
	{"a release below the hint is seen", test_hint_follows_releases},
	CU_TEST_INFO_NULL,
};

int main(void)
{
	CU_SuiteInfo suites[] = {
		{"granting pages", NULL, NULL, NULL, no_heap, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("pages", suites);
}
