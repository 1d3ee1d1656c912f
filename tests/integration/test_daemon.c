/* The life of a daemon: how it starts and ends, what it finds and leaves, what it is told. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <CUnit/CUnit.h>

#include "tests/support/daemon.h"
#include "tests/support/peer.h"
#include "tests/support/runner.h"

static struct tgt_daemon d;
static struct tgt_peer a, b;

static void set_up(void)
{
	a.fd = b.fd = -1;
	CU_ASSERT_EQUAL_FATAL(tgt_daemon_start(&d, NULL), 0);
}

static void tear_down(void)
{
	tgt_peer_close(&a);
	tgt_peer_close(&b);
	CU_ASSERT_EQUAL(tgt_daemon_stop(&d), 0);
}

static void connect_and_greet(struct tgt_peer *peer)
{
	CU_ASSERT_EQUAL_FATAL(tgt_peer_connect(peer, d.socket), 0);
	CU_ASSERT_EQUAL_FATAL(tgt_peer_hello(peer), 0);
}

/* The error of an attach (0: none), and its client id. */
static int attach(struct tgt_peer *peer, uint32_t client_id, uint32_t *ret_id)
{
	const Tgd__Reply *reply;

	CU_ASSERT_EQUAL_FATAL(tgt_peer_attach(peer, "test", 0, client_id, &reply), 0);
	if (reply->error == 0 && ret_id != NULL)
		*ret_id = reply->attach->client_id;
	return reply->error;
}

static int admin(struct tgt_peer *peer, Tgd__Admin__What what, uint64_t value)
{
	const Tgd__Reply *reply;

	CU_ASSERT_EQUAL_FATAL(tgt_peer_admin(peer, what, value, &reply), 0);
	return reply->error;
}

static Tgd__Status status_of(struct tgt_peer *peer)
{
	const Tgd__Reply *reply;

	CU_ASSERT_EQUAL_FATAL(tgt_peer_admin(peer, TGD__ADMIN__WHAT__STATUS, 0, &reply), 0);
	CU_ASSERT_EQUAL_FATAL(reply->body_case, TGD__REPLY__BODY_STATUS);
	return *reply->status;
}

/* Runs tgd to its end with these arguments: status, and its output for `has`. */
static char *output;

static int run_tgd(const char *first, const char *second, const char *third, const char *fourth)
{
	const char *argv[] = {getenv("TGD"), first, second, third, fourth, NULL};

	free(output);
	return tgt_run_program(argv, &output);
}

static bool output_has(const char *text)
{
	bool has = output != NULL && strstr(output, text) != NULL;

	if (!has)
		fprintf(stderr, "not \"%s\" in: %s\n", text, output != NULL ? output : "(nothing)");
	return has;
}

static int free_output(void)
{
	free(output);
	output = NULL;
	return 0;
}

/* ---- start and end ---- */

static void sigterm_ends_it_with_status_0_and_removes_its_files(void)
{
	struct stat st;
	char lock[96];

	snprintf(lock, sizeof(lock), "%s.lock", d.socket);
	CU_ASSERT_EQUAL(tgt_peer_good_client(d.socket), 0);
	CU_ASSERT_EQUAL(stat(d.socket, &st), 0);
	CU_ASSERT(S_ISSOCK(st.st_mode));
	CU_ASSERT_EQUAL(st.st_mode & 0777, 0600);
	CU_ASSERT_EQUAL(stat(lock, &st), 0);
	kill(d.pid, SIGTERM);
	CU_ASSERT_EQUAL(tgt_daemon_wait(&d), 0);
	CU_ASSERT_EQUAL(stat(d.socket, &st), -1);
	CU_ASSERT_EQUAL(stat(lock, &st), -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(tgt_daemon_log(&d), "ended"));
}

static void sigint_and_stop_end_it_with_status_0_too(void)
{
	kill(d.pid, SIGINT);
	CU_ASSERT_EQUAL(tgt_daemon_wait(&d), 0);
	tear_down();
	set_up();
	connect_and_greet(&a);
	CU_ASSERT_EQUAL(admin(&a, TGD__ADMIN__WHAT__STOP, 0), 0);
	CU_ASSERT(tgt_peer_at_end(&a));
	CU_ASSERT_EQUAL(tgt_daemon_wait(&d), 0);
}

