/* The daemon is two processes.  Either may be killed at any time, and the heap is the same afterwards: objects, roots,
 * clients; who dies meanwhile is recovered; an orderly end ends both.
 */
#include <CUnit/CUnit.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/load.h"
#include "tests/support/runner.h"

#define N_OBJECTS 3000

static void *objects[N_OBJECTS];

static size_t size_of(unsigned i)
{
	static const size_t sizes[] = {3, 16, 100, 700, 5000, 40000};

	return sizes[i % (sizeof(sizes) / sizeof(sizes[0]))];
}

static void make_objects(void)
{
	unsigned i;

	for (i = 0; i < N_OBJECTS; i++) {
		objects[i] = tg_malloc(size_of(i));
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
		tgt_fill_object(objects[i], size_of(i), i);
	}
	CU_ASSERT_EQUAL(tg_root_set("first", objects[1]), 0);
	tgt_held = N_OBJECTS;
}

/* All are there; some go, and as many come. */
static void use_objects(void)
{
	unsigned i, n_wrong = 0;

	CU_ASSERT_PTR_EQUAL(tg_root_get("first"), objects[1]);
	for (i = 0; i < N_OBJECTS; i++)
		n_wrong += !tgt_is_filled(objects[i], size_of(i), i);
	CU_ASSERT_EQUAL(n_wrong, 0);
	for (i = 2; i < N_OBJECTS; i += 3)
		tg_free(objects[i]);
	for (i = 2; i < N_OBJECTS; i += 3) {
		objects[i] = tg_malloc(size_of(i));
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
		tgt_fill_object(objects[i], size_of(i), i);
	}
	tgt_check(tgt_held);
}

static void kill_worker(void)
{
	pid_t worker = tgt_daemon_worker(&tgt_d, NULL);

	CU_ASSERT_FATAL(worker > 0);
	CU_ASSERT_EQUAL(kill(worker, SIGKILL), 0);
	CU_ASSERT(tgt_daemon_next_worker(&tgt_d, worker) > 0);
}

static void kill_keeper(void)
{
	pid_t keeper, worker = tgt_daemon_worker(&tgt_d, &keeper);

	CU_ASSERT_FATAL(worker > 0 && keeper > 0);
	CU_ASSERT_EQUAL(kill(keeper, SIGKILL), 0);
	CU_ASSERT(tgt_daemon_next_keeper(&tgt_d, keeper) > 0);
	CU_ASSERT_EQUAL(tgt_daemon_worker(&tgt_d, NULL), worker);
}

/* ---- deaths ---- */

static void worker_is_killed(void)
{
	make_objects();
	kill_worker();
	use_objects();
	CU_ASSERT_EQUAL(tgt_status("restarts"), 1);
	CU_ASSERT_EQUAL(tgt_status("keeper_pid"), tgt_d.pid);
	CU_ASSERT_EQUAL(tgt_status("clients"), 1);
	CU_ASSERT_EQUAL(tgt_status("recovered_clients"), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(tgt_daemon_log(&tgt_d), "was ended by signal 9"));
}

static void worker_is_killed_while_others_work(void)
{
	struct tgt_load load;
	unsigned i;

	make_objects();
	CU_ASSERT_FATAL(tgt_load_start(&load));
	for (i = 0; i < 5; i++) {
		kill_worker();
		CU_ASSERT(tgt_load_goes_on(&load));
	}
	CU_ASSERT_EQUAL(tgt_load_stop(&load), 0);
	use_objects();
	CU_ASSERT_EQUAL(tgt_status("restarts"), 5);
}

struct victim {
	struct tgt_meeting meeting;
};

static void be_victim(void *arg)
{
	const struct tg_options options = {.size = sizeof(options), .flags = TG_RECLAIM};
	struct victim *victim = arg;
	unsigned i;

	/* What a fork inherits is the parent's way of attaching. */
	TGT_REQUIRE(tg_detach() == 0);
	TGT_REQUIRE(tg_attach(&options) == 0);
	for (i = 0; i < 1000; i++)
		TGT_REQUIRE(tg_malloc(size_of(i)) != NULL);
	tgt_tell_parent(&victim->meeting);
	(void)tgt_wait_parent_said(&victim->meeting);
}

