/* frees.h - spans of each kind in a region, an owner, two who free, and what a test asks about them.
 *
 * For the tests of shm/remote.c, of which there are two programs.
 */
#pragma once

#include "shm/remote.h"
#include "shm/step.h"
#include "tests/support/region.h"

/* Who owns the spans, and who frees. */
enum { OWNER = 2, FREER = 3, OTHER = 4 };

/* A span of each kind of state. */
enum { SPARSE_PAGE = 10, DENSE_PAGE = 20, TINY_PAGE = 30, LARGE_PAGE = 40 };

static const uint64_t pages[] = {SPARSE_PAGE, DENSE_PAGE, TINY_PAGE, LARGE_PAGE};

static inline void put_spans(unsigned owner)
{
	tgt_put_span(SPARSE_PAGE, 30, owner, 0);
	tgt_put_span(DENSE_PAGE, 5, owner, 0);
	tgt_put_span(TINY_PAGE, TGS_CLASS_TINY, owner, 0);
	tgt_put_span(LARGE_PAGE, 0, owner, 5);
}

static inline void set_up(void)
{
	unsigned slot;

	tgt_region_set_up();
	for (slot = OWNER; slot <= OTHER; slot++)
		tgt_open_slot(slot);
	put_spans(OWNER);
}

static inline struct tgs_slot *slot(unsigned id)
{
	return &tgt_heap->slots[id];
}

static inline uint32_t free_one(unsigned self, uint64_t page, unsigned index)
{
	uint32_t twice = tgs_remote_free(tgt_heap, self, tgt_remote_word(page, index),
					 UINT32_C(1) << index % 32);

	tgs_step_done(slot(self));
	return twice;
}

static inline bool is_live(uint64_t page, unsigned index)
{
	struct tgs_object object = {.span = tgt_span(page),
				    .index = index,
				    .unit = index / 64,
				    .bit = UINT64_C(1) << index % 64};

	return tgs_object_live(tgt_heap, &object);
}

static inline bool is_taken(uint64_t page, unsigned index)
{
	unsigned kind = tgs_classes[tgt_span(page).class].kind;

	return tgs_taken_bits(tgt_heap, kind, page, index / 64) >> index % 64 & 1;
}

static inline void publish(uint64_t page, unsigned index)
{
	unsigned kind = tgs_classes[tgt_span(page).class].kind;

	atomic_fetch_or(tgs_published_word(tgt_heap, kind, page, index / 64),
			UINT64_C(1) << index % 64);
}

static inline struct tgs_harvest harvest(uint64_t page)
{
	struct tgs_span span = tgt_span(page);
	struct tgs_harvest harvest = {0};

	tgs_remote_harvest_span(tgt_heap, &span, &harvest);
	return harvest;
}

static inline bool is_dirty(unsigned owner, uint64_t page)
{
	if (owner == TGS_SLOT_CENTRAL)
		return tgt_heap->dirty[page / 64] >> page % 64 & 1;
	return slot(owner)->dirty[page % TGS_DIRTY_BITS / 64] >> page % 64 & 1;
}

/* A free in the buffer of a thread, not applied. */
static inline struct tgs_pending *buffer(unsigned self, unsigned place, uint64_t page,
					 unsigned index)
{
	struct tgs_pending *pending = &slot(self)->pending[place];

	slot(self)->held |= tgs_pending_group(place);
	pending->word = tgs_ref_of(tgt_heap, tgt_remote_word(page, index));
	pending->mask |= UINT32_C(1) << index % 32;
	return pending;
}
