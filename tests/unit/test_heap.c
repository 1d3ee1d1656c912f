/* test_heap: a heap's life, its clients and slots, spans given and taken back, the limit, and
 * memory that fails.
 *
 * fallocate is wrapped by the linker, so that a test can let the n-th call fail as a machine
 * without memory does.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/heap.h"
#include "tests/support/runner.h"

int __real_fallocate(int fd, int mode, off_t at, off_t bytes);
int __wrap_fallocate(int fd, int mode, off_t at, off_t bytes);

static int calls_before_failure = -1; /* -1: none fails */
static bool fails_with_eintr_once;

int __wrap_fallocate(int fd, int mode, off_t at, off_t bytes)
{
	if (!(mode & FALLOC_FL_PUNCH_HOLE)) {
		if (fails_with_eintr_once) {
			fails_with_eintr_once = false;
			errno = EINTR;
			return -1;
		}
		if (calls_before_failure == 0) {
			errno = ENOSPC;
			return -1;
		}
		if (calls_before_failure > 0)
			calls_before_failure--;
	}
	return __real_fallocate(fd, mode, at, bytes);
}

static void small_heap(void)
{
	calls_before_failure = -1;
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
	view->slots[slot].tiny_offset = 9;
	view->slots[slot].dirty[3] = 5;
	CU_ASSERT_EQUAL(tgd_heap_close_slot(heap, client, slot), 0);
	CU_ASSERT_EQUAL(view->slots[slot].in_use, 0);
	CU_ASSERT_EQUAL(view->slot_owners[slot].client, 0);
	again = open_slot(client);
	CU_ASSERT_EQUAL(again, slot);
	CU_ASSERT_EQUAL(view->slots[slot].step.seq, 41);
	CU_ASSERT_EQUAL(view->slots[slot].mark, 40);
	CU_ASSERT_EQUAL(view->slots[slot].tiny_offset, 0);
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
	view->records[grant.page].unit.taken = UINT64_C(1) << 60;
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

/* ---- limit, memory ---- */

static void a_full_heap_refuses_and_is_usable_again(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), n;
	uint64_t half = get_large(client, slot, 4096).page;
	uint64_t rest = get_large(client, slot, 4096).page;
	struct tgd_grant grant;
	uint64_t epoch = view->map->trim_epoch;

	CU_ASSERT_EQUAL(status().free_bytes, 0);
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, 5, 1, &grant, &n), -ENOMEM);
	CU_ASSERT(strstr(tgd_heap_why(heap), "limit") != NULL);
	CU_ASSERT_EQUAL(tgd_heap_get_large(heap, client, slot, 5, 0, &grant), -ENOMEM);
	CU_ASSERT_EQUAL(status().refused, 2);
	CU_ASSERT(view->map->trim_epoch > epoch);
	CU_ASSERT_EQUAL(put_span(client, slot, half), 0);
	(void)get_span(client, slot, 5);
	CU_ASSERT_EQUAL(put_span(client, slot, rest), 0);
	CU_ASSERT_EQUAL(status().span_bytes, PAGE);
}

static void a_batch_near_the_limit_is_what_fits(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), n = 0;
	struct tgd_grant grant[16];

	CU_ASSERT_EQUAL(tgd_heap_set_limit(heap, 10 * PAGE), 0);
	/* Class 41 has 3 pages. */
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, 41, 16, grant, &n), 0);
	CU_ASSERT_EQUAL(n, 3);
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, 41, 16, grant, &n), -ENOMEM);
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, 5, 16, grant, &n), 0);
	CU_ASSERT_EQUAL(n, 1);
}

