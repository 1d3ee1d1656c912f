/* heap-info.c - tables about a heap, for tgctl: clients, classes, spans, map, roots, totals.
 *
 * Nothing here changes anything.  Shared bits are read while clients work, so counts of objects are
 * a snapshot; counts of spans and pages are the daemon's own and exact.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "daemon/heap-impl.h"
#include "daemon/heap.h"
#include "shm/base.h"
#include "shm/check.h"

void tgd_heap_status(const struct tgd_heap *heap, struct tgd_heap_status *ret)
{
	const struct tgd_lease *lease = &heap->lease;

	*ret = (struct tgd_heap_status){
		.base = heap->view.map->base,
		.reserve_bytes = heap->view.geometry.n_pages * TGS_PAGE_SIZE,
		.limit_bytes =
			atomic_load_explicit(&heap->view.map->limit_bytes, memory_order_relaxed),
		.span_bytes = lease->n_pages * TGS_PAGE_SIZE,
		.peak_span_bytes = lease->peak_pages * TGS_PAGE_SIZE,
		.resident_bytes = tgd_backing_resident(&heap->backing),
		.huge_bytes = heap->backing.n_huge * TGD_HUGE_BYTES,
		.huge = heap->backing.huge_mode,
		.huge_refused = heap->backing.huge_rest_ns == UINT64_MAX,
		.idle_bytes = tgd_pages_free_backed(heap->pages) * TGS_PAGE_SIZE,
		.scavenged_bytes = atomic_load_explicit(&heap->view.map->scavenged_bytes,
							memory_order_relaxed),
		.largest_free_run_bytes = tgd_pages_largest_run(heap->pages) * TGS_PAGE_SIZE,
		.clients = heap->holders.n_live,
		.dead_clients = heap->holders.n_dead,
		.recovered_clients = tgd_holders_recovered(&heap->holders),
		.slots = heap->holders.n_slots,
		.spans = lease->n_spans,
		.orphan_spans = lease->n_orphans,
		.roots = heap->roots.n_roots,
		.refused = heap->n_refused,
	};
	ret->free_bytes = ret->limit_bytes - tgs_min(ret->limit_bytes, ret->span_bytes);
}

static void client_info(const struct tgd_heap *heap, uint32_t index, struct tgd_client_info *ret)
{
	const struct tgd_holder *holder = &heap->holders.table[index];
	const struct tgs_client *entry = tgd_holders_entry(&heap->holders, index);
	unsigned slot;

	*ret = (struct tgd_client_info){
		.id = holder->id,
		.pid = entry->pid,
		.start_time = entry->start_time,
		.uid = entry->uid,
		.gid = entry->gid,
		.flags = holder->flags,
		.dead = holder->state == TGS_CLIENT_DEAD,
		.threads = holder->n_slots - (holder->closet != TGS_SLOT_NONE),
	};
	memcpy(ret->name, entry->name, sizeof(ret->name));
	for (slot = holder->first_slot; slot != TGS_SLOT_NONE;
	     slot = heap->holders.slot[slot].next) {
		ret->spans += heap->lease.slot[slot].n_spans;
		ret->span_bytes += heap->lease.slot[slot].n_pages * TGS_PAGE_SIZE;
	}
}

int tgd_heap_client_get(const struct tgd_heap *heap, uint32_t client_id,
			struct tgd_client_info *ret)
{
	uint32_t index;
	int r = tgd_holders_find(&heap->holders, client_id, &index);

	if (r < 0)
		return r;
	client_info(heap, index, ret);
	return 0;
}

bool tgd_heap_client_after(const struct tgd_heap *heap, uint32_t client_id,
			   struct tgd_client_info *ret)
{
	uint32_t i = client_id ? (client_id & (TGS_CLIENTS_MAX - 1)) + 1 : 0;

	for (; i < heap->holders.n_used; i++) {
		if (heap->holders.table[i].state != TGS_CLIENT_FREE) {
			client_info(heap, i, ret);
			return true;
		}
	}
	return false;
}

void tgd_heap_classes(const struct tgd_heap *heap, struct tgd_class_info *ret)
{
	const struct tgd_lease *lease = &heap->lease;
	struct tgs_check_span counts;
	struct tgs_span span;
	uint64_t page = 0;
	char why[8];
	unsigned i;

	for (i = 0; i < TGS_CLASSES_ALL; i++)
		ret[i] = (struct tgd_class_info){
			.class = i,
			.size = tgs_classes[i].size,
			.spans = lease->class_spans[i],
			.orphans = lease->partial[i].n_spans + lease->full[i].n_spans,
			.slots = lease->class_spans[i] * tgs_classes[i].n_slots,
			.span_bytes = lease->class_pages[i] * TGS_PAGE_SIZE,
		};
	for (; tgd_lease_from(lease, page, &span); page = span.page + span.n_pages) {
		(void)tgs_check_span(&heap->view, &span, NULL, &counts, why, sizeof(why));
		ret[span.class].objects += counts.objects;
		ret[span.class].object_bytes += counts.object_bytes;
	}
}

bool tgd_heap_span_from(const struct tgd_heap *heap, uint64_t page, struct tgd_span_info *ret)
{
	struct tgs_check_span counts;
	struct tgs_span span;
	uint32_t client;
	char why[8];

	if (!tgd_lease_from(&heap->lease, page, &span))
		return false;
	(void)tgs_check_span(&heap->view, &span, NULL, &counts, why, sizeof(why));
	client = tgd_holders_client_of(&heap->holders, span.owner);
	*ret = (struct tgd_span_info){
		.page = span.page,
		.n_pages = span.n_pages,
		.class = span.class,
		.slot = span.owner,
		.client_id = client == TGD_HOLDER_NONE ? 0 : heap->holders.table[client].id,
		.objects = counts.objects,
		.slots = span.n_slots,
		.remote = counts.remote,
	};
	return true;
}

/* The class that has most pages of [page, end); `span` is the first span that reaches into it or
 * lies behind it, and is moved on.  False: no span is left. */
