/* test_remote - frees of other people's objects: set, told, harvested, and settled when their thread is dead.
 *
 * Every way to stop in the middle that a kill may take is tried by hand: the state is made as the killed thread would have
 * left it, and the recoverer must do each free exactly once.
 */
#include "shm/remote.h"

#include <CUnit/CUnit.h>
#include <stddef.h>
#include <string.h>

#include "shm/step.h"
#include "tests/support/region.h"
#include "tests/support/runner.h"

/* Who owns the spans, and who frees. */
enum { OWNER = 2, FREER = 3, OTHER = 4 };

/* A span of each kind of state. */
enum { SPARSE_PAGE = 10, DENSE_PAGE = 20, TINY_PAGE = 30, LARGE_PAGE = 40 };

static const uint64_t pages[] = {SPARSE_PAGE, DENSE_PAGE, TINY_PAGE, LARGE_PAGE};

static void put_spans(unsigned owner)
{
	tgt_put_span(SPARSE_PAGE, 30, owner, 0);
	tgt_put_span(DENSE_PAGE, 5, owner, 0);
	tgt_put_span(TINY_PAGE, TGS_CLASS_TINY, owner, 0);
	tgt_put_span(LARGE_PAGE, 0, owner, 5);
}

static void set_up(void)
{
	unsigned slot;

	tgt_region_set_up();
	for (slot = OWNER; slot <= OTHER; slot++)
		tgt_open_slot(slot);
	put_spans(OWNER);
}

static struct tgs_slot *slot(unsigned id)
{
	return &tgt_heap->slots[id];
}

static uint32_t free_one(unsigned self, uint64_t page, unsigned index)
{
	uint32_t twice = tgs_remote_free(tgt_heap, self, tgt_remote_word(page, index), UINT32_C(1) << index % 32);

	tgs_step_done(slot(self));
	return twice;
}

static bool is_live(uint64_t page, unsigned index)
{
	struct tgs_object object = {.span = tgt_span(page), .index = index, .unit = index / 64,
				    .bit = UINT64_C(1) << index % 64};

	return tgs_object_live(tgt_heap, &object);
}

static bool is_taken(uint64_t page, unsigned index)
{
	unsigned kind = tgs_classes[tgt_span(page).class].kind;

	return *tgs_taken_word(tgt_heap, kind, page, index / 64) >> index % 64 & 1;
}

static void publish(uint64_t page, unsigned index)
{
	unsigned kind = tgs_classes[tgt_span(page).class].kind;

	atomic_fetch_or(tgs_published_word(tgt_heap, kind, page, index / 64), UINT64_C(1) << index % 64);
}

static struct tgs_harvest harvest(uint64_t page)
{
	struct tgs_span span = tgt_span(page);
	struct tgs_harvest harvest = {0};

	tgs_remote_harvest_span(tgt_heap, &span, &harvest);
	return harvest;
}

static bool is_dirty(unsigned owner, uint64_t page)
{
	if (owner == TGS_SLOT_CENTRAL)
		return tgt_heap->dirty[page / 64] >> page % 64 & 1;
	return slot(owner)->dirty[page % TGS_DIRTY_BITS / 64] >> page % 64 & 1;
}

/* ---- free and harvest ---- */

static void test_free_and_harvest(void)
{
	unsigned i, index;

	for (i = 0; i < 4; i++) {
		uint64_t page = pages[i];
		struct tgs_span span = tgt_span(page);

		for (index = 0; index < span.n_slots; index++)
			tgt_take(page, index);
		publish(page, span.n_slots - 1);
		for (index = 0; index < span.n_slots; index++) {
			CU_ASSERT_TRUE(is_live(page, index));
			CU_ASSERT_EQUAL(free_one(FREER, page, index), 0);
			CU_ASSERT_FALSE(is_live(page, index));
			/* Until the owner has heard of it, it stays taken. */
			CU_ASSERT_TRUE(is_taken(page, index));
		}
		CU_ASSERT_TRUE(is_dirty(OWNER, page));
		CU_ASSERT_FALSE(tgs_span_empty(tgt_heap, &span));
		CU_ASSERT_EQUAL(harvest(page).n_freed, span.n_slots);
		CU_ASSERT_TRUE(tgs_span_empty(tgt_heap, &span));
		CU_ASSERT_EQUAL(harvest(page).n_freed, 0);
		/* Nothing is left of it, tags included: the state of an empty span is zero. */
		for (index = 0; index < span.n_slots; index += 32)
			CU_ASSERT_EQUAL(*tgt_remote_word(page, index), 0);
		CU_ASSERT_EQUAL(*tgs_published_word(tgt_heap, tgs_classes[span.class].kind, page,
						    (span.n_slots - 1) / 64), 0);
	}
}

