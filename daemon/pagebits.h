/*
 * pagebits: one bit for each of the 512 pages of a chunk, and searches in them.
 *
 * The bitmap says of each page whether it has some property: in use, or backed by memory. A free
 * run is nothing but neighbouring zeros, so there is nothing to coalesce and nothing that could
 * disagree with the bits. 512 bits are one cache line. The shape is Go's (mpallocbits).
 *
 * Bit i is page i of the chunk, bit i % 64 of word i / 64. Ranges must lie within the chunk and not
 * be empty; a violation is a bug of the caller's. No function allocates or fails.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define TGD_CHUNK_LOG     9
#define TGD_CHUNK_PAGES   (1u << TGD_CHUNK_LOG)
#define TGD_PAGEBITS_NONE TGD_CHUNK_PAGES /* "no such bit" */

struct tgd_pagebits {
	uint64_t words[TGD_CHUNK_PAGES / 64];
};

/* Bits first .. first + n - 1 of a word that begins at bit 0; n of 1..64. */
static inline uint64_t tgd_pagebits_mask(unsigned first, unsigned n)
{
	return UINT64_MAX >> (64 - n) << first;
}

void tgd_pagebits_set(struct tgd_pagebits *bits, unsigned first, unsigned n);
void tgd_pagebits_clear(struct tgd_pagebits *bits, unsigned first, unsigned n);

/* How many bits of the range are set. */
unsigned tgd_pagebits_count(const struct tgd_pagebits *bits, unsigned first, unsigned n);

/* How many bits of the range are clear in `used` and set in `backed`. */
unsigned tgd_pagebits_count_idle(const struct tgd_pagebits *used, const struct tgd_pagebits *backed,
				 unsigned first, unsigned n);

/* The packed summary (pagesum.h) of the runs of clear bits. */
uint64_t tgd_pagebits_summarize(const struct tgd_pagebits *bits);

/* The first bit of the lowest run of n clear bits at or after `from`, or TGD_PAGEBITS_NONE. */
unsigned tgd_pagebits_find(const struct tgd_pagebits *bits, unsigned from, unsigned n);

/* The first bit of the lowest run of n (1..64) set bits in a word, or 64. */
unsigned tgd_pagebits_find64(uint64_t word, unsigned n);

/* The last bit at or before `last` that is clear in `used` and set in `backed` (`idle`), or that is
 * not so (`!idle`); TGD_PAGEBITS_NONE if there is none. */
unsigned tgd_pagebits_last_idle(const struct tgd_pagebits *used, const struct tgd_pagebits *backed,
				unsigned last, bool idle);
