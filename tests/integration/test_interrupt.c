/* test_interrupt - threads that are cancelled, signals that interrupt and jump, and ends of threads and processes in the
 * middle of everything.
 *
 * No call of the library is a point at which a thread can be cancelled, also when it talks to the daemon: a thread says
 * when it is inside one, and its clean-up handler must never find it there.  What it holds it has written down, so at the
 * end the number of objects is exact.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/message.h"
#include "tests/support/runner.h"

/* ---- mixed calls ---- */

#define N_HELD 16

struct caller {
	pthread_t thread;
	uint64_t random;
	_Atomic bool inside; /* a call of the library */
	void *held[N_HELD];
	bool after; /* it is past its first destructor */
};

static _Atomic(void *) shelf[32]; /* where threads take what others have made */
static tg_link *link_of_all;

static size_t some_size(uint64_t *random)
{
	static const size_t sizes[] = {1, 12, 16, 24, 100, 1000, 9000, 32768, 40000, 300000};

	return sizes[tgt_random(random) % 10];
}

static void pass_on(struct caller *caller, void **held)
{
	void *old = atomic_exchange(&shelf[tgt_random(&caller->random) % 32], *held);

	*held = old;
}

static void swing(void)
{
	void *old = tg_link_get(link_of_all), *node = tg_malloc(64);

	TGT_EXPECT(node != NULL);
	if (!tg_swap(link_of_all, old, node, TG_GIVE | TG_RETIRE))
		tg_free(node);
}

/* A call of any kind; many of them ask the daemon. */
static void call(struct caller *caller)
{
	uint64_t *random = &caller->random;
	void **held = &caller->held[tgt_random(random) % N_HELD], *p;
	struct tg_stats stats = {.size = sizeof(stats)};

	switch (tgt_random(random) % 12) {
	case 0:
		p = tg_realloc(*held, some_size(random));
		TGT_EXPECT(p != NULL);
		*held = p;
		break;
	case 1:
		pass_on(caller, held);
		break;
	case 2:
		TGT_EXPECT(tg_root_set("root", link_of_all) == 0);
		break;
	case 3:
		TGT_EXPECT(tg_trim() == 0);
		break;
	case 4:
		TGT_EXPECT(tg_stats(&stats) == 0);
		break;
	case 5:
		swing();
		break;
	case 6:
		TGT_EXPECT(tg_root_get("no such root") == NULL && errno == ENOENT);
		break;
	default:
		errno = 4711;
		tg_free(*held);
		TGT_EXPECT(errno == 4711);
		*held = NULL;
		*held = tg_malloc(some_size(random));
		TGT_EXPECT(*held != NULL && errno == 4711);
	}
}

static void was_cancelled(void *arg)
{
	struct caller *caller = arg;

	TGT_EXPECT(!atomic_load(&caller->inside));
}

static void *call_until_cancelled(void *arg)
{
	struct caller *caller = arg;
	int state, type;

	pthread_cleanup_push(was_cancelled, caller);
	for (;;) {
		atomic_store(&caller->inside, true);
		call(caller);
		atomic_store(&caller->inside, false);
		/* Both are as they were. */
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
		pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &type);
		TGT_EXPECT(state == PTHREAD_CANCEL_ENABLE && type == PTHREAD_CANCEL_DEFERRED);
		pthread_testcancel();
	}
	pthread_cleanup_pop(0);
	return NULL;
}

static void *call_for_a_while(void *arg)
{
	struct caller *caller = arg;
	unsigned i;

	for (i = 0; i < 100; i++)
		call(caller);
	return NULL;
}

/* Waits for the thread's end; a lock that was left behind shows here. */
static void join(pthread_t thread, void *expected)
{
	struct timespec deadline;
	void *result = NULL;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += TGT_TIMEOUT_MS / 1000;
	if (pthread_timedjoin_np(thread, &result, &deadline) != 0) {
		printf("a thread does not end\n");
		abort();
	}
	CU_ASSERT(result == expected);
}

