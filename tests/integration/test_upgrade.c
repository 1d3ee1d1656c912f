/* tgctl upgrade, tgd --upgrade: another program in the daemon's place, while clients go on; and what becomes of one that
 * is no tgd.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/load.h"
#include "tests/support/peer.h"
#include "tests/support/runner.h"

#define N_OBJECTS 2000

static unsigned char *objects[N_OBJECTS];

static size_t size_of(unsigned i)
{
	return 1 + i * 37 % 20000;
}

static void make_objects(void)
{
	unsigned i;

	for (i = 0; i < N_OBJECTS; i++) {
		objects[i] = tg_malloc(size_of(i));
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
		tgt_fill_object(objects[i], size_of(i), i);
	}
	tgt_held = N_OBJECTS;
}

static void look_at_objects(void)
{
	unsigned i, n_wrong = 0;

	for (i = 0; i < N_OBJECTS; i++)
		n_wrong += !tgt_is_filled(objects[i], size_of(i), i);
	CU_ASSERT_EQUAL(n_wrong, 0);
	tgt_check(N_OBJECTS);
}

/* tgctl upgrade PROGRAM (NULL: none); its answer is the caller's. */
static json_t *upgrade(const char *program, int *ret_status)
{
	const char *args[] = {"upgrade", program, NULL};

	return tgt_tgctl(&tgt_d, args, ret_status);
}

static void expect_upgrade(const char *program)
{
	pid_t keeper, worker = tgt_daemon_worker(&tgt_d, &keeper), new_keeper;
	json_t *answer;
	int status;

	answer = upgrade(program, &status);
	CU_ASSERT_EQUAL(status, 0);
	CU_ASSERT_EQUAL(tgt_json_int(answer, "old_pid"), worker);
	CU_ASSERT_EQUAL(tgt_json_int(answer, "pid"), tgt_daemon_worker(&tgt_d, &new_keeper));
	CU_ASSERT_NOT_EQUAL(tgt_json_int(answer, "pid"), worker);
	/* It is another program by now, and the same process. */
	CU_ASSERT_EQUAL(new_keeper, keeper);
	json_decref(answer);
}

/* The program is a copy: so it can be seen which one runs. */
static void copy_program(char *path)
{
	char command[512];
	int fd = mkstemp(path);

	CU_ASSERT_FATAL(fd >= 0);
	close(fd);
	snprintf(command, sizeof(command), "cp \"$TGD\" %s && chmod 755 %s", path, path);
	CU_ASSERT_EQUAL_FATAL(system(command), 0);
}

static void program_of(pid_t pid, char *buf, size_t size)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	n = readlink(path, buf, size - 1);
	buf[n > 0 ? n : 0] = '\0';
}

/* The keeper executes the new program after the worker has said that it serves, so it may take a moment. */
static void becomes(pid_t pid, const char *path)
{
	char runs[256] = "";
	unsigned i;

	for (i = 0; i < 10000; i++) {
		program_of(pid, runs, sizeof(runs));
		if (strcmp(runs, path) == 0)
			break;
		poll(NULL, 0, 1);
	}
	CU_ASSERT_STRING_EQUAL(runs, path);
}

