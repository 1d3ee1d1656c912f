/* populate.c - fresh memory is mapped many pages at a time.
 *
 * The daemon has put memory behind all that it grants, but each 4 KiB of it costs a fault when the program first touches
 * it.  One system call for many pages costs a good third less than the faults.  That is a loss where the program would not
 * have touched the pages, so it is done only where demand lasts (client/refill.c), and a stretch at a time.
 */
#include <sys/mman.h>

#include "client/cache.h"

#define STRETCH_PAGES 32u /* 256 KiB */

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* A kernel before 5.14 refuses: then, as after any other failure, the program's own faults do it. */
void tgc_populate(uint64_t page, uint64_t n_pages)
{
	int saved_errno = errno;

	(void)madvise(tgs_page_address(&tgc_heap, page), n_pages << TGS_PAGE_SHIFT,
		      MADV_POPULATE_WRITE);
	errno = saved_errno;
}

/* Neighbours of a grant lie side by side, and are taken in that order. */
void tgc_populate_spans(struct tgc_span *span)
{
	uint64_t page = tgc_span_page(span), n_pages = tgs_classes[span->class].n_pages, n = 0;
	unsigned class = span->class;

	do {
		span->fresh = false;
		n += n_pages;
		if (page + n >= tgc_heap.geometry.n_pages)
			break;
		span = tgc_span_record(page + n);
	} while (n < STRETCH_PAGES && span->fresh && span->class == class);
	tgc_populate(page, n);
}
