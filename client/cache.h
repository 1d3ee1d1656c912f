/* cache.h - what one thread keeps for itself: a slot, the spans that it owns, and for each class the free slots of one
 * unit of one of them, as a word of bits.
 *
 * malloc takes the lowest bit of that word; free puts a bit back into it, or notes that its span has room.  What is free
 * is known from the `taken` bits in shared memory alone; everything here could be rebuilt from them.
 *
 * A span is in one of these places: current of its class (bin->span), in the list of its class (it has room; partly used
 * ones at the head, empty ones at the tail), or in none (full).  All spans of a cache are also in `bucket`, by page
 * number, where the hints of foreign frees (dirty bits) lead.
 *
 * `used` counts slots (tiny: blocks) that are not free for this thread: those taken, and those in the bin's word.
 */
#pragma once

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

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
	uint8_t reserved[5];
};

/* A slot (tiny: a block) that was freed a moment ago and is still warm.  Its taken bit is clear, and for its span it counts as used, as
 * if it were in the bin's word. */
struct tgc_hint {
	uint8_t *p;
	uint64_t where; /* of its taken bit, counted in bits from address 0; tiny: not used */
};

#define TGC_HINTS_MAX 60u

/* One class, as malloc and free see it: a cache line, and the hints.
 *
 * The word of the current unit is all that malloc reads: what is taken there is the rest of the unit's slots.  Hints are of
 * other units, the last freed first out, and malloc takes them before anything else.  So there are none when a unit is
 * loaded, and no slot is in two places.  What harvests and buffered frees bring never becomes a hint: they run while a unit
 * is sought. */
struct tgc_bin {
	uint64_t free;           /* free slots of the current unit */
	uint64_t mask;           /* its slots */
	_Atomic uint64_t *taken; /* its taken word; tiny: the first of its 16 */
	uint8_t *address;        /* of the unit's slot 0 */
	uint64_t zero;           /* of `free`: slots whose memory is known to be zero */
	uint32_t size;           /* bytes of a slot; tiny: of a block */
	uint16_t n_hints;
	uint16_t max_hints;
	/* What free must know of the class, from opening the slot on. */
	uint32_t magic;  /* tgs_classes' */
	uint32_t stride; /* bytes from the units of one page to those of the next */
	uint8_t *units;  /* those of page 0 */
	struct tgc_hint hints[TGC_HINTS_MAX];
};

/* One class, as refilling sees it: the spans with room, and how they come and go. */
struct tgc_supply {
	struct tgc_span *current;     /* the bin's unit is of it; NULL: none */
	uint32_t unit;                /* which one (tiny: which group) */
	struct tgc_span *head, *tail; /* partly used ones first, empty ones last */
	uint32_t n_empty;             /* spans in the list that hold nothing */
	uint32_t low;                 /* fewest of them since `since`: so many nobody has needed */
	uint32_t since;               /* coarse milliseconds */
	uint32_t batch;               /* log2 of how many spans to ask for next */
	uint32_t n_spans;             /* of the class, held */
};

#define TGC_LARGE_HINTS_MAX 128u

/* A large span that was freed a moment ago. */
struct tgc_large_hint {
	uint8_t *p;
	struct tgs_record *record;
	uint64_t n_pages;
	_Atomic uint64_t sum; /* of its pages and those of all hints before it */
};

/* Those that this thread freed, the last one at the end: it alone takes them again, without a lock.  Their taken words are
 * clear, and that is all that anybody else need know.  hint[0] is none. */
struct tgc_large_hints {
	uint64_t entry; /* of the process's large spans in the page map, but for their length */
	uint64_t n_pages_max;
	_Atomic uint32_t n;
	uint32_t n_max; /* 0: the thread has had nothing to do with large objects */
	struct tgc_large_hint hint[1 + TGC_LARGE_HINTS_MAX];
};

#define TGC_LARGE_ENTRY_MASK (TGS_ENTRY_OWNER_MASK | TGS_ENTRY_SPAN | TGS_ENTRY_CLASS_MASK)

#define TGC_PREFETCH_MAX 256u

/* Spans asked for ahead of need; client/prefetch.c. */
struct tgc_prefetch {
	struct tgc_post post;
	uint32_t class; /* 0: none asked for */
	uint32_t n;     /* what came; under the connection's lock until collected */
	struct {
		uint64_t page;
		bool zero;
	} grants[TGC_PREFETCH_MAX];
};

/* The block that tiny objects go into at the moment. */
struct tgc_tiny {
	uint8_t *block;          /* NULL: none */
	_Atomic uint64_t *taken; /* word that has its 16 bits */
	uint32_t shift;          /* where in it */
	uint32_t offset;         /* bytes handed out; 16 when there is no block */
};

struct tgc_cache {
	uint64_t owner_bits;      /* of our spans in page map entries; 0 matches none */
	_Atomic uint32_t slot_id; /* set last; 0: no slot: wiped, or never opened */
	bool in_all;              /* in the process's list of caches */
	bool draining; /* spans that become empty are not given back before the end of the drain */
	struct tgs_slot *slot;
	struct tgc_tiny tiny;
	struct tgc_large_hints large;
	struct tgc_bin bins[TGS_CLASSES_ALL];
	struct tgc_supply supply[TGS_CLASSES_ALL];
	_Atomic uint64_t empty_pages; /* in the lists' empty spans */
	struct tgc_span *bucket[TGS_DIRTY_BITS];
	struct tgc_prefetch prefetch;
	struct tgc_cache *next_idle;
	uint64_t idle_round; /* of tgc_process->idle_rounds: the last one that gave back for it */
	struct tgc_cache *next_all;
	uint64_t trim_seen;     /* tgc_process->trim_request when we last gave back */
	uint64_t pressure_seen; /* the map's trim_epoch, likewise */
	uint64_t link_page;     /* first page of the large object in which we last swung a link */
	uint64_t
		agreed; /* reconnections when the daemon and we last agreed on what this slot holds */
	_Atomic uint64_t n_spans;
	_Atomic uint64_t n_pages;
	_Atomic uint64_t foreign_frees;
};

