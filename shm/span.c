/* span.c - from a page or a pointer to the span and the object that it means, and what of a span is live.
 *
 * The questions that are asked seldom; the hot paths of the client have their own, inlined, forms of them.  Nothing here
 * writes to shared memory.  The page map is the daemon's and can be believed, but it may change while it is read: each
 * entry is read once into a local, and every index made from it is checked against the geometry.
 */
#include "shm/span.h"

bool tgs_span_at(const struct tgs_heap *heap, uint64_t page, struct tgs_span *ret_span)
{
	const struct tgs_class *info;
	uint64_t entry;
	unsigned class;

	if (page >= heap->geometry.n_pages)
		return false;
	entry = tgs_page_entry(heap, page);
	class = tgs_entry_class(entry);
	if (!(entry & TGS_ENTRY_SPAN) || class >= TGS_CLASSES_ALL || tgs_entry_delta(entry) > page)
		return false;

	info = &tgs_classes[class];
	ret_span->class = class;
	ret_span->owner = tgs_entry_owner(entry);
	ret_span->page = page - tgs_entry_delta(entry);
	ret_span->n_pages = class == 0 ? tgs_entry_large_pages(entry) : info->n_pages;
	ret_span->n_slots = info->n_slots;
	return ret_span->n_pages != 0 &&
	       ret_span->n_pages <= heap->geometry.n_pages - ret_span->page;
}

enum tgs_find tgs_object_find(const struct tgs_heap *heap, const void *p,
			      struct tgs_object *ret_object)
{
	uint64_t at = (uint64_t)((const uint8_t *)p - heap->data);
	const struct tgs_class *info;
	uint64_t offset;

	if ((const uint8_t *)p < heap->data || at >= heap->data_bytes)
		return TGS_NOT_IN_HEAP;
	if (!tgs_span_at(heap, at >> TGS_PAGE_SHIFT, &ret_object->span))
		return TGS_NO_SPAN;

	info = &tgs_classes[ret_object->span.class];
	offset = at - (ret_object->span.page << TGS_PAGE_SHIFT);
	ret_object->index = tgs_slot_index(ret_object->span.class, offset);
	ret_object->unit = ret_object->index / 64;
	ret_object->bit = UINT64_C(1) << (ret_object->index % 64);
	if (ret_object->index >= ret_object->span.n_slots ||
	    (uint64_t)ret_object->index * info->size != offset)
		return TGS_NOT_A_START;
	return TGS_FOUND;
}

bool tgs_object_around(const struct tgs_heap *heap, uint64_t ref, struct tgs_object *ret_object)
{
	uint64_t at = ref - heap->geometry.data_at, page = at >> TGS_PAGE_SHIFT, offset, starts;
	struct tgs_span *span = &ret_object->span;

	if (ref < heap->geometry.data_at || ref >= heap->geometry.heap_bytes)
		return false;
	while (!tgs_span_at(heap, page, span)) {
		if (page-- == 0)
			return false;
	}
	offset = at - (span->page << TGS_PAGE_SHIFT);
	if (offset >> TGS_PAGE_SHIFT >= span->n_pages)
		return false;
	ret_object->index = tgs_slot_index(span->class, offset);
	if (span->class == TGS_CLASS_TINY) {
		starts = atomic_load_explicit(
			tgs_taken_word(heap, TGS_TINY, span->page, (unsigned)offset / 64),
			memory_order_acquire);
		/* Of its block, up to and with this byte. */
		starts = starts >> (offset % 64 & ~UINT64_C(15)) &
			 ((UINT64_C(2) << offset % 16) - 1);
		if (starts == 0)
			return false;
		ret_object->index =
			(uint32_t)(offset & ~UINT64_C(15)) + 63 - (uint32_t)__builtin_clzll(starts);
	}
	ret_object->unit = ret_object->index / 64;
	ret_object->bit = UINT64_C(1) << (ret_object->index % 64);
	return ret_object->index < span->n_slots;
}

bool tgs_object_live(const struct tgs_heap *heap, const struct tgs_object *object)
{
	unsigned kind = tgs_classes[object->span.class].kind;
	uint64_t remote = tgs_remote_bits(heap, kind, object->span.page, object->unit);
	uint64_t taken = atomic_load_explicit(
		tgs_taken_word(heap, kind, object->span.page, object->unit), memory_order_acquire);

	return (taken & ~remote & object->bit) != 0;
}

/* Tiny objects do not record their size.  The room of one ends where the next one in its block starts, or, behind the
 * last one, where the block's unused rest begins - if the block still is somebody's current one - or at its end.  Blocks
 * are filled upwards and their parts are never reused, so what this says stays true while the object lives. */
static size_t tiny_size(const struct tgs_heap *heap, const struct tgs_object *object)
{
	unsigned in_block = object->index % 16;
	unsigned shift = object->index % 64 - in_block;
	uint64_t block = tgs_ref_of(heap, tgs_page_address(heap, object->span.page)) +
			 object->index - in_block;
	const struct tgs_slot *slot = &heap->slots[object->span.owner];
	uint64_t end = 16, used, taken, later;

	/* The slot first: what its thread puts into the block later lies behind `used`, or shows in `taken`. */
	if (object->span.owner != TGS_SLOT_CENTRAL &&
	    atomic_load_explicit(&slot->tiny_block, memory_order_acquire) == block) {
		used = atomic_load_explicit(&slot->tiny_offset, memory_order_acquire);
		if (used > in_block && used <= 16)
			end = used;
	}
	taken = atomic_load_explicit(
		tgs_taken_word(heap, TGS_TINY, object->span.page, object->unit),
		memory_order_acquire);
	later = (taken >> shift & 0xffff) >> in_block >> 1;
	if (later != 0)
		end = tgs_min(end, in_block + (uint64_t)__builtin_ctzll(later) + 1);
	return (size_t)(end - in_block);
}

size_t tgs_object_size(const struct tgs_heap *heap, const struct tgs_object *object)
{
	if (object->span.class == TGS_CLASS_TINY)
		return tiny_size(heap, object);
	if (object->span.class == 0)
		return (size_t)(object->span.n_pages << TGS_PAGE_SHIFT);
	return tgs_classes[object->span.class].size;
}

uint32_t tgs_span_live(const struct tgs_heap *heap, const struct tgs_span *span)
{
	unsigned kind = tgs_classes[span->class].kind;
	uint32_t live = 0;
	unsigned unit;

	for (unit = 0; unit < tgs_span_units(span->n_slots); unit++) {
		uint64_t remote = tgs_remote_bits(heap, kind, span->page, unit);
		uint64_t taken = atomic_load_explicit(tgs_taken_word(heap, kind, span->page, unit),
						      memory_order_relaxed);

		live += (uint32_t)__builtin_popcountll(taken & ~remote &
						       tgs_unit_mask(span->n_slots, unit));
	}
	return live;
}

bool tgs_span_empty(const struct tgs_heap *heap, const struct tgs_span *span)
{
	unsigned kind = tgs_classes[span->class].kind;
	unsigned unit;

	for (unit = 0; unit < tgs_span_units(span->n_slots); unit++) {
		if (atomic_load_explicit(tgs_taken_word(heap, kind, span->page, unit),
					 memory_order_acquire) != 0 ||
		    tgs_remote_bits(heap, kind, span->page, unit) != 0)
			return false;
	}
	return true;
}
