/* cache.h - what one thread keeps for itself: a slot, the spans that it owns, and for each class the free slots of one
 * unit of one of them, as a word of bits.
 *
 * malloc takes the slot freed last (a hint) or the lowest bit of that word; free makes a hint, or notes that the span has room.
 * What is free is known from `taken` in shared memory alone; everything here could be rebuilt from it.
 *
 * A span is in one of these places: current of its class (bin->span), in the list of its class (it has room; partly used
 * ones at the head, empty ones at the tail), or in none (full).  All spans of a cache are also in `bucket`, by page
 * number, where the hints of foreign frees (dirty bits) lead.
 *
 * `used` counts slots (tiny: blocks) that are not free for this thread: those taken, those in the bin's word, hints,
 * and those spilled and not settled yet.
 */
#pragma once

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "client/bin.h"
#include "client/own.h"
#include "client/process.h"
#include "client/rpc.h"
#include "shm/base.h"
#include "shm/layout.h"
#include "shm/sizeclass.h"
#include "shm/span.h"

enum tgc_span_place {
	TGC_SPAN_NONE, /* not held */
	TGC_SPAN_FULL,
	TGC_SPAN_LISTED,
	TGC_SPAN_CURRENT,
	TGC_SPAN_LARGE,      /* holds a large object, or is in some thread's large hints */
	TGC_SPAN_LARGE_IDLE, /* a large span that the process keeps for the next object */
	TGC_SPAN_UNUSABLE,   /* held, and left alone (tgc_pages_usable) */
};

/* The private record of a span that this process holds; found by its first page. */
struct tgc_span {
	struct tgc_span *next, *prev; /* list of its class */
	struct tgc_span *bucket_next, *bucket_prev;
	uint64_t room; /* units (tiny: groups of 64 blocks) that have a free slot */
	uint64_t zero; /* units (large: bit 0) whose memory nobody has used since it was zero */
	uint32_t used;
	uint32_t n_pages; /* large spans */
	uint8_t class;
	uint8_t place; /* enum tgc_span_place */
	bool fresh; /* its memory has most likely never been touched in this process: see client/populate.c */
	bool begun; /* a unit of it has been current since it came */
	uint8_t reserved[4];
};

#define TGC_LARGE_HINTS_MAX 128u

/* A large span that was freed a moment ago. */
struct tgc_large_hint {
	uint8_t *p;
	struct tgs_record *record;
	uint64_t n_pages;
	_Atomic uint64_t sum; /* of its pages and those of all hints before it */
};

/* Those that this thread freed, the last one at the end: it alone takes them again, without a lock.  Their taken bytes are
 * clear, and that is all that anybody else need know.  hint[0] is none. */
struct tgc_large_hints {
	uint64_t entry; /* of the process's large spans in the page map, but for their length */
	uint64_t n_pages_max;
	_Atomic uint32_t n;
	uint32_t n_max; /* 0: the thread has had nothing to do with large objects */
	uint32_t still; /* looks in a row that found as much idle as the one before: ... */
	uint64_t seen;  /* ... so many pages */
	struct tgc_large_hint hint[1 + TGC_LARGE_HINTS_MAX];
};

#define TGC_LARGE_ENTRY_MASK (TGS_ENTRY_OWNER_MASK | TGS_ENTRY_SPAN | TGS_ENTRY_CLASS_MASK)

#define TGC_PREFETCH_MAX 256u
#define TGC_PREFETCHES   8u

/* Spans of a class asked for ahead of need; client/prefetch.c. */
struct tgc_prefetch {
	struct tgc_post post;
	uint32_t n; /* what came; under the connection's lock until collected */
	uint32_t grants
		[TGC_PREFETCH_MAX]; /* twice the first page, and 1 if it is known to be zero */
};
_Static_assert(TGS_RESERVE_MAX / TGS_PAGE_SIZE <= UINT64_C(1) << 31, "twice a page number fits");

/* The block that tiny objects go into at the moment. */
struct tgc_tiny {
	uint8_t *end; /* of the block; NULL: none */
	tgc_tiny_bits *bits;
	uint64_t left; /* bytes not handed out, the last ones; 0 without a block */
};

