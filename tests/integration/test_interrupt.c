/* test_interrupt - threads that are cancelled, and signals that interrupt and jump, in the middle of everything.
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
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/message.h"
#include "tests/support/mixed.h"
#include "tests/support/runner.h"

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
