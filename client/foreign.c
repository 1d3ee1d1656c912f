/* foreign.c - freeing what another thread or process owns.
 *
 * The free is put into the thread's buffer, which lies in its slot in shared memory (for its recoverer), one place for
 * each remote word, so that neighbours freed one after the other become one swap (shm/remote.c).  A place is applied when
 * another word needs it, before the thread asks the daemon for memory, and when it trims or ends.  Big objects are not
 * held back.  The word has memory before a place names it (client/state.c).
 */
#include <errno.h>

#include "client/cache.h"
#include "shm/remote.h"

#define HOLD_BACK_MAX 2048u /* bytes of an object that may wait in the buffer */

/* A word may be in one of two places, of which the first is returned; the other is its neighbour. */
static inline struct tgs_pending *places_of(const struct tgc_cache *cache, uint64_t word_ref)
{
	uint64_t hash = (word_ref >> 3) * UINT64_C(0x9e3779b97f4a7c15);

	return &cache->slot->pending[hash >> 59 << 1];
}
_Static_assert(TGS_PENDING_FREES == 64, "the hash has 5 bits");

static inline bool is_for(const struct tgs_pending *pending, uint64_t word_ref)
{
	return atomic_load_explicit(&pending->word, memory_order_relaxed) == word_ref &&
	       atomic_load_explicit(&pending->mask, memory_order_relaxed) != 0;
}

static void apply(struct tgc_cache *cache, struct tgs_pending *pending)
{
	uint64_t ref = atomic_load_explicit(&pending->word, memory_order_relaxed);
	uint32_t twice = tgs_pending_drop_gone(&tgc_heap, pending);
	struct tgs_word_place place;
	struct tgs_span span;

	twice |= tgs_pending_apply(&tgc_heap, cache->slot_id, pending);
	if (TGS_LIKELY(twice == 0))
		return;
	if (tgs_word_place(&tgc_heap, ref, &place) && tgs_span_at(&tgc_heap, place.page, &span))
		tgc_report(TGC_DOUBLE_FREE, tgs_page_address(&tgc_heap, place.page) +
						    (uint64_t)(place.unit * 64 + place.half * 32 +
							       (unsigned)__builtin_ctz(twice)) *
							    tgs_classes[span.class].size);
}

static uint32_t fill(const struct tgs_pending *pending)
{
	return atomic_load_explicit(&pending->mask, memory_order_relaxed);
}

static _Atomic uint64_t *word_of(const struct tgs_object *object)
{
	return tgs_remote_word(&tgc_heap, tgs_classes[object->span.class].kind, object->span.page,
			       object->unit, object->index / 32 % 2);
}

struct tgs_pending *tgc_foreign_reserve(struct tgc_cache *cache, const struct tgs_object *object)
{
	uint64_t ref = tgs_ref_of(&tgc_heap, word_of(object));
	struct tgs_pending *places = places_of(cache, ref), *place;

	if (is_for(&places[0], ref))
		return &places[0];
	if (is_for(&places[1], ref))
		return &places[1];
	/* One that is empty, or else the one that likely has more in it: most often frees go upwards. */
	place = &places[fill(&places[0]) != 0 &&
			(fill(&places[1]) == 0 || fill(&places[1]) > fill(&places[0]))];
	if (fill(place) != 0)
		apply(cache, place);
	atomic_store_explicit(&place->word, ref, memory_order_relaxed);
	return place;
}

bool tgc_foreign_free_next(struct tgc_cache *cache, uint64_t at, uint64_t entry)
{
	uint64_t page = at >> TGS_PAGE_SHIFT, product, ref;
	const struct tgs_class *info;
	const struct tgs_record *record;
	struct tgs_pending *places;
	struct tgs_unit *unit;
	uint32_t index, mask, bit;
	bool sparse;

	info = &tgs_classes[tgs_entry_class(entry)];
	/* Large and tiny ones have no size here, and big ones are not held back. */
	if (info->size - 2 > HOLD_BACK_MAX - 2 ||
	    (entry & TGS_ENTRY_OWNER_MASK) == cache->owner_bits)
		return false;
	page -= tgs_entry_delta(entry);
	product = (at - (page << TGS_PAGE_SHIFT)) * info->magic;
	index = (uint32_t)(product >> 32);
	if ((uint32_t)product >= info->magic || index >= info->n_slots)
		return false;
	record = &tgc_heap.records[page];
	sparse = info->kind == TGS_SPARSE;
	unit = (struct tgs_unit *)((sparse ? (uint8_t *)&record->unit
					   : (uint8_t *)&tgc_heap.dense[page * TGS_DENSE_UNITS]) +
				   index / 64 * sizeof(*unit));
	ref = tgs_ref_of(&tgc_heap, &unit->remote[index / 32 % 2]);
	places = places_of(cache, ref);
	if (atomic_load_explicit(&places->word, memory_order_relaxed) != ref)
		places++;
	mask = atomic_load_explicit(&places->mask, memory_order_relaxed);
	bit = UINT32_C(1) << index % 32;
	if (atomic_load_explicit(&places->word, memory_order_relaxed) != ref || mask == 0 ||
	    (mask & bit) ||
	    (atomic_load_explicit(&record->flags, memory_order_relaxed) & TGS_RECORD_HAS_LINKS) ||
	    !(atomic_load_explicit(&tgs_taken_bytes(&tgc_heap, info->kind, page)[index],
				   memory_order_acquire) &
	      TGS_TAKEN) ||
	    (tgs_remote_objects(
		     atomic_load_explicit(&unit->remote[index / 32 % 2], memory_order_acquire),
		     index / 32 % 2) &
	     bit))
		return false;
	mask |= bit;
	atomic_store_explicit(&places->mask, mask, memory_order_release);
	tgc_count(&cache->foreign_frees, 1);
	/* Nothing more can come. */
	if (mask == (uint32_t)(tgs_unit_mask(info->n_slots, index / 64) >> (index & 32)))
		apply(cache, places);
	return true;
}

