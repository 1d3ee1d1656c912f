/* heap-spans.c - spans given to slots and taken back.
 *
 * A grant, in this order: pages are chosen, they and their state are backed, the page map entries
 * are written, the reply is sent (by the caller).  Whatever fails before the entries leaves
 * everything as it was, but for pages that have memory now and stay idle.
 *
 * Before a request is refused for want of memory, the heap does all it can at once: settles the
 * dead, sweeps central, gives idle pages back (they may be the wrong ones), and asks the clients
 * for what they hoard.
 */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "daemon/heap-impl.h"
#include "daemon/heap.h"
#include "shm/base.h"

/* Clients are asked at most this often. */
#define PRESS_MS 100

void tgd_heap_give_back(struct tgd_heap *heap, uint64_t page, uint64_t n_pages)
{
	while (n_pages > 0) {
		bool backed;
		uint64_t n = tgd_backing_run(&heap->backing, page, n_pages, &backed);

		tgd_pages_release(heap->pages, page, n, !backed);
		page += n;
		n_pages -= n;
	}
}

/* Backed pages become a span's.  True: they are zero, since they have never been used. */
static bool use(struct tgd_heap *heap, uint64_t page, uint64_t n_pages)
{
	bool zero = tgd_backing_use(&heap->backing, page, n_pages);

	heap->grows |= zero;
	if (zero)
		tgd_scavenge_made(&heap->scavenge, n_pages);
	return zero;
}

/* Pages in use and idle ones together stay under the limit, as far as idle ones can help it. */
static void keep_limit(struct tgd_heap *heap)
{
	uint64_t all = tgd_pages_in_use(heap->pages) + tgd_pages_free_backed(heap->pages);

	if (all > heap->limit_pages)
		(void)tgd_scavenge_force(&heap->scavenge, all - heap->limit_pages);
}

/* A run of pages that has been taken is about to get memory. */
static void prepare(struct tgd_heap *heap, uint64_t page, uint64_t n_pages)
{
	keep_limit(heap);
	tgd_heap_huge_grant(heap, page, n_pages);
}

/* What may be added to the spans. */
static uint64_t pages_left(const struct tgd_heap *heap)
{
	return heap->limit_pages - tgs_min(heap->limit_pages, heap->lease.n_pages);
}

/* New spans of a small class: some of `count`, or as many as there is memory for.  Returns how many. */
static unsigned grow(struct tgd_heap *heap, unsigned class, unsigned slot, unsigned count,
		     struct tgd_grant *ret)
{
	uint64_t n_pages = tgs_classes[class].n_pages;
	uint64_t page;
	unsigned i;

	for (count = (unsigned)tgs_min(count, pages_left(heap) / n_pages); count > 0; count /= 2) {
		count = tgd_heap_choose(heap, class, count, &page);
		if (count == 0)
			break;
		prepare(heap, page, n_pages * count);
		if (tgd_backing_spans(&heap->backing, page, n_pages, count, class) == 0)
			break;
		tgd_heap_give_back(heap, page, n_pages * count);
	}
	for (i = 0; i < count; i++, page += n_pages) {
		bool zero = use(heap, page, n_pages);

		tgd_lease_create(&heap->lease, page, n_pages, class, slot);
		ret[i] = (struct tgd_grant){.page = page,
					    .free = class == TGS_CLASS_TINY
							    ? TGS_PAGE_SIZE / 16
							    : tgs_classes[class].n_slots,
					    .zero = zero};
	}
	if (count > 0)
		tgd_backing_drop_others(&heap->backing, page - n_pages * count, n_pages * count,
					tgs_classes[class].kind);
	tgd_scavenge_note(&heap->scavenge);
	return count;
}

static unsigned take_or_grow(struct tgd_heap *heap, unsigned class, unsigned slot, unsigned closet,
			     unsigned count, struct tgd_grant *ret)
{
	unsigned n = 0, more = 1;

	while (n < count && tgd_central_take(&heap->central, class, slot, closet, &ret[n]))
		n++;
	for (; n < count && more > 0; n += more)
		more = grow(heap, class, slot, count - n, ret + n);
	return n;
}

