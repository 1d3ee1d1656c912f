/* alloc.c - the hot paths: malloc takes a bit, free puts one back.  No lock, no system call, no message.
 *
 * Small malloc: class by table, lowest bit of the class's word of free slots, one store into the span's taken word.
 * Small free of an own object: page map entry (owner, class, distance to the first page: one load), slot index by
 * reciprocal, the checks that make a double free show, one store.  Everything else is in other files: tiny.c, large.c,
 * foreign.c (objects of other threads and processes), refill.c (no free slot at hand).
 */
#include "client/tg.h"

#include <errno.h>
#include <string.h>

#include "client/cache.h"

static TGS_COLD void *small_slow(unsigned class, bool *ret_zero);

/* Takes a slot of the bin's word, which has one. */
static inline void *take(struct tgc_bin *bin, bool *ret_zero)
{
	uint64_t bit = bin->free & -bin->free;
	unsigned index = (unsigned)__builtin_ctzll(bin->free);
	uint64_t taken = atomic_load_explicit(bin->taken, memory_order_relaxed);

	bin->free ^= bit;
	atomic_store_explicit(bin->taken, taken | bit, memory_order_relaxed);
	if (ret_zero)
		*ret_zero = (bin->zero & bit) != 0;
	return bin->address + (size_t)index * bin->size;
}

static inline void *small_alloc(unsigned class, bool *ret_zero)
{
	struct tgc_bin *bin = &tgc_cache->bins[class];

	if (TGS_LIKELY(bin->free != 0))
		return take(bin, ret_zero);
	return small_slow(class, ret_zero);
}

static TGS_COLD void *small_slow(unsigned class, bool *ret_zero)
{
	struct tgc_cache *cache = tgc_cache_get();

	if (!cache || !tgc_refill(cache, class))
		return NULL;
	return take(&cache->bins[class], ret_zero);
}

static inline void *tiny_alloc(size_t size)
{
	struct tgc_cache *cache = tgc_cache;
	struct tgc_tiny *tiny = &cache->tiny;
	unsigned mask = tgc_tiny_align_mask(size);
	uint32_t offset = (tiny->offset + mask) & ~mask;
	uint64_t taken;

	/* The length is at least 1: malloc(0) is an object too.  Without a block the address is NULL. */
	size += size == 0;
	if (TGS_UNLIKELY(offset + size > 16 || !tiny->block))
		return tgc_tiny_alloc_slow(cache, size);
	tiny->offset = offset + (uint32_t)size;
	taken = atomic_load_explicit(tiny->taken, memory_order_relaxed);
	atomic_store_explicit(tiny->taken, taken | UINT64_C(1) << (tiny->shift + offset),
			      memory_order_release);
	/* After the bit: whoever asks for the size of the object before us sees at least one of the two. */
	atomic_store_explicit(&cache->slot->tiny_offset, tiny->offset, memory_order_release);
	return tiny->block + offset;
}

TG_API void *tg_malloc(size_t size)
{
	if (TGS_LIKELY(size - (TGS_TINY_MAX + 1) <= TGS_SMALL_MAX - (TGS_TINY_MAX + 1)))
		return small_alloc(tgs_size_to_class(size), NULL);
	if (size <= TGS_TINY_MAX)
		return tiny_alloc(size);
	return tgc_large_alloc(size, 1, NULL);
}

/* Frees a slot of a span of ours.  `noted`: the place of the thread's buffer in which this free stands, to be struck off
 * once the slot is free and before anybody can reuse it; NULL: in none. */
static inline __attribute__((always_inline)) bool free_own(struct tgc_cache *cache,
							   const uint8_t *p, uint64_t page,
							   unsigned class,
							   struct tgs_pending *noted)
{
	const struct tgs_class *info = &tgs_classes[class];
	uint64_t offset = (uint64_t)(p - tgs_page_address(&tgc_heap, page));
	uint32_t index = tgs_slot_index(class, offset);
	unsigned number = info->kind == TGS_SPARSE ? 0 : index / 64;
	struct tgs_unit *unit = info->kind == TGS_SPARSE
					? &tgc_heap.records[page].unit
					: &tgc_heap.dense[page * TGS_DENSE_UNITS + number];
	uint64_t bit = UINT64_C(1) << (index % 64);
	uint64_t taken = atomic_load_explicit(&unit->taken, memory_order_relaxed);
	uint64_t remote = atomic_load_explicit(&unit->remote[index / 32 % 2], memory_order_relaxed);
	struct tgc_bin *bin = &cache->bins[class];

