/* scavenge.h - gives idle pages back to the kernel, from the highest address, at a gentle pace.
 *
 * Idle: free, but with memory behind them.  What is kept, so that the next request needs no system
 * call:
 *
 *   goal      pages in use and idle together may be 110 % of the recent peak of pages in use
 *   peak      rises with the pages in use at once; every second it falls by a quarter of the way
 *             down to them
 *   pace      a slice gives back at most 1 MiB and at least 64 KiB (if there is so much), then
 *             rests 99 times as long as it took: 1 % of the time
 *   growth    when memory is made although much lies idle (a sixteenth of what is in use), as it did
 *             not fit or lay elsewhere, as much of that goes back, so that what a heap has does not
 *             grow by holes
 *   long      what clients give back in pieces of a megabyte and more goes as if as much had
 *             been made (up to 8 MiB of it), unless it is used again within 2 ms: such objects are few,
 *             and their process has kept them for a while already
 *   limit     in use and idle together never exceed the heap's limit: that is kept at once, without
 *             the pace
 *
 * With the pages goes their state, where a whole block of it belongs to free pages.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/backing.h"
#include "daemon/pages.h"

struct tgd_scavenge {
	struct tgd_pages *pages;
	struct tgd_backing *backing;
	uint64_t peak_pages;  /* recent; decays */
	uint64_t spare_pages; /* so many idle pages above the goal stay, too */
	uint64_t made_pages;  /* made since as many idle ones were last given back */
	uint64_t long_pages;  /* came back in long pieces, and may yet be used again ... */
	uint64_t long_at_ms;  /* ... until then; 0: some came since this was looked at */
	uint64_t decay_at_ms; /* next time that it falls; 0: not started */
	uint64_t rest_until_ms;
	uint64_t state_bytes; /* of state given back, since the start */
};

void tgd_scavenge_init(struct tgd_scavenge *scavenge, struct tgd_pages *pages,
		       struct tgd_backing *backing);

/* After each grant: the peak. */
void tgd_scavenge_note(struct tgd_scavenge *scavenge);

/* Memory was made for so many pages. */
void tgd_scavenge_made(struct tgd_scavenge *scavenge, uint64_t n_pages);

/* A client gave back a large span of so many. */
void tgd_scavenge_long(struct tgd_scavenge *scavenge, uint64_t n_pages);

/* Idle pages above the goal: how many. */
uint64_t tgd_scavenge_excess(const struct tgd_scavenge *scavenge);

/* A paced slice.  Returns milliseconds until the next one is due; -1: there is nothing to give
 * back. */
int tgd_scavenge_work(struct tgd_scavenge *scavenge, uint64_t now_ms);

/* Gives back up to n_pages idle pages now.  Returns how many. */
uint64_t tgd_scavenge_force(struct tgd_scavenge *scavenge, uint64_t n_pages);
