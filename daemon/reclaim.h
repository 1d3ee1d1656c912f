/* reclaim.h - settling what a client held that has died, or detached, in slices.
 *
 * In this order, for each client in the queue:
 *
 *   1. every slot: the step in flight is completed or dropped, the frees in its buffer are applied
 *   2. every span of every slot: harvested; with TG_RECLAIM its unpublished objects die; then it is
 *   freed if empty,
 *      else central's
 *   3. every slot is nobody's, then the client's entry is
 *
 * Each step can be run again from any point, and the next piece of work is found from the lists
 * alone, so there is no state to lose between two slices.  The time is linear in the slots and
 * spans of the client.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/central.h"
#include "daemon/holders.h"

struct tgd_reclaim {
	struct tgd_central *central;
	struct tgd_holders *holders;
	uint32_t n_queued;
	uint32_t first; /* index in the ring below */
	uint32_t slot;  /* of the first client: next to settle; TGS_SLOT_NONE: all are */
	uint32_t queue[TGS_CLIENTS_MAX]; /* ring of client indexes */
};

void tgd_reclaim_init(struct tgd_reclaim *reclaim, struct tgd_central *central,
		      struct tgd_holders *holders);

/* A client that is DEAD by now. */
void tgd_reclaim_add(struct tgd_reclaim *reclaim, uint32_t client);

/* Works off up to `budget` units of work (a span each).  True: there is more to do. */
bool tgd_reclaim_work(struct tgd_reclaim *reclaim, unsigned budget);