void tgd_heap_make_room(struct tgd_heap *heap)
{
	struct timespec now;
	uint64_t now_ms;
	bool done;

	while (tgd_reclaim_work(&heap->reclaim, 1024) && pages_left(heap) == 0)
		;
	heap->central.cursor = 0;
	(void)tgd_central_sweep(&heap->central, UINT64_MAX, &done);
	(void)tgd_central_sweep_closets(&heap->central);
	(void)tgd_scavenge_force(&heap->scavenge, UINT64_MAX);

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	if (heap->pressed_at_ms == 0 || now_ms - heap->pressed_at_ms >= PRESS_MS) {
		tgd_heap_press(heap);
		heap->pressed_at_ms = now_ms;
	}
}

/* Says which of the three bounds was met. */
static int refuse(struct tgd_heap *heap, uint64_t n_pages)
{
	unsigned long long wanted = n_pages * TGS_PAGE_SIZE;

	heap->n_refused++;
	if (n_pages > pages_left(heap))
		return tgd_heap_fail(
			heap, -ENOMEM,
			"%llu bytes more are over the limit of %llu bytes: %llu are in use", wanted,
			(unsigned long long)heap->limit_pages * TGS_PAGE_SIZE,
			(unsigned long long)heap->lease.n_pages * TGS_PAGE_SIZE);
	if (n_pages > tgd_pages_largest_run(heap->pages))
		return tgd_heap_fail(heap, -ENOMEM,
				     "no run of %llu bytes is free in the heap's address range",
				     wanted);
	return tgd_heap_fail(heap, -ENOMEM, "the machine or the cgroup has no %llu bytes to spare",
			     wanted);
}

int tgd_heap_get_spans(struct tgd_heap *heap, uint32_t client_id, unsigned slot, unsigned class,
		       unsigned count, struct tgd_grant *ret, unsigned *ret_n)
{
	unsigned closet, n;
	uint32_t index;
	int r = tgd_heap_find_slot(heap, client_id, slot, &index);

	if (r < 0)
		return r;
	if (class < 2 || class > TGS_CLASS_TINY)
		return tgd_heap_fail(heap, -EINVAL, "no spans of class %u are given", class);
	if (count == 0)
		return tgd_heap_fail(heap, -EINVAL, "no spans were asked for");

	closet = heap->holders.table[index].closet;
	n = take_or_grow(heap, class, slot, closet, count, ret);
	if (n == 0) {
		tgd_heap_make_room(heap);
		n = take_or_grow(heap, class, slot, closet, count, ret);
	}
	if (n == 0)
		return refuse(heap, tgs_classes[class].n_pages);
	*ret_n = n;
	return 0;
}

unsigned tgd_heap_get_one_each(struct tgd_heap *heap, uint32_t client_id, unsigned slot,
			       const uint32_t *classes, size_t n_classes, struct tgd_grant *ret)
{
	unsigned n = 0, closet;
	uint32_t index;
	size_t i;

	if (tgd_heap_find_slot(heap, client_id, slot, &index) < 0)
		return 0;
	closet = heap->holders.table[index].closet;
	for (i = 0; i < n_classes; i++) {
		unsigned class = classes[i];

		if (class < 2 || class > TGS_CLASS_TINY ||
		    take_or_grow(heap, class, slot, closet, 1, &ret[n]) == 0)
			continue;
		ret[n++].class = (uint8_t) class;
	}
	return n;
}

