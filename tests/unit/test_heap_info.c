/* test_heap_info: the tables that tgctl shows, and the check, also after random steps. */
#include <string.h>

#include "tests/support/heap.h"
#include "tests/support/runner.h"

static void small_heap(void)
{
	start_heap(64 * MIB, 0);
}

static void classes_and_spans_count_objects(void)
{
	static struct tgd_class_info classes[TGS_CLASSES_ALL];
	uint32_t client = add_client(0), other = add_client(0);
	unsigned slot = open_slot(client), thread = open_slot(other);
	uint64_t page = get_span(client, slot, 30).page, large = get_large(client, slot, 9).page;
	struct tgd_span_info info;

	take_objects(page, 5);
	remote_free(thread, page, 1);
	take_object(large, 0);
	tgd_heap_classes(heap, classes);
	CU_ASSERT_EQUAL(classes[30].spans, 1);
	CU_ASSERT_EQUAL(classes[30].objects, 4);
	CU_ASSERT_EQUAL(classes[30].slots, 10);
	CU_ASSERT_EQUAL(classes[30].object_bytes, 4 * 768);
	CU_ASSERT_EQUAL(classes[0].object_bytes, 9 * PAGE);
	CU_ASSERT_EQUAL(classes[0].span_bytes, 9 * PAGE);
	CU_ASSERT(tgd_heap_span_from(heap, 0, &info));
	CU_ASSERT_EQUAL(info.page, page);
	CU_ASSERT_EQUAL(info.objects, 4);
	CU_ASSERT_EQUAL(info.remote, 1);
	CU_ASSERT_EQUAL(info.client_id, client);
	CU_ASSERT(tgd_heap_span_from(heap, page + 1, &info));
	CU_ASSERT_EQUAL(info.page, large);
	CU_ASSERT_EQUAL(info.n_pages, 9);
	CU_ASSERT_FALSE(tgd_heap_span_from(heap, large + 1, &info));
}

static void the_map_shows_used_idle_and_returned_pages(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	uint64_t first = get_large(client, slot, 10).page, n_pages, per_cell;
	uint64_t second = get_large(client, slot, 10).page, last = get_large(client, slot, 4).page;
	struct tgd_map_cell cell[8];

	(void)last;
	CU_ASSERT_EQUAL(put_span(client, slot, first), 0);
	(void)tgd_heap_trim(heap);
	CU_ASSERT_EQUAL(put_span(client, slot, second), 0);
	(void)get_span(client, slot, 30);
	CU_ASSERT_EQUAL(tgd_heap_map(heap, 3, cell, &n_pages, &per_cell), 3);
	CU_ASSERT_EQUAL(n_pages, 24);
	CU_ASSERT_EQUAL(per_cell, 8);
	CU_ASSERT_EQUAL(cell[0].used, 1);
	CU_ASSERT_EQUAL(cell[0].class, 30);
	CU_ASSERT_EQUAL(cell[0].returned, 7);
	CU_ASSERT_EQUAL(cell[1].returned, 2);
	CU_ASSERT_EQUAL(cell[1].idle, 6);
	CU_ASSERT_EQUAL(cell[2].idle, 4);
	CU_ASSERT_EQUAL(cell[2].used, 4);
	CU_ASSERT_EQUAL(cell[2].class, 0);
}

static void the_check_finds_damage(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	uint64_t page = get_span(client, slot, 30).page, gone = get_span(client, slot, 30).page;
	struct tgd_check check;

	CU_ASSERT_EQUAL(put_span(client, slot, gone), 0);
	view->records[page].taken[40] = TGS_TAKEN;
	view->records[gone].taken[0] = TGS_TAKEN;
	view->records[gone].unit.published = 1;
	tgd_heap_check(heap, &check);
	CU_ASSERT_FALSE(check.ok);
	CU_ASSERT_EQUAL(check.n_errors, 2);
	CU_ASSERT(strstr(check.error[0], "no such slot") != NULL);
	CU_ASSERT(strstr(check.error[1], "has state") != NULL);
	view->records[page].taken[40] = 0;
	view->records[gone].taken[0] = 0;
	view->records[gone].unit.published = 0;
}