static void a_second_daemon_on_the_socket_is_told_who_has_it(void)
{
	char pid[32];

	CU_ASSERT_EQUAL(run_tgd("--socket", d.socket, NULL, NULL), 1);
	snprintf(pid, sizeof(pid), "another tgd (pid %d)", (int)d.pid);
	CU_ASSERT(output_has(pid));
	CU_ASSERT(output_has(d.socket));
	CU_ASSERT_EQUAL(tgt_peer_good_client(d.socket), 0);
}

static void what_a_killed_daemon_left_is_taken_over(void)
{
	const char *const args[] = {"--socket", d.socket, NULL};
	struct tgt_daemon next;

	tgt_daemon_kill(&d);
	CU_ASSERT_EQUAL(access(d.socket, F_OK), 0);
	CU_ASSERT_EQUAL_FATAL(tgt_daemon_start(&next, args), 0);
	CU_ASSERT_EQUAL(tgt_peer_good_client(d.socket), 0);
	CU_ASSERT_EQUAL(tgt_daemon_stop(&next), 0);
}

static void a_file_that_is_no_socket_is_not_touched(void)
{
	struct stat st;
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "%s/file", d.dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CU_ASSERT_FATAL(fd >= 0);
	close(fd);
	CU_ASSERT_EQUAL(run_tgd("--socket", path, NULL, NULL), 1);
	CU_ASSERT(output_has("is no socket"));
	CU_ASSERT_EQUAL(stat(path, &st), 0);
	CU_ASSERT(S_ISREG(st.st_mode));

	snprintf(path, sizeof(path), "%s/none/s", d.dir);
	CU_ASSERT_EQUAL(run_tgd("--socket", path, NULL, NULL), 1);
	CU_ASSERT(output_has("No such file or directory"));
}

