/* test_crash_client.c - a client is killed at every point of every operation, and the heap is exact each time.
 *
 *	tests/crash/test_crash_client                                 all scripts, all points
 *	tests/crash/test_crash_client --script NAME [--point K]       one script, all points or one
 *	tests/crash/test_crash_client --list                          names of scripts
 */
#include <CUnit/CUnit.h>
#include <stddef.h>

#include "tests/crash/control.h"
#include "tests/crash/cover.h"
#include "tests/crash/main.h"

static void run(const struct tgt_script *script)
{
	CU_ASSERT_EQUAL(tgt_run_script(script, tgt_only_point), 0);
}

/* Some are the daemon's matter. */
static bool wanted(const struct tgt_script *script)
{
	return !(script->flags & TGT_OF_DAEMON);
}

/* Points that no script comes to, each with its reason. */
static const struct tgt_uncovered uncovered[] = {
	{"shm/step.c", "&slot->mark, &mark, seq",
	 "needs another process in its step: test_crash_stopped"},
	{NULL, NULL, NULL},
};

static void every_point_was_passed(void)
{
	static const char *const files[] = {"client/", "shm/link", "shm/remote.c", "shm/step.c",
					    NULL};

	CU_ASSERT_EQUAL(tgt_cover(TGT_CLIENT, files, uncovered), 0);
}

int main(int argc, char **argv)
{
	static const CU_TestInfo more[] = {
		{"every point was passed", every_point_was_passed},
		CU_TEST_INFO_NULL,
	};

	return tgt_crash_main(argc, argv, "crash_client", wanted, run, more);
}
