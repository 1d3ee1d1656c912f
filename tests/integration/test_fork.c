/* test_fork - fork, exec and daemons: the child is a client of its own, the objects are everybody's.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define N_OBJECTS 500

static void *objects[N_OBJECTS];

static void make_objects(void)
{
	unsigned i;

	for (i = 0; i < N_OBJECTS; i++) {
		objects[i] = tg_malloc(1 + i * i % 5000);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
		tgt_fill_object(objects[i], 1 + i * i % 5000, i);
	}
}

static void free_objects(void)
{
	unsigned i;

	for (i = 0; i < N_OBJECTS; i++)
		tg_free(objects[i]);
}

static void child_frees_all(void *arg)
{
	unsigned i;

	for (i = 0; i < N_OBJECTS; i++) {
		void *own = tg_malloc(1 + i * i % 5000);

		TGT_REQUIRE(own != NULL);
		TGT_EXPECT(tgt_is_filled(objects[i], 1 + i * i % 5000, i));
		memset(own, 0x55, 1 + i * i % 5000);
		tg_free(objects[i]);
		tg_free(own);
	}
	TGT_EXPECT(tgt_status("clients") == *(int *)arg);
}

static void test_a_child_is_a_client_of_its_own(void)
{
	int n_clients = 2;

	make_objects();
	CU_ASSERT_EQUAL(tgt_status("clients"), 1);
	CU_ASSERT_EQUAL(tgt_in_child(child_frees_all, &n_clients), 0);
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	tgt_check(0);
	/* The parent goes on as if nothing had been. */
	make_objects();
	n_clients = 1;
	child_frees_all(&n_clients);
}

static void do_nothing(void *arg)
{
	(void)arg;
}

static void test_a_child_that_never_calls(void)
{
	unsigned i;

	make_objects();
	for (i = 0; i < 20; i++)
		CU_ASSERT_EQUAL(tgt_in_child(do_nothing, NULL), 0);
	CU_ASSERT_EQUAL(tgt_status("clients"), 1);
	CU_ASSERT_EQUAL(tgt_status("recovered_clients"), 0);
	tgt_check(N_OBJECTS);
	free_objects();
}

static void detach_only(void *arg)
{
	(void)arg;
	TGT_EXPECT(tg_detach() == 0);
	TGT_EXPECT(tg_malloc(10) == NULL && errno == ENOTCONN);
}

static void test_a_child_that_only_detaches(void)
{
	make_objects();
	CU_ASSERT_EQUAL(tgt_in_child(detach_only, NULL), 0);
	CU_ASSERT_EQUAL(tgt_status("clients"), 1);
	tgt_check(N_OBJECTS);
	free_objects();
}

static void fork_on(void *arg)
{
	unsigned depth = *(unsigned *)arg + 1;
	void *before = tg_malloc(1000), *after;

	TGT_REQUIRE(before != NULL);
	tgt_fill_object(before, 1000, depth);
	if (depth < 8)
		TGT_EXPECT(tgt_in_child(fork_on, &depth) == 0);
	after = tg_malloc(1000);
	TGT_EXPECT(after != NULL && after != before);
	TGT_EXPECT(tgt_is_filled(before, 1000, depth));
	tg_free(before);
	tg_free(after);
}

static void test_children_of_children(void)
{
	unsigned depth = 0;

	fork_on(&depth);
	CU_ASSERT(tgt_wait_at_least("recovered_clients", 7));
}

/* ---- fork in the middle of everything ---- */

#define N_THREADS 4

static struct {
	_Atomic bool stop;
	_Atomic(void *) shelf[64]; /* live objects of the parent that anybody may take and free */
} busy;

static void *keep_busy(void *arg)
{
	unsigned n = (unsigned)(uintptr_t)arg;

	while (!atomic_load(&busy.stop)) {
		static const size_t sizes[] = {1, 15, 24, 400, 4000, 30000, 70000};
		size_t size = sizes[++n % 7];
		void *p = tg_malloc(size), *old;

		TGT_REQUIRE(p != NULL);
		memset(p, 0x77, size);
		old = atomic_exchange(&busy.shelf[n % 64], p);
		tg_free(old);
	}
	return NULL;
}

/* Whatever lock or list a thread of the parent was at, the child is not hindered by it.  It cannot know which objects of
 * the parent are still live, so it frees one that was made for it. */
static void child_of_many_threads(void *arg)
{
	void *own[100];
	unsigned i;

	tg_free(arg);
	for (i = 0; i < 100; i++) {
		own[i] = tg_malloc(1 + i * 400);
		TGT_REQUIRE(own[i] != NULL);
		tgt_fill_object(own[i], 1 + i * 400, i);
	}
	for (i = 0; i < 100; i++) {
		TGT_EXPECT(tgt_is_filled(own[i], 1 + i * 400, i));
		tg_free(own[i]);
	}
}

