/* test_central: spans that no client holds: which of them a request is given, and how frees by
 * others reach them. */
#include "shm/link.h"
#include "shm/step.h"
#include "tests/support/heap.h"
#include "tests/support/runner.h"

/* Class 30: 768 bytes, 10 to a span, one unit of state.  Class 2: 16 bytes, 512, 8 units. */
enum { CLASS = 30, OBJECTS = 10 };

static uint32_t client, other;
static unsigned slot, thread;

static void two_clients(void)
{
	start_heap(64 * MIB, 0);
	client = add_client(0);
	other = add_client(0);
	slot = open_slot(client);
	thread = open_slot(other);
}

static uint64_t put_with(unsigned class, unsigned n_objects)
{
	uint64_t page = get_span(client, slot, class).page;

	take_objects(page, n_objects);
	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	return page;
}

static void an_empty_span_that_is_put_is_freed(void)
{
	uint64_t page = put_with(CLASS, 0);
	struct tgs_span span;

	CU_ASSERT_FALSE(tgs_span_at(view, page, &span));
	CU_ASSERT_EQUAL(status().orphan_spans, 0);
}

static void a_span_with_objects_goes_to_central_and_keeps_them(void)
{
	uint64_t page = put_with(CLASS, 3);

	CU_ASSERT_EQUAL(owner_of(page), TGS_SLOT_CENTRAL);
	CU_ASSERT_EQUAL(status().orphan_spans, 1);
	CU_ASSERT_EQUAL(checked().objects, 3);
}

static void a_partial_span_is_granted_before_a_new_one(void)
{
	uint64_t page = put_with(CLASS, 3);
	struct tgd_grant grant = get_span(other, thread, CLASS);

	CU_ASSERT_EQUAL(grant.page, page);
	CU_ASSERT_EQUAL(grant.free, OBJECTS - 3);
	CU_ASSERT_FALSE(grant.zero);
	CU_ASSERT_EQUAL(owner_of(page), thread);
	CU_ASSERT_EQUAL(status().orphan_spans, 0);
	CU_ASSERT_NOT_EQUAL(get_span(other, thread, CLASS).page, page);
}

static void a_partial_span_is_harvested_when_it_is_granted(void)
{
	uint64_t page = put_with(CLASS, 3);

	remote_free(thread, page, 1);
	CU_ASSERT_EQUAL(get_span(other, thread, CLASS).free, OBJECTS - 2);
	CU_ASSERT_EQUAL(tgs_taken_bits(view, TGS_SPARSE, page, 0), 5);
	CU_ASSERT_EQUAL(tgs_remote_bits(view, TGS_SPARSE, page, 0), 0);
}

static void a_partial_span_of_another_class_is_not_granted(void)
{
	uint64_t page = put_with(CLASS, 3);

	CU_ASSERT_NOT_EQUAL(get_span(other, thread, CLASS + 1).page, page);
	CU_ASSERT_EQUAL(owner_of(page), TGS_SLOT_CENTRAL);
}

static void a_full_span_is_not_granted(void)
{
	uint64_t page = put_with(CLASS, OBJECTS);

	CU_ASSERT_NOT_EQUAL(get_span(other, thread, CLASS).page, page);
}

static void a_batch_takes_partial_spans_first_and_then_new_ones(void)
{
	uint64_t a[3];
	struct tgd_grant grant[5];
	unsigned n = 0, i;

	for (i = 0; i < 3; i++) {
		a[i] = get_span(client, slot, CLASS).page;
		take_objects(a[i], 1 + i);
	}
	CU_ASSERT_EQUAL(tgd_heap_put_spans(heap, client, slot, a, 3), 0);
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, other, thread, CLASS, 5, grant, &n), 0);
	CU_ASSERT_EQUAL(n, 5);
	/* What was put last comes first. */
	for (i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL(grant[i].page, a[2 - i]);
		CU_ASSERT_EQUAL(grant[i].free, OBJECTS - (3 - i));
	}
	CU_ASSERT_EQUAL(grant[3].free, OBJECTS);
	CU_ASSERT(grant[4].zero);
}

