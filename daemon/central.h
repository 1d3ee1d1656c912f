/* central.h - the spans that no client holds: per class, those with room and those without.
 *
 * Go's mcentral, with the difference that objects in these spans go on being freed: by other
 * processes, which set remote bits and, as a hint, the span's bit in central's dirty map.  A sweep
 * harvests the spans so marked.  No free is overlooked: a freer sets its bits, then reads who the
 * owner is; we change the owner, then a full fence, then harvest.
 *
 * Partial spans are taken last in, first out, as in Go: what came last is likeliest to be in the
 * processor's caches, and those at the far end are left alone and have time to become empty.
 * (Fullest first would need an order that every foreign free changes.)
 *
 * A client with TG_RECLAIM is never given a span in which others' unpublished objects live, since
 * at its death they could not be told from its own; and its own unpublished objects never come here
 * while it lives, but to its closet.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/heap.h"
#include "daemon/holders.h"
#include "daemon/lease.h"
#include "shm/check.h"

struct tgd_central {
	const struct tgs_heap *view;
	struct tgd_lease *lease;
	struct tgd_holders *holders;
	uint64_t cursor; /* of the sweep: word of the dirty map */
};

void tgd_central_init(struct tgd_central *central, const struct tgs_heap *view,
		      struct tgd_lease *lease, struct tgd_holders *holders);

/* A span with room of this class, now held by `slot`.  `closet`: that of the slot's client, or
 * TGS_SLOT_NONE. */
bool tgd_central_take(struct tgd_central *central, unsigned class, unsigned slot, unsigned closet,
		      struct tgd_grant *ret);

/* A client's slot gives a span up: it is freed if empty, else it goes to the closet if there is one
 * and something in it is unpublished, else to central. */
void tgd_central_put(struct tgd_central *central, struct tgs_span *span, unsigned closet);

/* A span of a client that has ended.  With `kill`, its unpublished objects die, but for those in
 * the set: somebody has freed them already, and they end when that free is applied. */
void tgd_central_adopt(struct tgd_central *central, struct tgs_span *span, bool kill,
		       const struct tgs_pending_set *pending);

/* Harvests what is marked dirty, looking at up to n_words words of 64 pages.  Returns how many
 * spans it found; *ret_done: the end of the heap was reached, the next call starts at its
 * beginning. */
unsigned tgd_central_sweep(struct tgd_central *central, uint64_t n_words, bool *ret_done);

/* The same for all closets. */
unsigned tgd_central_sweep_closets(struct tgd_central *central);

/* Harvests every span that no thread holds, marked or not. */
void tgd_central_sweep_all(struct tgd_central *central);

/* Slots that the owner of the span may hand out now; of a tiny span, blocks of 16 bytes. */
uint32_t tgd_central_room(const struct tgs_heap *view, const struct tgs_span *span);
