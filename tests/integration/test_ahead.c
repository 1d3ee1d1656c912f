/* test_ahead - what a thread need not wait for: while the daemon's worker is stopped, spans go back, and those that were
 * asked for ahead are there.  Who waited all the same would give up after a second, and make its connection anew.
 */
#include <CUnit/CUnit.h>
#include <signal.h>
#include <stdint.h>

#include "client/tg.h"
#include "tests/support/daemon.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define MANY 8192

static void *objects[MANY];

static void set_up(void)
{
	static const char *const args[] = {"--limit", "64M", NULL};
	static const struct tg_options options = {.size = sizeof(options), .timeout_ms = 1000};

	tgt_set_up_with(args, &options);
}

static void allocate(size_t size, unsigned first, unsigned end)
{
	unsigned i;

	for (i = first; i < end; i++) {
		objects[i] = tg_malloc(size);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
	}
}

static void free_all(unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		tg_free(objects[i]);
		objects[i] = NULL;
	}
}

/* It is told to go on by SIGCONT. */
static pid_t stop_worker(void)
{
	pid_t worker = tgt_daemon_worker(&tgt_d, NULL);

	CU_ASSERT_FATAL(worker > 0);
	CU_ASSERT_EQUAL(kill(worker, SIGSTOP), 0);
	return worker;
}

/* Of 8 MiB a thread may keep 4 MiB empty. */
static void test_spans_go_back_without_waiting(void)
{
	uint64_t messages;
	pid_t worker;

	allocate(1024, 0, MANY);
	messages = tgt_stats().messages;
	worker = stop_worker();
	free_all(MANY);
	CU_ASSERT(tgt_stats().messages > messages);
	CU_ASSERT_EQUAL(kill(worker, SIGCONT), 0);
	/* A trim ends when all of it has been done. */
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
	CU_ASSERT_EQUAL(tgt_stats().reconnects, 0);
}

/* When the eighth span is begun, which is the last one at hand then, a ninth is asked for. */
static void test_spans_of_several_classes_come_ahead(void)
{
	static const unsigned sizes[] = {1024, 896, 768};
	pid_t worker;
	unsigned i;

	for (i = 0; i < 3; i++)
		allocate(sizes[i], i * 100, i * 100 + 7 * (8192 / sizes[i]) + 1);
	/* Answered after those. */
	CU_ASSERT_EQUAL(tg_root_set("ahead", objects[0]), 0);
	worker = stop_worker();
	for (i = 0; i < 3; i++)
		allocate(sizes[i], i * 100 + 7 * (8192 / sizes[i]) + 1,
			 i * 100 + 8 * (8192 / sizes[i]) + 1);
	CU_ASSERT_EQUAL(kill(worker, SIGCONT), 0);
	CU_ASSERT_EQUAL(tgt_stats().reconnects, 0);
	CU_ASSERT_EQUAL(tg_root_set("ahead", NULL), 0);
	free_all(3 * 100);
}

/* 100 spans, and hardly anything else that a part of would be much. */
static void test_a_class_in_a_burst_sends_few_messages(void)
{
	uint64_t messages = tgt_stats().messages;

	allocate(4096, 0, 200);
	CU_ASSERT(tgt_stats().messages - messages < 30);
	CU_ASSERT(tgt_status("span_bytes") <= 200 * 4096 + 2 * 16 * 8192);
	free_all(200);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Spans go back without waiting for the daemon, and with a trim all have",
		 test_spans_go_back_without_waiting},
		{"The next span of several classes is there before it is needed",
		 test_spans_of_several_classes_come_ahead},
		{"A class that is needed again and again by a small process sends few messages",
		 test_a_class_in_a_burst_sends_few_messages},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"ahead", NULL, NULL, set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("ahead", suites);
}
