/* test_heap: a heap's life, its clients and slots, spans given and taken back. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "tests/support/heap.h"
#include "tests/support/runner.h"

static void small_heap(void)
{
	start_heap(64 * MIB, 0);
}

/* ---- life ---- */

static void a_new_heap_is_empty_and_backs_little(void)
{
	struct tgd_heap_status now = status();

	CU_ASSERT_EQUAL(now.reserve_bytes, 64 * MIB);
	CU_ASSERT_EQUAL(now.limit_bytes, 64 * MIB);
	CU_ASSERT_EQUAL(now.free_bytes, 64 * MIB);
	CU_ASSERT_EQUAL(now.span_bytes, 0);
	CU_ASSERT_EQUAL(now.spans, 0);
	CU_ASSERT(now.resident_bytes < MIB);
	CU_ASSERT_EQUAL(now.largest_free_run_bytes, 64 * MIB);
	CU_ASSERT_EQUAL((uintptr_t)view->base, now.base);
	CU_ASSERT_STRING_EQUAL(view->map->name, "test");
}

static void bad_options_are_refused_with_a_sentence(void)
{
	char long_name[65];
	struct tgd_heap_options bad[] = {
		{.name = "", .reserve_bytes = 64 * MIB},
		{.name = NULL, .reserve_bytes = 64 * MIB},
		{.name = long_name, .reserve_bytes = 64 * MIB},
		{.name = "x", .reserve_bytes = 1 * MIB},
		{.name = "x", .reserve_bytes = UINT64_MAX},
		{.name = "x", .reserve_bytes = 64 * MIB, .limit_bytes = 65 * MIB},
		{.name = "x", .reserve_bytes = 64 * MIB, .limit_bytes = 100},
		{.name = "x", .reserve_bytes = 64 * MIB, .base = 4096},
	};
	struct tgd_heap *none = NULL;
	char why[256];
	size_t i;

	memset(long_name, 'n', 64);
	long_name[64] = '\0';
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CU_ASSERT_EQUAL(tgd_heap_new(&none, &bad[i], why, sizeof(why)), -EINVAL);
		CU_ASSERT(strlen(why) > 10);
		CU_ASSERT_PTR_NULL(none);
	}
}

static void two_heaps_get_different_addresses(void)
{
	struct tgd_heap_options options = {.name = "other", .reserve_bytes = 64 * MIB};
	struct tgd_heap *other = NULL;
	char why[256];

	CU_ASSERT_EQUAL(tgd_heap_new(&other, &options, why, sizeof(why)), 0);
	CU_ASSERT_PTR_NOT_EQUAL(tgd_heap_view(other)->base, view->base);
	options.base = (uintptr_t)view->base;
	CU_ASSERT_PTR_NULL(tgd_heap_free(other));
	CU_ASSERT_EQUAL(tgd_heap_new(&other, &options, why, sizeof(why)), -EADDRINUSE);
}

