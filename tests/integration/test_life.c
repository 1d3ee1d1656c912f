/* test_life - what a process may do to itself while it is a client: lose all its descriptors, fork and spawn while its
 * threads are at work, fork and die.  The stories run under both policies.
 */
#include <CUnit/CUnit.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"
#include "tests/support/things.h"

/* The number that the daemon knows this process by; -1: none. */
static long long own_client_id(void)
{
	const char *const args[] = {"clients", NULL};
	json_t *answer = tgt_tgctl(&tgt_d, args, NULL), *client;
	long long id = -1;
	size_t i;

	json_array_foreach (json_object_get(answer, "clients"), i, client) {
		if (tgt_json_int(client, "pid") == getpid())
			id = tgt_json_int(client, "id");
	}
	json_decref(answer);
	return id;
}

/* ---- all descriptors closed ---- */

enum how { CLOSEFROM, CLOSE_RANGE, CLOSE_AND_OPEN_OTHERS, CLOSE_AND_DIE, N_HOW };

static pthread_barrier_t meet;

/* Has a cache of its own before and after. */
static void *beside_it(void *arg)
{
	void *before = tg_malloc(300), *after;

	(void)arg;
	TGT_REQUIRE(before != NULL);
	tgt_fill_object(before, 300, 5);
	pthread_barrier_wait(&meet);
	pthread_barrier_wait(&meet);
	after = tg_malloc(30000);
	TGT_EXPECT(after != NULL && tgt_is_filled(before, 300, 5));
	tg_free(before);
	tg_free(after);
	return NULL;
}