int tgd_heap_put_spans(struct tgd_heap *heap, uint32_t client_id, unsigned slot,
		       const uint64_t *pages, size_t n)
{
	struct tgs_span span;
	uint32_t index;
	size_t i, j;
	int r = tgd_heap_find_slot(heap, client_id, slot, &index);

	if (r < 0)
		return r;
	/* All are looked at before any is touched.  n is small: what fits into a message. */
	for (i = 0; i < n; i++) {
		if (!tgd_lease_at(&heap->lease, pages[i], &span) || span.owner != slot)
			return tgd_heap_fail(heap, -EINVAL,
					     "no span of slot %u starts at page %llu", slot,
					     (unsigned long long)pages[i]);
		for (j = 0; j < i; j++) {
			if (pages[j] == pages[i])
				return tgd_heap_fail(heap, -EINVAL, "page %llu is named twice",
						     (unsigned long long)pages[i]);
		}
	}
	for (i = 0; i < n; i++) {
		if (!tgd_lease_at(&heap->lease, pages[i], &span))
			continue;
		if (span.class == 0)
			tgd_scavenge_long(&heap->scavenge, span.n_pages);
		tgd_central_put(&heap->central, &span, heap->holders.table[index].closet);
	}
	return 0;
}

/* A run whose address is a multiple of so many pages.  Page 0 lies at a multiple of 4 MiB and no
 * more, so beyond that page numbers do not tell: a longer run is taken, and what is too much goes
 * back. */
static int alloc_aligned(struct tgd_heap *heap, uint64_t n_pages, uint64_t align, uint64_t *ret)
{
	uint64_t zero_page = (uint64_t)(uintptr_t)heap->view.data >> TGS_PAGE_SHIFT;
	uint64_t page, skip, scavenged;
	int r;

	if (align == 1)
		return tgd_heap_choose_large(heap, n_pages, ret);
	if (align <= TGS_CHUNK_PAGES)
		return tgd_pages_alloc(heap->pages, n_pages, align, ret, &scavenged);
	if (align > heap->view.geometry.n_pages)
		return -ENOMEM;
	r = tgd_pages_alloc(heap->pages, n_pages + align - TGS_CHUNK_PAGES, TGS_CHUNK_PAGES, &page,
			    &scavenged);
	if (r < 0)
		return r;
	skip = -(zero_page + page) & (align - 1);
	tgd_heap_give_back(heap, page, skip);
	tgd_heap_give_back(heap, page + skip + n_pages, align - TGS_CHUNK_PAGES - skip);
	*ret = page + skip;
	return 0;
}

static int try_large(struct tgd_heap *heap, unsigned slot, uint64_t n_pages, uint64_t align,
		     struct tgd_grant *ret)
{
	uint64_t page;
	int r;

	if (n_pages > pages_left(heap))
		return -ENOMEM;
	r = alloc_aligned(heap, n_pages, align, &page);
	if (r < 0)
		return r;
	prepare(heap, page, n_pages);
	r = tgd_backing_spans(&heap->backing, page, n_pages, 1, 0);
	if (r < 0) {
		tgd_heap_give_back(heap, page, n_pages);
		return r;
	}
	*ret = (struct tgd_grant){.page = page, .free = 1};
	ret->zero = use(heap, page, n_pages);
	tgd_lease_create(&heap->lease, page, n_pages, 0, slot);
	tgd_scavenge_note(&heap->scavenge);
	return 0;
}

int tgd_heap_get_large(struct tgd_heap *heap, uint32_t client_id, unsigned slot, uint64_t n_pages,
		       uint64_t align_pages, struct tgd_grant *ret)
{
	uint64_t align = align_pages ? align_pages : 1;
	uint32_t index;
	int r = tgd_heap_find_slot(heap, client_id, slot, &index);

	if (r < 0)
		return r;
	if (n_pages == 0)
		return tgd_heap_fail(heap, -EINVAL, "a span has at least one page");
	if (!tgs_is_power_of_two(align))
		return tgd_heap_fail(heap, -EINVAL, "an alignment of %llu pages is no power of two",
				     (unsigned long long)align);
	if (n_pages > heap->view.geometry.n_pages)
		return refuse(heap, n_pages);
	r = try_large(heap, slot, n_pages, align, ret);
	if (r < 0) {
		tgd_heap_make_room(heap);
		r = try_large(heap, slot, n_pages, align, ret);
	}
	return r < 0 ? refuse(heap, n_pages) : 0;
}

