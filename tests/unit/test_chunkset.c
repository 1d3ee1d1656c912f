/*
 * test_chunkset: the highest member is right after any additions and removals.
 */
#include "daemon/chunkset.h"

#include <CUnit/CUnit.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/runner.h"

#define SEED UINT64_C(0xd1342543de82ef95)

static uint64_t random_state = SEED;
static void *memory;

static uint64_t random64(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * UINT64_C(0x2545f4914f6cdd1d);
}

static struct tgd_chunkset make(uint64_t n)
{
	struct tgd_chunkset set;

	free(memory);
	memory = calloc(1, tgd_chunkset_bytes(n));
	CU_ASSERT_PTR_NOT_NULL_FATAL(memory);
	tgd_chunkset_init(&set, n, memory);
	return set;
}

static void tear_down(void)
{
	free(memory);
	memory = NULL;
}

static void test_sizes(void)
{
	CU_ASSERT_EQUAL(tgd_chunkset_bytes(1), 8);
	CU_ASSERT_EQUAL(tgd_chunkset_bytes(64), 8);
	CU_ASSERT_EQUAL(tgd_chunkset_bytes(65), 3 * 8);
	CU_ASSERT_EQUAL(tgd_chunkset_bytes(4096), 65 * 8);
	CU_ASSERT_EQUAL(tgd_chunkset_bytes(4097), (65 + 2 + 1) * 8);
}

static void test_small_sets(void)
{
	for (uint64_t n = 1; n < 4200; n += n < 200 ? 1 : 97) {
		struct tgd_chunkset set = make(n);

		CU_ASSERT_EQUAL(tgd_chunkset_highest(&set), TGD_CHUNKSET_NONE);
		tgd_chunkset_add(&set, 0);
		CU_ASSERT_EQUAL(tgd_chunkset_highest(&set), 0);
		tgd_chunkset_add(&set, n - 1);
		tgd_chunkset_add(&set, n - 1);
		CU_ASSERT_EQUAL(tgd_chunkset_highest(&set), n - 1);
		tgd_chunkset_remove(&set, n - 1);
		CU_ASSERT_EQUAL(tgd_chunkset_highest(&set), n == 1 ? TGD_CHUNKSET_NONE : 0);
		tgd_chunkset_remove(&set, n - 1);
		tgd_chunkset_remove(&set, 0);
		CU_ASSERT_EQUAL(tgd_chunkset_highest(&set), TGD_CHUNKSET_NONE);
	}
}

static void test_drain_from_the_top(void)
{
	struct tgd_chunkset set = make(5000);

	for (uint64_t i = 0; i < 5000; i += 3)
		tgd_chunkset_add(&set, i);
	for (uint64_t i = 4998;; i -= 3) {
		CU_ASSERT_EQUAL(tgd_chunkset_highest(&set), i);
		tgd_chunkset_remove(&set, i);
		if (i == 0)
			break;
	}
	CU_ASSERT_EQUAL(tgd_chunkset_highest(&set), TGD_CHUNKSET_NONE);
}

static void test_random(void)
{
	enum { MEMBERS = 300000, ROUNDS = 30000 };
	struct tgd_chunkset set = make(MEMBERS);
	bool *model = calloc(MEMBERS, sizeof(bool));
	uint64_t highest = TGD_CHUNKSET_NONE;
	unsigned wrong = 0;

	CU_ASSERT_PTR_NOT_NULL_FATAL(model);
	printf("seed %#llx ", (unsigned long long)SEED);
	for (unsigned round = 0; round < ROUNDS; round++) {
		/* Few members, far apart, so that words become empty at all levels. */
		uint64_t i = random64() % 40 * 7499;

		if (random64() % 2) {
			tgd_chunkset_add(&set, i);
			model[i] = true;
		} else {
			tgd_chunkset_remove(&set, i);
			model[i] = false;
		}
		if (model[i] && (highest == TGD_CHUNKSET_NONE || i > highest))
			highest = i;
		while (highest != TGD_CHUNKSET_NONE && !model[highest])
			highest--; /* from 0 down is NONE */
		wrong += tgd_chunkset_highest(&set) != highest;
	}
	free(model);
	CU_ASSERT_EQUAL(wrong, 0);
}

static CU_TestInfo tests[] = {
	{"a set takes a bit a member, and one per 64 of those", test_sizes},
	{"sets of every small size find their first and last", test_small_sets},
	{"members come out from the highest down", test_drain_from_the_top},
	{"random additions and removals agree with a plain array", test_random},
	CU_TEST_INFO_NULL,
};

int main(void)
{
	CU_SuiteInfo suites[] = {
		{"sets of chunks", NULL, NULL, NULL, tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("chunkset", suites);
}
