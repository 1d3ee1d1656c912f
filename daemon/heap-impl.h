/* heap-impl.h - what a heap is made of; for heap*.c alone.  Everybody else sees heap.h. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/backing.h"
#include "daemon/central.h"
#include "daemon/heap.h"
#include "daemon/holders.h"
#include "daemon/lease.h"
#include "daemon/pages.h"
#include "daemon/reclaim.h"
#include "daemon/roots.h"
#include "daemon/scavenge.h"

struct tgd_heap {
	struct tgs_heap view;
	int map_fd, map_fd_ro, heap_fd;
	struct tgd_pages *pages;
	struct tgd_backing backing;
	struct tgd_holders holders;
	struct tgd_lease lease;
	struct tgd_central central;
	struct tgd_reclaim reclaim;
	struct tgd_scavenge scavenge;
	struct tgd_roots roots;
	uint64_t limit_pages;
	uint64_t group
		[TGS_KINDS]; /* by kind: the group of pages (heap-place.c) where the last span was put */
	bool grows; /* the last grant was of memory that had to be made: some is made for the next */
	uint64_t n_refused;
	uint64_t sweep_at_ms;   /* next sweep of central */
	uint64_t sweep_wait_ms; /* and how long to wait for the one after it */
	uint64_t pressed_at_ms; /* when the clients were last asked for what they hoard */
	char why[256];
};

/* Notes what was wrong, for tgd_heap_why, and returns r. */
int tgd_heap_fail(struct tgd_heap *heap, int r, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* An empty shell around two descriptors (-1: none yet) that are its own now; NULL: no memory. */
struct tgd_heap *tgd_heap_alloc(int map_fd, int heap_fd);

/* Maps the files and makes all that is private, empty: no span, no client, nothing known to have
 * memory. What is half made tgd_heap_free undoes. */
int tgd_heap_open(struct tgd_heap *heap, char *why, size_t why_size);

/* The index of a live client; -ENOENT, noted. */
int tgd_heap_find_client(struct tgd_heap *heap, uint32_t client_id, uint32_t *ret);

/* The index of the client to which the slot belongs; -EINVAL, -ENOENT, noted. */
int tgd_heap_find_slot(struct tgd_heap *heap, uint32_t client_id, unsigned slot, uint32_t *ret);

/* Takes pages for spans of a small class, side by side: for some of `count`.  Returns for how many; 0: there is no room. */
unsigned tgd_heap_choose(struct tgd_heap *heap, unsigned class, unsigned count, uint64_t *ret_page);

/* Takes pages for large spans side by side, such as have memory first of all.  0 or -ENOMEM. */
int tgd_heap_choose_large(struct tgd_heap *heap, uint64_t n_pages, uint64_t *ret_page);

/* Pages that were taken but do not become a span go back, each run as what it is. */
void tgd_heap_give_back(struct tgd_heap *heap, uint64_t page, uint64_t n_pages);

/* Before this run, which has been taken, gets memory: what of it may be huge pages becomes such. */
void tgd_heap_huge_grant(struct tgd_heap *heap, uint64_t page, uint64_t n_pages);

/* How many pages are to have memory ahead of need where `want` would do; and one slice of it, a huge page.  False: small
 * pages have to do. */
uint64_t tgd_heap_huge_ahead(struct tgd_heap *heap, uint64_t want);
bool tgd_heap_huge_back_ahead(struct tgd_heap *heap);

/* While the heap grows: a slice of making memory for the next grants.  False: there is nothing (more) to do. */
bool tgd_heap_back_ahead(struct tgd_heap *heap);

/* Before a request is refused for want of memory: all that can be done at once. */
void tgd_heap_make_room(struct tgd_heap *heap);

/* Raises the map's trim epoch: asks the clients to give back what they hoard. */
void tgd_heap_press(struct tgd_heap *heap);

/* The root that a daemon was setting when it ended: its object is published, if the root stands. */
void tgd_heap_finish_root(struct tgd_heap *heap);
