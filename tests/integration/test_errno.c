/* test_errno - a free leaves errno alone: where it reports an error and goes on, and where it finds no daemon.
 *
 * Programs free between a call that failed and the look at errno.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/tg.h"
#include "shm/base.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define BEFORE 4711

static const size_t sizes[] = {5, 100, 500, 3000, 100000};
#define N_SIZES TGS_ARRAY_LEN(sizes)

static void set_up(void)
{
	tgt_set_up_daemon(NULL);
}

static void free_it(void *object)
{
	errno = BEFORE;
	tg_free(object);
	TGT_EXPECT(errno == BEFORE);
}

/* ---- wrong frees ---- */

/* The objects are another process's.  What is reported cannot be written, which is an error, too. */
static void free_wrongly(void *arg)
{
	struct tg_stats stats = {.size = sizeof(stats)};
	uint8_t **others = arg, *own;
	unsigned i;

	close(STDERR_FILENO);
	for (i = 0; i < N_SIZES; i++) {
		own = tg_malloc(sizes[i]);
		TGT_REQUIRE(own != NULL);
		free_it(own + 1);
		free_it(own);
		free_it(own);
		free_it(others[i] + 1);
		free_it(others[i]);
		free_it(others[i]);
	}
	TGT_EXPECT(tg_stats(&stats) == 0);
	TGT_EXPECT(stats.errors == 4 * N_SIZES);
	TGT_EXPECT(tg_detach() == 0);
	free_it(others[0]);
	free_it(NULL);
}

static void wrong_frees(void)
{
	void *objects[N_SIZES];
	unsigned i;

	setenv("TG_ON_ERROR", "count", 1);
	CU_ASSERT_EQUAL_FATAL(tg_attach(NULL), 0);
	unsetenv("TG_ON_ERROR");
	for (i = 0; i < N_SIZES; i++)
		CU_ASSERT_PTR_NOT_NULL(objects[i] = tg_malloc(sizes[i]));
	CU_ASSERT_EQUAL(tgt_in_child(free_wrongly, objects), 0);
	tgt_check(0);
	CU_ASSERT_EQUAL(tg_detach(), 0);
}

/* ---- without a daemon ---- */

static void *free_all(void *objects)
{
	unsigned i;

	for (i = 0; i < N_SIZES; i++)
		free_it(((void **)objects)[i]);
	return NULL;
}

/* The second thread has nothing to free with, and finds nobody to ask for it. */
static void outlive_the_daemon(void *arg)
{
	struct tg_options options = {.size = sizeof(options), .timeout_ms = 200};
	struct tgt_meeting *meeting = arg;
	void *objects[N_SIZES];
	pthread_t thread;
	unsigned i;

	TGT_REQUIRE(tg_attach(&options) == 0);
	for (i = 0; i < N_SIZES; i++)
		TGT_REQUIRE((objects[i] = tg_malloc(sizes[i])) != NULL);
	tgt_tell_parent(meeting);
	TGT_REQUIRE(tgt_wait_parent_said(meeting));
	TGT_REQUIRE(pthread_create(&thread, NULL, free_all, objects) == 0);
	pthread_join(thread, NULL);
}

static void no_daemon(void)
{
	struct tgt_meeting meeting;
	pid_t pid;

	CU_ASSERT_FATAL(tgt_meeting_open(&meeting));
	pid = tgt_fork(outlive_the_daemon, &meeting);
	CU_ASSERT_FATAL(pid > 0);
	CU_ASSERT(tgt_wait_child_said(&meeting));
	tgt_daemon_kill(&tgt_d);
	tgt_tell_child(&meeting);
	CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	tgt_meeting_close(&meeting);
	/* Another one, for the tear-down. */
	(void)tgt_daemon_stop(&tgt_d);
	set_up();
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"A free that is wrong, and counted", wrong_frees},
		{"A thread that frees for the first time, when the daemon is gone", no_daemon},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"errno", NULL, NULL, set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("errno", suites);
}
