/* heap-place.c - which free pages become the next spans of small objects.
 *
 * Idle pages first, since they have memory; else the lowest.  But spans whose state is of one kind are to lie together: that
 * state gets memory in blocks of 4 KiB, which belong to 32, 16 or 8 dense spans, or to 4 tiny ones, and are half empty where
 * others lie between them.  So 16 pages are a group (32 for a kind of which so many share a block), and the first dense or
 * tiny span in it makes it one of that kind, until its state has no memory any more.  Spans of the kind go there, others
 * elsewhere, as long as not much lies idle: that idle pages are used is worth more than that groups are kept apart.
 */
#include "daemon/heap-impl.h"
#include "shm/base.h"

#define GROUP_PAGES     TGS_DENSE_GROUP
#define GROUP_PAGES_MAX 32u
#define LOOK_MAX        8u  /* groups that one search looks at in vain */
#define LOOK_IDLE_MAX   16u /* holes, for a large span */
#define IDLE_PART       32u /* of the pages in spans, and ... */
#define IDLE_MIN        16u /* ... so many pages: not much */

/* May a span of that kind lie in this group? */
typedef bool group_test(const struct tgd_heap *heap, unsigned kind, uint64_t group);

static unsigned group_pages(unsigned kind)
{
	return kind == TGS_DENSE_2 ? GROUP_PAGES_MAX : GROUP_PAGES;
}

/* Of a group of spans of `kind`. */
static unsigned kind_of(const struct tgd_heap *heap, unsigned kind, uint64_t group)
{
	return tgd_backing_kind(&heap->backing, group, group_pages(kind));
}

static bool is_own(const struct tgd_heap *heap, unsigned kind, uint64_t group)
{
	return kind_of(heap, kind, group) == kind;
}

static bool is_no_other(const struct tgd_heap *heap, unsigned kind, uint64_t group)
{
	unsigned its = kind_of(heap, kind, group);

	return its == TGS_SPARSE || its == kind;
}

static bool is_any(const struct tgd_heap *heap, unsigned kind, uint64_t group)
{
	(void)heap;
	(void)kind;
	(void)group;
	return true;
}

static bool passes(const struct tgd_heap *heap, group_test *test, unsigned kind, uint64_t page,
		   uint64_t n_pages, uint64_t *ret_next)
{
	unsigned step = group_pages(kind);
	uint64_t group = tgs_round_down(page, step);

	for (; group < page + n_pages; group += step) {
		*ret_next = group + step;
		if (!test(heap, kind, group))
			return false;
	}
	return true;
}

/* The lowest run of free pages at `from` or above in groups that pass.  TGD_PAGES_NONE: there is none near. */
static uint64_t find(const struct tgd_heap *heap, group_test *test, unsigned kind, uint64_t from,
		     uint64_t n_pages)
{
	unsigned i;

	for (i = 0; i < LOOK_MAX; i++) {
		uint64_t page = tgd_pages_find(heap->pages, from, n_pages);

		if (page == TGD_PAGES_NONE || passes(heap, test, kind, page, n_pages, &from))
			return page;
	}
	return TGD_PAGES_NONE;
}

static bool all_backed(const struct tgd_heap *heap, uint64_t page, uint64_t n_pages)
{
	bool backed;

	return tgd_backing_run(&heap->backing, page, n_pages, &backed) == n_pages && backed;
}

/* As many of `count` spans as lie together; those that others gave back bit by bit are used up so. */
static unsigned find_spans(const struct tgd_heap *heap, group_test *test, unsigned kind,
			   uint64_t n_pages, unsigned count, bool idle, uint64_t *ret_page)
{
	unsigned n;

	for (n = count; n > 0; n /= 2) {
		uint64_t page;

		if (idle && tgd_pages_free_backed(heap->pages) < n * n_pages)
			continue;
		page = find(heap, test, kind, 0, n * n_pages);
		if (page != TGD_PAGES_NONE && (!idle || all_backed(heap, page, n * n_pages))) {
			*ret_page = page;
			return n;
		}
	}
	return 0;
}

