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

/* Takes a slot of the bin's word, which has one.  `ret_zero`: is its memory known to be zero? */
static inline void *take(struct tgc_bin *bin, const struct tgc_supply *supply, bool *ret_zero)
{
	uint64_t slots = bin->free;
	unsigned index = (unsigned)__builtin_ctzll(slots);
	uint64_t taken = atomic_load_explicit(bin->taken, memory_order_relaxed);

	if (ret_zero)
		*ret_zero = supply->zero >> index & 1;
	bin->free = slots & (slots - 1);
	atomic_store_explicit(bin->taken, taken | UINT64_C(1) << index, memory_order_relaxed);
	return bin->address + (size_t)index * bin->size;
}

static inline void *small_alloc(unsigned class, bool *ret_zero)
{
	struct tgc_cache *cache = tgc_cache;
	struct tgc_bin *bin = &cache->bins[class];
	struct tgc_hint *hint;

	TGC_HIDE(bin);
	hint = bin->top;
	if (TGS_LIKELY(hint != bin->bottom)) {
		/* The slot that was freed last, of which the hint says all. */
		uint64_t where = hint->where;
		_Atomic uint64_t *word = tgc_word_at(where);
		uint64_t taken = atomic_load_explicit(word, memory_order_relaxed);

		bin->top = hint - 1;
		atomic_store_explicit(word, taken | UINT64_C(1) << where % 64,
				      memory_order_relaxed);
		return hint->p;
	}
	if (TGS_LIKELY(bin->free != 0))
		return take(bin, &cache->supply[class], ret_zero);
	return small_slow(class, ret_zero);
}

static TGS_COLD void *small_slow(unsigned class, bool *ret_zero)
{
	struct tgc_cache *cache = tgc_cache_get();
	void *p = NULL;

	if (cache && tgc_refill(cache, class))
		p = take(&cache->bins[class], &cache->supply[class], ret_zero);
	tgc_cache_return_late();
	return p;
}

/* A fresh block, the one that became free last, if there is such a hint: of it and the current block the roomier one stays
 * current. */
static inline void *tiny_alloc_block(struct tgc_cache *cache, size_t size)
{
	struct tgc_bin *bin = &cache->bins[TGS_CLASS_TINY];
	const struct tgc_hint *hint = bin->top;
	_Atomic uint64_t *word;
	uint64_t taken;

	if (TGS_UNLIKELY(hint == bin->bottom))
		return tgc_tiny_alloc_slow(cache, size);
	bin->top--;
	if (size < cache->tiny.offset)
		tgc_tiny_make_current(cache, hint->p, hint->where, size);
	word = tgc_word_at(hint->where);
	taken = atomic_load_explicit(word, memory_order_relaxed);
	atomic_store_explicit(word, taken | UINT64_C(1) << hint->where % 64, memory_order_release);
	return hint->p;
}

static inline void *tiny_alloc(size_t size)
{
	/* tgc_tiny_align_mask of each size. */
	static const uint8_t masks[TGS_TINY_MAX + 1] = {0, 0, 1, 1, 3, 3, 3, 3,
							7, 7, 7, 7, 7, 7, 7, 7};
	struct tgc_cache *cache = tgc_cache;
	struct tgc_tiny *tiny = &cache->tiny;
	uint64_t mask = masks[size];
	uint64_t offset = (tiny->offset + mask) & ~mask;
	_Atomic uint64_t *word;
	uint64_t where, taken;

	/* malloc(0) is an object too. */
	size += size == 0;
	if (offset + size > 16)
		return tiny_alloc_block(cache, size);
	if (TGS_UNLIKELY(!tiny->block))
		return tgc_tiny_alloc_slow(cache, size);
	tiny->offset = offset + size;
	where = tiny->where + offset;
	word = tgc_word_at(where);
	taken = atomic_load_explicit(word, memory_order_relaxed);
	atomic_store_explicit(word, taken | UINT64_C(1) << where % 64, memory_order_release);
	/* After the bit: whoever asks for the size of the object before us sees at least one of the two. */
	atomic_store_explicit(&cache->slot->tiny_offset, offset + size, memory_order_release);
	return tiny->block + offset;
}

