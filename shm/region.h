/* region.h - a heap as one process sees it: the two memory files, mapped, checked, and found by arithmetic. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/layout.h"
#include "shm/sizeclass.h"

/* This process's view of a heap.  Plain private memory; everything in it is const once tgs_region_map has returned. */
struct tgs_heap {
	uint8_t *base; /* the heap file; ref 0 */
	uint8_t *data; /* base + geometry.data_at: page 0 */
	uint64_t data_bytes;
	const _Atomic uint64_t *page_map; /* one entry a page */
	struct tgs_slot *slots;
	struct tgs_record *records;
	struct tgs_unit *dense;            /* TGS_DENSE_UNITS a page */
	tgs_taken *taken[TGS_TINY];        /* by kind: the bytes of slots, see tgs_taken_bytes */
	struct tgs_tiny_taken *tiny_taken; /* one a page */
	struct tgs_tiny_more *tiny_more;   /* one a page */
	_Atomic uint64_t *dirty;           /* central's: one bit a page */
	const struct tgs_map_header *map;
	const struct tgs_root *roots;
	const struct tgs_slot_owner *slot_owners;
	struct tgs_geometry geometry; /* a private copy, recomputed and not read */
};

/* Fills in the geometry of a heap of n_pages. */
void tgs_geometry_init(struct tgs_geometry *geometry, uint64_t n_pages);

/* Makes a memory file of `bytes` (sparse), sealed against growing and shrinking.  -errno. */
int tgs_region_create(const char *name, uint64_t bytes, int *ret_fd);

/* A second descriptor of the same file that cannot be written through.  -errno. */
int tgs_region_reopen_read_only(int fd, int *ret_fd);

/* Writes both headers of a new heap.  `map_fd` and `heap_fd` are of the lengths that the geometry says. */
int tgs_region_format(int map_fd, int heap_fd, const char *name, const uint8_t uuid[16],
		      uint64_t base, uint64_t n_pages);

/* Checks both files (length, seals, magic, version, geometry, uuid) and maps them: the heap at its address (`any_address`:
 * or, if that is taken, anywhere), the map read-only, or writable for the daemon.  On failure nothing stays mapped and
 * `why` says in a sentence what was wrong.  -EADDRINUSE: the address range is taken; -EPROTO: not a heap, or one of
 * another version; -errno of the system. */
int tgs_region_map(struct tgs_heap *heap, int map_fd, int heap_fd, bool writable_map,
		   bool any_address, char *why, size_t why_size);

void tgs_region_unmap(struct tgs_heap *heap);
