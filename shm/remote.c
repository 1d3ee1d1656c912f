/* remote.c - frees by a thread that does not own the span, and their harvest by the one that does.
 *
 * A free is a compare-and-swap of a word that holds 32 remote bits and a tag: a detectable step (shm/step.h).  A thread
 * buffers its frees by word, so that neighbours go in one swap; the buffer lies in its slot, for its recoverer.
 * A word whose bits have been harvested is all zero, tag included: the state of an empty span is zero everywhere.
 */
#include "shm/remote.h"

#include <stdbool.h>

#include "shm/base.h"

static const struct tgs_tag_format formats[2] = {
	{TGS_REMOTE_SLOT_SHIFT(0), TGS_REMOTE_SEQ_BITS, TGS_STEP_FREE},
	{TGS_REMOTE_SLOT_SHIFT(1), TGS_REMOTE_SEQ_BITS, TGS_STEP_FREE},
};

static unsigned half_of(const _Atomic uint64_t *word)
{
	return (uintptr_t)word / sizeof(*word) % 2;
}

const struct tgs_tag_format *tgs_remote_format(const _Atomic uint64_t *word)
{
	return &formats[half_of(word)];
}

/* The swap proper, for a step noted by the caller. */
static uint32_t swap_in(const struct tgs_heap *heap, unsigned self, uint64_t seq,
			_Atomic uint64_t *word, uint32_t mask)
{
	unsigned half = half_of(word);
	const struct tgs_tag_format *format = &formats[half];
	uint64_t value = atomic_load_explicit(word, memory_order_acquire);

	for (;;) {
		uint32_t freed = tgs_remote_objects(value, half);
		uint64_t all = (uint64_t)(freed | mask) << TGS_REMOTE_BITS_SHIFT(half);

		if ((mask & ~freed) == 0)
			return mask;
		if (tgs_step_help(heap, format, word, value) &&
		    atomic_compare_exchange_strong_explicit(
			    word, &value, all | tgs_tag(format, self, seq), memory_order_seq_cst,
			    memory_order_acquire))
			return mask & freed;
		value = atomic_load_explicit(word, memory_order_acquire);
	}
}

/* For the word at that place. */
static uint32_t free_at(const struct tgs_heap *heap, unsigned self, _Atomic uint64_t *word,
			uint32_t mask, const struct tgs_word_place *place)
{
	uint64_t seq;
	uint32_t twice;

	tgs_taken_special(heap, place->kind, place->page, place->unit,
			  (uint64_t)mask << 32 * place->half);
	seq = tgs_step_begin(heap, self, tgs_remote_format(word), word, mask, 0, 0);
	twice = swap_in(heap, self, seq, word, mask);
	tgs_remote_notify(heap, place->page);
	return twice;
}

uint32_t tgs_remote_free(const struct tgs_heap *heap, unsigned self, _Atomic uint64_t *word,
			 uint32_t mask)
{
	struct tgs_word_place place;

	if (!tgs_word_place(heap, tgs_ref_of(heap, word), &place))
		return mask;
	return free_at(heap, self, word, mask, &place);
}

void tgs_remote_notify(const struct tgs_heap *heap, uint64_t first_page)
{
	unsigned owner, seen = TGS_SLOT_NONE;

	for (;;) {
		_Atomic uint64_t *word;
		uint64_t bit = UINT64_C(1) << first_page % 64;

		owner = tgs_entry_owner(
			atomic_load_explicit(&heap->page_map[first_page], memory_order_seq_cst));
		if (owner == seen || owner == TGS_SLOT_NONE)
			return;
		if (owner == TGS_SLOT_CENTRAL)
			word = &heap->dirty[first_page / 64];
		else
			word = &heap->slots[owner].dirty[first_page % TGS_DIRTY_BITS / 64];
		if (!(atomic_load_explicit(word, memory_order_acquire) & bit))
			atomic_fetch_or_explicit(word, bit, memory_order_seq_cst);
		/* The span may have changed hands before the hint stood: then the new owner must have it. */
		seen = owner;
	}
}

/* Takes the bits of one remote word.  `taken` and `published` are changed before the word is: were we killed in between,
 * the next harvest finds the same bits again and does the same. */
