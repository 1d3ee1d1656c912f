/* populate.c - fresh memory is mapped many pages at a time.
 *
 * The daemon has put cleared memory behind all that it grants (daemon/backing.c), but to map a page of 4 KiB takes a fault when
 * the program first writes to it.  A read, though, maps all pages of its 64 KiB that are there and clear, and maps them
 * for writing, since this is shared memory: so one byte of each 64 KiB is read.  For a single page that costs no more
 * than its own fault.
 */
#include "client/cache.h"

#define AROUND_BYTES 65536u /* the kernel's fault_around_bytes, unless somebody has set another */

void tgc_populate(uint64_t page, uint64_t n_pages)
{
	const uint8_t *p = tgs_page_address(&tgc_heap, page),
		      *end = p + (n_pages << TGS_PAGE_SHIFT);

	for (; p < end; p += AROUND_BYTES - (uintptr_t)p % AROUND_BYTES)
		(void)__atomic_load_n(p, __ATOMIC_RELAXED);
}
