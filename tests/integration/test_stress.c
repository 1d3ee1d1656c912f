/* test_stress - 4 processes with 4 threads each allocate, hand over and free, and nothing is lost, doubled or kept.
 *
 * With TG_TEST_LONG=1 in the environment 100 million operations, else some 3 million (fewer under a sanitizer).
 */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"
#include "tests/support/stress.h"

#define N_PROCESSES 4
#define N_THREADS   4
#define MIB         (1 << 20)

static const char *const limited[] = {"--limit", "2G", NULL};

static struct tgt_stress *stress;
static struct tgt_meeting meetings[N_PROCESSES];
static pid_t pids[N_PROCESSES];

static void set_up(void)
{
	tgt_set_up_with(limited, NULL);
}

static bool is_long(void)
{
	const char *text = getenv("TG_TEST_LONG");

	return text != NULL && strcmp(text, "1") == 0;
}

/* Works; trims; stays until it is told to end. */
static void child(void *arg)
{
	unsigned process = *(unsigned *)arg;

	TGT_EXPECT(tgt_stress_run(stress, process));
	tgt_tell_parent(&meetings[process]);
	TGT_REQUIRE(tgt_wait_parent_said(&meetings[process]));
	TGT_EXPECT(tg_trim() == 0);
	tgt_tell_parent(&meetings[process]);
	TGT_REQUIRE(tgt_wait_parent_said(&meetings[process]));
}

static void start_children(void)
{
	unsigned i;

	for (i = 0; i < N_PROCESSES; i++) {
		CU_ASSERT_FATAL(tgt_meeting_open(&meetings[i]));
		pids[i] = tgt_fork(child, &i);
		CU_ASSERT_FATAL(pids[i] > 0);
		/* The child alone holds that end now, so its death is seen. */
		close(meetings[i].to_parent[1]);
		meetings[i].to_parent[1] = -1;
	}
}

/* No deadline of our own: the long run takes its time, and the test as a whole has one. */
static void wait_for_children(void)
{
	unsigned i;

	for (i = 0; i < N_PROCESSES; i++) {
		char byte = 0;

		CU_ASSERT_EQUAL(read(meetings[i].to_parent[0], &byte, 1), 1);
	}
}

static void let_children_go_on(void)
{
	unsigned i;

	for (i = 0; i < N_PROCESSES; i++)
		tgt_tell_child(&meetings[i]);
}

static void end_children(void)
{
	unsigned i;

	let_children_go_on();
	for (i = 0; i < N_PROCESSES; i++) {
		CU_ASSERT_EQUAL(tgt_wait(pids[i]), 0);
		tgt_meeting_close(&meetings[i]);
	}
}

static void check_totals(const struct tgt_stress_plan *plan)
{
	struct tgt_stress_totals totals = tgt_stress_totals(stress);

	printf("\n    %llu operations, %llu of %llu frees by another process ... ",
	       (unsigned long long)totals.operations, (unsigned long long)totals.frees_elsewhere,
	       (unsigned long long)totals.frees);
	CU_ASSERT(totals.operations >= plan->n_operations / 16 * 16);
	CU_ASSERT_EQUAL(totals.allocations, totals.frees);
	/* A quarter, less what a ring had no room for: under load that is much. */
	CU_ASSERT(totals.frees_elsewhere >= totals.frees / 16);
	CU_ASSERT(totals.frees_elsewhere <= totals.frees / 3);
}

static void test_stress(void)
{
	struct tgt_stress_plan plan = {
		.n_processes = N_PROCESSES,
		.n_threads = N_THREADS,
		.n_operations = is_long() ? 100 * 1000 * 1000 : tgt_scaled(3 * 1000 * 1000),
		.seed = 20240229,
		.size_max = MIB,
		.live_max = 6 * MIB,
	};

	stress = tgt_stress_new(&plan);
	CU_ASSERT_PTR_NOT_NULL_FATAL(stress);
	start_children();
	wait_for_children();
	check_totals(&plan);
	/* All have freed, but keep their caches. */
	tgt_check(1);
	let_children_go_on();
	wait_for_children();
	/* What no object needs goes back when asked for ... */
	tgt_check(1);
	CU_ASSERT(tgt_wait_at_most("span_bytes", MIB));
	end_children();
	/* ... or at the end of those who held it, ... */
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	tg_free(stress);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT(tgt_wait_at_most("span_bytes", 0));
	/* ... and from there to the kernel, at a pace that takes a few seconds for the first half, and as many for the rest. */
	CU_ASSERT(tgt_status("peak_span_bytes") > 64 * MIB);
	CU_ASSERT(tgt_wait_at_most("idle_bytes", is_long() ? MIB : 32 * MIB));
	CU_ASSERT(tgt_wait_at_most("resident_bytes", is_long() ? 8 * MIB : 40 * MIB));
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Four processes with four threads hand objects to each other and all adds up",
		 test_stress},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"stress", NULL, NULL, set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("stress", suites);
}
