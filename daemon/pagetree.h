/*
 * pagetree: the bitmaps of the page heap under a tree of summaries, and the search in them.
 *
 * The tree is Go's (mpagealloc): no pointers, an array of summaries for each level, entry i of a
 * level standing for entries 8i .. 8i + 7 of the level below; 8 summaries are one cache line.
 * Level 0 has an entry a chunk. There are as many levels as it takes to get down to 8 entries, but
 * at most 5: a top entry then stands for 16 GiB.
 *
 *   - The summary of a chunk follows from its `used` bits, that of a node from its 8 children,
 *     once tgd_pagetree_update() was called for all pages that changed.
 *   - Entries past the last chunk say "nothing free", so no search ends there.
 *
 * The tree reads the `used` bits; writing them, and all that `backed` means, is up to pages.c. The
 * memory is the caller's, and zero at first, which means "all free".
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/pagebits.h"
#include "daemon/pagesum.h"

#define TGD_PAGETREE_NONE UINT64_MAX

/* Both bitmaps of a chunk next to each other: whoever touches one touches the other. */
struct tgd_chunk {
	struct tgd_pagebits used;
	struct tgd_pagebits backed; /* said of free pages; set for all that are used */
};

struct tgd_pagetree {
	uint64_t n_chunks;
	struct tgd_chunk *chunks;
	uint64_t *sums[TGD_PAGESUM_LEVELS]; /* in stored form (pagesum.h) */
	uint64_t n_sums[TGD_PAGESUM_LEVELS];
	unsigned top; /* the highest level in use */
};

/* Sets the geometry; returns how many bytes of memory the tables need. */
size_t tgd_pagetree_size(struct tgd_pagetree *tree, uint64_t n_chunks);

/* Puts the tables into that much zeroed, 64-aligned memory: all pages free. */
void tgd_pagetree_init(struct tgd_pagetree *tree, void *zeroed);

/* Brings the summaries up to date after `used` bits of these pages changed. */
void tgd_pagetree_update(struct tgd_pagetree *tree, uint64_t first, uint64_t n);

/* The lowest run of n free pages that begins at `from` or later; see the body for ret_low. */
uint64_t tgd_pagetree_find(const struct tgd_pagetree *tree, uint64_t from, uint64_t n,
			   uint64_t *ret_low);

/* The length of the longest free run. */
uint64_t tgd_pagetree_longest(const struct tgd_pagetree *tree);
