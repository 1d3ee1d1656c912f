/* test_threads - threads that come and go: their caches are used again, and what they made and freed outlives them.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "client/tg.h"
#include "shm/base.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/message.h"
#include "tests/support/runner.h"

#define AT_ONCE 8
#define MAKES   20

struct parcel {
	void *objects[MAKES];
	size_t sizes[MAKES];
};

/* Frees what an earlier thread made, which has ended since, and makes something for a later one. */
static void *pass_on(void *arg)
{
	struct parcel *parcel = arg;
	uint64_t random = (uintptr_t)parcel ^ (uintptr_t)parcel->objects[0] ^ 1;
	unsigned i;

	for (i = 0; i < MAKES; i++) {
		if (parcel->objects[i] != NULL)
			TGT_EXPECT(tgt_is_filled(parcel->objects[i], parcel->sizes[i], i));
		tg_free(parcel->objects[i]);
		parcel->sizes[i] = 1 + tgt_random(&random) % (i % 8 == 0 ? 50000 : 500);
		parcel->objects[i] = tg_malloc(parcel->sizes[i]);
		TGT_REQUIRE(parcel->objects[i] != NULL);
		tgt_fill_object(parcel->objects[i], parcel->sizes[i], i);
	}
	return NULL;
}

static void run(pthread_t *threads, struct parcel *parcels, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++)
		CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, pass_on, &parcels[i]), 0);
	for (i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

static void free_parcels(struct parcel *parcels, unsigned n)
{
	unsigned i, k;

	for (i = 0; i < n; i++) {
		for (k = 0; k < MAKES; k++)
			tg_free(parcels[i].objects[k]);
	}
	memset(parcels, 0, n * sizeof(*parcels));
}

static void test_churn(void)
{
	static struct parcel parcels[AT_ONCE];
	pthread_t threads[AT_ONCE];
	struct tg_stats warm = {0}, stats;
	unsigned round, n = tgt_scaled(5000) / AT_ONCE;

	for (round = 0; round < n; round++) {
		run(threads, parcels, AT_ONCE);
		if (round == n / 2)
			warm = tgt_stats();
	}
	stats = tgt_stats();
	tgt_check(AT_ONCE * MAKES);
	/* Caches are handed down, so there are as many as there ever were threads at once.  A thread that ends gives back
	 * what it has empty if there is much of it, so the next one may ask anew: for each class about twice. */
	CU_ASSERT(stats.threads <= AT_ONCE + 1);
	CU_ASSERT(stats.messages - warm.messages <= n / 2 * AT_ONCE * MAKES);
	CU_ASSERT(stats.span_bytes <= warm.span_bytes + warm.span_bytes / 2 + (4 << 20));
	CU_ASSERT(tgt_status("slots") <= AT_ONCE + 2);
	free_parcels(parcels, AT_ONCE);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

static void test_many_threads_at_once(void)
{
	static struct parcel parcels[256];
	static pthread_t threads[256];
	unsigned round;

	for (round = 0; round < 4; round++)
		run(threads, parcels, 256);
	tgt_check(256 * MAKES);
	free_parcels(parcels, 256);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

/* ---- what a thread had at hand when it ended ---- */

static void *make_and_free(void *arg)
{
	void *objects[200];
	unsigned i;

	(void)arg;
	for (i = 0; i < 200; i++)
		TGT_REQUIRE((objects[i] = tg_malloc(16 + i % 8 * 100)) != NULL);
	for (i = 0; i < 200; i++)
		tg_free(objects[i]);
	return NULL;
}

static void test_one_thread_after_the_other(void)
{
	uint64_t messages = 0;
	pthread_t thread;
	unsigned i;

	for (i = 0; i < 10; i++) {
		CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, make_and_free, NULL), 0);
		pthread_join(thread, NULL);
		if (i == 1)
			messages = tgt_stats().messages;
	}
	CU_ASSERT_EQUAL(tgt_stats().messages, messages);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

static void *take_one(void *arg)
{
	size_t size = *(size_t *)arg;

	return tg_malloc(size);
}

static void test_a_thread_gives_back_what_it_does_not_need(void)
{
	size_t size;
	unsigned n = 0;

	for (size = 1; size <= 32768; size *= 2, n++) {
		pthread_t thread;
		void *p;

		CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, take_one, &size), 0);
		CU_ASSERT_EQUAL(pthread_join(thread, &p), 0);
		CU_ASSERT_PTR_NOT_NULL(p);
		tgt_check(1);
		/* One span is held for the one object. */
		CU_ASSERT_EQUAL(tgt_status("spans"), 1);
		tg_free(p);
		CU_ASSERT_EQUAL(tg_trim(), 0);
		CU_ASSERT_EQUAL(tgt_status("spans"), 0);
	}
}

/* ---- a key's destructor that frees, when the cache may be gone already ---- */

