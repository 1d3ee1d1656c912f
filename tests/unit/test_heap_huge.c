/* test_heap_huge: which memory of a heap is made in pages of 2 MiB, and what happens when it cannot be.
 *
 * madvise is wrapped by the linker, so that a test can count its calls and let them fail or take long, and so that these
 * tests run where the kernel makes no huge pages on request; so is the clock, which stands still unless a test moves it.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "daemon/backing.h"
#include "tests/support/heap.h"
#include "tests/support/runner.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define PIECE ((int)TGD_HUGE_PAGES)

int __real_madvise(void *p, size_t bytes, int advice);
int __wrap_madvise(void *p, size_t bytes, int advice);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);

static unsigned n_calls;
static int fails_with;
static uint64_t takes_ns, now_ns;

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	(void)clock;
	ret->tv_sec = (time_t)(now_ns / 1000000000);
	ret->tv_nsec = (long)(now_ns % 1000000000);
	return 0;
}

/* Where the kernel does not know how, the holes are filled by fallocate: that is all a heap can see of it. */
int __wrap_madvise(void *p, size_t bytes, int advice)
{
	off_t at;

	if (advice != MADV_COLLAPSE)
		return __real_madvise(p, bytes, advice);
	at = (uint8_t *)p - view->base;
	n_calls++;
	now_ns += takes_ns;
	CU_ASSERT_EQUAL(bytes, TGD_HUGE_BYTES);
	CU_ASSERT_EQUAL((uintptr_t)p % TGD_HUGE_BYTES, 0);
	CU_ASSERT_EQUAL((uint64_t)at % TGD_HUGE_BYTES, 0);
	if (fails_with != 0) {
		errno = fails_with;
		return -1;
	}
	if (__real_madvise(p, bytes, advice) == 0)
		return 0;
	return fallocate(tgd_heap_heap_fd(heap), FALLOC_FL_KEEP_SIZE, at, (off_t)bytes);
}

static void start(uint64_t reserve, enum tgd_huge_mode mode)
{
	n_calls = 0;
	fails_with = 0;
	takes_ns = 0;
	now_ns = 1000000000;
	start_heap(reserve, 0);
	tgd_heap_set_huge(heap, mode);
}

static void automatic(void)
{
	start(256 * MIB, TGD_HUGE_AUTO);
}

static void work_until_nothing_is_left(void)
{
	while (tgd_heap_work(heap, 1) == 0)
		;
}

static bool is_zero(uint64_t page, uint64_t n_pages)
{
	const uint8_t *p = tgs_page_address(view, page);
	uint64_t i;

	for (i = 0; i < n_pages * PAGE; i++) {
		if (p[i] != 0)
			return false;
	}
	return true;
}

static void what_is_asked_for_in_one_has_its_pieces_as_huge_pages(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	struct tgd_grant grant;
	uint64_t before;

	(void)get_large(client, slot, 10);
	before = status().resident_bytes;
	CU_ASSERT_EQUAL(status().huge_bytes, 0);
	/* Pages 10 to 1000: the pieces at 256 and 512 lie in it, and half of the one at 768. */
	grant = get_large(client, slot, 990);
	CU_ASSERT_EQUAL(grant.page, 10);
	CU_ASSERT(grant.zero);
	CU_ASSERT(is_zero(10, 990));
	CU_ASSERT_EQUAL(status().huge_bytes, 2 * TGD_HUGE_BYTES);
	CU_ASSERT_EQUAL(status().idle_bytes, 0);
	/* And its part of the page map. */
	CU_ASSERT(status().resident_bytes >= before + 990 * PAGE);
	CU_ASSERT(status().resident_bytes <= before + 990 * PAGE + 3 * 4096);
}

/* Pages that this process has mapped of memory that it shares. */
static long mapped(void)
{
	FILE *file = fopen("/proc/self/statm", "re");
	long shared = 0;

	CU_ASSERT_PTR_NOT_NULL_FATAL(file);
	CU_ASSERT_EQUAL(fscanf(file, "%*d %*d %ld", &shared), 1);
	fclose(file);
	return shared;
}