static void drop_all(struct caller *caller)
{
	unsigned i;

	for (i = 0; i < N_HELD; i++) {
		tg_free(caller->held[i]);
		caller->held[i] = NULL;
	}
}

static void prepare(void)
{
	link_of_all = tg_calloc(1, sizeof(*link_of_all));
	CU_ASSERT_PTR_NOT_NULL_FATAL(link_of_all);
}

static void clear_shelf(void)
{
	unsigned i;

	for (i = 0; i < 32; i++)
		tg_free(atomic_exchange(&shelf[i], NULL));
}

static void clear(void)
{
	clear_shelf();
	(void)tg_swap(link_of_all, tg_link_get(link_of_all), NULL, TG_RETIRE);
	(void)tg_root_set("root", NULL);
	tg_free(link_of_all);
}

static void some_time(uint64_t *random, unsigned us_max)
{
	struct timespec time = {.tv_nsec = (long)(tgt_random(random) % us_max) * 1000};

	nanosleep(&time, NULL);
}

#define N_CALLERS 6

/* Threads that come and go share their caches.  Not one each: a thread that trims, or ends, has those of others in its
 * hands for a while, and who begins meanwhile opens one more.  Far below the number of threads that have been. */
#define N_CACHES_MAX (4 * (N_CALLERS + 1))

static void test_cancelled_threads(void)
{
	static struct caller callers[N_CALLERS], after;
	unsigned round, i, n = tgt_scaled(100);
	uint64_t random = 4711;

	prepare();
	for (round = 0; round < n; round++) {
		for (i = 0; i < N_CALLERS; i++) {
			callers[i].random = tgt_random(&random);
			CU_ASSERT_EQUAL_FATAL(pthread_create(&callers[i].thread, NULL,
							     call_until_cancelled, &callers[i]),
					      0);
		}
		for (i = 0; i < N_CALLERS; i++) {
			some_time(&random, 500);
			CU_ASSERT_EQUAL(pthread_cancel(callers[i].thread), 0);
		}
		for (i = 0; i < N_CALLERS; i++) {
			join(callers[i].thread, PTHREAD_CANCELED);
			drop_all(&callers[i]);
		}
		after.random = tgt_random(&random);
		CU_ASSERT_EQUAL_FATAL(pthread_create(&after.thread, NULL, call_for_a_while, &after),
				      0);
		join(after.thread, NULL);
		drop_all(&after);
	}
	clear();
	CU_ASSERT(tgt_stats().threads <= N_CACHES_MAX);
}

/* ---- attach and detach ---- */

static void *attach_until_cancelled(void *arg)
{
	struct caller *caller = arg;
	void *p;

	pthread_cleanup_push(was_cancelled, caller);
	for (;;) {
		atomic_store(&caller->inside, true);
		TGT_EXPECT(tg_attach(NULL) == 0);
		p = tg_malloc(100);
		TGT_EXPECT(p != NULL);
		tg_free(p);
		TGT_EXPECT(tg_detach() == 0);
		atomic_store(&caller->inside, false);
		pthread_testcancel();
	}
	pthread_cleanup_pop(0);
	return NULL;
}

static void attach_and_cancel(void *arg)
{
	static struct caller caller;
	uint64_t random = 815;
	unsigned round;
	void *result;

	(void)arg;
	TGT_REQUIRE(tg_detach() == 0);
	for (round = 0; round < 50; round++) {
		TGT_REQUIRE(pthread_create(&caller.thread, NULL, attach_until_cancelled, &caller) ==
			    0);
		some_time(&random, 3000);
		TGT_EXPECT(pthread_cancel(caller.thread) == 0);
		TGT_EXPECT(pthread_join(caller.thread, &result) == 0 && result == PTHREAD_CANCELED);
	}
	TGT_EXPECT(tg_malloc(1) == NULL && errno == ENOTCONN);
	TGT_EXPECT(tg_attach(NULL) == 0);
	TGT_EXPECT(tg_detach() == 0);
}

static void test_cancelled_while_attaching(void)
{
	CU_ASSERT_EQUAL(tgt_in_child(attach_and_cancel, NULL), 0);
}

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

