/* backing-huge.c - pieces of 2 MiB that are one page of the machine, where the kernel makes them on request.
 *
 * A file in memory is made of pages of 4 KiB, unless the machine's owner has set otherwise (shmem_enabled), but MADV_COLLAPSE
 * makes one page of 2 MiB of whatever an aligned piece of it holds: what is there is copied, what is a hole becomes zero.
 * To fill a piece this way takes less than half the time of fallocate and write, and whoever touches it maps all of it in
 * one fault, where 64 KiB took one before.  Nobody who uses the piece meanwhile notices more than a wait.
 *
 * It may fail at any time (no 2 MiB in one piece are free) or always (a kernel before 6.1), and it may take long, when the
 * kernel has to move others' pages first, or a virtual machine's host has to find the memory.  Then there is a rest, in which
 * pieces are filled the other way; but `always` rests after failures only.  A piece from which a part is given back to the
 * kernel becomes small pages again, by itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>

#include "daemon/backing-impl.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define SLOW_NS    UINT64_C(1200000)    /* small pages take 0.8 ms for as much */
#define REST_NS    UINT64_C(1000000000) /* after a failure */
#define REST_TIMES 32u                  /* as long as a slow one took */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

bool tgd_backing_huge_now(const struct tgd_backing *backing)
{
	return backing->huge_mode != TGD_HUGE_NEVER &&
	       (backing->huge_rest_ns == 0 || now_ns() >= backing->huge_rest_ns);
}

static uint64_t count_bare(const struct tgd_backing *backing, uint64_t page)
{
	uint64_t end = page + TGD_HUGE_PAGES, len, n = 0;

	for (; page < end; page += len) {
		len = tgd_bits_run(backing->page_bits, page, end);
		n += tgd_bits_get(backing->page_bits, page) ? 0 : len;
	}
	return n;
}

static int collapse(struct tgd_backing *backing, uint64_t page, bool bare)
{
	uint64_t at = backing->view->geometry.data_at + page * TGS_PAGE_SIZE;
	uint64_t begun = now_ns(), end;
	int r = 0;

	/* Of a piece that has nothing at all the kernel would not make a page. */
	if (bare && fallocate(backing->heap_fd, FALLOC_FL_KEEP_SIZE, (off_t)at, TGS_OS_PAGE) < 0)
		return -errno;
	TGS_POINT();
	if (madvise(backing->view->base + at, TGD_HUGE_BYTES, MADV_COLLAPSE) < 0)
		r = -errno;
	else /* We do not need it mapped, and would look as if all of the heap were ours. */
		(void)madvise(backing->view->base + at, TGD_HUGE_BYTES, MADV_DONTNEED);
	backing->huge_works |= r == 0;
	if (r < 0 && bare)
		(void)tgd_backing_punch_file(backing->heap_fd, at, TGS_OS_PAGE);
	end = now_ns();
	backing->huge_rest_ns = 0;
	if (r < 0)
		/* Of a kernel that has done it before, it says something of this piece. */
		backing->huge_rest_ns =
			r == -EINVAL && !backing->huge_works ? UINT64_MAX : end + REST_NS;
	else if (end - begun > SLOW_NS && backing->huge_mode != TGD_HUGE_ALWAYS)
		backing->huge_rest_ns = end + REST_TIMES * (end - begun);
	return r;
}

int tgd_backing_huge(struct tgd_backing *backing, uint64_t page)
{
	const struct tgs_geometry *g = &backing->view->geometry;
	uint64_t bare = count_bare(backing, page);
	int r;

	if (tgd_bits_get(backing->huge_bits, page / TGD_HUGE_PAGES))
		return 0;
	r = tgd_backing_map(backing, g->page_map_at + page * 8, TGD_HUGE_PAGES * 8);
	if (r < 0)
		return r;
	if (!tgd_headroom_take(&backing->headroom, bare * TGS_PAGE_SIZE))
		return -ENOMEM;
	r = collapse(backing, page, bare == TGD_HUGE_PAGES);
	if (r < 0) {
		tgd_headroom_give(&backing->headroom, bare * TGS_PAGE_SIZE);
		return r;
	}
	tgd_bits_put(backing->page_bits, page, TGD_HUGE_PAGES, true);
	tgd_bits_put(backing->huge_bits, page / TGD_HUGE_PAGES, 1, true);
	backing->n_huge++;
	return 0;
}

void tgd_backing_huge_split(struct tgd_backing *backing, uint64_t page, uint64_t n_pages)
{
	uint64_t i = page / TGD_HUGE_PAGES, end = (page + n_pages - 1) / TGD_HUGE_PAGES + 1;

	for (; i < end; i++) {
		if (!tgd_bits_get(backing->huge_bits, i))
			continue;
		tgd_bits_put(backing->huge_bits, i, 1, false);
		backing->n_huge--;
	}
}