static void the_daemon_does_not_keep_them_mapped(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	long before = mapped();

	(void)get_large(client, slot, 10 * PIECE);
	CU_ASSERT_EQUAL(status().huge_bytes, 10 * TGD_HUGE_BYTES);
	CU_ASSERT(mapped() - before < 512);
}

static void a_heap_is_told_never_to(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);

	tgd_heap_set_huge(heap, TGD_HUGE_NEVER);
	(void)get_large(client, slot, 2560);
	work_until_nothing_is_left();
	CU_ASSERT_EQUAL(n_calls, 0);
	CU_ASSERT_EQUAL(status().huge_bytes, 0);
	CU_ASSERT_EQUAL(status().huge, TGD_HUGE_NEVER);
}

static void small_grants_of_a_small_heap_make_none(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), i;

	for (i = 0; i < 1000; i++)
		(void)get_span(client, slot, 5);
	work_until_nothing_is_left();
	CU_ASSERT_EQUAL(n_calls, 0);
	CU_ASSERT(status().idle_bytes <= 1000 / 128 * PAGE);
}

/* What is longer than 32 MiB may never be touched. */
static void ahead_of_a_large_heap_one_is_made(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);

	CU_ASSERT_EQUAL(get_large(client, slot, 64 * PIECE).page, 0);
	CU_ASSERT_EQUAL(n_calls, 0);
	work_until_nothing_is_left();
	CU_ASSERT_EQUAL(n_calls, 1);
	CU_ASSERT_EQUAL(status().huge_bytes, TGD_HUGE_BYTES);
	CU_ASSERT_EQUAL(status().idle_bytes, TGD_HUGE_BYTES);
	/* It is what is granted next, as a whole or in parts. */
	CU_ASSERT_EQUAL(get_span(client, slot, 5).page, 64 * PIECE);
	CU_ASSERT_EQUAL(get_large(client, slot, PIECE - 1).page, 64 * PIECE + 1);
	CU_ASSERT_EQUAL(status().idle_bytes, 0);
	work_until_nothing_is_left();
	CU_ASSERT_EQUAL(n_calls, 2);
	CU_ASSERT_EQUAL(status().idle_bytes, TGD_HUGE_BYTES);
}

static void a_huge_page_ahead_keeps_the_limit(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);

	CU_ASSERT_EQUAL(tgd_heap_set_limit(heap, (uint64_t)(65 * PIECE - 1) * PAGE), 0);
	(void)get_large(client, slot, 64 * PIECE);
	work_until_nothing_is_left();
	CU_ASSERT_EQUAL(n_calls, 0);
	CU_ASSERT(status().idle_bytes > 0);
	CU_ASSERT(status().span_bytes + status().idle_bytes <= status().limit_bytes);
}

static void always_means_also_for_one_small_span(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), i;

	tgd_heap_set_huge(heap, TGD_HUGE_ALWAYS);
	CU_ASSERT_EQUAL(get_span(client, slot, 5).page, 0);
	CU_ASSERT_EQUAL(status().huge_bytes, TGD_HUGE_BYTES);
	CU_ASSERT_EQUAL(status().idle_bytes, (PIECE - 1) * PAGE);
	/* It is not given back bit by bit. */
	for (i = 1; i < 100; i++)
		(void)tgd_heap_work(heap, i * 1000);
	CU_ASSERT_EQUAL(status().idle_bytes, (PIECE - 1) * PAGE);
	/* Most of it is used, and the next one is made ahead of need. */
	(void)get_large(client, slot, PIECE - 20);
	CU_ASSERT_EQUAL(n_calls, 1);
	work_until_nothing_is_left();
	CU_ASSERT_EQUAL(n_calls, 2);
	CU_ASSERT_EQUAL(status().idle_bytes, (PIECE + 19) * PAGE);
	/* Who asks gets all of it back. */
	(void)tgd_heap_trim(heap);
	CU_ASSERT_EQUAL(status().idle_bytes, 0);
	CU_ASSERT_EQUAL(status().huge_bytes, 0);
}

