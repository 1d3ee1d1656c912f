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

/* Eight of them, as who reads or marks many of them sees them. */
typedef uint64_t __attribute__((may_alias)) eight;

static uint64_t load_eight(const tgs_taken *bytes)
{
	return __atomic_load_n((const eight *)bytes, __ATOMIC_ACQUIRE);
}

/* The lowest bits of eight bytes, side by side. */
static uint64_t gather(uint64_t value)
{
	return (value & UINT64_C(0x0101010101010101)) * UINT64_C(0x0102040810204080) >> 56;
}
_Static_assert(TGS_TAKEN == 1 && TGS_HELD == 1 << 2, "the lowest bit, and two above");

static uint64_t tiny_bits(const struct tgs_heap *heap, uint64_t page, unsigned unit)
{
	return atomic_load_explicit(&heap->tiny_taken[page].taken[unit], memory_order_acquire);
}

uint64_t tgs_taken_bits(const struct tgs_heap *heap, unsigned kind, uint64_t page, unsigned unit)
{
	const tgs_taken *bytes;
	uint64_t bits = 0;
	unsigned i;

	if (kind == TGS_TINY)
		return tiny_bits(heap, page, unit);
	bytes = tgs_taken_bytes(heap, kind, page) + unit * 64;
	for (i = 0; i < 64; i += 8)
		bits |= gather(load_eight(bytes + i)) << i;
	return bits;
}

uint64_t tgs_used_first(const struct tgs_heap *heap, unsigned kind, uint64_t page, unsigned unit,
			unsigned n_slots)
{
	const tgs_taken *bytes;
	uint64_t bits = 0;
	unsigned i;

	if (kind == TGS_TINY)
		return tiny_bits(heap, page, unit);
	bytes = tgs_taken_bytes(heap, kind, page) + unit * 64;
	for (i = 0; i < n_slots; i += 8) {
		uint64_t value = load_eight(bytes + i);

		bits |= gather(value | value >> 2) << i;
	}
	return bits;
}

uint64_t tgs_used_bits(const struct tgs_heap *heap, unsigned kind, uint64_t page, unsigned unit)
{
	return tgs_used_first(heap, kind, page, unit, 64);
}

void tgs_held_clear(const struct tgs_heap *heap, unsigned kind, uint64_t page, unsigned unit)
{
	_Atomic uint64_t *published;
	tgs_taken *bytes;
	unsigned i;

	if (kind == TGS_TINY)
		return;
	bytes = tgs_taken_bytes(heap, kind, page) + unit * 64;
	published = tgs_published_word(heap, kind, page, unit);
	for (i = 0; i < 64; i++) {
		unsigned was = atomic_load_explicit(&bytes[i], memory_order_relaxed);

		if (!(was & (TGS_HELD | TGS_GOING)))
			continue;
		/* First, so that it is done again if we are killed in between. */
		if ((was & TGS_SPECIAL) && tgs_has_more(heap, kind, page))
			atomic_fetch_and_explicit(published, ~(UINT64_C(1) << i),
						  memory_order_relaxed);
		atomic_store_explicit(&bytes[i], 0, memory_order_release);
	}
}

/* Of eight slots those of `bits`; all of them at once if they are all. */
static uint64_t clear_eight(tgs_taken *bytes, uint64_t bits)
{
	uint64_t cleared = 0;

	if (bits == 0xff) {
		uint64_t was = __atomic_load_n((eight *)bytes, __ATOMIC_RELAXED);

		TGS_POINT();
		__atomic_store_n((eight *)bytes, 0, __ATOMIC_RELEASE);
		return gather(was);
	}
	for (; bits != 0; bits &= bits - 1) {
		unsigned index = (unsigned)__builtin_ctzll(bits);
		unsigned was = atomic_load_explicit(&bytes[index], memory_order_relaxed);

		atomic_store_explicit(&bytes[index], 0, memory_order_release);
		cleared |= (uint64_t)(was & TGS_TAKEN) << index;
	}
	return cleared;
}

