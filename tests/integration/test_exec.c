/* test_exec - a client executes another program, or dies and another process gets its number: what it held is settled, and
 * nobody is taken for somebody else.  The stories run under both policies.
 *
 * The program that is executed is mostly this one again, told by an environment variable what to do.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"
#include "tests/support/things.h"

#define STORY "TGT_EXEC_STORY"

/* The program is another one now, and knows nothing of what it was. */
static void executed(void)
{
	TGT_EXPECT(tg_malloc(10) == NULL && errno == ENOTCONN);
	TGT_REQUIRE(tg_attach(NULL) == 0);
	tgt_things_make();
	TGT_EXPECT(tgt_stats().threads == 1);
	tgt_things_free();
	TGT_EXPECT(tg_detach() == 0);
	_exit(tgt_failed_expectations() != 0);
}

static void execute_among_busy_threads(void *arg)
{
	(void)arg;
	tgt_busy_start();
	tgt_things_make();
	setenv(STORY, "executed", 1);
	execl("/proc/self/exe", "test_exec", NULL);
	_exit(127);
}

static void test_exec_among_busy_threads(void)
{
	unsigned i, n = tgt_scaled(40);
	long long left;

	for (i = 1; i <= n; i++) {
		CU_ASSERT_EQUAL(tgt_in_child(execute_among_busy_threads, NULL), 0);
		CU_ASSERT(tgt_wait_at_least("recovered_clients", i));
	}
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	/* Each thing, what stood on the shelf, and one object for each thread that was just at it. */
	left = tgt_check_number("objects");
	CU_ASSERT(tgt_reclaims
			  ? left == 0
			  : left >= n * TGT_THINGS &&
				    left <= n * (TGT_THINGS + TGT_BUSY_OBJECTS + 2 * TGT_BUSY));
	tgt_held = left;
}

/* A child of the program that is executed anew has its connection open all the time. */
static void execute_with_a_child(void *arg)
{
	struct tgt_meeting *meeting = arg;

	tgt_things_make();
	if (fork() == 0) {
		(void)tgt_wait_parent_said(meeting);
		_exit(0);
	}
	setenv(STORY, "executed", 1);
	execl("/proc/self/exe", "test_exec", NULL);
	_exit(127);
}

static void test_exec_of_a_process_with_a_child(void)
{
	struct tgt_meeting meeting;
	unsigned i;

	CU_ASSERT_FATAL(tgt_meeting_open(&meeting));
	for (i = 1; i <= 10; i++) {
		CU_ASSERT_EQUAL(tgt_in_child(execute_with_a_child, &meeting), 0);
		CU_ASSERT(tgt_wait_at_least("recovered_clients", i));
		tgt_tell_child(&meeting);
		tgt_held += tgt_reclaims ? 0 : TGT_THINGS;
		tgt_check(tgt_held);
	}
	tgt_meeting_close(&meeting);
}

/* cat is no client, and never becomes one: what the client held that it was is settled while it runs. */
static void execute_cat(void *arg)
{
	struct tgt_meeting *meeting = arg;

	tgt_things_make();
	if (dup2(meeting->to_child[0], STDIN_FILENO) < 0 ||
	    dup2(meeting->to_parent[1], STDOUT_FILENO) < 0)
		_exit(126);
	execlp("cat", "cat", NULL);
	_exit(127);
}

static void test_exec_of_a_program_that_is_no_client(void)
{
	struct tgt_meeting meeting;
	pid_t pid;

	CU_ASSERT_FATAL(tgt_meeting_open(&meeting));
	pid = tgt_fork(execute_cat, &meeting);
	tgt_tell_child(&meeting);
	CU_ASSERT(tgt_wait_child_said(&meeting));
	CU_ASSERT(tgt_wait_at_least("recovered_clients", 1));
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	tgt_check(tgt_reclaims ? 0 : TGT_THINGS);
	CU_ASSERT_EQUAL(kill(pid, SIGKILL), 0);
	CU_ASSERT_EQUAL(tgt_wait(pid), 128 + SIGKILL);
	CU_ASSERT(tgt_wait_at_least("recovered_clients", 1));
	tgt_held = tgt_reclaims ? 0 : TGT_THINGS;
	tgt_check(tgt_held);
	tgt_meeting_close(&meeting);
}

/* ---- process numbers ---- */

/* Makes a process with this number, which must be free (0: any), or in a namespace of its own.  -errno: -EPERM, -ENOSYS:
 * cannot be done here. */
