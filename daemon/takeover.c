/* takeover.c - a heap made again from the two files of a daemon that has died.
 *
 * The page map, the client table, the slot table, the roots and the header are all there is to
 * know; each change of them was made in an order that says how far it got.  Nothing is guessed at:
 *
 *   1. all is looked at; what cannot be is refused, and nothing changed (takeover-map.c,
 *      takeover-tables.c)
 *   2. clients, slots and roots are taken in (holders.c, roots.c)
 *   3. spans: half made and half ended ones end, half moved ones arrive, the others get into their
 *      holder's list
 *   4. memory that belongs to nothing goes back to the kernel (backing-find.c)
 *   5. a root that was being set: its object is published
 *   6. what no thread owns is harvested: a free whose hint the dead daemon had taken is not lost
 *   7. the dead clients queue up again
 *
 * Clients go on working on what they hold meanwhile.  The time is linear in spans, clients and free
 * runs; it does not grow with the reservation, nor with the objects in the spans of clients.
 */
#include "daemon/takeover.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "shm/base.h"

/* Spans side by side go to the page heap as one. */
struct run {
	uint64_t page, end;
};

static int take_run(struct tgd_heap *heap, struct run *run)
{
	uint64_t scavenged;
	int r = 0;

	if (run->end > run->page)
		r = tgd_pages_alloc_at(heap->pages, run->page, run->end - run->page, &scavenged);
	run->page = run->end;
	return r;
}

/* A span of its group was told of the memory that their words have, and it was not. */
static bool lacks_bit(const struct tgd_heap *heap, const struct tgs_span *span)
{
	unsigned kind = tgs_classes[span->class].kind;

	return tgs_is_dense(kind) && !tgs_has_more(&heap->view, kind, span->page) &&
	       tgd_backing_has_words(&heap->backing, kind, span->page);
}

static void take_span(struct tgd_heap *heap, struct tgd_takeover_span *found)
{
	struct tgs_span *span = &found->span;

	/* Closed slots hold nothing, so a span of one would be no client's and, unharvested, for
	 * ever. */
	if (span->owner != TGS_SLOT_CENTRAL &&
	    tgd_holders_client_of(&heap->holders, span->owner) == TGD_HOLDER_NONE) {
		span->owner = TGS_SLOT_CENTRAL;
		found->half_moved = true;
	}
	/* First what has memory, which the entries say, then the entries. */
	tgd_backing_found_span(&heap->backing, span->page, span->n_pages, span->class);
	if (found->half_moved || lacks_bit(heap, span))
		tgd_lease_finish_move(&heap->lease, span);
	tgd_lease_found(&heap->lease, span);
}

static int take_spans(struct tgd_takeover *takeover)
{
	struct tgd_heap *heap = takeover->heap;
	struct tgd_takeover_span found;
	struct run run = {0};
	uint64_t page = 0;
	int r;

	while ((r = tgd_takeover_next(takeover, page, &found)) > 0) {
		struct tgs_span *span = &found.span;

		page = span->page + span->n_pages;
		if (span->class != 0 && found.n_entries < span->n_pages) {
			/* Its pages are free, and their state is cleared with that of all that
			 * are. */
			tgd_lease_finish_end(&heap->lease, span, found.n_entries);
			continue;
		}
		take_span(heap, &found);
		if (span->page != run.end) {
			r = take_run(heap, &run);
			if (r < 0)
				return r;
			run.page = span->page;
		}
		run.end = page;
	}
	return r < 0 ? r : take_run(heap, &run);
}

static int rebuild(struct tgd_takeover *takeover)
{
	struct tgd_heap *heap = takeover->heap;
	struct tgs_map_header *header = (struct tgs_map_header *)(uintptr_t)heap->view.map;
	uint32_t i;
	int r;

	heap->limit_pages =
		atomic_load_explicit(&header->limit_bytes, memory_order_relaxed) / TGS_PAGE_SIZE;
	tgd_backing_found_state(&heap->backing, 0, TGS_OS_PAGE);
	tgd_holders_adopt(&heap->holders, &heap->view, &heap->backing);
	tgd_roots_adopt(&heap->roots, &heap->view, &heap->backing);
	r = take_spans(takeover);
	if (r < 0)
		return r;
	r = tgd_backing_drop_rest(&heap->backing, heap->lease.end_page);
	if (r < 0) {
		snprintf(takeover->why, takeover->why_size,
			 "cannot give back the memory that belongs to nothing: %s", strerror(-r));
		return r;
	}
	tgd_heap_finish_root(heap);
	/* Some spans may have come to central just now: see the head of central.h. */
	atomic_thread_fence(memory_order_seq_cst);
	tgd_central_sweep_all(&heap->central);
	for (i = 0; i < heap->holders.n_used; i++) {
		if (heap->holders.table[i].state == TGS_CLIENT_DEAD)
			tgd_reclaim_add(&heap->reclaim, i);
	}
	tgd_scavenge_note(&heap->scavenge);
	atomic_fetch_add_explicit(&header->daemon_epoch, 1, memory_order_relaxed);
	return 0;
}

static int adopt(struct tgd_takeover *takeover, const char *name)
{
	struct tgd_heap *heap = takeover->heap;
	int r;

	r = tgd_heap_open(heap, takeover->why, takeover->why_size);
	if (r == 0)
		r = tgd_backing_find(&heap->backing);
	if (r == 0)
		r = tgd_takeover_check_tables(takeover, name);
	if (r == 0)
		r = tgd_takeover_check_map(takeover);
	return r == 0 ? rebuild(takeover) : r;
}

int tgd_heap_adopt(struct tgd_heap **ret, int map_fd, int heap_fd, const char *name, char *why,
		   size_t why_size)
{
	struct tgd_takeover takeover = {.why = why, .why_size = why_size};
	int r = -ENOMEM;

	why[0] = '\0';
	takeover.heap = tgd_heap_alloc(map_fd, heap_fd);
	if (takeover.heap)
		r = adopt(&takeover, name);
	if (r < 0) {
		if (why[0] == '\0')
			snprintf(why, why_size, "cannot take the heap over: %s", strerror(-r));
		if (!takeover.heap) {
			tgs_close_fd(&map_fd);
			tgs_close_fd(&heap_fd);
		}
		tgd_heap_free(takeover.heap);
		return r;
	}
	*ret = takeover.heap;
	return 0;
}
