/* test_reclaim: what becomes of the objects, spans, slots and half-done frees of a client that has
 * ended. */
#include "tests/support/heap.h"
#include "tests/support/runner.h"

enum { CLASS = 30, OBJECTS = 10 };

static uint32_t victim, other;
static unsigned slot, thread;

static void clients_with(uint32_t flags)
{
	start_heap(64 * MIB, 0);
	victim = add_client(flags);
	other = add_client(0);
	slot = open_slot(victim);
	thread = open_slot(other);
}

static void keep(void)
{
	clients_with(0);
}

static void reclaim(void)
{
	clients_with(RECLAIM);
}

static void end_victim(void)
{
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, victim), 0);
	work(1000);
	CU_ASSERT_EQUAL(status().recovered_clients, 1);
	CU_ASSERT_EQUAL(status().dead_clients, 0);
}

static uint64_t span_with(unsigned class, unsigned n_objects)
{
	uint64_t page = get_span(victim, slot, class).page;

	take_objects(page, n_objects);
	return page;
}

/* ---- keep ---- */

static void objects_stay_and_empty_spans_are_freed(void)
{
	uint64_t page = span_with(CLASS, 3), tiny = span_with(TGS_CLASS_TINY, 40);
	uint64_t large = get_large(victim, slot, 9).page, empty = get_large(victim, slot, 9).page;
	uint64_t full = span_with(2, 512);

	take_object(large, 0);
	(void)span_with(7, 0);
	end_victim();
	CU_ASSERT_EQUAL(owner_of(page), TGS_SLOT_CENTRAL);
	CU_ASSERT_EQUAL(owner_of(tiny), TGS_SLOT_CENTRAL);
	CU_ASSERT_EQUAL(owner_of(large), TGS_SLOT_CENTRAL);
	CU_ASSERT_EQUAL(owner_of(full), TGS_SLOT_CENTRAL);
	CU_ASSERT_EQUAL(tgs_page_entry(view, empty), 0);
	CU_ASSERT_EQUAL(status().spans, 4);
	CU_ASSERT_EQUAL(checked().objects, 3 + 40 + 1 + 512);
	CU_ASSERT_EQUAL(status().slots, 1);
}

static void what_others_had_freed_is_harvested(void)
{
	uint64_t page = span_with(CLASS, 3);

	remote_free(thread, page, 0);
	remote_free(thread, page, 1);
	end_victim();
	CU_ASSERT_EQUAL(checked().objects, 1);
	CU_ASSERT_EQUAL(get_span(other, thread, CLASS).free, OBJECTS - 1);
}

static void frees_in_the_dead_ones_buffer_are_applied_once(void)
{
	uint64_t theirs = get_span(other, thread, CLASS).page, mine = span_with(CLASS + 1, 1);

	take_objects(theirs, 4);
	take_object(mine, 0);
	(void)buffer_free(slot, 0, theirs, 1);
	(void)buffer_free(slot, 0, theirs, 2);
	/* A thread may have buffered a free of what another one of its process owns. */
	(void)buffer_free(slot, 5, mine, 0);
	CU_ASSERT_EQUAL(checked().pending_frees, 3);
	end_victim();
	CU_ASSERT_EQUAL(tgs_remote_bits(view, TGS_SPARSE, theirs, 0), 6);
	CU_ASSERT_EQUAL(owner_of(theirs), thread);
	CU_ASSERT_EQUAL(tgs_page_entry(view, mine), 0);
	CU_ASSERT_EQUAL(checked().objects, 2);
	CU_ASSERT_EQUAL(checked().pending_frees, 0);
}

static void a_free_done_but_still_noted_is_not_done_again(void)
{
	uint64_t page = get_span(other, thread, CLASS).page;
	_Atomic uint64_t *word = tgs_remote_word(view, TGS_SPARSE, page, 0, 0);
	struct tgs_harvest found = {0};

	take_objects(page, 2);
	(void)buffer_free(slot, 0, page, 1);
	CU_ASSERT_EQUAL(tgs_remote_free(view, slot, word, 2), 0);
	/* Killed here: the step stands in the slot, the buffer too.  The owner harvests, and uses
	 * the place again. */
	(void)tgs_remote_harvest(view, TGS_SPARSE, page, 0, &found);
	CU_ASSERT_EQUAL(found.n_freed, 1);
	take_object(page, 1);
	end_victim();
	CU_ASSERT_EQUAL(tgs_remote_bits(view, TGS_SPARSE, page, 0), 0);
	CU_ASSERT_EQUAL(checked().objects, 2);
}

static void garbage_in_a_dead_slot_is_not_believed(void)
{
	struct tgs_slot *mine = &view->slots[slot];
	uint64_t bad[] = {0,
			  1,
			  8,
			  view->geometry.heap_bytes,
			  UINT64_MAX,
			  view->geometry.data_at,
			  view->geometry.records_at + 64 * 3 + 4,
			  view->geometry.threads_at};
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		mine->pending[i].word = bad[i];
		mine->pending[i].mask = UINT32_MAX;
	}
	mine->step.word = UINT64_MAX - 7 + TGS_STEP_FREE;
	mine->tiny_block = UINT64_MAX;
	end_victim();
	CU_ASSERT_EQUAL(status().spans, 0);
}

