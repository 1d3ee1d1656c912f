/*
 * test_pagesum: summaries survive packing, and merge to what a look at every page would say.
 *
 * The reference works on a string of free and used cells; a child has 16 of them, which stand for
 * an equal part of its pages each. So one test covers all levels, up to the 16 GiB whose all-free
 * summary does not fit the fields.
 */
#include "daemon/pagesum.h"

#include <CUnit/CUnit.h>
#include <stdbool.h>
#include <stdio.h>

#include "tests/support/message.h"
#include "tests/support/runner.h"

enum { CELLS = 16, ROUNDS = 20000 };

#define SEED UINT64_C(0x2545f4914f6cdd1d)

static uint64_t random_state = SEED;

static uint64_t random64(void)
{
	return tgt_random(&random_state);
}

/* The slow way: look at each cell. Lengths in cells times `scale`. */
static uint64_t reference(const bool *used, unsigned n, uint64_t scale)
{
	uint64_t start = 0, longest = 0, end = 0;

	while (start < n && !used[start])
		start++;
	while (end < n && !used[n - 1 - end])
		end++;
	for (unsigned i = 0; i < n; i++) {
		unsigned run = 0;

		while (i + run < n && !used[i + run])
			run++;
		if (run > longest)
			longest = run;
	}
	return tgd_pagesum_pack(start * scale, longest * scale, end * scale);
}

static void check_unpack(uint64_t start, uint64_t longest, uint64_t end)
{
	uint64_t sum = tgd_pagesum_pack(start, longest, end);

	CU_ASSERT_EQUAL(tgd_pagesum_start(sum), start);
	CU_ASSERT_EQUAL(tgd_pagesum_longest(sum), longest);
	CU_ASSERT_EQUAL(tgd_pagesum_end(sum), end);
}

static void test_pack(void)
{
	const uint64_t most = UINT64_C(1) << TGD_PAGESUM_LOG_MAX;

	check_unpack(0, 0, 0);
	check_unpack(1, 2, 3);
	check_unpack(0, most - 1, 0);
	check_unpack(most - 1, most - 1, 0);
	check_unpack(0, most - 1, most - 1);
	check_unpack(most, most, most);
	CU_ASSERT_EQUAL(tgd_pagesum_pack(0, 0, 0), 0);
	CU_ASSERT_EQUAL(tgd_pagesum_pack(1, 2, 3),
			UINT64_C(1) | UINT64_C(2) << 21 | UINT64_C(3) << 42);
	CU_ASSERT_EQUAL(tgd_pagesum_pack(most, most, most), UINT64_C(1) << 63);
	for (unsigned i = 0; i < 1000; i++)
		check_unpack(random64() % most, random64() % most, random64() % most);
}

static void test_levels(void)
{
	CU_ASSERT_EQUAL(tgd_pagesum_log(0), 9);
	CU_ASSERT_EQUAL(tgd_pagesum_log(TGD_PAGESUM_LEVELS - 1), TGD_PAGESUM_LOG_MAX);
	for (unsigned level = 0; level < TGD_PAGESUM_LEVELS; level++) {
		uint64_t full = tgd_pagesum_full(tgd_pagesum_log(level));

		CU_ASSERT_EQUAL(tgd_pagesum_longest(full), UINT64_C(512) << 3 * level);
		CU_ASSERT_EQUAL(tgd_pagesum_start(full), UINT64_C(512) << 3 * level);
		CU_ASSERT_EQUAL(tgd_pagesum_end(full), UINT64_C(512) << 3 * level);
	}
}

static void test_zeros_are_all_free(void)
{
	static const uint64_t zeros[TGD_PAGESUM_FANOUT];

	for (unsigned log = 9; log < TGD_PAGESUM_LOG_MAX; log += 3)
		CU_ASSERT_EQUAL(tgd_pagesum_merge(zeros, log), tgd_pagesum_full(log + 3));
}

/* Each child wholly free, wholly used, or at random; the mix decides what borders see. */
static void fill(bool *used, unsigned child)
{
	unsigned kind = (unsigned)(random64() % 4);
	uint64_t bits = random64();

	if (kind == 2)
		bits |= random64();
	for (unsigned i = 0; i < CELLS; i++)
		used[child * CELLS + i] = kind == 0 ? false : kind == 1 ? true : bits >> i & 1;
}

static void test_merge_is_a_look_at_every_page(void)
{
	bool used[TGD_PAGESUM_FANOUT * CELLS];
	uint64_t stored[TGD_PAGESUM_FANOUT];
	unsigned wrong = 0;

	printf("seed %#llx ", (unsigned long long)SEED);
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned log = tgd_pagesum_log(round % (TGD_PAGESUM_LEVELS - 1));
		uint64_t scale = (UINT64_C(1) << log) / CELLS;

		for (unsigned child = 0; child < TGD_PAGESUM_FANOUT; child++) {
			fill(used, child);
			stored[child] = reference(&used[child * CELLS], CELLS, scale) ^
					tgd_pagesum_full(log);
		}
		wrong += tgd_pagesum_merge(stored, log) !=
			 reference(used, TGD_PAGESUM_FANOUT * CELLS, scale);
	}
	CU_ASSERT_EQUAL(wrong, 0);
}

static void test_merge_across_borders(void)
{
	const uint64_t full = tgd_pagesum_full(9);
	uint64_t stored[TGD_PAGESUM_FANOUT];
	uint64_t sum;

	for (unsigned i = 0; i < TGD_PAGESUM_FANOUT; i++)
		stored[i] = full; /* nothing free */
	CU_ASSERT_EQUAL(tgd_pagesum_merge(stored, 9), 0);

	/* 10 at the end of child 2, all of 3 and 4, 20 at the start of 5; a longer one in 7. */
	stored[2] = tgd_pagesum_pack(0, 10, 10) ^ full;
	stored[3] = stored[4] = 0;
	stored[5] = tgd_pagesum_pack(20, 30, 0) ^ full;
	sum = tgd_pagesum_merge(stored, 9);
	CU_ASSERT_EQUAL(sum, tgd_pagesum_pack(0, 10 + 1024 + 20, 0));

	stored[0] = 0;
	stored[7] = tgd_pagesum_pack(1, 400, 7) ^ full;
	sum = tgd_pagesum_merge(stored, 9);
	CU_ASSERT_EQUAL(sum, tgd_pagesum_pack(512, 10 + 1024 + 20, 7));
}

static CU_TestInfo tests[] = {
	{"what is packed comes out again", test_pack},
	{"an entry of each level stands for 8 of the one below", test_levels},
	{"stored zeros mean all free at every level", test_zeros_are_all_free},
	{"runs add up across the borders of children", test_merge_across_borders},
	{"merging agrees with a look at every page", test_merge_is_a_look_at_every_page},
	CU_TEST_INFO_NULL,
};

int main(void)
{
	CU_SuiteInfo suites[] = {
		{"page summaries", NULL, NULL, NULL, NULL, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("pagesum", suites);
}