static void always_means_however_long_it_takes(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);

	tgd_heap_set_huge(heap, TGD_HUGE_ALWAYS);
	takes_ns = 5000000;
	(void)get_large(client, slot, 4 * PIECE);
	CU_ASSERT_EQUAL(status().huge_bytes, 4 * TGD_HUGE_BYTES);
	CU_ASSERT_EQUAL(status().idle_bytes, 0);
}

static void always_keeps_the_limit(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);

	tgd_heap_set_huge(heap, TGD_HUGE_ALWAYS);
	CU_ASSERT_EQUAL(tgd_heap_set_limit(heap, (PIECE - 1) * PAGE), 0);
	(void)get_span(client, slot, 5);
	(void)get_large(client, slot, 100);
	work_until_nothing_is_left();
	CU_ASSERT_EQUAL(n_calls, 0);
	CU_ASSERT(status().span_bytes + status().idle_bytes <= status().limit_bytes);
}

static void a_failure_leaves_nothing_behind_and_small_pages_do(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	uint64_t before;

	(void)get_span(client, slot, 5);
	before = status().resident_bytes;
	fails_with = ENOMEM;
	CU_ASSERT_EQUAL(get_large(client, slot, 1000).page, 1);
	CU_ASSERT_EQUAL(n_calls, 1);
	CU_ASSERT_EQUAL(status().huge_bytes, 0);
	CU_ASSERT_EQUAL(status().idle_bytes, 0);
	CU_ASSERT(status().resident_bytes <= before + 1000 * PAGE + 3 * 4096);
	CU_ASSERT(is_zero(1, 1000));
	/* It is not tried again at once, but later. */
	fails_with = 0;
	(void)get_large(client, slot, 1000);
	CU_ASSERT_EQUAL(n_calls, 1);
	now_ns += 1000000001;
	(void)get_large(client, slot, 1000);
	CU_ASSERT_EQUAL(n_calls, 4);
	CU_ASSERT_FALSE(status().huge_refused);
}

static void a_failure_with_others_in_the_piece_leaves_them_as_they_are(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);

	tgd_heap_set_huge(heap, TGD_HUGE_ALWAYS);
	fails_with = EAGAIN;
	(void)get_large(client, slot, 10);
	CU_ASSERT_EQUAL(n_calls, 1);
	CU_ASSERT_EQUAL(status().idle_bytes, 0);
	CU_ASSERT(status().resident_bytes < MIB);
}

static void a_kernel_that_cannot_is_not_asked_again(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);

	fails_with = EINVAL;
	(void)get_large(client, slot, 1000);
	now_ns += UINT64_C(1000000000) * 86400;
	(void)get_large(client, slot, 1000);
	CU_ASSERT_EQUAL(n_calls, 1);
	CU_ASSERT(status().huge_refused);
}

/* A slow one is followed by small pages for a while. */
static void what_takes_long_is_done_seldom(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);

	takes_ns = 5000000;
	(void)get_large(client, slot, 1024);
	CU_ASSERT_EQUAL(n_calls, 1);
	CU_ASSERT_EQUAL(status().huge_bytes, TGD_HUGE_BYTES);
	now_ns += 20 * takes_ns;
	(void)get_large(client, slot, 1024);
	CU_ASSERT_EQUAL(n_calls, 1);
	now_ns += 20 * takes_ns;
	takes_ns = 300000;
	(void)get_large(client, slot, 1024);
	CU_ASSERT_EQUAL(n_calls, 5);
	CU_ASSERT_EQUAL(status().huge_bytes, 5 * TGD_HUGE_BYTES);
}

