/* test_remote - frees of other people's objects: set, told, harvested; and which word stands for which.
 */
#include "shm/remote.h"

#include <CUnit/CUnit.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/support/frees.h"
#include "tests/support/runner.h"
#include "tests/support/taken.h"

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
						    (span.n_slots - 1) / 64),
				0);
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
	CU_ASSERT_EQUAL(tgs_remote_harvest(tgt_heap, TGS_DENSE_4, DENSE_PAGE, 0, &found),
			UINT64_C(1) << 40);
	CU_ASSERT_EQUAL(found.n_freed, 1);
	CU_ASSERT_EQUAL(found.n_twice, 0);
	CU_ASSERT_TRUE(is_live(DENSE_PAGE, 3));
	CU_ASSERT_TRUE(is_live(DENSE_PAGE, 63));
	CU_ASSERT_FALSE(is_taken(DENSE_PAGE, 40));
	CU_ASSERT_EQUAL(*tgs_published_word(tgt_heap, TGS_DENSE_4, DENSE_PAGE, 0), 8);
}

static void test_many_in_one_step(void)
{
	unsigned index;
	uint64_t seq;

	for (index = 0; index < 64; index++)
		tgt_take(DENSE_PAGE, index);
	CU_ASSERT_EQUAL(
		tgs_remote_free(tgt_heap, FREER, tgt_remote_word(DENSE_PAGE, 32), 0xff00ff00), 0);
	seq = slot(FREER)->step.seq;
	CU_ASSERT_EQUAL(seq, 1);
	CU_ASSERT_EQUAL(tgs_remote_objects(*tgt_remote_word(DENSE_PAGE, 32), 1), 0xff00ff00);
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
	CU_ASSERT_EQUAL(tgs_remote_free(tgt_heap, OTHER, tgt_remote_word(DENSE_PAGE, 8), 3 << 7),
			1 << 7);
	tgs_step_done(slot(OTHER));
	CU_ASSERT_EQUAL(harvest(DENSE_PAGE).n_freed, 2);
}

static void test_the_owner_had_freed_it(void)
{
	struct tgs_harvest found = {0};

	tgt_take(DENSE_PAGE, 1);
	free_one(FREER, DENSE_PAGE, 1);
	free_one(FREER, DENSE_PAGE, 70);
	free_one(FREER, DENSE_PAGE, 101);
	CU_ASSERT_EQUAL(tgs_remote_harvest(tgt_heap, TGS_DENSE_4, DENSE_PAGE, 1, &found), 0);
	CU_ASSERT_EQUAL(found.n_twice, 2);
	CU_ASSERT_EQUAL(found.twice, UINT64_C(1) << (70 - 64) | UINT64_C(1) << (101 - 64));
	CU_ASSERT_EQUAL(tgs_remote_harvest(tgt_heap, TGS_DENSE_4, DENSE_PAGE, 0, &found), 1 << 1);
	CU_ASSERT_EQUAL(found.n_freed, 1);
	CU_ASSERT_EQUAL(found.n_twice, 2);
	CU_ASSERT_EQUAL(found.twice, 0);
}

