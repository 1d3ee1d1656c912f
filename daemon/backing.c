/* backing.c - fallocate before the grant, punch a hole after the use, and a bit for each block in
 * between.
 *
 * Backing is done run by run: what is backed already is skipped, so that nothing is counted twice.
 * The kernel's own fallocate undoes what it did when it fails; when the second run of a call fails,
 * we undo the first.
 */
#include "daemon/backing.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "daemon/backing-impl.h"
#include "shm/base.h"
#include "shm/sizeclass.h"

/* A signal may interrupt a long fallocate; it then has done nothing and is tried again, but not for
 * ever. */
#define INTERRUPTS_MAX 16

/* What is more than this in one piece is a huge object, which may never be touched all over, and all
 * others would wait for it. */
#define CLEAR_BYTES_MAX (UINT64_C(32) << 20)
#define CLEAR_PIECES    64
#define ZEROS_BYTES     UINT64_C(65536)

void *tgd_sparse_new(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void tgd_sparse_free(void *array, size_t bytes)
{
	if (array)
		munmap(array, bytes);
}

static size_t bits_bytes(uint64_t n)
{
	return (size_t)(tgs_round_up(n, 64) / 8);
}

int tgd_backing_init(struct tgd_backing *backing, const struct tgs_heap *view, int map_fd,
		     int heap_fd)
{
	const struct tgs_geometry *g = &view->geometry;

	*backing = (struct tgd_backing){.view = view, .map_fd = map_fd, .heap_fd = heap_fd};
	tgd_headroom_init(&backing->headroom);
	backing->huge_mode = TGD_HUGE_NEVER;
	backing->map_bits = tgd_sparse_new(bits_bytes(g->map_bytes / TGS_OS_PAGE));
	backing->state_bits = tgd_sparse_new(bits_bytes(g->data_at / TGS_OS_PAGE));
	backing->page_bits = tgd_sparse_new(bits_bytes(g->n_pages));
	backing->used_bits = tgd_sparse_new(bits_bytes(g->n_pages));
	backing->huge_bits = tgd_sparse_new(bits_bytes(g->n_pages / TGD_HUGE_PAGES));
	if (!backing->map_bits || !backing->state_bits || !backing->page_bits ||
	    !backing->used_bits || !backing->huge_bits) {
		tgd_backing_done(backing);
		return -ENOMEM;
	}
	return 0;
}

void tgd_backing_done(struct tgd_backing *backing)
{
	const struct tgs_geometry *g;

	if (!backing->view)
		return;
	g = &backing->view->geometry;
	tgd_sparse_free(backing->map_bits, bits_bytes(g->map_bytes / TGS_OS_PAGE));
	tgd_sparse_free(backing->state_bits, bits_bytes(g->data_at / TGS_OS_PAGE));
	tgd_sparse_free(backing->page_bits, bits_bytes(g->n_pages));
	tgd_sparse_free(backing->used_bits, bits_bytes(g->n_pages));
	tgd_sparse_free(backing->huge_bits, bits_bytes(g->n_pages / TGD_HUGE_PAGES));
	memset(backing, 0, sizeof(*backing));
}

int tgd_backing_punch_file(int fd, uint64_t at, uint64_t bytes)
{
	int i;

	for (i = 0; i < INTERRUPTS_MAX; i++) {
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at,
			      (off_t)bytes) == 0)
			return 0;
		if (errno != EINTR)
			break;
	}
	return -errno;
}

static int back(struct tgd_backing *backing, int fd, uint64_t at, uint64_t bytes)
{
	int i;

	if (!tgd_headroom_take(&backing->headroom, bytes))
		return -ENOMEM;
	for (i = 0; i < INTERRUPTS_MAX; i++) {
		if (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)bytes) == 0)
			return 0;
		if (errno != EINTR)
			break;
	}
	tgd_headroom_give(&backing->headroom, bytes);
	/* Whatever the reason (ENOSPC, ENOMEM, EINTR without end, a limit on file sizes): no
	 * memory. */
	return -ENOMEM;
}

/* The kernel clears what fallocate gave when somebody touches it, in a fault for each 4 KiB.  What has
 * been written it maps 16 at a time (client/populate.c), and a write costs less than half of the faults
 * that it saves.  Where it fails, there is memory all the same. */