struct tgc_cache {
	union {
		/* What else malloc needs.  There is no bin of class 0, so it has that place, and a class is all that leads
		 * from the cache to the bin. */
		struct {
			uint64_t owner_bits; /* of our spans in page map entries; 0 matches none */
			_Atomic uint32_t slot_id; /* set last; 0: no slot: wiped, or never opened */
			bool in_all;              /* in the process's list of caches */
			/* Spans that become empty are not given back before the end of the drain. */
			bool draining;
			struct tgs_slot *slot;
			struct tgc_tiny tiny;
		};
		_Alignas(64) struct tgc_bin bins[TGS_CLASSES_ALL];
	};
	struct tgc_supply supply[TGS_CLASSES_ALL];
	_Atomic uint64_t empty_pages; /* in the lists' empty spans */
	uint64_t
		grown_pages; /* asked for since client/refill.c last looked which classes are out of use */
	uint32_t n_prefetches;              /* asked for so far */
	uint8_t prefetched[TGC_PREFETCHES]; /* of which class each is; 0: none asked for */
	uint32_t n_long_stacks;             /* classes whose hints are in `hints` */
	uint16_t n_asks; /* how often spans of any class were needed from the daemon */
	uint32_t
		first_left; /* so many first spans of classes may be asked for one by one; client/first.c */
	struct tgc_cache *next_idle;
	uint64_t idle_round; /* of tgc_process->idle_rounds: the last one that gave back for it */
	struct tgc_cache *next_all;
	uint64_t trim_seen;     /* tgc_process->trim_request when we last gave back */
	uint64_t pressure_seen; /* the map's trim_epoch, likewise */
	struct tgc_owed *owed;  /* frees that could not be noted yet; client/state.c */
	uint32_t owed_tried_ms; /* coarse milliseconds: when that was last seen */
	uint32_t held_bytes;    /* freed into the buffer since it was emptied; client/foreign.c */
	uint64_t link_page;     /* first page of the large object in which we last swung a link */
	uint64_t
		agreed; /* reconnections when the daemon and we last agreed on what this slot holds */
	_Atomic uint64_t n_spans;
	_Atomic uint64_t n_pages;
	_Atomic uint64_t foreign_frees;
	_Atomic uint64_t n_owed;
	/* A small heap touches the beginning of this, and nothing of the next two. */
	struct tgc_span *bucket[TGS_DIRTY_BITS];
	struct tgc_prefetch prefetch[TGC_PREFETCHES];
	struct tgc_large_hints large;
	_Alignas(64) struct tgc_target targets[TGS_CLASSES_ALL];
	_Alignas(64) struct tgc_few_hints few_hints[TGS_CLASSES_ALL];
	struct tgc_hints hints[TGS_CLASSES_ALL];
};

/* Has this cache taken in the span in which p, an address of the heap, lies?  One that the map says is the slot's may still
 * be on the way to it. */
static inline bool tgc_owns_it(const struct tgc_cache *cache, const void *p)
{
	return TGC_LOAD(tgc_own_of(p)->slot) == cache->slot_id;
}

