/* region.h - a heap without a daemon: both files in this process, spans and slots put where a test wants them.
 *
 * For tests of shm/ alone.  The test plays all the parts: the daemon that writes the page map, the threads that own spans,
 * those that free their objects, the recoverer.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/region.h"
#include "shm/span.h"

#define TGT_REGION_PAGES 4096u

struct tgt_region {
	int map_fd, heap_fd; /* -1: closed */
	struct tgs_heap heap;
};

/* One at a time, for suites whose tests each want a fresh one. */
extern struct tgt_region tgt_region;
extern struct tgs_heap *tgt_heap; /* of it */
void tgt_region_set_up(void);     /* ends the program if it cannot be had */
void tgt_region_tear_down(void);

/* A new heap of `n_pages`, mapped with the map writable, anywhere.  -errno. */
int tgt_region_make(struct tgt_region *region, uint64_t n_pages);
void tgt_region_end(struct tgt_region *region);

/* The slot belongs to some client. */
void tgt_open_slot(unsigned slot);

/* Writes the entries of a span of `class` at `page` (large_pages: of a large one), or that of another owner.  All state of a
 * tiny span has memory ... */
void tgt_put_span(uint64_t page, unsigned class, unsigned owner, uint64_t large_pages);
/* ... or, after this, taken words only, as the entry says. */
void tgt_take_more(uint64_t page);
void tgt_remove_span(uint64_t page);
void tgt_set_entry(uint64_t page, uint64_t entry);

/* The span that is there. */
struct tgs_span tgt_span(uint64_t page);

/* The taken bit of an object, and the remote word for it. */
void tgt_take(uint64_t page, unsigned index);
_Atomic uint64_t *tgt_remote_word(uint64_t page, unsigned index);
/* All the bytes that the page's slots have in the areas of dense spans. */
void tgt_clear_taken(uint64_t page);
/* The object's bit in it. */
static inline uint64_t tgt_remote_bit(unsigned index)
{
	return UINT64_C(1) << index % 32 << TGS_REMOTE_BITS_SHIFT(index / 32 % 2);
}
