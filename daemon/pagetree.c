/*
 * pagetree: first fit by walking up and down the summaries.
 *
 * A search walks from a page to higher addresses and carries the free run that reaches the place
 * where it stands. At first it steps over single chunks; as soon as it stands at the border of a
 * bigger node it steps over that; and where a node holds a run that is long enough, it goes down
 * into it. So it reads at most 8 words a level on the way up, one top entry per 16 GiB, 8 words a
 * level on the way down, and one bitmap. (Go starts at the top each time, which reads the same.)
 *
 * An update recomputes the chunks that changed, then their parents, and ends at the first level
 * where nothing changed.
 */
#include "daemon/pagetree.h"

#include <assert.h>
#include <stdbool.h>

/* Entries of the level above n entries. */
static uint64_t parents_of(uint64_t n)
{
	return (n + TGD_PAGESUM_FANOUT - 1) / TGD_PAGESUM_FANOUT;
}

/* Bytes of a level's table; in whole blocks of 8, which a merge can read. */
static size_t level_bytes(const struct tgd_pagetree *tree, unsigned level)
{
	return parents_of(tree->n_sums[level]) * TGD_PAGESUM_FANOUT * sizeof(uint64_t);
}

static uint64_t sum_of(const struct tgd_pagetree *tree, unsigned level, uint64_t i)
{
	return tree->sums[level][i] ^ tgd_pagesum_full(tgd_pagesum_log(level));
}

/* True if that changed it. */
static bool set_sum(struct tgd_pagetree *tree, unsigned level, uint64_t i, uint64_t sum)
{
	uint64_t stored = sum ^ tgd_pagesum_full(tgd_pagesum_log(level));

	if (tree->sums[level][i] == stored)
		return false;
	tree->sums[level][i] = stored;
	return true;
}

static uint64_t summarize(const struct tgd_pagetree *tree, unsigned level, uint64_t i)
{
	if (level == 0)
		return tgd_pagebits_summarize(&tree->chunks[i].used);
	return tgd_pagesum_merge(&tree->sums[level - 1][i * TGD_PAGESUM_FANOUT],
				 tgd_pagesum_log(level - 1));
}

size_t tgd_pagetree_size(struct tgd_pagetree *tree, uint64_t n_chunks)
{
	size_t bytes = n_chunks * sizeof(struct tgd_chunk);

	assert(n_chunks > 0);
	*tree = (struct tgd_pagetree){.n_chunks = n_chunks, .n_sums = {n_chunks}};
	bytes += level_bytes(tree, 0);
	while (tree->n_sums[tree->top] > TGD_PAGESUM_FANOUT && tree->top + 1 < TGD_PAGESUM_LEVELS) {
		tree->n_sums[tree->top + 1] = parents_of(tree->n_sums[tree->top]);
		tree->top++;
		bytes += level_bytes(tree, tree->top);
	}
	return bytes;
}

void tgd_pagetree_init(struct tgd_pagetree *tree, void *zeroed)
{
	char *next = zeroed;
	uint64_t last = tree->n_chunks - 1;

	tree->chunks = (struct tgd_chunk *)next;
	next += tree->n_chunks * sizeof(struct tgd_chunk);
	for (unsigned level = 0; level <= tree->top; level++) {
		tree->sums[level] = (uint64_t *)next;
		next += level_bytes(tree, level);
	}

	/* What fills the last block of a level up is no memory: nothing is free there. */
	for (unsigned level = 0; level < tree->top; level++) {
		for (uint64_t i = tree->n_sums[level]; i % TGD_PAGESUM_FANOUT; i++)
			set_sum(tree, level, i, 0);
		last /= TGD_PAGESUM_FANOUT;
		set_sum(tree, level + 1, last, summarize(tree, level + 1, last));
	}
}

void tgd_pagetree_update(struct tgd_pagetree *tree, uint64_t first, uint64_t n)
{
	uint64_t low = first >> TGD_CHUNK_LOG, high = (first + n - 1) >> TGD_CHUNK_LOG;
	bool changed = true;

	for (unsigned level = 0; level <= tree->top && changed; level++) {
		changed = false;
		for (uint64_t i = low; i <= high; i++)
			if (set_sum(tree, level, i, summarize(tree, level, i)))
				changed = true;
		low /= TGD_PAGESUM_FANOUT;
		high /= TGD_PAGESUM_FANOUT;
	}
}