/* A count that its own thread changes and others read. */
static inline void tgc_count(_Atomic uint64_t *count, uint64_t by)
{
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + by,
			      memory_order_relaxed);
}

/* The calling thread's cache; an empty one that owns nothing before its first call. */
extern __thread struct tgc_cache *tgc_cache;

/* That empty one; every thread's to begin with, never written. */
struct tgc_cache *tgc_no_cache(void);

/* The cache of the calling thread, with a slot.  NULL with errno.  thread.c */
struct tgc_cache *tgc_cache_get(void);

/* cache.c: lists and units */

static inline struct tgc_span *tgc_span_record(uint64_t page)
{
	return &tgc_process->spans[page];
}

/* Takes a granted span in.  False: its pages may not be used (tgc_pages_usable); it stays ours, and idle. */
bool tgc_span_add(struct tgc_cache *cache, uint64_t page, unsigned class, uint64_t n_pages,
		  bool zero);
void tgc_span_remove(struct tgc_cache *cache, struct tgc_span *span);
uint64_t tgc_span_page(const struct tgc_span *span);

/* What the bins hold for good, once there is a slot. */
void tgc_bins_init(struct tgc_cache *cache);

/* Finds out from the taken bits which units of a span have room, after harvesting it. */
void tgc_span_survey(struct tgc_cache *cache, struct tgc_span *span);

/* Slots `freed` of a unit (tiny: blocks of a group) are free now. */
void tgc_span_freed(struct tgc_cache *cache, struct tgc_span *span, unsigned unit, uint64_t freed);

/* The same of one slot (tiny: of one block). */
void tgc_slot_freed(struct tgc_cache *cache, uint64_t page, uint32_t index);

/* Makes the next unit with room the current one of its class; false if no span that we hold has room. */
bool tgc_bin_next(struct tgc_cache *cache, unsigned class);

/* The hints and the bin's word go back to their spans, and the current span to where it belongs. */
void tgc_bin_unload(struct tgc_cache *cache, unsigned class);

/* Harvests the spans that others have freed objects of. */
void tgc_cache_drain(struct tgc_cache *cache);

/* refill.c: the way to the daemon */

/* Gives the class free slots.  False with errno. */
bool tgc_refill(struct tgc_cache *cache, unsigned class);

/* Gives back empty spans: those of one class beyond what it may keep, or all of all classes. */
void tgc_return_some(struct tgc_cache *cache, unsigned class);
void tgc_return_all(struct tgc_cache *cache);

/* populate.c */
/* Fresh memory of a span, and of fresh neighbours of its class, is about to be touched: faults it in. */
void tgc_populate_spans(struct tgc_span *span);
void tgc_populate(uint64_t page, uint64_t n_pages);

/* agree.c */

/* If a connection was lost since the last time: takes in what the daemon says that the slot holds and we do not know of. */
void tgc_agree(struct tgc_cache *cache);
/* Gives back slots of which we know nothing.  Between tgc_rpc_begin and tgc_rpc_end. */
void tgc_agree_slots(void);

/* tiny.c */

/* The seed's rule: 8 bytes and more are aligned to 8, 4..7 to 4, 2..3 to 2, 1 not at all. */
static inline unsigned tgc_tiny_align_mask(size_t size)
{
	return size >= 8 ? 7 : size >= 4 ? 3 : size >= 2 ? 1 : 0;
}

void *tgc_tiny_alloc_slow(struct tgc_cache *cache, size_t size);
/* `noted`: as for small objects, see alloc.c; or NULL. */
void tgc_tiny_free(struct tgc_cache *cache, void *p, uint64_t page, struct tgs_pending *noted);
void tgc_tiny_unload(struct tgc_cache *cache);
/* A block of ours has no object any more, by the last call of tg_free. */
void tgc_tiny_block_warm(struct tgc_cache *cache, uint8_t *block);
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
uint64_t tgc_large_hinted_pages(const struct tgc_cache *cache);
/* The cache's hints become the process's idle spans. */
void tgc_large_unload(struct tgc_cache *cache);
void tgc_large_harvested(struct tgc_span *span); /* others freed it */
/* A span that nobody knew of is an idle one.  Under the large lock. */
void tgc_large_found(struct tgc_cache *cache, struct tgc_span *span);
void *tgc_large_realloc(void *p, uint64_t page, size_t size);
void tgc_large_trim(void);

/* foreign.c */
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
uint64_t tgc_foreign_pending(const struct tgc_cache *cache);

/* swap.c */
/* Before the free of an object in the span at `page`: if links may lie in it, those who swing them are told.  A thread that
 * frees an object of its own need not call it if the object is not published: nobody else swings there. */
TGS_COLD void tgc_links_end(uint64_t page, const void *p, size_t bytes);

/* alloc.c */
/* Frees an object of the cache's own spans (no large one) whose free stands in its buffer, and strikes it off there. */
void tgc_free_noted(struct tgc_cache *cache, const struct tgs_object *object,
		    struct tgs_pending *pending);

/* thread.c */
/* A cache with a slot of its own, for no thread in particular.  NULL with errno.  `reuse`: an empty one to be used. */
struct tgc_cache *tgc_cache_open(struct tgc_cache *reuse);
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
