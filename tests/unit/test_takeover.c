/* test_takeover: the next daemon finds all as it was, and finishes or undoes what was half done. */
#include "tests/support/runner.h"
#include "tests/support/takeover.h"

/* 21760-byte objects: three in eight pages.  Sparse, dense, tiny. */
enum { WIDE = 63, SPARSE = 30, DENSE = 5 };

static uint32_t keeper, reclaimer;
static unsigned slot, thread;

static void two_clients(void)
{
	start_heap(64 * MIB, 0);
	keeper = add_client(0);
	reclaimer = add_client(RECLAIM);
	slot = open_slot(keeper);
	thread = open_slot(reclaimer);
}

static void tear_down(void)
{
	if (kept_map >= 0)
		close(kept_map);
	if (kept_heap >= 0)
		close(kept_heap);
	kept_map = kept_heap = -1;
	end_heap();
}

/* One of each kind, with an object or two in it, and one that is full. */
static void fill(uint32_t client, unsigned mine)
{
	const unsigned classes[] = {SPARSE, DENSE, TGS_CLASS_TINY, WIDE, 2, 67};
	uint64_t page;
	size_t i;

	for (i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
		page = get_span(client, mine, classes[i]).page;
		take_object(page, 0);
		(void)get_span(client, mine, classes[i]);
	}
	page = get_span(client, mine, SPARSE).page;
	take_objects(page, tgs_classes[SPARSE].n_slots);
	publish(page, 1);
	remote_free(mine, page, 3);
	page = get_large(client, mine, 700).page;
	take_object(page, 0);
	(void)get_large(client, mine, 3);
}

static uint64_t orphan(unsigned class, unsigned n_objects)
{
	uint64_t page = get_span(keeper, slot, class).page;

	take_objects(page, n_objects);
	CU_ASSERT_EQUAL(put_span(keeper, slot, page), 0);
	return page;
}

static void same_status(const struct tgd_heap_status *before)
{
	struct tgd_heap_status after = status();

	CU_ASSERT_EQUAL(after.base, before->base);
	CU_ASSERT_EQUAL(after.limit_bytes, before->limit_bytes);
	CU_ASSERT_EQUAL(after.span_bytes, before->span_bytes);
	CU_ASSERT_EQUAL(after.clients, before->clients);
	CU_ASSERT_EQUAL(after.dead_clients, before->dead_clients);
	CU_ASSERT_EQUAL(after.recovered_clients, before->recovered_clients);
	CU_ASSERT_EQUAL(after.slots, before->slots);
	CU_ASSERT_EQUAL(after.spans, before->spans);
	CU_ASSERT_EQUAL(after.orphan_spans, before->orphan_spans);
	CU_ASSERT_EQUAL(after.roots, before->roots);
	CU_ASSERT(after.resident_bytes <= before->resident_bytes);
}

/* ---- as it was ---- */

static void spans_of_all_kinds_are_as_they_were(void)
{
	struct tgd_heap_status before;
	struct tgd_check counted;
	uint64_t entries[8192], page;

	fill(keeper, slot);
	fill(reclaimer, thread);
	(void)orphan(SPARSE, 3);
	(void)orphan(SPARSE, tgs_classes[SPARSE].n_slots);
	(void)orphan(TGS_CLASS_TINY, 40);
	(void)orphan(WIDE, 1);
	/* This fills the holes of the map. */
	for (page = 0; page < 8192; page++)
		entries[page] = *entry(page);
	before = status();
	counted = checked();
	take_over();
	same_status(&before);
	CU_ASSERT_EQUAL(checked().objects, counted.objects);
	CU_ASSERT_EQUAL(checked().object_bytes, counted.object_bytes);
	CU_ASSERT_EQUAL(checked().published, counted.published);
	for (page = 0; page < 8192; page++)
		CU_ASSERT_EQUAL(*entry(page), entries[page]);
	CU_ASSERT_EQUAL(header()->daemon_epoch, 2);
}

static void an_empty_heap_is_taken_over_too(void)
{
	end_heap();
	start_heap(1024 * (uint64_t)MIB, 77 * MIB);
	take_over();
	CU_ASSERT_EQUAL(status().limit_bytes, 77 * MIB);
	CU_ASSERT_EQUAL(status().clients, 0);
	take_over();
	CU_ASSERT_EQUAL(header()->daemon_epoch, 3);
	keeper = add_client(0);
	(void)get_span(keeper, open_slot(keeper), DENSE);
}

