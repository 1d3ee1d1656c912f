/* test_takeover_half: what a daemon leaves that was killed in the middle of a change, made by
 * hand, is finished or undone. */
#include "tests/support/runner.h"
#include "tests/support/takeover.h"
#include "tests/support/taken.h"

/* 21760-byte objects: three in eight pages. */
enum { WIDE = 63, WIDE_PAGES = 8, SPARSE = 30, DENSE = 5 };

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

static unsigned closet_of(uint32_t client)
{
	return heap->holders.table[client % TGS_CLIENTS_MAX].closet;
}

/* ---- the page map ---- */

static void a_span_whose_last_entries_are_missing_ends(void)
{
	uint64_t page, n, wall, i;

	for (n = 1; n < WIDE_PAGES; n++) {
		struct tgd_heap_status before = status();

		page = get_span(keeper, slot, WIDE).page;
		wall = get_span(keeper, slot, DENSE).page;
		for (i = n; i < WIDE_PAGES; i++)
			*entry(page + i) = 0;
		take_over();
		CU_ASSERT_EQUAL(status().spans, before.spans + 1);
		CU_ASSERT_EQUAL(status().span_bytes, before.span_bytes + PAGE);
		for (i = 0; i < WIDE_PAGES; i++)
			CU_ASSERT_EQUAL(*entry(page + i), 0);
		CU_ASSERT_EQUAL(owner_of(wall), slot);
		/* Its pages are as good as new. */
		CU_ASSERT_EQUAL(get_span(keeper, slot, WIDE).page, page);
		CU_ASSERT_EQUAL(put_span(keeper, slot, page), 0);
	}
}

static void a_span_whose_owners_differ_has_arrived(void)
{
	unsigned from_to[][2] = {{0, TGS_SLOT_CENTRAL}, {TGS_SLOT_CENTRAL, 0}, {0, 0}};
	uint64_t page, n, i;
	size_t way;

	for (way = 0; way < 3; way++) {
		for (n = 1; n < WIDE_PAGES; n++) {
			unsigned from = from_to[way][0] ? from_to[way][0] : thread;
			unsigned to = from_to[way][1] ? from_to[way][1] : slot;

			page = get_span(keeper, slot, WIDE).page;
			take_object(page, 1);
			for (i = 0; i < WIDE_PAGES; i++)
				*entry(page + i) =
					tgs_entry_make(WIDE, i < n ? to : from, (unsigned)i, 0);
			take_over();
			for (i = 0; i < WIDE_PAGES; i++)
				CU_ASSERT_EQUAL(tgs_entry_owner(*entry(page + i)), to);
			CU_ASSERT_EQUAL(status().spans, 1);
			CU_ASSERT_EQUAL(status().orphan_spans, to == TGS_SLOT_CENTRAL);
			if (to == TGS_SLOT_CENTRAL) {
				CU_ASSERT_EQUAL(get_span(keeper, slot, WIDE).page, page);
			}
			drop_object(page, 1);
			CU_ASSERT_EQUAL(put_span(keeper, slot, page), 0);
		}
	}
}

static void an_empty_span_on_its_way_to_its_end_ends(void)
{
	uint64_t page = get_span(keeper, slot, WIDE).page, i;
	uint64_t closed = get_span(reclaimer, thread, DENSE).page;

	for (i = 0; i < WIDE_PAGES; i++)
		*entry(page + i) = tgs_entry_make(WIDE, TGS_SLOT_CENTRAL, (unsigned)i, 0);
	*entry(closed) = tgs_entry_make(DENSE, closet_of(reclaimer), 0, 0);
	take_over();
	CU_ASSERT_EQUAL(status().spans, 0);
}

static void published_objects_do_not_stay_in_a_closet(void)
{
	uint64_t page = get_span(reclaimer, thread, DENSE).page;

	take_object(page, 4);
	publish(page, 4);
	*entry(page) = tgs_entry_make(DENSE, closet_of(reclaimer), 0, 0) | TGS_ENTRY_MORE;
	take_over();
	CU_ASSERT_EQUAL(owner_of(page), TGS_SLOT_CENTRAL);
}

