/* takeover-tables.c - looks at the header, the client table, the slot table and the roots that
 * another daemon wrote.
 *
 * Only looks: tgd_holders_adopt and tgd_roots_adopt take them in, and finish what is half done.
 * Entries of which a part was never written belong to nobody yet, and are not read.
 */
#include "daemon/takeover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"

static int check_header(struct tgd_takeover *takeover, const char *name)
{
	const struct tgs_map_header *header = takeover->heap->view.map;
	uint64_t limit = atomic_load_explicit(&header->limit_bytes, memory_order_relaxed);
	uint64_t n_slots = atomic_load_explicit(&header->n_slots, memory_order_relaxed);
	uint64_t n_roots = atomic_load_explicit(&header->n_roots, memory_order_relaxed);

	if (header->name[0] == '\0' || !memchr(header->name, '\0', sizeof(header->name)))
		return tgd_takeover_refuse(takeover, "the map's header is damaged: it has no name");
	if (strcmp(header->name, name) != 0)
		return tgd_takeover_refuse(
			takeover,
			"these files are the heap \"%s\", not \"%s\"; start the daemon "
			"with --heap %s",
			header->name, name, header->name);
	if (atomic_load_explicit(&header->daemon_epoch, memory_order_acquire) == 0) {
		(void)tgd_takeover_refuse(
			takeover,
			"the daemon that made this heap died before it was finished; nobody "
			"has used it, make a new one");
		return -ENODATA;
	}
	if (header->base % (TGS_CHUNK_PAGES * TGS_PAGE_SIZE) != 0)
		return tgd_takeover_refuse(
			takeover, "the map's header is damaged: 0x%llx is no address of a heap",
			(unsigned long long)header->base);
	if (limit < TGS_PAGE_SIZE || limit > header->reserve_bytes)
		return tgd_takeover_refuse(
			takeover, "the map's header is damaged: a limit of %llu bytes cannot be",
			(unsigned long long)limit);
	if (n_slots <= TGS_SLOT_CENTRAL || n_slots > TGS_SLOTS_MAX)
		return tgd_takeover_refuse(
			takeover, "the map's header is damaged: %llu thread slots cannot be in use",
			(unsigned long long)n_slots);
	if (n_roots > TGS_ROOTS_MAX)
		return tgd_takeover_refuse(
			takeover, "the map's header is damaged: there cannot be %llu roots",
			(unsigned long long)n_roots);
	return 0;
}

/* The client table's entry; NULL: it was never written. */
static const struct tgs_client *client_at(const struct tgd_heap *heap, uint32_t index)
{
	uint64_t at = heap->view.geometry.clients_at + index * sizeof(struct tgs_client);

	return tgd_backing_has_map(&heap->backing, at, sizeof(struct tgs_client))
		       ? (const struct tgs_client *)((const uint8_t *)heap->view.map + at)
		       : NULL;
}

static uint32_t state_of(const struct tgs_client *client)
{
	return client ? atomic_load_explicit(&client->state, memory_order_acquire)
		      : TGS_CLIENT_FREE;
}

static int check_clients(struct tgd_takeover *takeover)
{
	const uint32_t generation_max = UINT32_MAX >> TGD_HOLDER_INDEX_BITS;
	uint32_t i;

	for (i = 0; i < TGS_CLIENTS_MAX; i++) {
		const struct tgs_client *client = client_at(takeover->heap, i);
		uint32_t state = state_of(client);

		if (client && client->generation > generation_max)
			return tgd_takeover_refuse(
				takeover, "client entry %u is damaged: %u is no generation", i,
				client->generation);
		if (state == TGS_CLIENT_FREE)
			continue;
		if (state != TGS_CLIENT_LIVE && state != TGS_CLIENT_DEAD)
			return tgd_takeover_refuse(
				takeover, "client entry %u is damaged: %u is no state", i, state);
		if (client->generation == 0)
			return tgd_takeover_refuse(
				takeover,
				"client entry %u is damaged: it is in use, but has no generation",
				i);
		if (client->flags & ~(TGD_HOLDER_RECLAIM | TGS_CLIENT_DETACHED))
			return tgd_takeover_refuse(
				takeover, "client entry %u is damaged: flags 0x%x are unknown", i,
				client->flags);
		if (!memchr(client->name, '\0', sizeof(client->name)))
			return tgd_takeover_refuse(
				takeover, "client entry %u is damaged: its name does not end", i);
	}
	return 0;
}