static bool main_class(const struct tgd_heap *heap, uint64_t page, uint64_t end,
		       struct tgs_span *span, uint32_t *ret_class)
{
	uint64_t pages[TGS_CLASSES_ALL] = {0};
	unsigned i, most = 0;
	bool any = true;

	while (any && span->page < end) {
		uint64_t from = tgs_max(span->page, page);
		uint64_t to = tgs_min(span->page + span->n_pages, end);

		pages[span->class] += to > from ? to - from : 0;
		if (span->page + span->n_pages > end)
			break;
		any = tgd_lease_from(&heap->lease, span->page + span->n_pages, span);
	}
	for (i = 1; i < TGS_CLASSES_ALL; i++) {
		if (pages[i] > pages[most])
			most = i;
	}
	*ret_class = most;
	return any;
}

unsigned tgd_heap_map(const struct tgd_heap *heap, unsigned n_cells, struct tgd_map_cell *ret,
		      uint64_t *ret_n_pages, uint64_t *ret_pages_per_cell)
{
	uint64_t end = heap->lease.end_page;
	uint64_t per_cell, page;
	struct tgs_span span;
	unsigned n = 0;
	bool any;

	if (end == 0 || n_cells == 0)
		return 0;
	per_cell = (end + n_cells - 1) / n_cells;
	any = tgd_lease_from(&heap->lease, 0, &span);
	for (page = 0; page < end; page += per_cell, n++) {
		uint64_t cell_end = tgs_min(page + per_cell, end);
		struct tgd_pages_count count;

		tgd_pages_count(heap->pages, page, cell_end - page, &count);
		ret[n] = (struct tgd_map_cell){
			.used = (uint32_t)count.in_use,
			.idle = (uint32_t)count.backed_free,
			.returned = (uint32_t)count.scavenged_free,
		};
		if (any)
			any = main_class(heap, page, cell_end, &span, &ret[n].class);
	}
	*ret_n_pages = end;
	*ret_pages_per_cell = per_cell;
	return n;
}

