/* Where the daemon's socket is: which source wins, and what is too long. */
#include "proto/path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/runner.h"

static void forget_environment(void)
{
	unsetenv("TG_SOCKET");
	unsetenv("XDG_RUNTIME_DIR");
}

static void check_path(const char *given, const char *want)
{
	char got[TGP_SOCKET_PATH_SIZE] = "";

	CU_ASSERT_EQUAL(tgp_socket_path(given, got, sizeof(got)), 0);
	CU_ASSERT_STRING_EQUAL(got, want);
}

static void what_is_given_wins_over_the_environment(void)
{
	setenv("TG_SOCKET", "/from/env", 1);
	setenv("XDG_RUNTIME_DIR", "/run/user/1", 1);
	check_path("/given", "/given");
	check_path(NULL, "/from/env");
	unsetenv("TG_SOCKET");
	check_path(NULL, "/run/user/1/tgd.sock");
}

static void an_empty_variable_counts_as_unset(void)
{
	setenv("TG_SOCKET", "", 1);
	setenv("XDG_RUNTIME_DIR", "/run/user/1", 1);
	check_path(NULL, "/run/user/1/tgd.sock");
	setenv("XDG_RUNTIME_DIR", "", 1);
	if (geteuid() == 0)
		check_path(NULL, "/run/tgd.sock");
}

/* A child, so that it can give up being root. */
static void the_default_is_different_for_root_and_others(void)
{
	char got[TGP_SOCKET_PATH_SIZE];
	int status = -1;
	pid_t child;

	if (geteuid() == 0)
		check_path(NULL, "/run/tgd.sock");
	child = fork();
	if (child == 0) {
		char want[64];

		if (geteuid() == 0 && setuid(12345) < 0)
			_exit(2);
		snprintf(want, sizeof(want), "/tmp/tgd-%u.sock", (unsigned)geteuid());
		_exit(tgp_socket_path(NULL, got, sizeof(got)) != 0 || strcmp(got, want) != 0);
	}
	CU_ASSERT_FATAL(child > 0);
	CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
	CU_ASSERT_EQUAL(status, 0);
}

static void a_path_that_no_socket_can_have_is_refused(void)
{
	char path[TGP_SOCKET_PATH_SIZE + 1], buf[2 * TGP_SOCKET_PATH_SIZE];

	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[TGP_SOCKET_PATH_SIZE] = '\0';
	CU_ASSERT_EQUAL(tgp_socket_path(path, buf, sizeof(buf)), -ENAMETOOLONG);
	setenv("TG_SOCKET", path, 1);
	CU_ASSERT_EQUAL(tgp_socket_path(NULL, buf, sizeof(buf)), -ENAMETOOLONG);
	path[TGP_SOCKET_PATH_SIZE - 1] = '\0';
	CU_ASSERT_EQUAL(tgp_socket_path(path, buf, sizeof(buf)), 0);
	CU_ASSERT_STRING_EQUAL(buf, path);
	CU_ASSERT_EQUAL(tgp_socket_path("/longer/than/eight", buf, 8), -ENAMETOOLONG);
}

static void an_empty_path_is_refused(void)
{
	char buf[TGP_SOCKET_PATH_SIZE];

	CU_ASSERT_EQUAL(tgp_socket_path("", buf, sizeof(buf)), -EINVAL);
}

static CU_TestInfo tests[] = {
	{"what is given wins over the environment", what_is_given_wins_over_the_environment},
	{"an empty variable counts as unset", an_empty_variable_counts_as_unset},
	{"the default is different for root and others",
	 the_default_is_different_for_root_and_others},
	{"a path that no socket can have is refused", a_path_that_no_socket_can_have_is_refused},
	{"an empty path is refused", an_empty_path_is_refused},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"the path of the socket", NULL, NULL, forget_environment, forget_environment, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("path", suites);
}