uint64_t tgs_taken_clear(const struct tgs_heap *heap, unsigned kind, uint64_t page, unsigned unit,
			 uint64_t bits)
{
	bool large = tgs_entry_class(tgs_page_entry(heap, page)) == 0;
	uint64_t cleared = 0;
	tgs_taken *bytes;
	unsigned i;

	if (kind == TGS_TINY)
		return bits & atomic_fetch_and_explicit(&heap->tiny_taken[page].taken[unit], ~bits,
							memory_order_acq_rel);
	bytes = tgs_taken_bytes(heap, kind, page) + unit * 64;
	if (bits != 0 && large)
		return atomic_exchange_explicit(bytes, 0, memory_order_acq_rel) & TGS_TAKEN;
	for (i = 0; i < 64; i += 8)
		cleared |= clear_eight(bytes + i, bits >> i & 0xff) << i;
	return cleared;
}

void tgs_taken_special(const struct tgs_heap *heap, unsigned kind, uint64_t page, unsigned unit,
		       uint64_t bits)
{
	eight *bytes;

	if (kind == TGS_TINY)
		return;
	bytes = (eight *)(tgs_taken_bytes(heap, kind, page) + unit * 64);
	for (; bits != 0; bytes++, bits >>= 8) {
		uint64_t mask = 0, some;

		for (some = bits & 0xff; some != 0; some &= some - 1)
			mask |= (uint64_t)TGS_SPECIAL << 8 * __builtin_ctzll(some);
		if ((mask & ~__atomic_load_n(bytes, __ATOMIC_RELAXED)) != 0)
			(void)__atomic_fetch_or(bytes, mask, __ATOMIC_SEQ_CST);
	}
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

void tgs_publish(const struct tgs_heap *heap, const struct tgs_object *object)
{
	unsigned kind = tgs_classes[object->span.class].kind;
	_Atomic uint64_t *word = tgs_published_word(heap, kind, object->span.page, object->unit);

	if (atomic_load_explicit(word, memory_order_acquire) & object->bit)
		return;
	tgs_taken_special(heap, kind, object->span.page, object->unit, object->bit);
	atomic_fetch_or_explicit(word, object->bit, memory_order_acq_rel);
	/* Once more, in case that a wrong program freed it meanwhile: then the slot's next free looks and tidies up. */
	tgs_taken_special(heap, kind, object->span.page, object->unit, object->bit);
}

void tgs_unpublish(const struct tgs_heap *heap, const struct tgs_object *object)
{
	_Atomic uint64_t *word = tgs_published_word(heap, tgs_classes[object->span.class].kind,
						    object->span.page, object->unit);

	if (atomic_load_explicit(word, memory_order_relaxed) & object->bit)
		atomic_fetch_and_explicit(word, ~object->bit, memory_order_acq_rel);
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
		starts = tgs_taken_bits(heap, TGS_TINY, span->page, (unsigned)offset / 64);
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
	uint64_t taken = tgs_taken_bits(heap, kind, object->span.page, object->unit);

	if (kind != TGS_TINY && !tgs_taken_stays(atomic_load_explicit(tgs_taken_of(heap, object),
								      memory_order_acquire)))
		return false;
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
	uint64_t end = 16, left, taken, later;

	/* The slot first: what its thread puts into the block later lies in what is left, or shows in `taken`.  Of a block that
	 * is not current any more nothing is handed out. */
	if (object->span.owner != TGS_SLOT_CENTRAL &&
	    atomic_load_explicit(&slot->tiny_block, memory_order_acquire) == block) {
		left = atomic_load_explicit(&slot->tiny_left, memory_order_acquire);
		if (left < 16 - in_block &&
		    atomic_load_explicit(&slot->tiny_block, memory_order_relaxed) == block)
			end = 16 - left;
	}
	taken = tgs_taken_bits(heap, TGS_TINY, object->span.page, object->unit);
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
		uint64_t taken = tgs_taken_bits(heap, kind, span->page, unit);

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
		if (tgs_used_bits(heap, kind, span->page, unit) != 0 ||
		    tgs_remote_bits(heap, kind, span->page, unit) != 0)
			return false;
	}
	return true;
}
