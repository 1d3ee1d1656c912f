/* backing.h - memory behind the two files: put there before anybody touches it, taken away again.
 *
 * Both files are sparse.  A bit for each 4 KiB of the map file and of the heap file's state, and
 * one for each page of the heap, says whether memory stands behind it; the bits are private, so
 * nothing that a client does makes the daemon touch a hole.
 *
 *   - All or nothing: a call that fails has given back what it had put there.
 *   - Fresh memory is zero.  `used` says of a page that it was in a span since it was backed, so
 *   that
 *     its memory is not known to be zero any more.
 *   - State of free pages is zero (the rule of the whole project), so punching it changes nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/headroom.h"
#include "daemon/huge.h"
#include "daemon/pages.h"
#include "shm/region.h"

/* What the machine calls a huge page. */
#define TGD_HUGE_BYTES (UINT64_C(2) << 20)
#define TGD_HUGE_PAGES (TGD_HUGE_BYTES / TGS_PAGE_SIZE)

struct tgd_backing {
	const struct tgs_heap *view;
	int map_fd, heap_fd;
	uint64_t *map_bits;   /* one for 4 KiB of the map file */
	uint64_t *state_bits; /* one for 4 KiB of the heap file before its pages */
	uint64_t *page_bits;  /* one for a page */
	uint64_t *used_bits;  /* one for a page; only where page_bits is set */
	uint64_t *huge_bits;  /* one for a piece of 2 MiB; that it is one page, as far as we know */
	uint64_t n_huge;      /* of these bits are set */
	uint64_t
		huge_rest_ns; /* no piece is made one page before; UINT64_MAX: this kernel cannot */
	enum tgd_huge_mode huge_mode;
	bool huge_works; /* a piece has been made one page */
	struct tgd_headroom headroom;
};

/* Address space for an array that costs memory only where it is touched; zero.  NULL: no room. */
void *tgd_sparse_new(size_t bytes);
void tgd_sparse_free(void *array, size_t bytes);

int tgd_backing_init(struct tgd_backing *backing, const struct tgs_heap *view, int map_fd,
		     int heap_fd);
void tgd_backing_done(struct tgd_backing *backing);

/* Backs the 4 KiB blocks of a byte range of the map file, or of the state in the heap file.
 * -ENOMEM: the machine, the cgroup, or the file system has no more. */
int tgd_backing_map(struct tgd_backing *backing, uint64_t at, uint64_t bytes);
int tgd_backing_state(struct tgd_backing *backing, uint64_t at, uint64_t bytes);

/* Backs all that belongs to `count` spans of n_pages each, side by side: pages, entries, state; but
 * for the published and remote words of dense and tiny spans, which most of them never need. */
int tgd_backing_spans(struct tgd_backing *backing, uint64_t page, uint64_t n_pages, unsigned count,
		      unsigned class);

/* Backs the published and remote words of a dense or tiny span, and with those of a dense one its
 * group's.  `urgent`: without them a free could not be noted, so the margin that grants leave may be
 * used. */
int tgd_backing_words(struct tgd_backing *backing, unsigned kind, uint64_t page, bool urgent);
bool tgd_backing_has_words(const struct tgd_backing *backing, unsigned kind, uint64_t page);

/* Backs pages that lengthen a large span: them and their entries. */
int tgd_backing_more(struct tgd_backing *backing, uint64_t page, uint64_t n_pages);

/* May a piece be made one huge page now? */
bool tgd_backing_huge_now(const struct tgd_backing *backing);

/* Makes the piece of TGD_HUGE_PAGES that begins at this page, a multiple of so many, one huge page, and with that backs
 * what of it is not, and its entries.  -errno: nothing changed. */
int tgd_backing_huge(struct tgd_backing *backing, uint64_t page);

/* Of the pieces in which these pages lie a part is gone. */
void tgd_backing_huge_split(struct tgd_backing *backing, uint64_t page, uint64_t n_pages);

/* Backed pages get used.  True: none was before, so all of their memory is zero. */
bool tgd_backing_use(struct tgd_backing *backing, uint64_t page, uint64_t n_pages);

/* Is there memory behind all blocks of this range of the map file, or of the heap file's state?
 * Behind this page? */
bool tgd_backing_has_map(const struct tgd_backing *backing, uint64_t at, uint64_t bytes);
bool tgd_backing_has_state(const struct tgd_backing *backing, uint64_t at, uint64_t bytes);
bool tgd_backing_has_page(const struct tgd_backing *backing, uint64_t page);

/* Which kind of spans has state memory among these pages, whose first is a multiple of their number, 16 or 32; TGS_SPARSE:
 * neither dense nor tiny ones. */
unsigned tgd_backing_kind(const struct tgd_backing *backing, uint64_t page, uint64_t n_pages);

/* The first pages of [page, page + n_pages) that are alike: how many, and whether backed. */
uint64_t tgd_backing_run(const struct tgd_backing *backing, uint64_t page, uint64_t n_pages,
			 bool *ret_backed);

/* Gives the memory of these pages back to the kernel, and counts it in the map's header.  -errno:
 * nothing changed. */
int tgd_backing_punch(struct tgd_backing *backing, uint64_t page, uint64_t n_pages);

/* After pages were punched and are free again: gives back the blocks of state that belong to free
 * pages only.  Returns the bytes. */
uint64_t tgd_backing_punch_state(struct tgd_backing *backing, const struct tgd_pages *pages,
				 uint64_t page, uint64_t n_pages);

/* These pages have just become spans of that kind.  Gives back the state of other kinds that lies
 * with theirs and that no span has any use of. */
void tgd_backing_drop_others(struct tgd_backing *backing, uint64_t page, uint64_t n_pages,
			     unsigned kind);

/* ---- for a daemon that takes the files over: which memory is there? ----
 *
 * What belongs to spans is there, since it was before their entries were written: no need to ask.
 * The kernel tells which blocks of the map file were ever written; those that were backed and never
 * written look like holes, and cost nothing when they are backed again. */

/* Asks the kernel about the map file and about central's dirty bits.  -errno. */
int tgd_backing_find(struct tgd_backing *backing);

/* The first byte at `at` or above in the map file that has memory; UINT64_MAX: there is none. */
uint64_t tgd_backing_map_from(const struct tgd_backing *backing, uint64_t at);

/* These have memory: a range of state; all that belongs to a span, whose pages count as used. */
void tgd_backing_found_state(struct tgd_backing *backing, uint64_t at, uint64_t bytes);
void tgd_backing_found_span(struct tgd_backing *backing, uint64_t page, uint64_t n_pages,
			    unsigned class);

/* Whatever has not been found goes back to the kernel, a system call for each run of it; state of
 * free pages that lies in one block with that of others becomes zero.  No span lies at end_page or
 * above.  -errno: some of it may still have memory. */
int tgd_backing_drop_rest(struct tgd_backing *backing, uint64_t end_page);

/* Bytes that both files take of the machine's memory, as the kernel counts them. */
uint64_t tgd_backing_resident(const struct tgd_backing *backing);
