/* test_crash_client.c - a client is killed at every point of every operation, and the heap is exact each time.
 *
 *	tests/crash/test_crash_client                                 all scripts, all points
 *	tests/crash/test_crash_client --script NAME [--point K]       one script, all points or one
 *	tests/crash/test_crash_client --list                          names of scripts
 */
#include <CUnit/CUnit.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/control.h"
#include "tests/crash/cover.h"
#include "tests/crash/ledger.h"
#include "tests/crash/oracle.h"
#include "tests/crash/run.h"
#include "tests/support/child.h"
#include "tests/support/runner.h"

#define SCRIPTS_MAX 256u

static const struct tgt_script *scripts[SCRIPTS_MAX];
static CU_TestInfo tests[SCRIPTS_MAX + 2];
static unsigned n_scripts;
static uint64_t only_point;
static long long start_ms;

/* Points that no script comes to, each with its reason. */
static const struct tgt_uncovered uncovered[] = {
	{NULL, NULL, NULL},
};

static const char *const files[] = {"client/", "shm/link", "shm/remote.c", "shm/step.c", NULL};

static const struct tgt_script *current(void)
{
	const char *name = CU_get_current_test()->pName;
	unsigned i;

	for (i = 0; strcmp(scripts[i]->name, name) != 0; i++)
		;
	return scripts[i];
}

/* One test a script: CUnit knows which it is running. */
static void run_current(void)
{
	CU_ASSERT_EQUAL(tgt_run_script(current(), only_point), 0);
}

static void every_point_was_passed(void)
{
	CU_ASSERT_EQUAL(tgt_cover(TGT_CLIENT, files, uncovered), 0);
	printf("%llu kills, %lld ms ...", (unsigned long long)tgt_n_kills, tgt_now_ms() - start_ms);
}

static int start(void)
{
	static const char *const args[] = {"--reserve", "256M", "--limit", "16M", NULL};

	tgt_world_start(args);
	return 0;
}

static int stop(void)
{
	return tgt_world_stop() ? 0 : 1;
}

static void add(const struct tgt_script *from, const char *only)
{
	for (; from->name != NULL; from++) {
		if (only != NULL && strcmp(from->name, only) != 0)
			continue;
		scripts[n_scripts] = from;
		tests[n_scripts++] = (CU_TestInfo){from->name, run_current};
	}
}

static void list(void)
{
	unsigned i;

	for (i = 0; i < n_scripts; i++)
		printf("%s\n", scripts[i]->name);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"script", required_argument, NULL, 's'},
						{"point", required_argument, NULL, 'p'},
						{"list", no_argument, NULL, 'l'},
						{NULL, 0, NULL, 0}};
	CU_SuiteInfo suites[] = {{"client", start, stop, NULL, NULL, tests}, CU_SUITE_INFO_NULL};
	const char *only = NULL;
	bool listed = false;
	int option;

	if (getenv("TG_SANITIZER") != NULL && *getenv("TG_SANITIZER") != '\0')
		return 77;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 's')
			only = optarg;
		else if (option == 'p')
			only_point = strtoull(optarg, NULL, 0);
		else if (option == 'l')
			listed = true;
		else
			return 2;
	}
	tgt_share_scripts_make();
	add(tgt_memory_scripts, only);
	add(tgt_share_scripts, only);
	add(tgt_process_scripts, only);
	if (only == NULL)
		tests[n_scripts] = (CU_TestInfo){"every point was passed", every_point_was_passed};
	if (listed) {
		list();
		return 0;
	}
	/* The observer sees what a dead program freed twice. */
	setenv("TG_ON_ERROR", "count", 1);
	start_ms = tgt_now_ms();
	if (!tgt_control_make() || !tgt_ledger_make() || !tgt_nursery_start())
		return 99;
	unsetenv("TG_ON_ERROR");
	return tgt_run("crash_client", suites);
}
