/* heap-state.c - memory for the published and remote words of dense and tiny spans, put there when
 * somebody is about to write them.
 *
 * Most small objects are freed by the thread that made them, and never published: their spans need
 * the taken bytes or words only.  A process that wants to write the others asks here first.  It need
 * not own the span; what it can cause is 4 KiB for a tiny span that there is, or for 16 pages with
 * dense ones, once.  The limit counts pages in
 * spans, so it is no reason to refuse; that the machine or the cgroup has nothing left is one, and
 * then even the margin that grants leave (daemon/headroom.h) is used up.
 *
 * Who frees one object of a thread's will free others: spans near the one asked for, in the list of
 * its holder, can be done in the same go, those granted after it first: those of its kind, each with all
 * that share a block with it.  They do not get at the margin.
 */
#include <errno.h>

#include "daemon/heap-impl.h"
#include "daemon/heap.h"
#include "shm/base.h"

/* How many spans of the list are looked at for the sake of `ahead`, each way. */
#define LOOK_MAX 512

static unsigned kind_of(const struct tgs_span *span)
{
	return tgs_classes[span->class].kind;
}

static bool span_at(const struct tgd_heap *heap, uint64_t page, struct tgs_span *ret)
{
	return tgd_lease_at(&heap->lease, page, ret) && kind_of(ret) != TGS_SPARSE;
}

/* The neighbours of a span in its list, one way.  Returns how many of `ahead` are left to do. */
static unsigned back_neighbours(struct tgd_heap *heap, const struct tgs_span *of, unsigned ahead,
				uint32_t (*step)(const struct tgd_lease *, uint32_t))
{
	uint32_t at = step(&heap->lease, (uint32_t)of->page);
	unsigned kind = kind_of(of);
	struct tgs_span span;
	int i;

	for (i = 0; i < LOOK_MAX && ahead > 0 && at != TGD_PAGE_NONE; i++) {
		if (span_at(heap, at, &span) && kind_of(&span) == kind &&
		    !tgs_has_more(&heap->view, kind, at)) {
			if (tgd_lease_back_more(&heap->lease, &span, false) < 0)
				return 0;
			ahead--;
		}
		at = step(&heap->lease, at);
	}
	return ahead;
}

static int no_span(struct tgd_heap *heap, uint64_t page)
{
	return tgd_heap_fail(heap, -EINVAL, "no tiny or dense span starts at page %llu",
			     (unsigned long long)page);
}

static int back_one(struct tgd_heap *heap, uint64_t page)
{
	struct tgs_span span;

	if (!span_at(heap, page, &span))
		return no_span(heap, page);
	if (tgd_lease_back_more(&heap->lease, &span, true) == 0)
		return 0;
	/* Empty spans may end in there. */
	tgd_heap_make_room(heap);
	if (!span_at(heap, page, &span))
		return no_span(heap, page);
	if (tgd_lease_back_more(&heap->lease, &span, true) == 0)
		return 0;
	heap->n_refused++;
	return tgd_heap_fail(heap, -ENOMEM,
			     "the machine or the cgroup has no %u bytes to spare for the state of "
			     "the span at page %llu",
			     TGS_OS_PAGE, (unsigned long long)page);
}

int tgd_heap_back_state(struct tgd_heap *heap, const uint64_t *pages, size_t n, unsigned ahead)
{
	struct tgs_span span;
	size_t i;
	int r;

	for (i = 0; i < n; i++) {
		if (!span_at(heap, pages[i], &span))
			return no_span(heap, pages[i]);
	}
	for (i = 0; i < n; i++) {
		r = back_one(heap, pages[i]);
		if (r < 0)
			return r;
	}
	ahead = (unsigned)tgs_min(ahead, TGD_STATE_AHEAD_MAX);
	if (n == 0 || !span_at(heap, pages[n - 1], &span))
		return 0;
	ahead = back_neighbours(heap, &span, ahead, tgd_lease_prev);
	(void)back_neighbours(heap, &span, ahead, tgd_lease_next);
	return 0;
}