/* Spans of one page each in a group of their kind. */
static unsigned find_in_own(struct tgd_heap *heap, unsigned kind, unsigned count,
			    uint64_t *ret_page)
{
	uint64_t page = find(heap, is_own, kind, heap->group[kind], 1);
	unsigned n;

	if (page == TGD_PAGES_NONE && heap->group[kind] != 0)
		page = find(heap, is_own, kind, 0, 1);
	if (page == TGD_PAGES_NONE)
		return 0;
	heap->group[kind] = tgs_round_down(page, group_pages(kind));
	*ret_page = page;
	for (n = 1; n < count && (page + n) % group_pages(kind) != 0; n++) {
		if (tgd_pages_find(heap->pages, page + n, 1) != page + n)
			break;
	}
	return n;
}

/* New groups. */
static unsigned find_group(struct tgd_heap *heap, unsigned kind, unsigned count, uint64_t *ret_page)
{
	unsigned in_group = group_pages(kind);
	uint64_t n_pages = tgs_round_up(count, in_group);
	uint64_t page = find(heap, is_no_other, kind, 0, n_pages + in_group - 1);

	if (page == TGD_PAGES_NONE)
		return 0;
	*ret_page = heap->group[kind] = tgs_round_up(page, in_group);
	return count;
}

/* The lowest free run all of which has memory: to make as much costs more than to look at some holes. */
static uint64_t find_idle(const struct tgd_heap *heap, uint64_t n_pages)
{
	uint64_t page = 0, n;
	unsigned i;

	if (tgd_pages_free_backed(heap->pages) < n_pages)
		return TGD_PAGES_NONE;
	for (i = 0; i < LOOK_IDLE_MAX; i++) {
		bool backed;

		page = tgd_pages_find(heap->pages, page, n_pages);
		if (page == TGD_PAGES_NONE)
			break;
		n = tgd_backing_run(&heap->backing, page, n_pages, &backed);
		if (backed && n == n_pages)
			return page;
		page += n;
	}
	return TGD_PAGES_NONE;
}

int tgd_heap_choose_large(struct tgd_heap *heap, uint64_t n_pages, uint64_t *ret_page)
{
	uint64_t page = find_idle(heap, n_pages), scavenged;

	if (page != TGD_PAGES_NONE &&
	    tgd_pages_alloc_at(heap->pages, page, n_pages, &scavenged) == 0) {
		*ret_page = page;
		return 0;
	}
	return tgd_pages_alloc(heap->pages, n_pages, 1, ret_page, &scavenged);
}

unsigned tgd_heap_choose(struct tgd_heap *heap, unsigned class, unsigned count, uint64_t *ret_page)
{
	uint64_t idle = tgd_pages_free_backed(heap->pages), n_pages = tgs_classes[class].n_pages;
	bool much = idle > tgs_max(heap->lease.n_pages / IDLE_PART, IDLE_MIN);
	unsigned kind = tgs_classes[class].kind, n = 0;
	uint64_t scavenged;

	if (kind != TGS_SPARSE && n_pages == 1) {
		n = find_in_own(heap, kind, count, ret_page);
		if (n == 0 && !much)
			n = find_group(heap, kind, count, ret_page);
	} else {
		n = find_spans(heap, is_no_other, kind, n_pages, count, true, ret_page);
	}
	if (n == 0 && much)
		n = find_spans(heap, is_any, kind, n_pages, count, true, ret_page);
	if (n == 0)
		n = find_spans(heap, is_no_other, kind, n_pages, count, false, ret_page);
	if (n == 0)
		n = find_spans(heap, is_any, kind, n_pages, count, false, ret_page);
	return n != 0 && tgd_pages_alloc_at(heap->pages, *ret_page, n * n_pages, &scavenged) == 0
		       ? n
		       : 0;
}
