/* test_programs.c - real programs on the shared heap: scripts/try-programs in its short form, one
 * program a test.  What the script checks stands there.
 */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/daemon.h"
#include "tests/support/runner.h"

/* Nothing takes so long, but on a machine with much else to do. */
#define PROGRAM_MS 150000

static void try_one(const char *program)
{
	char script[512];
	const char *argv[] = {script, "--quick", program, NULL};
	const char *root = getenv("TG_SRCDIR");
	char *output = NULL;
	int status;

	snprintf(script, sizeof(script), "%s/scripts/try-programs", root ? root : ".");
	status = tgt_run_long_program(argv, PROGRAM_MS, &output);
	printf("%s", output ? output : "");
	free(output);
	CU_ASSERT(status == 0 || status == 77); /* 77: it is not installed here */
}

static void python(void)
{
	try_one("python");
}

static void gcc(void)
{
	try_one("gcc");
}

static void sqlite(void)
{
	try_one("sqlite");
}

static void redis(void)
{
	try_one("redis");
}

static void git(void)
{
	try_one("git");
}

static void make(void)
{
	try_one("make");
}

static CU_TestInfo tests[] = {
	{"python3 passes its own tests of dict, list, json and threading", python},
	{"gcc makes the same object files", gcc},
	{"sqlite3 makes the same database", sqlite},
	{"redis-server's snapshot has the data of the moment of the fork", redis},
	{"git's repository is sound after commits and gc", git},
	{"make -j4 with hundreds of forks", make},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"programs", NULL, NULL, NULL, NULL, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	const char *sanitizer = getenv("TG_SANITIZER");

	if (sanitizer && *sanitizer != '\0') {
		printf("a library with a sanitizer in it cannot be preloaded: not run\n");
		return 77;
	}
	return tgt_run("programs", suites);
}
