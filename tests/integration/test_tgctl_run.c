/* tgctl run: the command's status and surroundings, and that nothing is left behind, whoever
 * dies. */
#include <CUnit/CUnit.h>
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/runner.h"

static char dir[] = "/tmp/tg-test-run-XXXXXX"; /* TMPDIR of tgctl: all it makes is here */
static char *output;

static void set_up(void)
{
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	setenv("TMPDIR", dir, 1);
	unsetenv("LD_PRELOAD");
	unsetenv("TG_PRELOAD_LIB");
}

/* Nothing may be left in the directory, or it cannot be removed. */
static void tear_down(void)
{
	free(output);
	output = NULL;
	CU_ASSERT_EQUAL(rmdir(dir), 0);
}

/* Runs `tgctl run OPTION... -- sh -c SCRIPT`; what both write is in `output`.  Its status. */
static int run_script(const char *option, const char *value, const char *script)
{
	const char *argv[10] = {getenv("TGCTL"), "run"};
	int n = 2;

	free(output);
	output = NULL;
	if (option != NULL)
		argv[n++] = option;
	if (value != NULL)
		argv[n++] = value;
	argv[n++] = "--";
	argv[n++] = "sh";
	argv[n++] = "-c";
	argv[n++] = script;
	return tgt_run_program(argv, &output);
}

static void the_status_is_that_of_the_command(void)
{
	CU_ASSERT_EQUAL(run_script(NULL, NULL, "exit 0"), 0);
	CU_ASSERT_EQUAL(run_script(NULL, NULL, "exit 7"), 7);
	CU_ASSERT_STRING_EQUAL(output, "");
	CU_ASSERT_EQUAL(run_script(NULL, NULL, "kill -KILL $$"), 128 + SIGKILL);
}

static void a_command_that_is_not_there_is_127(void)
{
	const char *missing[] = {getenv("TGCTL"), "run", "--", "no-such-command", NULL};
	const char *no_program[] = {getenv("TGCTL"), "run", "--", "/etc/passwd", NULL};

	CU_ASSERT_EQUAL(tgt_run_program(missing, &output), 127);
	CU_ASSERT_PTR_NOT_NULL(strstr(output, "tgctl: no-such-command: command not found"));
	free(output);
	CU_ASSERT_EQUAL(tgt_run_program(no_program, &output), 126);
	CU_ASSERT_PTR_NOT_NULL(strstr(output, "tgctl: cannot run /etc/passwd: Permission denied"));
}

static void the_command_finds_its_heap_and_no_other(void)
{
	setenv("TG_HEAP", "another", 1);
	setenv("TG_SOCKET", "/nonexistent/socket", 1);
	CU_ASSERT_EQUAL(run_script(NULL, NULL, "test -z \"$TG_HEAP\" && $TGCTL status"), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(output, "heap        run\n"));
	unsetenv("TG_HEAP");
	unsetenv("TG_SOCKET");
}

static void the_limit_reaches_the_daemon(void)
{
	CU_ASSERT_EQUAL(run_script("--limit", "96M", "$TGCTL --json status"), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(output, "\"limit_bytes\": 100663296,"));
}

/* The words of LD_PRELOAD in the surroundings of a process, "" if it has none. */
static const char *print_preload =
	"echo \"command=$LD_PRELOAD\"; "
	"pid=$($TGCTL --json ping | sed 's/.*\"pid\": \\([0-9]*\\).*/\\1/'); "
	"echo \"daemon=$(tr '\\0' '\\n' < /proc/$pid/environ | grep ^LD_PRELOAD)\"";

