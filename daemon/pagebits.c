/*
 * pagebits: searches in the 512 bits of a chunk, a word at a time.
 *
 * All searches walk the words once and carry the run that reaches the current word's border, so a
 * run that crosses words costs nothing extra. Runs inside one word are found without a loop over
 * bits: if s marks the places where a run of k begins, then s & s >> j (j <= k) marks those where a
 * run of k + j begins, so a few doublings get to any length (as in Go's findBitRange64).
 */
#include "daemon/pagebits.h"

#include <assert.h>

#include "daemon/pagesum.h"

enum { WORD_BITS = 64, N_WORDS = TGD_CHUNK_PAGES / WORD_BITS };

_Static_assert(TGD_CHUNK_LOG == 9, "level 0 of the summaries stands for one chunk");

/* The part of the range first .. end - 1 that lies in word i; 0 if none does. */
static uint64_t word_mask(unsigned i, unsigned first, unsigned end)
{
	unsigned low = i * WORD_BITS, high = low + WORD_BITS;

	if (first > low)
		low = first;
	if (end < high)
		high = end;
	return low < high ? tgd_pagebits_mask(low % WORD_BITS, high - low) : 0;
}

static void check_range(unsigned first, unsigned n)
{
	assert(n > 0 && first < TGD_CHUNK_PAGES && n <= TGD_CHUNK_PAGES - first);
}

void tgd_pagebits_set(struct tgd_pagebits *bits, unsigned first, unsigned n)
{
	check_range(first, n);
	for (unsigned i = first / WORD_BITS; i <= (first + n - 1) / WORD_BITS; i++)
		bits->words[i] |= word_mask(i, first, first + n);
}

void tgd_pagebits_clear(struct tgd_pagebits *bits, unsigned first, unsigned n)
{
	check_range(first, n);
	for (unsigned i = first / WORD_BITS; i <= (first + n - 1) / WORD_BITS; i++)
		bits->words[i] &= ~word_mask(i, first, first + n);
}

unsigned tgd_pagebits_count(const struct tgd_pagebits *bits, unsigned first, unsigned n)
{
	int count = 0;

	check_range(first, n);
	for (unsigned i = first / WORD_BITS; i <= (first + n - 1) / WORD_BITS; i++)
		count += __builtin_popcountll(bits->words[i] & word_mask(i, first, first + n));
	return (unsigned)count;
}

unsigned tgd_pagebits_count_idle(const struct tgd_pagebits *used, const struct tgd_pagebits *backed,
				 unsigned first, unsigned n)
{
	int count = 0;

	check_range(first, n);
	for (unsigned i = first / WORD_BITS; i <= (first + n - 1) / WORD_BITS; i++)
		count += __builtin_popcountll(~used->words[i] & backed->words[i] &
					      word_mask(i, first, first + n));
	return (unsigned)count;
}

/* The places of `word` where a run of n (1..64) set bits begins. */
static uint64_t run_starts(uint64_t word, unsigned n)
{
	unsigned have = 1;

	while (have < n && word) {
		unsigned more = have < n - have ? have : n - have;

		word &= word >> more;
		have += more;
	}
	return word;
}

unsigned tgd_pagebits_find64(uint64_t word, unsigned n)
{
	uint64_t starts = run_starts(word, n);

	return starts ? (unsigned)__builtin_ctzll(starts) : WORD_BITS;
}

/* The longest run of clear bits within one word, or `longest` if none is longer. */
static unsigned grow_by_inner_runs(const struct tgd_pagebits *bits, unsigned longest)
{
	/* A run within a word that neither begins nor ends it has a set bit on either side. */
	for (unsigned i = 0; i < N_WORDS && longest < WORD_BITS - 2; i++) {
		uint64_t starts = run_starts(~bits->words[i], longest + 1);

		while (starts) {
			longest++;
			starts &= starts >> 1;
		}
	}
	return longest;
}

uint64_t tgd_pagebits_summarize(const struct tgd_pagebits *bits)
{
	unsigned start = 0, longest = 0, run = 0;
	bool from_start = true;

	for (unsigned i = 0; i < N_WORDS; i++) {
		uint64_t word = bits->words[i];

		if (!word) {
			run += WORD_BITS;
			continue;
		}
		run += (unsigned)__builtin_ctzll(word);
		if (from_start)
			start = run;
		from_start = false;
		if (run > longest)
			longest = run;
		run = (unsigned)__builtin_clzll(word);
	}
	if (from_start)
		return tgd_pagesum_full(TGD_CHUNK_LOG);
	if (run > longest)
		longest = run;
	return tgd_pagesum_pack(start, grow_by_inner_runs(bits, longest), run);
}

unsigned tgd_pagebits_find(const struct tgd_pagebits *bits, unsigned from, unsigned n)
{
	unsigned run = 0; /* clear bits right below the current word */

	check_range(from, 1);
	for (unsigned i = from / WORD_BITS; i < N_WORDS; i++) {
		uint64_t word = bits->words[i] | word_mask(i, 0, from);

		if (!word) {
			run += WORD_BITS;
			if (run >= n)
				return (i + 1) * WORD_BITS - run;
			continue;
		}
		if (run + (unsigned)__builtin_ctzll(word) >= n)
			return i * WORD_BITS - run;
		if (n < WORD_BITS) {
			unsigned at = tgd_pagebits_find64(~word, n);

			if (at < WORD_BITS)
				return i * WORD_BITS + at;
		}
		run = (unsigned)__builtin_clzll(word);
	}
	return TGD_PAGEBITS_NONE;
}

unsigned tgd_pagebits_last_idle(const struct tgd_pagebits *used, const struct tgd_pagebits *backed,
				unsigned last, bool idle)
{
	check_range(last, 1);
	for (unsigned i = last / WORD_BITS + 1; i-- > 0;) {
		uint64_t word = ~used->words[i] & backed->words[i];

		word = (idle ? word : ~word) & word_mask(i, 0, last + 1);
		if (word)
			return i * WORD_BITS + 63 - (unsigned)__builtin_clzll(word);
	}
	return TGD_PAGEBITS_NONE;
}
