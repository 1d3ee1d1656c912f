/* swap.c - tg_link_get and tg_swap: a compare-and-swap of a pointer in the heap, with which ownership moves.
 *
 * TG_GIVE: the object is published before the swap and, if the swap fails, is private again; so no other process ever
 * finds it through the link while it still is its maker's.  TG_RETIRE: the object is freed after the swap, which has taken
 * it out of everybody's reach.  The step is noted in the slot until both are done (shm/step.h).
 */
#include "client/tg.h"

#include <errno.h>

#include "client/cache.h"
#include "shm/link.h"
#include "shm/step.h"

TG_API void *tg_link_get(const tg_link *link)
{
	uint64_t ref = tgs_link_get(&tgc_heap, &link->word);

	return ref ? tgc_heap.base + ref : NULL;
}

static bool in_heap(const void *p, size_t bytes)
{
	uint64_t at = (uint64_t)((const uint8_t *)p - tgc_heap.data);

	return (const uint8_t *)p >= tgc_heap.data && at < tgc_heap.data_bytes &&
	       tgc_heap.data_bytes - at >= bytes;
}

static bool live(const void *p, struct tgs_object *ret)
{
	return tgs_object_find(&tgc_heap, p, ret) == TGS_FOUND && tgs_object_live(&tgc_heap, ret);
}

static _Atomic uint64_t *published_word(const struct tgs_object *object)
{
	return tgs_published_word(&tgc_heap, tgs_classes[object->span.class].kind,
				  object->span.page, object->unit);
}

/* Objects in whose memory links are swung are told apart: the reuse of such memory is the recoverer's concern. */
static void note_links(const void *link)
{
	uint64_t page = (uint64_t)((const uint8_t *)link - tgc_heap.data) >> TGS_PAGE_SHIFT;
	struct tgs_span span;
	_Atomic uint64_t *flags;

	/* Inner pages of a large object have no entry: its first page is the next one down that has. */
	while (!tgs_span_at(&tgc_heap, page, &span)) {
		if (page-- == 0)
			return;
	}
	flags = &tgc_heap.records[span.page].flags;
	if (!(atomic_load_explicit(flags, memory_order_relaxed) & TGS_RECORD_HAS_LINKS))
		atomic_fetch_or_explicit(flags, TGS_RECORD_HAS_LINKS, memory_order_relaxed);
}

static bool arguments_ok(const tg_link *link, const void *expected, const void *desired,
			 unsigned flags)
{
	if (flags & ~(unsigned)(TG_GIVE | TG_RETIRE) || ((uintptr_t)link & 7) != 0) {
		errno = EINVAL;
		return false;
	}
	if (!in_heap(link, sizeof(*link)) || (expected && !in_heap(expected, 1)) ||
	    (desired && !in_heap(desired, 1))) {
		errno = EFAULT;
		return false;
	}
	return true;
}

TG_API bool tg_swap(tg_link *link, const void *expected, void *desired, unsigned flags)
{
	struct tgs_object given, retired;
	struct tgc_cache *cache;
	bool made_public = false, swung;

	cache = tgc_cache_get();
	if (!cache || !arguments_ok(link, expected, desired, flags))
		return false;
	if (((flags & TG_GIVE) && desired && !live(desired, &given)) ||
	    ((flags & TG_RETIRE) && expected && tg_link_get(link) == expected &&
	     !live(expected, &retired))) {
		errno = EFAULT;
		return false;
	}
	note_links(link);
	if ((flags & TG_GIVE) && desired)
		made_public = !(atomic_fetch_or_explicit(published_word(&given), given.bit,
							 memory_order_acq_rel) &
				given.bit);
	swung = tgs_link_swap(&tgc_heap, cache->slot_id, &link->word,
			      expected ? tgs_ref_of(&tgc_heap, expected) : 0,
			      desired ? tgs_ref_of(&tgc_heap, desired) : 0, flags);
	if (!swung && made_public)
		atomic_fetch_and_explicit(published_word(&given), ~given.bit, memory_order_acq_rel);
	/* The free may be a step of its own and then takes the note's place: what is lost in between is the recoverer's. */
	if (swung && (flags & TG_RETIRE) && expected)
		tg_free((void *)(uintptr_t)expected);
	tgs_step_done(cache->slot);
	errno = 0;
	return swung;
}
