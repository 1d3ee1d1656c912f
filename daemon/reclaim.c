/* reclaim.c - see reclaim.h.
 *
 * Under TG_RECLAIM an object that nobody published dies, unless a living thread has freed it
 * already and keeps that free in its buffer: were it freed twice, the second free would hit
 * whatever lives there by then.  So each slice begins by collecting the buffers of all slots in
 * use.
 */
#include "daemon/reclaim.h"

#include "shm/base.h"
#include "shm/remote.h"
#include "shm/settle.h"

/* Settling a slot: up to 512 frees applied, seldom that many. */
#define SLOT_COST 16

void tgd_reclaim_init(struct tgd_reclaim *reclaim, struct tgd_central *central,
		      struct tgd_holders *holders)
{
	*reclaim = (struct tgd_reclaim){.central = central, .holders = holders};
}

void tgd_reclaim_add(struct tgd_reclaim *reclaim, uint32_t client)
{
	uint32_t at = (reclaim->first + reclaim->n_queued++) % TGS_CLIENTS_MAX;

	reclaim->queue[at] = client;
	if (reclaim->n_queued == 1)
		reclaim->slot = reclaim->holders->table[client].first_slot;
}

static void next_client(struct tgd_reclaim *reclaim)
{
	reclaim->first = (reclaim->first + 1) % TGS_CLIENTS_MAX;
	reclaim->n_queued--;
	if (reclaim->n_queued > 0)
		reclaim->slot = reclaim->holders->table[reclaim->queue[reclaim->first]].first_slot;
}

static unsigned settle_slots(struct tgd_reclaim *reclaim, unsigned budget)
{
	while (reclaim->slot != TGS_SLOT_NONE && budget > 0) {
		tgs_settle_slot(reclaim->central->view, reclaim->slot);
		reclaim->slot = reclaim->holders->slot[reclaim->slot].next;
		budget -= (unsigned)tgs_min(budget, SLOT_COST);
	}
	return budget;
}

/* Spans of the client's first slot, then the slot itself, then the next one that is first. */
static unsigned take_spans(struct tgd_reclaim *reclaim, const struct tgd_holder *holder,
			   const struct tgs_pending_set *pending, unsigned budget)
{
	struct tgd_lease *lease = reclaim->central->lease;
	bool kill = holder->flags & TGD_HOLDER_RECLAIM;
	struct tgs_span span;

	while (holder->first_slot != TGS_SLOT_NONE && budget > 0) {
		unsigned slot = holder->first_slot;

		while (budget > 0 &&
		       tgd_lease_at(lease, tgd_list_head(&lease->slot[slot]), &span)) {
			tgd_central_adopt(reclaim->central, &span, kill, pending);
			budget--;
		}
		if (lease->slot[slot].n_spans == 0)
			tgd_holders_close_slot(reclaim->holders, slot);
	}
	return budget;
}

/* Returns what is left of the budget; 0 also when there is no memory to go on now. */
static unsigned settle_client(struct tgd_reclaim *reclaim, uint32_t client, unsigned budget)
{
	const struct tgd_holder *holder = &reclaim->holders->table[client];
	struct tgs_pending_set pending = {0};

	budget = settle_slots(reclaim, budget);
	if (budget == 0)
		return 0;
	if ((holder->flags & TGD_HOLDER_RECLAIM) &&
	    tgd_holders_pending(reclaim->holders, &pending) < 0)
		return 0;
	budget = take_spans(reclaim, holder, &pending, budget);
	tgs_pending_done(&pending);
	if (holder->n_slots == 0) {
		tgd_holders_remove(reclaim->holders, client);
		next_client(reclaim);
		budget -= (unsigned)tgs_min(budget, 1);
	}
	return budget;
}

bool tgd_reclaim_work(struct tgd_reclaim *reclaim, unsigned budget)
{
	while (reclaim->n_queued > 0 && budget > 0)
		budget = settle_client(reclaim, reclaim->queue[reclaim->first], budget);
	return reclaim->n_queued > 0;
}
