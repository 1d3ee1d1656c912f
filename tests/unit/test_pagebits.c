/*
 * test_pagebits: every search in a chunk's bitmap against one that looks at each bit.
 *
 * The cases follow Go's tests of the same bitmaps (mpallocbits_test.go): set and count ranges,
 * summaries with the run at the start, in the middle, at the end, everywhere; then random bitmaps
 * of several densities.
 */
#include "daemon/pagebits.h"

#include <CUnit/CUnit.h>
#include <stdio.h>
#include <string.h>

#include "daemon/pagesum.h"
#include "tests/support/message.h"
#include "tests/support/runner.h"

enum { N = TGD_CHUNK_PAGES, ROUNDS = 3000 };

#define SEED UINT64_C(0x9e3779b97f4a7c15)

static uint64_t random_state = SEED;

static uint64_t random64(void)
{
	return tgt_random(&random_state);
}

/* A number of lo .. hi. */
static unsigned random_in(unsigned lo, unsigned hi)
{
	return lo + (unsigned)(random64() % (hi - lo + 1));
}

static bool bit(const struct tgd_pagebits *bits, unsigned i)
{
	return bits->words[i / 64] >> i % 64 & 1;
}

/* Random runs of set and clear bits, of lengths up to `longest`. */
static struct tgd_pagebits random_bits(unsigned longest)
{
	struct tgd_pagebits bits = {0};
	bool set = random64() & 1;

	for (unsigned at = 0; at < N; set = !set)
		for (unsigned n = random_in(1, longest); n > 0 && at < N; n--, at++)
			bits.words[at / 64] |= (uint64_t)set << at % 64;
	return bits;
}

/* Run lengths for random bitmaps: from noise to bitmaps that have a few runs only. */
static unsigned random_density(unsigned round)
{
	static const unsigned longest[] = {1, 2, 3, 7, 20, 63, 64, 65, 130, 500};

	return longest[round % (sizeof(longest) / sizeof(longest[0]))];
}

static unsigned slow_run(const struct tgd_pagebits *bits, unsigned from)
{
	unsigned run = 0;

	while (from + run < N && !bit(bits, from + run))
		run++;
	return run;
}

static unsigned slow_find(const struct tgd_pagebits *bits, unsigned from, unsigned n)
{
	for (unsigned i = from; i + n <= N; i++)
		if (slow_run(bits, i) >= n)
			return i;
	return TGD_PAGEBITS_NONE;
}

static uint64_t slow_summary(const struct tgd_pagebits *bits)
{
	unsigned longest = 0, end = 0;

	for (unsigned i = 0; i < N; i++)
		if (slow_run(bits, i) > longest)
			longest = slow_run(bits, i);
	while (end < N && !bit(bits, N - 1 - end))
		end++;
	return tgd_pagesum_pack(slow_run(bits, 0), longest, end);
}

static void check_range(unsigned first, unsigned n)
{
	struct tgd_pagebits bits = {0};
	unsigned wrong = 0;

	tgd_pagebits_set(&bits, first, n);
	for (unsigned i = 0; i < N; i++)
		wrong += bit(&bits, i) != (i >= first && i < first + n);
	wrong += tgd_pagebits_count(&bits, 0, N) != n;
	memset(&bits, 0xff, sizeof(bits));
	tgd_pagebits_clear(&bits, first, n);
	for (unsigned i = 0; i < N; i++)
		wrong += bit(&bits, i) == (i >= first && i < first + n);
	wrong += tgd_pagebits_count(&bits, 0, N) != N - n;
	CU_ASSERT_EQUAL(wrong, 0);
}

static void test_ranges(void)
{
	check_range(0, 1);
	check_range(9, 1);
	check_range(63, 1);
	check_range(64, 1);
	check_range(N - 1, 1);
	check_range(0, 64);
	check_range(64, 64);
	check_range(60, 8);
	check_range(63, 66);
	check_range(5, 300);
	check_range(0, N);
	check_range(1, N - 1);
	check_range(N - 65, 65);
}