/* The highest level, from `level` up, that has an entry beginning at this page. */
static unsigned climb(const struct tgd_pagetree *tree, unsigned level, uint64_t page)
{
	while (level < tree->top && !(page & ((UINT64_C(1) << tgd_pagesum_log(level + 1)) - 1)))
		level++;
	return level;
}

/*
 * The rest of a chunk, from a page inside it: the lowest run of n in there, or NONE. Tells how many
 * pages at its end are free, and which page is the first free one, or where the next chunk begins.
 */
static uint64_t find_in_rest(const struct tgd_pagetree *tree, uint64_t page, uint64_t n,
			     uint64_t *ret_run, uint64_t *ret_low)
{
	uint64_t chunk = page >> TGD_CHUNK_LOG, base = chunk << TGD_CHUNK_LOG;
	const struct tgd_pagebits *used = &tree->chunks[chunk].used;
	uint64_t sum = sum_of(tree, 0, chunk);
	unsigned from = (unsigned)(page - base);

	*ret_run = tgd_pagesum_end(sum);
	if (*ret_run > TGD_CHUNK_PAGES - from)
		*ret_run = TGD_CHUNK_PAGES - from;
	_Static_assert(TGD_PAGEBITS_NONE == TGD_CHUNK_PAGES,
		       "no such bit is the next chunk's first");
	*ret_low = base + tgd_pagebits_find(used, from, 1);
	if (tgd_pagesum_longest(sum) >= n) {
		unsigned found = tgd_pagebits_find(used, from, (unsigned)n);

		if (found != TGD_PAGEBITS_NONE)
			return base + found;
	}
	return TGD_PAGETREE_NONE;
}

/*
 * The first page of the run, or TGD_PAGETREE_NONE. In ret_low a page below which, from `from` on,
 * none is free: exact enough for the hint of the next search, though not always the first free one.
 */
uint64_t tgd_pagetree_find(const struct tgd_pagetree *tree, uint64_t from, uint64_t n,
			   uint64_t *ret_low)
{
	const uint64_t end = tree->n_chunks << TGD_CHUNK_LOG;
	uint64_t at = from, run = 0; /* `run` free pages right below `at` */
	unsigned level;

	*ret_low = from;
	if (at < end && at % TGD_CHUNK_PAGES) {
		uint64_t found = find_in_rest(tree, at, n, &run, ret_low);

		if (found != TGD_PAGETREE_NONE)
			return found;
		at += TGD_CHUNK_PAGES - at % TGD_CHUNK_PAGES;
	}
	level = climb(tree, 0, at);
	while (at < end) {
		unsigned log = tgd_pagesum_log(level);
		uint64_t sum = sum_of(tree, level, at >> log);

		if (run + tgd_pagesum_start(sum) >= n)
			return at - run;
		if (tgd_pagesum_longest(sum) >= n) {
			unsigned found;

			if (level > 0) {
				level--;
				continue;
			}
			found = tgd_pagebits_find(&tree->chunks[at >> log].used, 0, (unsigned)n);
			assert(found != TGD_PAGEBITS_NONE);
			return at + found;
		}
		if (sum == tgd_pagesum_full(log))
			run += UINT64_C(1) << log;
		else
			run = tgd_pagesum_end(sum);
		if (!sum && *ret_low == at)
			*ret_low += UINT64_C(1) << log;
		at += UINT64_C(1) << log;
		level = climb(tree, level, at);
	}
	if (*ret_low > end)
		*ret_low = end; /* the last node of a level may reach past the end */
	return TGD_PAGETREE_NONE;
}

uint64_t tgd_pagetree_longest(const struct tgd_pagetree *tree)
{
	const unsigned log = tgd_pagesum_log(tree->top);
	uint64_t longest = 0, run = 0;

	for (uint64_t i = 0; i < tree->n_sums[tree->top]; i++) {
		uint64_t sum = sum_of(tree, tree->top, i);

		run += tgd_pagesum_start(sum);
		if (run > longest)
			longest = run;
		if (tgd_pagesum_longest(sum) > longest)
			longest = tgd_pagesum_longest(sum);
		if (sum != tgd_pagesum_full(log))
			run = tgd_pagesum_end(sum);
	}
	return longest;
}
