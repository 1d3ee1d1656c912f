/* backing-find.c - which memory stands behind two files that another daemon has used, and the rest
 * given back.
 *
 * What belongs to a span has memory: it was backed before the span's entries were written.  That is
 * believed without a system call.  Of the map file, which is small, the kernel tells the blocks
 * that were ever written.  All that is left then is punched, run by run, since nobody can say what
 * has memory of it: idle pages of the daemon before us, their state, what it had backed for a grant
 * that it did not live to make.
 */
#include "daemon/backing-impl.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/sizeclass.h"
#include "shm/span.h"

static int find_data(int fd, uint64_t *bits, uint64_t at, uint64_t end)
{
	while (at < end) {
		off_t from = lseek(fd, (off_t)at, SEEK_DATA), to;
		uint64_t first = (uint64_t)from / TGS_OS_PAGE;

		if (from < 0)
			return errno == ENXIO ? 0 : -errno;
		if ((uint64_t)from >= end)
			return 0;
		to = lseek(fd, from, SEEK_HOLE);
		if (to < 0)
			return -errno;
		at = tgs_min((uint64_t)to, end);
		tgd_bits_put(bits, first, (at + TGS_OS_PAGE - 1) / TGS_OS_PAGE - first, true);
	}
	return 0;
}

int tgd_backing_find(struct tgd_backing *backing)
{
	const struct tgs_geometry *g = &backing->view->geometry;
	int r = find_data(backing->map_fd, backing->map_bits, 0, g->map_bytes);

	return r < 0 ? r
		     : find_data(backing->heap_fd, backing->state_bits, g->dirty_at, g->records_at);
}

uint64_t tgd_backing_map_from(const struct tgd_backing *backing, uint64_t at)
{
	uint64_t end = backing->view->geometry.map_bytes / TGS_OS_PAGE;
	uint64_t block = at / TGS_OS_PAGE;

	if (block >= end)
		return UINT64_MAX;
	if (tgd_bits_get(backing->map_bits, block))
		return at;
	block += tgd_bits_run(backing->map_bits, block, end);
	return block < end ? block * TGS_OS_PAGE : UINT64_MAX;
}

static void found_blocks(uint64_t *bits, uint64_t at, uint64_t bytes)
{
	uint64_t first = at / TGS_OS_PAGE;

	tgd_bits_put(bits, first, (at + bytes - 1) / TGS_OS_PAGE + 1 - first, true);
}

void tgd_backing_found_state(struct tgd_backing *backing, uint64_t at, uint64_t bytes)
{
	found_blocks(backing->state_bits, at, bytes);
}

/* The counterpart of tgd_backing_spans. */
void tgd_backing_found_span(struct tgd_backing *backing, uint64_t page, uint64_t n_pages,
			    unsigned class)
{
	const struct tgs_geometry *g = &backing->view->geometry;
	uint64_t with_state = class == 0 ? 1 : n_pages;
	unsigned kind = tgs_classes[class].kind;
	bool more = tgs_has_more(backing->view, kind, page);
	struct tgd_area areas[TGD_AREAS];
	unsigned i;

	tgd_areas_of(g, areas);
	for (i = 0; i < TGD_AREAS; i++) {
		if (tgd_area_is_of(i, kind, more))
			found_blocks(backing->state_bits, areas[i].at + page * areas[i].stride,
				     with_state * areas[i].stride);
	}
	found_blocks(backing->state_bits, g->dirty_at + page / 64 * 8,
		     ((page + with_state - 1) / 64 - page / 64 + 1) * 8);
	found_blocks(backing->map_bits, g->page_map_at + page * 8, n_pages * 8);
	tgd_bits_put(backing->page_bits, page, n_pages, true);
	tgd_bits_put(backing->used_bits, page, n_pages, true);
}

