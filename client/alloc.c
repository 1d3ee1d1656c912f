/* alloc.c - the hot paths: malloc takes a slot, free puts one back.  No lock, no system call, no message.
 *
 * Small malloc: class by table, the slot freed last or the lowest bit of the class's word of free slots, one store into the
 * slot's taken byte.  Small free of an own object: the table of owned pages (client/own.h), slot index by reciprocal, the
 * checks that make a double free show, one store, a hint for the next malloc.  Tiny objects: the same with the 16 bits of
 * their block.  Everything else is in other files: tiny.c, large.c, foreign.c (objects of other threads and processes),
 * refill.c (no free slot at hand).
 */
#include "client/tg.h"

#include <errno.h>
#include <string.h>

#include "client/cache.h"

static TGS_COLD void *small_slow(unsigned class, bool *ret_zero);
static TGS_COLD void *tiny_slow(size_t size);

static inline void *small_alloc(unsigned class, bool *ret_zero)
{
	void *p = tgc_small_at_hand(class, ret_zero);

	return TGS_LIKELY(p != NULL) ? p : small_slow(class, ret_zero);
}

/* Two threads of the process freed an object at the same moment, each took it for live, and the other one has used the slot
 * again: what tgc_small_at_hand leaves is that hint. */
static void *hint_gone(struct tgc_bin *bin, unsigned class, bool *ret_zero)
{
	tgc_report(TGC_DOUBLE_FREE, (bin->top--)->p);
	return small_alloc(class, ret_zero);
}

static TGS_COLD void *small_slow(unsigned class, bool *ret_zero)
{
	struct tgc_bin *bin = &tgc_cache->bins[class];
	struct tgc_cache *cache;
	void *p = NULL;

	if (TGS_UNLIKELY(bin->top != bin->bottom))
		return hint_gone(bin, class, ret_zero);
	cache = tgc_cache_get();
	if (cache && tgc_demand_alone(cache, class))
		p = tgc_large_alloc(tgs_classes[class].size, 1, ret_zero);
	else if (cache && (class = tgc_refill_or_borrow(cache, class)) != 0)
		p = small_alloc(class, ret_zero);
	tgc_cache_return_late();
	return p;
}

/* A fresh block: the one that became free last, or the first of the bin's word.  Of it and the current block the roomier one
 * stays current.  NULL: there is none at hand. */
static inline void *tiny_block_at_hand(struct tgc_cache *cache, size_t size)
{
	struct tgc_bin *bin = &cache->bins[TGS_CLASS_TINY];
	const struct tgc_hint *hint = bin->top;
	tgc_tiny_bits *bits;
	uint8_t *block;

	if (TGS_LIKELY(hint != bin->bottom)) {
		block = hint->p;
		bits = hint->bits;
		bin->top--;
	} else if (TGS_LIKELY(bin->free != 0)) {
		unsigned index = (unsigned)__builtin_ctzll(bin->free);

		block = bin->address + (size_t)index * 16;
		bits = bin->bits + index;
		bin->free &= bin->free - 1;
	} else {
		return NULL;
	}
	if (16 - size > cache->tiny.left)
		tgc_tiny_make_current(cache, block, bits, 16 - size);
	/* It was free, so no other bit is set. */
	TGC_STORE(*bits, 1);
	if (block == NULL)
		__builtin_unreachable();
	return block;
}

static TGS_COLD void *tiny_slow(size_t size)
{
	struct tgc_cache *cache = tgc_cache_get();
	void *p = NULL;

	if (cache && tgc_refill(cache, TGS_CLASS_TINY))
		p = tiny_block_at_hand(cache, size);
	tgc_cache_return_late();
	return p;
}

