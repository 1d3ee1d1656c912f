/* heap-ahead.c - while the heap grows, memory for the next grants is made between requests.
 *
 * To make it takes longer than all the rest of a grant, and the client that waits for a grant does nothing meanwhile. So a
 * grant that had to make memory is followed by some more of it, in slices between other events: a 128th of what is in spans.
 * It goes to the lowest free pages, which are granted first; of a heap that is large already to the lowest 2 MiB that can
 * be a huge page.  Nothing of it is needed for any promise: if there is no memory, or the limit is near, it just ends.
 */
#include "daemon/heap-impl.h"
#include "shm/base.h"

#define AHEAD_PART      128u
#define AHEAD_PAGES_MAX 256u /* 2 MiB */
#define SLICE_PAGES     16u  /* some 50 us */

bool tgd_heap_back_ahead(struct tgd_heap *heap)
{
	uint64_t want = tgs_min(heap->lease.n_pages / AHEAD_PART, AHEAD_PAGES_MAX);
	uint64_t idle = tgd_pages_free_backed(heap->pages), page, n, scavenged;
	bool backed;

	if (!heap->grows)
		return false;
	heap->grows = false;
	want = tgd_heap_huge_ahead(heap, want);
	if (idle >= want)
		return false;
	heap->grows = tgd_heap_huge_back_ahead(heap);
	if (heap->grows)
		return true;
	if (heap->lease.n_pages + idle + SLICE_PAGES > heap->limit_pages ||
	    tgd_pages_alloc(heap->pages, want, 1, &page, &scavenged) < 0)
		return false;
	/* The first piece without memory, if there is one among them. */
	n = tgd_backing_run(&heap->backing, page, want, &backed);
	n = backed ? n : 0;
	if (n < want)
		heap->grows = tgd_backing_more(&heap->backing, page + n,
					       tgs_min(want - n, SLICE_PAGES)) == 0;
	tgd_heap_give_back(heap, page, want);
	return heap->grows;
}
