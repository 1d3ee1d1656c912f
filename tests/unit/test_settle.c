/* test_settle - what a dead thread had in flight is settled: each of its frees is done exactly once.
 *
 * Every way to stop in the middle that a kill may take is tried by hand: the state is made as the killed thread would have
 * left it.
 */
#include <CUnit/CUnit.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include "shm/link.h"
#include "shm/remote.h"
#include "shm/settle.h"
#include "shm/step.h"
#include "tests/support/frees.h"
#include "tests/support/runner.h"
#include "tests/support/taken.h"

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
	return slot(id)->step.word == 0 && slot(id)->tiny_block == 0 && slot(id)->tiny_left == 0;
}

static void test_the_frees_of_the_dead_are_applied(void)
{
	unsigned i, k;

	for (i = 0; i < 4; i++) {
		tgt_take(pages[i], 0);
		buffer(FREER, i * 20, pages[i], 0);
	}
	slot(FREER)->tiny_block = 12345;
	slot(FREER)->tiny_left = 3;
	for (k = 0; k < 2; k++) {
		tgs_settle_slot(tgt_heap, FREER);
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
	_Atomic uint64_t *word = tgt_remote_word(DENSE_PAGE, 3);

	tgt_take(DENSE_PAGE, 3);
	buffer(FREER, 0, DENSE_PAGE, 3);
	tgs_step_begin(tgt_heap, FREER, tgs_remote_format(word), word, 1 << 3, 0, 0);
	tgs_settle_slot(tgt_heap, FREER);
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
		tgs_settle_slot(tgt_heap, FREER);
		CU_ASSERT_TRUE(slot_is_settled(FREER));
		CU_ASSERT_EQUAL(is_live(DENSE_PAGE, 3), stage == 2);
		CU_ASSERT_TRUE(is_dirty(OWNER, DENSE_PAGE));
		found = harvest(DENSE_PAGE);
		CU_ASSERT_EQUAL(found.n_freed, stage == 0);
		CU_ASSERT_EQUAL(found.n_twice, 0);
		tgt_make_taken(tgt_heap, TGS_DENSE_4, DENSE_PAGE, 0, 0);
	}
}

/* Killed before it told the owner: its recoverer does. */
static void test_a_hint_not_given_is_given(void)
{
	_Atomic uint64_t *word = tgt_remote_word(DENSE_PAGE, 3);
	uint64_t seq;

	tgt_take(DENSE_PAGE, 3);
	buffer(FREER, 0, DENSE_PAGE, 3);
	seq = tgs_step_begin(tgt_heap, FREER, tgs_remote_format(word), word, 1 << 3, 0, 0);
	*word = UINT64_C(1) << TGS_REMOTE_BITS_SHIFT(0) << 3 |
		tgs_tag(tgs_remote_format(word), FREER, seq);
	CU_ASSERT_FALSE(is_dirty(OWNER, DENSE_PAGE));
	tgs_settle_slot(tgt_heap, FREER);
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
	tgs_settle_slot(tgt_heap, FREER);
	CU_ASSERT_TRUE(slot_is_settled(FREER));
	CU_ASSERT_EQUAL(tgt_heap->dense[DENSE_PAGE * TGS_DENSE_UNITS].remote[0], 0);
}

/* A slot is memory that its process could write: nothing in it may lead the recoverer astray. */
static void test_garbage_in_a_slot(void)
{
	const struct tgs_geometry *g = &tgt_heap->geometry;
	const uint64_t wrong[] = {
		0,
		1,
		8,
		g->threads_at,
		g->data_at,
		g->data_at + 64,
		g->heap_bytes - 8,
		g->heap_bytes,
		UINT64_MAX,
		UINT64_MAX - 7,
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
		tgs_settle_slot(tgt_heap, FREER);
		CU_ASSERT_TRUE(slot_is_settled(FREER));
		slot(FREER)->step.word = (wrong[i] & ~TGS_STEP_KIND_MASK) | TGS_STEP_FREE;
		tgs_settle_slot(tgt_heap, FREER);
		CU_ASSERT_TRUE(slot_is_settled(FREER));
	}
	CU_ASSERT_EQUAL(tgt_heap->data[0], 0);
	CU_ASSERT_EQUAL(tgt_heap->data[64], 0);
	for (i = 0; i < 4; i++) {
		struct tgs_span span = tgt_span(pages[i]);

		CU_ASSERT_TRUE(tgs_span_empty(tgt_heap, &span));
	}
}