static pthread_key_t key;

static void free_late(void *object)
{
	void *p = tg_malloc(50);

	TGT_EXPECT(p != NULL);
	tg_free(object);
	tg_free(p);
}

static void *leave_to_destructor(void *arg)
{
	(void)arg;
	TGT_EXPECT(pthread_setspecific(key, tg_calloc(1, 100)) == 0);
	return NULL;
}

static void test_destructors_may_use_the_heap(void)
{
	pthread_t threads[16];
	unsigned round, i;

	CU_ASSERT_EQUAL_FATAL(pthread_key_create(&key, free_late), 0);
	for (round = 0; round < 10; round++) {
		for (i = 0; i < 16; i++)
			CU_ASSERT_EQUAL_FATAL(
				pthread_create(&threads[i], NULL, leave_to_destructor, NULL), 0);
		for (i = 0; i < 16; i++)
			pthread_join(threads[i], NULL);
	}
	pthread_key_delete(key);
	tgt_check(0);
	CU_ASSERT(tgt_stats().threads <= 34);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

/* ThreadSanitizer gives up a thread in the last round, and does so before us. */
#ifdef __SANITIZE_THREAD__
#define ROUNDS (PTHREAD_DESTRUCTOR_ITERATIONS - 1)
#else
#define ROUNDS PTHREAD_DESTRUCTOR_ITERATIONS
#endif

static __thread unsigned rounds_left = ROUNDS;

/* Puts it off until no destructor runs after this one: whatever the thread gets now, nobody comes to take it. */
static void use_at_last(void *object)
{
	static const size_t sizes[] = {5, 50, 20000, 100000};
	void *objects[TGS_ARRAY_LEN(sizes)];
	unsigned i;

	if (--rounds_left != 0) {
		TGT_EXPECT(pthread_setspecific(key, object) == 0);
		return;
	}
	for (i = 0; i < TGS_ARRAY_LEN(sizes); i++)
		TGT_EXPECT((objects[i] = tg_malloc(sizes[i])) != NULL);
	for (i = 0; i < TGS_ARRAY_LEN(sizes); i++)
		tg_free(objects[i]);
	/* A link that leads elsewhere. */
	TGT_EXPECT(!tg_swap(object, object, NULL, 0) && errno == 0);
	tg_free(object);
}

static void test_the_last_destructor_may_use_the_heap(void)
{
	pthread_t thread;
	unsigned i;

	CU_ASSERT_EQUAL_FATAL(pthread_key_create(&key, use_at_last), 0);
	for (i = 0; i < 30; i++) {
		CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, leave_to_destructor, NULL), 0);
		pthread_join(thread, NULL);
	}
	pthread_key_delete(key);
	tgt_check(0);
	CU_ASSERT(tgt_stats().threads <= 3);
}

/* ---- trim, while others work ---- */

static struct {
	_Atomic bool stop;
	_Atomic uint64_t turns;
} work;

static void *swing(void *arg)
{
	void *objects[200];
	unsigned i;

	while (!atomic_load(&work.stop)) {
		for (i = 0; i < 200; i++) {
			objects[i] = tg_malloc(i * i + 1);
			TGT_REQUIRE(objects[i] != NULL);
			tgt_fill_object(objects[i], 1, i);
		}
		for (i = 0; i < 200; i++) {
			TGT_EXPECT(tgt_is_filled(objects[i], 1, i));
			tg_free(objects[i]);
		}
		atomic_fetch_add(&work.turns, 1);
	}
	return arg;
}

static void test_trim_while_others_work(void)
{
	pthread_t threads[3];
	unsigned i;

	atomic_store(&work.stop, false);
	for (i = 0; i < 3; i++)
		CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, swing, NULL), 0);
	for (i = 0; i < 200; i++) {
		struct tg_stats stats = {.size = sizeof(stats)};

		CU_ASSERT_EQUAL(tg_trim(), 0);
		CU_ASSERT_EQUAL(tg_stats(&stats), 0);
		CU_ASSERT(stats.threads <= 6);
	}
	while (atomic_load(&work.turns) < 300 && tgt_failed_expectations() == 0)
		CU_ASSERT_EQUAL(tg_trim(), 0);
	atomic_store(&work.stop, true);
	for (i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Thousands of threads come and go, and their caches are used again", test_churn},
		{"Hundreds of threads at once", test_many_threads_at_once},
		{"A thread goes on with what the one before it had empty",
		 test_one_thread_after_the_other},
		{"A thread that ends keeps what holds objects, and nothing else",
		 test_a_thread_gives_back_what_it_does_not_need},
		{"Destructors of thread-specific data may use the heap",
		 test_destructors_may_use_the_heap},
		{"Also the very last one", test_the_last_destructor_may_use_the_heap},
		{"One thread trims while others work", test_trim_while_others_work},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"threads", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("threads", suites);
}
