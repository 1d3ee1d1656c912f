/* test_settle_swap - a swap that a killed thread had begun: all of it is done, or nothing of it.
 *
 * The state is made by hand as the killed thread would have left it after each of its stores; then others go on, as they
 * may before the dead one is recovered: swing the link again, free the object that holds it, use its memory for something
 * else.  The recovery is run twice each time, as its own process may be killed.
 */
#include <CUnit/CUnit.h>
#include <string.h>

#include "shm/link.h"
#include "shm/settle.h"
#include "tests/support/frees.h"
#include "tests/support/runner.h"

/* The link lies in an object of the owner's, as do the old object and the new one; the swapper is FREER. */
enum { CONTAINER = 0, OLD = 1, NEW = 2, NEXT = 3 };

/* How far the thread came. */
enum stage { NOTED, PUBLISHED, SWUNG, RETIRED, N_STAGES };

static uint64_t object(unsigned index)
{
	return tgs_ref_of(tgt_heap, tgs_page_address(tgt_heap, DENSE_PAGE)) +
	       (uint64_t)index * tgs_classes[5].size;
}

static _Atomic uint64_t *link_word(void)
{
	return (_Atomic uint64_t *)(tgt_heap->base + object(CONTAINER));
}

static bool is_published(unsigned index)
{
	return *tgs_published_word(tgt_heap, TGS_DENSE_4, DENSE_PAGE, 0) >> index & 1;
}

static void begin(enum stage stage)
{
	uint64_t what = TGS_SWAP_GIVE | TGS_SWAP_RETIRE | TGS_SWAP_PRIVATE, seq;
	unsigned i;

	for (i = CONTAINER; i <= NEXT; i++)
		tgt_take(DENSE_PAGE, i);
	publish(DENSE_PAGE, CONTAINER);
	publish(DENSE_PAGE, OLD);
	*link_word() = object(OLD);
	seq = tgs_link_begin(tgt_heap, FREER, link_word(), what, object(OLD), object(NEW));
	if (stage >= PUBLISHED)
		publish(DENSE_PAGE, NEW);
	if (stage >= SWUNG)
		CU_ASSERT_TRUE(tgs_link_swing(tgt_heap, FREER, seq, link_word(), object(OLD),
					      object(NEW)));
	if (stage >= RETIRED)
		buffer(FREER, 7, DENSE_PAGE, OLD);
}

/* All is as if the swap had been done, or had never been begun. */
static void settle_and_look(bool done)
{
	unsigned i;

	for (i = 0; i < 2; i++) {
		tgs_settle_slot(tgt_heap, FREER);
		CU_ASSERT_EQUAL(slot(FREER)->step.word, 0);
		CU_ASSERT_EQUAL(is_published(NEW), done);
		CU_ASSERT_EQUAL(is_live(DENSE_PAGE, OLD), !done);
		CU_ASSERT_TRUE(is_live(DENSE_PAGE, NEW));
	}
	CU_ASSERT_EQUAL(harvest(DENSE_PAGE).n_freed, done);
	CU_ASSERT_EQUAL(harvest(DENSE_PAGE).n_twice, 0);
}

static void start_again(void)
{
	tgt_region_tear_down();
	set_up();
}

static void test_a_kill_at_each_store(void)
{
	enum stage stage;

	for (stage = NOTED; stage < N_STAGES; stage++) {
		start_again();
		begin(stage);
		settle_and_look(stage >= SWUNG);
		CU_ASSERT_EQUAL(tgs_link_get(tgt_heap, link_word()),
				object(stage >= SWUNG ? NEW : OLD));
	}
}

/* Killed in the midst of its own recovery: the object stands in the buffer, the note still stands. */
static void test_a_recoverer_killed(void)
{
	begin(SWUNG);
	buffer(FREER, 63, DENSE_PAGE, OLD);
	settle_and_look(true);
}

/* All places of the buffer but one are taken by other frees. */
static void test_a_full_buffer(void)
{
	unsigned n_spans = TGS_PENDING_FREES / 16, i;

	begin(SWUNG);
	for (i = 0; i < n_spans; i++)
		tgt_put_span(600 + i, 2, OWNER, 0);
	for (i = 0; i < TGS_PENDING_FREES - 1; i++) {
		tgt_take(600 + i / 16, i % 16 * 32);
		buffer(FREER, i, 600 + i / 16, i % 16 * 32);
	}
	settle_and_look(true);
	for (i = 0; i < n_spans; i++)
		CU_ASSERT_EQUAL(harvest(600 + i).n_freed, i < n_spans - 1 ? 16 : 15);
}

static void test_the_link_was_swung_again(void)
{
	enum stage stage;

	for (stage = NOTED; stage < N_STAGES; stage++) {
		start_again();
		begin(stage);
		/* To something else, and back to what the dead one wanted. */
		CU_ASSERT_TRUE(tgs_link_swap(tgt_heap, OTHER, link_word(),
					     object(stage >= SWUNG ? NEW : OLD), object(NEXT), 0));
		tgs_step_done(slot(OTHER));
		CU_ASSERT_TRUE(
			tgs_link_swap(tgt_heap, OTHER, link_word(), object(NEXT), object(NEW), 0));
		tgs_step_done(slot(OTHER));
		settle_and_look(stage >= SWUNG);
	}
}

