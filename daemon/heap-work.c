/* heap-work.c - the limit, and what a heap does by itself: settling the dead, sweeping, giving
 * memory back. */
#include <errno.h>
#include <stdatomic.h>

#include "daemon/heap-impl.h"
#include "daemon/heap.h"
#include "shm/base.h"

/* One call of tgd_heap_work: spans settled, words of central's dirty map read (64 pages each). */
#define WORK_SPANS 256
#define WORK_WORDS 65536

#define SWEEP_MIN_MS 20
#define SWEEP_MAX_MS 1000

int tgd_heap_set_limit(struct tgd_heap *heap, uint64_t bytes)
{
	struct tgs_map_header *header = (struct tgs_map_header *)(uintptr_t)heap->view.map;
	uint64_t reserve = heap->view.geometry.n_pages * TGS_PAGE_SIZE;
	uint64_t used = heap->lease.n_pages * TGS_PAGE_SIZE;
	uint64_t idle = tgd_pages_free_backed(heap->pages);
	uint64_t all;

	if (bytes < TGS_PAGE_SIZE || bytes > reserve)
		return tgd_heap_fail(heap, -EINVAL,
				     "a limit of %llu bytes is not between %u (a page) and %llu "
				     "(the reservation)",
				     (unsigned long long)bytes, TGS_PAGE_SIZE,
				     (unsigned long long)reserve);
	if (bytes < used)
		return tgd_heap_fail(
			heap, -EBUSY,
			"a limit of %llu bytes is below the %llu bytes in use; try trim first",
			(unsigned long long)bytes, (unsigned long long)used);
	heap->limit_pages = bytes / TGS_PAGE_SIZE;
	atomic_store_explicit(&header->limit_bytes, bytes, memory_order_relaxed);
	all = heap->lease.n_pages + idle;
	if (all > heap->limit_pages)
		(void)tgd_scavenge_force(&heap->scavenge, all - heap->limit_pages);
	return 0;
}

void tgd_heap_press(struct tgd_heap *heap)
{
	struct tgs_map_header *header = (struct tgs_map_header *)(uintptr_t)heap->view.map;

	atomic_fetch_add_explicit(&header->trim_epoch, 1, memory_order_relaxed);
}

uint64_t tgd_heap_trim(struct tgd_heap *heap)
{
	uint64_t state = heap->scavenge.state_bytes;
	uint64_t pages;

	while (tgd_reclaim_work(&heap->reclaim, WORK_SPANS))
		;
	tgd_central_sweep_all(&heap->central);
	pages = tgd_scavenge_force(&heap->scavenge, UINT64_MAX);
	tgd_heap_press(heap);
	return pages * TGS_PAGE_SIZE + heap->scavenge.state_bytes - state;
}

/* Central's spans get freed into without a message, so somebody has to look; less often when
 * nothing was found. */
static int sweep(struct tgd_heap *heap, uint64_t now_ms)
{
	bool done;

	if (heap->lease.n_orphans == 0 && heap->holders.n_closets == 0)
		return -1;
	if (now_ms < heap->sweep_at_ms)
		return (int)(heap->sweep_at_ms - now_ms);
	if (tgd_central_sweep(&heap->central, WORK_WORDS, &done) +
		    tgd_central_sweep_closets(&heap->central) >
	    0)
		heap->sweep_wait_ms = 0;
	if (!done)
		return 0;
	heap->sweep_wait_ms = tgs_min(tgs_max(2 * heap->sweep_wait_ms, SWEEP_MIN_MS), SWEEP_MAX_MS);
	heap->sweep_at_ms = now_ms + heap->sweep_wait_ms;
	return (int)heap->sweep_wait_ms;
}

int tgd_heap_work(struct tgd_heap *heap, uint64_t now_ms)
{
	int sweep_ms, scavenge_ms;

	if (tgd_heap_back_ahead(heap) || tgd_reclaim_work(&heap->reclaim, WORK_SPANS))
		return 0;
	sweep_ms = sweep(heap, now_ms);
	scavenge_ms = tgd_scavenge_work(&heap->scavenge, now_ms);
	if (sweep_ms < 0 || scavenge_ms < 0)
		return sweep_ms < 0 ? scavenge_ms : sweep_ms;
	return (int)tgs_min((uint64_t)sweep_ms, (uint64_t)scavenge_ms);
}
