/* test_noslot - what becomes of frees by a thread that has no slot, and gets none, as the daemon is stopped: they are done
 * later, by whoever next has to do with the daemon, and a second one shows at once.
 */
#include <CUnit/CUnit.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "client/tg.h"
#include "shm/base.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

static const size_t sizes[] = {5, 20, 100, 500, 3000, 20000, 100000};
#define N_SIZES TGS_ARRAY_LEN(sizes)

static void *objects[2][N_SIZES];

static void set_up(void)
{
	struct tg_options options = {.size = sizeof(options), .timeout_ms = 1000};

	setenv("TG_ON_ERROR", "count", 1);
	tgt_set_up_with(NULL, &options);
	unsetenv("TG_ON_ERROR");
}

static void make(void *ret[])
{
	unsigned i;

	for (i = 0; i < N_SIZES; i++)
		TGT_EXPECT((ret[i] = tg_malloc(sizes[i])) != NULL);
}

static void make_others(void *ret)
{
	tg_ref *refs = ret;
	unsigned i;

	for (i = 0; i < N_SIZES; i++)
		refs[i] = tg_to_ref(tg_malloc(sizes[i]));
}

static void *free_all(void *unused)
{
	unsigned i;

	(void)unused;
	for (i = 0; i < N_SIZES; i++) {
		tg_free(objects[0][i]);
		tg_free(objects[1][i]);
	}
	/* In a span of this process: seen. */
	tg_free(objects[0][2]);
	return NULL;
}

static void signal_daemon(pid_t keeper, pid_t worker, int number)
{
	CU_ASSERT_EQUAL(kill(keeper, number), 0);
	CU_ASSERT_EQUAL(kill(worker, number), 0);
}

static void frees_are_owed(void)
{
	tg_ref *refs = tg_malloc(N_SIZES * sizeof(*refs));
	pid_t keeper, worker = tgt_daemon_worker(&tgt_d, &keeper);
	long long deadline;
	pthread_t thread;
	unsigned i;

	CU_ASSERT_PTR_NOT_NULL_FATAL(refs);
	make(objects[0]);
	CU_ASSERT_EQUAL(tgt_in_child(make_others, refs), 0);
	for (i = 0; i < N_SIZES; i++)
		objects[1][i] = tg_from_ref(refs[i]);
	tg_free(refs);
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	tgt_check(2 * N_SIZES);

	signal_daemon(keeper, worker, SIGSTOP);
	CU_ASSERT_EQUAL(pthread_create(&thread, NULL, free_all, NULL), 0);
	pthread_join(thread, NULL);
	signal_daemon(keeper, worker, SIGCONT);
	CU_ASSERT_EQUAL(tgt_stats().errors, 1);
	CU_ASSERT(tgt_stats().pending_frees > 0);
	/* The daemon may take its time. */
	deadline = tgt_now_ms() + TGT_TIMEOUT_MS;
	do {
		CU_ASSERT_EQUAL(tg_trim(), 0);
	} while (tgt_stats().pending_frees != 0 && tgt_now_ms() < deadline);
	tgt_check(0);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Frees of a thread that gets no slot are done later", frees_are_owed},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"noslot", NULL, NULL, set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("noslot", suites);
}
