/* region.c - makes a heap in this process and writes what else the daemon would.
 */
#include "tests/support/region.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/sizeclass.h"
#include "tests/support/taken.h"

/* Where it is tried first; any other address will do. */
#if defined(__SANITIZE_THREAD__)
#define BASE UINT64_C(0x1000000000)
#else
#define BASE UINT64_C(0x200000000000)
#endif

struct tgt_region tgt_region;
struct tgs_heap *tgt_heap = &tgt_region.heap;

int tgt_region_make(struct tgt_region *region, uint64_t n_pages)
{
	static const uint8_t uuid[16] = "a test's region";
	struct tgs_geometry geometry;
	char why[256] = "";
	int r;

	*region = (struct tgt_region){.map_fd = -1, .heap_fd = -1};
	tgs_geometry_init(&geometry, n_pages);
	r = tgs_region_create("test-map", geometry.map_bytes, &region->map_fd);
	if (r == 0)
		r = tgs_region_create("test-heap", geometry.heap_bytes, &region->heap_fd);
	if (r == 0)
		r = tgs_region_format(region->map_fd, region->heap_fd, "test", uuid, BASE, n_pages);
	if (r == 0)
		r = tgs_region_map(&region->heap, region->map_fd, region->heap_fd, true, true, why,
				   sizeof(why));
	if (r < 0) {
		fprintf(stderr, "no region for the test: %s %s\n", strerror(-r), why);
		tgt_region_end(region);
	}
	return r;
}

void tgt_region_end(struct tgt_region *region)
{
	tgs_region_unmap(&region->heap);
	if (region->map_fd >= 0)
		close(region->map_fd);
	if (region->heap_fd >= 0)
		close(region->heap_fd);
	region->map_fd = region->heap_fd = -1;
}

void tgt_region_set_up(void)
{
	if (tgt_region_make(&tgt_region, TGT_REGION_PAGES) < 0)
		exit(EXIT_FAILURE);
}

void tgt_region_tear_down(void)
{
	tgt_region_end(&tgt_region);
}

void tgt_open_slot(unsigned slot)
{
	struct tgs_slot_owner *owners = (struct tgs_slot_owner *)(uintptr_t)tgt_heap->slot_owners;

	struct tgs_map_header *header = (struct tgs_map_header *)(uintptr_t)tgt_heap->map;

	if (header->n_slots <= slot)
		atomic_store_explicit(&header->n_slots, slot + 1, memory_order_release);
	atomic_store_explicit(&owners[slot].client, 1, memory_order_release);
	atomic_store_explicit(&tgt_heap->slots[slot].in_use, 1, memory_order_relaxed);
}

void tgt_set_entry(uint64_t page, uint64_t entry)
{
	_Atomic uint64_t *map = (_Atomic uint64_t *)(uintptr_t)tgt_heap->page_map;

	atomic_store_explicit(&map[page], entry, memory_order_seq_cst);
}

void tgt_put_span(uint64_t page, unsigned class, unsigned owner, uint64_t large_pages)
{
	uint64_t more = tgs_classes[class].kind != TGS_SPARSE ? TGS_ENTRY_MORE : 0;
	unsigned i;

	if (class == 0)
		tgt_set_entry(page, tgs_entry_make(0, owner, 0, large_pages));
	for (i = 0; class != 0 && i < tgs_classes[class].n_pages; i++)
		tgt_set_entry(page + i, more | tgs_entry_make(class, owner, i, 0));
}

void tgt_take_more(uint64_t page)
{
	tgt_set_entry(page, tgt_heap->page_map[page] & ~TGS_ENTRY_MORE);
}

void tgt_remove_span(uint64_t page)
{
	struct tgs_span span = tgt_span(page);
	uint64_t i;

	for (i = 0; i < (span.class == 0 ? 1 : span.n_pages); i++)
		tgt_set_entry(page + i, 0);
}

struct tgs_span tgt_span(uint64_t page)
{
	struct tgs_span span = {.page = UINT64_MAX};

	if (!tgs_span_at(tgt_heap, page, &span))
		fprintf(stderr, "no span at page %llu\n", (unsigned long long)page);
	return span;
}

void tgt_take(uint64_t page, unsigned index)
{
	tgt_set_taken(tgt_heap, tgs_classes[tgt_span(page).class].kind, page, index);
}

void tgt_clear_taken(uint64_t page)
{
	unsigned kind;

	for (kind = TGS_DENSE_2; kind <= TGS_DENSE_8; kind++)
		memset((void *)tgs_taken_bytes(tgt_heap, kind, page), 0,
		       TGS_DENSE_BYTES(kind - TGS_DENSE_2));
}

_Atomic uint64_t *tgt_remote_word(uint64_t page, unsigned index)
{
	unsigned kind = tgs_classes[tgt_span(page).class].kind;

	return tgs_remote_word(tgt_heap, kind, page, index / 64, index % 64 / 32);
}
