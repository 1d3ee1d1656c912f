/* takeover.h - a daemon dies and the next one takes its heap over, for tests that drive
 * daemon/heap.h directly.
 *
 * Death is that nobody cleans up: the files are kept, and all private memory of the daemon goes.
 * On top of heap.h.
 */
#pragma once

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "daemon/heap-impl.h"
#include "tests/support/heap.h"

static int kept_map = -1, kept_heap = -1;

static inline void die(void)
{
	kept_map = fcntl(tgd_heap_map_fd(heap), F_DUPFD_CLOEXEC, 0);
	kept_heap = fcntl(tgd_heap_heap_fd(heap), F_DUPFD_CLOEXEC, 0);
	CU_ASSERT_FATAL(kept_map >= 0 && kept_heap >= 0);
	heap = tgd_heap_free(heap);
	view = NULL;
}

static inline int adopt(const char *name, char *why, size_t why_size)
{
	int map_fd = kept_map, heap_fd = kept_heap, r;

	kept_map = kept_heap = -1;
	r = tgd_heap_adopt(&heap, map_fd, heap_fd, name, why, why_size);
	if (r == 0)
		view = tgd_heap_view(heap);
	return r;
}

/* What both memory files should take of the machine, by the books. */
static inline uint64_t booked_bytes(void)
{
	const struct tgs_geometry *g = &view->geometry;
	const struct tgd_backing *backing = &heap->backing;
	uint64_t bytes = 0, i;

	for (i = 0; i < g->map_bytes / TGS_OS_PAGE; i++)
		bytes += backing->map_bits[i / 64] >> i % 64 & 1 ? TGS_OS_PAGE : 0;
	for (i = 0; i < g->data_at / TGS_OS_PAGE; i++)
		bytes += backing->state_bits[i / 64] >> i % 64 & 1 ? TGS_OS_PAGE : 0;
	for (i = 0; i < g->n_pages; i++)
		bytes += backing->page_bits[i / 64] >> i % 64 & 1 ? PAGE : 0;
	return bytes;
}

static inline void take_over(void)
{
	char why[256] = "";
	int r;

	die();
	r = adopt("test", why, sizeof(why));
	if (r < 0)
		printf("tgd_heap_adopt: %d, %s\n", r, why);
	CU_ASSERT_EQUAL_FATAL(r, 0);
	CU_ASSERT_EQUAL(status().resident_bytes, booked_bytes());
	(void)checked();
}

/* The map, to be written as a daemon would. */
static inline struct tgs_map_header *header(void)
{
	return (struct tgs_map_header *)(uintptr_t)view->map;
}

static inline _Atomic uint64_t *entry(uint64_t page)
{
	return (_Atomic uint64_t *)(uintptr_t)&view->page_map[page];
}

static inline struct tgs_slot_owner *slot_owner(unsigned slot)
{
	return (struct tgs_slot_owner *)(uintptr_t)&view->slot_owners[slot];
}

static inline struct tgs_root *root(uint64_t index)
{
	return (struct tgs_root *)(uintptr_t)&view->roots[index];
}

static inline struct tgs_client *client_entry(uint32_t client)
{
	return (struct tgs_client *)(uintptr_t)tgd_holders_entry(&heap->holders,
								 client & (TGS_CLIENTS_MAX - 1));
}