static void a_full_span_freed_into_by_others_is_granted(void)
{
	uint64_t page = put_with(CLASS, OBJECTS);
	struct tgd_grant grant;

	remote_free(thread, page, 4);
	remote_free(thread, page, 5);
	grant = get_span(other, thread, CLASS);
	CU_ASSERT_EQUAL(grant.page, page);
	CU_ASSERT_EQUAL(grant.free, 2);
	CU_ASSERT_EQUAL(tgs_remote_bits(view, TGS_SPARSE, page, 0), 0);
}

static void a_request_looks_at_a_hundred_full_spans_and_the_next_one_at_others(void)
{
	enum { SPANS = 250 };
	struct tgd_grant grant[SPANS];
	uint64_t pages[SPANS];
	unsigned n, i;

	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, CLASS, SPANS, grant, &n), 0);
	CU_ASSERT_EQUAL_FATAL(n, SPANS);
	for (i = 0; i < n; i++) {
		pages[i] = grant[i].page;
		take_objects(pages[i], OBJECTS);
	}
	CU_ASSERT_EQUAL(tgd_heap_put_spans(heap, client, slot, pages, n), 0);
	/* The one put first is the last to be looked at. */
	remote_free(thread, pages[0], 1);
	for (i = 0; i < 3; i++) {
		uint64_t page = get_span(other, thread, CLASS).page;

		if (page == pages[0])
			break;
	}
	CU_ASSERT_EQUAL(i, 2);
}

static void a_sweep_frees_what_others_emptied(void)
{
	uint64_t small = put_with(2, 512), tiny = put_with(TGS_CLASS_TINY, 100), large;
	unsigned i;

	large = get_large(client, slot, 20).page;
	take_object(large, 0);
	CU_ASSERT_EQUAL(put_span(client, slot, large), 0);
	for (i = 0; i < 512; i++)
		remote_free(thread, small, i);
	for (i = 0; i < 100; i++)
		remote_free(thread, tiny, i);
	remote_free(thread, large, 0);
	CU_ASSERT_EQUAL(status().span_bytes, 22 * PAGE);
	work(5);
	CU_ASSERT_EQUAL(status().span_bytes, 0);
	CU_ASSERT_EQUAL(status().spans, 0);
}

static void a_sweep_finds_room_but_leaves_what_lives(void)
{
	uint64_t page = put_with(2, 512);
	struct tgd_grant grant;

	remote_free(thread, page, 511);
	work(5);
	CU_ASSERT_EQUAL(
		tgs_span_live(view, &(struct tgs_span){.page = page, .class = 2, .n_slots = 512}),
		511);
	CU_ASSERT_EQUAL(owner_of(page), TGS_SLOT_CENTRAL);
	grant = get_span(other, thread, 2);
	CU_ASSERT_EQUAL(grant.page, page);
	CU_ASSERT_EQUAL(grant.free, 1);
}

static void a_sweep_does_not_touch_what_a_client_holds(void)
{
	uint64_t page = get_span(client, slot, CLASS).page;

	take_objects(page, 2);
	remote_free(thread, page, 1);
	/* A mark left over from when the span was central's. */
	view->dirty[page / 64] |= UINT64_C(1) << page % 64;
	put_with(CLASS + 1, 1);
	work(5);
	CU_ASSERT_EQUAL(owner_of(page), slot);
	CU_ASSERT_EQUAL(tgs_remote_bits(view, TGS_SPARSE, page, 0), 2);
}

static void marks_on_pages_of_no_span_are_harmless(void)
{
	uint64_t page = put_with(CLASS, 1);

	view->dirty[page / 64] = UINT64_MAX;
	work(5);
	CU_ASSERT_EQUAL(view->dirty[page / 64], 0);
	CU_ASSERT_EQUAL(owner_of(page), TGS_SLOT_CENTRAL);
}

static void frees_buffered_before_a_put_reach_central_after_it(void)
{
	uint64_t page = get_span(client, slot, CLASS).page;
	struct tgs_pending *pending;

	take_objects(page, 1);
	pending = buffer_free(thread, 0, page, 0);
	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	CU_ASSERT_EQUAL(checked().objects, 0);
	CU_ASSERT_EQUAL(checked().pending_frees, 1);
	CU_ASSERT_EQUAL(tgs_pending_apply(view, thread, pending), 0);
	work(5);
	CU_ASSERT_EQUAL(status().spans, 0);
}