/* The object that holds the link is freed by somebody who does all that a free does, and its memory written to. */
static void test_the_link_was_freed_and_its_memory_reused(void)
{
	static const uint64_t reused[] = {0, UINT64_MAX, 12345};
	enum stage stage;
	unsigned i;

	for (stage = NOTED; stage < N_STAGES; stage++) {
		for (i = 0; i < 3; i++) {
			start_again();
			begin(stage);
			tgs_link_help_inside(tgt_heap, object(CONTAINER), tgs_classes[5].size);
			free_one(OTHER, DENSE_PAGE, CONTAINER);
			CU_ASSERT_EQUAL(harvest(DENSE_PAGE).n_freed, 1);
			tgt_take(DENSE_PAGE, CONTAINER);
			*link_word() = reused[i];
			settle_and_look(stage >= SWUNG);
		}
	}
}

/* A dead thread's retired object is what holds the link of another one, who is dead, too, and recovered later. */
static void test_a_retired_object_that_holds_a_link(void)
{
	_Atomic uint64_t *head = (_Atomic uint64_t *)(tgt_heap->base + object(NEXT));
	uint64_t seq;

	begin(SWUNG);
	atomic_fetch_or(&tgt_heap->records[DENSE_PAGE].flags, TGS_RECORD_HAS_LINKS);
	*head = object(CONTAINER);
	seq = tgs_link_begin(tgt_heap, OTHER, head, TGS_SWAP_RETIRE, object(CONTAINER), 0);
	CU_ASSERT_TRUE(tgs_link_swing(tgt_heap, OTHER, seq, head, object(CONTAINER), 0));
	tgs_settle_slot(tgt_heap, OTHER);
	CU_ASSERT_EQUAL(harvest(DENSE_PAGE).n_freed, 1);
	*link_word() = 0;
	settle_and_look(true);
}

/* Only steps inside are told of. */
static void test_help_goes_to_steps_inside(void)
{
	begin(SWUNG);
	tgs_link_help_inside(tgt_heap, object(OLD), tgs_classes[5].size);
	CU_ASSERT_EQUAL(slot(FREER)->mark, 0);
	tgs_link_help_inside(tgt_heap, object(CONTAINER) - 8, 8);
	CU_ASSERT_EQUAL(slot(FREER)->mark, 0);
	tgs_link_help_inside(tgt_heap, object(CONTAINER), 8);
	CU_ASSERT_EQUAL(slot(FREER)->mark, slot(FREER)->step.seq);
}

/* Its whole span is gone, and with it the memory behind the link. */
static void test_the_span_is_gone(void)
{
	_Atomic uint64_t *link = (_Atomic uint64_t *)tgs_page_address(tgt_heap, LARGE_PAGE + 2);
	uint64_t seq;
	int done;

	for (done = 0; done < 2; done++) {
		start_again();
		link = (_Atomic uint64_t *)tgs_page_address(tgt_heap, LARGE_PAGE + 2);
		tgt_take(DENSE_PAGE, OLD);
		tgt_take(DENSE_PAGE, NEW);
		*link = object(OLD);
		seq = tgs_link_begin(tgt_heap, FREER, link,
				     TGS_SWAP_GIVE | TGS_SWAP_RETIRE | TGS_SWAP_PRIVATE,
				     object(OLD), object(NEW));
		publish(DENSE_PAGE, NEW);
		if (done)
			tgs_link_swing(tgt_heap, FREER, seq, link, object(OLD), object(NEW));
		tgs_link_help_inside(tgt_heap,
				     tgs_ref_of(tgt_heap, tgs_page_address(tgt_heap, LARGE_PAGE)),
				     5 * TGS_PAGE_SIZE);
		tgt_remove_span(LARGE_PAGE);
		*link = 0;
		settle_and_look(done);
	}
}

static void test_garbage(void)
{
	static const uint64_t wrong[] = {0, 8, 4096, UINT64_MAX, UINT64_MAX & ~UINT64_C(7)};
	unsigned i, k;

	for (i = 0; i < 5; i++) {
		for (k = 0; k < 8; k++) {
			slot(FREER)->step.word = (wrong[i] & ~TGS_STEP_KIND_MASK) | TGS_STEP_SWAP;
			slot(FREER)->step.arg = k;
			slot(FREER)->step.old_ref = wrong[(i + k) % 5];
			slot(FREER)->step.new_ref = wrong[(i + 2 * k) % 5];
			slot(FREER)->mark = k % 2 ? UINT64_MAX : 0;
			tgs_settle_slot(tgt_heap, FREER);
			CU_ASSERT_EQUAL(slot(FREER)->step.word, 0);
		}
	}
	/* Nor does an object die that is named by a note and is not alive, or is inside of one. */
	tgt_take(DENSE_PAGE, OLD);
	slot(FREER)->step.word = object(CONTAINER) | TGS_STEP_SWAP;
	slot(FREER)->step.arg = TGS_SWAP_RETIRE;
	slot(FREER)->step.old_ref = object(OLD) + 1;
	tgs_settle_slot(tgt_heap, FREER);
	CU_ASSERT_TRUE(is_live(DENSE_PAGE, OLD));
}

int main(void)
{
	CU_TestInfo swaps[] = {
		{"Killed after any of its stores", test_a_kill_at_each_store},
		{"The recoverer was killed, too", test_a_recoverer_killed},
		{"There is room for the retired object among many frees", test_a_full_buffer},
		{"Others swung the link again before", test_the_link_was_swung_again},
		{"The link was freed before, and its memory used for something else",
		 test_the_link_was_freed_and_its_memory_reused},
		{"A recoverer tells whoever swings inside of what it frees",
		 test_a_retired_object_that_holds_a_link},
		{"Who frees an object tells those inside, and nobody else",
		 test_help_goes_to_steps_inside},
		{"The span with the link is gone", test_the_span_is_gone},
		{"Garbage in the note is not believed", test_garbage},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"settle_swap", NULL, NULL, set_up, tgt_region_tear_down, swaps},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("settle_swap", suites);
}