static void a_slot_is_zero_for_its_next_owner_but_goes_on_counting(void)
{
	uint64_t page = get_span(other, thread, CLASS).page, seq;
	unsigned again;

	take_objects(page, 1);
	remote_free(slot, page, 0);
	view->slots[slot].tiny_block = 1234;
	view->slots[slot].dirty[0] = 7;
	seq = view->slots[slot].step.seq;
	CU_ASSERT(seq > 0);
	end_victim();
	CU_ASSERT_EQUAL(view->slots[slot].in_use, 0);
	again = open_slot(other);
	CU_ASSERT_EQUAL(again, slot);
	CU_ASSERT_EQUAL(view->slots[again].step.seq, seq);
	CU_ASSERT_EQUAL(view->slots[again].tiny_block, 0);
	CU_ASSERT_EQUAL(view->slots[again].dirty[0], 0);
}

static void the_work_comes_in_slices_and_the_dead_are_listed_until_it_is_done(void)
{
	enum { SPANS = 1000 };
	static struct tgd_grant grant[SPANS];
	struct tgd_client_info info;
	unsigned n, i, rounds = 0;

	for (i = 0; i < SPANS; i += n) {
		CU_ASSERT_EQUAL_FATAL(
			tgd_heap_get_spans(heap, victim, slot, CLASS, SPANS - i, grant + i, &n), 0);
	}
	for (i = 0; i < SPANS; i += 2)
		take_object(grant[i].page, 0);
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, victim), 0);
	while (tgd_heap_work(heap, 1) == 0 && status().recovered_clients == 0) {
		rounds++;
		CU_ASSERT_EQUAL(tgd_heap_client_get(heap, victim, &info), -ENOENT);
		CU_ASSERT(tgd_heap_client_after(heap, 0, &info));
		CU_ASSERT_EQUAL(info.id, victim);
		CU_ASSERT(info.dead);
		(void)checked();
		CU_ASSERT_FATAL(rounds < SPANS);
	}
	CU_ASSERT(rounds >= 3);
	CU_ASSERT_EQUAL(status().spans, SPANS / 2);
	CU_ASSERT_EQUAL(status().orphan_spans, SPANS / 2);
}

static void many_may_die_at_once(void)
{
	enum { MANY = 300 };
	uint32_t many[MANY];
	unsigned i;

	for (i = 0; i < MANY; i++) {
		unsigned mine;

		many[i] = add_client(i % 2 ? RECLAIM : 0);
		mine = open_slot(many[i]);
		take_object(get_span(many[i], mine, 2 + i % 67).page, 0);
	}
	for (i = 0; i < MANY; i++)
		CU_ASSERT_EQUAL(tgd_heap_client_end(heap, many[i]), 0);
	CU_ASSERT_EQUAL(status().dead_clients, MANY);
	work(1000);
	CU_ASSERT_EQUAL(status().recovered_clients, MANY);
	CU_ASSERT_EQUAL(status().clients, 2);
	CU_ASSERT_EQUAL(status().slots, 2);
	CU_ASSERT_EQUAL(checked().objects, MANY / 2);
}

static void a_death_in_the_middle_of_settling_another_one_disturbs_nothing(void)
{
	enum { SLOTS = 100 };
	uint64_t page = get_span(other, thread, 10).page;
	unsigned slots[SLOTS], i;
	uint32_t second = add_client(0);

	take_objects(page, 64);
	(void)open_slot(second);
	for (i = 0; i < SLOTS; i++) {
		slots[i] = open_slot(victim);
		if (i < 64)
			(void)buffer_free(slots[i], 0, page, i);
	}
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, victim), 0);
	/* A slice is not enough for so many slots. */
	CU_ASSERT_EQUAL(tgd_heap_work(heap, 1), 0);
	CU_ASSERT(checked().pending_frees > 0);
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, second), 0);
	work(1000);
	CU_ASSERT_EQUAL(status().recovered_clients, 2);
	CU_ASSERT_EQUAL(tgs_remote_bits(view, TGS_SPARSE, page, 0), UINT64_MAX);
	CU_ASSERT_EQUAL(checked().objects, 0);
}

/* ---- reclaim ---- */

