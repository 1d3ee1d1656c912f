/* heap-check.c - walks everything, and says in sentences what does not agree with what.
 *
 *   spans        the state of each one keeps the rules (shm/check.h)
 *   free pages   are free for the page heap too, and such of their state as has memory is all zero
 *   lists        each span is in the list of its holder, and nothing else is
 *   counters     are what the walk finds
 *   memory       stands behind every page of a span, and behind the free pages of which the page
 *                heap says so
 */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "daemon/backing-impl.h"
#include "daemon/heap-impl.h"
#include "daemon/heap.h"
#include "shm/base.h"
#include "shm/check.h"

__attribute__((format(printf, 2, 3))) static void complain(struct tgd_check *check,
							   const char *format, ...)
{
	va_list args;

	check->ok = false;
	if (check->n_errors == TGD_CHECK_ERRORS) {
		check->more_errors++;
		return;
	}
	va_start(args, format);
	vsnprintf(check->error[check->n_errors++], TGD_CHECK_ERROR_SIZE, format, args);
	va_end(args);
}

static void expect(struct tgd_check *check, const char *what, uint64_t is, uint64_t should)
{
	if (is != should)
		complain(check, "%s: the books say %llu, but there are %llu", what,
			 (unsigned long long)is, (unsigned long long)should);
}

/* What the page has in one area of state, if there is memory. */
static bool area_is_zero(const struct tgd_heap *heap, const struct tgd_area *area, uint64_t page)
{
	uint64_t from = area->at + page * area->stride;
	const uint64_t *words = (const uint64_t *)(heap->view.base + from);
	uint64_t i;

	if (!tgd_backing_has_state(&heap->backing, from, area->stride))
		return true;
	for (i = 0; i < area->stride / 8; i++) {
		if (words[i] != 0)
			return false;
	}
	return true;
}

static bool page_is_zero(const struct tgd_heap *heap, uint64_t page)
{
	struct tgd_area areas[TGD_AREAS];
	unsigned i;

	tgd_areas_of(&heap->view.geometry, areas);
	for (i = 0; i < TGD_AREAS; i++) {
		if (!area_is_zero(heap, &areas[i], page))
			return false;
	}
	return true;
}

static uint64_t pages_with_memory(const struct tgd_heap *heap, uint64_t page, uint64_t end)
{
	uint64_t total = 0, n;

	for (; page < end; page += n) {
		bool backed;

		n = tgd_backing_run(&heap->backing, page, end - page, &backed);
		total += backed ? n : 0;
	}
	return total;
}

static void check_free(const struct tgd_heap *heap, uint64_t page, uint64_t end,
		       struct tgd_check *check)
{
	struct tgd_pages_count count;

	if (page == end)
		return;
	tgd_pages_count(heap->pages, page, end - page, &count);
	if (count.in_use != 0)
		complain(check,
			 "pages %llu to %llu belong to no span, but %llu of them are not free",
			 (unsigned long long)page, (unsigned long long)end - 1,
			 (unsigned long long)count.in_use);
	expect(check, "free pages with memory", count.backed_free,
	       pages_with_memory(heap, page, end));
	for (; page < end; page++) {
		if (!page_is_zero(heap, page))
			complain(check, "page %llu belongs to no span, but has state",
				 (unsigned long long)page);
	}
}

static void check_span(const struct tgd_heap *heap, const struct tgs_span *span,
		       const struct tgs_pending_set *pending, struct tgd_check *check)
{
	unsigned kind = tgs_classes[span->class].kind;
	struct tgs_check_span counts;
	struct tgd_pages_count count;
	char why[TGD_CHECK_ERROR_SIZE];

	if (tgs_check_span(&heap->view, span, pending, &counts, why, sizeof(why)) != 0)
		complain(check, "%s", why);
	check->objects += counts.objects;
	check->object_bytes += counts.object_bytes;
	check->published += counts.published;
	check->pending_frees += counts.pending;
	check->spans++;
	check->orphan_spans += span->owner == TGS_SLOT_CENTRAL;

	tgd_pages_count(heap->pages, span->page, span->n_pages, &count);
	if (count.in_use != span->n_pages)
		complain(check, "the span at page %llu has %llu pages, but only %llu are in use",
			 (unsigned long long)span->page, (unsigned long long)span->n_pages,
			 (unsigned long long)count.in_use);
	if (kind != TGS_SPARSE && tgs_has_more(&heap->view, kind, span->page) !=
					  tgd_backing_has_words(&heap->backing, kind, span->page))
		complain(check,
			 "the state of the span at page %llu has memory, or not, against what "
			 "the page map says",
			 (unsigned long long)span->page);
	expect(check, "pages of a span with memory", span->n_pages,
	       pages_with_memory(heap, span->page, span->page + span->n_pages));
	if (span->owner != TGS_SLOT_CENTRAL &&
	    tgd_holders_client_of(&heap->holders, span->owner) == TGD_HOLDER_NONE)
		complain(check, "the span at page %llu is held by slot %u, which is nobody's",
			 (unsigned long long)span->page, span->owner);
}