	if (TGS_UNLIKELY(!(taken & bit) || (remote >> (index % 32) & 1) ||
			 (uint64_t)index * info->size != offset))
		return false;
	if (TGS_UNLIKELY(atomic_load_explicit(&unit->published, memory_order_relaxed) & bit)) {
		tgc_links_end(page, p, info->size);
		atomic_fetch_and_explicit(&unit->published, ~bit, memory_order_relaxed);
	}
	atomic_store_explicit(&unit->taken, taken & ~bit, memory_order_relaxed);
	if (noted)
		tgc_foreign_strike(noted, index);
	if (TGS_LIKELY(bin->taken == &unit->taken)) {
		bin->free |= bit;
		bin->zero &= ~bit;
	} else {
		tgc_span_freed(cache, tgc_span_record(page), number, bit);
	}
	return true;
}

void tgc_free_noted(struct tgc_cache *cache, const struct tgs_object *object,
		    struct tgs_pending *pending)
{
	uint64_t page = object->span.page;
	unsigned class = object->span.class;
	uint8_t *p =
		tgs_page_address(&tgc_heap, page) + (size_t)object->index * tgs_classes[class].size;

	if (class == TGS_CLASS_TINY)
		tgc_tiny_free(cache, p, page, pending);
	else
		(void)free_own(cache, p, page, class, pending);
}

TG_API void tg_free(void *object)
{
	struct tgc_cache *cache = tgc_cache;
	uint64_t at = (uint64_t)((uint8_t *)object - tgc_heap.data);
	uint64_t entry, page;
	unsigned class;

	if (TGS_UNLIKELY(at >= tgc_heap.data_bytes)) {
		if (object)
			tgc_foreign_free(object);
		return;
	}
	page = at >> TGS_PAGE_SHIFT;
	entry = atomic_load_explicit(&tgc_heap.page_map[page], memory_order_relaxed);
	if (TGS_UNLIKELY((entry & TGS_ENTRY_OWNER_MASK) != cache->owner_bits)) {
		tgc_foreign_free(object);
		return;
	}
	class = tgs_entry_class(entry);
	page -= tgs_entry_delta(entry);
	if (TGS_LIKELY(class - 1 < TGS_CLASSES - 1)) {
		if (TGS_UNLIKELY(!free_own(cache, object, page, class, NULL)))
			tgc_report(TGC_DOUBLE_FREE, object);
	} else if (class == TGS_CLASS_TINY) {
		tgc_tiny_free(cache, object, page, NULL);
	} else {
		/* An entry of zero looks like ours to a thread that has no slot: a page of no span. */
		tgc_foreign_free(object);
	}
}

TG_API void *tg_calloc(size_t n, size_t size)
{
	size_t bytes;
	bool zero = false;
	void *p;

	if (__builtin_mul_overflow(n, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	if (bytes <= TGS_TINY_MAX)
		p = tiny_alloc(bytes);
	else if (bytes <= TGS_SMALL_MAX)
		p = small_alloc(tgs_size_to_class(bytes), &zero);
	else
		p = tgc_large_alloc(bytes, 1, &zero);
	if (p && !zero)
		memset(p, 0, bytes);
	return p;
}

/* The smallest class whose slots are all multiples of `align` bytes from the page, and hold `size`; 0: none. */
static unsigned aligned_class(size_t align, size_t size)
{
	unsigned class;

	if (align > TGS_PAGE_SIZE || size > TGS_SMALL_MAX)
		return 0;
	for (class = tgs_size_to_class(size > TGS_TINY_MAX ? size : TGS_TINY_MAX + 1);
	     class < TGS_CLASSES; class += 1) {
		if (tgs_classes[class].size % align == 0)
			return class;
	}
	return 0;
}

TG_API void *tg_aligned_alloc(size_t align, size_t size)
{
	unsigned class;

	if (!tgs_is_power_of_two(align)) {
		errno = EINVAL;
		return NULL;
	}
	/* The tiny rule already gives these. */
	if (size <= TGS_TINY_MAX && align <= tgc_tiny_align_mask(size) + 1)
		return tiny_alloc(size);
	class = aligned_class(align, size);
	if (class != 0)
		return small_alloc(class, NULL);
	return tgc_large_alloc(size, align, NULL);
}
