/* holders.c - the client table and the slot table: private arrays, mirrored in the map.
 *
 * An entry of the map is written before its state says LIVE, and a slot's owner before the slot
 * says in_use, so that whoever reads them in the map after a crash finds them whole.
 *
 * A dead client is counted as recovered, then its entry becomes free.  That none is counted twice, the
 * count has the id of the client that was counted last in its high half: a single store says both.
 */
#include "daemon/holders.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"

/* The map is the daemon's to write; the view has it const because all others only read it. */
static struct tgs_client *map_entry(const struct tgd_holders *holders, uint32_t index)
{
	uint8_t *map = (uint8_t *)(uintptr_t)holders->view->map;

	return (struct tgs_client *)(map + holders->view->geometry.clients_at) + index;
}

static struct tgs_map_header *header_of(const struct tgd_holders *holders)
{
	return (struct tgs_map_header *)(uintptr_t)holders->view->map;
}

static void write_owner(const struct tgd_holders *holders, unsigned slot, uint32_t client,
			uint32_t flags)
{
	struct tgs_slot_owner *owners =
		(struct tgs_slot_owner *)(uintptr_t)holders->view->slot_owners;

	if (client != 0) {
		owners[slot].flags = flags;
		TGS_POINT();
	}
	atomic_store_explicit(&owners[slot].client, client, memory_order_release);
}

static int back_slot(struct tgd_holders *holders, unsigned slot)
{
	const struct tgs_geometry *g = &holders->view->geometry;
	int r;

	r = tgd_backing_map(holders->backing, g->slots_at + slot * sizeof(struct tgs_slot_owner),
			    sizeof(struct tgs_slot_owner));
	if (r < 0)
		return r;
	return tgd_backing_state(holders->backing, g->threads_at + slot * sizeof(struct tgs_slot),
				 sizeof(struct tgs_slot));
}

/* Whoever looks for steps in flight looks at so many slots. */
static void tell_slots_used(const struct tgd_holders *holders)
{
	atomic_store_explicit(&header_of(holders)->n_slots, holders->slots_used,
			      memory_order_release);
}

static void start_empty(struct tgd_holders *holders, const struct tgs_heap *view,
			struct tgd_backing *backing)
{
	holders->view = view;
	holders->backing = backing;
}

int tgd_holders_init(struct tgd_holders *holders, const struct tgs_heap *view,
		     struct tgd_backing *backing)
{
	unsigned slot;
	int r;

	start_empty(holders, view, backing);
	/* Nobody's slot, which a forked child's wiped cache may look at, and our own. */
	for (slot = TGS_SLOT_NONE; slot <= TGS_SLOT_CENTRAL; slot++) {
		r = back_slot(holders, slot);
		if (r < 0)
			return r;
		/* Written, so that the table's first block never looks like a hole. */
		write_owner(holders, slot, 0, 0);
	}
	atomic_store_explicit(&view->slots[TGS_SLOT_CENTRAL].in_use, 1, memory_order_relaxed);
	holders->slots_used = TGS_SLOT_CENTRAL + 1;
	tell_slots_used(holders);
	return 0;
}

/* The first free entry; the table is short as long as few clients live at a time. */
static int free_entry(struct tgd_holders *holders, uint32_t *ret_index)
{
	const struct tgs_geometry *g = &holders->view->geometry;
	uint32_t i;
	int r;

	for (i = 0; i < holders->n_used; i++) {
		if (holders->table[i].state == TGS_CLIENT_FREE)
			break;
	}
	if (i == TGS_CLIENTS_MAX)
		return -EMFILE;
	r = tgd_backing_map(holders->backing, g->clients_at + i * sizeof(struct tgs_client),
			    sizeof(struct tgs_client));
	if (r < 0)
		return r;
	if (i == holders->n_used)
		holders->n_used++;
	*ret_index = i;
	return 0;
}

