/* test_scavenge: which idle pages go back to the kernel, in which order, and how many stay.  Time
 * is a number that the tests move on.
 */
#include "tests/support/heap.h"
#include "tests/support/runner.h"

static uint32_t client;
static unsigned slot;

static void one_client(void)
{
	start_heap(256 * MIB, 0);
	client = add_client(0);
	slot = open_slot(client);
}

static uint64_t idle_pages(void)
{
	return status().idle_bytes / PAGE;
}

/* A large span; with it a 128th of memory is made ahead (daemon/heap-ahead.c). */
static uint64_t grow(uint64_t n_pages, uint64_t now)
{
	uint64_t page = get_large(client, slot, n_pages).page;
	int wait;

	do
		wait = tgd_heap_work(heap, now);
	while (wait == 0);
	CU_ASSERT_EQUAL(wait, -1);
	return page;
}

static void nothing_idle_is_nothing_to_do(void)
{
	CU_ASSERT_EQUAL(tgd_heap_work(heap, 1000), -1);
	(void)get_large(client, slot, 100);
	CU_ASSERT_EQUAL(tgd_heap_work(heap, 100000), -1);
	CU_ASSERT_EQUAL(status().scavenged_bytes, 0);
}

static void a_tenth_over_the_recent_peak_is_kept(void)
{
	uint64_t page = grow(1000, 1000);
	struct tgd_grant grant;

	/* In use 900, peak 1000: idle pages up to 1100 - 900 stay. */
	CU_ASSERT_EQUAL(tgd_heap_resize(heap, client, slot, page, 900, &grant), 0);
	CU_ASSERT(tgd_heap_work(heap, 1001) > 0);
	CU_ASSERT_EQUAL(idle_pages(), 100 + 1000 / 128);
	CU_ASSERT_EQUAL(status().scavenged_bytes, 0);
}

static void the_peak_decays_and_then_the_excess_goes(void)
{
	uint64_t page = grow(1000, 1000), now, goal;
	struct tgd_grant grant;
	int wait;

	CU_ASSERT_EQUAL(tgd_heap_resize(heap, client, slot, page, 500, &grant), 0);
	/* After a second the peak is 875 and the goal 962: see scavenge.h. */
	for (now = 2000; now < 2100; now++)
		(void)tgd_heap_work(heap, now);
	goal = 875 + 87;
	CU_ASSERT(500 + idle_pages() <= goal + 7);
	CU_ASSERT(500 + idle_pages() >= goal);
	for (; now < 100000; now += (uint64_t)wait) {
		wait = tgd_heap_work(heap, now);
		CU_ASSERT_NOT_EQUAL(wait, 0);
		if (wait < 0)
			break;
	}
	CU_ASSERT_EQUAL(wait, -1);
	CU_ASSERT_EQUAL(idle_pages(), 50);
}

static void all_goes_when_nothing_has_been_in_use_for_long(void)
{
	uint64_t page = get_large(client, slot, 5000).page, resident;

	resident = status().resident_bytes;
	CU_ASSERT(resident >= 5000 * PAGE);
	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	work(100000);
	CU_ASSERT_EQUAL(idle_pages(), 0);
	CU_ASSERT_EQUAL(status().scavenged_bytes, 5000 * PAGE);
	CU_ASSERT(status().resident_bytes <= resident - 5000 * PAGE);
}

static void a_slice_is_bounded(void)
{
	uint64_t page = grow(5000, 1), before;
	uint64_t now = 10 * 1000 * 1000;

	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	/* So late that the peak is all the way down. */
	before = idle_pages();
	CU_ASSERT(tgd_heap_work(heap, now) > 0);
	CU_ASSERT_EQUAL(before - idle_pages(), 128);
	/* It rests. */
	before = idle_pages();
	CU_ASSERT(tgd_heap_work(heap, now) > 0);
	CU_ASSERT_EQUAL(idle_pages(), before);
}

static void the_highest_pages_go_first(void)
{
	uint64_t low = get_large(client, slot, 1000).page, wall, high;
	uint64_t n_pages, per_cell;
	struct tgd_map_cell cell[3];

	wall = get_large(client, slot, 1).page;
	high = get_large(client, slot, 1000).page;
	CU_ASSERT(low < wall && wall < high);
	/* Before anything is idle, so that nothing goes for what was made. */
	while (tgd_heap_work(heap, 1000) == 0)
		;
	CU_ASSERT_EQUAL(put_span(client, slot, low), 0);
	CU_ASSERT_EQUAL(put_span(client, slot, high), 0);
	(void)tgd_heap_work(heap, 1000);
	(void)tgd_heap_work(heap, 1000000);
	CU_ASSERT_EQUAL(tgd_heap_map(heap, 2, cell, &n_pages, &per_cell), 2);
	CU_ASSERT_EQUAL(cell[0].returned, 0);
	/* The map ends with the last span; memory made ahead lies behind it. */
	CU_ASSERT_EQUAL(cell[1].returned, 32 - 2001 / 128);
}