static void test_counts(void)
{
	unsigned wrong = 0;

	for (unsigned round = 0; round < ROUNDS; round++) {
		struct tgd_pagebits used = random_bits(random_density(round));
		struct tgd_pagebits backed = random_bits(random_density(round + 3));
		unsigned first = random_in(0, N - 1), n = random_in(1, N - first);
		unsigned count = 0, idle = 0;

		for (unsigned i = first; i < first + n; i++) {
			count += bit(&used, i);
			idle += !bit(&used, i) && bit(&backed, i);
		}
		wrong += tgd_pagebits_count(&used, first, n) != count;
		wrong += tgd_pagebits_count_idle(&used, &backed, first, n) != idle;
	}
	CU_ASSERT_EQUAL(wrong, 0);
}

/* All bits set but for one or two runs. */
static struct tgd_pagebits with_runs(unsigned first, unsigned n, unsigned first2, unsigned n2)
{
	struct tgd_pagebits bits;

	memset(&bits, 0xff, sizeof(bits));
	if (n)
		tgd_pagebits_clear(&bits, first, n);
	if (n2)
		tgd_pagebits_clear(&bits, first2, n2);
	return bits;
}

static void check_summary(struct tgd_pagebits bits, unsigned start, unsigned longest, unsigned end)
{
	CU_ASSERT_EQUAL(tgd_pagebits_summarize(&bits), tgd_pagesum_pack(start, longest, end));
}

static void test_summaries(void)
{
	check_summary((struct tgd_pagebits){0}, N, N, N);
	check_summary(with_runs(0, 0, 0, 0), 0, 0, 0);
	/* one page */
	check_summary(with_runs(0, 1, 0, 0), 1, 1, 0);
	check_summary(with_runs(N - 1, 1, 0, 0), 0, 1, 1);
	check_summary(with_runs(77, 1, 0, 0), 0, 1, 0);
	/* at the start, at the end, at both */
	check_summary(with_runs(0, 15, 0, 0), 15, 15, 0);
	check_summary(with_runs(N - 15, 15, 0, 0), 0, 15, 15);
	check_summary(with_runs(0, 5, N - 7, 7), 5, 7, 7);
	check_summary(with_runs(0, 64, N - 128, 128), 64, 128, 128);
	/* only the longest: within a word, over a border, over words */
	check_summary(with_runs(65, 62, 0, 0), 0, 62, 0);
	check_summary(with_runs(65, 61, 0, 0), 0, 61, 0);
	check_summary(with_runs(60, 8, 0, 0), 0, 8, 0);
	check_summary(with_runs(1, N - 2, 0, 0), 0, N - 2, 0);
	/* several, of which the second is longer */
	check_summary(with_runs(3, 5, 130, 6), 0, 6, 0);
	check_summary(with_runs(62, 4, 200, 50), 0, 50, 0);
	check_summary(with_runs(0, 20, 100, 21), 20, 21, 0);
	check_summary(with_runs(0, 61, 65, 62), 61, 62, 0);
}

static void test_random_summaries(void)
{
	unsigned wrong = 0;

	printf("seed %#llx ", (unsigned long long)SEED);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct tgd_pagebits bits = random_bits(random_density(round));

		wrong += tgd_pagebits_summarize(&bits) != slow_summary(&bits);
	}
	CU_ASSERT_EQUAL(wrong, 0);
}

static void check_find64(uint64_t word)
{
	unsigned wrong = 0;

	for (unsigned n = 1; n <= 64; n++) {
		unsigned expected = 0;

		while (expected + n <= 64 &&
		       (word & tgd_pagebits_mask(expected, n)) != tgd_pagebits_mask(expected, n))
			expected++;
		if (expected + n > 64)
			expected = 64;
		wrong += tgd_pagebits_find64(word, n) != expected;
	}
	CU_ASSERT_EQUAL(wrong, 0);
}

