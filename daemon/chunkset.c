/*
 * chunkset: a bitmap of chunks under bitmaps of its words that are not zero.
 *
 * Invariant: bit i of level k + 1 is set exactly when word i of level k is not zero. Adding climbs
 * until it meets a word that was not zero before, removing until it leaves one that is not zero
 * now; from there on the levels above say the right thing already.
 */
#include "daemon/chunkset.h"

#include <assert.h>

/* Words that hold n bits. */
static uint64_t words_for(uint64_t n)
{
	return (n + 63) / 64;
}

size_t tgd_chunkset_bytes(uint64_t n)
{
	uint64_t total = 0, words = n;

	do {
		words = words_for(words);
		total += words;
	} while (words > 1);
	return (size_t)(total * sizeof(uint64_t));
}

void tgd_chunkset_init(struct tgd_chunkset *set, uint64_t n, void *zeroed)
{
	uint64_t *next = zeroed, words = n;

	assert(n > 0);
	*set = (struct tgd_chunkset){0};
	do {
		assert(set->n_levels < TGD_CHUNKSET_LEVELS);
		words = words_for(words);
		set->levels[set->n_levels++] = next;
		next += words;
	} while (words > 1);
}

void tgd_chunkset_add(struct tgd_chunkset *set, uint64_t chunk)
{
	for (unsigned level = 0; level < set->n_levels; level++, chunk /= 64) {
		uint64_t *word = &set->levels[level][chunk / 64];
		uint64_t before = *word;

		*word |= UINT64_C(1) << chunk % 64;
		if (before)
			return;
	}
}

void tgd_chunkset_remove(struct tgd_chunkset *set, uint64_t chunk)
{
	for (unsigned level = 0; level < set->n_levels; level++, chunk /= 64) {
		uint64_t *word = &set->levels[level][chunk / 64];

		*word &= ~(UINT64_C(1) << chunk % 64);
		if (*word)
			return;
	}
}

uint64_t tgd_chunkset_highest(const struct tgd_chunkset *set)
{
	uint64_t at = 0;

	for (unsigned level = set->n_levels; level-- > 0;) {
		uint64_t word = set->levels[level][at];

		if (!word)
			return TGD_CHUNKSET_NONE;
		at = at * 64 + 63 - (unsigned)__builtin_clzll(word);
	}
	return at;
}