/* closet: by client, the slot that is its closet. */
static int check_slot(struct tgd_takeover *takeover, unsigned slot, uint16_t *closet)
{
	const struct tgs_slot_owner *owner = &takeover->heap->view.slot_owners[slot];
	uint32_t index = atomic_load_explicit(&owner->client, memory_order_acquire);
	const struct tgs_client *client;

	if (index == 0)
		return 0;
	if (index > TGS_CLIENTS_MAX)
		return tgd_takeover_refuse(
			takeover,
			"the slot table is damaged: slot %u belongs to client entry %u, "
			"which cannot be",
			slot, index - 1);
	client = client_at(takeover->heap, --index);
	if (owner->flags & ~TGS_SLOT_IS_CLOSET)
		return tgd_takeover_refuse(
			takeover, "the slot table is damaged: flags 0x%x of slot %u are unknown",
			owner->flags, slot);
	if (state_of(client) == TGS_CLIENT_FREE || !(owner->flags & TGS_SLOT_IS_CLOSET))
		return 0;
	if (!(client->flags & TGD_HOLDER_RECLAIM))
		return tgd_takeover_refuse(
			takeover,
			"the slot table is damaged: slot %u is the closet of client entry %u, "
			"which needs none",
			slot, index);
	if (closet[index] != TGS_SLOT_NONE)
		return tgd_takeover_refuse(
			takeover,
			"the slot table is damaged: slots %u and %u are both the closet of "
			"client entry %u",
			closet[index], slot, index);
	closet[index] = (uint16_t)slot;
	return 0;
}

static int check_slots(struct tgd_takeover *takeover)
{
	const struct tgd_heap *heap = takeover->heap;
	unsigned n_slots =
		(unsigned)atomic_load_explicit(&heap->view.map->n_slots, memory_order_relaxed);
	TGS_FREE uint16_t *closet = calloc(TGS_CLIENTS_MAX, sizeof(*closet));
	unsigned i;
	int r = 0;

	if (!closet)
		return -ENOMEM;
	for (i = TGS_SLOT_CENTRAL + 1; i < n_slots && r == 0; i++) {
		if (tgd_backing_has_map(&heap->backing,
					heap->view.geometry.slots_at +
						i * sizeof(struct tgs_slot_owner),
					sizeof(struct tgs_slot_owner)))
			r = check_slot(takeover, i, closet);
	}
	for (i = 0; i < TGS_CLIENTS_MAX && r == 0; i++) {
		const struct tgs_client *client = client_at(heap, i);

		if (state_of(client) == TGS_CLIENT_LIVE && (client->flags & TGD_HOLDER_RECLAIM) &&
		    closet[i] == TGS_SLOT_NONE)
			r = tgd_takeover_refuse(
				takeover,
				"the slot table is damaged: client entry %u reclaims, but "
				"has no closet",
				i);
	}
	return r;
}

static int check_root(struct tgd_takeover *takeover, uint64_t index)
{
	const struct tgs_geometry *g = &takeover->heap->view.geometry;
	const struct tgs_root *root = &takeover->heap->view.roots[index];
	uint64_t ref = atomic_load_explicit(&root->ref, memory_order_relaxed);
	const char *what = NULL;

	if (ref == 0)
		return 0;
	if (atomic_load_explicit(&root->generation, memory_order_acquire) % 2 != 0)
		what = "its name is being written, but it leads somewhere";
	else if (root->name[0] == '\0' || !memchr(root->name, '\0', sizeof(root->name)))
		what = "it has no name";
	else if (root->hash != tgd_roots_hash(root->name))
		what = "its name and hash do not agree";
	else if (ref < g->data_at || ref >= g->heap_bytes)
		what = "it leads out of the heap";
	if (what)
		return tgd_takeover_refuse(takeover, "root entry %llu is damaged: %s",
					   (unsigned long long)index, what);
	return 0;
}

static int check_roots(struct tgd_takeover *takeover)
{
	const struct tgd_heap *heap = takeover->heap;
	uint64_t n_roots = atomic_load_explicit(&heap->view.map->n_roots, memory_order_relaxed);
	uint64_t i;
	int r = 0;

	for (i = 0; i < n_roots && r == 0; i++) {
		if (!tgd_backing_has_map(&heap->backing,
					 heap->view.geometry.roots_at + i * sizeof(struct tgs_root),
					 sizeof(struct tgs_root)))
			return tgd_takeover_refuse(takeover,
						   "the map's header is damaged: it counts %llu "
						   "roots, but entry %llu was "
						   "never written",
						   (unsigned long long)n_roots,
						   (unsigned long long)i);
		r = check_root(takeover, i);
	}
	return r;
}

int tgd_takeover_check_tables(struct tgd_takeover *takeover, const char *name)
{
	int r = check_header(takeover, name);

	if (r == 0)
		r = check_clients(takeover);
	if (r == 0)
		r = check_slots(takeover);
	return r == 0 ? check_roots(takeover) : r;
}