static void the_map_cannot_be_written_through_what_clients_get(void)
{
	int fd = tgd_heap_map_fd_ro(heap);
	struct stat st;

	CU_ASSERT_EQUAL(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	CU_ASSERT_PTR_EQUAL(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
			    MAP_FAILED);
	CU_ASSERT_EQUAL(fstat(fd, &st), 0);
	CU_ASSERT_EQUAL(st.st_mode & 0222, 0);
	CU_ASSERT_EQUAL(fchmod(fd, st.st_mode & 0777), 0);
}

static void an_attached_process_sees_spans_through_its_own_mapping(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	struct tgd_grant grant = get_span(client, slot, 5);
	struct tgs_heap mine;
	struct tgs_span span;
	char why[256];

	CU_ASSERT_EQUAL_FATAL(tgs_region_map(&mine, tgd_heap_map_fd_ro(heap),
					     tgd_heap_heap_fd(heap), false, true, why, sizeof(why)),
			      0);
	CU_ASSERT(tgs_span_at(&mine, grant.page, &span));
	CU_ASSERT_EQUAL(span.class, 5);
	CU_ASSERT_EQUAL(span.owner, slot);
	CU_ASSERT_EQUAL(mine.slot_owners[slot].client, (client & (TGS_CLIENTS_MAX - 1)) + 1);
	*tgs_page_address(&mine, grant.page) = 7;
	CU_ASSERT_EQUAL(*tgs_page_address(view, grant.page), 7);
	tgs_region_unmap(&mine);
}

/* ---- clients and slots ---- */

static void an_id_never_means_another_client(void)
{
	uint32_t first = add_client(0), second;
	unsigned slot;

	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, first), 0);
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, first), -ENOENT);
	CU_ASSERT_EQUAL(tgd_heap_open_slot(heap, first, &slot), -ENOENT);
	CU_ASSERT(strlen(tgd_heap_why(heap)) > 10);
	work(10);
	second = add_client(0);
	CU_ASSERT_NOT_EQUAL(first, second);
	CU_ASSERT_EQUAL(first & (TGS_CLIENTS_MAX - 1), second & (TGS_CLIENTS_MAX - 1));
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, first), -ENOENT);
	CU_ASSERT_EQUAL(status().clients, 1);
}

static void clients_are_listed_with_what_they_hold(void)
{
	uint32_t first = add_client(0), second = add_client(RECLAIM);
	unsigned slot = open_slot(second);
	struct tgd_client_info info;

	(void)get_large(second, slot, 10);
	(void)get_span(second, slot, 20);
	CU_ASSERT(tgd_heap_client_after(heap, 0, &info));
	CU_ASSERT_EQUAL(info.id, first);
	CU_ASSERT_EQUAL(info.threads, 0);
	CU_ASSERT(tgd_heap_client_after(heap, first, &info));
	CU_ASSERT_EQUAL(info.id, second);
	CU_ASSERT_EQUAL(info.threads, 1);
	CU_ASSERT_EQUAL(info.spans, 2);
	CU_ASSERT_EQUAL(info.span_bytes, 11 * PAGE);
	CU_ASSERT_EQUAL(info.flags, RECLAIM);
	CU_ASSERT_STRING_EQUAL(info.name, "tester");
	CU_ASSERT_FALSE(info.dead);
	CU_ASSERT_FALSE(tgd_heap_client_after(heap, second, &info));
	CU_ASSERT_EQUAL(tgd_heap_client_get(heap, first, &info), 0);
	CU_ASSERT_EQUAL(tgd_heap_client_get(heap, first + TGS_CLIENTS_MAX, &info), -ENOENT);
}

static void unknown_flags_and_foreign_slots_are_refused(void)
{
	uint32_t client = add_client(0), other = add_client(RECLAIM), id;
	unsigned slot = open_slot(client), s, n;
	struct tgd_grant grant;

	CU_ASSERT_EQUAL(tgd_heap_client_add(heap, 1, 1, 1, 1, 2, "x", &id), -EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, other, slot, 5, 1, &grant, &n), -EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_close_slot(heap, other, slot), -EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, TGS_SLOT_CENTRAL, 5, 1, &grant, &n),
			-EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, 1u << 30, 5, 1, &grant, &n), -EINVAL);
	/* Not even the closet of a client's own is a slot to it. */
	for (s = 0; s < 10; s++)
		CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, other, s, 5, 1, &grant, &n), -EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, 0, 1, &grant, &n), -EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, 1, 1, &grant, &n), -EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, 69, 1, &grant, &n), -EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, 5, 0, &grant, &n), -EINVAL);
}

static void all_slots_can_be_used_and_then_used_again(void)
{
	uint32_t client = add_client(0);
	unsigned slot, n = 0;
	int r;

	while ((r = tgd_heap_open_slot(heap, client, &slot)) == 0)
		n++;
	CU_ASSERT_EQUAL(r, -EMFILE);
	CU_ASSERT_EQUAL(n, TGS_SLOTS_MAX - 2);
	CU_ASSERT_EQUAL(status().slots, TGS_SLOTS_MAX - 2);
	CU_ASSERT_EQUAL(tgd_heap_close_slot(heap, client, 77), 0);
	CU_ASSERT_EQUAL(tgd_heap_open_slot(heap, client, &slot), 0);
	CU_ASSERT_EQUAL(slot, 77);
}

