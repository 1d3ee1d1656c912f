/* test_large - objects over 32 KiB: a span each, some kept at hand when freed, the rest given back.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/message.h"
#include "tests/support/runner.h"

#define PAGE       8192u
#define MIB        ((size_t)1 << 20)
#define KEPT_BYTES (288 * MIB) /* 256 MiB by the process, 32 MiB by a thread */

static void test_whole_pages(void)
{
	static const size_t sizes[] = {32769, 40959,  40960,   40961,
				       81920, 100000, 1 << 20, (16 << 20) + 1};
	unsigned i;

	for (i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		size_t rounded = (sizes[i] + PAGE - 1) / PAGE * PAGE;
		uint8_t *p;

		CU_ASSERT_EQUAL(tg_trim(), 0);
		p = tg_malloc(sizes[i]);
		CU_ASSERT_PTR_NOT_NULL_FATAL(p);
		CU_ASSERT_EQUAL((uintptr_t)p % PAGE, 0);
		CU_ASSERT_EQUAL(tg_usable_size(p), rounded);
		CU_ASSERT_EQUAL(tgt_status("span_bytes"), (long long)rounded);
		CU_ASSERT_EQUAL(tgt_check_number("object_bytes"), (long long)rounded);
		/* Every byte is backed. */
		memset(p, 0x3c, rounded);
		CU_ASSERT_EQUAL(p[rounded - 1], 0x3c);
		tg_free(p);
	}
}

static void test_the_last_one_freed_is_used_next(void)
{
	void *p = tg_malloc(100000), *q = tg_malloc(100000);
	uint64_t messages = tgt_stats().messages;
	unsigned i;

	tg_free(q);
	tg_free(p);
	for (i = 0; i < 100; i++) {
		void *again = tg_malloc(100000 - i * 100);

		CU_ASSERT_PTR_EQUAL(again, p);
		tg_free(again);
	}
	CU_ASSERT_EQUAL(tgt_stats().messages, messages);
	/* One that is much smaller does not sit in it. */
	q = tg_malloc(50000);
	CU_ASSERT(tg_usable_size(q) < 66000);
	tg_free(q);
}

static void test_what_is_kept_is_bounded(void)
{
	static void *objects[200];
	struct tg_stats stats;
	unsigned i;

	/* Many small ones, which all stay, ... */
	for (i = 0; i < 200; i++)
		objects[i] = tg_malloc(40000);
	CU_ASSERT(tgt_status("spans") >= 200);
	CU_ASSERT(tgt_status("spans") <= 200 + 200 / 8);
	for (i = 0; i < 200; i++)
		tg_free(objects[i]);
	stats = tgt_stats();
	CU_ASSERT(stats.spans >= 200);
	CU_ASSERT_EQUAL(stats.cached_bytes, stats.span_bytes);
	for (i = 0; i < 200; i++)
		objects[i] = tg_malloc(40000);
	CU_ASSERT_EQUAL(tgt_stats().messages, stats.messages);
	CU_ASSERT_EQUAL(tgt_stats().cached_bytes, (stats.spans - 200) * 5 * PAGE);
	for (i = 0; i < 200; i++)
		tg_free(objects[i]);
	CU_ASSERT_EQUAL(tgt_status("spans"), (long long)stats.spans);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_stats().cached_bytes, 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
	/* ... a few big ones, ... */
	for (i = 0; i < 40; i++)
		objects[i] = tg_malloc(10 * MIB);
	for (i = 0; i < 40; i++)
		tg_free(objects[i]);
	CU_ASSERT(tgt_stats().cached_bytes <= KEPT_BYTES);
	/* ... and one that is bigger than all that may be kept. */
	objects[0] = tg_malloc(300 * MIB);
	CU_ASSERT_PTR_NOT_NULL(objects[0]);
	tg_free(objects[0]);
	CU_ASSERT(tgt_stats().cached_bytes <= KEPT_BYTES);
}

static void test_what_grows_leaves_little_behind(void)
{
	const size_t least = MIB / 2;
	size_t size;
	void *p;

	/* A buffer that grows by a third each time never fits where it lay before. */
	for (size = 100000; size < 8 * MIB; size += size / 3) {
		p = tg_malloc(size);
		CU_ASSERT_PTR_NOT_NULL(p);
		CU_ASSERT(tgt_stats().cached_bytes <= (size > least ? size : least) + 8192);
		tg_free(p);
	}
}