static inline void *tiny_at_hand(size_t size)
{
	/* -(tgc_tiny_align_mask of each size + 1) */
	static const int8_t align[TGS_TINY_MAX + 1] = {-1, -1, -2, -2, -4, -4, -4, -4,
						       -8, -8, -8, -8, -8, -8, -8, -8};
	struct tgc_cache *cache = tgc_cache;
	struct tgc_tiny *tiny = &cache->tiny;
	/* From the end of the block, which is aligned to 16: what remains of its rest behind the gap. */
	uint64_t left = tiny->left & (uint64_t)(int64_t)align[size];

	if (TGS_UNLIKELY(size > left))
		return tiny_block_at_hand(cache, size);
	TGC_OR(*tiny->bits, (uint16_t)(0x10000u >> left));
	tiny->left = left - size;
	/* After the bit: whoever asks for the size of the object before us sees at least one of the two. */
	atomic_store_explicit(&cache->slot->tiny_left, left - size, memory_order_release);
	return tiny->end - left;
}

static inline void *tiny_alloc(size_t size)
{
	void *p = tiny_at_hand(size);

	return TGS_LIKELY(p != NULL) ? p : tiny_slow(size);
}

/* Returns at once: the compiler would have all cases jump to one return. */
#ifdef __x86_64__
#define RETURN(value)                                           \
	do {                                                    \
		register void *value_ __asm__("rax") = (value); \
		__asm__("" : "+r"(value_));                     \
		return value_;                                  \
	} while (0)
#else
#define RETURN(value) return (value)
#endif

TG_API __attribute__((aligned(64))) void *tg_malloc(size_t size)
{
	void *p;

	/* Each case by itself: the compiler knows the rest of the way then. */
	if (TGS_LIKELY(size - (TGS_TINY_MAX + 1) <= TGS_FINE_MAX - (TGS_TINY_MAX + 1))) {
		unsigned class = tgs_size_to_class(size);

		p = tgc_small_at_hand(class, NULL);
		if (TGS_LIKELY(p != NULL))
			RETURN(p);
		return small_slow(class, NULL);
	}
	if (TGS_LIKELY(size - 1 < TGS_TINY_MAX)) {
		p = tiny_at_hand(size);
		if (TGS_LIKELY(p != NULL))
			RETURN(p);
		return tiny_slow(size);
	}
	if (TGS_LIKELY(size - 1 < TGS_SMALL_MAX))
		return small_alloc(tgs_size_to_class(size), NULL);
	return size == 0 ? tiny_alloc(1) : tgc_large_malloc(size);
}

/* Frees an object of a span of ours, whatever there is to it.  `noted`: the place of the thread's buffer in which this
 * free stands, to be struck off once the slot is free and before anybody can reuse it; NULL: in none. */
static bool free_object(struct tgc_cache *cache, const struct tgs_object *object,
			struct tgs_pending *noted)
{
	unsigned class = object->span.class;
	uint64_t page = object->span.page, bit = object->bit;
	const struct tgs_class *info = &tgs_classes[class];
	tgs_taken *taken = tgs_taken_of(&tgc_heap, object);

	if (!tgs_taken_stays(atomic_load_explicit(taken, memory_order_relaxed)) ||
	    (tgs_remote_bits(&tgc_heap, info->kind, page, object->unit) & bit))
		return false;
	if (tgs_published_bits(&tgc_heap, info->kind, page, object->unit) & bit) {
		tgc_links_end(page,
			      tgs_page_address(&tgc_heap, page) +
				      (size_t)object->index * info->size,
			      info->size);
		atomic_fetch_and_explicit(
			tgs_published_word(&tgc_heap, info->kind, page, object->unit), ~bit,
			memory_order_relaxed);
	}
	atomic_store_explicit(taken, 0, memory_order_relaxed);
	if (noted)
		tgc_foreign_strike(noted, object->index);
	tgc_span_freed(cache, tgc_span_record(page), object->unit, 1);
	return true;
}

void tgc_free_noted(struct tgc_cache *cache, const struct tgs_object *object,
		    struct tgs_pending *pending)
{
	uint64_t page = object->span.page;
	unsigned class = object->span.class;