static void a_slot_that_is_opened_again_goes_on_counting(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), again;

	view->slots[slot].step.seq = 41;
	view->slots[slot].mark = 40;
	view->slots[slot].tiny_left = 9;
	view->slots[slot].dirty[3] = 5;
	CU_ASSERT_EQUAL(tgd_heap_close_slot(heap, client, slot), 0);
	CU_ASSERT_EQUAL(view->slots[slot].in_use, 0);
	CU_ASSERT_EQUAL(view->slot_owners[slot].client, 0);
	again = open_slot(client);
	CU_ASSERT_EQUAL(again, slot);
	CU_ASSERT_EQUAL(view->slots[slot].step.seq, 41);
	CU_ASSERT_EQUAL(view->slots[slot].mark, 40);
	CU_ASSERT_EQUAL(view->slots[slot].tiny_left, 0);
	CU_ASSERT_EQUAL(view->slots[slot].dirty[3], 0);
	CU_ASSERT_EQUAL(view->slots[slot].in_use, 1);
}

/* ---- spans ---- */

static void a_span_of_every_class_is_whole_and_zero(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), class;
	uint64_t pages = 0, i;

	for (class = 2; class <= TGS_CLASS_TINY; class ++) {
		struct tgd_grant grant = get_span(client, slot, class);
		struct tgs_span span = span_at(grant.page);
		const uint8_t *bytes = tgs_page_address(view, grant.page);
		uint64_t sum = 0;

		CU_ASSERT_EQUAL(span.class, class);
		CU_ASSERT_EQUAL(span.owner, slot);
		CU_ASSERT_EQUAL(grant.free, class == TGS_CLASS_TINY ? 512 : span.n_slots);
		CU_ASSERT(grant.zero);
		for (i = 0; i < span.n_pages; i++)
			CU_ASSERT_EQUAL(tgs_entry_delta(tgs_page_entry(view, grant.page + i)), i);
		for (i = 0; i < span.n_pages * PAGE; i++)
			sum += bytes[i];
		CU_ASSERT_EQUAL(sum, 0);
		pages += span.n_pages;
	}
	CU_ASSERT_EQUAL(status().span_bytes, pages * PAGE);
	CU_ASSERT_EQUAL(status().spans, 67);
}

static void a_batch_lies_side_by_side(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), n = 0, i;
	struct tgd_grant grant[64];

	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, 41, 64, grant, &n), 0);
	CU_ASSERT_EQUAL(n, 64);
	for (i = 1; i < n; i++)
		CU_ASSERT_EQUAL(grant[i].page, grant[i - 1].page + tgs_classes[41].n_pages);
}

static void a_batch_fills_holes_first(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), n = 0, i;
	struct tgd_grant grant[64], again[64];

	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, 5, 64, grant, &n), 0);
	for (i = 0; i < 64; i += 2)
		CU_ASSERT_EQUAL(put_span(client, slot, grant[i].page), 0);
	/* No two holes lie side by side. */
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, 4, 40, again, &n), 0);
	CU_ASSERT_EQUAL(n, 40);
	for (i = 0; i < 32; i++)
		CU_ASSERT_EQUAL(again[i].page, grant[2 * i].page);
	for (; i < 40; i++)
		CU_ASSERT_EQUAL(again[i].page, grant[63].page + 1 + (i - 32));
}