static void write_entry(struct tgd_holders *holders, uint32_t index,
			const struct tgd_holder_new *what)
{
	struct tgs_client *entry = map_entry(holders, index);
	uint32_t generation_max = UINT32_MAX >> TGD_HOLDER_INDEX_BITS;

	entry->pid = what->pid;
	TGS_POINT();
	entry->start_time = what->start_time;
	TGS_POINT();
	entry->uid = what->uid;
	TGS_POINT();
	entry->gid = what->gid;
	TGS_POINT();
	entry->flags = what->flags;
	TGS_POINT();
	/* Never 0, so that no id is 0. */
	entry->generation = entry->generation >= generation_max ? 1 : entry->generation + 1;
	TGS_POINT();
	memset(entry->name, 0, sizeof(entry->name));
	TGS_POINT();
	memcpy(entry->name, what->name, strnlen(what->name, sizeof(entry->name) - 1));
	TGS_POINT();
	atomic_store_explicit(&entry->state, TGS_CLIENT_LIVE, memory_order_release);
}

int tgd_holders_find(const struct tgd_holders *holders, uint32_t id, uint32_t *ret_index)
{
	uint32_t index = id & (TGS_CLIENTS_MAX - 1);
	const struct tgd_holder *client = &holders->table[index];

	if (client->state != TGS_CLIENT_LIVE || client->id != id)
		return -ENOENT;
	*ret_index = index;
	return 0;
}

void tgd_holders_end(struct tgd_holders *holders, uint32_t index, uint32_t flags)
{
	struct tgd_holder *client = &holders->table[index];

	assert(client->state == TGS_CLIENT_LIVE);
	client->state = TGS_CLIENT_DEAD;
	client->flags |= flags;
	if (flags != 0) {
		map_entry(holders, index)->flags = client->flags;
		TGS_POINT();
	}
	atomic_store_explicit(&map_entry(holders, index)->state, TGS_CLIENT_DEAD,
			      memory_order_release);
	holders->n_live--;
	holders->n_dead++;
}

uint64_t tgd_holders_recovered(const struct tgd_holders *holders)
{
	return (uint32_t)atomic_load_explicit(&header_of(holders)->recovered, memory_order_relaxed);
}

/* The one that was counted last: its entry may not say yet that it is free. */
static uint32_t last_recovered(const struct tgd_holders *holders)
{
	return (uint32_t)(atomic_load_explicit(&header_of(holders)->recovered,
					       memory_order_relaxed) >>
			  32);
}

void tgd_holders_remove(struct tgd_holders *holders, uint32_t index)
{
	struct tgd_holder *client = &holders->table[index];

	assert(client->state == TGS_CLIENT_DEAD && client->n_slots == 0);
	client->state = TGS_CLIENT_FREE;
	if (!(client->flags & TGS_CLIENT_DETACHED))
		atomic_store_explicit(&header_of(holders)->recovered,
				      (uint64_t)client->id << 32 |
					      (uint32_t)(tgd_holders_recovered(holders) + 1),
				      memory_order_relaxed);
	atomic_store_explicit(&map_entry(holders, index)->state, TGS_CLIENT_FREE,
			      memory_order_release);
	holders->n_dead--;
}

static void wipe(struct tgs_slot *slot)
{
	unsigned i;

	atomic_store_explicit(&slot->in_use, 0, memory_order_relaxed);
	atomic_store_explicit(&slot->tiny_block, 0, memory_order_relaxed);
	atomic_store_explicit(&slot->tiny_left, 0, memory_order_relaxed);
	/* step.seq and mark go on counting: words of the heap may still carry this slot's tag. */
	atomic_store_explicit(&slot->step.word, 0, memory_order_relaxed);
	atomic_store_explicit(&slot->step.arg, 0, memory_order_relaxed);
	atomic_store_explicit(&slot->step.old_ref, 0, memory_order_relaxed);
	atomic_store_explicit(&slot->step.new_ref, 0, memory_order_relaxed);
	for (i = 0; i < TGS_DIRTY_BITS / 64; i++)
		atomic_store_explicit(&slot->dirty[i], 0, memory_order_relaxed);
	atomic_store_explicit(&slot->held, 0, memory_order_relaxed);
	for (i = 0; i < TGS_PENDING_FREES; i++) {
		atomic_store_explicit(&slot->pending[i].mask, 0, memory_order_relaxed);
		atomic_store_explicit(&slot->pending[i].word, 0, memory_order_relaxed);
	}
}

