/* bin.h - what a thread has of one size class: the slots at hand, as malloc and free see them, how more come, and where it frees
 * objects of other processes.
 *
 * Private memory of one thread's cache (client/cache.h).  The bin and the hints are all that the hot paths touch beside the
 * slots' own state; the supply is what the slow ones need.
 */
#pragma once

#include <stdint.h>

#include "shm/layout.h"

struct tgc_span;

/* The taken bits of a block of 16 bytes, a part of a taken word: the owner alone writes them. */
typedef uint16_t __attribute__((may_alias)) tgc_tiny_bits;
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "bit i of a word is bit i % 16 of its part i / 16");

/* A slot (tiny: a block) that was freed a moment ago and is still warm.  Its byte says TGS_HELD, and for its span it counts
 * as used, as if it were in the bin's word.  The span may be another thread's (tiny: not). */
struct tgc_hint {
	union {
		tgs_taken *taken;    /* its byte */
		tgc_tiny_bits *bits; /* tiny: of the block */
	};
	uint8_t *p;
};

/* A class's hints: a stack, whose lowest entry is none.  Most classes never need more than few, so those lie close together.
 * Both are of lengths that keep the stacks of the classes, one behind the other, from beginning in the same sets of the
 * processor's cache. */
#define TGC_HINTS_FEW 67u
#define TGC_HINTS_MAX 243u

struct tgc_few_hints {
	struct tgc_hint at[1 + TGC_HINTS_FEW];
};
_Static_assert(sizeof(struct tgc_few_hints) == 17 * 64, "an odd number of cache lines");

struct tgc_hints {
	struct tgc_hint at[1 + TGC_HINTS_MAX];
};
_Static_assert(sizeof(struct tgc_hints) == 61 * 64, "an odd number of cache lines");

/* One class, as malloc and free see it: a cache line.
 *
 * malloc takes the slot freed last, if there is a hint, else the lowest bit of `free`.  What is free in the current unit
 * when it is loaded is in `free`; what is freed later becomes a hint, of whatever unit it is, even if another thread of this
 * process holds its span.  Until it is taken again its byte says TGS_HELD, and so no slot is in two places.  (Blocks of tiny
 * spans have none, but units are loaded when there are no hints.)  What harvests and buffered frees bring never becomes a
 * hint: they run while a unit is sought. */
struct tgc_bin {
	/* The hint to take next, the lowest entry, where the top may not go beyond.  All NULL in a cache without a slot, or one
	 * that a fork has wiped: no hints, and no room for any. */
	struct tgc_hint *top, *bottom, *limit;
	uint64_t free; /* free slots of the current unit */
	union {
		tgs_taken *taken;    /* their bytes */
		tgc_tiny_bits *bits; /* tiny: of its first block */
	};
	uint8_t *address; /* of the unit's slot 0 */
	uint32_t size;    /* bytes of a slot; tiny: of a block */
	uint32_t reserved[3];
};
_Static_assert(sizeof(struct tgc_bin) == 64, "a cache line");

/* One class, as refilling sees it: the spans with room, and how they come and go. */
struct tgc_supply {
	_Alignas(64) struct tgc_span *current; /* the bin's unit is of it; NULL: none */
	uint32_t unit;                         /* which one (tiny: which group) */
	uint16_t still; /* looks in a row (client/refill.c) that found the bin as it was */
	uint8_t batch;  /* log2 of how many spans to ask for next, ... */
	uint8_t burst;  /* ... and of how many more, as it is asked for again and again */
	uint64_t zero;  /* of the bin's `free`: slots whose memory is known to be zero */
	struct tgc_span *head, *tail; /* partly used ones first, empty ones last */
	uint32_t n_empty;             /* spans in the list that hold nothing */
	uint32_t low;                 /* fewest of them since `since`: so many nobody has needed */
	uint32_t since;               /* coarse milliseconds */
	uint32_t borrowed;            /* slots of larger classes since spans were last asked for */
	uint32_t n_spans;             /* of the class, held */
	uint32_t
		spilled; /* slots (tiny: blocks) of one unit that are free and still count as used */
	uintptr_t spilled_unit;   /* which one, as tgc_spill names it; 0: none */
	const uint8_t *spilled_p; /* in it */
	uint64_t seen_free;       /* of the bin at the last look (client/refill.c): `free`, ... */
	uint8_t *seen_address;    /* ... `address` ... */
	const struct tgc_hint *seen_top; /* ... and `top` */
	uint16_t asked;                  /* the cache's n_asks when spans were last needed */
	uint16_t
		alone; /* objects that had large spans of their own, as there was none of the class */
	uint16_t alone_again; /* such for which an idle large span was at hand */
	uint16_t reserved;
	uint64_t full_free; /* of the bin, when there last was no room for a hint: `free` ... */
	uint8_t *
		full_address; /* ... and `address`; if either has changed since, hints were missed */
};
_Static_assert(sizeof(struct tgc_supply) == 2 * sizeof(struct tgc_bin),
	       "from a bin to its supply by a shift");

/* The other process's span of a class of which this thread freed an object last, and how to get from an address in it to its
 * state: all of it follows from the span's entry in the page map.  A cache line.  client/foreign.c */
struct tgc_target {
	uint64_t entry;              /* but for the page's distance to the first one; 0: none */
	uint64_t start;              /* its offset from the first page, bytes */
	uint32_t bytes;              /* of its slots */
	uint32_t magic, size;        /* tgs_classes' */
	uint32_t first;              /* slot of the remote word of the last free, ... */
	uint64_t word;               /* ... whose ref is this ... */
	struct tgs_pending *pending; /* ... and which stood in this place then */
	struct tgs_record *record;
	tgs_taken *taken;
};
_Static_assert(sizeof(struct tgc_target) == 64, "a cache line");
