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

static struct tgs_pending *place_of(const struct tgc_cache *cache, uint64_t word_ref)
{
	uint64_t hash = (word_ref >> 3) * UINT64_C(0x9e3779b97f4a7c15);

	return &cache->slot->pending[hash >> 58];
}
_Static_assert(TGS_PENDING_FREES == 64, "the hash has 6 bits");

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

static _Atomic uint64_t *word_of(const struct tgs_object *object)
{
	return tgs_remote_word(&tgc_heap, tgs_classes[object->span.class].kind, object->span.page,
			       object->unit, object->index / 32 % 2);
}

struct tgs_pending *tgc_foreign_reserve(struct tgc_cache *cache, const struct tgs_object *object)
{
	uint64_t ref = tgs_ref_of(&tgc_heap, word_of(object));
	struct tgs_pending *pending = place_of(cache, ref);
	uint32_t mask = atomic_load_explicit(&pending->mask, memory_order_relaxed);

	if (mask != 0 && atomic_load_explicit(&pending->word, memory_order_relaxed) != ref) {
		apply(cache, pending);
		mask = 0;
	}
	if (mask == 0)
		atomic_store_explicit(&pending->word, ref, memory_order_relaxed);
	return pending;
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
	if (object.span.owner == cache->slot_id)
		tg_free(p);
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
	else if (object.span.owner == cache->slot_id)
		tgc_free_noted(cache, &object, NULL);
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