static void clear(int fd, uint64_t at, uint64_t bytes)
{
	static char zeros[ZEROS_BYTES];
	struct iovec pieces[CLEAR_PIECES];
	uint64_t end = at + bytes, left;
	ssize_t written;
	int n;

	while (at < end) {
		for (n = 0, left = end - at; n < CLEAR_PIECES && left > 0; n++) {
			pieces[n] = (struct iovec){zeros, tgs_min(left, ZEROS_BYTES)};
			left -= pieces[n].iov_len;
		}
		written = pwritev(fd, pieces, n, (off_t)at);
		if (written <= 0)
			break;
		at += (uint64_t)written;
	}
}

/* Backs the units [first, first + n) that have no bit yet, or none of them.  The runs that this
 * call backed are remembered by leaving their bits clear until all is done. */
static int back_units(struct tgd_backing *backing, int fd, uint64_t *bits, uint64_t first,
		      uint64_t n, uint64_t file_at, uint64_t unit_bytes)
{
	bool clears = bits == backing->page_bits && n * unit_bytes <= CLEAR_BYTES_MAX;
	uint64_t end = first + n, i = first, len;
	int r = 0;

	for (; i < end && r == 0; i += len) {
		len = tgd_bits_run(bits, i, end);
		if (tgd_bits_get(bits, i))
			continue;
		r = back(backing, fd, file_at + i * unit_bytes, len * unit_bytes);
		if (r < 0)
			break;
		if (clears)
			clear(fd, file_at + i * unit_bytes, len * unit_bytes);
	}
	if (r == 0) {
		tgd_bits_put(bits, first, n, true);
		return 0;
	}
	for (end = i, i = first; i < end; i += len) {
		len = tgd_bits_run(bits, i, end);
		if (tgd_bits_get(bits, i))
			continue;
		(void)tgd_backing_punch_file(fd, file_at + i * unit_bytes, len * unit_bytes);
		tgd_headroom_give(&backing->headroom, len * unit_bytes);
	}
	return r;
}

static int back_blocks(struct tgd_backing *backing, int fd, uint64_t *bits, uint64_t at,
		       uint64_t bytes)
{
	uint64_t first = at / TGS_OS_PAGE;
	uint64_t last = (at + bytes - 1) / TGS_OS_PAGE;

	return back_units(backing, fd, bits, first, last - first + 1, 0, TGS_OS_PAGE);
}

int tgd_backing_map(struct tgd_backing *backing, uint64_t at, uint64_t bytes)
{
	return back_blocks(backing, backing->map_fd, backing->map_bits, at, bytes);
}

int tgd_backing_state(struct tgd_backing *backing, uint64_t at, uint64_t bytes)
{
	return back_blocks(backing, backing->heap_fd, backing->state_bits, at, bytes);
}

/* The state of n_pages pages that are to be spans of this class.  What stays backed when a later
 * step fails is zero, tracked, and goes when the pages are scavenged. */
static int back_state(struct tgd_backing *backing, uint64_t page, uint64_t n_pages, unsigned class)
{
	const struct tgs_geometry *g = &backing->view->geometry;
	struct tgd_area areas[TGD_AREAS];
	int r = 0;
	unsigned i;

	tgd_areas_of(g, areas);
	for (i = 0; i < TGD_AREAS && r == 0; i++) {
		if (tgd_area_is_of(i, tgs_classes[class].kind, false))
			r = tgd_backing_state(backing, areas[i].at + page * areas[i].stride,
					      n_pages * areas[i].stride);
	}
	if (r == 0)
		r = tgd_backing_state(backing, g->dirty_at + page / 64 * 8,
				      ((page + n_pages - 1) / 64 - page / 64 + 1) * 8);
	return r;
}

/* The block of these words. */
static uint64_t words_at(const struct tgd_backing *backing, unsigned kind, uint64_t page)
{
	const struct tgs_geometry *g = &backing->view->geometry;

	return kind == TGS_TINY ? g->tiny_more_at + page * TGS_OS_PAGE
				: g->dense_at + page / TGS_DENSE_GROUP * TGS_OS_PAGE;
}
_Static_assert(sizeof(struct tgs_tiny_more) == TGS_OS_PAGE, "a block for each");

int tgd_backing_words(struct tgd_backing *backing, unsigned kind, uint64_t page, bool urgent)
{
	int r;

	backing->headroom.urgent = urgent;
	r = tgd_backing_state(backing, words_at(backing, kind, page), TGS_OS_PAGE);
	backing->headroom.urgent = false;
	return r;
}

bool tgd_backing_has_words(const struct tgd_backing *backing, unsigned kind, uint64_t page)
{
	return tgd_backing_has_state(backing, words_at(backing, kind, page), TGS_OS_PAGE);
}

