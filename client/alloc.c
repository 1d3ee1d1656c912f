/* alloc.c - the hot paths: malloc takes a bit, free puts one back.  No lock, no system call, no message.
 *
 * Small malloc: class by table, the slot freed last or the lowest bit of the class's word of free slots, one store into the
 * span's taken word.  Small free of an own object: page map entry (owner, class, distance to the first page: one load),
 * slot index by reciprocal, the checks that make a double free show, one store, a hint for the next malloc.  Everything else is in other files: tiny.c, large.c,
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
	uint64_t slots = bin->free;
	unsigned index = (unsigned)__builtin_ctzll(slots);

	if (ret_zero)
		*ret_zero = bin->zero >> index & 1;
	slots &= slots - 1;
	bin->free = slots;
	/* What is not free is taken: a store that waits for no load. */
	atomic_store_explicit(bin->taken, bin->mask ^ slots, memory_order_relaxed);
	return bin->address + (size_t)index * bin->size;
}

/* The compiler takes apart how an address was computed and computes it anew for each field; not behind this. */
#define HIDE(p) __asm__("" : "+r"(p))

/* Takes the slot that was freed last, of which the hint says all. */
static inline void *take_hint(struct tgc_bin *bin)
{
	const struct tgc_hint *hint = &bin->hints[--bin->n_hints];
	_Atomic uint64_t *word = (_Atomic uint64_t *)(uintptr_t)(hint->where / 64 * 8);
	uint64_t taken = atomic_load_explicit(word, memory_order_relaxed);

	atomic_store_explicit(word, taken | UINT64_C(1) << hint->where % 64, memory_order_relaxed);
	return hint->p;
}