/* Free slots are found from the lowest on: the part of the table that is backed stays short. */
static unsigned free_slot(const struct tgd_holders *holders)
{
	unsigned slot;

	for (slot = TGS_SLOT_CENTRAL + 1; slot < holders->slots_used; slot++) {
		if (tgd_holders_client_of(holders, slot) == TGD_HOLDER_NONE)
			break;
	}
	return slot;
}

/* Into the private lists. */
static void enter_slot(struct tgd_holders *holders, uint32_t index, unsigned slot, uint32_t flags)
{
	struct tgd_holder *client = &holders->table[index];
	struct tgd_holder_slot *mine = &holders->slot[slot];

	mine->owner = index + 1;
	mine->prev = TGS_SLOT_NONE;
	mine->next = client->first_slot;
	if (mine->next != TGS_SLOT_NONE)
		holders->slot[mine->next].prev = (uint16_t)slot;
	client->first_slot = (uint16_t)slot;
	client->n_slots++;
	if (flags & TGS_SLOT_IS_CLOSET) {
		client->closet = (uint16_t)slot;
		holders->n_closets++;
	} else {
		holders->n_slots++;
	}
}

static int open_slot(struct tgd_holders *holders, uint32_t index, uint32_t flags,
		     unsigned *ret_slot)
{
	unsigned slot = free_slot(holders);
	int r;

	if (slot == TGS_SLOTS_MAX)
		return -EMFILE;
	r = back_slot(holders, slot);
	if (r < 0)
		return r;
	if (slot == holders->slots_used) {
		holders->slots_used++;
		tell_slots_used(holders);
	}

	enter_slot(holders, index, slot, flags);
	wipe(&holders->view->slots[slot]);
	write_owner(holders, slot, index + 1, flags);
	atomic_store_explicit(&holders->view->slots[slot].in_use, 1, memory_order_release);
	*ret_slot = slot;
	return 0;
}

int tgd_holders_open_slot(struct tgd_holders *holders, uint32_t index, unsigned *ret_slot)
{
	return open_slot(holders, index, 0, ret_slot);
}

int tgd_holders_add(struct tgd_holders *holders, const struct tgd_holder_new *what,
		    uint32_t *ret_id)
{
	struct tgd_holder *client;
	unsigned closet;
	uint32_t index;
	int r;

	r = free_entry(holders, &index);
	if (r < 0)
		return r;
	client = &holders->table[index];
	*client = (struct tgd_holder){.flags = what->flags};
	/* Opened now, so that giving spans back never fails for want of it. */
	if (what->flags & TGD_HOLDER_RECLAIM) {
		r = open_slot(holders, index, TGS_SLOT_IS_CLOSET, &closet);
		if (r < 0)
			return r;
	}

	write_entry(holders, index, what);
	client->state = TGS_CLIENT_LIVE;
	client->id = index | map_entry(holders, index)->generation << TGD_HOLDER_INDEX_BITS;
	holders->n_live++;
	*ret_id = client->id;
	return 0;
}

void tgd_holders_close_slot(struct tgd_holders *holders, unsigned slot)
{
	struct tgd_holder_slot *mine = &holders->slot[slot];
	struct tgd_holder *client = &holders->table[tgd_holders_client_of(holders, slot)];

	if (mine->prev != TGS_SLOT_NONE)
		holders->slot[mine->prev].next = mine->next;
	else
		client->first_slot = mine->next;
	if (mine->next != TGS_SLOT_NONE)
		holders->slot[mine->next].prev = mine->prev;
	client->n_slots--;
	if (slot == client->closet) {
		client->closet = TGS_SLOT_NONE;
		holders->n_closets--;
	} else {
		holders->n_slots--;
	}
	mine->owner = 0;

	wipe(&holders->view->slots[slot]);
	write_owner(holders, slot, 0, 0);
}