static pid_t fork_as(pid_t pid, unsigned clone_flags)
{
	struct clone_args args = {.flags = clone_flags,
				  .exit_signal = SIGCHLD,
				  .set_tid = pid ? (uintptr_t)&pid : 0,
				  .set_tid_size = pid != 0};
	long r = syscall(SYS_clone3, &args, sizeof(args));

	if (r < 0) {
		r = -errno;
		printf("no such process can be made here (%s): not run ", strerror(errno));
		CU_PASS("not run");
	}
	return (pid_t)r;
}

static void make_and_wait(void *arg)
{
	struct tgt_meeting *meeting = arg;

	tgt_things_make();
	tgt_tell_parent(meeting);
	pause();
}

/* A client dies, and another process gets its number and attaches, all while the daemon does not look. */
static void reuse_pid(bool daemon_looks, unsigned n_recovered)
{
	pid_t daemon = (pid_t)tgt_status("pid"), pid, again;
	struct tgt_meeting meeting;

	CU_ASSERT_FATAL(tgt_meeting_open(&meeting));
	pid = tgt_fork(make_and_wait, &meeting);
	CU_ASSERT(tgt_wait_child_said(&meeting));
	if (!daemon_looks)
		CU_ASSERT_EQUAL_FATAL(kill(daemon, SIGSTOP), 0);
	CU_ASSERT_EQUAL(kill(pid, SIGKILL), 0);
	CU_ASSERT_EQUAL(tgt_wait(pid), 128 + SIGKILL);
	setenv(STORY, "executed", 1);
	again = fork_as(pid, 0);
	if (again == 0) {
		execl("/proc/self/exe", "test_exec", NULL);
		_exit(127);
	}
	unsetenv(STORY);
	if (!daemon_looks)
		CU_ASSERT_EQUAL(kill(daemon, SIGCONT), 0);
	if (again > 0) {
		CU_ASSERT_EQUAL(again, pid);
		CU_ASSERT_EQUAL(tgt_wait(again), 0);
	}
	CU_ASSERT(tgt_wait_at_least("recovered_clients", n_recovered));
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	tgt_held += tgt_reclaims ? 0 : TGT_THINGS;
	tgt_check(tgt_held);
	tgt_meeting_close(&meeting);
}

static void test_a_number_is_used_again(void)
{
	unsigned i;

	for (i = 1; i <= 10; i++)
		reuse_pid(i % 2 == 0, i);
}

/* Each calls itself process 1. */
static void test_processes_of_other_namespaces(void)
{
	struct tgt_meeting meetings[2];
	pid_t pids[2];
	unsigned i;

	for (i = 0; i < 2; i++) {
		CU_ASSERT_FATAL(tgt_meeting_open(&meetings[i]));
		pids[i] = fork_as(0, CLONE_NEWPID);
		if (pids[i] == 0) {
			TGT_REQUIRE(getpid() == 1);
			make_and_wait(&meetings[i]);
		}
		if (pids[i] < 0)
			break;
		CU_ASSERT(tgt_wait_child_said(&meetings[i]));
	}
	for (i = 0; i < 2 && pids[i] > 0; i++) {
		CU_ASSERT_EQUAL(tgt_status("clients"), 3 - i);
		CU_ASSERT_EQUAL(kill(pids[i], SIGKILL), 0);
		CU_ASSERT_EQUAL(tgt_wait(pids[i]), 128 + SIGKILL);
		CU_ASSERT(tgt_wait_at_least("recovered_clients", i + 1));
		tgt_check(tgt_reclaims ? (1 - i) * TGT_THINGS : 2 * TGT_THINGS);
		tgt_held += tgt_reclaims ? 0 : TGT_THINGS;
		tgt_meeting_close(&meetings[i]);
	}
}

static CU_TestInfo tests[] = {
	{"exec while other threads allocate: the new program attaches, the old one is settled",
	 test_exec_among_busy_threads},
	{"exec of a process whose child has its connection", test_exec_of_a_process_with_a_child},
	{"exec of a program that is no client", test_exec_of_a_program_that_is_no_client},
	{"A process that has the number of a dead client is a client of its own",
	 test_a_number_is_used_again},
	{"Clients of other pid namespaces with the same number are two",
	 test_processes_of_other_namespaces},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"exec, policy keep", NULL, NULL, tgt_set_up_keep, tgt_tear_down, tests},
	{"exec, policy reclaim", NULL, NULL, tgt_set_up_reclaim, tgt_tear_down, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	if (getenv(STORY) != NULL)
		executed();
	return tgt_run("exec", suites);
}
