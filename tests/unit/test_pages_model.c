/*
 * test_pages_model: a long random life of a page heap, next to a model that is too simple to err.
 *
 * The model is an array with the state of each page; it finds runs by looking at every page from
 * the first one on. After each step the results must be equal, and at the end every page. The steps
 * go through phases that fill the heap up and empty it, with many small runs or a few long ones, so
 * that the hint and the summaries of all levels come to be right for the wrong reasons as seldom as
 * possible. The seed is printed; TG_TEST_SEED sets another.
 */
#include "daemon/pages.h"

#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/pages.h"
#include "tests/support/runner.h"

enum state { SCAVENGED, BACKED, USED };

#define SEED UINT64_C(0xa0761d6478bd642f)

static uint64_t random_state;
static unsigned char *model;
static uint64_t n_pages;

static uint64_t random64(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * UINT64_C(0x2545f4914f6cdd1d);
}

static uint64_t random_below(uint64_t n)
{
	return random64() % n;
}

/* Mostly few, at times many, seldom more than there are. */
static uint64_t random_length(void)
{
	switch (random_below(8)) {
	case 0:
		return 1 + random_below(n_pages + 1);
	case 1:
		return 1 + random_below(1500);
	case 2:
	case 3:
		return 1 + random_below(70);
	case 4:
		return 1;
	default:
		return 1 + random_below(10);
	}
}

/* A page to begin with: anywhere, or near the border of a chunk. */
static uint64_t random_page(void)
{
	uint64_t page = random_below(n_pages);

	if (random_below(3) == 0)
		page = page / CHUNK * CHUNK + random_below(8);
	return page < n_pages ? page : n_pages - 1;
}

/* How many pages from this one on are in use, or are not; at most `most`. */
static uint64_t run_at(uint64_t first, bool used, uint64_t most)
{
	uint64_t n = 0;

	while (n < most && first + n < n_pages && (model[first + n] == USED) == used)
		n++;
	return n;
}

static uint64_t model_find(uint64_t n, uint64_t align)
{
	for (uint64_t i = 0; i + n <= n_pages; i += align) {
		uint64_t run = run_at(i, false, n);

		if (run >= n)
			return i;
		if (align == 1)
			i += run; /* the page after the run is in use */
	}
	return UINT64_MAX;
}

static uint64_t model_longest(void)
{
	uint64_t longest = 0;

	for (uint64_t i = 0; i < n_pages; i++) {
		uint64_t run = run_at(i, false, n_pages);

		if (run > longest)
			longest = run;
		i += run;
	}
	return longest;
}

static uint64_t model_set(uint64_t first, uint64_t n, enum state state)
{
	uint64_t scavenged = 0;

	for (uint64_t i = first; i < first + n; i++) {
		scavenged += model[i] == SCAVENGED;
		model[i] = (unsigned char)state;
	}
	return scavenged;
}

static bool step_alloc(void)
{
	uint64_t align = random_below(4) ? 1 : UINT64_C(1) << random_below(11);
	uint64_t n = random_length(), first, scavenged;
	uint64_t expected = n <= n_pages ? model_find(n, align) : UINT64_MAX;
	int r = tgd_pages_alloc(heap, n, align, &first, &scavenged);

	if (expected == UINT64_MAX)
		return r == -ENOMEM;
	return r == 0 && first == expected && scavenged == model_set(first, n, USED);
}

static bool step_alloc_at(void)
{
	uint64_t first = random_page(), n = random_length(), scavenged;
	int r;

	if (random_below(2) && run_at(first, false, n) > 0)
		n = run_at(first, false, n);
	r = tgd_pages_alloc_at(heap, first, n, &scavenged);
	if (n > n_pages - first)
		return r == -EINVAL;
	if (run_at(first, false, n) < n)
		return r == -EBUSY;
	return r == 0 && scavenged == model_set(first, n, USED);
}

static bool step_release(void)
{
	uint64_t first = random_page(), n = run_at(first, true, random_length());
	bool scavenged = random_below(3) == 0;

	if (n == 0)
		return true;
	if (random_below(8) == 0) {
		uint64_t n_backed = random_below(n + 1);

		tgd_pages_undo_alloc(heap, first, n, n_backed);
		model_set(first, n_backed, BACKED);
		model_set(first + n_backed, n - n_backed, SCAVENGED);
		return true;
	}
	tgd_pages_release(heap, first, n, scavenged);
	model_set(first, n, scavenged ? SCAVENGED : BACKED);
	return true;
}