/* The keeper is stopped, so that no worker follows before the client is dead. */
static void client_dies_while_no_worker_runs(void)
{
	pid_t keeper, worker = tgt_daemon_worker(&tgt_d, &keeper), client;
	struct victim victim;

	make_objects();
	CU_ASSERT_FATAL(tgt_meeting_open(&victim.meeting));
	client = tgt_fork(be_victim, &victim);
	CU_ASSERT(tgt_wait_child_said(&victim.meeting));
	CU_ASSERT_EQUAL(tgt_check_number("objects"), N_OBJECTS + 1000);
	CU_ASSERT_EQUAL(kill(keeper, SIGSTOP), 0);
	CU_ASSERT_EQUAL(kill(worker, SIGKILL), 0);
	CU_ASSERT(tgt_has_ended(worker));
	kill(client, SIGKILL);
	CU_ASSERT_EQUAL(tgt_wait(client), 128 + SIGKILL);
	CU_ASSERT_EQUAL(kill(keeper, SIGCONT), 0);
	CU_ASSERT(tgt_daemon_next_worker(&tgt_d, worker) > 0);
	CU_ASSERT_EQUAL(tgt_status("recovered_clients"), 1);
	CU_ASSERT_PTR_NOT_NULL(strstr(tgt_daemon_log(&tgt_d), "ended while no daemon served"));
	use_objects();
	tgt_meeting_close(&victim.meeting);
}

static void keeper_is_killed_and_then_the_worker(void)
{
	make_objects();
	kill_keeper();
	use_objects();
	kill_worker();
	use_objects();
	CU_ASSERT_EQUAL(tgt_status("restarts"), 1);
	kill_keeper();
	kill_keeper();
	kill_worker();
	use_objects();
}

static void ten_kills_in_a_row(void)
{
	unsigned i;

	make_objects();
	for (i = 0; i < 10; i++) {
		if (i % 3 == 1)
			kill_keeper();
		else
			kill_worker();
	}
	use_objects();
	CU_ASSERT_EQUAL(tgt_status("clients"), 1);
}

/* Killed before it serves, again and again: the keeper waits a little longer each time, and does not give up. */
static void workers_that_die_at_once_are_followed_by_others(void)
{
	pid_t worker = tgt_daemon_worker(&tgt_d, NULL), last;
	unsigned i;

	make_objects();
	for (i = 0; i < 6; i++) {
		CU_ASSERT_FATAL(worker > 0);
		last = worker;
		kill(worker, SIGKILL);
		worker = tgt_daemon_next_worker(&tgt_d, last);
	}
	CU_ASSERT(tgt_daemon_wait_log(&tgt_d, "as this one was soon dead"));
	use_objects();
}

/* ---- ends ---- */

/* After the death of the keeper that was started, nobody can be waited for. */
static void tear_down_orphans(void)
{
	pid_t keeper, worker = tgt_daemon_worker(&tgt_d, &keeper);

	tgt_check(tgt_held);
	CU_ASSERT_EQUAL(tg_detach(), 0);
	if (keeper == tgt_d.pid) {
		CU_ASSERT_EQUAL(tgt_daemon_stop(&tgt_d), 0);
		return;
	}
	kill(keeper, SIGTERM);
	CU_ASSERT(tgt_has_ended(keeper));
	CU_ASSERT(tgt_has_ended(worker));
	CU_ASSERT_EQUAL(waitpid(tgt_d.pid, NULL, 0), tgt_d.pid);
	tgt_d.pid = 0;
	CU_ASSERT_EQUAL(tgt_daemon_stop(&tgt_d), 0);
	unsetenv("TG_SOCKET");
}

