/* heap-huge.c - which pieces of the heap are made huge pages (daemon/backing-huge.c): --huge.
 *
 *   auto    what is asked for in one and has pieces of 2 MiB in it: costs no more memory.  What is made ahead of a heap that
 *           grows: has up to 2 MiB more than is needed, but only when that is little against the heap.
 *   always  every piece in which something is granted, whatever else of it is free then, and however long it takes.
 *
 * What cannot be had as a huge page is made of small ones, by the same grant.
 */
#include "daemon/heap-impl.h"
#include "shm/base.h"

#define AHEAD_MIN_PAGES 16384u /* 128 MiB */
/* What is longer may never be touched all over, and others would wait for it (daemon/backing.c). */
#define GRANT_MAX_PAGES (UINT64_C(32) << 20 >> TGS_PAGE_SHIFT)

void tgd_heap_set_huge(struct tgd_heap *heap, enum tgd_huge_mode mode)
{
	heap->backing.huge_mode = mode;
	/* Of the piece that is in use at the end of the heap, and of the next one, nothing goes back. */
	heap->scavenge.spare_pages = mode == TGD_HUGE_ALWAYS ? 2 * TGD_HUGE_PAGES : 0;
}

/* The pages of a piece that lie before and behind a run, taken so that nobody else has them meanwhile. */
struct rest {
	uint64_t before, behind; /* how many */
	uint64_t end;            /* of the run, in the piece */
};

static bool take_free(struct tgd_heap *heap, uint64_t page, uint64_t n)
{
	uint64_t scavenged;

	return n == 0 || tgd_pages_alloc_at(heap->pages, page, n, &scavenged) == 0;
}

/* False: some of them are in use, or would be more than the limit allows. */
static bool take_rest(struct tgd_heap *heap, uint64_t piece, const struct rest *rest)
{
	uint64_t all = tgd_pages_in_use(heap->pages) + tgd_pages_free_backed(heap->pages);

	if (rest->before + rest->behind == 0)
		return true;
	if (heap->backing.huge_mode != TGD_HUGE_ALWAYS ||
	    all + rest->before + rest->behind > heap->limit_pages ||
	    !take_free(heap, piece, rest->before))
		return false;
	if (take_free(heap, rest->end, rest->behind))
		return true;
	tgd_heap_give_back(heap, piece, rest->before);
	return false;
}

void tgd_heap_huge_grant(struct tgd_heap *heap, uint64_t page, uint64_t n_pages)
{
	uint64_t end = page + n_pages, piece;
	int r = 0;

	if (heap->backing.huge_mode == TGD_HUGE_NEVER || n_pages > GRANT_MAX_PAGES)
		return;
	for (piece = tgs_round_down(page, TGD_HUGE_PAGES); piece < end && r == 0;
	     piece += TGD_HUGE_PAGES) {
		uint64_t first = tgs_max(page, piece), last = tgs_min(end, piece + TGD_HUGE_PAGES);
		struct rest rest = {first - piece, piece + TGD_HUGE_PAGES - last, last};
		bool backed;

		if (tgd_backing_run(&heap->backing, first, last - first, &backed) == last - first &&
		    backed)
			continue;
		if (!tgd_backing_huge_now(&heap->backing) || !take_rest(heap, piece, &rest))
			continue;
		r = tgd_backing_huge(&heap->backing, piece);
		tgd_heap_give_back(heap, piece, rest.before);
		tgd_heap_give_back(heap, rest.end, rest.behind);
	}
}

uint64_t tgd_heap_huge_ahead(struct tgd_heap *heap, uint64_t want)
{
	return heap->backing.huge_mode == TGD_HUGE_ALWAYS ? tgs_max(want, TGD_HUGE_PAGES / 4)
							  : want;
}

bool tgd_heap_huge_back_ahead(struct tgd_heap *heap)
{
	uint64_t all = heap->lease.n_pages + tgd_pages_free_backed(heap->pages), page, scavenged;
	int r = -1;

	if (heap->backing.huge_mode != TGD_HUGE_ALWAYS && all < AHEAD_MIN_PAGES)
		return false;
	if (!tgd_backing_huge_now(&heap->backing) || all + TGD_HUGE_PAGES > heap->limit_pages ||
	    tgd_pages_alloc(heap->pages, TGD_HUGE_PAGES, TGD_HUGE_PAGES, &page, &scavenged) < 0)
		return false;
	if (scavenged > 0)
		r = tgd_backing_huge(&heap->backing, page);
	tgd_heap_give_back(heap, page, TGD_HUGE_PAGES);
	return r == 0;
}