static bool step_scavenge(void)
{
	uint64_t max = 1 + random_below(random_below(4) ? 20 : 1200), end = n_pages, first, n, got;

	while (end > 0 && model[end - 1] != BACKED)
		end--;
	for (n = 0; n < max && n < end && model[end - 1 - n] == BACKED;)
		n++;
	got = tgd_pages_take_scavengable(heap, max, &first);
	if (got != n || (n > 0 && first != end - n))
		return false;
	if (n > 0)
		tgd_pages_release(heap, first, n, true);
	if (n > 0)
		model_set(first, n, SCAVENGED);
	return true;
}

static bool count_agrees(uint64_t first, uint64_t n)
{
	struct tgd_pages_count count;
	uint64_t of[USED + 1] = {0};

	for (uint64_t i = first; i < first + n && i < n_pages; i++)
		of[model[i]]++;
	tgd_pages_count(heap, first, n, &count);
	return count.in_use == of[USED] && count.backed_free == of[BACKED] &&
	       count.scavenged_free == of[SCAVENGED];
}

static bool totals_agree(void)
{
	struct tgd_pages_count count;

	tgd_pages_count(heap, 0, n_pages, &count);
	return count_agrees(0, n_pages) && tgd_pages_in_use(heap) == count.in_use &&
	       tgd_pages_free_backed(heap) == count.backed_free &&
	       tgd_pages_largest_run(heap) == model_longest();
}

static bool every_page_agrees(void)
{
	for (uint64_t i = 0; i < n_pages; i++)
		if (!count_agrees(i, 1))
			return false;
	return totals_agree();
}

/* In a filling phase three steps of four take, in an emptying one three of four give. */
static bool step(bool filling)
{
	switch (random_below(16)) {
	case 0:
		return step_scavenge();
	case 1:
		return count_agrees(random_page(), random_length());
	case 2:
		return totals_agree();
	case 3:
		return step_alloc_at();
	default:
		return (random_below(4) == 0) == filling ? step_release() : step_alloc();
	}
}

static void live(uint64_t size, unsigned n_steps)
{
	const char *seed = getenv("TG_TEST_SEED");
	bool filling = true;

	random_state = seed && strtoull(seed, NULL, 0) ? strtoull(seed, NULL, 0) : SEED;
	printf("seed %#llx ", (unsigned long long)random_state);
	n_pages = size;
	make(size);
	model = calloc(1, size);
	CU_ASSERT_PTR_NOT_NULL_FATAL(model);
	for (unsigned i = 0; i < n_steps; i++) {
		if (random_below(50) == 0)
			filling = !filling;
		if (!step(filling)) {
			printf("step %u ", i);
			CU_FAIL_FATAL("the heap and the model disagree");
		}
	}
	CU_ASSERT(every_page_agrees());
}

static void tear_down(void)
{
	no_heap();
	free(model);
	model = NULL;
}

static void test_one_page(void)
{
	live(1, 2000);
}

static void test_part_of_a_chunk(void)
{
	live(77, 20000);
}

static void test_one_chunk(void)
{
	live(CHUNK, 20000);
}

static void test_two_chunks_and_a_bit(void)
{
	live(2 * CHUNK + 276, 20000);
}

static void test_a_block_of_chunks(void)
{
	live(8 * CHUNK, 20000);
}

static void test_two_levels(void)
{
	live(9 * CHUNK + 1, 20000);
}

static void test_three_levels(void)
{
	live(70 * CHUNK - 3, 20000);
}

static CU_TestInfo tests[] = {
	{"a heap of one page agrees with the model", test_one_page},
	{"part of a chunk agrees with the model", test_part_of_a_chunk},
	{"a chunk agrees with the model", test_one_chunk},
	{"two chunks and a bit agree with the model", test_two_chunks_and_a_bit},
	{"8 chunks agree with the model", test_a_block_of_chunks},
	{"two levels of summaries agree with the model", test_two_levels},
	{"three levels of summaries agree with the model", test_three_levels},
	CU_TEST_INFO_NULL,
};

int main(void)
{
	CU_SuiteInfo suites[] = {
		{"a random life", NULL, NULL, NULL, tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("pages_model", suites);
}
