/*
 * pagesum: what one 64-bit word says about the free pages of a range, and how words merge.
 *
 * A summary holds three lengths in pages: of the free run at the start of the range, of the
 * longest free run anywhere in it, and of the free run at its end, 21 bits each:
 *	start | longest << 21 | end << 42
 * That is enough to answer "is there a run of n pages in here, or across this border?", and two
 * neighbours merge into the summary of both. Idea and packing are Go's (mpagealloc, pallocSum).
 *
 *   - A length of 2^21 does not fit its field. It occurs only when the largest range (16 GiB) is
 *     wholly free; bit 63 alone stands for that.
 *   - 0 says that nothing is free.
 *   - start <= longest, end <= longest, and if one of them is the whole range, all three are.
 *
 * Stored form: tables keep a summary XORed with the all-free summary of its level. A table of
 * zeros, as the kernel gives it out, then says "all free", and a reservation of many TiB costs
 * memory only where something was allocated. (Go instead grows its tables with the heap.)
 */
#pragma once

#include <stdint.h>

/* A level's entry stands for as many pages as 8 entries of the level below; level 0 for a chunk. */
#define TGD_PAGESUM_LEVELS  5
#define TGD_PAGESUM_FANOUT  8
#define TGD_PAGESUM_LOG_MAX 21

/* log2 of the pages that an entry of the level stands for: 9, 12, 15, 18, 21 */
static inline unsigned tgd_pagesum_log(unsigned level)
{
	return 9 + 3 * level;
}

#define TGD_PAGESUM_ALL   (UINT64_C(1) << 63) /* 2^21 pages, all free */
#define TGD_PAGESUM_FIELD ((UINT64_C(1) << 21) - 1)

static inline uint64_t tgd_pagesum_pack(uint64_t start, uint64_t longest, uint64_t end)
{
	if (longest > TGD_PAGESUM_FIELD)
		return TGD_PAGESUM_ALL;
	return start | longest << 21 | end << 42;
}

static inline uint64_t tgd_pagesum_start(uint64_t sum)
{
	return sum & TGD_PAGESUM_ALL ? TGD_PAGESUM_FIELD + 1 : sum & TGD_PAGESUM_FIELD;
}

static inline uint64_t tgd_pagesum_longest(uint64_t sum)
{
	return sum & TGD_PAGESUM_ALL ? TGD_PAGESUM_FIELD + 1 : sum >> 21 & TGD_PAGESUM_FIELD;
}

static inline uint64_t tgd_pagesum_end(uint64_t sum)
{
	return sum & TGD_PAGESUM_ALL ? TGD_PAGESUM_FIELD + 1 : sum >> 42 & TGD_PAGESUM_FIELD;
}

/* The summary of 2^log pages that are all free. */
static inline uint64_t tgd_pagesum_full(unsigned log)
{
	return tgd_pagesum_pack(UINT64_C(1) << log, UINT64_C(1) << log, UINT64_C(1) << log);
}

/* The summary of the range that these 8 neighbours make up. */
uint64_t tgd_pagesum_merge(const uint64_t stored[TGD_PAGESUM_FANOUT], unsigned child_log);