void tgc_foreign_note(struct tgs_pending *pending, const struct tgs_object *object)
{
	uint32_t mask = atomic_load_explicit(&pending->mask, memory_order_relaxed);

	atomic_store_explicit(&pending->mask, mask | UINT32_C(1) << object->index % 32,
			      memory_order_release);
}

/* Big objects are not held back. */
void tgc_foreign_noted(struct tgc_cache *cache, struct tgs_pending *pending,
		       const struct tgs_object *object)
{
	tgc_count(&cache->foreign_frees, 1);
	if (object->span.class == 0 || tgs_classes[object->span.class].size > HOLD_BACK_MAX)
		apply(cache, pending);
}

/* Buffers the free of a live object. */
static void hold_back(struct tgc_cache *cache, const struct tgs_object *object, void *p)
{
	struct tgs_pending *pending;
	uint32_t mask;

	if (TGS_UNLIKELY(!tgs_has_more(&tgc_heap, tgs_classes[object->span.class].kind,
				       object->span.page)) &&
	    !tgc_state_or_owe(cache, object, p))
		return;
	pending = tgc_foreign_reserve(cache, object);
	mask = atomic_load_explicit(&pending->mask, memory_order_relaxed);
	if (TGS_UNLIKELY(mask >> object->index % 32 & 1)) {
		tgc_report(TGC_DOUBLE_FREE, p);
		return;
	}
	tgc_links_end(object->span.page, p, tgs_object_size(&tgc_heap, object));
	tgc_foreign_note(pending, object);
	tgc_foreign_noted(cache, pending, object);
}

void tgc_foreign_free(void *p)
{
	struct tgs_object object;
	struct tgc_cache *cache;
	enum tgs_find found;

	if (!tgc_enter()) {
		tgc_report(TGC_NOT_ATTACHED, p);
		return;
	}
	found = tgs_object_find(&tgc_heap, p, &object);
	if (TGS_UNLIKELY(found != TGS_FOUND)) {
		tgc_report(TGC_INVALID_FREE, p);
		return;
	}
	if (tgc_process->large && object.span.owner == tgc_process->large->slot_id) {
		if (!tgc_large_free(p, object.span.page))
			tgc_report(TGC_DOUBLE_FREE, p);
		return;
	}
	cache = tgc_cache_get();
	if (!cache)
		return; /* no daemon: the free cannot be noted anywhere; the object stays */
	if (object.span.owner == cache->slot_id && tgc_owns_it(cache, p))
		tgc_free_own(cache, &object, p);
	else if (TGS_UNLIKELY(!tgs_object_live(&tgc_heap, &object)))
		tgc_report(TGC_DOUBLE_FREE, p);
	else
		hold_back(cache, &object, p);
	tgc_cache_return_late();
}

void tgc_foreign_flush(struct tgc_cache *cache)
{
	unsigned i;

	if (TGS_UNLIKELY(cache->owed != NULL))
		tgc_owed_pay(cache);
	for (i = 0; i < TGS_PENDING_FREES; i++) {
		if (atomic_load_explicit(&cache->slot->pending[i].mask, memory_order_relaxed) != 0)
			apply(cache, &cache->slot->pending[i]);
	}
}

void tgc_foreign_pay(struct tgc_cache *cache, void *p)
{
	struct tgs_object object;

	if (tgs_object_find(&tgc_heap, p, &object) != TGS_FOUND ||
	    !tgs_object_live(&tgc_heap, &object))
		tgc_report(TGC_DOUBLE_FREE, p);
	else if (tgc_owns_it(cache, p))
		tgc_free_own(cache, &object, p);
	else
		hold_back(cache, &object, p);
}

uint64_t tgc_foreign_pending(const struct tgc_cache *cache)
{
	uint64_t n = atomic_load_explicit(&cache->n_owed, memory_order_relaxed);
	unsigned i;

	for (i = 0; i < TGS_PENDING_FREES; i++)
		n += (uint64_t)__builtin_popcount(
			atomic_load_explicit(&cache->slot->pending[i].mask, memory_order_relaxed));
	return n;
}