	if (class == TGS_CLASS_TINY)
		tgc_tiny_free(cache, tgs_page_address(&tgc_heap, page) + object->index, pending);
	else
		(void)free_object(cache, object, pending);
}

void tgc_free_own(struct tgc_cache *cache, const struct tgs_object *object, void *p)
{
	if (object->span.class == TGS_CLASS_TINY)
		tgc_tiny_free(cache, p, NULL);
	else if (!free_object(cache, object, NULL))
		tgc_report(TGC_DOUBLE_FREE, p);
}

static inline void free_by_entry(void *object)
{
	struct tgc_cache *cache = tgc_cache;
	uint64_t at = (uint64_t)((uint8_t *)object - tgc_heap.data), entry = 0;

	if (TGS_LIKELY(at < tgc_heap.data_bytes))
		entry = atomic_load_explicit(&tgc_heap.page_map[at >> TGS_PAGE_SHIFT],
					     memory_order_relaxed);
	if (TGS_UNLIKELY(entry == 0 || cache->slot_id == 0)) {
		if (object)
			tgc_foreign_free(object);
	} else if ((entry & TGC_LARGE_ENTRY_MASK) == cache->large.entry) {
		tgc_large_free_own(cache, object, at >> TGS_PAGE_SHIFT, entry);
	} else {
		tgc_foreign_free_small(cache, object, entry);
	}
}

/* In a program's malloc: it may be the C library's, or a forked child's copy. */
static __attribute__((noinline)) void free_unless_asked(void *object)
{
	if (!tgc_malloc_frees(object))
		free_by_entry(object);
}

/* What the table of owned pages and the bytes do not settle at once.  Every way on is a jump: nothing is kept for later. */
static __attribute__((noinline)) void free_special(void *object)
{
	if (tgc_malloc_frees)
		free_unless_asked(object);
	else
		free_by_entry(object);
}

/* There is no room for a hint. */
static inline void tiny_without_hint(struct tgc_cache *cache, const uint8_t *block)
{
	uintptr_t unit = (uintptr_t)block / (16 * 64);

	if (TGS_UNLIKELY(!tgc_spill(cache, TGS_CLASS_TINY * sizeof(struct tgc_bin), unit)))
		(void)tgc_spill_next(cache, TGS_CLASS_TINY, unit, block);
}

/* As tg_free, byte by byte: a tiny span is one page. */
static inline void tiny_free(struct tgc_cache *cache, const _Atomic uint64_t *entry,
			     tgc_tiny_bits *at, uint8_t *object)
{
	struct tgc_bin *bin = &cache->bins[TGS_CLASS_TINY];
	unsigned in_block = (unsigned)((uintptr_t)object % 16);
	uint8_t *block = object - in_block;
	unsigned bits = TGC_LOAD(*at);
	struct tgc_hint *hint;

	/* Most tiny spans have no published and remote words, and the page map says so. */
	if (TGS_UNLIKELY(!(bits >> in_block & 1) ||
			 (atomic_load_explicit(entry, memory_order_relaxed) & TGS_ENTRY_MORE))) {
		tgc_tiny_free(cache, object, NULL);
		return;
	}
	bits &= ~(1u << in_block);
	TGC_STORE(*at, (uint16_t)bits);
	if (bits != 0)
		return;
	/* The block has no object any more. */
	if (tgc_tiny_restart(cache, block))
		return;
	hint = bin->top;
	if (TGS_UNLIKELY(hint >= bin->limit)) {
		tiny_without_hint(cache, block);
		return;
	}
	hint[1].bits = at;
	hint[1].p = block;
	bin->top = hint + 1;
}

/* What names a unit: the address of its bytes, of which each has a line. */
static inline uintptr_t unit_name(const tgs_taken *taken)
{
	return (uintptr_t)taken & ~(uintptr_t)63;
}

static __attribute__((noinline)) void free_in_next_unit(struct tgc_cache *cache, uint32_t bin,
							void *object, tgs_taken *taken)
{
	if (tgc_spill_next(cache, bin / (uint32_t)sizeof(struct tgc_bin), unit_name(taken), object))
		atomic_store_explicit(taken, 0, memory_order_relaxed);
	else
		free_special(object);
}