static void frees_by_others_make_room_before_a_refusal(void)
{
	uint32_t client = add_client(0), other = add_client(0);
	unsigned slot = open_slot(client), thread = open_slot(other), n;
	struct tgd_grant grant;
	uint64_t page;

	CU_ASSERT_EQUAL(tgd_heap_set_limit(heap, PAGE), 0);
	page = get_span(client, slot, 30).page;
	take_objects(page, 10);
	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	CU_ASSERT_EQUAL(owner_of(page), TGS_SLOT_CENTRAL);
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, other, thread, 5, 1, &grant, &n), -ENOMEM);
	for (n = 0; n < 10; n++)
		remote_free(thread, page, n);
	CU_ASSERT_EQUAL(get_span(other, thread, 5).page, page);
}

static void a_dead_clients_memory_is_there_before_a_refusal(void)
{
	uint32_t client = add_client(0), other = add_client(0);
	unsigned slot = open_slot(client), thread = open_slot(other);

	CU_ASSERT_EQUAL(tgd_heap_set_limit(heap, 100 * PAGE), 0);
	(void)get_large(client, slot, 100);
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, client), 0);
	(void)get_large(other, thread, 100);
}

static void a_limit_below_what_is_in_use_is_refused(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	uint64_t page = get_large(client, slot, 100).page;

	CU_ASSERT_EQUAL(tgd_heap_set_limit(heap, 99 * PAGE), -EBUSY);
	CU_ASSERT(strstr(tgd_heap_why(heap), "811008") != NULL);
	CU_ASSERT(strstr(tgd_heap_why(heap), "819200") != NULL);
	CU_ASSERT_EQUAL(tgd_heap_set_limit(heap, 0), -EINVAL);
	CU_ASSERT_EQUAL(tgd_heap_set_limit(heap, 64 * MIB + 1), -EINVAL);
	CU_ASSERT_EQUAL(status().limit_bytes, 64 * MIB);
	CU_ASSERT_EQUAL(tgd_heap_set_limit(heap, 100 * PAGE), 0);
	CU_ASSERT_EQUAL(view->map->limit_bytes, 100 * PAGE);
	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	/* Idle pages count against a limit that is set now. */
	CU_ASSERT_EQUAL(tgd_heap_set_limit(heap, 10 * PAGE), 0);
	CU_ASSERT_EQUAL(status().idle_bytes, 10 * PAGE);
}

static void a_failure_at_any_step_of_a_grant_leaves_nothing_behind(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), class, n;
	struct tgd_grant grant[8];
	uint64_t page = 0;
	int step, r = -1;

	for (class = 5; class <= TGS_CLASS_TINY; class += 63) {
		for (step = 0; step < 20; step++) {
			calls_before_failure = step;
			r = tgd_heap_get_spans(heap, client, slot, class, 8, grant, &n);
			calls_before_failure = -1;
			if (r == 0)
				break;
			CU_ASSERT_EQUAL(r, -ENOMEM);
			CU_ASSERT_EQUAL(status().span_bytes, 0);
			CU_ASSERT_EQUAL(status().idle_bytes, 0);
			(void)checked();
		}
		CU_ASSERT(step >= 1);
		CU_ASSERT_EQUAL(r, 0);
		for (; n > 0; n--)
			CU_ASSERT_EQUAL(put_span(client, slot, grant[n - 1].page), 0);
		(void)tgd_heap_trim(heap);
	}
	for (step = 0; step < 20; step++) {
		calls_before_failure = step;
		r = tgd_heap_get_large(heap, client, slot, 2000, 0, grant);
		calls_before_failure = -1;
		if (r == 0)
			break;
		(void)checked();
	}
	CU_ASSERT(step >= 1 && r == 0);
	page = grant[0].page;
	calls_before_failure = 0;
	CU_ASSERT_EQUAL(tgd_heap_resize(heap, client, slot, page, 4000, grant), -ENOMEM);
	CU_ASSERT_EQUAL(tgd_heap_open_slot(heap, client, &n), 0);
	CU_ASSERT_EQUAL(tgd_heap_open_slot(heap, client, &n), -ENOMEM);
	calls_before_failure = -1;
	CU_ASSERT_EQUAL(span_at(page).n_pages, 2000);
}