static void nothing_is_left(void)
{
	char lock[96];

	snprintf(lock, sizeof(lock), "%s.lock", tgt_d.socket);
	CU_ASSERT_EQUAL(access(tgt_d.socket, F_OK), -1);
	CU_ASSERT_EQUAL(access(lock, F_OK), -1);
}

static void sigterm_ends_both(void)
{
	pid_t worker = tgt_daemon_worker(&tgt_d, NULL);

	CU_ASSERT_EQUAL(kill(tgt_d.pid, SIGTERM), 0);
	CU_ASSERT_EQUAL(tgt_daemon_wait(&tgt_d), 0);
	CU_ASSERT(tgt_has_ended(worker));
	nothing_is_left();
}

static void sigterm_to_the_worker_ends_both_too(void)
{
	CU_ASSERT_EQUAL(kill(tgt_daemon_worker(&tgt_d, NULL), SIGTERM), 0);
	CU_ASSERT_EQUAL(tgt_daemon_wait(&tgt_d), 0);
	nothing_is_left();
}

static void sigterm_ends_a_stopped_worker(void)
{
	pid_t worker = tgt_daemon_worker(&tgt_d, NULL);

	CU_ASSERT_EQUAL(kill(worker, SIGSTOP), 0);
	CU_ASSERT_EQUAL(kill(tgt_d.pid, SIGTERM), 0);
	CU_ASSERT_EQUAL(tgt_daemon_wait(&tgt_d), 0);
	CU_ASSERT(tgt_has_ended(worker));
	nothing_is_left();
}

static void a_new_keeper_ends_its_worker_too(void)
{
	pid_t keeper, worker = tgt_daemon_worker(&tgt_d, NULL);

	CU_ASSERT_EQUAL(kill(tgt_d.pid, SIGKILL), 0);
	CU_ASSERT_EQUAL(tgt_daemon_wait(&tgt_d), 128 + SIGKILL);
	keeper = tgt_daemon_next_keeper(&tgt_d, 0);
	CU_ASSERT_FATAL(keeper > 0);
	CU_ASSERT_EQUAL(kill(keeper, SIGTERM), 0);
	CU_ASSERT(tgt_has_ended(keeper));
	CU_ASSERT(tgt_has_ended(worker));
	nothing_is_left();
}

static void a_first_start_that_fails_leaves_nothing(void)
{
	char command[512], *output = NULL;
	const char *argv[] = {"/bin/sh", "-c", command, NULL};

	/* The addresses that a sanitizer reserves are more than the limit below. */
	if (tgt_has_sanitizer())
		return;
	CU_ASSERT_EQUAL(tgt_daemon_stop(&tgt_d), 0);
	snprintf(tgt_d.socket, sizeof(tgt_d.socket), "/tmp/tg-test-restart.%d", (int)getpid());
	/* No process of its may have so many addresses. */
	snprintf(command, sizeof(command),
		 "ulimit -v 4000000; exec \"$TGD\" --socket %s --reserve 1T", tgt_d.socket);
	CU_ASSERT_EQUAL(tgt_run_program(argv, &output), 1);
	CU_ASSERT_PTR_NOT_NULL_FATAL(output);
	CU_ASSERT_PTR_NOT_NULL(strstr(output, "cannot start"));
	free(output);
	nothing_is_left();
}

/* Finds the map among the keeper's descriptors, as only its user and root can. */
static int find_map(pid_t keeper)
{
	char path[64], name[128];
	ssize_t n;
	int fd;

	for (fd = 0; fd < 64; fd++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)keeper, fd);
		n = readlink(path, name, sizeof(name) - 1);
		name[n > 0 ? n : 0] = '\0';
		if (strstr(name, "memfd:tg-map") == NULL)
			continue;
		chmod(path, 0600);
		return open(path, O_RDWR | O_CLOEXEC);
	}
	return -1;
}

/* The worker may serve before the keeper has read what it was sent. */
static int open_map(pid_t keeper)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;
	int map;

	do
		map = find_map(keeper);
	while (map < 0 && tgt_now_ms() < deadline);
	return map;
}