TG_API void *tg_malloc(size_t size)
{
	/* Most often: the compiler knows the rest of the way then. */
	if (TGS_LIKELY(size - (TGS_TINY_MAX + 1) <= 1000 - (TGS_TINY_MAX + 1)))
		return small_alloc(tgs_size_to_class(size), NULL);
	if (size <= TGS_TINY_MAX)
		return tiny_alloc(size);
	if (size <= TGS_SMALL_MAX)
		return small_alloc(tgs_size_to_class(size), NULL);
	return tgc_large_malloc(size);
}

/* Frees an object of a span of ours, whatever there is to it.  `noted`: the place of the thread's buffer in which this
 * free stands, to be struck off once the slot is free and before anybody can reuse it; NULL: in none. */
static bool free_object(struct tgc_cache *cache, const struct tgs_object *object,
			struct tgs_pending *noted)
{
	unsigned class = object->span.class;
	uint64_t page = object->span.page, bit = object->bit;
	const struct tgs_class *info = &tgs_classes[class];
	_Atomic uint64_t *word = tgs_taken_word(&tgc_heap, info->kind, page, object->unit);
	_Atomic uint64_t *published = tgs_published_word(&tgc_heap, info->kind, page, object->unit);
	uint64_t taken = atomic_load_explicit(word, memory_order_relaxed);

	if (!(taken & bit) || (tgs_remote_bits(&tgc_heap, info->kind, page, object->unit) & bit))
		return false;
	if (atomic_load_explicit(published, memory_order_relaxed) & bit) {
		tgc_links_end(page,
			      tgs_page_address(&tgc_heap, page) +
				      (size_t)object->index * info->size,
			      info->size);
		atomic_fetch_and_explicit(published, ~bit, memory_order_relaxed);
	}
	atomic_store_explicit(word, taken & ~bit, memory_order_relaxed);
	if (noted)
		tgc_foreign_strike(noted, object->index);
	tgc_slot_freed(cache, page, object->index);
	return true;
}

void tgc_free_noted(struct tgc_cache *cache, const struct tgs_object *object,
		    struct tgs_pending *pending)
{
	uint64_t page = object->span.page;
	unsigned class = object->span.class;

	if (class == TGS_CLASS_TINY)
		tgc_tiny_free(cache, tgs_page_address(&tgc_heap, page) + object->index, page,
			      pending);
	else
		(void)free_object(cache, object, pending);
}

void tgc_free_own(struct tgc_cache *cache, const struct tgs_object *object, void *p)
{
	if (object->span.class == TGS_CLASS_TINY)
		tgc_tiny_free(cache, p, object->span.page, NULL);
	else if (!free_object(cache, object, NULL))
		tgc_report(TGC_DOUBLE_FREE, p);
}

/* Is the bit set in that word, or in those words' objects?  Relaxed loads that the processor makes part of the test. */
static inline bool is_published(const _Atomic uint64_t *published, uint64_t bit)
{
#ifdef __SANITIZE_THREAD__
	return atomic_load_explicit(published, memory_order_relaxed) & bit;
#else
	return (*(const uint64_t *)published & bit) != 0;
#endif
}

static inline bool is_freed_remotely(const _Atomic uint64_t remote[2], uint64_t bit)
{
#if defined(__SANITIZE_THREAD__) || !defined(__x86_64__)
	return ((uint64_t)tgs_remote_objects(remote[1], 1) << 32 |
		tgs_remote_objects(remote[0], 0)) &
	       bit;
#else
	/* They lie side by side (TGS_REMOTE_*), though in two words; what is aligned to 4 bytes and in one cache line
	 * is read at once. */
	typedef uint64_t __attribute__((aligned(4), may_alias)) objects;

	return (*(const objects *)((const uint32_t *)remote + 1) & bit) != 0;
#endif
}

/* Live, not published, not freed by another: nothing but its bit has to be cleared. */
static inline bool is_ordinary(uint64_t taken, const _Atomic uint64_t *published,
			       const _Atomic uint64_t remote[2], uint64_t bit)
{
	return (taken & bit) && !is_published(published, bit) && !is_freed_remotely(remote, bit);
}

/* The same of a byte of a tiny span.  Most tiny spans have no published and remote words, and the page map says so. */
static inline bool tiny_is_ordinary(uint64_t page, uint64_t where, uint64_t taken, uint64_t bit)
{
	const struct tgs_tiny_more *more = &tgc_heap.tiny_more[page];
	unsigned unit = (unsigned)(where / 64 % TGS_TINY_UNITS);

	if (TGS_LIKELY(!tgs_has_more(&tgc_heap, TGS_TINY, page)))
		return taken & bit;
	return is_ordinary(taken, &more->unit[unit].published, more->unit[unit].remote, bit);
}

