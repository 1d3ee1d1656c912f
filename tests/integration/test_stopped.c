/* test_stopped - a client that is stopped, wherever it is, blocks nobody, and its memory stays its own.
 *
 * One process, the victim, does mixed work with two threads and is stopped at a random moment.  Then two others are told to
 * do one kind of operation after the other, on the same links and on the victim's objects, and each must come to its end
 * before a deadline.  Then the victim goes on, or is killed where it stands.
 */
#include <CUnit/CUnit.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/crowd.h"
#include "tests/support/fixture.h"
#include "tests/support/message.h"
#include "tests/support/runner.h"

/* ---- the victim ---- */

/* Under TG_RECLAIM it takes nothing from the survivors, so that after its death the count is exact. */
static enum tgt_what mixed(uint64_t *random)
{
	unsigned n = (unsigned)(tgt_random(random) % 200);

	if (n < 90)
		return TGT_REPLACE;
	if (n < 110)
		return TGT_RESIZE;
	if (n < 130)
		return tgt_crowd->flags & TG_RECLAIM ? TGT_SWAP : TGT_TAKE;
	if (n < 190)
		return TGT_SWAP;
	if (n < 195)
		return TGT_ROOT;
	return n < 198 ? TGT_TRIM : TGT_THREAD;
}

struct worker {
	pthread_t thread;
	uint64_t random;
	struct tgt_hands *hands;
};

static void *work(void *arg)
{
	struct worker *worker = arg;

	while (!atomic_load(&tgt_crowd->quit)) {
		tgt_crowd_do(mixed(&worker->random), worker->hands, &tgt_crowd->hands[TGT_VICTIMS],
			     &worker->random);
		atomic_fetch_add(&tgt_crowd->steps, 1);
	}
	tgt_crowd_drop_all(worker->hands);
	return NULL;
}