static void a_trim_sweeps_unmarked_spans_too(void)
{
	uint64_t page = put_with(CLASS, 1);
	uint64_t epoch = view->map->trim_epoch;

	remote_free(thread, page, 0);
	view->dirty[page / 64] = 0;
	work(5);
	CU_ASSERT_EQUAL(status().spans, 1);
	CU_ASSERT(tgd_heap_trim(heap) >= PAGE);
	CU_ASSERT_EQUAL(status().spans, 0);
	CU_ASSERT_EQUAL(status().idle_bytes, 0);
	CU_ASSERT_EQUAL(view->map->trim_epoch, epoch + 1);
}

static void closing_a_slot_gives_all_its_spans_back(void)
{
	uint64_t empty = get_span(client, slot, 5).page, used = get_span(client, slot, CLASS).page;
	struct tgs_span span;

	take_objects(used, 2);
	CU_ASSERT_EQUAL(tgd_heap_close_slot(heap, client, slot), 0);
	CU_ASSERT_FALSE(tgs_span_at(view, empty, &span));
	CU_ASSERT_EQUAL(owner_of(used), TGS_SLOT_CENTRAL);
	CU_ASSERT_EQUAL(status().slots, 1);
}

static void room_in_a_tiny_span_is_counted_in_blocks(void)
{
	uint64_t page = get_span(client, slot, TGS_CLASS_TINY).page;

	/* Two objects in one block, one in another. */
	take_object(page, 0);
	take_object(page, 8);
	take_object(page, 8191);
	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	CU_ASSERT_EQUAL(get_span(other, thread, TGS_CLASS_TINY).free, 510);
}

/* ---- closets ---- */

static uint32_t keeper;
static unsigned keeper_slot;

static void a_reclaiming_client(void)
{
	two_clients();
	keeper = add_client(RECLAIM);
	keeper_slot = open_slot(keeper);
}

static uint64_t keeper_puts(unsigned n_objects)
{
	uint64_t page = get_span(keeper, keeper_slot, CLASS).page;

	take_objects(page, n_objects);
	CU_ASSERT_EQUAL(put_span(keeper, keeper_slot, page), 0);
	return page;
}

static void unpublished_objects_of_a_reclaiming_client_stay_its_own(void)
{
	uint64_t page = keeper_puts(3);
	struct tgd_client_info info;

	CU_ASSERT_NOT_EQUAL(owner_of(page), TGS_SLOT_CENTRAL);
	CU_ASSERT_NOT_EQUAL(owner_of(page), keeper_slot);
	CU_ASSERT_EQUAL(tgd_heap_client_get(heap, keeper, &info), 0);
	CU_ASSERT_EQUAL(info.spans, 1);
	CU_ASSERT_EQUAL(info.threads, 1);
	CU_ASSERT_NOT_EQUAL(get_span(other, thread, CLASS).page, page);
	CU_ASSERT_EQUAL(get_span(keeper, keeper_slot, CLASS).page, page);
}

static void published_objects_of_a_reclaiming_client_go_to_central(void)
{
	uint64_t page = get_span(keeper, keeper_slot, CLASS).page;

	take_object(page, 5);
	publish(page, 5);
	CU_ASSERT_EQUAL(put_span(keeper, keeper_slot, page), 0);
	CU_ASSERT_EQUAL(owner_of(page), TGS_SLOT_CENTRAL);
}

static void a_reclaiming_client_is_not_given_others_unpublished_objects(void)
{
	uint64_t page = put_with(CLASS, 2), full;

	CU_ASSERT_NOT_EQUAL(get_span(keeper, keeper_slot, CLASS).page, page);
	publish(page, 0);
	publish(page, 1);
	CU_ASSERT_EQUAL(get_span(keeper, keeper_slot, CLASS).page, page);
	full = put_with(CLASS, OBJECTS);
	remote_free(thread, full, 3);
	CU_ASSERT_NOT_EQUAL(get_span(keeper, keeper_slot, CLASS).page, full);
	CU_ASSERT_EQUAL(get_span(other, thread, CLASS).page, full);
}