static uint32_t harvest_word(const struct tgs_heap *heap, unsigned kind, uint64_t page,
			     unsigned unit, unsigned half, uint32_t *twice)
{
	_Atomic uint64_t *word = tgs_remote_word(heap, kind, page, unit, half);
	_Atomic uint64_t *published_word = tgs_published_word(heap, kind, page, unit);
	uint64_t value = atomic_load_explicit(word, memory_order_acquire);
	uint64_t freed = 0;

	while (tgs_remote_objects(value, half) != 0) {
		uint64_t bits = (uint64_t)tgs_remote_objects(value, half) << 32 * half;
		uint64_t taken;

		if (tgs_step_help(heap, &formats[half], word, value)) {
			if (atomic_load_explicit(published_word, memory_order_relaxed) & bits)
				atomic_fetch_and_explicit(published_word, ~bits,
							  memory_order_relaxed);
			taken = tgs_taken_clear(heap, kind, page, unit, bits);
			*twice |= (uint32_t)((bits & ~taken & ~freed) >> 32 * half);
			freed |= bits & taken;
			if (atomic_compare_exchange_strong_explicit(
				    word, &value, 0, memory_order_seq_cst, memory_order_acquire))
				break;
		} else {
			value = atomic_load_explicit(word, memory_order_acquire);
		}
	}
	return (uint32_t)(freed >> 32 * half);
}

uint64_t tgs_remote_harvest(const struct tgs_heap *heap, unsigned kind, uint64_t page,
			    unsigned unit, struct tgs_harvest *harvest)
{
	uint64_t all = 0;
	unsigned half;

	harvest->twice = 0;
	if (!tgs_has_more(heap, kind, page))
		return 0;
	for (half = 0; half < 2; half++) {
		uint32_t twice = 0;
		uint32_t freed = harvest_word(heap, kind, page, unit, half, &twice);

		all |= (uint64_t)freed << 32 * half;
		harvest->n_freed += (uint32_t)__builtin_popcount(freed);
		harvest->twice |= (uint64_t)twice << 32 * half;
		harvest->n_twice += (uint32_t)__builtin_popcount(twice);
	}
	return all;
}

void tgs_remote_harvest_span(const struct tgs_heap *heap, const struct tgs_span *span,
			     struct tgs_harvest *harvest)
{
	unsigned kind = tgs_classes[span->class].kind;
	unsigned unit;

	if (!tgs_has_more(heap, kind, span->page))
		return;
	for (unit = 0; unit < tgs_span_units(span->n_slots); unit++)
		(void)tgs_remote_harvest(heap, kind, span->page, unit, harvest);
}

/* Of the objects of `mask` those that its owner has freed meanwhile. */
static uint32_t gone(const struct tgs_heap *heap, const struct tgs_word_place *place, uint32_t mask)
{
	struct tgs_span span;
	uint64_t taken = 0;

	/* A word without memory is that of a younger span: nobody puts a free of one here before it has (tgs_has_more). */
	if (tgs_span_at(heap, place->page, &span) && span.page == place->page &&
	    tgs_classes[span.class].kind == place->kind &&
	    tgs_has_more(heap, place->kind, place->page))
		taken = tgs_taken_bits(heap, place->kind, place->page, place->unit);
	return mask & ~(uint32_t)(taken >> 32 * place->half);
}

uint32_t tgs_pending_apply(const struct tgs_heap *heap, unsigned self, struct tgs_pending *pending)
{
	uint64_t ref = atomic_load_explicit(&pending->word, memory_order_relaxed);
	uint32_t mask = atomic_load_explicit(&pending->mask, memory_order_acquire);
	struct tgs_word_place place;
	uint32_t twice;

	if (mask == 0)
		return 0;
	twice = tgs_word_place(heap, ref, &place) ? gone(heap, &place, mask) : mask;
	mask &= ~twice;
	if (TGS_UNLIKELY(twice != 0))
		atomic_store_explicit(&pending->mask, mask, memory_order_release);
	if (mask == 0)
		return twice;
	twice |= free_at(heap, self, (_Atomic uint64_t *)(heap->base + ref), mask, &place);
	atomic_store_explicit(&pending->mask, 0, memory_order_release);
	tgs_step_done(&heap->slots[self]);
	return twice;
}