static void preload_is_for_the_command_alone_and_comes_first(void)
{
	char want[1024];

	/* Any library will do: here it only counts where it is named.  AddressSanitizer wants to be first; it need not. */
	setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1);
	setenv("TG_PRELOAD_LIB", getenv("TGLIB"), 1);
	CU_ASSERT_EQUAL(run_script("--preload", NULL, print_preload), 0);
	snprintf(want, sizeof(want), "command=%s\ndaemon=\n", getenv("TGLIB"));
	CU_ASSERT_STRING_EQUAL(output, want);
	CU_ASSERT_EQUAL(run_script(NULL, NULL, print_preload), 0);
	CU_ASSERT_STRING_EQUAL(output, "command=\ndaemon=\n");
	setenv("LD_PRELOAD", "libc.so.6", 1);
	CU_ASSERT_EQUAL(run_script("--preload", NULL, print_preload), 0);
	snprintf(want, sizeof(want), "command=%s:libc.so.6\ndaemon=\n", getenv("TGLIB"));
	CU_ASSERT_STRING_EQUAL(output, want);
	unsetenv("LD_PRELOAD");
	unsetenv("ASAN_OPTIONS");
	setenv("TG_PRELOAD_LIB", "/has a blank/lib.so", 1);
	CU_ASSERT_EQUAL(run_script("--preload", NULL, "echo it ran"), 3);
	CU_ASSERT_PTR_NULL(strstr(output, "it ran"));
}

/* Sets w and k to the pids of the worker and of the keeper. */
#define GET_PIDS                                                      \
	"s=$($TGCTL --json status); "                                 \
	"w=$(echo \"$s\" | sed 's/.*\"pid\": \\([0-9]*\\).*/\\1/'); " \
	"k=$(echo \"$s\" | sed 's/.*\"keeper_pid\": \\([0-9]*\\).*/\\1/'); "

static void a_daemon_that_died_is_told_of(void)
{
	/* Both, and in one call: else the one would replace the other. */
	CU_ASSERT_EQUAL(run_script(NULL, NULL,
				   GET_PIDS
				   "kill -s KILL -- -$k; "
				   "while $TGCTL ping >/dev/null 2>&1; do :; done; exit 5"),
			5);
	CU_ASSERT_PTR_NOT_NULL(
		strstr(output, "was ended by signal 9 (Killed) while the command ran"));
}

static void a_daemon_half_of_which_died_goes_on_and_ends_with_the_command(void)
{
	CU_ASSERT_EQUAL(run_script(NULL, NULL,
				   GET_PIDS
				   "kill -KILL $w; $TGCTL ping >/dev/null || exit 6; exit 5"),
			5);
	CU_ASSERT_STRING_EQUAL(output, "");
	CU_ASSERT_EQUAL(run_script(NULL, NULL,
				   GET_PIDS "kill -KILL $k; $TGCTL ping >/dev/null || exit 6; "
					    "echo $w; exit 5"),
			5);
	CU_ASSERT(tgt_has_ended((pid_t)strtol(output, NULL, 10)));
}

static void a_command_may_stop_its_daemon(void)
{
	CU_ASSERT_EQUAL(run_script(NULL, NULL, "$TGCTL stop >/dev/null; exit 4"), 4);
	CU_ASSERT_STRING_EQUAL(output, "");
}

/* ---- with pipes, to do something while it runs ---- */

struct running {
	pid_t pid;
	FILE *to, *from;
};

/* Starts `tgctl run sh -c SCRIPT` with pipes to and from it. */
static struct running start_script(const char *script)
{
	int in[2] = {-1, -1}, out[2] = {-1, -1};
	struct running r = {0};

	CU_ASSERT_FATAL(pipe(in) == 0 && pipe(out) == 0);
	r.pid = fork();
	if (r.pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		close(in[0]);
		close(in[1]);
		close(out[0]);
		close(out[1]);
		execl(getenv("TGCTL"), "tgctl", "run", "--", "sh", "-c", script, (char *)NULL);
		_exit(99);
	}
	close(in[0]);
	close(out[1]);
	CU_ASSERT_FATAL(r.pid > 0);
	r.to = fdopen(in[1], "w");
	r.from = fdopen(out[0], "r");
	CU_ASSERT_FATAL(r.to != NULL && r.from != NULL);
	return r;
}

static int end_script(struct running *r)
{
	fclose(r->to);
	fclose(r->from);
	return tgt_wait(r->pid);
}