static void memory_that_is_there_already_keeps_what_is_in_it(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	struct tgd_grant grant = get_large(client, slot, 100);
	uint64_t before;

	memset(tgs_page_address(view, 0), 7, (size_t)100 * PAGE);
	CU_ASSERT_EQUAL(put_span(client, slot, grant.page), 0);
	CU_ASSERT_EQUAL(get_large(client, slot, 50).page, 0);
	CU_ASSERT_EQUAL(put_span(client, slot, 0), 0);
	before = status().resident_bytes;
	grant = get_large(client, slot, PIECE);
	CU_ASSERT_EQUAL(grant.page, 0);
	CU_ASSERT_FALSE(grant.zero);
	CU_ASSERT_EQUAL(n_calls, 1);
	CU_ASSERT(is_zero(100, PIECE - 100));
	CU_ASSERT_EQUAL(*tgs_page_address(view, 99), 7);
	CU_ASSERT(status().resident_bytes <= before + (PIECE - 100) * PAGE + 4096);
}

static void a_piece_of_which_a_part_went_back_is_no_huge_page(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	uint64_t first = get_large(client, slot, 4 * PIECE).page, before;
	struct tgd_grant grant;

	CU_ASSERT_EQUAL(status().huge_bytes, 4 * TGD_HUGE_BYTES);
	CU_ASSERT_EQUAL(tgd_heap_resize(heap, client, slot, first, 2 * PIECE + 10, &grant), 0);
	memset(tgs_page_address(view, first), 7, (size_t)(2 * PIECE + 10) * PAGE);
	before = status().resident_bytes;
	(void)tgd_heap_trim(heap);
	CU_ASSERT_EQUAL(status().huge_bytes, 2 * TGD_HUGE_BYTES);
	CU_ASSERT_EQUAL(status().idle_bytes, 0);
	CU_ASSERT(status().resident_bytes <= before - (2 * PIECE - 10) * PAGE);
	CU_ASSERT_EQUAL(*tgs_page_address(view, 2 * PIECE + 9), 7);
	/* It becomes one again. */
	CU_ASSERT_EQUAL(tgd_heap_resize(heap, client, slot, first, 4 * PIECE, &grant), 0);
	CU_ASSERT(grant.zero);
	CU_ASSERT(is_zero(2 * PIECE + 10, 2 * PIECE - 10));
	CU_ASSERT_EQUAL(status().huge_bytes, 3 * TGD_HUGE_BYTES);
}

static CU_TestInfo huge[] = {
	{"what is asked for in one has its pieces as huge pages",
	 what_is_asked_for_in_one_has_its_pieces_as_huge_pages},
	{"the daemon does not keep them mapped", the_daemon_does_not_keep_them_mapped},
	{"a heap is told never to", a_heap_is_told_never_to},
	{"small grants of a small heap make none", small_grants_of_a_small_heap_make_none},
	{"ahead of a large heap one is made", ahead_of_a_large_heap_one_is_made},
	{"a huge page ahead keeps the limit", a_huge_page_ahead_keeps_the_limit},
	{"always means also for one small span", always_means_also_for_one_small_span},
	{"always means however long it takes", always_means_however_long_it_takes},
	{"always keeps the limit", always_keeps_the_limit},
	{"a failure leaves nothing behind, and small pages do",
	 a_failure_leaves_nothing_behind_and_small_pages_do},
	{"a failure with others in the piece leaves them as they are",
	 a_failure_with_others_in_the_piece_leaves_them_as_they_are},
	{"a kernel that cannot is not asked again", a_kernel_that_cannot_is_not_asked_again},
	{"what takes long is done seldom", what_takes_long_is_done_seldom},
	{"memory that is there already keeps what is in it",
	 memory_that_is_there_already_keeps_what_is_in_it},
	{"a piece of which a part went back is no huge page",
	 a_piece_of_which_a_part_went_back_is_no_huge_page},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"huge pages", NULL, NULL, automatic, end_heap, huge},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("heap huge", suites);
}