int tgd_backing_spans(struct tgd_backing *backing, uint64_t page, uint64_t n_pages, unsigned count,
		      unsigned class)
{
	/* The state of a large span lies at its first page; small ones lie side by side. */
	int r = back_state(backing, page, class == 0 ? 1 : n_pages * count, class);

	return r < 0 ? r : tgd_backing_more(backing, page, n_pages * count);
}

int tgd_backing_more(struct tgd_backing *backing, uint64_t page, uint64_t n_pages)
{
	const struct tgs_geometry *g = &backing->view->geometry;
	int r;

	r = tgd_backing_map(backing, g->page_map_at + page * 8, n_pages * 8);
	if (r < 0)
		return r;
	return back_units(backing, backing->heap_fd, backing->page_bits, page, n_pages, g->data_at,
			  TGS_PAGE_SIZE);
}

bool tgd_backing_use(struct tgd_backing *backing, uint64_t page, uint64_t n_pages)
{
	bool zero = !tgd_bits_get(backing->used_bits, page) &&
		    tgd_bits_run(backing->used_bits, page, page + n_pages) == n_pages;

	tgd_bits_put(backing->used_bits, page, n_pages, true);
	return zero;
}

bool tgd_backing_has_map(const struct tgd_backing *backing, uint64_t at, uint64_t bytes)
{
	return tgd_bits_have_blocks(backing->map_bits, at, bytes);
}

bool tgd_backing_has_state(const struct tgd_backing *backing, uint64_t at, uint64_t bytes)
{
	return tgd_bits_have_blocks(backing->state_bits, at, bytes);
}

bool tgd_backing_has_page(const struct tgd_backing *backing, uint64_t page)
{
	return tgd_bits_get(backing->page_bits, page);
}

/* Has any of the blocks memory? */
static bool has_any(const struct tgd_backing *backing, uint64_t at, uint64_t bytes)
{
	uint64_t first = at / TGS_OS_PAGE, end = (at + bytes - 1) / TGS_OS_PAGE + 1;

	return tgd_bits_get(backing->state_bits, first) ||
	       tgd_bits_run(backing->state_bits, first, end) < end - first;
}

unsigned tgd_backing_kind(const struct tgd_backing *backing, uint64_t page, uint64_t n_pages)
{
	struct tgd_area areas[TGD_AREAS];
	unsigned i;

	tgd_areas_of(&backing->view->geometry, areas);
	for (i = TGD_AREA_DENSE_TAKEN; i <= TGD_AREA_TINY_TAKEN; i++) {
		if (has_any(backing, areas[i].at + page * areas[i].stride,
			    n_pages * areas[i].stride))
			return TGS_DENSE_2 + (i - TGD_AREA_DENSE_TAKEN);
	}
	return TGS_SPARSE;
}

uint64_t tgd_backing_run(const struct tgd_backing *backing, uint64_t page, uint64_t n_pages,
			 bool *ret_backed)
{
	*ret_backed = tgd_bits_get(backing->page_bits, page);
	return tgd_bits_run(backing->page_bits, page, page + n_pages);
}

void tgd_backing_count_scavenged(const struct tgd_backing *backing, uint64_t bytes)
{
	struct tgs_map_header *header = (struct tgs_map_header *)(uintptr_t)backing->view->map;

	atomic_fetch_add_explicit(&header->scavenged_bytes, bytes, memory_order_relaxed);
}

int tgd_backing_punch(struct tgd_backing *backing, uint64_t page, uint64_t n_pages)
{
	uint64_t bytes = n_pages * TGS_PAGE_SIZE;
	int r;

	r = tgd_backing_punch_file(backing->heap_fd,
				   backing->view->geometry.data_at + page * TGS_PAGE_SIZE, bytes);
	if (r < 0)
		return r;
	tgd_bits_put(backing->page_bits, page, n_pages, false);
	tgd_bits_put(backing->used_bits, page, n_pages, false);
	tgd_backing_huge_split(backing, page, n_pages);
	tgd_backing_count_scavenged(backing, bytes);
	tgd_headroom_give(&backing->headroom, bytes);
	return 0;
}

uint64_t tgd_backing_resident(const struct tgd_backing *backing)
{
	struct stat st;
	uint64_t bytes = 0;

	if (fstat(backing->map_fd, &st) == 0)
		bytes += (uint64_t)st.st_blocks * 512;
	if (fstat(backing->heap_fd, &st) == 0)
		bytes += (uint64_t)st.st_blocks * 512;
	return bytes;
}