static void a_span_of_nobodys_slot_is_centrals(void)
{
	unsigned closed = open_slot(keeper);
	uint64_t page = get_span(keeper, slot, WIDE).page;
	uint64_t empty = get_span(keeper, slot, SPARSE).page, i;

	CU_ASSERT_EQUAL(tgd_heap_close_slot(heap, keeper, closed), 0);
	take_objects(page, 2);
	remote_free(thread, page, 1);
	for (i = 0; i < WIDE_PAGES; i++)
		*entry(page + i) = tgs_entry_make(WIDE, closed, (unsigned)i, 0);
	*entry(empty) = tgs_entry_make(SPARSE, closed, 0, 0);
	take_over();
	for (i = 0; i < WIDE_PAGES; i++)
		CU_ASSERT_EQUAL(tgs_entry_owner(*entry(page + i)), TGS_SLOT_CENTRAL);
	CU_ASSERT_EQUAL(status().spans, 1);
	CU_ASSERT_EQUAL(status().orphan_spans, 1);
	CU_ASSERT_EQUAL(tgs_remote_bits(view, TGS_SPARSE, page, 0), 0);
}

static void a_large_span_has_the_length_that_its_entry_says(void)
{
	uint64_t page = get_large(keeper, slot, 40).page;

	take_object(page, 0);
	/* It was being shortened: the entry is written, the pages are not free yet. */
	*entry(page) = tgs_entry_make(0, slot, 0, 10);
	take_over();
	CU_ASSERT_EQUAL(status().span_bytes, 10 * PAGE);
	CU_ASSERT_EQUAL(get_large(keeper, slot, 30).page, page + 10);
	/* It was ending. */
	*entry(page + 10) = 0;
	take_over();
	CU_ASSERT_EQUAL(status().span_bytes, 10 * PAGE);
	CU_ASSERT_EQUAL(status().spans, 1);
}

static void state_of_free_pages_is_cleared_also_between_others(void)
{
	uint64_t pages[12], i;
	const unsigned classes[] = {SPARSE, DENSE, TGS_CLASS_TINY};

	for (i = 0; i < 12; i++)
		pages[i] = get_span(keeper, slot, classes[i / 4]).page;
	for (i = 0; i < 12; i++) {
		unsigned kind = tgs_classes[classes[i / 4]].kind;

		if (i % 4 != 1 && i % 4 != 3)
			continue;
		CU_ASSERT_EQUAL(put_span(keeper, slot, pages[i]), 0);
		/* Somebody's late store. */
		tgt_make_taken(view, kind, pages[i], 0, 77);
		*tgs_remote_word(view, kind, pages[i], 0, 1) = 1;
		view->records[pages[i]].flags = 1;
	}
	take_over(); /* which checks it */
	CU_ASSERT_EQUAL(status().spans, 6);
	for (i = 0; i < 12; i++)
		CU_ASSERT(tgd_heap_get_spans(heap, keeper, slot, classes[i / 4], 1,
					     &(struct tgd_grant){0}, &(unsigned){0}) == 0);
}

/* ---- clients and slots ---- */

static void a_closet_of_a_client_that_was_not_entered_is_free(void)
{
	unsigned closet;
	uint32_t client = add_client(RECLAIM), next;

	closet = closet_of(client);
	view->slots[closet].pending[3].mask = 9;
	client_entry(client)->state = TGS_CLIENT_FREE;
	take_over();
	CU_ASSERT_EQUAL(status().clients, 2);
	CU_ASSERT_EQUAL(view->slot_owners[closet].client, 0);
	CU_ASSERT_EQUAL(view->slots[closet].in_use, 0);
	CU_ASSERT_EQUAL(view->slots[closet].pending[3].mask, 0);
	next = add_client(RECLAIM);
	CU_ASSERT_NOT_EQUAL(next, client);
	CU_ASSERT_EQUAL(closet_of(next), closet);
}

static void a_slot_half_opened_or_half_closed_is_its_clients(void)
{
	unsigned opened = open_slot(keeper);
	uint64_t pages[8], total, next;
	unsigned n;

	view->slots[opened].in_use = 0;
	take_over();
	CU_ASSERT_EQUAL(view->slots[opened].in_use, 1);
	CU_ASSERT_EQUAL(status().slots, 3);
	CU_ASSERT_EQUAL(tgd_heap_holdings(heap, keeper, 0, 0, pages, 8, &n, &total, &next), 0);
	CU_ASSERT_EQUAL(n, 2);
	CU_ASSERT_EQUAL(tgd_heap_close_slot(heap, keeper, opened), 0);
	/* Counted, and its owner not written yet. */
	opened = open_slot(keeper);
	slot_owner(opened)->client = 0;
	view->slots[opened].in_use = 0;
	take_over();
	CU_ASSERT_EQUAL(status().slots, 2);
	CU_ASSERT_EQUAL(open_slot(reclaimer), opened);
}