static void wrong_use_and_a_wrong_config_are_errors_with_their_place(void)
{
	char path[96], place[128];
	FILE *file;

	CU_ASSERT_EQUAL(run_tgd("--limit", "much", NULL, NULL), 2);
	CU_ASSERT(output_has("tgd: --limit: \"much\" is not a size"));
	CU_ASSERT_EQUAL(run_tgd("--no-such", NULL, NULL, NULL), 2);
	CU_ASSERT(output_has("no option --no-such"));

	snprintf(path, sizeof(path), "%s/conf", d.dir);
	file = fopen(path, "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(file);
	fputs("# of a test\nheap = x\nlimits = 1G\n", file);
	fclose(file);
	CU_ASSERT_EQUAL(run_tgd("--config", path, NULL, NULL), 2);
	snprintf(place, sizeof(place), "%s:3: there is no key \"limits\"", path);
	CU_ASSERT(output_has(place));

	CU_ASSERT_EQUAL(run_tgd("--help", NULL, NULL, NULL), 0);
	CU_ASSERT(output_has("--idle-exit SECONDS"));
	CU_ASSERT_EQUAL(run_tgd("--version", NULL, NULL, NULL), 0);
	CU_ASSERT(output_has("tgd "));
}

static void idle_exit_ends_it_when_no_client_is_attached_and_not_before(void)
{
	const char *const args[] = {"--idle-exit", "1", NULL};
	struct pollfd p = {.events = POLLIN};

	CU_ASSERT_EQUAL(tgt_daemon_stop(&d), 0);
	CU_ASSERT_EQUAL_FATAL(tgt_daemon_start(&d, args), 0);
	connect_and_greet(&a);
	CU_ASSERT_EQUAL(attach(&a, 0, NULL), 0);
	/* An attached client keeps it, even one that says nothing for longer than that. */
	p.fd = (int)syscall(SYS_pidfd_open, d.pid, 0);
	CU_ASSERT_EQUAL(poll(&p, 1, 1500), 0);
	close(p.fd);
	CU_ASSERT_EQUAL(tgt_peer_detach(&a), 0);
	CU_ASSERT_EQUAL(tgt_daemon_wait(&d), 0);
	CU_ASSERT_PTR_NOT_NULL(
		strstr(tgt_daemon_log(&d), "ending: no client was attached for 1 s"));
}

static void write_limit(const char *path, const char *limit)
{
	FILE *file = fopen(path, "w");

	CU_ASSERT_PTR_NOT_NULL_FATAL(file);
	fprintf(file, "limit = %s\nreserve = 1G\nheap = named\n", limit);
	fclose(file);
}

static void sighup_reads_the_limit_again(void)
{
	char path[] = "/tmp/tgd-config.XXXXXX";
	const char *const args[] = {"--config", path, NULL};
	int fd = mkstemp(path);

	CU_ASSERT_FATAL(fd >= 0);
	close(fd);
	CU_ASSERT_EQUAL(tgt_daemon_stop(&d), 0);
	write_limit(path, "128M");
	CU_ASSERT_EQUAL_FATAL(tgt_daemon_start(&d, args), 0);
	connect_and_greet(&a);
	CU_ASSERT_EQUAL(status_of(&a).limit_bytes, UINT64_C(128) << 20);
	CU_ASSERT_STRING_EQUAL(status_of(&a).heap, "named");

	write_limit(path, "256M");
	kill(d.pid, SIGHUP);
	CU_ASSERT(tgt_daemon_wait_log(&d, "the limit is 256 MiB now"));
	CU_ASSERT_EQUAL(status_of(&a).limit_bytes, UINT64_C(256) << 20);

	write_limit(path, "garbage");
	kill(d.pid, SIGHUP);
	CU_ASSERT(tgt_daemon_wait_log(&d, "nothing is changed: /tmp/tgd-config"));
	CU_ASSERT_EQUAL(status_of(&a).limit_bytes, UINT64_C(256) << 20);
	CU_ASSERT_EQUAL(tgt_peer_good_client(d.socket), 0);
	unlink(path);
}

static void tgctl_asks_and_gets_answers(void)
{
	int status = -1;
	json_t *answer = tgt_tgctl(&d, (const char *const[]){"status", NULL}, &status);

	CU_ASSERT_EQUAL(status, 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(answer);
	CU_ASSERT_EQUAL(tgt_json_int(answer, "keeper_pid"), d.pid);
	CU_ASSERT_EQUAL(tgt_json_int(answer, "restarts"), 0);
	CU_ASSERT_EQUAL(tgt_json_int(answer, "clients"), 0);
	json_decref(answer);
	answer = tgt_tgctl(&d, (const char *const[]){"check", NULL}, &status);
	CU_ASSERT_EQUAL(status, 0);
	CU_ASSERT(json_is_true(json_object_get(answer, "ok")));
	CU_ASSERT_EQUAL(tgt_json_int(answer, "objects"), 0);
	json_decref(answer);
}

static CU_TestInfo life_tests[] = {
	{"SIGTERM ends it with status 0 and removes its files",
	 sigterm_ends_it_with_status_0_and_removes_its_files},
	{"SIGINT and stop end it with status 0, too", sigint_and_stop_end_it_with_status_0_too},
	{"a second daemon on the socket is told who has it",
	 a_second_daemon_on_the_socket_is_told_who_has_it},
	{"what a killed daemon left is taken over", what_a_killed_daemon_left_is_taken_over},
	{"a file that is no socket is not touched", a_file_that_is_no_socket_is_not_touched},
	{"wrong use and a wrong config are errors with their place",
	 wrong_use_and_a_wrong_config_are_errors_with_their_place},
	{"--idle-exit ends it when no client is attached, and not before",
	 idle_exit_ends_it_when_no_client_is_attached_and_not_before},
	{"SIGHUP reads the limit again", sighup_reads_the_limit_again},
	{"tgctl asks and gets answers", tgctl_asks_and_gets_answers},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"life of the daemon", NULL, free_output, set_up, tear_down, life_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("daemon", suites);
}
