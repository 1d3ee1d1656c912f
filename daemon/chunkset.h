/*
 * chunkset: a set of chunk numbers that finds its highest member in a few steps.
 *
 * The scavenger gives memory back from the highest address down, so it asks again and again for
 * the highest chunk that has any. The set is a bitmap under bitmaps: a bit of a level says that the
 * word of 64 bits below it is not zero, and the top level is a single word. Every operation touches
 * at most one word a level, so at most 4 words for 16 million chunks (64 TiB).
 *
 * Go's scavenge index holds 8 bytes a chunk and walks them backwards from a cursor. This set needs
 * no cursor, so none can be too low and hide memory for ever, or too high and cost a long walk.
 *
 * The memory is the caller's; it must be zero at first, which is the empty set.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define TGD_CHUNKSET_LEVELS 6 /* 2^36 members; more than any address space has chunks */
#define TGD_CHUNKSET_NONE   UINT64_MAX

struct tgd_chunkset {
	uint64_t *levels[TGD_CHUNKSET_LEVELS]; /* [0] has a bit a chunk */
	unsigned n_levels;
};

/* Bytes of memory that a set over 0 .. n - 1 needs, n of 1 .. 2^36. */
size_t tgd_chunkset_bytes(uint64_t n);

/* An empty set over 0 .. n - 1 in zeroed, 8-aligned memory of that many bytes. */
void tgd_chunkset_init(struct tgd_chunkset *set, uint64_t n, void *zeroed);

/* Adding a member again, and removing what is none, changes nothing. */
void tgd_chunkset_add(struct tgd_chunkset *set, uint64_t chunk);
void tgd_chunkset_remove(struct tgd_chunkset *set, uint64_t chunk);

/* The highest member, or TGD_CHUNKSET_NONE. */
uint64_t tgd_chunkset_highest(const struct tgd_chunkset *set);