/* There is no room for a hint. */
static inline void free_without_hint(struct tgc_cache *cache, uint32_t bin, void *object,
				     tgs_taken *taken)
{
	if (TGS_UNLIKELY(!tgc_spill(cache, bin, unit_name(taken)))) {
		free_in_next_unit(cache, bin, object, taken);
		return;
	}
	atomic_store_explicit(taken, 0, memory_order_relaxed);
}

TG_API __attribute__((aligned(64))) void tg_free(void *object)
{
	struct tgc_cache *cache = tgc_cache;
	const struct tgc_own *own = tgc_own_of(object);
	uint64_t offset = (uintptr_t)object - TGC_LOAD(own->start);
	uint64_t magic = TGC_LOAD(own->magic);
	uint64_t product;
	tgs_taken *taken;
	struct tgc_hint *hint;
	struct tgc_bin *bin;

	if (TGS_UNLIKELY(offset >= __atomic_load_n(&own->bytes, __ATOMIC_ACQUIRE))) {
		/* In no span of this process, or in a tiny one, if it is of the heap at all. */
		if (TGS_LIKELY(magic == TGC_OWN_TINY && TGC_LOAD(own->slot) == cache->slot_id &&
			       (uint64_t)((uint8_t *)object - tgc_heap.data) < tgc_heap.data_bytes))
			tiny_free(cache, TGC_LOAD(own->entry),
				  (tgc_tiny_bits *)(uintptr_t)(offset / 16 * 2), object);
		else
			free_special(object);
		return;
	}
	product = offset * magic;
	/* The start of a slot: the fraction of offset / size is less than that of one byte. */
	if (TGS_UNLIKELY((uint32_t)product >= magic)) {
		free_special(object);
		return;
	}
	taken = TGC_LOAD(own->taken) + (product >> 32);
	/* Live, not published, not freed by others. */
	if (TGS_UNLIKELY(atomic_load_explicit(taken, memory_order_relaxed) != TGS_TAKEN)) {
		free_special(object);
		return;
	}
	bin = (struct tgc_bin *)((uint8_t *)cache + TGC_LOAD(own->bin));
	hint = bin->top;
	if (TGS_UNLIKELY(hint >= bin->limit)) {
		free_without_hint(cache, TGC_LOAD(own->bin), object, taken);
		return;
	}
	atomic_store_explicit(taken, TGS_HELD, memory_order_relaxed);
	hint[1].taken = taken;
	hint[1].p = object;
	bin->top = hint + 1;
	/* Whoever gets it next writes it, and by then its line has come: nothing waits for it here. */
	__builtin_prefetch(object, 1);
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
		p = tiny_alloc(bytes + (bytes == 0));
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

/* A slot of the class itself, of which none was at hand. */
static TGS_COLD void *small_own(unsigned class)
{
	struct tgc_cache *cache = tgc_cache_get();
	void *p = NULL;

	if (cache && tgc_refill(cache, class))
		p = small_alloc(class, NULL);
	tgc_cache_return_late();
	return p;
}

TG_API void *tg_aligned_alloc(size_t align, size_t size)
{
	unsigned class;
	void *p;

	if (!tgs_is_power_of_two(align)) {
		errno = EINVAL;
		return NULL;
	}
	/* The tiny rule already gives these. */
	if (size <= TGS_TINY_MAX && align <= tgc_tiny_align_mask(size) + 1)
		return tiny_alloc(size + (size == 0));
	class = aligned_class(align, size);
	if (class == 0)
		return tgc_large_alloc(size, align, NULL);
	p = small_alloc(class, NULL);
	if (TGS_LIKELY(((uintptr_t)p & (align - 1)) == 0))
		return p;
	/* Borrowed of a larger class. */
	tg_free(p);
	return small_own(class);
}