static inline void *small_alloc(unsigned class, bool *ret_zero)
{
	struct tgc_bin *bin = &tgc_cache->bins[class];

	HIDE(bin);
	if (bin->n_hints != 0)
		return take_hint(bin);
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

/* The state of a slot of a class of ours: no branch on where it lies. */
static inline struct tgs_unit *unit_at(const struct tgc_bin *bin, uint64_t page, uint32_t index)
{
	return (struct tgs_unit *)(bin->units + page * bin->stride +
				   index / 64 * sizeof(struct tgs_unit));
}

/* Frees a slot of a span of ours, whatever there is to it.  `noted`: the place of the thread's buffer in which this free
 * stands, to be struck off once the slot is free and before anybody can reuse it; NULL: in none. */
static TGS_COLD bool free_own(struct tgc_cache *cache, const uint8_t *p, uint64_t page,
			      unsigned class, struct tgs_pending *noted)
{
	const struct tgs_class *info = &tgs_classes[class];
	uint64_t offset = (uint64_t)(p - tgs_page_address(&tgc_heap, page));
	uint32_t index = tgs_slot_index(class, offset);
	struct tgs_unit *unit = unit_at(&cache->bins[class], page, index);
	uint64_t bit = UINT64_C(1) << (index % 64);
	uint64_t taken = atomic_load_explicit(&unit->taken, memory_order_relaxed);
	uint64_t remote = atomic_load_explicit(&unit->remote[index / 32 % 2], memory_order_relaxed);

	if (!(taken & bit) || (remote >> (index % 32) & 1) ||
	    (uint64_t)index * info->size != offset)
		return false;
	if (atomic_load_explicit(&unit->published, memory_order_relaxed) & bit) {
		tgc_links_end(page, p, info->size);
		atomic_fetch_and_explicit(&unit->published, ~bit, memory_order_relaxed);
	}
	atomic_store_explicit(&unit->taken, taken & ~bit, memory_order_relaxed);
	if (noted)
		tgc_foreign_strike(noted, index);
	tgc_span_freed(cache, tgc_span_record(page), index / 64, bit);
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

/* Live, not published, not freed by another: nothing but its bit has to be cleared.  `i`: its number in the unit. */
static inline bool is_ordinary(uint64_t taken, const _Atomic uint64_t *published,
			       const _Atomic uint64_t remote[2], uint64_t i)
{
	uint64_t bit = UINT64_C(1) << i;
	uint32_t freed = (uint32_t)atomic_load_explicit(&remote[i / 32], memory_order_relaxed);

	return (taken & bit) && !(atomic_load_explicit(published, memory_order_relaxed) & bit) &&
	       !(freed >> i % 32 & 1);
}

/* As tg_free, byte by byte: a tiny span is one page.  Most have no published and remote words, and the page map says so. */
static inline void tiny_free(struct tgc_cache *cache, void *object, uint64_t at, uint64_t entry)
{
	const struct tgs_tiny_more *more = &tgc_heap.tiny_more[at >> TGS_PAGE_SHIFT];
	unsigned unit = (unsigned)(at % TGS_PAGE_SIZE / 64);
	_Atomic uint64_t *word = &tgc_heap.tiny_taken[at >> TGS_PAGE_SHIFT].taken[unit];
	uint64_t taken = atomic_load_explicit(word, memory_order_relaxed);
	uint64_t bit = UINT64_C(1) << at % 64;

	if (TGS_UNLIKELY((entry & TGS_ENTRY_MORE) ? !is_ordinary(taken, &more->unit[unit].published,
								 more->unit[unit].remote, at % 64)
						  : !(taken & bit))) {
		tgc_tiny_free(cache, object, at >> TGS_PAGE_SHIFT, NULL);
		return;
	}
	taken ^= bit;
	atomic_store_explicit(word, taken, memory_order_relaxed);
	if ((taken >> at % 64 / 16 * 16 & 0xffff) == 0)
		tgc_tiny_block_warm(cache, (uint8_t *)object - at % 16);
}

/* What is seldom: published objects, double and wrong frees; a page of no span, which looks like ours to a thread that has
 * no slot. */
static TGS_COLD void free_unusual(struct tgc_cache *cache, void *object, uint64_t page,
				  unsigned class)
{
	if (class == 0)
		tgc_foreign_free(object);
	else if (!free_own(cache, object, page, class, NULL))
		tgc_report(TGC_DOUBLE_FREE, object);
}

TG_API void tg_free(void *object)
{
	struct tgc_cache *cache = tgc_cache;
	uint64_t at = (uint64_t)((uint8_t *)object - tgc_heap.data);
	uint64_t entry, page, product, taken, bit;
	struct tgc_bin *bin;
	struct tgs_unit *unit;
	uint32_t index;
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
	if (TGS_UNLIKELY(class - 1 >= TGS_CLASSES - 1)) {
		if (class == TGS_CLASS_TINY)
			tiny_free(cache, object, at, entry);
		else
			free_unusual(cache, object, page, class);
		return;
	}
	bin = &cache->bins[class];
	HIDE(bin);
	product = (at - (page << TGS_PAGE_SHIFT)) * bin->magic;
	index = (uint32_t)(product >> 32);
	unit = unit_at(bin, page, index);
	bit = UINT64_C(1) << index % 64;
	taken = atomic_load_explicit(&unit->taken, memory_order_relaxed);
	/* The start of a slot: the fraction of offset / size is less than that of one byte. */
	if (TGS_UNLIKELY(!is_ordinary(taken, &unit->published, unit->remote, index % 64) ||
			 (uint32_t)product >= bin->magic)) {
		free_unusual(cache, object, page, class);
		return;
	}
	atomic_store_explicit(&unit->taken, taken ^ bit, memory_order_relaxed);
	if (bin->taken == &unit->taken) {
		bin->free |= bit;
		if (bin->zero != 0)
			bin->zero &= ~bit;
	} else if (TGS_LIKELY(bin->n_hints < bin->max_hints)) {
		struct tgc_hint *hint = &bin->hints[bin->n_hints++];

		hint->p = object;
		hint->where = (uint64_t)(uintptr_t)&unit->taken * 8 + index % 64;
	} else {
		tgc_slot_freed(cache, page, index);
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