static void one_of_each_class_is_given(void)
{
	static const uint32_t classes[] = {5, 41, 1, 66, TGS_CLASS_TINY, 69, 5};
	static const unsigned given[] = {5, 41, 66, TGS_CLASS_TINY, 5};
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), n, i;
	struct tgd_grant grant[7];
	uint64_t page;

	/* What central has comes from there. */
	page = get_span(client, slot, 41).page;
	take_objects(page, 1);
	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	n = tgd_heap_get_one_each(heap, client, slot, classes, 7, grant);
	CU_ASSERT_EQUAL_FATAL(n, 5);
	CU_ASSERT(grant[1].page == page && !grant[1].zero);
	for (i = 0; i < n; i++) {
		struct tgs_span span = span_at(grant[i].page);

		CU_ASSERT_EQUAL(grant[i].class, given[i]);
		CU_ASSERT(span.class == given[i] && span.owner == slot);
	}
	CU_ASSERT_EQUAL(tgd_heap_get_one_each(heap, client + 1, slot, classes, 7, grant), 0);
	(void)checked();
}

static void memory_that_was_used_is_not_called_zero(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	struct tgd_grant grant = get_span(client, slot, 10), again;

	CU_ASSERT(grant.zero);
	*tgs_page_address(view, grant.page) = 1;
	CU_ASSERT_EQUAL(put_span(client, slot, grant.page), 0);
	again = get_span(client, slot, 11);
	CU_ASSERT_EQUAL(again.page, grant.page);
	CU_ASSERT_FALSE(again.zero);
	CU_ASSERT_EQUAL(put_span(client, slot, again.page), 0);
	CU_ASSERT(tgd_heap_trim(heap) >= PAGE);
	again = get_span(client, slot, 11);
	CU_ASSERT_EQUAL(again.page, grant.page);
	CU_ASSERT(again.zero);
	CU_ASSERT_EQUAL(*tgs_page_address(view, again.page), 0);
}

static void spans_that_are_not_the_slots_cannot_be_put(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), other = open_slot(client);
	uint64_t mine = get_span(client, slot, 41).page, theirs = get_span(client, other, 5).page;
	uint64_t lists[][2] = {{mine, theirs}, {mine, mine},       {mine, mine + 1},
			       {mine, 8000},   {mine, UINT64_MAX}, {mine, UINT32_MAX}};
	size_t i;

	for (i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		CU_ASSERT_EQUAL(tgd_heap_put_spans(heap, client, slot, lists[i], 2), -EINVAL);
		CU_ASSERT_EQUAL(owner_of(mine), slot);
	}
	CU_ASSERT_EQUAL(owner_of(theirs), other);
	CU_ASSERT_EQUAL(put_span(client, slot, mine), 0);
	CU_ASSERT_EQUAL(put_span(client, slot, mine), -EINVAL);
}

static void an_empty_span_is_free_memory_whatever_was_scribbled_there(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	struct tgd_grant grant = get_span(client, slot, 30);

	/* Class 30 has 10 slots.  Bits of no slot, a published bit of nothing, a flag. */
	view->records[grant.page].taken[60] = TGS_TAKEN;
	view->records[grant.page].taken[3] = TGS_SPECIAL;
	view->records[grant.page].unit.published = 2;
	view->records[grant.page].flags = 1;
	CU_ASSERT_EQUAL(put_span(client, slot, grant.page), 0);
	CU_ASSERT_EQUAL(status().span_bytes, 0);
}

static void large_spans_come_whole_aligned_and_go(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	uint64_t align;
	struct tgd_grant grant;

	for (align = 1; align <= 2048; align *= 2) {
		CU_ASSERT_EQUAL(tgd_heap_get_large(heap, client, slot, 7, align, &grant), 0);
		CU_ASSERT_EQUAL((uintptr_t)tgs_page_address(view, grant.page) % (align * PAGE), 0);
		CU_ASSERT_EQUAL(span_at(grant.page).n_pages, 7);
		CU_ASSERT_EQUAL(span_at(grant.page).class, 0);
		CU_ASSERT_EQUAL(tgs_page_entry(view, grant.page + 1), 0);
		(void)checked();
	}
	CU_ASSERT_EQUAL(tgd_heap_get_large(heap, client, slot, 7, 3, &grant), -EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_get_large(heap, client, slot, 0, 1, &grant), -EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_get_large(heap, client, slot, UINT64_MAX, 1, &grant), -ENOMEM);
	CU_ASSERT_EQUAL(tgd_heap_get_large(heap, client, slot, 1, UINT64_C(1) << 63, &grant),
			-ENOMEM);
	CU_ASSERT_EQUAL(tgd_heap_close_slot(heap, client, slot), 0);
	CU_ASSERT_EQUAL(status().span_bytes, 0);
}