struct totals {
	uint64_t spans, pages;
};

/* A list holds what it says, and all of it belongs there.  `class`: TGS_CLASSES_ALL for any. */
static void check_list(const struct tgd_heap *heap, const struct tgd_list *list, unsigned owner,
		       unsigned class, struct totals *totals, struct tgd_check *check)
{
	uint64_t spans = 0, pages = 0;
	uint32_t page;
	struct tgs_span span;

	/* A list that has become a ring must not hold us. */
	for (page = tgd_list_head(list); page != TGD_PAGE_NONE && spans <= list->n_spans;
	     page = tgd_lease_next(&heap->lease, page)) {
		if (!tgd_lease_at(&heap->lease, page, &span)) {
			complain(check, "page %u is in the list of slot %u, but starts no span",
				 page, owner);
			break;
		}
		if (span.owner != owner || (class != TGS_CLASSES_ALL && span.class != class))
			complain(check,
				 "the span at page %u is in the list of slot %u, not its own", page,
				 owner);
		spans++;
		pages += span.n_pages;
	}
	if (spans != list->n_spans || pages != list->n_pages)
		complain(check,
			 "a list of slot %u should have %llu spans with %llu pages, not %llu, %llu",
			 owner, (unsigned long long)list->n_spans,
			 (unsigned long long)list->n_pages, (unsigned long long)spans,
			 (unsigned long long)pages);
	totals->spans += spans;
	totals->pages += pages;
}

static void check_lists(const struct tgd_heap *heap, struct tgd_check *check)
{
	const struct tgd_lease *lease = &heap->lease;
	struct totals all = {0};
	unsigned i;

	for (i = 0; i < heap->holders.slots_used; i++)
		check_list(heap, &lease->slot[i], i, TGS_CLASSES_ALL, &all, check);
	for (i = 0; i < TGS_CLASSES_ALL; i++) {
		check_list(heap, &lease->partial[i], TGS_SLOT_CENTRAL, i, &all, check);
		check_list(heap, &lease->full[i], TGS_SLOT_CENTRAL, i, &all, check);
	}
	expect(check, "spans in lists", all.spans, check->spans);
	expect(check, "pages of spans in lists", all.pages, tgd_pages_in_use(heap->pages));
}

static void check_counters(const struct tgd_heap *heap, struct tgd_check *check)
{
	const struct tgd_lease *lease = &heap->lease;
	uint64_t spans = 0, pages = 0;
	unsigned i;

	for (i = 0; i < TGS_CLASSES_ALL; i++) {
		spans += lease->class_spans[i];
		pages += lease->class_pages[i];
	}
	expect(check, "spans", lease->n_spans, check->spans);
	expect(check, "spans by class", spans, check->spans);
	expect(check, "spans of central", lease->n_orphans, check->orphan_spans);
	expect(check, "pages in spans", lease->n_pages, tgd_pages_in_use(heap->pages));
	expect(check, "pages in spans by class", pages, tgd_pages_in_use(heap->pages));
	if (lease->n_pages > heap->limit_pages)
		complain(check, "%llu pages are in spans, over the limit of %llu",
			 (unsigned long long)lease->n_pages, (unsigned long long)heap->limit_pages);
}

void tgd_heap_check(const struct tgd_heap *heap, struct tgd_check *ret)
{
	struct tgs_pending_set pending = {0};
	struct tgs_span span;
	uint64_t page = 0;

	memset(ret, 0, sizeof(*ret));
	ret->ok = true;
	if (tgd_holders_pending(&heap->holders, &pending) < 0)
		complain(ret, "no memory to collect pending frees; they count as live objects");
	while (tgd_lease_from(&heap->lease, page, &span)) {
		check_free(heap, page, span.page, ret);
		check_span(heap, &span, &pending, ret);
		page = span.page + span.n_pages;
	}
	check_free(heap, page, heap->lease.end_page, ret);
	check_lists(heap, ret);
	check_counters(heap, ret);
	tgs_pending_done(&pending);
}