static void more_errors_than_can_be_listed_are_counted(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), n = 0, i;
	struct tgd_grant grant[100];
	struct tgd_check check;

	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, 30, 100, grant, &n), 0);
	CU_ASSERT_EQUAL_FATAL(n, 100);
	for (i = 0; i < n; i++)
		view->records[grant[i].page].unit.published = 1;
	tgd_heap_check(heap, &check);
	CU_ASSERT_EQUAL(check.n_errors, TGD_CHECK_ERRORS);
	CU_ASSERT_EQUAL(check.more_errors, 100 - TGD_CHECK_ERRORS);
	for (i = 0; i < n; i++)
		view->records[grant[i].page].unit.published = 0;
}

/* Everything at once, for long enough to meet what nobody thought of.  The seed is fixed. */
static void ten_thousand_random_steps_leave_the_books_right(void)
{
	enum { SLOTS = 6, HELD = 400 };
	struct {
		uint64_t page;
		unsigned slot;
	} held[HELD];
	uint32_t client[2] = {add_client(0), add_client(RECLAIM)};
	unsigned slot[SLOTS], n_held = 0, i;
	uint64_t random = 88172645463325252u;

	for (i = 0; i < SLOTS; i++)
		slot[i] = open_slot(client[i % 2]);
	for (i = 0; i < 10000; i++) {
		unsigned s, what;
		struct tgd_grant grant;
		unsigned n;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		s = (unsigned)(random >> 8) % SLOTS;
		what = (unsigned)(random >> 20) % 8;
		if (what < 3 && n_held < HELD) {
			unsigned class = 2 + (unsigned)(random >> 30) % 67;

			if (tgd_heap_get_spans(heap, client[s % 2], slot[s], class, 1, &grant, &n) <
			    0)
				continue;
			for (n = 0; n < span_at(grant.page).n_slots; n += 1 + (unsigned)random % 7)
				take_object(grant.page, n);
			held[n_held].page = grant.page;
			held[n_held++].slot = s;
		} else if (what == 3 && n_held < HELD) {
			if (tgd_heap_get_large(heap, client[s % 2], slot[s],
					       1 + (random >> 40) % 200,
					       UINT64_C(1) << (random >> 50) % 8, &grant) < 0)
				continue;
			held[n_held].page = grant.page;
			held[n_held++].slot = s;
		} else if (n_held > 0) {
			unsigned k = (unsigned)(random >> 32) % n_held;
			struct tgs_span span = span_at(held[k].page);

			/* Half of the objects by others, all others by the owner, or none. */
			for (n = 0; what != 4 && n < span.n_slots; n++) {
				struct tgs_object object = {.span = span,
							    .index = n,
							    .unit = n / 64,
							    .bit = UINT64_C(1) << n % 64};

				if (!tgs_object_live(view, &object))
					continue;
				if (n % 2)
					remote_free(slot[s], span.page, n);
				else
					drop_object(span.page, n);
			}
			CU_ASSERT_EQUAL(
				put_span(client[held[k].slot % 2], slot[held[k].slot], span.page),
				0);
			held[k] = held[--n_held];
		}
		if (i % 64 == 0)
			work(1);
		if (i % 1000 == 0)
			(void)checked();
	}
	for (i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(tgd_heap_client_end(heap, client[i]), 0);
	work(100);
	CU_ASSERT_EQUAL(status().recovered_clients, 2);
}

static CU_TestInfo tables[] = {
	{"classes and spans count objects", classes_and_spans_count_objects},
	{"the map shows used, idle and returned pages", the_map_shows_used_idle_and_returned_pages},
	{"the check finds damage", the_check_finds_damage},
	{"more errors than can be listed are counted", more_errors_than_can_be_listed_are_counted},
	{"ten thousand random steps leave the books right",
	 ten_thousand_random_steps_leave_the_books_right},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"tables and check", NULL, NULL, small_heap, end_heap, tables},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("heap info", suites);
}