static void test_find64(void)
{
	check_find64(0);
	check_find64(UINT64_MAX);
	check_find64(1);
	check_find64(UINT64_C(1) << 63);
	check_find64(UINT64_C(0x8000000000000001));
	check_find64(UINT64_C(0xffff03ff01070000));
	check_find64(UINT64_C(0x5555555555555555));
	check_find64(UINT64_MAX >> 1);
	for (unsigned i = 0; i < 64; i++)
		check_find64(~(UINT64_C(1) << i));
	for (unsigned i = 0; i < 500; i++) {
		check_find64(random64() | random64());
		check_find64(random_bits(random_density(i)).words[3]);
	}
}

static void test_find(void)
{
	struct tgd_pagebits bits = with_runs(0, 3, 62, 4);

	CU_ASSERT_EQUAL(tgd_pagebits_find(&bits, 0, 1), 0);
	CU_ASSERT_EQUAL(tgd_pagebits_find(&bits, 1, 3), 62);
	CU_ASSERT_EQUAL(tgd_pagebits_find(&bits, 0, 4), 62);
	CU_ASSERT_EQUAL(tgd_pagebits_find(&bits, 63, 3), 63);
	CU_ASSERT_EQUAL(tgd_pagebits_find(&bits, 63, 4), TGD_PAGEBITS_NONE);
	CU_ASSERT_EQUAL(tgd_pagebits_find(&bits, N - 1, 1), TGD_PAGEBITS_NONE);
	bits = with_runs(64, 63, 257, 63);
	CU_ASSERT_EQUAL(tgd_pagebits_find(&bits, 0, 63), 64);
	CU_ASSERT_EQUAL(tgd_pagebits_find(&bits, 65, 63), 257);
	memset(&bits, 0, sizeof(bits));
	CU_ASSERT_EQUAL(tgd_pagebits_find(&bits, 0, N), 0);
	CU_ASSERT_EQUAL(tgd_pagebits_find(&bits, 1, N), TGD_PAGEBITS_NONE);
	CU_ASSERT_EQUAL(tgd_pagebits_find(&bits, N - 1, 1), N - 1);
}

static void test_random_find(void)
{
	unsigned wrong = 0;

	for (unsigned round = 0; round < ROUNDS * 4; round++) {
		struct tgd_pagebits bits = random_bits(random_density(round));
		unsigned from = round & 1 ? random_in(0, N - 1) : 0;
		unsigned n = random_in(1, round & 2 ? random_density(round) : 70);

		wrong += tgd_pagebits_find(&bits, from, n) != slow_find(&bits, from, n);
	}
	CU_ASSERT_EQUAL(wrong, 0);
}

static void test_last_idle(void)
{
	unsigned wrong = 0;

	for (unsigned round = 0; round < ROUNDS; round++) {
		struct tgd_pagebits used = random_bits(random_density(round));
		struct tgd_pagebits backed = random_bits(random_density(round / 10));
		unsigned last = random_in(0, N - 1);
		bool idle = round & 1;
		unsigned i = last + 1;

		while (i > 0 && (!bit(&used, i - 1) && bit(&backed, i - 1)) != idle)
			i--;
		wrong += tgd_pagebits_last_idle(&used, &backed, last, idle) !=
			 (i > 0 ? i - 1 : TGD_PAGEBITS_NONE);
	}
	CU_ASSERT_EQUAL(wrong, 0);
}

static CU_TestInfo tests[] = {
	{"a range is set and cleared to the bit", test_ranges},
	{"counts agree with a look at every bit", test_counts},
	{"summaries of chosen bitmaps are right", test_summaries},
	{"summaries of random bitmaps agree with the slow way", test_random_summaries},
	{"runs of any length are found within a word", test_find64},
	{"a run is found across words and from any bit on", test_find},
	{"searches in random bitmaps agree with the slow way", test_random_find},
	{"the last idle page and the last other one are found", test_last_idle},
	CU_TEST_INFO_NULL,
};

int main(void)
{
	CU_SuiteInfo suites[] = {
		{"bitmaps of pages", NULL, NULL, NULL, NULL, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("pagebits", suites);
}
