/* span.h - one span: where its state bits lie, which object a pointer means, and what is live.
 *
 * A span serves one size class (or is one large object).  Its state is units of 64 objects: `taken` (the owner's),
 * `remote` (freed by others, not yet harvested), `published`.  Where they lie depends on how many objects there are:
 * in the record (up to 64), in the dense areas (up to 128, 256, 512), or in the two tiny areas (8192 bytes, each one
 * possibly the start of an object).  Everything here is look-up; who may write what stands in layout.h.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/base.h"
#include "shm/layout.h"
#include "shm/region.h"
#include "shm/sizeclass.h"

/* What a page map entry says, spelled out. */
struct tgs_span {
	uint64_t page; /* first page */
	uint64_t n_pages;
	uint32_t class;   /* 0 large, 1..67, TGS_CLASS_TINY */
	uint32_t owner;   /* thread slot */
	uint32_t n_slots; /* objects it has room for; tiny: bytes */
};

static inline uint64_t tgs_page_entry(const struct tgs_heap *heap, uint64_t page)
{
	return atomic_load_explicit(&heap->page_map[page], memory_order_acquire);
}

static inline uint64_t tgs_ref_of(const struct tgs_heap *heap, const void *p)
{
	return (uint64_t)((const uint8_t *)p - heap->base);
}

static inline uint8_t *tgs_page_address(const struct tgs_heap *heap, uint64_t page)
{
	return heap->data + (page << TGS_PAGE_SHIFT);
}

/* Have the published and remote words of this span memory?  Those of a dense or tiny span get it when first somebody
 * publishes, or frees from afar; until then they are all zero, and a read would be of a hole in the file.  So whoever reads
 * them asks here, and whoever writes them has made sure: for himself (client/state.c), or since they have been written
 * before. */
static inline bool tgs_has_more(const struct tgs_heap *heap, unsigned kind, uint64_t page)
{
	return kind == TGS_SPARSE || (tgs_page_entry(heap, page) & TGS_ENTRY_MORE) != 0;
}

/* The bytes of a span's slots; not of a tiny span. */
static inline tgs_taken *tgs_taken_bytes(const struct tgs_heap *heap, unsigned kind, uint64_t page)
{
	/* Both a record and the shortest of the others are 128 bytes. */
	return heap->taken[kind] + (page << (kind < TGS_DENSE_4 ? 7 : 6 + kind));
}

/* Which objects of a unit are taken.  Acquire. */
uint64_t tgs_taken_bits(const struct tgs_heap *heap, unsigned kind, uint64_t page, unsigned unit);

/* Which slots of a unit may not be handed out: those that are taken, and those that a thread keeps at hand (TGS_HELD).
 * Acquire. */
uint64_t tgs_used_bits(const struct tgs_heap *heap, unsigned kind, uint64_t page, unsigned unit);

/* The same, looking only at so many slots of it, or some more. */
uint64_t tgs_used_first(const struct tgs_heap *heap, unsigned kind, uint64_t page, unsigned unit,
			unsigned n_slots);

/* What was kept at hand, or was on its way to its owner, is free: the process has ended. */
void tgs_held_clear(const struct tgs_heap *heap, unsigned kind, uint64_t page, unsigned unit);

/* Those that are taken among `bits` are not any more: returned.  By whoever alone may write them, or for large objects, of
 * which of several that do so at once one gets it. */
uint64_t tgs_taken_clear(const struct tgs_heap *heap, unsigned kind, uint64_t page, unsigned unit,
			 uint64_t bits);

/* Before the words of a unit say of these objects that they are published, or freed by others: their owner looks there
 * only if so.  For who is not the owner, too. */
void tgs_taken_special(const struct tgs_heap *heap, unsigned kind, uint64_t page, unsigned unit,
		       uint64_t bits);

/* The words of one unit. */

static inline _Atomic uint64_t *tgs_published_word(const struct tgs_heap *heap, unsigned kind,
						   uint64_t page, unsigned unit)
{
	if (kind == TGS_SPARSE)
		return &heap->records[page].unit.published;
	if (tgs_is_dense(kind))
		return &heap->dense[page * TGS_DENSE_UNITS + unit].published;
	return &heap->tiny_more[page].unit[unit].published;
}

