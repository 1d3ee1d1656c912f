/* The main of every test program: runs CUnit suites and gives an exit status that can be trusted.
 *
 * Pass means: the registry took every suite, CUnit has no failure record (which counts failed setups too, unlike
 * its number of failures), tests and assertions were made at all, and no descriptor was left open.  The count of
 * descriptors is compared over the whole program, not for each test, as fixtures may live for a suite.
 *
 * CUnit 2.1-3 runs the tests in the process that calls it.  Standard output is line buffered, so that a fork does
 * not print the parent's lines again, and so that the last line before a crash is in the log.
 */
#include "tests/support/runner.h"

#include <CUnit/Basic.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { FD_MAX = 4096 };

/* Marks in `open` which descriptors below FD_MAX are open; false if that cannot be told. */
static bool list_fds(bool open[FD_MAX])
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	if (!dir)
		return false;

	for (int i = 0; i < FD_MAX; i++)
		open[i] = false;

	while ((entry = readdir(dir))) {
		char *end;
		long fd = strtol(entry->d_name, &end, 10);

		if (end != entry->d_name && *end == '\0' && fd < FD_MAX && fd != dirfd(dir))
			open[fd] = true;
	}

	closedir(dir);
	return true;
}

/* Names each descriptor that is open now and was not before; returns their number. */
static int report_leaks(const char *name, const bool before[FD_MAX])
{
	bool now[FD_MAX];
	int n = 0;

	if (!list_fds(now))
		return 0;

	for (int fd = 0; fd < FD_MAX; fd++) {
		char link[64], target[256];
		ssize_t len;

		if (!now[fd] || before[fd])
			continue;

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		len = readlink(link, target, sizeof(target) - 1);
		target[len > 0 ? len : 0] = '\0';
		printf("%s: descriptor %d (%s) was left open\n", name, fd, target);
		n++;
	}

	return n;
}

/* Prints why the run does not count as passed; returns the exit status. */
static int judge(const char *name, bool fds_known, const bool before[FD_MAX])
{
	int status = EXIT_SUCCESS;

	if (CU_get_number_of_failure_records() != 0)
		status = EXIT_FAILURE;

	if (CU_get_number_of_tests_run() == 0) {
		printf("%s: no test was run\n", name);
		status = EXIT_FAILURE;
	} else if (CU_get_number_of_asserts() == 0) {
		printf("%s: no assertion was made\n", name);
		status = EXIT_FAILURE;
	}

	if (fds_known && report_leaks(name, before) > 0)
		status = EXIT_FAILURE;

	return status;
}

int tgt_run(const char *name, CU_SuiteInfo *suites)
{
	bool before[FD_MAX];
	bool fds_known;
	pid_t self = getpid();
	int status;

	setvbuf(stdout, NULL, _IOLBF, 0);
	fds_known = list_fds(before);

	if (CU_initialize_registry() != CUE_SUCCESS || CU_register_suites(suites) != CUE_SUCCESS) {
		printf("%s: the suites cannot be registered: %s\n", name, CU_get_error_msg());
		CU_cleanup_registry();
		return EXIT_FAILURE;
	}

	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();

	if (getpid() != self) {
		fprintf(stderr, "%s: a forked child came back from its test; end it with _exit()\n",
			name);
		_exit(99);
	}

	status = judge(name, fds_known, before);
	CU_cleanup_registry();
	return status;
}