bool tgd_heap_root_from(const struct tgd_heap *heap, uint64_t index, struct tgd_root_info *ret)
{
	const struct tgs_root *root;
	struct tgs_object object;

	index = tgd_roots_from(&heap->roots, index);
	if (index == heap->roots.n_used)
		return false;
	root = tgd_roots_entry(&heap->roots, index);
	*ret = (struct tgd_root_info){
		.index = index,
		.ref = atomic_load_explicit(&root->ref, memory_order_relaxed),
	};
	memcpy(ret->name, root->name, sizeof(ret->name));
	/* The page had a live object, so its entry is no hole; the object may be gone since. */
	if (tgs_object_find(&heap->view, heap->view.base + ret->ref, &object) == TGS_FOUND &&
	    tgs_object_live(&heap->view, &object))
		ret->size = tgs_object_size(&heap->view, &object);
	return true;
}

/* The client's slots, by number. */
static unsigned list_slots(const struct tgd_heap *heap, uint32_t index, uint64_t after,
			   uint64_t *ret_pages, unsigned max, uint64_t *ret_next)
{
	const struct tgd_holders *holders = &heap->holders;
	uint64_t slot = tgs_max(after, TGS_SLOT_CENTRAL + 1);
	unsigned n = 0;

	*ret_next = 0;
	for (; slot < holders->slots_used; slot++) {
		if (tgd_holders_client_of(holders, (unsigned)slot) != index ||
		    slot == holders->table[index].closet)
			continue;
		if (n == max) {
			*ret_next = slot;
			break;
		}
		ret_pages[n++] = slot;
	}
	return n;
}

static int list_spans(struct tgd_heap *heap, unsigned slot, uint64_t after, uint64_t *ret_pages,
		      unsigned max, unsigned *ret_n, uint64_t *ret_next)
{
	uint32_t page = tgd_list_head(&heap->lease.slot[slot]);
	struct tgs_span span;
	unsigned n;

	if (after != 0) {
		if (!tgd_lease_at(&heap->lease, after - 1, &span) || span.owner != slot)
			return tgd_heap_fail(heap, -EINVAL,
					     "slot %u no longer holds a span at page %llu, after "
					     "which to list; ask again from the start",
					     slot, (unsigned long long)after - 1);
		page = tgd_lease_next(&heap->lease, (uint32_t)span.page);
	}
	for (n = 0; n < max && page != TGD_PAGE_NONE; n++) {
		ret_pages[n] = page;
		page = tgd_lease_next(&heap->lease, page);
	}
	*ret_n = n;
	*ret_next = page == TGD_PAGE_NONE ? 0 : ret_pages[n - 1] + 1;
	return 0;
}

int tgd_heap_holdings(struct tgd_heap *heap, uint32_t client_id, unsigned slot, uint64_t after,
		      uint64_t *ret_pages, unsigned max, unsigned *ret_n, uint64_t *ret_total,
		      uint64_t *ret_next)
{
	const struct tgd_holder *holder;
	uint32_t index;
	int r;

	if (max == 0)
		return tgd_heap_fail(heap, -EINVAL, "there is no room to list anything");
	if (slot == TGS_SLOT_NONE) {
		r = tgd_heap_find_client(heap, client_id, &index);
		if (r < 0)
			return r;
		holder = &heap->holders.table[index];
		*ret_n = list_slots(heap, index, after, ret_pages, max, ret_next);
		*ret_total = holder->n_slots - (holder->closet != TGS_SLOT_NONE);
		return 0;
	}
	r = tgd_heap_find_slot(heap, client_id, slot, &index);
	if (r == 0)
		r = list_spans(heap, slot, after, ret_pages, max, ret_n, ret_next);
	if (r == 0)
		*ret_total = heap->lease.slot[slot].n_spans;
	return r;
}