/* What was freed and not needed again goes when the process grows for others. */
static void test_what_is_left_goes_when_small_ones_grow(void)
{
	static void *objects[24 * 1024];
	const unsigned n = sizeof(objects) / sizeof(*objects);
	unsigned i;

	tg_free(tg_malloc(4 * MIB));
	CU_ASSERT(tgt_stats().cached_bytes >= 4 * MIB);
	for (i = 0; i < n; i++) {
		objects[i] = tg_malloc(1024);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
	}
	CU_ASSERT(tgt_stats().cached_bytes <= 2 * MIB);
	for (i = 0; i < n; i++)
		tg_free(objects[i]);
}

/* What small classes keep for a next rise goes when the heap grows for a large object. */
static void test_what_small_ones_left_goes_when_a_large_one_comes(void)
{
	static void *objects[8 * 1024];
	const unsigned n = sizeof(objects) / sizeof(*objects);
	unsigned i;
	void *p;

	for (i = 0; i < n; i++) {
		objects[i] = tg_malloc(1024);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
	}
	for (i = 0; i < n; i++)
		tg_free(objects[i]);
	p = tg_malloc(4 * MIB);
	CU_ASSERT_PTR_NOT_NULL(p);
	CU_ASSERT(tgt_stats().cached_bytes <= 2 * MIB);
	tg_free(p);
}

/* ---- threads of one process share them ---- */

#define SHELF 32

static struct {
	pthread_mutex_t lock;
	void *p[SHELF];
	size_t size[SHELF];
} shelf = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *use_shelf(void *arg)
{
	uint64_t random = (uintptr_t)arg + 1;
	unsigned i, n = tgt_scaled(4000);

	for (i = 0; i < n; i++) {
		unsigned place = (unsigned)(tgt_random(&random) % SHELF);
		size_t size = 33000 + tgt_random(&random) % 300000, old_size;
		void *p = tg_malloc(size), *old;

		TGT_REQUIRE(p != NULL);
		tgt_fill_object(p, 64, (uintptr_t)p);
		tgt_fill_object((char *)p + size - 64, 64, size);
		pthread_mutex_lock(&shelf.lock);
		old = shelf.p[place];
		old_size = shelf.size[place];
		shelf.p[place] = p;
		shelf.size[place] = size;
		pthread_mutex_unlock(&shelf.lock);
		if (old != NULL) {
			TGT_EXPECT(tgt_is_filled(old, 64, (uintptr_t)old));
			TGT_EXPECT(tgt_is_filled((char *)old + old_size - 64, 64, old_size));
		}
		tg_free(old);
	}
	return NULL;
}

static void test_threads_share_large_objects(void)
{
	pthread_t threads[4];
	unsigned i;

	for (i = 0; i < 4; i++)
		CU_ASSERT_EQUAL_FATAL(
			pthread_create(&threads[i], NULL, use_shelf, (void *)(uintptr_t)i), 0);
	for (i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	tgt_check(SHELF);
	/* No thread's free was a foreign one. */
	CU_ASSERT_EQUAL(tgt_stats().foreign_frees, 0);
	for (i = 0; i < SHELF; i++) {
		tg_free(shelf.p[i]);
		shelf.p[i] = NULL;
	}
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

static void *free_and_take(void *object)
{
	uint64_t messages;
	void *p, *q;

	tg_free(tg_malloc(100));
	p = tg_malloc(300000);
	messages = tgt_stats().messages;
	tg_free(p);
	tg_free(object);
	q = tg_malloc(100000);
	TGT_EXPECT(q == object);
	TGT_EXPECT(tg_malloc(300000) == p);
	TGT_EXPECT(tgt_stats().messages == messages);
	tg_free(p);
	tg_free(q);
	TGT_EXPECT(tgt_stats().messages == messages);
	return NULL;
}

static void test_what_a_thread_freed_is_its_own_until_it_ends(void)
{
	void *p = tg_malloc(100000), *q;
	pthread_t thread;
	uint64_t messages;

	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, free_and_take, p), 0);
	pthread_join(thread, NULL);
	tgt_check(0);
	CU_ASSERT_EQUAL(tgt_stats().cached_bytes, tgt_stats().span_bytes);
	messages = tgt_stats().messages;
	q = tg_malloc(100000);
	CU_ASSERT_PTR_EQUAL(q, p);
	CU_ASSERT_EQUAL(tgt_stats().messages, messages);
	tgt_check(1);
	tg_free(q);
	tgt_check(0);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
	CU_ASSERT_EQUAL(tgt_stats().cached_bytes, 0);
}

