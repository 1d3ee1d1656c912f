/* test_ends - the ends of threads and processes in the middle of everything: destructors and exit handlers that use the heap,
 * and a process that ends while its threads are at work.
 *
 * What a thread or process holds it has written down, so at the end the number of objects is exact.  Ends that come from
 * outside are test_interrupt's.
 */
#include <CUnit/CUnit.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/message.h"
#include "tests/support/mixed.h"
#include "tests/support/runner.h"

/* ---- the end of a thread ---- */

static pthread_key_t early_key, late_key;

/* Destructors run in no order, and again as long as they leave values: the library's own has run long since. */
static void use_heap_at_end(void *arg)
{
	struct caller *caller = arg;
	void *p = tg_malloc(some_size(&caller->random));

	TGT_EXPECT(p != NULL);
	tg_free(p);
	drop_all(caller);
	caller->held[0] = tg_malloc(200); /* for the main thread to free */
	TGT_EXPECT(caller->held[0] != NULL);
	if (!caller->after)
		pthread_setspecific(late_key, caller);
	caller->after = true;
}

static void *live_shortly(void *arg)
{
	TGT_EXPECT(pthread_setspecific(early_key, arg) == 0);
	call_for_a_while(arg);
	return NULL;
}

static void test_destructors_of_threads(void)
{
	static struct caller callers[N_CALLERS];
	uint64_t random = 42;
	unsigned round, i;

	prepare();
	CU_ASSERT_EQUAL_FATAL(pthread_key_create(&early_key, use_heap_at_end), 0);
	CU_ASSERT_EQUAL_FATAL(pthread_key_create(&late_key, use_heap_at_end), 0);
	for (round = 0; round < 20; round++) {
		for (i = 0; i < N_CALLERS; i++) {
			callers[i].random = tgt_random(&random);
			callers[i].after = false;
			CU_ASSERT_EQUAL_FATAL(
				pthread_create(&callers[i].thread, NULL, live_shortly, &callers[i]),
				0);
		}
		for (i = 0; i < N_CALLERS; i++) {
			join(callers[i].thread, NULL);
			CU_ASSERT(callers[i].after);
			drop_all(&callers[i]);
		}
	}
	pthread_key_delete(early_key);
	pthread_key_delete(late_key);
	clear();
	CU_ASSERT(tgt_stats().threads <= N_CACHES_MAX);
}

/* ---- the end of a process ---- */

static void *kept_for_the_end;
static bool destructor_is_on;

static void use_heap(void)
{
	void *p = tg_malloc(50000), *q = tg_malloc(7);

	TGT_EXPECT(p != NULL && q != NULL);
	tg_free(p);
	tg_free(q);
}

static void at_exit(void)
{
	use_heap();
	tg_free(kept_for_the_end);
	kept_for_the_end = tg_malloc(300);
	TGT_EXPECT(kept_for_the_end != NULL);
}

/* After all functions of atexit.  Only _exit can still say how it went. */
static __attribute__((destructor)) void at_the_very_end(void)
{
	if (!destructor_is_on)
		return;
	use_heap();
	tg_free(kept_for_the_end);
	_exit(tgt_failed_expectations() == 0 ? 0 : 1);
}

static void exit_with_handlers(void *arg)
{
	(void)arg;
	TGT_REQUIRE(tg_detach() == 0);
	TGT_REQUIRE(atexit(at_exit) == 0);
	TGT_REQUIRE(tg_attach(NULL) == 0);
	TGT_REQUIRE(atexit(at_exit) == 0);
	kept_for_the_end = tg_malloc(400);
	destructor_is_on = true;
	exit(1);
}

static void test_exit_handlers(void)
{
	CU_ASSERT_EQUAL(tgt_in_child(exit_with_handlers, NULL), 0);
	CU_ASSERT(tgt_wait_at_least("recovered_clients", 1));
	tgt_check(0);
}

/* Ends while its threads are at work; exit runs handlers meanwhile. */
static void end_among_threads(void *arg)
{
	static struct caller callers[3];
	uint64_t random = *(uint64_t *)arg;
	unsigned i;

	for (i = 0; i < 3; i++) {
		callers[i].random = tgt_random(&random);
		TGT_REQUIRE(pthread_create(&callers[i].thread, NULL, call_until_cancelled,
					   &callers[i]) == 0);
	}
	some_time(&random, 2000);
	kept_for_the_end = NULL;
	TGT_REQUIRE(atexit(use_heap) == 0);
	if (tgt_random(&random) % 2)
		exit(tgt_failed_expectations() != 0);
	_exit(tgt_failed_expectations() != 0);
}

static void test_exit_among_threads(void)
{
	unsigned i, n = tgt_scaled(60);
	uint64_t random = 99;

	prepare();
	CU_ASSERT_EQUAL(tg_publish(link_of_all), 0);
	for (i = 0; i < n; i++)
		CU_ASSERT_EQUAL(tgt_in_child(end_among_threads, &random), 0);
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	clear();
	/* Under keep what they had stays. */
	tgt_held = tgt_check_number("objects");
	CU_ASSERT(tgt_reclaims ? tgt_held == 0
			       : tgt_held > 0 && tgt_held < n * (3 * (N_HELD + 2) + 32));
}

static CU_TestInfo tests[] = {
	{"Destructors of a thread's values allocate and free", test_destructors_of_threads},
	{"Exit handlers and destructors of a process allocate and free", test_exit_handlers},
	{"exit and _exit while other threads are at work", test_exit_among_threads},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"ends, policy keep", NULL, NULL, tgt_set_up_keep, tgt_tear_down, tests},
	{"ends, policy reclaim", NULL, NULL, tgt_set_up_reclaim, tgt_tear_down, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("ends", suites);
}
