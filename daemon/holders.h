/* holders.h - which processes use the heap, and which thread slots are theirs.
 *
 * The truth is private; the client table and the slot table in the map are kept in step with it, so
 * that the next daemon finds what this one knew.  A client id is its index in the table with a
 * generation above it: an id that was once given out never means another client.
 *
 *   client   FREE -> LIVE (add) -> DEAD (end) -> FREE (remove, when it has no slot left)
 *   slot     free -> in use by a client (open) -> free (close, when it holds no span)
 *
 * A client with TG_RECLAIM has one slot more, its closet: spans that none of its threads uses, but
 * that hold objects which must die with it, and so must not become central's (design.md 6).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/backing.h"
#include "shm/check.h"
#include "shm/layout.h"
#include "shm/region.h"

#define TGD_HOLDER_INDEX_BITS 14
#define TGD_HOLDER_RECLAIM    1u /* TG_RECLAIM of tg.h, as it comes over the wire */
#define TGD_HOLDER_NONE       UINT32_MAX

struct tgd_holder {
	uint32_t state; /* enum tgs_client_state */
	uint32_t id;
	uint32_t n_slots;    /* the closet counts */
	uint16_t first_slot; /* of its slots; TGS_SLOT_NONE ends the list */
	uint16_t closet;     /* TGS_SLOT_NONE: it has none */
	uint32_t flags;
};

struct tgd_holder_slot {
	uint32_t owner; /* its client's index + 1, as in the map; 0: free, or the daemon's own */
	uint16_t next, prev; /* among its client's slots */
};

struct tgd_holders {
	const struct tgs_heap *view;
	struct tgd_backing *backing;
	uint32_t n_used; /* entries of the table ever used */
	uint32_t n_live, n_dead;
	uint32_t n_closets;
	uint32_t slots_used; /* slots ever used */
	uint32_t n_slots;    /* in use by clients, closets not counted */
	struct tgd_holder table[TGS_CLIENTS_MAX];
	struct tgd_holder_slot slot[TGS_SLOTS_MAX];
};

/* The index of the client whose slot it is; TGD_HOLDER_NONE. */
static inline uint32_t tgd_holders_client_of(const struct tgd_holders *holders, unsigned slot)
{
	_Static_assert(TGD_HOLDER_NONE == UINT32_MAX, "what 0 - 1 is");
	return holders->slot[slot].owner - 1;
}

/* -ENOMEM.  `holders` was zero, most of which stays so: what was never used takes no memory. */
int tgd_holders_init(struct tgd_holders *holders, const struct tgs_heap *view,
		     struct tgd_backing *backing);

/* Instead of init, for a daemon that takes the files over: clients and slots as the map has
 * them, which was found sound (takeover.h).  What was half done is finished or undone:
 *
 *   a slot owned, but not in_use     in use again; its client closes it, or its end does
 *   a slot of a client that is FREE  a closet whose client was never entered: free
 *   LIVE, flagged as detached        its end was not entered: it lives, and is not detached
 *   DEAD, counted as recovered       FREE */
void tgd_holders_adopt(struct tgd_holders *holders, const struct tgs_heap *view,
		       struct tgd_backing *backing);

struct tgd_holder_new {
	uint32_t pid;
	uint64_t start_time;
	uint32_t uid, gid, flags;
	const char *name;
};

/* -EMFILE, -ENOMEM. */
int tgd_holders_add(struct tgd_holders *holders, const struct tgd_holder_new *what,
		    uint32_t *ret_id);

/* The index of a live client; -ENOENT. */
int tgd_holders_find(const struct tgd_holders *holders, uint32_t id, uint32_t *ret_index);

/* LIVE -> DEAD.  `flags`: TGS_CLIENT_DETACHED, or 0. */
void tgd_holders_end(struct tgd_holders *holders, uint32_t index, uint32_t flags);

/* DEAD -> FREE; it has no slots.  Counted as recovered, unless it detached. */
void tgd_holders_remove(struct tgd_holders *holders, uint32_t index);

/* A slot for this client, all zero but for its sequence number and mark.  -EMFILE, -ENOMEM. */
int tgd_holders_open_slot(struct tgd_holders *holders, uint32_t index, unsigned *ret_slot);

/* The slot is nobody's again.  It holds no span, and nothing is in flight in it. */
void tgd_holders_close_slot(struct tgd_holders *holders, unsigned slot);

/* How many dead clients were settled since the files were made. */
uint64_t tgd_holders_recovered(const struct tgd_holders *holders);

/* The table's entry in the map. */
const struct tgs_client *tgd_holders_entry(const struct tgd_holders *holders, uint32_t index);

/* What all clients' slots have in their buffers of frees to come.  -1: out of memory. */
int tgd_holders_pending(const struct tgd_holders *holders, struct tgs_pending_set *ret);