static void test_only_what_is_freed_is_harvested(void)
{
	struct tgs_harvest found = {0};

	tgt_take(DENSE_PAGE, 3);
	tgt_take(DENSE_PAGE, 40);
	tgt_take(DENSE_PAGE, 63);
	publish(DENSE_PAGE, 3);
	publish(DENSE_PAGE, 40);
	free_one(FREER, DENSE_PAGE, 40);
	CU_ASSERT_EQUAL(tgs_remote_harvest(tgt_heap, TGS_DENSE, DENSE_PAGE, 0, &found), UINT64_C(1) << 40);
	CU_ASSERT_EQUAL(found.n_freed, 1);
	CU_ASSERT_EQUAL(found.n_twice, 0);
	CU_ASSERT_TRUE(is_live(DENSE_PAGE, 3));
	CU_ASSERT_TRUE(is_live(DENSE_PAGE, 63));
	CU_ASSERT_FALSE(is_taken(DENSE_PAGE, 40));
	CU_ASSERT_EQUAL(*tgs_published_word(tgt_heap, TGS_DENSE, DENSE_PAGE, 0), 8);
}

static void test_many_in_one_step(void)
{
	unsigned index;
	uint64_t seq;

	for (index = 0; index < 64; index++)
		tgt_take(DENSE_PAGE, index);
	CU_ASSERT_EQUAL(tgs_remote_free(tgt_heap, FREER, tgt_remote_word(DENSE_PAGE, 32), 0xff00ff00), 0);
	seq = slot(FREER)->step.seq;
	CU_ASSERT_EQUAL(seq, 1);
	CU_ASSERT_EQUAL(*tgt_remote_word(DENSE_PAGE, 32) & TGS_REMOTE_MASK, 0xff00ff00);
	tgs_step_done(slot(FREER));
	CU_ASSERT_EQUAL(harvest(DENSE_PAGE).n_freed, 16);
}

static void test_twice(void)
{
	tgt_take(DENSE_PAGE, 7);
	tgt_take(DENSE_PAGE, 8);
	CU_ASSERT_EQUAL(free_one(FREER, DENSE_PAGE, 7), 0);
	CU_ASSERT_EQUAL(free_one(FREER, DENSE_PAGE, 7), 1 << 7);
	CU_ASSERT_EQUAL(free_one(OTHER, DENSE_PAGE, 7), 1 << 7);
	/* Of two in one step, one twice: the other one is freed. */
	CU_ASSERT_EQUAL(tgs_remote_free(tgt_heap, OTHER, tgt_remote_word(DENSE_PAGE, 8), 3 << 7), 1 << 7);
	tgs_step_done(slot(OTHER));
	CU_ASSERT_EQUAL(harvest(DENSE_PAGE).n_freed, 2);
}

static void test_the_owner_had_freed_it(void)
{
	struct tgs_harvest found;

	tgt_take(DENSE_PAGE, 1);
	free_one(FREER, DENSE_PAGE, 1);
	free_one(FREER, DENSE_PAGE, 70);
	found = harvest(DENSE_PAGE);
	CU_ASSERT_EQUAL(found.n_freed, 1);
	CU_ASSERT_EQUAL(found.n_twice, 1);
	CU_ASSERT_EQUAL(found.twice_index, 70);
}