/* Large spans side by side: as many of `count` as can be had at once. */
static unsigned grow_large(struct tgd_heap *heap, unsigned slot, uint64_t n_pages, unsigned count,
			   struct tgd_grant *ret)
{
	uint64_t page;
	unsigned i;
	int r = 0;

	for (count = (unsigned)tgs_min(count, pages_left(heap) / n_pages); count > 1; count /= 2) {
		if (tgd_heap_choose_large(heap, n_pages * count, &page) < 0)
			continue;
		prepare(heap, page, n_pages * count);
		for (i = 0; i < count && r == 0; i++)
			r = tgd_backing_spans(&heap->backing, page + i * n_pages, n_pages, 1, 0);
		if (r == 0)
			break;
		tgd_heap_give_back(heap, page, n_pages * count);
		return 0;
	}
	for (i = 0; count > 1 && i < count; i++, page += n_pages) {
		ret[i] = (struct tgd_grant){.page = page, .free = 1};
		ret[i].zero = use(heap, page, n_pages);
		tgd_lease_create(&heap->lease, page, n_pages, 0, slot);
	}
	tgd_scavenge_note(&heap->scavenge);
	return count > 1 ? count : 0;
}

int tgd_heap_get_larges(struct tgd_heap *heap, uint32_t client_id, unsigned slot, uint64_t n_pages,
			unsigned count, struct tgd_grant *ret, unsigned *ret_n)
{
	uint32_t index;
	int r = tgd_heap_find_slot(heap, client_id, slot, &index);

	if (r < 0)
		return r;
	*ret_n = 0;
	if (n_pages != 0)
		*ret_n = grow_large(heap, slot, n_pages, count, ret);
	if (*ret_n != 0)
		return 0;
	*ret_n = 1;
	return tgd_heap_get_large(heap, client_id, slot, n_pages, 1, ret);
}

static int lengthen(struct tgd_heap *heap, struct tgs_span *span, uint64_t n_pages, bool *ret_zero)
{
	uint64_t end = span->page + span->n_pages, more = n_pages - span->n_pages, scavenged;

	if (more > pages_left(heap) || tgd_pages_alloc_at(heap->pages, end, more, &scavenged) < 0)
		return -ENOMEM;
	prepare(heap, end, more);
	if (tgd_backing_more(&heap->backing, end, more) < 0) {
		tgd_heap_give_back(heap, end, more);
		return -ENOMEM;
	}
	*ret_zero = use(heap, end, more);
	tgd_lease_resize(&heap->lease, span, n_pages);
	tgd_scavenge_note(&heap->scavenge);
	return 0;
}

int tgd_heap_resize(struct tgd_heap *heap, uint32_t client_id, unsigned slot, uint64_t page,
		    uint64_t n_pages, struct tgd_grant *ret)
{
	struct tgs_span span;
	bool zero = false;
	uint32_t index;
	int r = tgd_heap_find_slot(heap, client_id, slot, &index);

	if (r < 0)
		return r;
	if (!tgd_lease_at(&heap->lease, page, &span) || span.owner != slot || span.class != 0)
		return tgd_heap_fail(heap, -EINVAL, "no large span of slot %u starts at page %llu",
				     slot, (unsigned long long)page);
	if (n_pages == 0)
		return tgd_heap_fail(heap, -EINVAL, "a span has at least one page");
	if (n_pages > heap->view.geometry.n_pages)
		return refuse(heap, n_pages);
	if (n_pages > span.n_pages && lengthen(heap, &span, n_pages, &zero) < 0) {
		heap->n_refused += n_pages - span.n_pages > pages_left(heap);
		return tgd_heap_fail(heap, -ENOMEM,
				     "the span cannot have %llu pages where it stands",
				     (unsigned long long)n_pages);
	}
	if (n_pages < span.n_pages)
		tgd_lease_resize(&heap->lease, &span, n_pages);
	*ret = (struct tgd_grant){.page = page, .zero = zero};
	return 0;
}