/* For a moment, while a swap tries to give it away, an object is published that will not stay so. */
static void an_object_that_is_being_given_is_not_published_yet(void)
{
	uint64_t page = put_with(CLASS, 1);
	_Atomic uint64_t *link = (_Atomic uint64_t *)view->data;
	uint64_t ref = tgs_ref_of(view, tgs_page_address(view, page));

	publish(page, 0);
	tgs_link_begin(view, thread, link, TGS_SWAP_GIVE | TGS_SWAP_PRIVATE, 0, ref);
	CU_ASSERT_NOT_EQUAL(get_span(keeper, keeper_slot, CLASS).page, page);
	tgs_step_done(&view->slots[thread]);
	CU_ASSERT_EQUAL(get_span(keeper, keeper_slot, CLASS).page, page);
}

static void frees_by_others_reach_a_closet(void)
{
	uint64_t gone = keeper_puts(2), stays = keeper_puts(2), moves = keeper_puts(2);

	/* keeper_puts takes the span before it again, so there is one span now; make three. */
	CU_ASSERT_EQUAL(gone, stays);
	CU_ASSERT_EQUAL(gone, moves);
	gone = get_span(keeper, keeper_slot, CLASS).page;
	stays = get_span(keeper, keeper_slot, CLASS).page;
	moves = get_span(keeper, keeper_slot, CLASS).page;
	take_objects(stays, 2);
	take_objects(moves, 2);
	publish(moves, 0);
	CU_ASSERT_EQUAL(
		tgd_heap_put_spans(heap, keeper, keeper_slot, (uint64_t[]){gone, stays, moves}, 3),
		0);
	remote_free(thread, gone, 0);
	remote_free(thread, gone, 1);
	remote_free(thread, stays, 1);
	remote_free(thread, moves, 1);
	work(5);
	CU_ASSERT_EQUAL(tgs_page_entry(view, gone), 0);
	CU_ASSERT_NOT_EQUAL(owner_of(stays), TGS_SLOT_CENTRAL);
	CU_ASSERT_EQUAL(owner_of(moves), TGS_SLOT_CENTRAL);
}

static CU_TestInfo central[] = {
	{"an empty span that is put is freed", an_empty_span_that_is_put_is_freed},
	{"a span with objects goes to central and keeps them",
	 a_span_with_objects_goes_to_central_and_keeps_them},
	{"a partial span is granted before a new one", a_partial_span_is_granted_before_a_new_one},
	{"a partial span is harvested when it is granted",
	 a_partial_span_is_harvested_when_it_is_granted},
	{"a partial span of another class is not granted",
	 a_partial_span_of_another_class_is_not_granted},
	{"a full span is not granted", a_full_span_is_not_granted},
	{"a batch takes partial spans first, and then new ones",
	 a_batch_takes_partial_spans_first_and_then_new_ones},
	{"a full span freed into by others is granted",
	 a_full_span_freed_into_by_others_is_granted},
	{"a request looks at a hundred full spans, and the next one at others",
	 a_request_looks_at_a_hundred_full_spans_and_the_next_one_at_others},
	{"closing a slot gives all its spans back", closing_a_slot_gives_all_its_spans_back},
	{"room in a tiny span is counted in blocks", room_in_a_tiny_span_is_counted_in_blocks},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo sweeps[] = {
	{"a sweep frees what others emptied", a_sweep_frees_what_others_emptied},
	{"a sweep finds room but leaves what lives", a_sweep_finds_room_but_leaves_what_lives},
	{"a sweep does not touch what a client holds", a_sweep_does_not_touch_what_a_client_holds},
	{"marks on pages of no span are harmless", marks_on_pages_of_no_span_are_harmless},
	{"frees buffered before a put reach central after it",
	 frees_buffered_before_a_put_reach_central_after_it},
	{"a trim sweeps unmarked spans too", a_trim_sweeps_unmarked_spans_too},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo closets[] = {
	{"unpublished objects of a reclaiming client stay its own",
	 unpublished_objects_of_a_reclaiming_client_stay_its_own},
	{"published objects of a reclaiming client go to central",
	 published_objects_of_a_reclaiming_client_go_to_central},
	{"a reclaiming client is not given others' unpublished objects",
	 a_reclaiming_client_is_not_given_others_unpublished_objects},
	{"an object that a swap is giving away is not published yet",
	 an_object_that_is_being_given_is_not_published_yet},
	{"frees by others reach a closet", frees_by_others_reach_a_closet},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"central", NULL, NULL, two_clients, end_heap, central},
	{"sweeps", NULL, NULL, two_clients, end_heap, sweeps},
	{"closets", NULL, NULL, a_reclaiming_client, end_heap, closets},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("central", suites);
}
