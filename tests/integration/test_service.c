/* Under a service manager: the daemon tells it who is to be watched, hands it copies of the memory files, and gets them back
 * at the next start.  The manager here is this test: a datagram socket, and three variables of the environment.
 */
#include <CUnit/CUnit.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define N_OBJECTS    1000
#define FIRST_PASSED 3 /* as the protocol has it */

static int manager = -1;
static char dir[] = "/tmp/tg-test-service.XXXXXX";
static char path[64], script[64], message[1024];
static int stored[2]; /* map, heap */
static unsigned n_stored;
static void *objects[N_OBJECTS];

/* ---- the manager ---- */

static void make_manager(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/notify", dir);
	snprintf(script, sizeof(script), "%s/tgd", dir);
	strcpy(address.sun_path, path);
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_EQUAL_FATAL(bind(manager, (struct sockaddr *)&address, sizeof(address)), 0);
	setenv("NOTIFY_SOCKET", path, 1);
	n_stored = 0;
}

static void end_manager(void)
{
	unsetenv("NOTIFY_SOCKET");
	close(manager);
	while (n_stored > 0)
		close(stored[--n_stored]);
	unlink(path);
	unlink(script);
	rmdir(dir);
}

/* The next message is in `message`, its descriptor in the result (-1: none). */
static int hear(void)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = message, .iov_len = sizeof(message) - 1};
	struct msghdr head = {.msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes)};
	struct pollfd p = {.fd = manager, .events = POLLIN};
	ssize_t n = -1;
	int fd = -1;

	if (poll(&p, 1, TGT_TIMEOUT_MS) == 1)
		n = recvmsg(manager, &head, MSG_CMSG_CLOEXEC);
	message[n > 0 ? n : 0] = '\0';
	if (n > 0 && CMSG_FIRSTHDR(&head) != NULL)
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&head)), sizeof(fd));
	return fd;
}

static bool says(const char *text)
{
	bool is_there = strstr(message, text) != NULL;

	if (!is_there)
		printf("\n    heard \"%s\", not \"%s\"\n", message, text);
	return is_there;
}

static bool says_main_pid(pid_t pid)
{
	char text[32];

	snprintf(text, sizeof(text), "MAINPID=%d", (int)pid);
	return says("READY=1") && says(text);
}

static bool hears_nothing(void)
{
	struct pollfd p = {.fd = manager, .events = POLLIN};

	return poll(&p, 1, 0) == 0;
}

static void hear_start(void)
{
	static const char *const names[] = {"FDNAME=tg-map", "FDNAME=tg-heap"};
	unsigned i;
	int fd;

	for (i = 0; i < 2; i++) {
		fd = hear();
		CU_ASSERT_FATAL(fd >= 0);
		CU_ASSERT(says("FDSTORE=1"));
		CU_ASSERT(says(names[i]));
		stored[n_stored++] = fd;
	}
	CU_ASSERT_EQUAL(hear(), -1);
	CU_ASSERT(says_main_pid(tgt_d.pid));
}

/* ---- tests ---- */

static void set_up(void)
{
	make_manager();
	tgt_set_up();
}

static void make_objects(void)
{
	unsigned i;

	for (i = 0; i < N_OBJECTS; i++) {
		objects[i] = tg_malloc(10 + i * 13);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
		tgt_fill_object(objects[i], 10 + i * 13, i);
	}
	tgt_held = N_OBJECTS;
}

static void look_at_objects(void)
{
	unsigned i, n_wrong = 0;

	for (i = 0; i < N_OBJECTS; i++)
		n_wrong += !tgt_is_filled(objects[i], 10 + i * 13, i);
	CU_ASSERT_EQUAL(n_wrong, 0);
	CU_ASSERT_PTR_NOT_NULL(tg_malloc(50000));
	tgt_held++;
	tgt_check(tgt_held);
}

static void tear_down(void)
{
	tgt_tear_down();
	end_manager();
}

/* A program in whose name tgd is run as a manager would: by its pid, with the descriptors. */
static void write_script(const char *tgd)
{
	FILE *file = fopen(script, "w");

	CU_ASSERT_PTR_NOT_NULL_FATAL(file);
	fprintf(file,
		"#!/bin/sh\nexport LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=tg-map:tg-heap\n"
		"exec %s \"$@\"\n",
		tgd);
	fclose(file);
	CU_ASSERT_EQUAL(chmod(script, 0755), 0);
}

