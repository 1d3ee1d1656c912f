/* own.h - the table of owned pages, as tg_free reads it; client/own.c writes it.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "shm/base.h"
#include "shm/layout.h"

struct tgc_cache;

/* Plain loads and stores are enough, and the compiler makes most of them; ThreadSanitizer is told what they are. */
#ifdef __SANITIZE_THREAD__
#define TGC_LOAD(field)         __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define TGC_STORE(field, value) __atomic_store_n(&(field), value, __ATOMIC_RELAXED)
#define TGC_OR(field, value)    TGC_STORE(field, TGC_LOAD(field) | (value))
#else
#define TGC_LOAD(field)         (field)
#define TGC_STORE(field, value) ((field) = (value))
#define TGC_OR(field, value)    ((field) |= (value))
#endif

/* A page of a span that some thread of this process has taken in (no large one), as free sees it: found by the address's
 * bits alone, and all zero for other pages.  Written by that thread; others may read it while it changes, if they free what
 * is not live, and then find that out from its state. */
struct tgc_own {
	union {
		uintptr_t start; /* address of the span */
		uint64_t
			tiny; /* of a tiny span: an eighth of how far an address is from here is where its bits are */
	};
	/* Of its slots (what is behind the last one belongs to none); tiny: 0.  Written last, read before what says where
	 * state lies. */
	uint32_t bytes;
	uint32_t magic; /* tgs_classes'; tiny: TGC_OWN_TINY */
	union {
		tgs_taken *taken;              /* of its slots */
		const _Atomic uint64_t *entry; /* of a tiny span: its entry in the page map */
	};
	uint32_t bin;  /* of its class: how far it is from the start of each cache */
	uint32_t slot; /* whose the span is */
};

#define TGC_OWN_TINY 1u

/* The table of them, by the low bits of the page's number; the mask is of what those give times the length of an entry.  While
 * not attached it is one page of nobody's. */
extern TGS_HIDDEN struct tgc_own *tgc_owns;
extern TGS_HIDDEN uint64_t tgc_owns_mask;

#define TGC_OWN_SHIFT 5
_Static_assert(sizeof(struct tgc_own) == 1u << TGC_OWN_SHIFT, "found by a shift");

static inline struct tgc_own *tgc_own_of(const void *p)
{
	return (struct tgc_own *)((uint8_t *)tgc_owns +
				  ((uintptr_t)p >> (TGS_PAGE_SHIFT - TGC_OWN_SHIFT) &
				   tgc_owns_mask));
}

/* The table for the heap that is mapped now.  False: no memory. */
bool tgc_owns_open(void);
void tgc_owns_close(void);
/* This span is the cache's; it is not any more. */
void tgc_own(struct tgc_cache *cache, uint64_t page, unsigned class);
void tgc_disown(uint64_t page, unsigned class);