/* ---- for a daemon that takes the files over ---- */

static void adopt_client(struct tgd_holders *holders, uint32_t index)
{
	struct tgs_client *entry = map_entry(holders, index);
	struct tgd_holder *client = &holders->table[index];
	uint32_t state = atomic_load_explicit(&entry->state, memory_order_acquire);

	if (state == TGS_CLIENT_FREE && entry->generation == 0)
		return;
	holders->n_used = index + 1;
	if (state == TGS_CLIENT_FREE)
		return;
	client->id = index | entry->generation << TGD_HOLDER_INDEX_BITS;
	if (state == TGS_CLIENT_DEAD && client->id == last_recovered(holders)) {
		atomic_store_explicit(&entry->state, TGS_CLIENT_FREE, memory_order_release);
		return;
	}
	if (state == TGS_CLIENT_LIVE && (entry->flags & TGS_CLIENT_DETACHED)) {
		entry->flags &= ~TGS_CLIENT_DETACHED;
		TGS_POINT();
	}
	client->state = state;
	client->flags = entry->flags;
	holders->n_live += state == TGS_CLIENT_LIVE;
	holders->n_dead += state == TGS_CLIENT_DEAD;
}

static void adopt_slot(struct tgd_holders *holders, unsigned slot)
{
	const struct tgs_slot_owner *owner = &holders->view->slot_owners[slot];
	uint32_t client = atomic_load_explicit(&owner->client, memory_order_acquire);

	if (client == 0)
		return;
	if (holders->table[client - 1].state == TGS_CLIENT_FREE) {
		wipe(&holders->view->slots[slot]);
		write_owner(holders, slot, 0, 0);
		return;
	}
	enter_slot(holders, client - 1, slot, owner->flags);
	atomic_store_explicit(&holders->view->slots[slot].in_use, 1, memory_order_release);
}

void tgd_holders_adopt(struct tgd_holders *holders, const struct tgs_heap *view,
		       struct tgd_backing *backing)
{
	const struct tgs_geometry *g = &view->geometry;
	uint32_t i;

	start_empty(holders, view, backing);
	holders->slots_used =
		(uint32_t)atomic_load_explicit(&view->map->n_slots, memory_order_acquire);
	/* Slots were backed before they counted as used. */
	tgd_backing_found_state(backing, g->threads_at,
				holders->slots_used * sizeof(struct tgs_slot));
	for (i = 0; i < TGS_CLIENTS_MAX; i++) {
		if (tgd_backing_has_map(backing, g->clients_at + i * sizeof(struct tgs_client),
					sizeof(struct tgs_client)))
			adopt_client(holders, i);
	}
	for (i = TGS_SLOT_CENTRAL + 1; i < holders->slots_used; i++) {
		if (tgd_backing_has_map(backing, g->slots_at + i * sizeof(struct tgs_slot_owner),
					sizeof(struct tgs_slot_owner)))
			adopt_slot(holders, i);
	}
}

const struct tgs_client *tgd_holders_entry(const struct tgd_holders *holders, uint32_t index)
{
	return map_entry(holders, index);
}

int tgd_holders_pending(const struct tgd_holders *holders, struct tgs_pending_set *ret)
{
	TGS_FREE uint32_t *slots = calloc(holders->slots_used, sizeof(*slots));
	uint32_t slot;
	size_t n = 0;

	if (!slots)
		return -1;
	for (slot = TGS_SLOT_CENTRAL + 1; slot < holders->slots_used; slot++) {
		if (tgd_holders_client_of(holders, slot) != TGD_HOLDER_NONE)
			slots[n++] = slot;
	}
	return tgs_pending_collect(holders->view, slots, n, ret);
}
