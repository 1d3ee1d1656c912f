/* takeover-map.c - reads the page map that another daemon wrote: spans, whole, half made, half
 * moved, half ended.
 *
 * Entries are written from a span's first page up and cleared from its last page down (lease.h), so
 * of a small span the entries that are missing are the last ones, and owners change once at most on
 * the way up.  A large span's inner pages have no entry.  Anything else is damage.
 */
#include "daemon/takeover.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "shm/base.h"

/* All bits that an entry may have. */
#define ENTRY_KNOWN                                                                            \
	(TGS_ENTRY_CLASS_MASK | TGS_ENTRY_SPAN | TGS_ENTRY_OWNER_MASK | TGS_ENTRY_DELTA_MASK | \
	 TGS_ENTRY_MORE | UINT64_MAX << TGS_ENTRY_PAGES_SHIFT)

int tgd_takeover_refuse(struct tgd_takeover *takeover, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(takeover->why, takeover->why_size, format, args);
	va_end(args);
	return -EPROTO;
}

/* The first page at `page` or above, before `end`, whose entry is in memory and not 0; `end`:
 * there is none. */
static uint64_t next_entry(const struct tgd_takeover *takeover, uint64_t page, uint64_t end)
{
	const struct tgd_heap *heap = takeover->heap;
	uint64_t map_at = heap->view.geometry.page_map_at;
	const uint64_t in_block = TGS_OS_PAGE / sizeof(uint64_t);

	while (page < end) {
		uint64_t at = tgd_backing_map_from(&heap->backing, map_at + page * 8);
		uint64_t stop;

		if (at == UINT64_MAX)
			return end;
		page = (at - map_at) / 8;
		stop = tgs_min(tgs_round_down(page, in_block) + in_block, end);
		for (; page < stop; page++) {
			if (tgs_page_entry(&heap->view, page) != 0)
				return page;
		}
	}
	return end;
}

static uint64_t entry_at(const struct tgd_takeover *takeover, uint64_t page)
{
	const struct tgd_heap *heap = takeover->heap;

	if (!tgd_backing_has_map(&heap->backing, heap->view.geometry.page_map_at + page * 8, 8))
		return 0;
	return tgs_page_entry(&heap->view, page);
}

static int bad_entry(struct tgd_takeover *takeover, uint64_t page, uint64_t entry, const char *what)
{
	return tgd_takeover_refuse(takeover,
				   "the page map is damaged: the entry of page %llu, 0x%llx, %s",
				   (unsigned long long)page, (unsigned long long)entry, what);
}

/* One entry by itself. */
static int check_entry(struct tgd_takeover *takeover, uint64_t page, uint64_t entry)
{
	uint64_t n_slots =
		atomic_load_explicit(&takeover->heap->view.map->n_slots, memory_order_relaxed);
	unsigned class = tgs_entry_class(entry);

	if (!(entry & TGS_ENTRY_SPAN) || (entry & ~ENTRY_KNOWN))
		return bad_entry(takeover, page, entry, "has bits that no entry has");
	if (class >= TGS_CLASSES_ALL || class == 1)
		return bad_entry(takeover, page, entry, "is of a class that no span has");
	if (tgs_entry_owner(entry) == TGS_SLOT_NONE || tgs_entry_owner(entry) >= n_slots)
		return bad_entry(takeover, page, entry, "names a slot that was never used");
	if (class != 0 && tgs_entry_large_pages(entry) != 0)
		return bad_entry(takeover, page, entry, "gives a length to a small span");
	if (tgs_classes[class].kind == TGS_SPARSE && (entry & TGS_ENTRY_MORE) != 0)
		return bad_entry(takeover, page, entry,
				 "gives a dense or tiny span's state to another");
	return 0;
}

static int read_large(struct tgd_takeover *takeover, uint64_t page, uint64_t entry,
		      struct tgd_takeover_span *ret)
{
	uint64_t n_pages = tgs_entry_large_pages(entry), inner;