static inline _Atomic uint64_t *tgs_remote_word(const struct tgs_heap *heap, unsigned kind,
						uint64_t page, unsigned unit, unsigned half)
{
	if (kind == TGS_SPARSE)
		return &heap->records[page].unit.remote[half];
	if (tgs_is_dense(kind))
		return &heap->dense[page * TGS_DENSE_UNITS + unit].remote[half];
	return &heap->tiny_more[page].unit[unit].remote[half];
}

/* Units in use by a span of n_slots. */
static inline unsigned tgs_span_units(unsigned n_slots)
{
	return (n_slots + 63) / 64;
}

/* Bits of unit `unit` that stand for objects at all. */
static inline uint64_t tgs_unit_mask(unsigned n_slots, unsigned unit)
{
	unsigned left = n_slots - unit * 64;

	return left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1;
}

/* Reads both remote halves of a unit as one mask. */
static inline uint64_t tgs_remote_bits(const struct tgs_heap *heap, unsigned kind, uint64_t page,
				       unsigned unit)
{
	uint64_t low, high;

	if (!tgs_has_more(heap, kind, page))
		return 0;
	low = atomic_load_explicit(tgs_remote_word(heap, kind, page, unit, 0),
				   memory_order_acquire);
	high = atomic_load_explicit(tgs_remote_word(heap, kind, page, unit, 1),
				    memory_order_acquire);
	return tgs_remote_objects(low, 0) | (uint64_t)tgs_remote_objects(high, 1) << 32;
}

static inline uint64_t tgs_published_bits(const struct tgs_heap *heap, unsigned kind, uint64_t page,
					  unsigned unit)
{
	return tgs_has_more(heap, kind, page)
		       ? atomic_load_explicit(tgs_published_word(heap, kind, page, unit),
					      memory_order_acquire)
		       : 0;
}

/* The span that `page` belongs to.  False: to none (or it is an inner page of a large one), or the entry is out of
 * range - the map is the daemon's own, so this only happens to a reader that raced with a change. */
bool tgs_span_at(const struct tgs_heap *heap, uint64_t page, struct tgs_span *ret_span);

/* An object, as a pointer means it. */
struct tgs_object {
	struct tgs_span span;
	uint32_t index; /* slot in the span */
	uint32_t unit;  /* index / 64 */
	uint64_t bit;   /* 1 << (index % 64) */
};

enum tgs_find {
	TGS_FOUND, /* `p` is where a slot starts; whether an object lives there is tgs_object_live's to say */
	TGS_NOT_IN_HEAP,
	TGS_NO_SPAN,     /* in the heap, but on a page of no span (or inside a large object) */
	TGS_NOT_A_START, /* in a span, but no slot starts there */
};

/* The object is published, or not any more.  The words have memory (tgs_has_more). */
void tgs_publish(const struct tgs_heap *heap, const struct tgs_object *object);
void tgs_unpublish(const struct tgs_heap *heap, const struct tgs_object *object);

/* The byte of an object; not of a tiny one. */
static inline tgs_taken *tgs_taken_of(const struct tgs_heap *heap, const struct tgs_object *object)
{
	return &tgs_taken_bytes(heap, tgs_classes[object->span.class].kind,
				object->span.page)[object->index];
}

/* Does this byte say that there is an object which no thread of the owning process has freed? */
static inline bool tgs_taken_stays(unsigned byte)
{
	return (byte & (TGS_TAKEN | TGS_GOING)) == TGS_TAKEN;
}

/* What `p` points at.  For tiny spans every byte may be a start.  ret_object is filled as far as known. */
enum tgs_find tgs_object_find(const struct tgs_heap *heap, const void *p,
			      struct tgs_object *ret_object);

/* The slot in which the byte at `ref` lies; for a tiny span the object that starts at or before it in its block.  False:
 * in none.  Looks for the first page of a large object page by page. */
bool tgs_object_around(const struct tgs_heap *heap, uint64_t ref, struct tgs_object *ret_object);

/* Taken, and not freed by a thread of the owning process, nor by anybody else whose free has been applied. */
bool tgs_object_live(const struct tgs_heap *heap, const struct tgs_object *object);

/* Bytes that may be used at a live object. */
size_t tgs_object_size(const struct tgs_heap *heap, const struct tgs_object *object);

/* Live slots of a span now; exact when nobody works on it. */
uint32_t tgs_span_live(const struct tgs_heap *heap, const struct tgs_span *span);

/* Nothing live, nothing waiting to be harvested, nothing that a thread keeps at hand. */
bool tgs_span_empty(const struct tgs_heap *heap, const struct tgs_span *span);