/* Punches the units [first, end) that have no bit; at `used` and above none has. */
static int punch_clear(int fd, const uint64_t *bits, uint64_t first, uint64_t used, uint64_t end,
		       uint64_t file_at, uint64_t unit_bytes)
{
	uint64_t i, len;
	int r = 0;

	for (i = first; i < used && r == 0; i += len) {
		len = tgd_bits_run(bits, i, used);
		if (tgd_bits_get(bits, i))
			continue;
		if (i + len == used)
			break;
		r = tgd_backing_punch_file(fd, file_at + i * unit_bytes, len * unit_bytes);
	}
	if (r == 0 && i < end)
		r = tgd_backing_punch_file(fd, file_at + i * unit_bytes, (end - i) * unit_bytes);
	return r;
}

static void clear_state(const struct tgd_backing *backing, uint64_t from, uint64_t to)
{
	_Atomic uint64_t *words = (_Atomic uint64_t *)(backing->view->base + from);
	uint64_t i;

	if (!tgd_bits_have_blocks(backing->state_bits, from, to - from))
		return;
	for (i = 0; i < (to - from) / 8; i++) {
		if (atomic_load_explicit(&words[i], memory_order_relaxed) != 0)
			atomic_store_explicit(&words[i], 0, memory_order_relaxed);
	}
}

/* The state of free pages: only the first and the last block of a run of them have neighbours. */
static void clear_free(const struct tgd_backing *backing, const struct tgd_area *area,
		       uint64_t page, uint64_t n_pages)
{
	uint64_t from = area->at + page * area->stride;
	uint64_t to = from + n_pages * area->stride;
	uint64_t middle = tgs_min(tgs_round_down(from, TGS_OS_PAGE) + TGS_OS_PAGE, to);

	clear_state(backing, from, middle);
	middle = tgs_max(tgs_round_down(to - 1, TGS_OS_PAGE), middle);
	if (middle < to)
		clear_state(backing, middle, to);
}

static int drop_area(const struct tgd_backing *backing, const struct tgd_area *area,
		     uint64_t end_page)
{
	uint64_t n_pages = backing->view->geometry.n_pages, page, len;

	for (page = 0; page < n_pages; page += len) {
		len = page < end_page ? tgd_bits_run(backing->page_bits, page, end_page)
				      : n_pages - page;
		if (!tgd_bits_get(backing->page_bits, page))
			clear_free(backing, area, page, len);
	}
	return punch_clear(backing->heap_fd, backing->state_bits, area->at / TGS_OS_PAGE,
			   tgd_area_block_end(area, end_page), tgd_area_block_end(area, n_pages), 0,
			   TGS_OS_PAGE);
}

static uint64_t heap_resident(const struct tgd_backing *backing)
{
	struct stat st;

	return fstat(backing->heap_fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

int tgd_backing_drop_rest(struct tgd_backing *backing, uint64_t end_page)
{
	const struct tgs_geometry *g = &backing->view->geometry;
	uint64_t blocks = g->map_bytes / TGS_OS_PAGE, before, after;
	struct tgd_area areas[TGD_AREAS];
	unsigned i;
	int r;

	r = punch_clear(backing->map_fd, backing->map_bits, 0, blocks, blocks, 0, TGS_OS_PAGE);
	if (r == 0)
		r = punch_clear(backing->heap_fd, backing->state_bits, g->threads_at / TGS_OS_PAGE,
				g->dirty_at / TGS_OS_PAGE, g->dirty_at / TGS_OS_PAGE, 0,
				TGS_OS_PAGE);
	tgd_areas_of(g, areas);
	for (i = 0; i < TGD_AREAS && r == 0; i++)
		r = drop_area(backing, &areas[i], end_page);
	if (r < 0)
		return r;
	before = heap_resident(backing);
	r = punch_clear(backing->heap_fd, backing->page_bits, 0, end_page, g->n_pages, g->data_at,
			TGS_PAGE_SIZE);
	after = heap_resident(backing);
	if (before > after)
		tgd_backing_count_scavenged(backing, before - after);
	return r;
}