static void a_large_span_grows_and_shrinks_where_it_stands(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	uint64_t page = get_large(client, slot, 10).page, wall;
	struct tgd_grant grant;

	take_object(page, 0);
	CU_ASSERT_EQUAL(tgd_heap_resize(heap, client, slot, page, 30, &grant), 0);
	CU_ASSERT(grant.zero);
	CU_ASSERT_EQUAL(span_at(page).n_pages, 30);
	CU_ASSERT_EQUAL(tgd_heap_resize(heap, client, slot, page, 12, &grant), 0);
	CU_ASSERT_EQUAL(status().span_bytes, 12 * PAGE);
	wall = get_large(client, slot, 1).page;
	CU_ASSERT_EQUAL(wall, page + 12);
	CU_ASSERT_EQUAL(tgd_heap_resize(heap, client, slot, page, 13, &grant), -ENOMEM);
	CU_ASSERT_EQUAL(span_at(page).n_pages, 12);
	CU_ASSERT_EQUAL(put_span(client, slot, wall), 0);
	CU_ASSERT_EQUAL(tgd_heap_resize(heap, client, slot, page, 13, &grant), 0);
	CU_ASSERT_FALSE(grant.zero);
	CU_ASSERT_EQUAL(tgd_heap_resize(heap, client, slot, page, 0, &grant), -EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_resize(heap, client, slot, page + 1, 5, &grant), -EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_resize(heap, client, slot, page, UINT64_MAX, &grant), -ENOMEM);
	CU_ASSERT_EQUAL(tgd_heap_resize(heap, client, slot, page, 100000, &grant), -ENOMEM);
	drop_object(page, 0);
	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
}

static CU_TestInfo life[] = {
	{"a new heap is empty and backs little", a_new_heap_is_empty_and_backs_little},
	{"bad options are refused with a sentence", bad_options_are_refused_with_a_sentence},
	{"two heaps get different addresses", two_heaps_get_different_addresses},
	{"the map cannot be written through what clients get",
	 the_map_cannot_be_written_through_what_clients_get},
	{"an attached process sees spans through its own mapping",
	 an_attached_process_sees_spans_through_its_own_mapping},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo clients[] = {
	{"an id never means another client", an_id_never_means_another_client},
	{"clients are listed with what they hold", clients_are_listed_with_what_they_hold},
	{"unknown flags and foreign slots are refused",
	 unknown_flags_and_foreign_slots_are_refused},
	{"all slots can be used, and then used again", all_slots_can_be_used_and_then_used_again},
	{"a slot that is opened again goes on counting",
	 a_slot_that_is_opened_again_goes_on_counting},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo spans[] = {
	{"a span of every class is whole and zero", a_span_of_every_class_is_whole_and_zero},
	{"a batch lies side by side", a_batch_lies_side_by_side},
	{"a batch fills the holes first", a_batch_fills_holes_first},
	{"one of each class is given", one_of_each_class_is_given},
	{"memory that was used is not called zero", memory_that_was_used_is_not_called_zero},
	{"spans that are not the slot's cannot be put", spans_that_are_not_the_slots_cannot_be_put},
	{"an empty span is free memory, whatever was scribbled there",
	 an_empty_span_is_free_memory_whatever_was_scribbled_there},
	{"large spans come whole, aligned, and go", large_spans_come_whole_aligned_and_go},
	{"a large span grows and shrinks where it stands",
	 a_large_span_grows_and_shrinks_where_it_stands},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"life", NULL, NULL, small_heap, end_heap, life},
	{"clients and slots", NULL, NULL, small_heap, end_heap, clients},
	{"spans", NULL, NULL, small_heap, end_heap, spans},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("heap", suites);
}
