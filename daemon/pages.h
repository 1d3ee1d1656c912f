/*
 * pages: which pages of the heap are in use, and where the next run of free ones lies.
 *
 * The Go runtime's page allocator (mpagealloc): a bitmap with one bit a page, in chunks of 512
 * pages, under a tree of summaries (pagesum.h), 8 children to a node. Runs are granted at the
 * lowest address that fits, so the heap stays packed at its low end and the high end can be given
 * back to the kernel. A second bitmap says which pages are backed by memory.
 *
 * A page is in one of three states:
 *	in use          granted, or in the scavenger's hands
 *	free, backed    granting it costs nothing; the scavenger may give it back to the kernel
 *	free, scavenged no memory stands behind it; it must be backed before anybody touches it
 * At first all are free and scavenged. A page that is in use counts as backed: whoever takes it
 * must back it, and say so when it gives it back unbacked.
 *
 *	alloc, alloc_at    free -> in use; tells how many pages of the run were scavenged
 *	release            in use -> free, backed or scavenged as the caller says
 *	take_scavengable   free, backed -> in use, until release(.., true)
 *
 * Pure bookkeeping over page numbers 0 .. n_pages - 1 in private memory: knows no client, no file,
 * no address. Not thread-safe. A run may cross any border; n_pages need not be a multiple of 512.
 * Only new() allocates memory. The tables are reserved address space that costs memory where the
 * heap was used: 16 TiB take about 560 MiB of addresses and, at first, a few KiB.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct tgd_pages;

/* Pages by state. */
struct tgd_pages_count {
	uint64_t in_use;
	uint64_t backed_free;
	uint64_t scavenged_free;
};

#define TGD_PAGES_NONE UINT64_MAX
#define TGD_PAGES_MAX  (UINT64_C(1) << 34) /* 128 TiB, the address space of a process */

int tgd_pages_new(struct tgd_pages **ret, uint64_t n_pages);
struct tgd_pages *tgd_pages_free(struct tgd_pages *pages);

int tgd_pages_alloc(struct tgd_pages *pages, uint64_t n, uint64_t align_pages, uint64_t *ret_first,
		    uint64_t *ret_scavenged);
uint64_t tgd_pages_find(const struct tgd_pages *pages, uint64_t from, uint64_t n);
int tgd_pages_alloc_at(struct tgd_pages *pages, uint64_t first, uint64_t n,
		       uint64_t *ret_scavenged);
void tgd_pages_release(struct tgd_pages *pages, uint64_t first, uint64_t n, bool scavenged);
void tgd_pages_undo_alloc(struct tgd_pages *pages, uint64_t first, uint64_t n, uint64_t n_backed);

uint64_t tgd_pages_take_scavengable(struct tgd_pages *pages, uint64_t max_pages,
				    uint64_t *ret_first);

/* Totals; each at once but for the longest run, which takes a step per 16 GiB of reservation. */
uint64_t tgd_pages_total(const struct tgd_pages *pages);
uint64_t tgd_pages_in_use(const struct tgd_pages *pages);
uint64_t tgd_pages_free_backed(const struct tgd_pages *pages);
uint64_t tgd_pages_largest_run(const struct tgd_pages *pages);

void tgd_pages_count(const struct tgd_pages *pages, uint64_t first, uint64_t n,
		     struct tgd_pages_count *ret);