/* A file on every number that the connection may have had. */
static int open_others(char *path, size_t size)
{
	int fd, i;

	snprintf(path, size, "%s/victim", tgt_d.dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	TGT_REQUIRE(fd >= 0);
	for (i = fd + 1; i < 300; i++)
		TGT_EXPECT(dup2(fd, i) == i);
	return fd;
}

static void close_all(enum how how)
{
	if (how == CLOSE_RANGE)
		TGT_REQUIRE(syscall(SYS_close_range, 3, ~0u, 0) == 0);
	else
		closefrom(3);
}

static void lose_descriptors(void *arg)
{
	enum how how = *(enum how *)arg;
	struct tg_stats before, after;
	char path[128] = "";
	pthread_t thread;
	int file = -1;
	long long id;
	void *large;

	tgt_things_make();
	TGT_REQUIRE(pthread_barrier_init(&meet, NULL, 2) == 0);
	TGT_REQUIRE(pthread_create(&thread, NULL, beside_it, NULL) == 0);
	pthread_barrier_wait(&meet);
	id = own_client_id();
	before = tgt_stats();
	close_all(how);
	if (how == CLOSE_AND_OPEN_OTHERS)
		file = open_others(path, sizeof(path));
	tgt_things_check();
	TGT_EXPECT(own_client_id() == id);
	if (how == CLOSE_AND_DIE)
		raise(SIGKILL);

	/* Asks the daemon. */
	large = tg_malloc(3 << 20);
	TGT_EXPECT(large != NULL);
	after = tgt_stats();
	TGT_EXPECT(after.reconnects == 1 && own_client_id() == id);
	TGT_EXPECT(after.threads == before.threads && after.spans == before.spans + 1);
	TGT_EXPECT(file < 0 || (lseek(file, 0, SEEK_END) == 0 && unlink(path) == 0));
	pthread_barrier_wait(&meet);
	pthread_join(thread, NULL);
	tg_free(large);
	tgt_things_free();
	tgt_things_make();
	tgt_things_free();
	TGT_EXPECT(tg_trim() == 0 && tgt_stats().reconnects == 1);
}

static void test_all_descriptors_closed(void)
{
	enum how how;

	for (how = CLOSEFROM; how < CLOSE_AND_DIE; how++) {
		CU_ASSERT_EQUAL(tgt_in_child(lose_descriptors, &how), 0);
		CU_ASSERT(tgt_wait_at_least("recovered_clients", (long long)how + 1));
		tgt_check(0);
	}
	CU_ASSERT_EQUAL(tgt_in_child(lose_descriptors, &how), 128 + SIGKILL);
	CU_ASSERT(tgt_wait_at_least("recovered_clients", N_HOW));
	tgt_held = tgt_reclaims ? 0 : TGT_THINGS + 1;
	tgt_check(tgt_held);
}

/* ---- a child that outlives its parent, with its connection ---- */

struct family {
	struct tgt_meeting meeting; /* with the grandchild */
	void *gift;                 /* published; made by the one that is killed */
	void **place;               /* in the heap: where it says where that is */
};

static void live_on(const struct family *family)
{
	void *own;

	/* So far it has made no call: it holds a copy of the connection, and nothing else. */
	tgt_tell_parent(&family->meeting);
	TGT_REQUIRE(tgt_wait_parent_said(&family->meeting));
	own = tg_malloc(1000);
	TGT_REQUIRE(own != NULL);
	TGT_EXPECT(tgt_is_filled(*family->place, 500, 3));
	tg_free(*family->place);
	tg_free(own);
	TGT_EXPECT(tg_detach() == 0);
	tgt_tell_parent(&family->meeting);
}

static void fork_and_die(void *arg)
{
	struct family *family = arg;

	tgt_things_make();
	*family->place = tg_malloc(500);
	tgt_fill_object(*family->place, 500, 3);
	TGT_REQUIRE(tg_publish(*family->place) == 0);
	if (fork() == 0) {
		live_on(family);
		_exit(tgt_failed_expectations() != 0);
	}
	pause();
}

static void test_a_child_that_outlives_its_parent(void)
{
	struct family family = {.place = tg_calloc(1, sizeof(void *))};
	pid_t pid;

	CU_ASSERT_FATAL(tgt_meeting_open(&family.meeting));
	pid = tgt_fork(fork_and_die, &family);
	CU_ASSERT(tgt_wait_child_said(&family.meeting));
	CU_ASSERT_EQUAL(kill(pid, SIGKILL), 0);
	CU_ASSERT_EQUAL(tgt_wait(pid), 128 + SIGKILL);
	CU_ASSERT(tgt_wait_at_least("recovered_clients", 1));
	CU_ASSERT_EQUAL(tgt_status("clients"), 1);
	tgt_check(tgt_reclaims ? 2 : 2 + TGT_THINGS);
	tgt_tell_child(&family.meeting);
	CU_ASSERT(tgt_wait_child_said(&family.meeting));
	tgt_meeting_close(&family.meeting);
	tg_free(family.place);
	tgt_held = tgt_reclaims ? 0 : TGT_THINGS;
	tgt_check(tgt_held);
}

/* ---- fork and spawn while other threads are at work ---- */

static void *late;

static void handler_that_allocates(void)
{
	void *p = tg_malloc(70000);

	if (p == NULL || late == NULL)
		_exit(3);
	tg_free(p);
	tg_free(late);
}

/* The gift is the parent's, and published. */
static void use_gift(void *gift)
{
	TGT_EXPECT(tgt_is_filled(gift, 300, 9));
	tg_free(gift);
	tgt_things_make();
	tgt_things_free();
}

static void child_that_only_ends(void *gift)
{
	(void)gift;
}

static void child_that_exits(void *gift)
{
	use_gift(gift);
	TGT_REQUIRE(atexit(handler_that_allocates) == 0);
	late = tg_malloc(10);
	exit(tgt_failed_expectations() != 0);
}

static void child_with_a_child(void *gift)
{
	void *own = tg_malloc(300);

	tgt_fill_object(own, 300, 9);
	TGT_EXPECT(tgt_in_child(use_gift, own) == 0);
	use_gift(gift);
}

/* A program that is no client, by posix_spawn or vfork. */
static void spawn_another(bool by_vfork)
{
	char name[] = "true", *const args[] = {name, NULL};
	pid_t pid = -1;

	if (!by_vfork) {
		CU_ASSERT_EQUAL(posix_spawnp(&pid, name, NULL, NULL, args, environ), 0);
	} else {
		pid = vfork();
		if (pid == 0) {
			execvp(name, args);
			_exit(127);
		}
	}
	CU_ASSERT_EQUAL(tgt_wait(pid), 0);
}

static void *make_gift(void)
{
	void *gift = tg_malloc(300);

	CU_ASSERT_PTR_NOT_NULL_FATAL(gift);
	tgt_fill_object(gift, 300, 9);
	CU_ASSERT_EQUAL(tg_publish(gift), 0);
	return gift;
}

static void test_children_among_busy_threads(void)
{
	static tgt_child_fn *const kinds[] = {child_that_only_ends, use_gift, child_that_exits,
					      child_with_a_child};
	unsigned i, n = tgt_scaled(300);
	void *gift;

	tgt_busy_start();
	for (i = 0; i < n; i++) {
		gift = make_gift();
		CU_ASSERT_EQUAL(tgt_in_child(kinds[i % 4], gift), 0);
		if (i % 4 == 0)
			tg_free(gift);
		if (i % 8 < 2)
			spawn_another(i % 8 == 1);
	}
	tgt_busy_end();
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	tgt_check(0);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT(tgt_wait_at_most("span_bytes", 0));
}

/* fork without any handler, as a signal handler may do it. */
static void test_a_child_without_fork_handlers(void)
{
	unsigned i;
	void *gift;
	pid_t pid;

	tgt_busy_start();
	for (i = 0; i < 20; i++) {
		gift = make_gift();
		pid = _Fork();
		if (pid == 0) {
			use_gift(gift);
			_exit(tgt_failed_expectations() != 0);
		}
		CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	}
	tgt_busy_end();
}

static CU_TestInfo tests[] = {
	{"A client whose descriptors are all closed comes back and keeps everything",
	 test_all_descriptors_closed},
	{"A child that has its parent's connection keeps nothing of it alive",
	 test_a_child_that_outlives_its_parent},
	{"Hundreds of forks and spawns while other threads allocate",
	 test_children_among_busy_threads},
	{"A child made without fork handlers is a client of its own",
	 test_a_child_without_fork_handlers},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"life, policy keep", NULL, NULL, tgt_set_up_keep, tgt_tear_down, tests},
	{"life, policy reclaim", NULL, NULL, tgt_set_up_reclaim, tgt_tear_down, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("life", suites);
}