/* Killed in a harvest, at each of its stores. */
static void test_a_harvest_is_repeatable(void)
{
	struct tgs_span span = tgt_span(DENSE_PAGE);
	unsigned stop;

	for (stop = 0; stop < 3; stop++) {
		tgt_take(DENSE_PAGE, 5);
		tgt_take(DENSE_PAGE, 6);
		publish(DENSE_PAGE, 5);
		free_one(FREER, DENSE_PAGE, 5);
		if (stop > 0)
			*tgs_published_word(tgt_heap, TGS_DENSE_4, DENSE_PAGE, 0) = 0;
		if (stop > 1)
			tgt_make_taken(tgt_heap, TGS_DENSE_4, DENSE_PAGE, 0, 1 << 6);
		(void)harvest(DENSE_PAGE);
		CU_ASSERT_EQUAL(tgs_taken_bits(tgt_heap, TGS_DENSE_4, DENSE_PAGE, 0), 1 << 6);
		CU_ASSERT_EQUAL(*tgt_remote_word(DENSE_PAGE, 5), 0);
		CU_ASSERT_EQUAL(*tgs_published_word(tgt_heap, TGS_DENSE_4, DENSE_PAGE, 0), 0);
		tgt_make_taken(tgt_heap, TGS_DENSE_4, DENSE_PAGE, 0, 0);
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
	/* Classes of 512, 170 and 128 slots. */
	static const unsigned classes[] = {2, 5, 6};
	static const unsigned kinds[] = {TGS_DENSE_8, TGS_DENSE_4, TGS_DENSE_2};
	unsigned i, unit, half;

	/* Of dense spans they lie alike; the span tells what else is where. */
	for (i = 0; i < 3; i++) {
		tgt_put_span(1000, classes[i], OWNER, 0);
		for (unit = 0; unit < TGS_DENSE_UNITS; unit++)
			word_is(1000, kinds[i], unit, unit % 2);
		tgt_remove_span(1000);
	}
	for (i = 0; i < 4; i++) {
		for (half = 0; half < 2; half++) {
			word_is(some[i], TGS_SPARSE, 0, half);
			for (unit = 0; unit < TGS_DENSE_UNITS; unit++)
				word_is(some[i], TGS_DENSE_8, unit, half);
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

	for (ref = g->records_at + page * 128; ref < g->records_at + (page + 1) * 128; ref++)
		n += tgs_word_place(tgt_heap, ref, &place);
	CU_ASSERT_EQUAL(n, 2);
	for (n = 0, ref = g->dense_at + page * 256; ref < g->dense_at + (page + 1) * 256; ref++)
		n += tgs_word_place(tgt_heap, ref, &place);
	CU_ASSERT_EQUAL(n, 16);
	for (n = 0, ref = g->tiny_more_at + page * 4096; ref < g->tiny_more_at + (page + 1) * 4096;
	     ref++)
		n += tgs_word_place(tgt_heap, ref, &place);
	CU_ASSERT_EQUAL(n, 256);
	for (ref = g->dense_taken_at[0]; ref < g->dense_taken_at[0] + 4096; ref++)
		CU_ASSERT_FALSE(tgs_word_place(tgt_heap, ref, &place));
	for (ref = g->tiny_taken_at; ref < g->tiny_taken_at + 4096; ref++)
		CU_ASSERT_FALSE(tgs_word_place(tgt_heap, ref, &place));
	CU_ASSERT_FALSE(tgs_word_place(tgt_heap, 0, &place));
	CU_ASSERT_FALSE(tgs_word_place(tgt_heap, g->threads_at, &place));
	CU_ASSERT_FALSE(tgs_word_place(tgt_heap, g->dirty_at, &place));
	CU_ASSERT_FALSE(tgs_word_place(tgt_heap, g->data_at + 48, &place));
	CU_ASSERT_FALSE(tgs_word_place(tgt_heap, g->heap_bytes, &place));
	CU_ASSERT_FALSE(tgs_word_place(tgt_heap, UINT64_MAX, &place));
}

/* ---- tiny spans whose published and remote words have no memory ---- */

static long long blocks(void)
{
	struct stat st;

	CU_ASSERT_EQUAL_FATAL(fstat(tgt_region.heap_fd, &st), 0);
	return (long long)st.st_blocks;
}

static void test_words_without_memory_are_zero_and_not_touched(void)
{
	uint64_t ref = tgs_ref_of(tgt_heap, tgt_remote_word(TINY_PAGE, 100));
	struct tgs_span span = tgt_span(TINY_PAGE);
	struct tgs_pending *pending = &slot(FREER)->pending[0];
	_Atomic uint64_t *word;
	long long before;

	tgt_take_more(TINY_PAGE);
	tgt_take(TINY_PAGE, 100);
	pending->word = ref;
	pending->mask = UINT32_C(1) << 100 % 32;
	before = blocks();
	CU_ASSERT_FALSE(tgs_has_more(tgt_heap, TGS_TINY, TINY_PAGE));
	CU_ASSERT_TRUE(tgs_has_more(tgt_heap, TGS_SPARSE, SPARSE_PAGE));
	CU_ASSERT_EQUAL(tgs_remote_bits(tgt_heap, TGS_TINY, TINY_PAGE, 1), 0);
	CU_ASSERT_EQUAL(tgs_published_bits(tgt_heap, TGS_TINY, TINY_PAGE, 1), 0);
	CU_ASSERT_TRUE(is_live(TINY_PAGE, 100));
	CU_ASSERT_EQUAL(tgs_span_live(tgt_heap, &span), 1);
	CU_ASSERT_FALSE(tgs_span_empty(tgt_heap, &span));
	CU_ASSERT_EQUAL(harvest(TINY_PAGE).n_freed, 0);
	/* A free of such a word is of an older span: it hits nothing that lies there now. */
	CU_ASSERT_FALSE(tgs_remote_word_at(tgt_heap, ref, &word));
	CU_ASSERT_FALSE(tgs_pending_applied(tgt_heap, FREER, ref));
	CU_ASSERT_EQUAL(tgs_pending_apply(tgt_heap, FREER, pending), UINT32_C(1) << 100 % 32);
	CU_ASSERT_EQUAL(pending->mask, 0);
	CU_ASSERT_EQUAL(blocks(), before);
	/* With memory they are as zero as they were. */
	tgt_put_span(TINY_PAGE, TGS_CLASS_TINY, OWNER, 0);
	CU_ASSERT_TRUE(tgs_remote_word_at(tgt_heap, ref, &word));
	CU_ASSERT_EQUAL(tgs_remote_bits(tgt_heap, TGS_TINY, TINY_PAGE, 1), 0);
	CU_ASSERT_TRUE(is_live(TINY_PAGE, 100));
	CU_ASSERT(blocks() > before);
}

int main(void)
{
	CU_TestInfo frees[] = {
		{"What others free is dead at once, and free when its owner harvests",
		 test_free_and_harvest},
		{"Only what is freed is harvested", test_only_what_is_freed_is_harvested},
		{"Neighbours are freed in one step", test_many_in_one_step},
		{"An object freed twice is told", test_twice},
		{"An object that its owner had freed is told at the harvest",
		 test_the_owner_had_freed_it},
		{"A harvest that was broken off can be repeated", test_a_harvest_is_repeatable},
		{"Who overwrites a word tells the one who wrote it",
		 test_a_harvest_tells_who_freed},
		{"Hints go to the owner of now", test_hints_lead_to_the_owner},
		{"Every remote word is known by its place", test_every_remote_word_is_known},
		{"No other word is taken for one", test_no_other_word_is},
		{"Words without memory are zero and not touched",
		 test_words_without_memory_are_zero_and_not_touched},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"frees", NULL, NULL, set_up, tgt_region_tear_down, frees},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("remote", suites);
}
