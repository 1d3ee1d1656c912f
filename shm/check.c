/* check.c - is the state of a span what the rules say, and what lives in it?
 *
 * The rules, of one span: no bit stands for a slot that there is not; `remote` is a subset of `taken`; a page of no span
 * has a record of zeros.  An object counts as live when it is taken, not in `remote`, and not in a thread's buffer of
 * frees to come.  Exact while nobody works on the span; otherwise a snapshot of something that moves: then `remote` may
 * seem to be ahead of `taken`, so a broken rule is looked at a second time before it is believed.
 */
#include "shm/check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/remote.h"

static int by_word(const void *a, const void *b)
{
	const struct tgs_pending_free *left = a, *right = b;

	return left->word < right->word ? -1 : left->word > right->word;
}

int tgs_pending_collect(const struct tgs_heap *heap, const uint32_t *slots, size_t n_slots,
			struct tgs_pending_set *ret)
{
	size_t i;
	unsigned j;

	*ret = (struct tgs_pending_set){.size = n_slots * TGS_PENDING_FREES};
	if (n_slots == 0)
		return 0;
	ret->frees = calloc(ret->size, sizeof(*ret->frees));
	if (!ret->frees)
		return -ENOMEM;
	for (i = 0; i < n_slots; i++) {
		struct tgs_slot *slot = &heap->slots[slots[i]];
		uint64_t held = atomic_load_explicit(&slot->held, memory_order_acquire);

		for (j = 0; j < TGS_PENDING_FREES; j++) {
			uint32_t mask;
			uint64_t word;

			/* Most threads hold nothing back. */
			if (!(held & tgs_pending_group(j)))
				continue;
			mask = atomic_load_explicit(&slot->pending[j].mask, memory_order_acquire);
			word = atomic_load_explicit(&slot->pending[j].word, memory_order_relaxed);

			if (mask == 0 || tgs_pending_applied(heap, slots[i], word))
				continue;
			ret->frees[ret->n].word = word;
			ret->frees[ret->n++].mask = mask;
		}
	}
	qsort(ret->frees, ret->n, sizeof(*ret->frees), by_word);
	return 0;
}

void tgs_pending_done(struct tgs_pending_set *set)
{
	free(set->frees);
	*set = (struct tgs_pending_set){0};
}

/* All that is pending for one remote word: several threads may have frees for it. */
static uint32_t pending_mask(const struct tgs_pending_set *set, uint64_t word)
{
	size_t low = 0, high = set ? set->n : 0;
	uint32_t mask = 0;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (set->frees[middle].word < word)
			low = middle + 1;
		else
			high = middle;
	}
	for (; set && low < set->n && set->frees[low].word == word; low++)
		mask |= set->frees[low].mask;
	return mask;
}

uint64_t tgs_pending_bits(const struct tgs_heap *heap, const struct tgs_pending_set *set,
			  unsigned kind, uint64_t page, unsigned unit)
{
	/* Frees of words without memory are older than the span, and will be dropped. */
	if (!set || set->n == 0 || !tgs_has_more(heap, kind, page))
		return 0;
	return pending_mask(set, tgs_ref_of(heap, tgs_remote_word(heap, kind, page, unit, 0))) |
	       (uint64_t)pending_mask(set,
				      tgs_ref_of(heap, tgs_remote_word(heap, kind, page, unit, 1)))
		       << 32;
}

/* Bytes of the live objects of one unit of a tiny span: from each start to the next one, or to the end of its block. */
static uint64_t tiny_bytes(const struct tgs_heap *heap, const struct tgs_span *span, unsigned unit,
			   uint64_t live)
{
	struct tgs_object object = {.span = *span, .unit = unit};
	uint64_t bytes = 0;

	while (live != 0) {
		object.index = unit * 64 + (unsigned)__builtin_ctzll(live);
		object.bit = live & -live;
		bytes += tgs_object_size(heap, &object);
		live &= live - 1;
	}
	return bytes;
}

static int complain(char *why, size_t why_size, const struct tgs_span *span, unsigned unit,
		    const char *what, uint64_t bits)
{
	snprintf(why, why_size, "span at page %llu (class %u, owner %u): slot %u %s",
		 (unsigned long long)span->page, span->class, span->owner,
		 unit * 64 + (unsigned)__builtin_ctzll(bits), what);
	return 1;
}

static int check_unit(const struct tgs_heap *heap, const struct tgs_span *span, unsigned unit,
		      uint64_t pending, struct tgs_check_span *ret, char *why, size_t why_size)
{
	unsigned kind = tgs_classes[span->class].kind;
	uint64_t valid = tgs_unit_mask(span->n_slots, unit);
	uint64_t remote = tgs_remote_bits(heap, kind, span->page, unit);
	uint64_t taken = tgs_taken_bits(heap, kind, span->page, unit);
	uint64_t published = tgs_published_bits(heap, kind, span->page, unit);
	uint64_t used = tgs_used_bits(heap, kind, span->page, unit);
	uint64_t live = taken & ~remote & ~pending & valid;
	uint64_t bad;

	ret->objects += (uint32_t)__builtin_popcountll(live);
	ret->published += (uint32_t)__builtin_popcountll(live & published);
	ret->remote += (uint32_t)__builtin_popcountll(remote & valid);
	ret->pending += (uint32_t)__builtin_popcountll(pending & taken & ~remote);
	if (kind == TGS_TINY)
		ret->object_bytes += tiny_bytes(heap, span, unit, live);
	else if (span->class == 0)
		ret->object_bytes += live ? span->n_pages << TGS_PAGE_SHIFT : 0;
	else
		ret->object_bytes +=
			(uint64_t)__builtin_popcountll(live) * tgs_classes[span->class].size;

	bad = (used | remote | published) & ~valid;
	if (bad)
		return complain(why, why_size, span, unit,
				"has a bit set, but there is no such slot", bad);
	bad = remote & ~taken;
	if (bad)
		return complain(why, why_size, span, unit,
				"is freed by others but was not allocated", bad);
	bad = published & ~taken;
	if (bad)
		return complain(why, why_size, span, unit, "is published but not allocated", bad);
	bad = pending & ~taken;
	if (bad)
		return complain(why, why_size, span, unit,
				"has a free buffered but is not allocated", bad);
	return 0;
}

int tgs_check_span(const struct tgs_heap *heap, const struct tgs_span *span,
		   const struct tgs_pending_set *pending, struct tgs_check_span *ret, char *why,
		   size_t why_size)
{
	unsigned kind = tgs_classes[span->class].kind;
	unsigned unit;
	int bad = 0, r;

	*ret = (struct tgs_check_span){0};
	for (unit = 0; unit < tgs_span_units(span->n_slots); unit++) {
		struct tgs_check_span before = *ret;
		uint64_t buffered = tgs_pending_bits(heap, pending, kind, span->page, unit);

		r = check_unit(heap, span, unit, buffered, ret, why, why_size);
		if (r) {
			*ret = before;
			r = check_unit(heap, span, unit, buffered, ret, why, why_size);
		}
		bad |= r;
	}
	return bad;
}

int tgs_check_free_page(const struct tgs_heap *heap, uint64_t page, char *why, size_t why_size)
{
	const uint64_t *words = (const uint64_t *)&heap->records[page];
	size_t i;

	for (i = 0; i < sizeof(struct tgs_record) / sizeof(*words); i++) {
		if (words[i] != 0) {
			snprintf(why, why_size,
				 "page %llu belongs to no span, but its record is not all zero",
				 (unsigned long long)page);
			return 1;
		}
	}
	return 0;
}
