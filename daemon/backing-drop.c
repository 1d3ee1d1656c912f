/* backing-drop.c - state that no span needs any more has no memory any more.
 *
 * A block of state belongs to several pages.  It goes when none of them is in a span, while they are given back; and when none
 * is in a span of the kind whose state it is, while some of them become spans of another: pages that serve one class today and
 * another tomorrow would have state for all.  What goes is zero: the end of a span clears it.
 */
#include "daemon/backing-impl.h"
#include "shm/span.h"

/* Do all pages with state in this block of an area hold no span? */
static bool block_is_free(const struct tgd_backing *backing, const struct tgd_pages *pages,
			  const struct tgd_area *area, uint64_t block)
{
	uint64_t first = (block * TGS_OS_PAGE - area->at) / area->stride;
	uint64_t n = tgs_max(TGS_OS_PAGE / area->stride, 1);
	struct tgd_pages_count count;

	n = tgs_min(n, backing->view->geometry.n_pages - first);
	tgd_pages_count(pages, first, n, &count);
	return count.in_use == 0;
}

/* Returns how many bytes went. */
static uint64_t punch_blocks(struct tgd_backing *backing, uint64_t first, uint64_t n)
{
	if (tgd_backing_punch_file(backing->heap_fd, first * TGS_OS_PAGE, n * TGS_OS_PAGE) < 0)
		return 0;
	tgd_bits_put(backing->state_bits, first, n, false);
	return n * TGS_OS_PAGE;
}

/* Only the first and the last block can belong to other pages, too. */
static uint64_t punch_area(struct tgd_backing *backing, const struct tgd_pages *pages,
			   const struct tgd_area *area, uint64_t page, uint64_t n_pages)
{
	uint64_t first = (area->at + page * area->stride) / TGS_OS_PAGE;
	uint64_t end = tgd_area_block_end(area, page + n_pages);
	uint64_t i, len, bytes = 0;

	if (!block_is_free(backing, pages, area, first))
		first++;
	if (first < end && !block_is_free(backing, pages, area, end - 1))
		end--;
	for (i = first; i < end; i += len) {
		len = tgd_bits_run(backing->state_bits, i, end);
		if (tgd_bits_get(backing->state_bits, i))
			bytes += punch_blocks(backing, i, len);
	}
	tgd_headroom_give(&backing->headroom, bytes);
	return bytes;
}

uint64_t tgd_backing_punch_state(struct tgd_backing *backing, const struct tgd_pages *pages,
				 uint64_t page, uint64_t n_pages)
{
	struct tgd_area areas[TGD_AREAS];
	uint64_t bytes = 0;
	unsigned i;

	tgd_areas_of(&backing->view->geometry, areas);
	for (i = 0; i < TGD_AREAS; i++)
		bytes += punch_area(backing, pages, &areas[i], page, n_pages);
	return bytes;
}

/* Is any page with state in this block in a span of that kind? */
static bool block_has_kind(const struct tgd_backing *backing, const struct tgd_area *area,
			   unsigned area_no, uint64_t block)
{
	const struct tgs_geometry *g = &backing->view->geometry;
	uint64_t page = (block * TGS_OS_PAGE - area->at) / area->stride;
	uint64_t end = tgs_min(page + tgs_max(TGS_OS_PAGE / area->stride, 1), g->n_pages);
	struct tgs_span span;

	for (; page < end; page++) {
		if (tgd_backing_has_map(backing, g->page_map_at + page * 8, 8) &&
		    tgs_span_at(backing->view, page, &span) &&
		    tgd_area_is_of(area_no, tgs_classes[span.class].kind, true))
			return true;
	}
	return false;
}

void tgd_backing_drop_others(struct tgd_backing *backing, uint64_t page, uint64_t n_pages,
			     unsigned kind)
{
	struct tgd_area areas[TGD_AREAS];
	uint64_t bytes = 0, block, end, len;
	unsigned i;

	tgd_areas_of(&backing->view->geometry, areas);
	for (i = 0; i < TGD_AREAS; i++) {
		if (tgd_area_is_of(i, kind, true))
			continue;
		end = tgd_area_block_end(&areas[i], page + n_pages);
		for (block = (areas[i].at + page * areas[i].stride) / TGS_OS_PAGE; block < end;
		     block += len) {
			len = tgd_bits_run(backing->state_bits, block, end);
			if (!tgd_bits_get(backing->state_bits, block))
				continue;
			len = 1;
			if (!block_has_kind(backing, &areas[i], i, block))
				bytes += punch_blocks(backing, block, 1);
		}
	}
	tgd_headroom_give(&backing->headroom, bytes);
}
