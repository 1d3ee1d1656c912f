/*
 * pages: a page heap for a test, and requests of it with what they should give.
 *
 * For the tests of daemon/pages alone, of which there are several programs. One heap at a time, in
 * `heap`; no_heap() is the tear-down function of the suites, so that a failed test leaks none.
 */
#pragma once

#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdint.h>

#include "daemon/pages.h"

enum { CHUNK = 512 };

static struct tgd_pages *heap;

static inline void make(uint64_t n_pages)
{
	heap = tgd_pages_free(heap);
	CU_ASSERT_EQUAL_FATAL(tgd_pages_new(&heap, n_pages), 0);
}

static inline void no_heap(void)
{
	heap = tgd_pages_free(heap);
}

static inline void alloc_aligned(uint64_t n, uint64_t align, uint64_t expected, uint64_t scavenged)
{
	uint64_t first = UINT64_MAX, n_scavenged = UINT64_MAX;

	CU_ASSERT_EQUAL(tgd_pages_alloc(heap, n, align, &first, &n_scavenged), 0);
	CU_ASSERT_EQUAL(first, expected);
	CU_ASSERT_EQUAL(n_scavenged, scavenged);
}

static inline void alloc(uint64_t n, uint64_t expected, uint64_t scavenged)
{
	alloc_aligned(n, 1, expected, scavenged);
}

static inline void alloc_fails(uint64_t n)
{
	uint64_t first = 123, scavenged = 456;

	CU_ASSERT_EQUAL(tgd_pages_alloc(heap, n, 1, &first, &scavenged), -ENOMEM);
	CU_ASSERT_EQUAL(first, 123);
	CU_ASSERT_EQUAL(scavenged, 456);
}

/* Takes pages that must be free, to set the scene. */
static inline void take(uint64_t first, uint64_t n)
{
	uint64_t scavenged;

	CU_ASSERT_EQUAL(tgd_pages_alloc_at(heap, first, n, &scavenged), 0);
}

static inline void counts_are(uint64_t first, uint64_t n, uint64_t in_use, uint64_t backed,
			      uint64_t scavenged)
{
	struct tgd_pages_count count;

	tgd_pages_count(heap, first, n, &count);
	CU_ASSERT_EQUAL(count.in_use, in_use);
	CU_ASSERT_EQUAL(count.backed_free, backed);
	CU_ASSERT_EQUAL(count.scavenged_free, scavenged);
}

/* The totals, and the same from a count of the whole heap. */
static inline void heap_has(uint64_t in_use, uint64_t backed)
{
	uint64_t n = tgd_pages_total(heap);

	CU_ASSERT_EQUAL(tgd_pages_in_use(heap), in_use);
	CU_ASSERT_EQUAL(tgd_pages_free_backed(heap), backed);
	counts_are(0, n, in_use, backed, n - in_use - backed);
}