static void a_client_whose_end_was_not_entered_lives(void)
{
	struct tgd_client_info info;

	client_entry(keeper)->flags |= TGS_CLIENT_DETACHED;
	take_over();
	CU_ASSERT_EQUAL(tgd_heap_client_get(heap, keeper, &info), 0);
	CU_ASSERT_EQUAL(info.flags, 0);
	CU_ASSERT_EQUAL(client_entry(keeper)->flags, 0);
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, keeper), 0);
	work(10);
	CU_ASSERT_EQUAL(status().recovered_clients, 1);
}

static void a_dead_client_is_counted_once(void)
{
	uint32_t third = add_client(0);

	(void)open_slot(third);
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, keeper), 0);
	work(10);
	CU_ASSERT_EQUAL(status().recovered_clients, 1);
	/* Killed after it counted, before the entry was free. */
	client_entry(keeper)->state = TGS_CLIENT_DEAD;
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, third), 0);
	take_over();
	CU_ASSERT_EQUAL(status().dead_clients, 1);
	work(10);
	CU_ASSERT_EQUAL(status().recovered_clients, 2);
	/* Killed before it counted. */
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, reclaimer), 0);
	take_over();
	work(10);
	CU_ASSERT_EQUAL(status().recovered_clients, 3);
	CU_ASSERT_EQUAL(status().clients, 0);
	CU_ASSERT_EQUAL(status().slots, 0);
}

static void a_client_half_entered_is_nobody(void)
{
	uint32_t client = add_client(0), next;

	client_entry(client)->state = TGS_CLIENT_FREE;
	memset(client_entry(client)->name, 'x', TGS_HEAP_NAME_SIZE);
	client_entry(client)->flags = 0xffff;
	take_over();
	CU_ASSERT_EQUAL(status().clients, 2);
	next = add_client(0);
	CU_ASSERT_NOT_EQUAL(next, client);
	CU_ASSERT_EQUAL(next % TGS_CLIENTS_MAX, client % TGS_CLIENTS_MAX);
	CU_ASSERT_STRING_EQUAL(client_entry(next)->name, "tester");
}

/* ---- recovery ---- */

static void unpublished_objects_are_never_centrals(void)
{
	uint64_t page = get_span(reclaimer, thread, WIDE).page;

	take_objects(page, 3);
	publish(page, 1);
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, reclaimer), 0);
	/* The recoverer had killed them, and died before it moved the span. */
	tgt_make_taken(view, TGS_SPARSE, page, 0, 2);
	take_over();
	CU_ASSERT_EQUAL(owner_of(page), thread);
	work(10);
	CU_ASSERT_EQUAL(owner_of(page), TGS_SLOT_CENTRAL);
	CU_ASSERT_EQUAL(checked().objects, 1);
}

static void recovery_begun_by_one_is_ended_by_the_next(void)
{
	enum { SPANS = 900 };
	struct tgd_grant grant;
	unsigned i, daemons = 0;

	for (i = 0; i < SPANS; i++) {
		grant = get_span(reclaimer, thread, DENSE);
		take_objects(grant.page, 4);
		publish(grant.page, 2);
	}
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, reclaimer), 0);
	while (status().dead_clients > 0 && daemons < 50) {
		work(1);
		take_over();
		daemons++;
	}
	CU_ASSERT(daemons >= 4 && daemons < 50);
	CU_ASSERT_EQUAL(status().recovered_clients, 1);
	CU_ASSERT_EQUAL(checked().objects, SPANS);
	CU_ASSERT_EQUAL(status().orphan_spans, SPANS);
}

/* ---- roots ---- */

static uint64_t one_object(void)
{
	uint64_t page = get_span(keeper, slot, SPARSE).page;

	take_object(page, 0);
	return ref_of(page, 0);
}

static void a_root_whose_name_was_being_written_is_nobodys(void)
{
	uint64_t ref = one_object();

	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "first", ref, false, 0), 0);
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "second", ref, false, 0), 0);
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "first", 0, false, 0), 0);
	root(0)->generation++;
	strcpy(root(0)->name, "thi");
	take_over();
	CU_ASSERT_EQUAL(root(0)->generation % 2, 0);
	CU_ASSERT_EQUAL(root(0)->ref, 0);
	CU_ASSERT_EQUAL(status().roots, 1);
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "thi", 0, false, 0), -ENOENT);
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "third", ref, true, 0), 0);
	CU_ASSERT_EQUAL(root(0)->generation % 2, 0);
	CU_ASSERT_STRING_EQUAL(root(0)->name, "third");
}