static void be_victim(void *arg)
{
	uint64_t random = *(uint64_t *)arg;
	struct worker workers[TGT_VICTIMS];
	unsigned i;

	for (i = 0; i < TGT_VICTIMS; i++) {
		workers[i].random = tgt_random(&random);
		workers[i].hands = &tgt_crowd->hands[i];
		TGT_REQUIRE(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
	}
	for (i = 0; i < TGT_VICTIMS; i++)
		pthread_join(workers[i].thread, NULL);
}

/* ---- what all stories share ---- */

static void set_up_keep(void)
{
	tgt_set_up_keep();
	tgt_crowd_init(0);
}

static void set_up_reclaim(void)
{
	tgt_set_up_reclaim();
	tgt_crowd_init(TG_RECLAIM);
}

static void tear_down(void)
{
	tgt_crowd_done();
	tgt_tear_down();
}

static void stop(pid_t pid)
{
	int status = 0;

	CU_ASSERT_EQUAL(kill(pid, SIGSTOP), 0);
	CU_ASSERT_EQUAL(waitpid(pid, &status, WUNTRACED), pid);
	CU_ASSERT(WIFSTOPPED(status));
}

static bool wait_for_steps(uint64_t n)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;
	const struct timespec pause = {.tv_nsec = 200000};

	while (atomic_load(&tgt_crowd->steps) < n) {
		if (tgt_now_ms() > deadline)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

/* ---- stopped at a random moment ---- */

static void check_memory_of_victim(void)
{
	unsigned i, k;

	for (i = 0; i < TGT_VICTIMS; i++) {
		for (k = 0; k < TGT_HELD; k++) {
			uint64_t word = atomic_load(&tgt_crowd->hands[i].held[k]);

			CU_ASSERT(word == 0 || tgt_crowd_is_whole(word));
		}
	}
}

/* It dies where it was stopped; what it had in its hands may be lost to the program, but no more. */
static void kill_victim(pid_t pid, unsigned n_killed)
{
	bool reclaim = tgt_crowd->flags & TG_RECLAIM;
	long long more;
	unsigned i, k;

	CU_ASSERT_EQUAL(kill(pid, SIGKILL), 0);
	CU_ASSERT_EQUAL(tgt_wait(pid), 128 + SIGKILL);
	CU_ASSERT_FATAL(tgt_wait_at_least("recovered_clients", n_killed));
	CU_ASSERT(tgt_wait_at_most("clients", 1 + TGT_SURVIVORS));
	for (i = 0; reclaim && i < TGT_VICTIMS; i++) {
		for (k = 0; k < TGT_HELD; k++)
			atomic_store(&tgt_crowd->hands[i].held[k], 0);
	}
	more = tgt_check_number("objects") - tgt_held - tgt_crowd_count();
	/* Two: a realloc has both the old object and the new one. */
	CU_ASSERT(more >= 0 && more <= (reclaim ? 0 : 2 * TGT_VICTIMS));
	if (more < 0 || more > (reclaim ? 0 : 2 * TGT_VICTIMS))
		printf("%lld objects more than known\n", more);
	tgt_held += more;
	for (i = 0; i < TGT_VICTIMS; i++)
		tgt_crowd_drop_all(&tgt_crowd->hands[i]);
}

static void test_stopped_at_random_moments(void)
{
	unsigned round, n_rounds = tgt_scaled(80), n_killed = 0;
	struct tgt_survivor survivors[TGT_SURVIVORS];
	uint64_t random = (uint64_t)time(NULL), seed = random;
	const char *given = getenv("TG_TEST_SEED");
	pid_t pid = 0;

	if (given)
		seed = random = strtoull(given, NULL, 0);
	printf("TG_TEST_SEED=%llu ", (unsigned long long)seed);
	tgt_survivors_start(survivors, &random);
	tgt_survivors_go_on(survivors);
	for (round = 0; round < n_rounds; round++) {
		struct timespec moment = {.tv_nsec = (long)(tgt_random(&random) % 2000000)};

		if (pid == 0) {
			seed = tgt_random(&random);
			pid = tgt_fork(be_victim, &seed);
		}
		CU_ASSERT_FATAL(wait_for_steps(atomic_load(&tgt_crowd->steps) + 50));
		nanosleep(&moment, NULL);
		stop(pid);
		check_memory_of_victim();
		tgt_survivors_go_on(survivors);
		check_memory_of_victim();
		tgt_check(tgt_check_number("objects"));
		if (round % 3 != 2) {
			CU_ASSERT_EQUAL(kill(pid, SIGCONT), 0);
			continue;
		}
		kill_victim(pid, ++n_killed);
		pid = 0;
	}
	if (pid != 0) {
		atomic_store(&tgt_crowd->quit, true);
		CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	}
	tgt_survivors_end(survivors);
}

/* ---- stopped with its locks ---- */

/* Asks the daemon, which does not answer. */
static void ask_for_much(void *arg)
{
	struct tgt_meeting *meeting = arg;
	uint64_t random = 1, word = tgt_crowd_make(&random);
	unsigned char *p;

	tgt_tell_parent(meeting);
	TGT_REQUIRE(tgt_wait_parent_said(meeting));
	atomic_store(&tgt_crowd->steps, 1);
	p = tg_malloc(3 << 20);
	atomic_store(&tgt_crowd->steps, 2);
	TGT_EXPECT(p != NULL);
	memset(p, 1, 3 << 20);
	tg_free(p);
	tgt_crowd_drop(word);
}

/* Stops the child while it waits for the daemon: it has the lock of its connection and that of its large objects.  The
 * daemon answers then, but nobody is there to read it. */
static pid_t stop_with_locks(struct tgt_meeting *meeting)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;
	pid_t daemon = (pid_t)tgt_status("pid"), pid;

	atomic_store(&tgt_crowd->steps, 0);
	pid = tgt_fork(ask_for_much, meeting);
	CU_ASSERT(tgt_wait_child_said(meeting));
	CU_ASSERT_EQUAL_FATAL(kill(daemon, SIGSTOP), 0);
	tgt_tell_child(meeting);
	while (atomic_load(&tgt_crowd->steps) == 0 || tgt_state_of(pid) != 'S') {
		if (atomic_load(&tgt_crowd->steps) == 2 || tgt_now_ms() > deadline)
			break;
		sched_yield();
	}
	stop(pid);
	CU_ASSERT_EQUAL(atomic_load(&tgt_crowd->steps), 1);
	CU_ASSERT_EQUAL(kill(daemon, SIGCONT), 0);
	return pid;
}

static void test_stopped_with_its_locks(void)
{
	struct tgt_survivor survivors[TGT_SURVIVORS];
	struct tgt_meeting meeting;
	uint64_t random = 1;
	unsigned round;
	pid_t pid;

	CU_ASSERT_FATAL(tgt_meeting_open(&meeting));
	tgt_survivors_start(survivors, &random);
	for (round = 0; round < 4; round++) {
		pid = stop_with_locks(&meeting);
		tgt_survivors_go_on(survivors);
		if (round % 2 == 0) {
			CU_ASSERT_EQUAL(kill(pid, SIGCONT), 0);
			CU_ASSERT_EQUAL(tgt_wait(pid), 0);
		} else {
			CU_ASSERT_EQUAL(kill(pid, SIGKILL), 0);
			CU_ASSERT_EQUAL(tgt_wait(pid), 128 + SIGKILL);
			/* Its small object; the large one was granted and never its own. */
			tgt_held += !(tgt_crowd->flags & TG_RECLAIM);
		}
		CU_ASSERT(tgt_wait_at_least("recovered_clients", round + 1));
		tgt_check(tgt_held + tgt_crowd_count());
	}
	tgt_survivors_end(survivors);
	tgt_meeting_close(&meeting);
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	CU_ASSERT(tgt_status("span_bytes") < 3 << 20);
}

static void wake_up(int number)
{
	(void)number;
}

/* The answer came while the process was stopped, for longer than it would have waited: it is there all the same. */
static void ask_and_be_stopped_for_long(void *arg)
{
	struct tg_options options = {.size = sizeof(options), .timeout_ms = 2000};
	struct sigaction action = {.sa_handler = wake_up};

	/* With a handler its wait for the answer is interrupted when it goes on. */
	TGT_REQUIRE(sigaction(SIGCONT, &action, NULL) == 0);
	TGT_REQUIRE(tg_detach() == 0);
	options.flags = tgt_crowd->flags;
	TGT_REQUIRE(tg_attach(&options) == 0);
	ask_for_much(arg);
}

static void test_stopped_for_longer_than_the_timeout(void)
{
	struct timespec while_stopped = {.tv_sec = 2, .tv_nsec = 100000000};
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;
	pid_t daemon = (pid_t)tgt_status("pid"), pid;
	struct tgt_meeting meeting;

	CU_ASSERT_FATAL(tgt_meeting_open(&meeting));
	pid = tgt_fork(ask_and_be_stopped_for_long, &meeting);
	CU_ASSERT(tgt_wait_child_said(&meeting));
	CU_ASSERT_EQUAL_FATAL(kill(daemon, SIGSTOP), 0);
	tgt_tell_child(&meeting);
	while (atomic_load(&tgt_crowd->steps) == 0 || tgt_state_of(pid) != 'S') {
		if (atomic_load(&tgt_crowd->steps) == 2 || tgt_now_ms() > deadline)
			break;
		sched_yield();
	}
	stop(pid);
	CU_ASSERT_EQUAL(kill(daemon, SIGCONT), 0);
	nanosleep(&while_stopped, NULL);
	CU_ASSERT_EQUAL(kill(pid, SIGCONT), 0);
	CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	tgt_meeting_close(&meeting);
	tgt_check(1);
}

static CU_TestInfo tests[] = {
	{"A client stopped at a random moment blocks nobody, and goes on or is recovered",
	 test_stopped_at_random_moments},
	{"A client stopped while it holds its own locks blocks no other process",
	 test_stopped_with_its_locks},
	{"A client stopped for longer than its timeout finds the answer",
	 test_stopped_for_longer_than_the_timeout},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"stopped, policy keep", NULL, NULL, set_up_keep, tear_down, tests},
	{"stopped, policy reclaim", NULL, NULL, set_up_reclaim, tear_down, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("stopped", suites);
}