static void test_what_is_kept_goes_when_it_is_missing(void)
{
	const char *const args[] = {"limit", "64M", NULL};
	void *all, *p, *q;

	json_decref(tgt_tgctl(&tgt_d, args, NULL));
	p = tg_malloc(MIB);
	q = tg_malloc(MIB);
	all = tg_malloc(61 * MIB);
	CU_ASSERT_PTR_NOT_NULL_FATAL(all);
	tg_free(p);
	tg_free(q);
	CU_ASSERT_EQUAL(tgt_stats().cached_bytes, 2 * MIB);
	p = tg_malloc(2 * MIB + MIB / 2);
	CU_ASSERT_PTR_NOT_NULL(p);
	CU_ASSERT_PTR_NULL(tg_malloc(2 * MIB));
	CU_ASSERT_EQUAL(errno, ENOMEM);
	tg_free(p);
	tg_free(all);
}

/* ---- fresh ones come many at a time, and are zero ---- */

static void test_many_of_one_length_come_in_few_messages(void)
{
	static uint8_t *objects[512];
	uint64_t messages = tgt_stats().messages;
	unsigned i;

	for (i = 0; i < 512; i++) {
		objects[i] = tg_calloc(1, 65536);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
		CU_ASSERT(tgt_is_zero(objects[i], 65536));
		memset(objects[i], 0x77, 65536);
	}
	CU_ASSERT(tgt_stats().messages - messages < 512 / 8);
	/* What came and was not needed is little. */
	CU_ASSERT(tgt_stats().cached_bytes <= 512 * 65536 / 16);
	tgt_check(512);
	for (i = 0; i < 512; i++)
		tg_free(objects[i]);
	for (i = 0; i < 512; i++) {
		objects[i] = tg_calloc(1, 65536);
		CU_ASSERT(tgt_is_zero(objects[i], 65536));
	}
	for (i = 0; i < 512; i++)
		tg_free(objects[i]);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

/* ---- and processes free each other's ---- */

static void free_them(void *arg)
{
	void **objects = arg;
	unsigned i;

	for (i = 0; i < 50; i++) {
		TGT_EXPECT(tgt_is_filled(objects[i], 1000, i));
		tg_free(objects[i]);
	}
	/* Too big to be held back: they are free now. */
	TGT_EXPECT(tgt_stats().pending_frees == 0);
}

static void test_what_others_free_is_used_again(void)
{
	void *objects[50];
	unsigned round, i;

	for (round = 0; round < 10; round++) {
		for (i = 0; i < 50; i++) {
			objects[i] = tg_malloc(40000 + 1000 * i);
			CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
			tgt_fill_object(objects[i], 1000, i);
		}
		CU_ASSERT_EQUAL(tgt_in_child(free_them, objects), 0);
		tgt_check(0);
		CU_ASSERT(tgt_status("spans") <= 2 * 50);
	}
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

static void test_one_object_of_almost_all(void)
{
	const char *const args[] = {"limit", "1G", NULL};
	uint8_t *p;

	json_decref(tgt_tgctl(&tgt_d, args, NULL));
	CU_ASSERT_PTR_NULL(tg_malloc(1025 * MIB));
	CU_ASSERT_EQUAL(errno, ENOMEM);
	p = tg_malloc(512 * MIB);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	p[0] = p[512 * MIB - 1] = 1;
	CU_ASSERT(tgt_status("resident_bytes") >= (long long)(512 * MIB));
	tg_free(p);
	/* It is not kept, and its memory goes back when asked for. */
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
	json_decref(tgt_tgctl(&tgt_d, (const char *const[]){"trim", NULL}, NULL));
	CU_ASSERT(tgt_status("resident_bytes") < (long long)(16 * MIB));
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"A large object has whole pages, all of them backed", test_whole_pages},
		{"The one freed last is used next, without a message",
		 test_the_last_one_freed_is_used_next},
		{"What is kept of freed ones is bounded in number and size",
		 test_what_is_kept_is_bounded},
		{"A buffer that grows leaves little behind", test_what_grows_leaves_little_behind},
		{"What is left of them goes when small objects grow",
		 test_what_is_left_goes_when_small_ones_grow},
		{"What is left of small ones goes when a large one comes",
		 test_what_small_ones_left_goes_when_a_large_one_comes},
		{"The threads of a process share their large objects",
		 test_threads_share_large_objects},
		{"What a thread freed it has again, and when it ends the others have it",
		 test_what_a_thread_freed_is_its_own_until_it_ends},
		{"What is kept goes when memory is missing",
		 test_what_is_kept_goes_when_it_is_missing},
		{"Many of one length come in few messages, zero where they must be",
		 test_many_of_one_length_come_in_few_messages},
		{"What other processes free is used again", test_what_others_free_is_used_again},
		{"Half a gibibyte comes and goes", test_one_object_of_almost_all},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"large", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("large", suites);
}