static void a_root_that_was_not_counted_is_none(void)
{
	uint64_t ref = one_object();

	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "first", ref, false, 0), 0);
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "second", ref, false, 0), 0);
	header()->n_roots = 1;
	take_over();
	CU_ASSERT_EQUAL(status().roots, 1);
	CU_ASSERT_EQUAL(root(1)->ref, 0);
	CU_ASSERT_EQUAL(tgd_heap_root_set_again(heap, "second", ref, true, 0), 0);
	/* Its name was being written, too. */
	header()->n_roots = 1;
	root(1)->ref = 0;
	root(1)->generation++;
	take_over();
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "second", ref, true, 0), 0);
	CU_ASSERT_EQUAL(root(1)->generation % 2, 0);
	CU_ASSERT_EQUAL(header()->n_roots, 2);
}

static void a_root_that_was_being_set_leads_to_a_published_object(void)
{
	uint64_t ref = one_object(), page = (ref - view->geometry.data_at) / PAGE;
	uint64_t other = one_object();

	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "root", ref, false, 0), 0);
	/* Killed when the root was there and its object not published yet; and before the root. */
	*tgs_published_word(view, TGS_SPARSE, page, 0) = 0;
	header()->rooting = ref;
	take_over();
	CU_ASSERT_EQUAL(*tgs_published_word(view, TGS_SPARSE, page, 0), 1);
	CU_ASSERT_EQUAL(header()->rooting, 0);
	header()->rooting = other;
	take_over();
	CU_ASSERT_EQUAL(checked().published, 1);
	CU_ASSERT_EQUAL(header()->rooting, 0);
}

static void an_entry_of_which_half_was_never_written_is_written_whole(void)
{
	uint64_t ref = one_object(), i = 0;
	char name[32];

	/* The first entry that lies in two blocks. */
	while (view->geometry.roots_at % TGS_OS_PAGE + (i + 1) * sizeof(struct tgs_root) <=
	       TGS_OS_PAGE)
		i++;
	while (status().roots < i) {
		snprintf(name, sizeof(name), "root %llu", (unsigned long long)status().roots);
		CU_ASSERT_EQUAL_FATAL(tgd_heap_root_set(heap, name, ref, false, 0), 0);
	}
	root(i)->generation = 1;
	take_over();
	CU_ASSERT_EQUAL(status().roots, i);
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "torn", ref, false, 0), 0);
	CU_ASSERT_EQUAL(root(i)->generation % 2, 0);
	take_over();
	CU_ASSERT_EQUAL(status().roots, i + 1);
}

static CU_TestInfo map[] = {
	{"a span whose last entries are missing ends", a_span_whose_last_entries_are_missing_ends},
	{"a span whose owners differ has arrived", a_span_whose_owners_differ_has_arrived},
	{"an empty span on its way to its end ends", an_empty_span_on_its_way_to_its_end_ends},
	{"published objects do not stay in a closet", published_objects_do_not_stay_in_a_closet},
	{"a span of nobody's slot is central's", a_span_of_nobodys_slot_is_centrals},
	{"a large span has the length that its entry says",
	 a_large_span_has_the_length_that_its_entry_says},
	{"state of free pages is cleared, also between others",
	 state_of_free_pages_is_cleared_also_between_others},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo clients[] = {
	{"a closet of a client that was not entered is free",
	 a_closet_of_a_client_that_was_not_entered_is_free},
	{"a slot half opened or half closed is its client's",
	 a_slot_half_opened_or_half_closed_is_its_clients},
	{"a client whose end was not entered lives", a_client_whose_end_was_not_entered_lives},
	{"a dead client is counted once", a_dead_client_is_counted_once},
	{"a client half entered is nobody", a_client_half_entered_is_nobody},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo recovery[] = {
	{"unpublished objects are never central's", unpublished_objects_are_never_centrals},
	{"recovery begun by one is ended by the next", recovery_begun_by_one_is_ended_by_the_next},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo roots[] = {
	{"a root whose name was being written is nobody's",
	 a_root_whose_name_was_being_written_is_nobodys},
	{"a root that was not counted is none", a_root_that_was_not_counted_is_none},
	{"a root that was being set leads to a published object",
	 a_root_that_was_being_set_leads_to_a_published_object},
	{"an entry of which half was never written is written whole",
	 an_entry_of_which_half_was_never_written_is_written_whole},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"page map", NULL, NULL, two_clients, end_heap, map},
	{"clients and slots", NULL, NULL, two_clients, end_heap, clients},
	{"recovery", NULL, NULL, two_clients, end_heap, recovery},
	{"roots", NULL, NULL, two_clients, end_heap, roots},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("takeover_half", suites);
}