/* What the table of owned pages and the bits do not settle at once. */
static __attribute__((noinline)) void free_special(void *object)
{
	struct tgc_cache *cache = tgc_cache;
	uint64_t at = (uint64_t)((uint8_t *)object - tgc_heap.data);
	uint64_t page = at >> TGS_PAGE_SHIFT, entry = 0;

	if (at < tgc_heap.data_bytes)
		entry = atomic_load_explicit(&tgc_heap.page_map[page], memory_order_relaxed);
	if (entry != 0 && cache->slot_id != 0) {
		if ((entry & TGC_LARGE_ENTRY_MASK) == cache->large.entry) {
			tgc_large_free_own(cache, object, page, entry);
			return;
		}
		if (tgc_foreign_free_small(cache, at, entry))
			return;
	}
	if (object)
		tgc_foreign_free(object);
}

/* As tg_free, byte by byte: a tiny span is one page.  `where`: of the object's taken bit. */
static __attribute__((noinline)) void tiny_free(struct tgc_cache *cache, void *object,
						uint64_t where)
{
	uint64_t page = (uint64_t)((uint8_t *)object - tgc_heap.data) >> TGS_PAGE_SHIFT;
	_Atomic uint64_t *word = tgc_word_at(where);
	uint64_t taken = atomic_load_explicit(word, memory_order_relaxed);
	uint64_t bit = UINT64_C(1) << where % 64;
	struct tgc_bin *bin = &cache->bins[TGS_CLASS_TINY];
	uint8_t *block = (uint8_t *)object - where % 16;

	if (TGS_UNLIKELY(!tiny_is_ordinary(page, where, taken, bit))) {
		free_special(object);
		return;
	}
	taken ^= bit;
	atomic_store_explicit(word, taken, memory_order_relaxed);
	if ((taken >> where % 64 / 16 * 16 & 0xffff) != 0)
		return;
	/* The block has no object any more. */
	if (tgc_tiny_restart(cache, block))
		return;
	if (TGS_UNLIKELY(bin->top >= bin->limit)) {
		tgc_hints_full(cache, bin, block,
			       (uint32_t)((uintptr_t)block % TGS_PAGE_SIZE / 16));
		return;
	}
	bin->top++;
	bin->top->p = block;
	bin->top->where = where - where % 16;
}

TG_API void tg_free(void *object)
{
	struct tgc_cache *cache = tgc_cache;
	const struct tgc_own *own = tgc_own_of(object);
	uint64_t offset = (uintptr_t)object - TGC_LOAD(own->start);
	uint64_t product, index, where, taken, bit;
	const struct tgs_unit *unit;
	struct tgc_hint *hint;
	struct tgc_bin *bin;

	/* In no span of this process?  Of this thread? */
	if (TGS_UNLIKELY(offset >= TGC_LOAD(own->bytes))) {
		free_special(object);
		return;
	}
	bin = TGC_LOAD(own->bin);
	if (TGS_UNLIKELY(!tgc_has_bin(cache, bin))) {
		free_special(object);
		return;
	}
	product = offset * bin->magic;
	/* The start of a slot: the fraction of offset / size is less than that of one byte.  Never in a tiny span. */
	if (TGS_UNLIKELY((uint32_t)product >= bin->magic)) {
		if (bin == &cache->bins[TGS_CLASS_TINY])
			tiny_free(cache, object, TGC_LOAD(own->state) + offset);
		else
			free_special(object);
		return;
	}
	index = product >> 32;
	where = TGC_LOAD(own->state) + index + index / 64 * (8 * sizeof(struct tgs_unit) - 64);
	bit = UINT64_C(1) << where % 64;
	unit = (const struct tgs_unit *)tgc_word_at(where);
	taken = atomic_load_explicit(&unit->taken, memory_order_relaxed);
	if (TGS_UNLIKELY(!is_ordinary(taken, &unit->published, unit->remote, bit))) {
		free_special(object);
		return;
	}
	atomic_store_explicit(tgc_word_at(where), taken ^ bit, memory_order_relaxed);
	hint = bin->top;
	if (TGS_UNLIKELY(hint >= bin->limit)) {
		tgc_hints_full(cache, bin, object, (uint32_t)index);
		return;
	}
	hint[1].p = object;
	hint[1].where = where;
	bin->top = hint + 1;
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