static void a_map_that_is_none_is_refused(void)
{
	static const char garbage[64] = "this is no map";
	int map = open_map(tgt_d.pid);

	CU_ASSERT_FATAL(map >= 0);
	CU_ASSERT_EQUAL(pwrite(map, garbage, sizeof(garbage), 0), sizeof(garbage));
	close(map);
	CU_ASSERT_EQUAL(kill(tgt_daemon_worker(&tgt_d, NULL), SIGKILL), 0);
	CU_ASSERT_EQUAL(tgt_daemon_wait(&tgt_d), 1);
	CU_ASSERT_PTR_NOT_NULL(strstr(tgt_daemon_log(&tgt_d), "the heap is given up: "));
	nothing_is_left();
}

static void write_config(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	CU_ASSERT_PTR_NOT_NULL_FATAL(file);
	fputs(text, file);
	fclose(file);
}

static void a_config_file_that_was_broken_meanwhile_does_no_harm(void)
{
	char path[] = "/tmp/tg-test-config.XXXXXX";
	const char *const args[] = {"--config", path, NULL};
	int fd = mkstemp(path);

	CU_ASSERT_FATAL(fd >= 0);
	close(fd);
	CU_ASSERT_EQUAL(tgt_daemon_stop(&tgt_d), 0);
	write_config(path, "heap = mine\nlimit = 256M\nreserve = 1G\nmode = 0666\n");
	tgt_set_up_with(args, NULL);
	make_objects();
	write_config(path, "heap = other\nsocket = /nowhere\n");
	kill_worker();
	use_objects();
	write_config(path, "garbage\n");
	kill_worker();
	use_objects();
	kill_keeper();
	kill_worker();
	use_objects();
	CU_ASSERT_EQUAL(tgt_status("limit_bytes"), 256LL << 20);
	CU_ASSERT_PTR_NOT_NULL(strstr(tgt_daemon_log(&tgt_d), "goes on without the config file"));
	unlink(path);
	tear_down_orphans();
}

/* ---- suites ---- */

static void set_up_daemon(void)
{
	tgt_set_up_daemon(NULL);
}

static void tear_down_daemon(void)
{
	CU_ASSERT_EQUAL(tgt_daemon_stop(&tgt_d), 0);
	unsetenv("TG_SOCKET");
}

static CU_TestInfo death_tests[] = {
	{"the worker is killed and the next serves the same heap", worker_is_killed},
	{"workers are killed while a client works, no call of which fails",
	 worker_is_killed_while_others_work},
	{"a client that dies while no worker runs is recovered by the next",
	 client_dies_while_no_worker_runs},
	{"workers that die at once are followed by others",
	 workers_that_die_at_once_are_followed_by_others},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo orphan_tests[] = {
	{"the keeper is killed, and then the worker", keeper_is_killed_and_then_the_worker},
	{"ten kills in a row lose nothing", ten_kills_in_a_row},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo end_tests[] = {
	{"SIGTERM to the keeper ends both", sigterm_ends_both},
	{"SIGTERM to the worker ends both, too", sigterm_to_the_worker_ends_both_too},
	{"SIGTERM ends a worker that is stopped", sigterm_ends_a_stopped_worker},
	{"SIGTERM to a keeper that a worker made ends both", a_new_keeper_ends_its_worker_too},
	{"a first start that fails leaves nothing, and has status 1",
	 a_first_start_that_fails_leaves_nothing},
	{"a map that is none is refused, and the daemon ends with status 1",
	 a_map_that_is_none_is_refused},
	{"a config file that was broken meanwhile does no harm",
	 a_config_file_that_was_broken_meanwhile_does_no_harm},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"one dies", NULL, NULL, tgt_set_up, tgt_tear_down, death_tests},
	{"the keeper dies", NULL, NULL, tgt_set_up, tear_down_orphans, orphan_tests},
	{"ends", NULL, NULL, set_up_daemon, tear_down_daemon, end_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("restart", suites);
}