/* The number in the next line that it writes. */
static int read_number(struct running *r)
{
	char line[64] = "";
	struct pollfd p = {.fd = fileno(r->from), .events = POLLIN};

	CU_ASSERT_EQUAL(poll(&p, 1, TGT_TIMEOUT_MS), 1);
	CU_ASSERT_PTR_NOT_NULL(fgets(line, sizeof(line), r->from));
	return atoi(line);
}

static void signals_are_passed_on_to_the_command(void)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
	struct running r;
	size_t i;

	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		r = start_script("echo $$; exec cat");
		CU_ASSERT(read_number(&r) > 0);
		CU_ASSERT_EQUAL(kill(r.pid, signals[i]), 0);
		CU_ASSERT_EQUAL(tgt_wait(r.pid), 128 + signals[i]);
		fclose(r.to);
		fclose(r.from);
	}
}

static const char *print_daemon_pid =
	"$TGCTL --json ping | sed 's/.*\"pid\": \\([0-9]*\\).*/\\1/'; exec cat";

/* The daemon ends and leaves its directory without a socket; of what tgctl made only the log is
 * left. */
static void the_daemon_ends_when_tgctl_is_killed(void)
{
	struct running r = start_script(print_daemon_pid);
	pid_t daemon = (pid_t)read_number(&r);
	struct pollfd p = {.fd = pidfd_open(daemon, 0), .events = POLLIN};
	char command[128];

	CU_ASSERT(p.fd >= 0);
	CU_ASSERT_EQUAL(kill(r.pid, SIGKILL), 0);
	CU_ASSERT_EQUAL(end_script(&r), 128 + SIGKILL);
	CU_ASSERT_EQUAL(poll(&p, 1, TGT_TIMEOUT_MS), 1);
	close(p.fd);
	snprintf(command, sizeof(command), "ls %s/tg-run-* | grep -qx log && rm -r %s/tg-run-*",
		 dir, dir);
	CU_ASSERT_EQUAL(system(command), 0);
	snprintf(command, sizeof(command), "test -e %s/tg-run-*/sock", dir);
	CU_ASSERT_NOT_EQUAL(system(command), 0);
}

/* Ctrl-C reaches the command's group, in which the daemon is not. */
static void the_daemon_is_not_in_the_commands_process_group(void)
{
	struct running r = start_script(print_daemon_pid);
	pid_t daemon = (pid_t)read_number(&r);

	/* It is in that of its keeper. */
	CU_ASSERT(getpgid(daemon) > 0);
	CU_ASSERT_NOT_EQUAL(getpgid(daemon), daemon);
	CU_ASSERT_NOT_EQUAL(getpgid(daemon), getpgid(r.pid));
	CU_ASSERT_EQUAL(end_script(&r), 0);
	CU_ASSERT_EQUAL(kill(daemon, 0), -1);
}

static CU_TestInfo tests[] = {
	{"the status is that of the command", the_status_is_that_of_the_command},
	{"a command that is not there is 127", a_command_that_is_not_there_is_127},
	{"the command finds its heap and no other", the_command_finds_its_heap_and_no_other},
	{"the limit reaches the daemon", the_limit_reaches_the_daemon},
	{"preload is for the command alone, and comes first",
	 preload_is_for_the_command_alone_and_comes_first},
	{"a daemon that died is told of", a_daemon_that_died_is_told_of},
	{"a daemon half of which died goes on, and ends with the command",
	 a_daemon_half_of_which_died_goes_on_and_ends_with_the_command},
	{"a command may stop its daemon", a_command_may_stop_its_daemon},
	{"signals are passed on to the command", signals_are_passed_on_to_the_command},
	{"the daemon ends when tgctl is killed", the_daemon_ends_when_tgctl_is_killed},
	{"the daemon is not in the command's process group",
	 the_daemon_is_not_in_the_commands_process_group},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"tgctl run", NULL, NULL, set_up, tear_down, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("tgctl_run", suites);
}