/* Milliseconds on a clock that costs next to nothing and is some milliseconds late; for differences. */
static inline uint32_t tgc_coarse_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint32_t)((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

/* The compiler takes apart how an address was computed and computes it anew for each field; not behind this. */
#define TGC_HIDE(p) __asm__("" : "+r"(p))

/* A count that its own thread changes and others read. */
static inline void tgc_count(_Atomic uint64_t *count, uint64_t by)
{
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + by,
			      memory_order_relaxed);
}

/* The calling thread's cache; an empty one that owns nothing before its first call. */
extern TGS_HIDDEN __thread struct tgc_cache *tgc_cache;

/* That empty one; every thread's to begin with, never written. */
struct tgc_cache *tgc_no_cache(void);

/* The cache of the calling thread, with a slot.  NULL with errno.  thread.c */
struct tgc_cache *tgc_cache_get(void);

/* cache.c: lists and units */

static inline struct tgc_span *tgc_span_record(uint64_t page)
{
	return &tgc_process->spans[page];
}

/* Takes in a span that the daemon says it has granted, of small objects or a large one.  0; -EPROTO: no span can be like that,
 * and nothing was done; -EADDRINUSE: its pages may not be used (tgc_pages_usable): it stays ours, and idle. */
int tgc_span_add(struct tgc_cache *cache, uint64_t page, unsigned class, bool zero);
int tgc_span_add_large(struct tgc_cache *cache, uint64_t page, uint64_t n_pages, bool zero);
void tgc_span_remove(struct tgc_cache *cache, struct tgc_span *span);
uint64_t tgc_span_page(const struct tgc_span *span);

/* What the bins hold for good, once there is a slot. */
void tgc_bins_init(struct tgc_cache *cache);

/* A slot (tiny: a block) that is free, or about to be, and for whose hint there is no room.  Such slots gather as long as they
 * are of one unit; `unit` is a number that is that unit's alone, and not 0.  `bin` is where in a cache the bin of the class is.
 * False: it is of another unit than the last. */
static inline bool tgc_spill(struct tgc_cache *cache, uint64_t bin, uintptr_t unit)
{
	struct tgc_supply *supply =
		(struct tgc_supply *)((uint8_t *)cache + offsetof(struct tgc_cache, supply) +
				      bin * (sizeof(*supply) / sizeof(struct tgc_bin)));

	if (TGS_UNLIKELY(supply->spilled_unit != unit))
		return false;
	supply->spilled++;
	return true;
}
/* Then: the first of the next unit.  There is more room for hints the next time, if some have been missed since the last.
 * False: it is of another thread's span, and nothing was done. */
bool tgc_spill_next(struct tgc_cache *cache, unsigned class, uintptr_t unit, const void *p);
/* The hints that a class may have are few again.  It has none. */
void tgc_hints_reset(struct tgc_cache *cache, unsigned class);

/* A list of spans: of one class, or of idle large ones (client/idle.c). */
static inline void tgc_list_add_head(struct tgc_supply *supply, struct tgc_span *span)
{
	span->prev = NULL;
	span->next = supply->head;
	if (supply->head)
		supply->head->prev = span;
	else
		supply->tail = span;
	supply->head = span;
}

static inline void tgc_list_remove(struct tgc_supply *supply, struct tgc_span *span)
{
	if (span->prev)
		span->prev->next = span->next;
	else
		supply->head = span->next;
	if (span->next)
		span->next->prev = span->prev;
	else
		supply->tail = span->prev;
	span->next = span->prev = NULL;
}

/* Finds out from what is taken which units of a span have room, after harvesting it. */
void tgc_span_survey(struct tgc_cache *cache, struct tgc_span *span);

/* So many slots of a unit (tiny: blocks of a group) are free now. */
void tgc_span_freed(struct tgc_cache *cache, struct tgc_span *span, unsigned unit, uint32_t n);

/* Makes the next unit with room the current one of its class; false if no span that we hold has room. */
bool tgc_bin_next(struct tgc_cache *cache, unsigned class);

/* The hints and the bin's word go back to their spans, and the current span to where it belongs. */
void tgc_bin_unload(struct tgc_cache *cache, unsigned class);

/* Harvests the spans that others have freed objects of.  False: there are none. */
bool tgc_cache_drain(struct tgc_cache *cache);

/* Takes a slot of the bin's word, which has one.  `ret_zero`: is its memory known to be zero? */
static inline void *tgc_bin_take(struct tgc_bin *bin, const struct tgc_supply *supply,
				 bool *ret_zero)
{
	uint64_t slots = bin->free;
	unsigned index = (unsigned)__builtin_ctzll(slots);

	if (ret_zero)
		*ret_zero = supply->zero >> index & 1;
	bin->free = slots & (slots - 1);
	atomic_store_explicit(&bin->taken[index], TGS_TAKEN, memory_order_relaxed);
	return bin->address + (size_t)index * bin->size;
}

/* What malloc has to do for a small object in the common case: the slot freed last, else one of the bin's word.  NULL: there is
 * none, or the last hint is not good any more. */
static inline void *tgc_small_at_hand(unsigned class, bool *ret_zero)
{
	struct tgc_cache *cache = tgc_cache;
	struct tgc_bin *bin = &cache->bins[class];
	struct tgc_hint *hint;

	TGC_HIDE(bin);
	hint = bin->top;
	if (TGS_LIKELY(hint != bin->bottom)) {
		/* The slot that was freed last, of which the hint says all, but for one thing. */
		tgs_taken *taken = hint->taken;
		uint8_t *p = hint->p;

		/* The compiler would take p from memory last, and the caller waits for it. */
		TGC_HIDE(p);
		if (TGS_UNLIKELY(atomic_load_explicit(taken, memory_order_relaxed) != TGS_HELD))
			return NULL;
		bin->top = hint - 1;
		atomic_store_explicit(taken, TGS_TAKEN, memory_order_relaxed);
		if (p == NULL)
			__builtin_unreachable();
		return p;
	}
	return TGS_LIKELY(bin->free != 0) ? tgc_bin_take(bin, &cache->supply[class], ret_zero)
					  : NULL;
}

/* refill.c: the way to the daemon */

/* Gives the class free slots, in the bin's word.  False with errno. */
bool tgc_refill(struct tgc_cache *cache, unsigned class);

/* The same, or finds a larger class that has some to spare: returns whose hints or word have one.  0 with errno. */
unsigned tgc_refill_or_borrow(struct tgc_cache *cache, unsigned class);

/* Gives back empty spans: those of one class beyond what it may keep, or all of all classes. */
void tgc_return_some(struct tgc_cache *cache, unsigned class);
void tgc_return_all(struct tgc_cache *cache);
/* Before the heap grows, of small objects or for a large one: what classes keep empty for a next rise goes back if it is much. */
void tgc_yield_empty(struct tgc_cache *cache);

/* demand.c */

struct tgc_get_spans;

/* Spans of the class are needed from the daemon. */
void tgc_demand_note(struct tgc_cache *cache, unsigned class);
/* Is it in a burst, and has just been asked for? */
bool tgc_demand_lasts(const struct tgc_cache *cache, unsigned class);
/* So many may be asked for, as it is needed again and again. */
uint64_t tgc_demand_burst(const struct tgc_cache *cache, unsigned class);
/* The thread will wait for spans of this class: a span of each other one that would soon make it wait again. */
void tgc_demand_others(struct tgc_cache *cache, unsigned class, struct tgc_get_spans *get);
/* Shall an object of the class have a large span of its own?  A span of up to 80 KiB for what may be one object is much.  Only
 * where nobody asked for a class: what tg_malloc gives is of one. */
bool tgc_demand_alone(struct tgc_cache *cache, unsigned class);

/* borrow.c */

/* A larger class that has a slot, a hint or in the bin's word, to spare for this one; 0: none. */
unsigned tgc_borrow(struct tgc_cache *cache, unsigned class);
/* Spans are about to be asked for. */
void tgc_borrow_reset(struct tgc_cache *cache, unsigned class);

/* populate.c */
/* Fresh memory is about to be touched: maps it. */
void tgc_populate(uint64_t page, uint64_t n_pages);

/* agree.c */

/* If a connection was lost since the last time: takes in what the daemon says that the slot holds and we do not know of. */
void tgc_agree(struct tgc_cache *cache);
/* Gives back slots of which we know nothing.  Between tgc_rpc_begin and tgc_rpc_end. */
void tgc_agree_slots(void);

/* tiny.c */

static inline tgc_tiny_bits *tgc_tiny_bits_of(const void *p)
{
	return (tgc_tiny_bits *)tgc_heap.tiny_taken +
	       (uint64_t)((const uint8_t *)p - tgc_heap.data) / 16;
}

/* The seed's rule: 8 bytes and more are aligned to 8, 4..7 to 4, 2..3 to 2, 1 not at all. */
static inline unsigned tgc_tiny_align_mask(size_t size)
{
	return size >= 8 ? 7 : size >= 4 ? 3 : size >= 2 ? 1 : 0;
}

/* Makes a block the current one. */
static inline void tgc_tiny_make_current(struct tgc_cache *cache, uint8_t *block,
					 tgc_tiny_bits *bits, uint64_t left)
{
	struct tgs_slot *slot = cache->slot;

	/* What is left is never said of the wrong block; and the new one is pinned before an object lies in it. */
	atomic_store_explicit(&slot->tiny_block, 0, memory_order_relaxed);
	atomic_store_explicit(&slot->tiny_left, left, memory_order_release);
	atomic_store_explicit(&slot->tiny_block, tgs_ref_of(&tgc_heap, block),
			      memory_order_release);
	cache->tiny = (struct tgc_tiny){block + 16, bits, left};
}

/* `noted`: as for small objects, see alloc.c; or NULL. */
void tgc_tiny_free(struct tgc_cache *cache, void *p, struct tgs_pending *noted);
void tgc_tiny_unload(struct tgc_cache *cache);
/* A block has no object any more.  True: it is the current one, and as if freed and taken again.  (The slot need not say so:
 * nobody asks for the size of an object in it before the next one lies there.) */
static inline bool tgc_tiny_restart(struct tgc_cache *cache, const uint8_t *block)
{
	if (cache->tiny.end != block + 16)
		return false;
	cache->tiny.left = 16;
	return true;
}
/* Others freed these bytes of a unit. */
void tgc_tiny_harvested(struct tgc_cache *cache, uint64_t page, unsigned unit, uint64_t freed);
/* Which blocks of a group are free: none of their bytes starts an object. */
uint64_t tgc_tiny_free_blocks(const struct tgc_cache *cache, uint64_t page, unsigned group);

/* large.c */
void *tgc_large_malloc(size_t size); /* more than TGS_SMALL_MAX */
void *tgc_large_alloc(size_t size, size_t align, bool *ret_zero);
/* Frees an object whose page map entry is cache->large.entry; or reports. */
void tgc_large_free_own(struct tgc_cache *cache, void *p, uint64_t page, uint64_t entry);
bool tgc_large_free(void *p, uint64_t page); /* false: not a live object */
/* Of what was idle and remained so for so many looks most goes back: the process grows for others. */
void tgc_large_look(struct tgc_cache *cache, uint32_t n_looks);
/* Has the thread an idle span for so many bytes? */
bool tgc_large_at_hand(const struct tgc_cache *cache, size_t size);
uint64_t tgc_large_hinted_pages(const struct tgc_cache *cache);
/* The cache's hints become the process's idle spans. */
void tgc_large_unload(struct tgc_cache *cache);
void tgc_large_harvested(struct tgc_span *span); /* others freed it */
/* A span that nobody knew of is an idle one.  Under the large lock. */
void tgc_large_found(struct tgc_cache *cache, struct tgc_span *span);
void tgc_large_trim(void);
/* resize.c */
void *tgc_large_realloc(void *p, uint64_t page, size_t size);
/* For an object that grows to `size`: with room to grow on. */
size_t tgc_large_grown(size_t size);

/* foreign.c */
/* As tgc_foreign_free, and quick for a small object of another thread's.  `entry`: of its page, not 0. */
void tgc_foreign_free_small(struct tgc_cache *cache, void *p, uint64_t entry);
void tgc_foreign_free(void *p);
/* The place of the buffer for a free of this object, with nothing else in it. */
struct tgs_pending *tgc_foreign_reserve(struct tgc_cache *cache, const struct tgs_object *object);
/* Puts the free there: done, as far as a recoverer is concerned. */
void tgc_foreign_note(struct tgs_pending *pending, const struct tgs_object *object);
/* Strikes the free of slot `index` off again: the slot is free, and nobody can have reused it yet. */
static inline void tgc_foreign_strike(struct tgs_pending *pending, uint32_t index)
{
	uint32_t mask = atomic_load_explicit(&pending->mask, memory_order_relaxed);

	atomic_store_explicit(&pending->mask, mask & ~(UINT32_C(1) << index % 32),
			      memory_order_release);
}
/* The object's free stands in the buffer; what follows. */
void tgc_foreign_noted(struct tgc_cache *cache, struct tgs_pending *pending,
		       const struct tgs_object *object);
void tgc_foreign_flush(struct tgc_cache *cache);
/* Frees for its owner a slot that was held as a hint. */
void tgc_foreign_unhold(struct tgc_cache *cache, void *p, tgs_taken *taken);
/* Frees an object that was owed. */
void tgc_foreign_pay(struct tgc_cache *cache, void *p);
uint64_t tgc_foreign_pending(const struct tgc_cache *cache);

/* state.c */

/* Asks the daemon for memory for the published and remote words of a dense or tiny span.  0, -ENOMEM, -ENOTCONN, -EFAULT (the span has
 * ended). */
TGS_COLD int tgc_state_ask(uint64_t page);
/* Before anything is written there: has this live object's span that memory?  As above. */
static inline int tgc_state_back(const struct tgs_object *object)
{
	if (TGS_LIKELY(tgs_has_more(&tgc_heap, tgs_classes[object->span.class].kind,
				    object->span.page)))
		return 0;
	return tgc_state_ask(object->span.page);
}
/* The same for a free, which cannot fail: true, or the free is owed, and tried again. */
TGS_COLD bool tgc_state_or_owe(struct tgc_cache *cache, const struct tgs_object *object, void *p);
/* Tries all that are owed again; lets them be. */
TGS_COLD void tgc_owed_pay(struct tgc_cache *cache);
void tgc_owed_forget(struct tgc_cache *cache);
/* A thread without a slot owes this free to the process; one that has a slot owes what such threads do. */
TGS_COLD void tgc_owed_leave(void *p);
TGS_COLD void tgc_owed_take_over(struct tgc_cache *cache);

/* swap.c */
/* Before the free of an object in the span at `page`: if links may lie in it, those who swing them are told.  A thread that
 * frees an object of its own need not call it if the object is not published: nobody else swings there. */
TGS_COLD void tgc_links_end(uint64_t page, const void *p, size_t bytes);

/* alloc.c */
/* Frees an object of the cache's own spans (no large one), whatever there is to it, or reports that it is free. */
TGS_COLD void tgc_free_own(struct tgc_cache *cache, const struct tgs_object *object, void *p);
/* The same for one whose free stands in the thread's buffer, and strikes it off there. */
void tgc_free_noted(struct tgc_cache *cache, const struct tgs_object *object,
		    struct tgs_pending *pending);

/* thread.c */
/* A cache with a slot of its own.  NULL with errno.  `reuse`: an empty one to be used.  `of_thread`: the slot may be the one
 * that came with attaching, with spans of small classes (client/first.c). */
struct tgc_cache *tgc_cache_open(struct tgc_cache *reuse, bool of_thread);
/* After a free in a thread whose cache had been put away: puts it away again.  The C library frees what it has kept for a
 * thread when no destructor runs any more. */
void tgc_cache_return_late(void);
/* All that a cache only caches: frees to come, free slots at hand, empty spans. */
void tgc_cache_give_back(struct tgc_cache *cache);
/* The same for the caches of threads that have ended.  stats.c */
void tgc_idle_give_back(void);

/* The errno of a malloc-like call for what a request returned: ENOMEM, EDQUOT or ENOTCONN. */
static inline int tgc_alloc_errno(int r)
{
	return r == -EDQUOT || r == -ENOTCONN ? -r : ENOMEM;
}

/* error.c */
enum tgc_error { TGC_DOUBLE_FREE, TGC_INVALID_FREE, TGC_NOT_ATTACHED };
TGS_COLD void tgc_report(enum tgc_error error, const void *p);
/* Double frees of these objects of a unit. */
TGS_COLD void tgc_report_twice(uint64_t page, unsigned class, unsigned unit, uint64_t slots);
