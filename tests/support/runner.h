/* The main of every test program.
 *
 * CUnit's own return values say "fine" when tests failed, when a suite's setup failed (so that its tests never
 * ran), and when there was no test at all; automake sees only the exit status.  tgt_run() turns all of that into
 * a failure, so no test program writes logic of its own here:
 *
 *	int main(void)
 *	{
 *		return tgt_run("span", suites);
 *	}
 */
#pragma once

#include <CUnit/CUnit.h>

/* Runs all suites (an array that ends with CU_SUITE_INFO_NULL) and returns the exit status for main: 0 only if every
 * suite was set up, at least one test ran, at least one assertion was made, none failed, and no more file
 * descriptors are open than before.  Prints CUnit's report on standard output.  Must be called from the main thread.
 *
 * A child that a test forks must end with _exit(); one that comes back from its test through here is stopped. */
int tgt_run(const char *name, CU_SuiteInfo *suites);