static void what_is_made_replaces_what_lies_idle(void)
{
	uint64_t low = grow(600, 1000), wall = grow(1, 1000), more;

	CU_ASSERT(low < wall);
	CU_ASSERT_EQUAL(put_span(client, slot, low), 0);
	CU_ASSERT(idle_pages() >= 600);
	CU_ASSERT(tgd_heap_work(heap, 1001) > 0);
	CU_ASSERT(idle_pages() >= 600);
	/* It does not fit into the hole: memory is made, and as much goes back at once. */
	more = get_large(client, slot, 700).page;
	CU_ASSERT(more > wall);
	while (tgd_heap_work(heap, 1001) == 0)
		;
	CU_ASSERT(idle_pages() < 100);
	CU_ASSERT(idle_pages() >= 700 / 16);
	/* This does, and no memory is made. */
	CU_ASSERT_EQUAL(get_large(client, slot, 20).page, low);
	while (tgd_heap_work(heap, 1001) == 0)
		;
	CU_ASSERT(idle_pages() >= 700 / 16 - 20);
}

static void work_at(uint64_t now)
{
	while (tgd_heap_work(heap, now) == 0)
		;
}

static void a_long_piece_goes_at_once(void)
{
	uint64_t page = grow(1000, 1000);

	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	CU_ASSERT_EQUAL(tgd_heap_work(heap, 1000), 2);
	work_at(1001);
	CU_ASSERT(idle_pages() >= 1000);
	work_at(1002);
	CU_ASSERT_EQUAL(idle_pages(), 32);
}

static void of_very_long_pieces_the_rest_keeps_to_the_pace(void)
{
	uint64_t page = grow(8000, 1000), idle;

	idle = 8000 + idle_pages();
	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	work_at(1000);
	work_at(1002);
	CU_ASSERT_EQUAL(idle - idle_pages(), 1024);
}

static void more_long_pieces_begin_the_wait_anew(void)
{
	uint64_t low = grow(200, 1000), high = grow(200, 1000);

	CU_ASSERT_EQUAL(put_span(client, slot, high), 0);
	work_at(1000);
	CU_ASSERT_EQUAL(put_span(client, slot, low), 0);
	work_at(1001);
	work_at(1002);
	CU_ASSERT(idle_pages() >= 400);
	work_at(1003);
	CU_ASSERT_EQUAL(idle_pages(), 32);
}

static void a_long_piece_that_is_needed_again_stays(void)
{
	uint64_t page = grow(1000, 1000);

	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	work_at(1001);
	CU_ASSERT_EQUAL(get_large(client, slot, 1000).page, page);
	work_at(2000);
	CU_ASSERT_EQUAL(status().scavenged_bytes, 0);
}

static void short_pieces_keep_to_the_pace(void)
{
	uint64_t page[16];
	unsigned i;

	for (i = 0; i < 16; i++)
		page[i] = grow(127, 1000);
	for (i = 0; i < 16; i++)
		CU_ASSERT_EQUAL(put_span(client, slot, page[i]), 0);
	work_at(1000);
	work_at(1010);
	CU_ASSERT(idle_pages() >= 16 * 127);
	CU_ASSERT_EQUAL(status().scavenged_bytes, 0);
}

static void punched_pages_are_zero_and_work_again(void)
{
	uint64_t page = get_large(client, slot, 64).page, again, i, sum = 0;

	for (i = 0; i < 64; i++)
		*tgs_page_address(view, page + i) = 1;
	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	CU_ASSERT(tgd_heap_trim(heap) >= 64 * PAGE);
	again = get_large(client, slot, 64).page;
	CU_ASSERT_EQUAL(again, page);
	for (i = 0; i < 64; i++)
		sum += *tgs_page_address(view, page + i);
	CU_ASSERT_EQUAL(sum, 0);
}