/* Killed in a harvest, at each of its stores. */
static void test_a_harvest_is_repeatable(void)
{
	_Atomic uint64_t *taken = tgs_taken_word(tgt_heap, TGS_DENSE, DENSE_PAGE, 0);
	struct tgs_span span = tgt_span(DENSE_PAGE);
	unsigned stop;

	for (stop = 0; stop < 3; stop++) {
		tgt_take(DENSE_PAGE, 5);
		tgt_take(DENSE_PAGE, 6);
		publish(DENSE_PAGE, 5);
		free_one(FREER, DENSE_PAGE, 5);
		if (stop > 0)
			*tgs_published_word(tgt_heap, TGS_DENSE, DENSE_PAGE, 0) = 0;
		if (stop > 1)
			*taken &= ~(UINT64_C(1) << 5);
		(void)harvest(DENSE_PAGE);
		CU_ASSERT_EQUAL(*taken, 1 << 6);
		CU_ASSERT_EQUAL(*tgt_remote_word(DENSE_PAGE, 5), 0);
		CU_ASSERT_EQUAL(*tgs_published_word(tgt_heap, TGS_DENSE, DENSE_PAGE, 0), 0);
		*taken = 0;
		CU_ASSERT_TRUE(tgs_span_empty(tgt_heap, &span));
	}
}

static void test_a_harvest_tells_who_freed(void)
{
	uint64_t seq;

	tgt_take(DENSE_PAGE, 5);
	/* Killed after its swap, before it said that it was done. */
	tgs_remote_free(tgt_heap, FREER, tgt_remote_word(DENSE_PAGE, 5), 1 << 5);
	seq = slot(FREER)->step.seq;
	CU_ASSERT_EQUAL(slot(FREER)->mark, 0);
	harvest(DENSE_PAGE);
	CU_ASSERT_EQUAL(slot(FREER)->mark, seq);
	/* Also told by another free in the same word. */
	tgt_take(DENSE_PAGE, 9);
	tgt_take(DENSE_PAGE, 10);
	tgs_remote_free(tgt_heap, FREER, tgt_remote_word(DENSE_PAGE, 9), 1 << 9);
	free_one(OTHER, DENSE_PAGE, 10);
	CU_ASSERT_EQUAL(slot(FREER)->mark, seq + 1);
}

/* ---- hints ---- */

static void test_hints_lead_to_the_owner(void)
{
	uint64_t page;

	for (page = 0; page < TGT_REGION_PAGES; page += 511) {
		tgt_put_span(page, 0, OTHER, 1);
		tgs_remote_notify(tgt_heap, page);
		CU_ASSERT_TRUE(is_dirty(OTHER, page));
		CU_ASSERT_FALSE(is_dirty(OWNER, page));
		tgt_put_span(page, 0, TGS_SLOT_CENTRAL, 1);
		tgs_remote_notify(tgt_heap, page);
		CU_ASSERT_TRUE(is_dirty(TGS_SLOT_CENTRAL, page));
		tgt_remove_span(page);
	}
	/* A page of no span has no owner to tell. */
	tgs_remote_notify(tgt_heap, 1000);
	CU_ASSERT_FALSE(is_dirty(TGS_SLOT_CENTRAL, 1000));
}

/* ---- which objects a word stands for ---- */

static void word_is(uint64_t page, unsigned kind, unsigned unit, unsigned half)
{
	uint64_t ref = tgs_ref_of(tgt_heap, tgs_remote_word(tgt_heap, kind, page, unit, half));
	struct tgs_word_place place;

	CU_ASSERT_TRUE(tgs_word_place(tgt_heap, ref, &place));
	CU_ASSERT_EQUAL(place.page, page);
	CU_ASSERT_EQUAL(place.kind, kind);
	CU_ASSERT_EQUAL(place.unit, unit);
	CU_ASSERT_EQUAL(place.half, half);
}

static void test_every_remote_word_is_known(void)
{
	static const uint64_t some[] = {0, 1, 1000, TGT_REGION_PAGES - 1};
	unsigned i, unit, half;

	for (i = 0; i < 4; i++) {
		for (half = 0; half < 2; half++) {
			word_is(some[i], TGS_SPARSE, 0, half);
			for (unit = 0; unit < TGS_DENSE_UNITS; unit++)
				word_is(some[i], TGS_DENSE, unit, half);
			for (unit = 0; unit < TGS_TINY_UNITS; unit++)
				word_is(some[i], TGS_TINY, unit, half);
		}
	}
}