static void clients_keep_their_ids_and_ended_ids_do_not_come_back(void)
{
	struct tgd_client_info before, after;
	uint32_t ended = add_client(0), next;

	fill(reclaimer, thread);
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, ended), 0);
	work(10);
	CU_ASSERT_EQUAL(tgd_heap_client_get(heap, reclaimer, &before), 0);
	take_over();
	CU_ASSERT_EQUAL(tgd_heap_client_get(heap, reclaimer, &after), 0);
	CU_ASSERT_EQUAL(memcmp(&before, &after, sizeof(before)), 0);
	CU_ASSERT(tgd_heap_client_after(heap, 0, &after));
	CU_ASSERT_EQUAL(after.id, keeper);
	CU_ASSERT(tgd_heap_client_after(heap, keeper, &after));
	CU_ASSERT_EQUAL(after.id, reclaimer);
	CU_ASSERT_FALSE(tgd_heap_client_after(heap, reclaimer, &after));
	CU_ASSERT_EQUAL(tgd_heap_client_get(heap, ended, &after), -ENOENT);
	next = add_client(0);
	CU_ASSERT_NOT_EQUAL(next, ended);
	CU_ASSERT_EQUAL(next % TGS_CLIENTS_MAX, ended % TGS_CLIENTS_MAX);
	CU_ASSERT_EQUAL(status().recovered_clients, 1);
}

static void the_dead_are_settled_by_the_next_daemon(void)
{
	uint64_t page, theirs;
	uint32_t third = add_client(0);
	unsigned their_slot = open_slot(third);

	theirs = get_span(third, their_slot, DENSE).page;
	take_objects(theirs, 3);
	page = get_span(keeper, slot, SPARSE).page;
	take_objects(page, 2);
	(void)buffer_free(slot, 7, theirs, 1);
	page = get_span(reclaimer, thread, SPARSE).page;
	take_objects(page, 4);
	publish(page, 2);
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, keeper), 0);
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, reclaimer), 0);
	take_over();
	CU_ASSERT_EQUAL(status().dead_clients, 2);
	CU_ASSERT_EQUAL(status().clients, 1);
	work(100);
	CU_ASSERT_EQUAL(status().recovered_clients, 2);
	CU_ASSERT_EQUAL(status().slots, 1);
	/* Two of theirs, the keeper's two, the reclaimer's one. */
	CU_ASSERT_EQUAL(checked().objects, 5);
	take_over();
	CU_ASSERT_EQUAL(status().recovered_clients, 2);
	CU_ASSERT_EQUAL(checked().objects, 5);
}

static void who_said_goodbye_is_not_counted_as_recovered(void)
{
	CU_ASSERT_EQUAL(tgd_heap_client_detach(heap, keeper), 0);
	take_over();
	CU_ASSERT_EQUAL(status().dead_clients, 1);
	work(10);
	CU_ASSERT_EQUAL(status().dead_clients, 0);
	CU_ASSERT_EQUAL(status().recovered_clients, 0);
}

static void a_closet_is_a_closet_again(void)
{
	uint64_t page = get_span(reclaimer, thread, SPARSE).page;
	unsigned closet;

	take_objects(page, 3);
	CU_ASSERT_EQUAL(put_span(reclaimer, thread, page), 0);
	closet = owner_of(page);
	CU_ASSERT_NOT_EQUAL(closet, TGS_SLOT_CENTRAL);
	take_over();
	CU_ASSERT_EQUAL(owner_of(page), closet);
	CU_ASSERT_EQUAL(status().slots, 2);
	CU_ASSERT_EQUAL(tgd_heap_close_slot(heap, reclaimer, closet), -EINVAL);
	CU_ASSERT_EQUAL(get_span(reclaimer, thread, SPARSE).page, page);
	CU_ASSERT_EQUAL(put_span(reclaimer, thread, page), 0);
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, reclaimer), 0);
	work(10);
	CU_ASSERT_EQUAL(status().spans, 0);
}

static void a_free_whose_hint_was_lost_is_harvested(void)
{
	uint64_t page = orphan(SPARSE, 2), in_closet = get_span(reclaimer, thread, DENSE).page;
	unsigned closet, i;

	take_objects(in_closet, 1);
	CU_ASSERT_EQUAL(put_span(reclaimer, thread, in_closet), 0);
	closet = owner_of(in_closet);
	remote_free(slot, page, 0);
	remote_free(slot, page, 1);
	remote_free(slot, in_closet, 0);
	view->dirty[page / 64] = 0;
	for (i = 0; i < TGS_DIRTY_BITS / 64; i++)
		view->slots[closet].dirty[i] = 0;
	CU_ASSERT_EQUAL(status().spans, 2);
	take_over();
	CU_ASSERT_EQUAL(status().spans, 0);
	CU_ASSERT_EQUAL(status().span_bytes, 0);
}