static void a_signal_during_fallocate_is_no_refusal(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);

	fails_with_eintr_once = true;
	(void)get_span(client, slot, 5);
	CU_ASSERT_FALSE(fails_with_eintr_once);
}

static void every_byte_that_a_client_may_touch_has_memory(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), class;
	struct stat before, after;

	for (class = 2; class <= TGS_CLASS_TINY; class ++) {
		uint64_t page = get_span(client, slot, class).page;
		unsigned n_slots = span_at(page).n_slots, i;

		CU_ASSERT_EQUAL(fstat(tgd_heap_heap_fd(heap), &before), 0);
		for (i = 0; i < n_slots; i++) {
			take_object(page, i);
			publish(page, i);
			remote_free(slot, page, i);
			tgs_page_address(view, page)[i * tgs_classes[class].size] = 1;
		}
		tgs_remote_notify(view, page);
		CU_ASSERT_EQUAL(fstat(tgd_heap_heap_fd(heap), &after), 0);
		CU_ASSERT_EQUAL(before.st_blocks, after.st_blocks);
	}
}

/* ---- tables ---- */

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
	(void)get_span(client, slot, 5);
	CU_ASSERT_EQUAL(tgd_heap_map(heap, 3, cell, &n_pages, &per_cell), 3);
	CU_ASSERT_EQUAL(n_pages, 24);
	CU_ASSERT_EQUAL(per_cell, 8);
	CU_ASSERT_EQUAL(cell[0].used, 1);
	CU_ASSERT_EQUAL(cell[0].class, 5);
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
	view->records[page].unit.taken = UINT64_C(1) << 40;
	view->records[gone].unit.taken = 1;
	view->records[gone].unit.published = 1;
	tgd_heap_check(heap, &check);
	CU_ASSERT_FALSE(check.ok);
	CU_ASSERT_EQUAL(check.n_errors, 2);
	CU_ASSERT(strstr(check.error[0], "no such slot") != NULL);
	CU_ASSERT(strstr(check.error[1], "has state") != NULL);
	view->records[page].unit.taken = 0;
	view->records[gone].unit.taken = 0;
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
	{"memory that was used is not called zero", memory_that_was_used_is_not_called_zero},
	{"spans that are not the slot's cannot be put", spans_that_are_not_the_slots_cannot_be_put},
	{"an empty span is free memory, whatever was scribbled there",
	 an_empty_span_is_free_memory_whatever_was_scribbled_there},
	{"large spans come whole, aligned, and go", large_spans_come_whole_aligned_and_go},
	{"a large span grows and shrinks where it stands",
	 a_large_span_grows_and_shrinks_where_it_stands},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo memory[] = {
	{"a full heap refuses, and is usable again", a_full_heap_refuses_and_is_usable_again},
	{"a batch near the limit is what fits", a_batch_near_the_limit_is_what_fits},
	{"frees by others make room before a refusal", frees_by_others_make_room_before_a_refusal},
	{"a dead client's memory is there before a refusal",
	 a_dead_clients_memory_is_there_before_a_refusal},
	{"a limit below what is in use is refused", a_limit_below_what_is_in_use_is_refused},
	{"a failure at any step of a grant leaves nothing behind",
	 a_failure_at_any_step_of_a_grant_leaves_nothing_behind},
	{"a signal during fallocate is no refusal", a_signal_during_fallocate_is_no_refusal},
	{"every byte that a client may touch has memory",
	 every_byte_that_a_client_may_touch_has_memory},
	CU_TEST_INFO_NULL,
};

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
	{"life", NULL, NULL, small_heap, end_heap, life},
	{"clients and slots", NULL, NULL, small_heap, end_heap, clients},
	{"spans", NULL, NULL, small_heap, end_heap, spans},
	{"limit and memory", NULL, NULL, small_heap, end_heap, memory},
	{"tables and check", NULL, NULL, small_heap, end_heap, tables},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("heap", suites);
}
