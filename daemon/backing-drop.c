/* backing-drop.c - state that no span needs any more has no memory any more.
 *
 * A block of state belongs to several pages.  It goes when none of them is in a span, while they are given back; and when none
 * is in a span of the kind whose state it is, while some of them become spans of another: pages that serve one class today and
 * another tomorrow would have state for all.  What goes is zero: the end of a span clears it.
 */
#include "daemon/backing-impl.h"
#include "shm/span.h"

/* How many pages have state in this block of an area; the first one. */
static uint64_t pages_of(const struct tgd_backing *backing, const struct tgd_area *area,
			 uint64_t block, uint64_t *ret_first)
{
	*ret_first = (block * TGS_OS_PAGE - area->at) / area->stride;
	return tgs_min(tgs_max(TGS_OS_PAGE / area->stride, 1),
		       backing->view->geometry.n_pages - *ret_first);
}

/* Do all of them hold no span? */
static bool block_is_free(const struct tgd_backing *backing, const struct tgd_pages *pages,
			  const struct tgd_area *area, uint64_t block)
{
	uint64_t first, n = pages_of(backing, area, block, &first);
	struct tgd_pages_count count;

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

/* Is any page with state in this block of area number `i` in a span that has its state there? */
static bool block_is_of_use(const struct tgd_backing *backing, const struct tgd_area *area,
			    unsigned i, uint64_t block)
{
	uint64_t page, n = pages_of(backing, area, block, &page);
	struct tgs_span span;

	for (; n > 0; n--, page++) {
		if (tgd_backing_has_map(backing, backing->view->geometry.page_map_at + page * 8,
					8) &&
		    tgs_span_at(backing->view, page, &span) &&
		    tgd_area_is_of(i, tgs_classes[span.class].kind, true))
			return true;
	}
	return false;
}

static uint64_t drop_useless(struct tgd_backing *backing, const struct tgd_area *area, unsigned i,
			     uint64_t page, uint64_t n_pages)
{
	uint64_t block = (area->at + page * area->stride) / TGS_OS_PAGE;
	uint64_t end = tgd_area_block_end(area, page + n_pages), bytes = 0;

	for (; block < end; block++) {
		if (tgd_bits_get(backing->state_bits, block) &&
		    !block_is_of_use(backing, area, i, block))
			bytes += punch_blocks(backing, block, 1);
	}
	return bytes;
}

void tgd_backing_drop_others(struct tgd_backing *backing, uint64_t page, uint64_t n_pages,
			     unsigned kind)
{
	struct tgd_area areas[TGD_AREAS];
	uint64_t bytes = 0;
	unsigned i;

	tgd_areas_of(&backing->view->geometry, areas);
	for (i = 0; i < TGD_AREAS; i++) {
		if (!tgd_area_is_of(i, kind, true))
			bytes += drop_useless(backing, &areas[i], i, page, n_pages);
	}
	tgd_headroom_give(&backing->headroom, bytes);
}