static void central_knows_again_which_spans_have_room(void)
{
	uint64_t with_room;

	(void)orphan(SPARSE, tgs_classes[SPARSE].n_slots);
	with_room = orphan(SPARSE, 3);
	take_over();
	CU_ASSERT_EQUAL(heap->lease.partial[SPARSE].n_spans, 1);
	CU_ASSERT_EQUAL(heap->lease.full[SPARSE].n_spans, 1);
	CU_ASSERT_EQUAL(get_span(keeper, slot, SPARSE).page, with_room);
}

static void idle_memory_goes_back_and_what_is_granted_is_zero(void)
{
	uint64_t wall = get_large(keeper, slot, 50).page, bytes, i, sum = 0;
	uint64_t used = get_large(keeper, slot, 50).page;
	struct tgd_grant grant;

	memset(tgs_page_address(view, used), 7, 50 * PAGE);
	CU_ASSERT_EQUAL(put_span(keeper, slot, used), 0);
	memset(tgs_page_address(view, wall), 7, 50 * PAGE);
	CU_ASSERT_EQUAL(status().idle_bytes, 50 * PAGE);
	bytes = status().resident_bytes;
	take_over();
	CU_ASSERT_EQUAL(status().idle_bytes, 0);
	CU_ASSERT_EQUAL(status().scavenged_bytes, 50 * PAGE);
	/* Its record's block goes, too: the other's lies 50 records before it. */
	CU_ASSERT_EQUAL(status().resident_bytes, bytes - 50 * PAGE - TGS_OS_PAGE);
	grant = get_large(keeper, slot, 50);
	CU_ASSERT_EQUAL(grant.page, used);
	CU_ASSERT(grant.zero);
	for (i = 0; i < 50 * PAGE; i++) {
		sum += tgs_page_address(view, used)[i];
		CU_ASSERT_EQUAL_FATAL(tgs_page_address(view, wall)[i], 7);
	}
	CU_ASSERT_EQUAL(sum, 0);
	CU_ASSERT_EQUAL(put_span(keeper, slot, wall), 0);
	CU_ASSERT_FALSE(get_large(keeper, slot, 50).zero);
}

static void roots_limit_and_totals_are_kept(void)
{
	uint64_t page = get_span(keeper, slot, SPARSE).page;
	struct tgd_root_info info;
	uint64_t scavenged;

	take_objects(page, 2);
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "first", ref_of(page, 0), false, 0), 0);
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "gone", ref_of(page, 0), false, 0), 0);
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "last", ref_of(page, 1), false, 0), 0);
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "gone", 0, false, 0), 0);
	CU_ASSERT_EQUAL(tgd_heap_set_limit(heap, 30 * MIB), 0);
	CU_ASSERT_EQUAL(put_span(keeper, slot, get_large(keeper, slot, 9).page), 0);
	CU_ASSERT(tgd_heap_trim(heap) >= 9 * PAGE);
	scavenged = status().scavenged_bytes;
	take_over();
	CU_ASSERT_EQUAL(status().roots, 2);
	CU_ASSERT(tgd_heap_root_from(heap, 0, &info));
	CU_ASSERT_STRING_EQUAL(info.name, "first");
	CU_ASSERT_EQUAL(info.size, tgs_classes[SPARSE].size);
	CU_ASSERT(tgd_heap_root_from(heap, 1, &info));
	CU_ASSERT_STRING_EQUAL(info.name, "last");
	CU_ASSERT_EQUAL(info.ref, ref_of(page, 1));
	CU_ASSERT_EQUAL(status().limit_bytes, 30 * MIB);
	CU_ASSERT_EQUAL(status().scavenged_bytes, scavenged);
	CU_ASSERT_EQUAL(
		tgd_heap_get_large(heap, keeper, slot, 30 * MIB / PAGE, 0, &(struct tgd_grant){0}),
		-ENOMEM);
}

/* ---- what is asked after a restart ---- */

static void holdings_are_listed_piece_by_piece(void)
{
	enum { SPANS = 25 };
	uint64_t pages[8], after = 0, total, next, sum = 0, all = 0;
	unsigned n, i, pieces = 0, second = open_slot(reclaimer);

	for (i = 0; i < SPANS; i++)
		all += get_span(reclaimer, thread, i < 9 ? WIDE : DENSE).page;
	take_over();
	do {
		CU_ASSERT_EQUAL_FATAL(tgd_heap_holdings(heap, reclaimer, thread, after, pages, 8,
							&n, &total, &next),
				      0);
		CU_ASSERT_EQUAL(total, SPANS);
		for (i = 0; i < n; i++)
			sum += pages[i];
		after = next;
		pieces++;
	} while (after != 0 && pieces < 10);
	CU_ASSERT_EQUAL(pieces, 4);
	CU_ASSERT_EQUAL(sum, all);

	CU_ASSERT_EQUAL(tgd_heap_holdings(heap, reclaimer, 0, 0, pages, 1, &n, &total, &next), 0);
	CU_ASSERT_EQUAL(n, 1);
	CU_ASSERT_EQUAL(total, 2);
	CU_ASSERT_EQUAL(pages[0], thread);
	CU_ASSERT_EQUAL(tgd_heap_holdings(heap, reclaimer, 0, next, pages, 8, &n, &total, &next),
			0);
	CU_ASSERT_EQUAL(n, 1);
	CU_ASSERT_EQUAL(pages[0], second);
	CU_ASSERT_EQUAL(next, 0);
}