/* ---- signals ---- */

static struct {
	sigjmp_buf back;
	volatile sig_atomic_t may_jump;
	volatile sig_atomic_t n_signals;
} interrupted;

static void on_signal(int number)
{
	(void)number;
	interrupted.n_signals++;
	if (interrupted.may_jump) {
		interrupted.may_jump = 0;
		siglongjmp(interrupted.back, 1);
	}
}

static void signals_every_us(long us)
{
	struct itimerval timer = {.it_interval = {.tv_usec = us}, .it_value = {.tv_usec = us}};
	/* Without SA_RESTART: system calls end with EINTR. */
	struct sigaction action = {.sa_handler = us ? on_signal : SIG_DFL};

	if (us == 0)
		TGT_EXPECT(setitimer(ITIMER_REAL, &timer, NULL) == 0);
	TGT_EXPECT(sigaction(SIGALRM, &action, NULL) == 0);
	if (us != 0)
		TGT_EXPECT(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

/* Every call, attaching too, is interrupted over and over, and comes to its end. */
static void be_interrupted(void *arg)
{
	static struct caller caller;
	unsigned round;

	(void)arg;
	caller.random = 3;
	signals_every_us(100);
	for (round = 0; round < 30 || interrupted.n_signals < 200; round++) {
		TGT_EXPECT(tg_detach() == 0);
		TGT_EXPECT(tg_attach(NULL) == 0);
		call_for_a_while(&caller);
		drop_all(&caller);
		clear_shelf();
	}
	signals_every_us(0);
}

static void test_signals_in_every_call(void)
{
	prepare();
	CU_ASSERT_EQUAL(tg_publish(link_of_all), 0);
	CU_ASSERT_EQUAL(tgt_in_child(be_interrupted, NULL), 0);
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	clear();
}

/* The handler jumps out of the program's own code only, where it writes into an object, or waits. */
static bool work_on(unsigned char *volatile p, size_t size, unsigned round)
{
	struct timespec pause = {.tv_nsec = 1000000};
	volatile bool jumped = false;
	unsigned i;

	if (sigsetjmp(interrupted.back, 1) != 0) {
		jumped = true;
	} else {
		interrupted.may_jump = 1;
		for (i = 0; i < 1000; i++)
			memset(p, (int)(round + i), size);
		if (round % 4 == 0)
			nanosleep(&pause, NULL);
		interrupted.may_jump = 0;
	}
	return jumped;
}

static void test_jumps_out_of_other_code(void)
{
	unsigned round, n_jumps = 0, n = tgt_scaled(3000);
	uint64_t random = 7;

	interrupted.may_jump = 0;
	signals_every_us(300);
	for (round = 0; round < n; round++) {
		size_t size = some_size(&random) % 5000 + 1;
		unsigned char *p = tg_malloc(size), *q;

		TGT_REQUIRE(p != NULL);
		n_jumps += work_on(p, size, round);
		q = tg_malloc(round % 50 ? 100 : 100000);
		TGT_EXPECT(q != NULL);
		tg_free(p);
		tg_free(q);
	}
	signals_every_us(0);
	CU_ASSERT(n_jumps > 0);
}

static CU_TestInfo tests[] = {
	{"Threads cancelled at any moment end between two calls and leave no lock behind",
	 test_cancelled_threads},
	{"Nor while they attach and detach", test_cancelled_while_attaching},
	{"Destructors of a thread's values allocate and free", test_destructors_of_threads},
	{"Exit handlers and destructors of a process allocate and free", test_exit_handlers},
	{"exit and _exit while other threads are at work", test_exit_among_threads},
	{"Signals interrupt every call, and none fails", test_signals_in_every_call},
	{"A signal handler jumps out of the program's own code", test_jumps_out_of_other_code},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"interrupt, policy keep", NULL, NULL, tgt_set_up_keep, tgt_tear_down, tests},
	{"interrupt, policy reclaim", NULL, NULL, tgt_set_up_reclaim, tgt_tear_down, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("interrupt", suites);
}