static void state_of_free_pages_goes_with_them(void)
{
	enum { SPANS = 256 };
	struct tgd_grant grant[SPANS];
	uint64_t pages[SPANS], empty, granted, full;
	unsigned n, i;

	/* A first span, so that what the heap needs anyway is there. */
	pages[0] = get_span(client, slot, TGS_CLASS_TINY).page;
	empty = status().resident_bytes;
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, TGS_CLASS_TINY, SPANS, grant, &n),
			0);
	CU_ASSERT_EQUAL_FATAL(n, SPANS);
	granted = status().resident_bytes;
	/* A tiny span has 1 KiB of state, and 4 more in time of need. */
	CU_ASSERT(granted - empty >= SPANS * (PAGE + 1024));
	CU_ASSERT(granted - empty <= SPANS * (PAGE + 1024 + 128) + 16384);
	for (i = 0; i < n; i++)
		back_state(grant[i].page);
	full = status().resident_bytes;
	CU_ASSERT_EQUAL(full - granted, SPANS * 4096);
	for (i = 0; i < n; i++) {
		pages[i] = grant[i].page;
		take_objects(pages[i], 100);
		while (span_at(pages[i]).owner == slot &&
		       tgs_span_live(view, &(struct tgs_span){.page = pages[i],
							      .class = TGS_CLASS_TINY,
							      .n_slots = PAGE}))
			drop_object(pages[i],
				    tgs_span_live(view, &(struct tgs_span){.page = pages[i],
									   .class = TGS_CLASS_TINY,
									   .n_slots = PAGE}) -
					    1);
	}
	CU_ASSERT_EQUAL(tgd_heap_put_spans(heap, client, slot, pages, n), 0);
	CU_ASSERT(tgd_heap_trim(heap) >= SPANS * (PAGE + 5 * 1024) - 8192);
	/* But for blocks that they share with pages in use. */
	CU_ASSERT(status().resident_bytes <= empty + 4 * 4096);
	(void)checked();
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, TGS_CLASS_TINY, SPANS, grant, &n),
			0);
	CU_ASSERT_EQUAL(n, SPANS);
	CU_ASSERT_EQUAL(status().resident_bytes, granted);
}

static void state_next_to_a_span_in_use_stays(void)
{
	uint64_t kept, gone;
	uint8_t *state;

	/* Two dense spans, whose state shares one block of 4 KiB. */
	gone = get_span(client, slot, 2).page;
	kept = get_span(client, slot, 2).page;
	CU_ASSERT_EQUAL(gone * 512 / 4096, kept * 512 / 4096);
	take_objects(kept, 512);
	state = (uint8_t *)tgs_taken_bytes(view, TGS_DENSE_8, kept);
	CU_ASSERT_EQUAL(state[0], TGS_TAKEN);
	CU_ASSERT_EQUAL(put_span(client, slot, gone), 0);
	(void)tgd_heap_trim(heap);
	CU_ASSERT_EQUAL(state[0], TGS_TAKEN);
	CU_ASSERT_EQUAL(checked().objects, 512);
}

static void growth_beyond_the_limit_takes_idle_pages_back_at_once(void)
{
	uint64_t page, wall;

	CU_ASSERT_EQUAL(tgd_heap_set_limit(heap, 1000 * PAGE), 0);
	page = get_large(client, slot, 600).page;
	wall = get_large(client, slot, 1).page;
	CU_ASSERT_EQUAL(wall, page + 600);
	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	CU_ASSERT_EQUAL(idle_pages(), 600);
	/* It does not fit into the idle pages, so it gets others; all together stay under the
	 * limit. */
	(void)get_large(client, slot, 700);
	CU_ASSERT_EQUAL(status().span_bytes, 701 * PAGE);
	CU_ASSERT(701 + idle_pages() <= 1000);
}

static CU_TestInfo scavenge[] = {
	{"nothing idle is nothing to do", nothing_idle_is_nothing_to_do},
	{"a tenth over the recent peak is kept", a_tenth_over_the_recent_peak_is_kept},
	{"the peak decays, and then the excess goes", the_peak_decays_and_then_the_excess_goes},
	{"all goes when nothing has been in use for long",
	 all_goes_when_nothing_has_been_in_use_for_long},
	{"a slice is bounded", a_slice_is_bounded},
	{"the highest pages go first", the_highest_pages_go_first},
	{"what is made replaces what lies idle", what_is_made_replaces_what_lies_idle},
	{"a long piece goes at once", a_long_piece_goes_at_once},
	{"of very long pieces the rest keeps to the pace",
	 of_very_long_pieces_the_rest_keeps_to_the_pace},
	{"more long pieces begin the wait anew", more_long_pieces_begin_the_wait_anew},
	{"a long piece that is needed again stays", a_long_piece_that_is_needed_again_stays},
	{"short pieces keep to the pace", short_pieces_keep_to_the_pace},
	{"punched pages are zero and work again", punched_pages_are_zero_and_work_again},
	{"state of free pages goes with them", state_of_free_pages_goes_with_them},
	{"state next to a span in use stays", state_next_to_a_span_in_use_stays},
	{"growth beyond the limit takes idle pages back at once",
	 growth_beyond_the_limit_takes_idle_pages_back_at_once},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"scavenge", NULL, NULL, one_client, end_heap, scavenge},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("scavenge", suites);
}