static void holdings_of_others_are_not_told(void)
{
	uint64_t page = get_span(keeper, slot, DENSE).page, pages[8], total, next;
	unsigned n, closet = heap->holders.table[reclaimer % TGS_CLIENTS_MAX].closet;

	CU_ASSERT_EQUAL(tgd_heap_holdings(heap, reclaimer, slot, 0, pages, 8, &n, &total, &next),
			-EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_holdings(heap, reclaimer, closet, 0, pages, 8, &n, &total, &next),
			-EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_holdings(heap, reclaimer, 99999, 0, pages, 8, &n, &total, &next),
			-EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_holdings(heap, 77, 0, 0, pages, 8, &n, &total, &next), -ENOENT);
	/* A place in somebody else's list, one that never was, no room. */
	CU_ASSERT_EQUAL(
		tgd_heap_holdings(heap, reclaimer, thread, page + 1, pages, 8, &n, &total, &next),
		-EINVAL);
	CU_ASSERT_EQUAL(
		tgd_heap_holdings(heap, keeper, slot, UINT64_MAX, pages, 8, &n, &total, &next),
		-EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_holdings(heap, keeper, slot, 0, pages, 0, &n, &total, &next),
			-EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_holdings(heap, reclaimer, thread, 0, pages, 8, &n, &total, &next),
			0);
	CU_ASSERT_EQUAL(n, 0);
	CU_ASSERT_EQUAL(total, 0);
	CU_ASSERT_EQUAL(next, 0);
}

static void a_root_set_twice_is_set_once(void)
{
	uint64_t page = get_span(keeper, slot, SPARSE).page, one, two;

	take_objects(page, 2);
	one = ref_of(page, 0);
	two = ref_of(page, 1);
	CU_ASSERT_EQUAL(tgd_heap_root_set_again(heap, "r", one, true, 0), 0);
	CU_ASSERT_EQUAL(tgd_heap_root_set_again(heap, "r", one, true, 0), 0);
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "r", one, true, 0), -EAGAIN);
	CU_ASSERT_EQUAL(tgd_heap_root_set_again(heap, "r", two, true, 0), -EAGAIN);
	CU_ASSERT_EQUAL(tgd_heap_root_set_again(heap, "r", two, true, one), 0);
	CU_ASSERT_EQUAL(tgd_heap_root_set_again(heap, "r", 0, false, 0), 0);
	CU_ASSERT_EQUAL(tgd_heap_root_set_again(heap, "r", 0, false, 0), 0);
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "r", 0, false, 0), -ENOENT);
	CU_ASSERT_EQUAL(tgd_heap_root_set_again(heap, "", 0, false, 0), -EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_root_set_again(heap, "r", 12345, false, 0), -EFAULT);
	CU_ASSERT_EQUAL(status().roots, 0);
}

static CU_TestInfo whole[] = {
	{"spans of all kinds are as they were", spans_of_all_kinds_are_as_they_were},
	{"an empty heap is taken over, too", an_empty_heap_is_taken_over_too},
	{"clients keep their ids, and ended ids do not come back",
	 clients_keep_their_ids_and_ended_ids_do_not_come_back},
	{"the dead are settled by the next daemon", the_dead_are_settled_by_the_next_daemon},
	{"who said goodbye is not counted as recovered",
	 who_said_goodbye_is_not_counted_as_recovered},
	{"a closet is a closet again", a_closet_is_a_closet_again},
	{"a free whose hint was lost is harvested", a_free_whose_hint_was_lost_is_harvested},
	{"central knows again which spans have room", central_knows_again_which_spans_have_room},
	{"idle memory goes back, and what is granted is zero",
	 idle_memory_goes_back_and_what_is_granted_is_zero},
	{"roots, limit and totals are kept", roots_limit_and_totals_are_kept},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo asked[] = {
	{"holdings are listed piece by piece", holdings_are_listed_piece_by_piece},
	{"holdings of others are not told", holdings_of_others_are_not_told},
	{"a root set twice is set once", a_root_set_twice_is_set_once},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"as it was", NULL, NULL, two_clients, tear_down, whole},
	{"asked after a restart", NULL, NULL, two_clients, tear_down, asked},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("takeover", suites);
}