static void test_fork_while_threads_allocate(void)
{
	pthread_t threads[N_THREADS];
	unsigned i, n = tgt_scaled(100);

	atomic_store(&busy.stop, false);
	for (i = 0; i < N_THREADS; i++)
		CU_ASSERT_EQUAL_FATAL(
			pthread_create(&threads[i], NULL, keep_busy, (void *)(uintptr_t)i), 0);
	for (i = 0; i < n; i++) {
		void *gift = tg_malloc(i % 2 ? 300 : 40000);

		CU_ASSERT_EQUAL(tgt_in_child(child_of_many_threads, gift), 0);
	}
	atomic_store(&busy.stop, true);
	for (i = 0; i < N_THREADS; i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < 64; i++)
		tg_free(atomic_load(&busy.shelf[i]));
	CU_ASSERT(tgt_wait_at_least("recovered_clients", n));
	tgt_check(0);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

/* ---- a daemon: the parent makes objects, forks, and exits; the child goes on ---- */

struct daemonized {
	struct tgt_meeting meeting;
	void **mine; /* in the heap */
};

static void become_daemon(void *arg)
{
	struct daemonized *d = arg;
	unsigned i;
	pid_t pid;

	for (i = 0; i < 100; i++) {
		d->mine[i] = tg_malloc(10 * i + 1);
		TGT_REQUIRE(d->mine[i] != NULL);
		tgt_fill_object(d->mine[i], 10 * i + 1, i);
	}
	pid = fork();
	TGT_REQUIRE(pid >= 0);
	if (pid > 0)
		_exit(0);
	setsid();
	/* The parent is gone: its objects are nobody's now, and ours to use. */
	TGT_REQUIRE(tgt_wait_parent_said(&d->meeting));
	for (i = 0; i < 100; i++) {
		void *p = tg_malloc(10 * i + 1);

		TGT_REQUIRE(p != NULL);
		TGT_EXPECT(tgt_is_filled(d->mine[i], 10 * i + 1, i));
		tg_free(d->mine[i]);
		tg_free(p);
	}
	TGT_EXPECT(tg_detach() == 0);
	tgt_tell_parent(&d->meeting);
}

static void test_a_daemon(void)
{
	struct daemonized d = {.mine = tg_calloc(100, sizeof(void *))};

	CU_ASSERT_FATAL(tgt_meeting_open(&d.meeting));
	CU_ASSERT_EQUAL(tgt_in_child(become_daemon, &d), 0);
	CU_ASSERT(tgt_wait_at_least("recovered_clients", 1));
	tgt_check(101);
	tgt_tell_child(&d.meeting);
	CU_ASSERT(tgt_wait_child_said(&d.meeting));
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	tgt_check(1);
	tg_free(d.mine);
	tgt_meeting_close(&d.meeting);
}

/* ---- exec ---- */

#define EXEC_ENV "TGT_FORK_EXEC"

/* What this program does when it is started again by exec: nothing of the heap came along. */
static void run_again(void)
{
	unsigned long long ref = strtoull(getenv(EXEC_ENV), NULL, 16);
	uint64_t *p;

	TGT_EXPECT(tg_malloc(10) == NULL && errno == ENOTCONN);
	TGT_REQUIRE(tg_attach(NULL) == 0);
	p = tg_from_ref(ref);
	TGT_REQUIRE(p != NULL);
	TGT_EXPECT(*p == 12345);
	*p = 54321;
	p = tg_malloc(100);
	TGT_EXPECT(p != NULL);
	tg_free(p);
	_exit(tgt_failed_expectations() != 0);
}

static void exec_self(void *arg)
{
	char ref[32];
	void *used = tg_malloc(10);

	/* A client already, and then another program in the same process. */
	TGT_REQUIRE(used != NULL);
	tg_free(used);
	snprintf(ref, sizeof(ref), "%llx", (unsigned long long)*(tg_ref *)arg);
	setenv(EXEC_ENV, ref, 1);
	execl("/proc/self/exe", "test_fork", NULL);
	_exit(127);
}

static void test_exec(void)
{
	uint64_t *p = tg_malloc(sizeof(*p));
	tg_ref ref = tg_to_ref(p);

	*p = 12345;
	CU_ASSERT_EQUAL(tgt_in_child(exec_self, &ref), 0);
	CU_ASSERT_EQUAL(*p, 54321);
	tg_free(p);
	CU_ASSERT(tgt_wait_at_most("clients", 1));
}

/* ---- a child that closes all descriptors, and opens others ---- */

static void close_everything(void *arg)
{
	char path[128];
	int fd, i;
	void *p;

	(void)arg;
	p = tg_malloc(100);
	TGT_REQUIRE(p != NULL);
	for (i = 3; i < 1024; i++)
		close(i);
	snprintf(path, sizeof(path), "%s/victim", tgt_d.dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	TGT_REQUIRE(fd >= 0);
	/* On every number that the connection may have had. */
	for (i = 3; i < 1024; i++)
		TGT_EXPECT(i == fd || dup2(fd, i) == i);
	tg_free(p);
	/* Needs the daemon: the connection is made again, and not a byte goes astray. */
	p = tg_malloc(3 << 20);
	TGT_EXPECT(p == NULL || tgt_stats().reconnects == 1);
	tg_free(p);
	TGT_EXPECT(lseek(fd, 0, SEEK_END) == 0);
	unlink(path);
}

static void test_a_child_that_closes_all_descriptors(void)
{
	CU_ASSERT_EQUAL(tgt_in_child(close_everything, NULL), 0);
	CU_ASSERT(tgt_wait_at_most("clients", 1));
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"A child is a client of its own and may free its parent's objects",
		 test_a_child_is_a_client_of_its_own},
		{"A child that never calls is no client and disturbs nothing",
		 test_a_child_that_never_calls},
		{"A child that only detaches disturbs nothing", test_a_child_that_only_detaches},
		{"Children have children", test_children_of_children},
		{"Fork while other threads allocate", test_fork_while_threads_allocate},
		{"A daemon goes on when its parent has exited", test_a_daemon},
		{"After exec the program attaches anew", test_exec},
		{"A child that closes all descriptors connects again",
		 test_a_child_that_closes_all_descriptors},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"fork", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	if (getenv(EXEC_ENV) != NULL)
		run_again();
	return tgt_run("fork", suites);
}
