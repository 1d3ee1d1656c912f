/*
 * test_pagetree: searches in trees of every height, up to the 2^31 pages of 16 TiB.
 *
 * A model of a page each would be too big, so the pages in use are a few islands, and the model is
 * the sorted list of them. Islands lie at and around the borders of nodes of all levels, where the
 * mistakes would be. Searching writes nothing, so runs of any length can be asked for.
 */
#include "daemon/pagetree.h"

#include <CUnit/CUnit.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/support/runner.h"

enum { MAX_ISLANDS = 60, LONGEST_ISLAND = 1500 };

#define SEED UINT64_C(0xe7037ed1a0b428db)

struct island {
	uint64_t first;
	uint64_t n;
};

static uint64_t random_state = SEED;
static struct tgd_pagetree tree;
static void *memory;
static size_t memory_bytes;
static struct island islands[MAX_ISLANDS + 1];
static unsigned n_islands;

static uint64_t random64(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * UINT64_C(0x2545f4914f6cdd1d);
}

static uint64_t n_pages(void)
{
	return tree.n_chunks * TGD_CHUNK_PAGES;
}

static void tear_down(void)
{
	if (memory)
		munmap(memory, memory_bytes);
	memory = NULL;
}

static void make(uint64_t n_chunks)
{
	tear_down();
	memory_bytes = tgd_pagetree_size(&tree, n_chunks);
	memory = mmap(NULL, memory_bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		memory = NULL;
	CU_ASSERT_PTR_NOT_NULL_FATAL(memory);
	tgd_pagetree_init(&tree, memory);
	n_islands = 0;
}

static void mark(uint64_t first, uint64_t n, bool used)
{
	for (uint64_t at = first; at < first + n;) {
		struct tgd_pagebits *bits = &tree.chunks[at / TGD_CHUNK_PAGES].used;
		unsigned from = (unsigned)(at % TGD_CHUNK_PAGES);
		unsigned len = TGD_CHUNK_PAGES - from;

		if (len > first + n - at)
			len = (unsigned)(first + n - at);
		if (used)
			tgd_pagebits_set(bits, from, len);
		else
			tgd_pagebits_clear(bits, from, len);
		at += len;
	}
	tgd_pagetree_update(&tree, first, n);
}

/* Adds an island, unless it would touch another one. */
static void add_island(uint64_t first, uint64_t n)
{
	unsigned i = 0;

	if (first >= n_pages() || n > n_pages() - first || n_islands == MAX_ISLANDS)
		return;
	while (i < n_islands && islands[i].first < first)
		i++;
	if ((i > 0 && islands[i - 1].first + islands[i - 1].n >= first) ||
	    (i < n_islands && first + n >= islands[i].first))
		return;
	for (unsigned k = n_islands++; k > i; k--)
		islands[k] = islands[k - 1];
	islands[i] = (struct island){.first = first, .n = n};
	mark(first, n, true);
}

static void remove_island(unsigned i)
{
	mark(islands[i].first, islands[i].n, false);
	n_islands--;
	for (; i < n_islands; i++)
		islands[i] = islands[i + 1];
}

/* Where the free run behind the first i islands begins and ends. */
static struct island gap(unsigned i)
{
	uint64_t first = i > 0 ? islands[i - 1].first + islands[i - 1].n : 0;
	uint64_t end = i < n_islands ? islands[i].first : n_pages();

	return (struct island){.first = first, .n = end - first};
}

static uint64_t model_find(uint64_t from, uint64_t n)
{
	for (unsigned i = 0; i <= n_islands; i++) {
		struct island free_run = gap(i);
		uint64_t end = free_run.first + free_run.n;
		uint64_t first = free_run.first > from ? free_run.first : from;

		if (first <= end && end - first >= n)
			return first;
	}
	return TGD_PAGETREE_NONE;
}

static uint64_t model_longest(void)
{
	uint64_t longest = 0;

	for (unsigned i = 0; i <= n_islands; i++)
		if (gap(i).n > longest)
			longest = gap(i).n;
	return longest;
}

/* A border of a node of some level, or a little before or behind it. */
static uint64_t random_place(void)
{
	uint64_t unit = UINT64_C(1) << tgd_pagesum_log((unsigned)(random64() % TGD_PAGESUM_LEVELS));
	uint64_t place = random64() % n_pages() / unit * unit;

	switch (random64() % 4) {
	case 0:
		return place - random64() % LONGEST_ISLAND;
	case 1:
		return place + random64() % LONGEST_ISLAND;
	default:
		return place;
	}
}

/* The length of some gap, a page more or less, or anything. */
static uint64_t random_length(void)
{
	uint64_t n = gap((unsigned)(random64() % (n_islands + 1))).n + random64() % 3;

	if (random64() % 4 == 0)
		n = (random64() >> random64() % 64) % (2 * n_pages());
	return n > 1 ? n - 1 : 1;
}

static bool search_agrees(void)
{
	uint64_t from = random64() % 3 ? random_place() : 0, n = random_length(), low, first_free;

	if (from > n_pages())
		from = 0;
	if (tgd_pagetree_find(&tree, from, n, &low) != model_find(from, n))
		return false;
	/* `low` is no lower than the start and proves nothing that is not so. */
	first_free = model_find(from, 1);
	return low >= from && (first_free == TGD_PAGETREE_NONE || low <= first_free);
}

static void live(uint64_t n_chunks, unsigned rounds)
{
	unsigned wrong = 0;

	printf("seed %#llx ", (unsigned long long)SEED);
	make(n_chunks);
	for (unsigned round = 0; round < rounds; round++) {
		if (random64() % 3)
			add_island(random_place(), 1 + random64() % LONGEST_ISLAND);
		else if (n_islands > 0)
			remove_island((unsigned)(random64() % n_islands));
		for (unsigned i = 0; i < 10; i++)
			wrong += !search_agrees();
		wrong += tgd_pagetree_longest(&tree) != model_longest();
	}
	CU_ASSERT_EQUAL(wrong, 0);
	while (n_islands > 0)
		remove_island(0);
	CU_ASSERT_EQUAL(tgd_pagetree_longest(&tree), n_pages());
}

static void test_heights(void)
{
	static const struct {
		uint64_t n_chunks;
		unsigned top;
	} heights[] = {{1, 0},   {8, 0},    {9, 1},    {64, 1},    {65, 2},
		       {512, 2}, {4096, 3}, {4097, 4}, {32768, 4}, {1 << 22, 4}};

	for (unsigned i = 0; i < sizeof(heights) / sizeof(heights[0]); i++) {
		make(heights[i].n_chunks);
		CU_ASSERT_EQUAL(tree.top, heights[i].top);
		CU_ASSERT_EQUAL(tgd_pagetree_longest(&tree), n_pages());
	}
}

static void test_one_chunk(void)
{
	live(1, 2000);
}

static void test_low_trees(void)
{
	live(7, 1000);
	live(9, 1000);
	live(64, 1000);
}

static void test_trees_of_three_and_four_levels(void)
{
	live(77, 1000);
	live(512, 1000);
	live(3001, 1000);
}

static void test_five_levels(void)
{
	live(4097, 1000);
	live(4096 * 9 + 13, 1000);
	live(1 << 22, 1000);
}

/* What a search passes is full; a second search, from there on, says it to the page. */
static void test_low_rises_past_what_is_full(void)
{
	uint64_t low;

	make(3001);
	mark(0, 1000 * TGD_CHUNK_PAGES + 77, true);
	CU_ASSERT_EQUAL(tgd_pagetree_find(&tree, 0, 1, &low), 1000 * TGD_CHUNK_PAGES + 77);
	CU_ASSERT_EQUAL(low, 1000 * TGD_CHUNK_PAGES);
	CU_ASSERT_EQUAL(tgd_pagetree_find(&tree, 5, 1, &low), 1000 * TGD_CHUNK_PAGES + 77);
	CU_ASSERT_EQUAL(low, 1000 * TGD_CHUNK_PAGES);
	CU_ASSERT_EQUAL(tgd_pagetree_find(&tree, low + 3, 1, &low), 1000 * TGD_CHUNK_PAGES + 77);
	CU_ASSERT_EQUAL(low, 1000 * TGD_CHUNK_PAGES + 77);
	mark(0, n_pages(), true);
	CU_ASSERT_EQUAL(tgd_pagetree_find(&tree, 0, 1, &low), TGD_PAGETREE_NONE);
	CU_ASSERT_EQUAL(low, n_pages());
}

static CU_TestInfo tests[] = {
	{"a tree has as many levels as it takes, and 5 at most", test_heights},
	{"a chunk agrees with a list of islands", test_one_chunk},
	{"one and two levels agree with a list of islands", test_low_trees},
	{"three and four levels agree with a list of islands", test_trees_of_three_and_four_levels},
	{"five levels, up to 16 TiB, agree with a list of islands", test_five_levels},
	{"a search tells up to where nothing is free", test_low_rises_past_what_is_full},
	CU_TEST_INFO_NULL,
};

int main(void)
{
	CU_SuiteInfo suites[] = {
		{"the tree of summaries", NULL, NULL, NULL, tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("pagetree", suites);
}