/* Offset `at` of a remote word in a record of `stride` bytes whose units of `unit_size` start at `units_at`. */
static bool place_in(uint64_t at, uint64_t stride, uint64_t units_at, uint64_t unit_size,
		     unsigned n_units, uint64_t remote_at, struct tgs_word_place *ret)
{
	uint64_t in_record = at % stride;
	uint64_t in_unit;

	if (in_record < units_at)
		return false;
	in_unit = (in_record - units_at) % unit_size;
	ret->page = at / stride;
	ret->unit = (unsigned)((in_record - units_at) / unit_size);
	ret->half = in_unit == remote_at + sizeof(uint64_t);
	return ret->unit < n_units &&
	       (in_unit == remote_at || in_unit == remote_at + sizeof(uint64_t));
}

/* Of the span at this page; where there is none that is dense, any. */
static unsigned dense_kind(const struct tgs_heap *heap, uint64_t page)
{
	struct tgs_span span;
	unsigned kind = tgs_span_at(heap, page, &span) ? tgs_classes[span.class].kind : TGS_TINY;

	return tgs_is_dense(kind) ? kind : TGS_DENSE_8;
}

bool tgs_word_place(const struct tgs_heap *heap, uint64_t ref, struct tgs_word_place *ret)
{
	const struct tgs_geometry *g = &heap->geometry;
	const uint64_t in_unit = offsetof(struct tgs_unit, remote);

	if (ref >= g->tiny_more_at &&
	    ref < g->tiny_more_at + g->n_pages * sizeof(struct tgs_tiny_more)) {
		ret->kind = TGS_TINY;
		return place_in(ref - g->tiny_more_at, sizeof(struct tgs_tiny_more), 0,
				sizeof(struct tgs_unit), TGS_TINY_UNITS, in_unit, ret);
	}
	if (ref >= g->dense_at &&
	    ref < g->dense_at + g->n_pages * TGS_DENSE_UNITS * sizeof(struct tgs_unit)) {
		ret->kind = dense_kind(heap, (ref - g->dense_at) /
						     (TGS_DENSE_UNITS * sizeof(struct tgs_unit)));
		return place_in(ref - g->dense_at, TGS_DENSE_UNITS * sizeof(struct tgs_unit), 0,
				sizeof(struct tgs_unit), TGS_DENSE_UNITS, in_unit, ret);
	}
	if (ref >= g->records_at && ref < g->records_at + g->n_pages * sizeof(struct tgs_record)) {
		ret->kind = TGS_SPARSE;
		return place_in(ref - g->records_at, sizeof(struct tgs_record),
				offsetof(struct tgs_record, unit), sizeof(struct tgs_unit), 1,
				in_unit, ret);
	}
	return false;
}

bool tgs_remote_took_place(const struct tgs_heap *heap, unsigned self, _Atomic uint64_t *word)
{
	return tgs_step_took_place(heap, self, tgs_remote_format(word), word);
}

bool tgs_remote_word_at(const struct tgs_heap *heap, uint64_t ref, _Atomic uint64_t **ret_word)
{
	struct tgs_word_place place;
	struct tgs_span span;

	if (!tgs_word_place(heap, ref, &place) || !tgs_span_at(heap, place.page, &span) ||
	    span.page != place.page || tgs_classes[span.class].kind != place.kind ||
	    place.unit >= tgs_span_units(span.n_slots) ||
	    !tgs_has_more(heap, place.kind, place.page))
		return false;
	*ret_word = (_Atomic uint64_t *)(heap->base + ref);
	return true;
}

bool tgs_pending_applied(const struct tgs_heap *heap, unsigned self, uint64_t ref)
{
	_Atomic uint64_t *word;

	return atomic_load_explicit(&heap->slots[self].step.word, memory_order_acquire) ==
		       (ref | TGS_STEP_FREE) &&
	       tgs_remote_word_at(heap, ref, &word) && tgs_remote_took_place(heap, self, word);
}
