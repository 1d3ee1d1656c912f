/* test_heap_memory: the limit, and memory that fails.
 *
 * fallocate is wrapped by the linker, so that a test can let the n-th call fail, as it does on a
 * machine without memory.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
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
	CU_ASSERT_EQUAL(tgd_heap_open_slot(heap, client, &n), -ENOMEM);
	calls_before_failure = -1;
	CU_ASSERT_EQUAL(span_at(page).n_pages, 2000);
}

static void spans_given_besides_are_what_fits(void)
{
	static const uint32_t classes[] = {5, 41, TGS_CLASS_TINY, 66};
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), n = 0, i;
	struct tgd_grant grant[4];
	int step;

	for (step = 0; step < 40 && n < 4; step++) {
		calls_before_failure = step;
		n = tgd_heap_get_one_each(heap, client, slot, classes, 4, grant);
		calls_before_failure = -1;
		CU_ASSERT_EQUAL(status().spans, n);
		(void)checked();
		for (i = 0; i < n; i++)
			CU_ASSERT_EQUAL(put_span(client, slot, grant[i].page), 0);
		(void)tgd_heap_trim(heap);
	}
	CU_ASSERT(step > 3 && n == 4);
	/* One page is missing for the last. */
	CU_ASSERT_EQUAL(tgd_heap_set_limit(heap, (1 + 3 + 1 + 7 - 1) * PAGE), 0);
	CU_ASSERT_EQUAL(tgd_heap_get_one_each(heap, client, slot, classes, 4, grant), 3);
}

static void a_grant_that_fails_half_way_gives_back_what_it_had_backed(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	uint64_t first = get_large(client, slot, 100).page,
		 kept = get_large(client, slot, 100).page;
	uint64_t last = get_large(client, slot, 100).page, resident;
	struct tgd_grant grant;

	/* Pages without memory on both sides of some with. */
	CU_ASSERT_EQUAL(put_span(client, slot, first), 0);
	CU_ASSERT_EQUAL(put_span(client, slot, last), 0);
	(void)tgd_heap_trim(heap);
	resident = status().resident_bytes;
	CU_ASSERT_EQUAL(put_span(client, slot, kept), 0);
	/* The record has its memory, and so has the first side; the second one fails. */
	calls_before_failure = 2;
	CU_ASSERT_EQUAL(tgd_heap_get_large(heap, client, slot, 300, 0, &grant), -ENOMEM);
	CU_ASSERT_EQUAL(calls_before_failure, 0);
	calls_before_failure = -1;
	/* The idle pages were given back, too, before the second try. */
	CU_ASSERT(status().resident_bytes <= resident - 100 * PAGE);
	CU_ASSERT_EQUAL(status().idle_bytes, 0);
	CU_ASSERT_EQUAL(get_large(client, slot, 300).page, first);
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

		/* But what has none before it is asked for. */
		back_state(page);
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

/* What nobody has written, also the kernel itself, is a hole to SEEK_DATA: it is cleared in a fault for each page. */
static void granted_memory_is_clear_before_it_is_touched(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	off_t at = (off_t)(view->geometry.data_at + get_large(client, slot, 1000).page * PAGE);

	CU_ASSERT_EQUAL(lseek(tgd_heap_heap_fd(heap), at, SEEK_DATA), at);
	CU_ASSERT_EQUAL(lseek(tgd_heap_heap_fd(heap), at, SEEK_HOLE), at + 1000 * (off_t)PAGE);
}

static void work_until_nothing_is_left(void)
{
	while (tgd_heap_work(heap, 1) == 0)
		;
}

static void memory_is_made_ahead_while_the_heap_grows(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	uint64_t page;

	page = get_large(client, slot, 2560).page;
	work_until_nothing_is_left();
	CU_ASSERT_EQUAL(status().idle_bytes, 2560 / 128 * PAGE);
	/* What is there is granted next, and made up for. */
	CU_ASSERT_EQUAL(get_large(client, slot, 5).page, page + 2560);
	CU_ASSERT_EQUAL(status().idle_bytes, 15 * PAGE);
	work_until_nothing_is_left();
	CU_ASSERT_EQUAL(status().idle_bytes, 2565 / 128 * PAGE);
	/* Pages that come back and are used again are no growth. */
	CU_ASSERT_EQUAL(put_span(client, slot, page + 2560), 0);
	CU_ASSERT_EQUAL(get_large(client, slot, 5).page, page + 2560);
	work_until_nothing_is_left();
	CU_ASSERT_EQUAL(status().idle_bytes, 2565 / 128 * PAGE);
}

static void memory_ahead_keeps_the_limit_and_needs_no_memory(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);

	(void)get_large(client, slot, 2560);
	calls_before_failure = 0;
	work_until_nothing_is_left();
	CU_ASSERT_EQUAL(status().idle_bytes, 0);
	calls_before_failure = -1;
	CU_ASSERT_EQUAL(tgd_heap_set_limit(heap, 2564 * PAGE), 0);
	(void)get_large(client, slot, 1);
	work_until_nothing_is_left();
	CU_ASSERT(status().span_bytes + status().idle_bytes <= 2564 * PAGE);
}

static CU_TestInfo memory[] = {
	{"a full heap refuses, and is usable again", a_full_heap_refuses_and_is_usable_again},
	{"a batch near the limit is what fits", a_batch_near_the_limit_is_what_fits},
	{"frees by others make room before a refusal", frees_by_others_make_room_before_a_refusal},
	{"a dead client's memory is there before a refusal",
	 a_dead_clients_memory_is_there_before_a_refusal},
	{"a limit below what is in use is refused", a_limit_below_what_is_in_use_is_refused},
	{"a failure at any step of a grant leaves nothing behind",
	 a_failure_at_any_step_of_a_grant_leaves_nothing_behind},
	{"spans given besides are what fits", spans_given_besides_are_what_fits},
	{"a grant that fails half way gives back what it had backed",
	 a_grant_that_fails_half_way_gives_back_what_it_had_backed},
	{"a signal during fallocate is no refusal", a_signal_during_fallocate_is_no_refusal},
	{"every byte that a client may touch has memory",
	 every_byte_that_a_client_may_touch_has_memory},
	{"granted memory is clear before it is touched",
	 granted_memory_is_clear_before_it_is_touched},
	{"memory is made ahead while the heap grows", memory_is_made_ahead_while_the_heap_grows},
	{"memory ahead keeps the limit and needs no memory",
	 memory_ahead_keeps_the_limit_and_needs_no_memory},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"limit and memory", NULL, NULL, small_heap, end_heap, memory},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("heap memory", suites);
}