static void unpublished_objects_die_and_published_ones_stay(void)
{
	uint64_t page = span_with(CLASS, 3), dense = span_with(2, 512);
	uint64_t tiny = span_with(TGS_CLASS_TINY, 40), large = get_large(victim, slot, 9).page;
	uint64_t lives = get_large(victim, slot, 9).page;

	publish(page, 1);
	publish(dense, 500);
	publish(tiny, 7);
	take_object(large, 0);
	take_object(lives, 0);
	publish(lives, 0);
	end_victim();
	CU_ASSERT_EQUAL(checked().objects, 4);
	CU_ASSERT_EQUAL(checked().published, 4);
	CU_ASSERT_EQUAL(owner_of(lives), TGS_SLOT_CENTRAL);
	CU_ASSERT_EQUAL(tgs_page_entry(view, large), 0);
	CU_ASSERT_EQUAL(tgs_taken_bits(view, TGS_SPARSE, page, 0), 2);
	CU_ASSERT_EQUAL(status().spans, 4);
}

static void what_was_put_before_the_death_dies_too(void)
{
	uint64_t page = span_with(CLASS, 3), shared;
	unsigned second = open_slot(victim);

	CU_ASSERT_EQUAL(put_span(victim, slot, page), 0);
	shared = get_span(victim, second, CLASS + 1).page;
	take_objects(shared, 2);
	publish(shared, 0);
	CU_ASSERT_EQUAL(tgd_heap_close_slot(heap, victim, second), 0);
	CU_ASSERT_EQUAL(checked().objects, 5);
	end_victim();
	CU_ASSERT_EQUAL(checked().objects, 1);
	CU_ASSERT_EQUAL(status().spans, 1);
}

static void others_objects_in_a_span_of_the_dead_stay(void)
{
	uint64_t page = get_span(other, thread, CLASS).page;

	take_objects(page, 2);
	publish(page, 0);
	publish(page, 1);
	CU_ASSERT_EQUAL(put_span(other, thread, page), 0);
	CU_ASSERT_EQUAL(get_span(victim, slot, CLASS).page, page);
	take_object(page, 5);
	end_victim();
	CU_ASSERT_EQUAL(checked().objects, 2);
}

static void an_object_that_a_living_thread_is_about_to_free_is_freed_once(void)
{
	uint64_t page = span_with(CLASS, 3);
	struct tgs_pending *pending = buffer_free(thread, 3, page, 1);

	end_victim();
	/* Objects 0 and 2 died; 1 stays taken until its free comes. */
	CU_ASSERT_EQUAL(tgs_taken_bits(view, TGS_SPARSE, page, 0), 2);
	CU_ASSERT_EQUAL(checked().objects, 0);
	CU_ASSERT_EQUAL(tgs_pending_apply(view, thread, pending), 0);
	work(5);
	CU_ASSERT_EQUAL(status().spans, 0);
}

static void two_dead_clients_that_freed_each_others_objects_leave_nothing(void)
{
	uint64_t mine = span_with(CLASS, 3), theirs;
	uint32_t second = add_client(RECLAIM);
	unsigned their_slot = open_slot(second);

	theirs = get_span(second, their_slot, CLASS).page;
	take_objects(theirs, 3);
	(void)buffer_free(slot, 0, theirs, 0);
	(void)buffer_free(their_slot, 0, mine, 0);
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, second), 0);
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, victim), 0);
	work(1000);
	CU_ASSERT_EQUAL(status().recovered_clients, 2);
	CU_ASSERT_EQUAL(status().spans, 0);
	CU_ASSERT_EQUAL(checked().objects, 0);
}

static CU_TestInfo kept[] = {
	{"objects stay, and empty spans are freed", objects_stay_and_empty_spans_are_freed},
	{"what others had freed is harvested", what_others_had_freed_is_harvested},
	{"frees in the dead one's buffer are applied once",
	 frees_in_the_dead_ones_buffer_are_applied_once},
	{"a free done but still noted is not done again",
	 a_free_done_but_still_noted_is_not_done_again},
	{"garbage in a dead slot is not believed", garbage_in_a_dead_slot_is_not_believed},
	{"a slot is zero for its next owner, but goes on counting",
	 a_slot_is_zero_for_its_next_owner_but_goes_on_counting},
	{"the work comes in slices, and the dead are listed until it is done",
	 the_work_comes_in_slices_and_the_dead_are_listed_until_it_is_done},
	{"many may die at once", many_may_die_at_once},
	{"a death in the middle of settling another one disturbs nothing",
	 a_death_in_the_middle_of_settling_another_one_disturbs_nothing},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo reclaimed[] = {
	{"unpublished objects die, and published ones stay",
	 unpublished_objects_die_and_published_ones_stay},
	{"what was put before the death dies too", what_was_put_before_the_death_dies_too},
	{"others' objects in a span of the dead stay", others_objects_in_a_span_of_the_dead_stay},
	{"an object that a living thread is about to free is freed once",
	 an_object_that_a_living_thread_is_about_to_free_is_freed_once},
	{"two dead clients that freed each other's objects leave nothing",
	 two_dead_clients_that_freed_each_others_objects_leave_nothing},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"keep", NULL, NULL, keep, end_heap, kept},
	{"reclaim", NULL, NULL, reclaim, end_heap, reclaimed},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("reclaim", suites);
}