/* Starts another daemon with what is stored, on the socket of the last one. */
static int start_again(void)
{
	static char old_socket[sizeof(tgt_d.socket)];
	const char *const args[] = {"--socket", old_socket, NULL};
	char *tgd = strdup(getenv("TGD"));
	unsigned i;
	int r;

	strcpy(old_socket, tgt_d.socket);
	(void)tgt_daemon_stop(&tgt_d);
	write_script(tgd);
	setenv("TGD", script, 1);
	/* Its directory went with the last one. */
	*strrchr(old_socket, '/') = '\0';
	mkdir(old_socket, 0700);
	old_socket[strlen(old_socket)] = '/';
	for (i = 0; i < 2; i++)
		dup2(stored[i], FIRST_PASSED + (int)i);
	r = tgt_daemon_start(&tgt_d, args);
	for (i = 0; i < 2; i++)
		dup2(STDIN_FILENO, FIRST_PASSED + (int)i);
	setenv("TGD", tgd, 1);
	free(tgd);
	strcpy(tgt_d.socket, old_socket);
	return r;
}

static void heap_survives_the_end_of_both(void)
{
	char old_dir[sizeof(tgt_d.dir)];

	hear_start();
	make_objects();
	strcpy(old_dir, tgt_d.dir);
	tgt_daemon_kill(&tgt_d);
	CU_ASSERT_EQUAL_FATAL(start_again(), 0);
	CU_ASSERT_EQUAL(hear(), -1);
	CU_ASSERT(says_main_pid(tgt_d.pid));
	CU_ASSERT_PTR_NOT_NULL(strstr(tgt_daemon_log(&tgt_d), "has kept a heap for us"));
	look_at_objects();
	/* And that one is kept like any other. */
	CU_ASSERT_EQUAL(kill(tgt_daemon_worker(&tgt_d, NULL), SIGKILL), 0);
	look_at_objects();
	CU_ASSERT_EQUAL(hear(), -1);
	CU_ASSERT(says_main_pid(tgt_d.pid));
	/* Its files are in the directory of the first. */
	CU_ASSERT_EQUAL(tg_detach(), 0);
	CU_ASSERT_EQUAL(tg_attach(NULL), 0);
	tgt_check(tgt_held);
	CU_ASSERT_EQUAL(tg_detach(), 0);
	CU_ASSERT_EQUAL(tgt_daemon_stop(&tgt_d), 0);
	CU_ASSERT_EQUAL(rmdir(old_dir), 0);
	CU_ASSERT(hears_nothing());
	end_manager();
	make_manager();
	tgt_set_up();
}

static void manager_is_told_of_a_new_keeper(void)
{
	pid_t keeper;

	hear_start();
	CU_ASSERT_EQUAL(kill(tgt_d.pid, SIGKILL), 0);
	keeper = tgt_daemon_next_keeper(&tgt_d, tgt_d.pid);
	CU_ASSERT_FATAL(keeper > 0);
	CU_ASSERT_EQUAL(hear(), -1);
	CU_ASSERT(says_main_pid(keeper));
	CU_ASSERT_EQUAL(tg_detach(), 0);
	CU_ASSERT_EQUAL(kill(keeper, SIGTERM), 0);
	CU_ASSERT(tgt_has_ended(keeper));
	CU_ASSERT_EQUAL(waitpid(tgt_d.pid, NULL, 0), tgt_d.pid);
	tgt_d.pid = 0;
	CU_ASSERT_EQUAL(tgt_daemon_stop(&tgt_d), 0);
	/* A signal may come before a restart: the manager keeps what it has. */
	CU_ASSERT(hears_nothing());
	tgt_set_up();
}

static void a_heap_that_is_not_wanted_any_more_is_taken_from_the_store(void)
{
	static const char *const stop[] = {"stop", NULL};
	int status;

	hear_start();
	CU_ASSERT_EQUAL(tg_detach(), 0);
	json_decref(tgt_tgctl(&tgt_d, stop, &status));
	CU_ASSERT_EQUAL(status, 0);
	CU_ASSERT_EQUAL(hear(), -1);
	CU_ASSERT(says("FDSTOREREMOVE=1") && says("FDNAME=tg-map"));
	CU_ASSERT_EQUAL(hear(), -1);
	CU_ASSERT(says("FDSTOREREMOVE=1") && says("FDNAME=tg-heap"));
	CU_ASSERT_EQUAL(tgt_daemon_wait(&tgt_d), 0);
	CU_ASSERT_EQUAL(tgt_daemon_stop(&tgt_d), 0);
	tgt_set_up();
}

static CU_TestInfo tests[] = {
	{"a heap that the manager keeps survives the end of keeper and worker",
	 heap_survives_the_end_of_both},
	{"the manager is told of a new keeper", manager_is_told_of_a_new_keeper},
	{"a heap that is not wanted any more is taken from the store",
	 a_heap_that_is_not_wanted_any_more_is_taken_from_the_store},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"service", NULL, NULL, set_up, tear_down, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	/* Nobody else gets the numbers under which descriptors are passed. */
	dup2(STDIN_FILENO, FIRST_PASSED);
	dup2(STDIN_FILENO, FIRST_PASSED + 1);
	return tgt_run("service", suites);
}
