/* heap.h - a heap for a test, and what a client would do to it: take objects, free them, publish
 * them.
 *
 * For the tests that drive daemon/heap.h directly, in one process that is daemon and clients at
 * once.  One heap at a time, in `heap`; end_heap() is the tear-down function of the suites: it
 * checks the heap, so that every test ends with a walk that found nothing wrong, and frees it.
 */
#pragma once

#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdio.h>

#include "daemon/heap.h"
#include "shm/check.h"
#include "shm/remote.h"
#include "shm/span.h"
#include "shm/step.h"
#include "tests/support/taken.h"

enum { MIB = 1 << 20, PAGE = TGS_PAGE_SIZE, RECLAIM = 1 };

static struct tgd_heap *heap;
static const struct tgs_heap *view;

static inline void start_heap(uint64_t reserve, uint64_t limit)
{
	struct tgd_heap_options options = {
		.name = "test", .reserve_bytes = reserve, .limit_bytes = limit};
	char why[256] = "";
	int r = tgd_heap_new(&heap, &options, why, sizeof(why));

	if (r < 0)
		printf("tgd_heap_new: %d, %s\n", r, why);
	CU_ASSERT_EQUAL_FATAL(r, 0);
	view = tgd_heap_view(heap);
}

/* The walk of the whole heap, its findings printed. */
static inline struct tgd_check checked(void)
{
	struct tgd_check check;
	unsigned i;

	tgd_heap_check(heap, &check);
	for (i = 0; i < check.n_errors; i++)
		printf("check: %s\n", check.error[i]);
	CU_ASSERT(check.ok);
	return check;
}

static inline void end_heap(void)
{
	if (heap)
		(void)checked();
	heap = tgd_heap_free(heap);
}

static inline struct tgd_heap_status status(void)
{
	struct tgd_heap_status now;

	tgd_heap_status(heap, &now);
	return now;
}

static inline uint32_t add_client(uint32_t flags)
{
	static uint32_t pid = 1000;
	uint32_t id = 0;

	pid++;
	CU_ASSERT_EQUAL(tgd_heap_client_add(heap, pid, pid * 10, 1, 2, flags, "tester", &id), 0);
	CU_ASSERT_NOT_EQUAL(id, 0);
	return id;
}

static inline unsigned open_slot(uint32_t client)
{
	unsigned slot = 0;

	CU_ASSERT_EQUAL(tgd_heap_open_slot(heap, client, &slot), 0);
	CU_ASSERT(slot > TGS_SLOT_CENTRAL);
	return slot;
}

/* One span, or one large one. */
static inline struct tgd_grant get_span(uint32_t client, unsigned slot, unsigned class)
{
	struct tgd_grant grant = {0};
	unsigned n = 0;

	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, class, 1, &grant, &n), 0);
	CU_ASSERT_EQUAL(n, 1);
	return grant;
}

static inline struct tgd_grant get_large(uint32_t client, unsigned slot, uint64_t n_pages)
{
	struct tgd_grant grant = {0};

	CU_ASSERT_EQUAL(tgd_heap_get_large(heap, client, slot, n_pages, 0, &grant), 0);
	return grant;
}

static inline int put_span(uint32_t client, unsigned slot, uint64_t page)
{
	return tgd_heap_put_spans(heap, client, slot, &page, 1);
}

static inline struct tgs_span span_at(uint64_t page)
{
	struct tgs_span span = {0};

	CU_ASSERT(tgs_span_at(view, page, &span));
	return span;
}

static inline unsigned owner_of(uint64_t page)
{
	return span_at(page).owner;
}

static inline unsigned kind_at(uint64_t page)
{
	return tgs_classes[span_at(page).class].kind;
}

/* What the owner does in malloc and in a free of its own. */
static inline void take_object(uint64_t page, unsigned index)
{
	tgt_set_taken(view, kind_at(page), page, index);
}

static inline void take_objects(uint64_t page, unsigned n)
{
	while (n-- > 0)
		take_object(page, n);
}

/* What is done before others' frees and publications are written. */
static inline void back_state(uint64_t page)
{
	if (kind_at(page) != TGS_SPARSE)
		CU_ASSERT_EQUAL(tgd_heap_back_state(heap, &page, 1, 0), 0);
}

static inline void drop_object(uint64_t page, unsigned index)
{
	uint64_t bit = UINT64_C(1) << index % 64;

	if (tgs_has_more(view, kind_at(page), page))
		*tgs_published_word(view, kind_at(page), page, index / 64) &= ~bit;
	(void)tgs_taken_clear(view, kind_at(page), page, index / 64, bit);
}

static inline void publish(uint64_t page, unsigned index)
{
	back_state(page);
	*tgs_published_word(view, kind_at(page), page, index / 64) |= UINT64_C(1) << index % 64;
}

/* What another thread does to free it: at once, or, so far, only in its buffer. */
static inline void remote_free(unsigned self, uint64_t page, unsigned index)
{
	_Atomic uint64_t *word =
		tgs_remote_word(view, kind_at(page), page, index / 64, index % 64 / 32);

	back_state(page);
	CU_ASSERT_EQUAL(tgs_remote_free(view, self, word, UINT32_C(1) << index % 32), 0);
	tgs_step_done(&view->slots[self]);
}

static inline struct tgs_pending *buffer_free(unsigned self, unsigned place, uint64_t page,
					      unsigned index)
{
	struct tgs_pending *pending = &view->slots[self].pending[place];

	back_state(page);
	view->slots[self].held |= tgs_pending_group(place);
	pending->word = tgs_ref_of(
		view, tgs_remote_word(view, kind_at(page), page, index / 64, index % 64 / 32));
	pending->mask |= UINT32_C(1) << index % 32;
	return pending;
}

static inline uint64_t ref_of(uint64_t page, unsigned index)
{
	return view->geometry.data_at + page * PAGE +
	       (uint64_t)index * tgs_classes[span_at(page).class].size;
}

/* Background work until nothing is to be done at once; `now` moves on by a second each time, so
 * that no pace and no rest holds it up.  Gives up after `rounds`. */
static inline void work(unsigned rounds)
{
	static uint64_t now_ms = 1000000;

	while (rounds-- > 0) {
		now_ms += 1000;
		if (tgd_heap_work(heap, now_ms) < 0)
			break;
	}
}
