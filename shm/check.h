/* check.h - the walk behind `tgctl check`: is the state of a span what the rules say, and what lives in it? */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "shm/region.h"
#include "shm/span.h"

/* Frees that threads have buffered and not yet applied, by remote word; sorted.  Made before a walk, so that what was
 * freed does not count as live. */
struct tgs_pending_set {
	struct tgs_pending_free {
		uint64_t word; /* heap offset of the remote word */
		uint32_t mask;
	} * frees;
	size_t n, size;
};

int tgs_pending_collect(const struct tgs_heap *heap, const uint32_t *slots, size_t n_slots,
			struct tgs_pending_set *ret);
void tgs_pending_done(struct tgs_pending_set *set);

/* The objects of one unit for which a free is pending.  `set` may be NULL. */
uint64_t tgs_pending_bits(const struct tgs_heap *heap, const struct tgs_pending_set *set,
			  unsigned kind, uint64_t page, unsigned unit);

struct tgs_check_span {
	uint32_t objects;      /* live: taken, and neither remote nor pending */
	uint64_t object_bytes; /* room of them: class size; large: the span; tiny: bytes in use */
	uint32_t published;    /* of the live ones */
	uint32_t remote;       /* freed, not harvested */
	uint32_t pending;      /* freed, not applied */
};

/* Counts a span.  Returns 0, or 1 with the first broken rule in `why` (the counts are then what was found). */
int tgs_check_span(const struct tgs_heap *heap, const struct tgs_span *span,
		   const struct tgs_pending_set *pending, struct tgs_check_span *ret, char *why,
		   size_t why_size);

/* A page of no span: its state is all zero.  0, or 1 with `why`. */
int tgs_check_free_page(const struct tgs_heap *heap, uint64_t page, char *why, size_t why_size);