/* Exactly those words of the state areas are remote words that have a place. */
static void test_no_other_word_is(void)
{
	const struct tgs_geometry *g = &tgt_heap->geometry;
	struct tgs_word_place place;
	uint64_t ref, n = 0, page = 17;

	for (ref = g->records_at + page * 64; ref < g->records_at + (page + 1) * 64; ref++)
		n += tgs_word_place(tgt_heap, ref, &place);
	CU_ASSERT_EQUAL(n, 2);
	for (n = 0, ref = g->dense_at + page * 256; ref < g->dense_at + (page + 1) * 256; ref++)
		n += tgs_word_place(tgt_heap, ref, &place);
	CU_ASSERT_EQUAL(n, 16);
	for (n = 0, ref = g->tiny_more_at + page * 4096; ref < g->tiny_more_at + (page + 1) * 4096; ref++)
		n += tgs_word_place(tgt_heap, ref, &place);
	CU_ASSERT_EQUAL(n, 256);
	for (ref = g->tiny_taken_at; ref < g->tiny_taken_at + 4096; ref++)
		CU_ASSERT_FALSE(tgs_word_place(tgt_heap, ref, &place));
	CU_ASSERT_FALSE(tgs_word_place(tgt_heap, 0, &place));
	CU_ASSERT_FALSE(tgs_word_place(tgt_heap, g->threads_at, &place));
	CU_ASSERT_FALSE(tgs_word_place(tgt_heap, g->dirty_at, &place));
	CU_ASSERT_FALSE(tgs_word_place(tgt_heap, g->data_at + 48, &place));
	CU_ASSERT_FALSE(tgs_word_place(tgt_heap, g->heap_bytes, &place));
	CU_ASSERT_FALSE(tgs_word_place(tgt_heap, UINT64_MAX, &place));
}

/* ---- buffers, and what a dead thread leaves ---- */

static struct tgs_pending *buffer(unsigned self, unsigned place, uint64_t page, unsigned index)
{
	struct tgs_pending *pending = &slot(self)->pending[place];

	pending->word = tgs_ref_of(tgt_heap, tgt_remote_word(page, index));
	pending->mask |= UINT32_C(1) << index % 32;
	return pending;
}

static void test_a_buffer_is_applied(void)
{
	struct tgs_pending *pending;

	tgt_take(TINY_PAGE, 100);
	tgt_take(TINY_PAGE, 101);
	pending = buffer(FREER, 5, TINY_PAGE, 100);
	buffer(FREER, 5, TINY_PAGE, 101);
	CU_ASSERT_TRUE(is_live(TINY_PAGE, 100));
	CU_ASSERT_EQUAL(tgs_pending_apply(tgt_heap, FREER, pending), 0);
	CU_ASSERT_EQUAL(pending->mask, 0);
	CU_ASSERT_EQUAL(slot(FREER)->step.word, 0);
	CU_ASSERT_FALSE(is_live(TINY_PAGE, 100));
	CU_ASSERT_FALSE(is_live(TINY_PAGE, 101));
	CU_ASSERT_EQUAL(slot(FREER)->step.seq, 1);
	/* An empty place is no step. */
	CU_ASSERT_EQUAL(tgs_pending_apply(tgt_heap, FREER, pending), 0);
	CU_ASSERT_EQUAL(slot(FREER)->step.seq, 1);
	/* Freed by somebody else meanwhile. */
	buffer(FREER, 5, TINY_PAGE, 101);
	CU_ASSERT_EQUAL(tgs_pending_apply(tgt_heap, FREER, pending), UINT32_C(1) << 5);
}

static bool slot_is_settled(unsigned id)
{
	unsigned i;

	for (i = 0; i < TGS_PENDING_FREES; i++) {
		if (slot(id)->pending[i].mask != 0)
			return false;
	}
	return slot(id)->step.word == 0 && slot(id)->tiny_block == 0 && slot(id)->tiny_offset == 0;
}