	if (n_pages == 0 || n_pages > takeover->heap->view.geometry.n_pages - page)
		return bad_entry(takeover, page, entry, "is of a span that is not inside the heap");
	inner = next_entry(takeover, page + 1, page + n_pages);
	if (inner < page + n_pages)
		return tgd_takeover_refuse(takeover,
					   "the page map is damaged: page %llu has an entry, "
					   "0x%llx, but lies inside the large "
					   "span of %llu pages at page %llu",
					   (unsigned long long)inner,
					   (unsigned long long)entry_at(takeover, inner),
					   (unsigned long long)n_pages, (unsigned long long)page);
	ret->span.n_pages = n_pages;
	ret->n_entries = 1;
	return 1;
}

/* The entries after the first: the same but for distance and owner, up to where they end. */
static int read_small(struct tgd_takeover *takeover, uint64_t page, uint64_t first,
		      struct tgd_takeover_span *ret)
{
	const uint64_t same = TGS_ENTRY_CLASS_MASK | TGS_ENTRY_SPAN;
	uint64_t n_pages = tgs_classes[ret->span.class].n_pages, i, before = first;
	unsigned changes = 0;
	int r;

	if (n_pages > takeover->heap->view.geometry.n_pages - page)
		return bad_entry(takeover, page, first, "is of a span that is not inside the heap");
	for (i = 1; i < n_pages; i++) {
		uint64_t entry = entry_at(takeover, page + i);

		if (entry == 0)
			break;
		r = check_entry(takeover, page + i, entry);
		if (r < 0)
			return r;
		if ((entry & same) != (first & same) || tgs_entry_delta(entry) != i)
			return bad_entry(takeover, page + i, entry,
					 "does not continue the span before it");
		changes += tgs_entry_owner(entry) != tgs_entry_owner(before);
		before = entry;
	}
	if (changes > 1 || (changes == 1 && i < n_pages))
		return tgd_takeover_refuse(
			takeover,
			"the page map is damaged: the entries of the span at page %llu name "
			"owners in a way that no change leaves",
			(unsigned long long)page);
	before = next_entry(takeover, page + i, page + n_pages);
	if (before < page + n_pages)
		return bad_entry(takeover, before, entry_at(takeover, before),
				 "stands behind the end of a span that ends too early");
	ret->span.n_pages = n_pages;
	ret->n_entries = i;
	ret->half_moved = changes == 1;
	return 1;
}

int tgd_takeover_next(struct tgd_takeover *takeover, uint64_t page, struct tgd_takeover_span *ret)
{
	uint64_t n_pages = takeover->heap->view.geometry.n_pages, entry;
	int r;

	page = next_entry(takeover, page, n_pages);
	if (page == n_pages)
		return 0;
	entry = entry_at(takeover, page);
	r = check_entry(takeover, page, entry);
	if (r < 0)
		return r;
	if (tgs_entry_delta(entry) != 0)
		return bad_entry(
			takeover, page, entry,
			"is of the middle of a span, but the pages before it are not its start");
	*ret = (struct tgd_takeover_span){
		.span.page = page,
		.span.class = tgs_entry_class(entry),
		.span.owner = tgs_entry_owner(entry),
		.span.n_slots = tgs_classes[tgs_entry_class(entry)].n_slots,
	};
	return ret->span.class == 0 ? read_large(takeover, page, entry, ret)
				    : read_small(takeover, page, entry, ret);
}

int tgd_takeover_check_map(struct tgd_takeover *takeover)
{
	const struct tgs_map_header *header = takeover->heap->view.map;
	uint64_t limit = atomic_load_explicit(&header->limit_bytes, memory_order_relaxed);
	struct tgd_takeover_span found;
	uint64_t page = 0, total = 0;
	int r;

	while ((r = tgd_takeover_next(takeover, page, &found)) > 0) {
		page = found.span.page + found.span.n_pages;
		if (found.n_entries == found.span.n_pages || found.span.class == 0)
			total += found.span.n_pages;
	}
	if (r == 0 && total > limit / TGS_PAGE_SIZE)
		return tgd_takeover_refuse(
			takeover,
			"the page map is damaged: its spans have %llu pages, over the "
			"limit of %llu bytes",
			(unsigned long long)total, (unsigned long long)limit);
	return r;
}