/* The thread had frees in flight in a tiny span that has ended; another one lies there now, whose remote words have no memory:
 * those frees took place, and nothing is written where nothing is. */
static void test_a_free_where_a_word_has_no_memory(void)
{
	_Atomic uint64_t *word = tgt_remote_word(TINY_PAGE, 64);
	struct stat before, after;

	tgt_take(TINY_PAGE, 64);
	tgt_take(TINY_PAGE, 200);
	buffer(FREER, 0, TINY_PAGE, 64);
	buffer(FREER, 1, TINY_PAGE, 200);
	tgs_step_begin(tgt_heap, FREER, tgs_remote_format(word), word, 1, 0, 0);
	tgt_take_more(TINY_PAGE);
	/* Where the link lies. */
	tgs_page_address(tgt_heap, DENSE_PAGE)[0] = 0;
	/* The slot itself has memory. */
	CU_ASSERT_EQUAL(slot(FREER)->pending[TGS_PENDING_FREES / 2].mask, 0);
	CU_ASSERT_EQUAL(slot(FREER)->pending[TGS_PENDING_FREES - 1].mask, 0);
	CU_ASSERT_EQUAL_FATAL(fstat(tgt_region.heap_fd, &before), 0);
	tgs_settle_slot(tgt_heap, FREER);
	CU_ASSERT_TRUE(slot_is_settled(FREER));
	CU_ASSERT_TRUE(is_live(TINY_PAGE, 64));
	CU_ASSERT_TRUE(is_live(TINY_PAGE, 200));
	/* A swap that retires, or gives, such an object: likewise. */
	tgs_link_begin(tgt_heap, FREER, (_Atomic uint64_t *)tgs_page_address(tgt_heap, DENSE_PAGE),
		       TGS_SWAP_GIVE | TGS_SWAP_RETIRE | TGS_SWAP_PRIVATE,
		       tgs_ref_of(tgt_heap, tgs_page_address(tgt_heap, TINY_PAGE) + 64),
		       tgs_ref_of(tgt_heap, tgs_page_address(tgt_heap, TINY_PAGE) + 200));
	tgs_settle_slot(tgt_heap, FREER);
	CU_ASSERT_TRUE(slot_is_settled(FREER));
	CU_ASSERT_TRUE(is_live(TINY_PAGE, 64));
	CU_ASSERT_EQUAL_FATAL(fstat(tgt_region.heap_fd, &after), 0);
	CU_ASSERT_EQUAL(before.st_blocks, after.st_blocks);
}

int main(void)
{
	CU_TestInfo dead[] = {
		{"A buffer of frees is applied, once", test_a_buffer_is_applied},
		{"The buffered frees of a dead thread are applied, once",
		 test_the_frees_of_the_dead_are_applied},
		{"A free noted but not done is done", test_a_free_not_yet_done_is_done},
		{"A free done but still noted is not done again",
		 test_a_free_done_is_not_done_again},
		{"A hint that was not given any more is given", test_a_hint_not_given_is_given},
		{"A free in a span that is gone was done", test_a_free_in_a_span_that_is_gone},
		{"A free where a word has no memory was done",
		 test_a_free_where_a_word_has_no_memory},
		{"Garbage in a slot is not believed", test_garbage_in_a_slot},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"settle", NULL, NULL, set_up, tgt_region_tear_down, dead},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("settle", suites);
}