static void test_the_frees_of_the_dead_are_applied(void)
{
	unsigned i, k;

	for (i = 0; i < 4; i++) {
		tgt_take(pages[i], 0);
		buffer(FREER, i * 20, pages[i], 0);
	}
	slot(FREER)->tiny_block = 12345;
	slot(FREER)->tiny_offset = 3;
	for (k = 0; k < 2; k++) {
		tgs_remote_settle_slot(tgt_heap, FREER);
		CU_ASSERT_TRUE(slot_is_settled(FREER));
		for (i = 0; i < 4; i++) {
			CU_ASSERT_FALSE(is_live(pages[i], 0));
			CU_ASSERT_TRUE(is_dirty(OWNER, pages[i]));
		}
	}
	for (i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(harvest(pages[i]).n_freed, 1);
}

/* Killed with a step noted, before its swap. */
static void test_a_free_not_yet_done_is_done(void)
{
	static const struct tgs_tag_format format = {TGS_REMOTE_SLOT_SHIFT, TGS_REMOTE_SEQ_BITS, TGS_STEP_FREE};

	tgt_take(DENSE_PAGE, 3);
	buffer(FREER, 0, DENSE_PAGE, 3);
	tgs_step_begin(tgt_heap, FREER, &format, tgt_remote_word(DENSE_PAGE, 3), 1 << 3, 0, 0);
	tgs_remote_settle_slot(tgt_heap, FREER);
	CU_ASSERT_TRUE(slot_is_settled(FREER));
	CU_ASSERT_FALSE(is_live(DENSE_PAGE, 3));
	CU_ASSERT_EQUAL(harvest(DENSE_PAGE).n_freed, 1);
}

/* Killed after its swap; the bit is still there, or harvested, or harvested and the object's place taken again: in none of
 * these cases may it be freed once more. */
static void test_a_free_done_is_not_done_again(void)
{
	unsigned stage;

	for (stage = 0; stage < 3; stage++) {
		struct tgs_harvest found;

		tgt_take(DENSE_PAGE, 3);
		buffer(FREER, 0, DENSE_PAGE, 3);
		slot(OWNER)->dirty[0] = 0;
		tgs_remote_free(tgt_heap, FREER, tgt_remote_word(DENSE_PAGE, 3), 1 << 3);
		if (stage >= 1)
			CU_ASSERT_EQUAL(harvest(DENSE_PAGE).n_freed, 1);
		if (stage >= 2)
			tgt_take(DENSE_PAGE, 3);
		tgs_remote_settle_slot(tgt_heap, FREER);
		CU_ASSERT_TRUE(slot_is_settled(FREER));
		CU_ASSERT_EQUAL(is_live(DENSE_PAGE, 3), stage == 2);
		CU_ASSERT_TRUE(is_dirty(OWNER, DENSE_PAGE));
		found = harvest(DENSE_PAGE);
		CU_ASSERT_EQUAL(found.n_freed, stage == 0);
		CU_ASSERT_EQUAL(found.n_twice, 0);
		*tgs_taken_word(tgt_heap, TGS_DENSE, DENSE_PAGE, 0) = 0;
	}
}

/* Killed before it told the owner: its recoverer does. */
static void test_a_hint_not_given_is_given(void)
{
	static const struct tgs_tag_format format = {TGS_REMOTE_SLOT_SHIFT, TGS_REMOTE_SEQ_BITS, TGS_STEP_FREE};
	uint64_t seq;

	tgt_take(DENSE_PAGE, 3);
	buffer(FREER, 0, DENSE_PAGE, 3);
	seq = tgs_step_begin(tgt_heap, FREER, &format, tgt_remote_word(DENSE_PAGE, 3), 1 << 3, 0, 0);
	*tgt_remote_word(DENSE_PAGE, 3) = 1 << 3 | tgs_tag(&format, FREER, seq);
	CU_ASSERT_FALSE(is_dirty(OWNER, DENSE_PAGE));
	tgs_remote_settle_slot(tgt_heap, FREER);
	CU_ASSERT_TRUE(is_dirty(OWNER, DENSE_PAGE));
	CU_ASSERT_EQUAL(harvest(DENSE_PAGE).n_freed, 1);
}

/* The span whose object it freed is gone: all objects of it were freed, this one too. */
static void test_a_free_in_a_span_that_is_gone(void)
{
	tgt_take(DENSE_PAGE, 3);
	buffer(FREER, 0, DENSE_PAGE, 3);
	tgs_remote_free(tgt_heap, FREER, tgt_remote_word(DENSE_PAGE, 3), 1 << 3);
	harvest(DENSE_PAGE);
	tgt_remove_span(DENSE_PAGE);
	tgs_remote_settle_slot(tgt_heap, FREER);
	CU_ASSERT_TRUE(slot_is_settled(FREER));
	CU_ASSERT_EQUAL(tgt_heap->dense[DENSE_PAGE * TGS_DENSE_UNITS].remote[0], 0);
}

/* A slot is memory that its process could write: nothing in it may lead the recoverer astray. */
static void test_garbage_in_a_slot(void)
{
	const struct tgs_geometry *g = &tgt_heap->geometry;
	const uint64_t wrong[] = {
		0, 1, 8, g->threads_at, g->data_at, g->data_at + 64, g->heap_bytes - 8, g->heap_bytes, UINT64_MAX, UINT64_MAX - 7,
		/* Not aligned; of another kind of span; of no span; of a unit that the span does not have. */
		tgs_ref_of(tgt_heap, tgt_remote_word(DENSE_PAGE, 0)) + 1,
		tgs_ref_of(tgt_heap, &tgt_heap->records[DENSE_PAGE].unit.remote[0]),
		tgs_ref_of(tgt_heap, &tgt_heap->records[500].unit.remote[0]),
		tgs_ref_of(tgt_heap, &tgt_heap->dense[DENSE_PAGE * TGS_DENSE_UNITS + 7].remote[1]),
		tgs_ref_of(tgt_heap, &tgt_heap->records[LARGE_PAGE + 1].unit.remote[0]),
	};
	unsigned i, n = sizeof(wrong) / sizeof(*wrong);

	for (i = 0; i < n; i++) {
		slot(FREER)->pending[i].word = wrong[i];
		slot(FREER)->pending[i].mask = 0xffffffff;
		slot(FREER)->step.word = wrong[i];
		tgs_remote_settle_slot(tgt_heap, FREER);
		CU_ASSERT_TRUE(slot_is_settled(FREER));
		slot(FREER)->step.word = (wrong[i] & ~TGS_STEP_KIND_MASK) | TGS_STEP_FREE;
		tgs_remote_settle_slot(tgt_heap, FREER);
		CU_ASSERT_TRUE(slot_is_settled(FREER));
	}
	CU_ASSERT_EQUAL(tgt_heap->data[0], 0);
	CU_ASSERT_EQUAL(tgt_heap->data[64], 0);
	for (i = 0; i < 4; i++) {
		struct tgs_span span = tgt_span(pages[i]);

		CU_ASSERT_TRUE(tgs_span_empty(tgt_heap, &span));
	}
}

int main(void)
{
	CU_TestInfo frees[] = {
		{"What others free is dead at once, and free when its owner harvests", test_free_and_harvest},
		{"Only what is freed is harvested", test_only_what_is_freed_is_harvested},
		{"Neighbours are freed in one step", test_many_in_one_step},
		{"An object freed twice is told", test_twice},
		{"An object that its owner had freed is told at the harvest", test_the_owner_had_freed_it},
		{"A harvest that was broken off can be repeated", test_a_harvest_is_repeatable},
		{"Who overwrites a word tells the one who wrote it", test_a_harvest_tells_who_freed},
		{"Hints go to the owner of now", test_hints_lead_to_the_owner},
		{"Every remote word is known by its place", test_every_remote_word_is_known},
		{"No other word is taken for one", test_no_other_word_is},
		CU_TEST_INFO_NULL,
	};
	CU_TestInfo dead[] = {
		{"A buffer of frees is applied, once", test_a_buffer_is_applied},
		{"The buffered frees of a dead thread are applied, once", test_the_frees_of_the_dead_are_applied},
		{"A free noted but not done is done", test_a_free_not_yet_done_is_done},
		{"A free done but still noted is not done again", test_a_free_done_is_not_done_again},
		{"A hint that was not given any more is given", test_a_hint_not_given_is_given},
		{"A free in a span that is gone was done", test_a_free_in_a_span_that_is_gone},
		{"Garbage in a slot is not believed", test_garbage_in_a_slot},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"frees", NULL, NULL, set_up, tgt_region_tear_down, frees},
		{"the dead", NULL, NULL, set_up, tgt_region_tear_down, dead},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("remote", suites);
}
