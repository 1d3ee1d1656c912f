/* test_tgctl_top - `tgctl top`: who holds most is first; on a terminal it goes on until it is interrupted. */
#include <CUnit/CUnit.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define MIB (1 << 20)

static struct tgt_meeting meeting;
static pid_t child;

static void hold_more(void *arg)
{
	void *object = tg_malloc(8 * MIB);

	(void)arg;
	TGT_REQUIRE(object != NULL);
	tgt_tell_parent(&meeting);
	(void)tgt_wait_parent_said(&meeting);
	tg_free(object);
}

/* This process holds 2 MiB, and a child, which came later, 8. */
static void *start_two(void)
{
	void *object = tg_malloc(2 * MIB);

	CU_ASSERT_PTR_NOT_NULL_FATAL(object);
	CU_ASSERT_FATAL(tgt_meeting_open(&meeting));
	child = tgt_fork(hold_more, NULL);
	CU_ASSERT_FATAL(child > 0);
	CU_ASSERT(tgt_wait_child_said(&meeting));
	return object;
}

static void end_two(void *object)
{
	tgt_tell_child(&meeting);
	CU_ASSERT_EQUAL(tgt_wait(child), 0);
	tgt_meeting_close(&meeting);
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	tg_free(object);
}

static void json_has_status_and_clients(void)
{
	static const char *const args[] = {"top", NULL};
	void *object = start_two();
	json_t *answer, *clients;
	int status = -1;

	answer = tgt_tgctl(&tgt_d, args, &status);
	CU_ASSERT_EQUAL(status, 0);
	clients = json_object_get(answer, "clients");
	CU_ASSERT_EQUAL(json_array_size(clients), 2);
	CU_ASSERT_EQUAL(tgt_json_int(json_array_get(clients, 0), "pid"), child);
	CU_ASSERT_EQUAL(tgt_json_int(json_array_get(clients, 1), "pid"), getpid());
	CU_ASSERT(tgt_json_int(json_object_get(answer, "status"), "span_bytes") >= 10 * MIB);
	json_decref(answer);
	end_two(object);
}

static void text_is_printed_once(void)
{
	const char *argv[] = {getenv("TGCTL"), "--socket", tgt_d.socket, "top", NULL};
	void *object = start_two();
	char *text = NULL, first[32], second[32];
	const char *one, *other;

	CU_ASSERT_EQUAL(tgt_run_program(argv, &text), 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(text);
	snprintf(first, sizeof(first), "  %d  ", (int)child);
	snprintf(second, sizeof(second), "  %d  ", (int)getpid());
	CU_ASSERT_EQUAL(strncmp(text, "heap        ", 12), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nclients     2 attached"));
	one = strstr(text, first);
	other = strstr(text, second);
	CU_ASSERT(one != NULL && other != NULL && one < other);
	CU_ASSERT_PTR_NULL(strchr(text, '\033'));
	free(text);
	end_two(object);
}

/* ---- on a terminal ---- */

static char seen[65536];
static size_t n_seen;

/* Reads on until the text has come, behind what has been looked at. */
static bool comes(int terminal, size_t *at, const char *text)
{
	struct pollfd ready = {.fd = terminal, .events = POLLIN};
	const char *found;
	ssize_t n;

	for (;;) {
		found = strstr(seen + *at, text);
		if (found) {
			*at = (size_t)(found - seen) + strlen(text);
			return true;
		}
		if (poll(&ready, 1, TGT_TIMEOUT_MS) != 1)
			return false;
		n = read(terminal, seen + n_seen, sizeof(seen) - 1 - n_seen);
		if (n <= 0)
			return false;
		n_seen += (size_t)n;
		seen[n_seen] = '\0';
	}
}

static pid_t start_on(const char *terminal)
{
	pid_t pid = fork();
	int fd;

	if (pid != 0)
		return pid;
	setsid();
	fd = open(terminal, O_RDWR); /* ours from now on: Ctrl-C comes to us */
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	execl(getenv("TGCTL"), "tgctl", "--socket", tgt_d.socket, "top", (char *)NULL);
	_exit(127);
}

static void goes_on_until_interrupted(void)
{
	struct winsize size = {.ws_row = 40, .ws_col = 100};
	int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	void *object;
	size_t at = 0;
	pid_t pid, worker;

	CU_ASSERT_FATAL(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
	CU_ASSERT_EQUAL(ioctl(terminal, TIOCSWINSZ, &size), 0);
	n_seen = 0;
	pid = start_on(ptsname(terminal));
	CU_ASSERT_FATAL(pid > 0);
	CU_ASSERT(comes(terminal, &at, "\nclients     1 attached"));
	CU_ASSERT(comes(terminal, &at, "\033[J"));
	object = start_two();
	CU_ASSERT(comes(terminal, &at, "\nclients     2 attached"));
	CU_ASSERT(comes(terminal, &at, "\033[J"));
	/* Another daemon serves, and it goes on; of a low terminal no line too many is used. */
	worker = tgt_daemon_worker(&tgt_d, NULL);
	CU_ASSERT_EQUAL(kill(worker, SIGKILL), 0);
	CU_ASSERT(tgt_daemon_next_worker(&tgt_d, worker) > 0);
	size.ws_row = 3;
	CU_ASSERT_EQUAL(ioctl(terminal, TIOCSWINSZ, &size), 0);
	CU_ASSERT(comes(terminal, &at, "\033[Hheap "));
	CU_ASSERT(comes(terminal, &at, "\ndaemon "));
	CU_ASSERT(comes(terminal, &at, "\n\033[J"));
	CU_ASSERT_EQUAL(write(terminal, "\003", 1), 1);
	CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	close(terminal);
	end_two(object);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"top has the status and the clients, those that hold most first",
		 json_has_status_and_clients},
		{"where there is no terminal it is printed once", text_is_printed_once},
		{"on a terminal it goes on until it is interrupted", goes_on_until_interrupted},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"top", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("tgctl_top", suites);
}