static void upgrade_under_load(void)
{
	struct tgt_load loads[2];
	unsigned i;

	make_objects();
	for (i = 0; i < 2; i++)
		CU_ASSERT_FATAL(tgt_load_start(&loads[i]));
	for (i = 0; i < 3; i++) {
		expect_upgrade(NULL);
		CU_ASSERT(tgt_load_goes_on(&loads[i % 2]));
	}
	for (i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(tgt_load_stop(&loads[i]), 0);
	look_at_objects();
	CU_ASSERT_EQUAL(tgt_status("restarts"), 3);
	CU_ASSERT_EQUAL(tgt_status("clients"), 1);
}

static void both_become_the_new_program(void)
{
	char path[] = "/tmp/tg-test-tgd.XXXXXX", runs[256], *output = NULL;
	const char *argv[] = {path, "--upgrade", "--socket", tgt_d.socket, NULL};
	pid_t keeper, worker;

	make_objects();
	copy_program(path);
	CU_ASSERT_EQUAL(tgt_run_program(argv, &output), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(output, "has been replaced by tgd "));
	free(output);
	worker = tgt_daemon_worker(&tgt_d, &keeper);
	program_of(worker, runs, sizeof(runs));
	CU_ASSERT_STRING_EQUAL(runs, path);
	becomes(keeper, path);
	CU_ASSERT_EQUAL(kill(worker, SIGKILL), 0);
	worker = tgt_daemon_next_worker(&tgt_d, worker);
	program_of(worker, runs, sizeof(runs));
	CU_ASSERT_STRING_EQUAL(runs, path);
	look_at_objects();
	/* What is in its place by now is run by an upgrade without a program. */
	unlink(path);
	CU_ASSERT_EQUAL(kill(worker, SIGKILL), 0);
	worker = tgt_daemon_next_worker(&tgt_d, worker);
	CU_ASSERT(worker > 0);
	expect_upgrade(getenv("TGD"));
	look_at_objects();
}

/* Programs that end at once with a failure, with success, and that never serve. */
static void what_is_no_tgd_is_not_kept(void)
{
	static const char *const programs[] = {"/bin/false", "/bin/true", "/bin/cat"};
	struct tgt_load load;
	json_t *answer;
	unsigned i;
	int status;

	make_objects();
	CU_ASSERT_FATAL(tgt_load_start(&load));
	for (i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
		answer = upgrade(programs[i], &status);
		CU_ASSERT_EQUAL(status, 1);
		CU_ASSERT_PTR_NOT_NULL(
			strstr(json_string_value(json_object_get(answer, "error")), "upgrade: "));
		json_decref(answer);
		CU_ASSERT(tgt_load_goes_on(&load));
	}
	CU_ASSERT(tgt_daemon_wait_log(&tgt_d, "the upgrade failed: "));
	expect_upgrade(NULL);
	CU_ASSERT_EQUAL(tgt_load_stop(&load), 0);
	look_at_objects();
	answer = tgt_tgctl(&tgt_d, (const char *const[]){"status", NULL}, NULL);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(answer, "upgrade_failure")), "");
	json_decref(answer);
}

static void what_cannot_be_run_is_refused(void)
{
	static const char *const programs[] = {"/nonexistent/tgd", "/etc/passwd", "/etc"};
	pid_t worker = tgt_daemon_worker(&tgt_d, NULL);
	struct tgt_peer peer;
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Admin admin = TGD__ADMIN__INIT;
	const Tgd__Reply *reply;
	json_t *answer;
	unsigned i;
	int status;

	for (i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
		answer = upgrade(programs[i], &status);
		CU_ASSERT_EQUAL(status, 1);
		json_decref(answer);
	}
	/* tgctl makes paths absolute; others may not. */
	CU_ASSERT_EQUAL_FATAL(tgt_peer_connect(&peer, tgt_d.socket), 0);
	CU_ASSERT_EQUAL(tgt_peer_hello(&peer), 0);
	admin.what = TGD__ADMIN__WHAT__UPGRADE;
	admin.path = "bin/true";
	request.body_case = TGD__REQUEST__BODY_ADMIN;
	request.admin = &admin;
	CU_ASSERT_EQUAL(tgt_peer_ask(&peer, &request, &reply), 0);
	CU_ASSERT_EQUAL(reply->error, -EINVAL);
	tgt_peer_close(&peer);
	CU_ASSERT_EQUAL(tgt_daemon_worker(&tgt_d, NULL), worker);
	CU_ASSERT_EQUAL(tgt_status("restarts"), 0);
}

static CU_TestInfo tests[] = {
	{"clients work on while the daemon is upgraded, and no call fails", upgrade_under_load},
	{"tgd --upgrade: keeper and worker become the new program", both_become_the_new_program},
	{"after a program that is no tgd the old one serves again", what_is_no_tgd_is_not_kept},
	{"what cannot be run is refused, and nothing changes", what_cannot_be_run_is_refused},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"upgrade", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("upgrade", suites);
}
