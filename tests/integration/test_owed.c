/* test_owed - what becomes of tiny and dense objects when the machine has no memory for the words in which they are
 * published, or freed by others: all that can fail says so, and frees are owed and done later.
 *
 * The daemon is tgd_full, which has no memory while a file exists.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/cache.h"
#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define N 3000

static char no_memory[96];
static void *objects[N];

static void memory(bool there)
{
	int fd;

	if (there) {
		CU_ASSERT_EQUAL(unlink(no_memory), 0);
		return;
	}
	fd = open(no_memory, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	CU_ASSERT_FATAL(fd >= 0);
	close(fd);
}

static void set_up(void)
{
	snprintf(no_memory, sizeof(no_memory), "/tmp/tg-no-memory-%d", (int)getpid());
	CU_ASSERT_EQUAL(setenv("TG_TEST_NO_MEMORY", no_memory, 1), 0);
	CU_ASSERT_EQUAL(setenv("TG_ON_ERROR", "count", 1), 0);
	tgt_set_up();
	/* A slot, and pages of the classes that are used below. */
	tg_free(tg_malloc(8));
	tg_free(tg_malloc(64));
	tg_free(tg_malloc(1000));
}

static void tear_down(void)
{
	(void)unlink(no_memory);
	tgt_tear_down();
	unsetenv("TG_ON_ERROR");
}

static void *make_objects(void *arg)
{
	unsigned i;

	for (i = 0; i < N; i++)
		objects[i] = tg_malloc(8);
	return arg;
}

/* Objects that another thread of ours has made. */
static void make_foreign(void)
{
	pthread_t thread;
	unsigned i;

	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, make_objects, NULL), 0);
	pthread_join(thread, NULL);
	for (i = 0; i < N; i++)
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
	tgt_check(N);
}

static bool has_more(const void *p)
{
	return tgs_has_more(&tgc_heap, TGS_DENSE_4,
			    (uint64_t)((const uint8_t *)p - tgc_heap.data) >> TGS_PAGE_SHIFT);
}

static void *free_objects(void *arg)
{
	unsigned i;

	for (i = 0; i < N; i++)
		tg_free(objects[i]);
	return arg;
}

static void test_publish_and_swap_say_so(void)
{
	void *tiny = tg_malloc(8), *old = tg_malloc(8), *other;
	tg_link *link = tg_calloc(1, 1000);

	CU_ASSERT(tg_swap(link, NULL, old, 0));
	memory(false);
	CU_ASSERT_EQUAL(tg_publish(tiny), -ENOMEM);
	CU_ASSERT_EQUAL(tg_root_set("tiny", tiny), -ENOMEM);
	CU_ASSERT_PTR_NULL(tg_root_get("tiny"));
	errno = 0;
	CU_ASSERT_FALSE(tg_swap(link, old, tiny, TG_GIVE));
	CU_ASSERT_EQUAL(errno, ENOMEM);
	errno = 0;
	CU_ASSERT_FALSE(tg_swap(link, old, NULL, TG_RETIRE));
	CU_ASSERT_EQUAL(errno, ENOMEM);
	CU_ASSERT_PTR_EQUAL(tg_link_get(link), old);
	tgt_check(3);
	CU_ASSERT_EQUAL(tgt_check_number("published"), 0);
	/* What is neither tiny nor dense needs none. */
	CU_ASSERT_EQUAL(tg_publish(link), 0);
	/* A swap that changes no owner, of one's own link. */
	CU_ASSERT(tg_swap(link, old, tiny, 0));
	CU_ASSERT(tg_swap(link, tiny, old, 0));
	memory(true);
	CU_ASSERT(tg_swap(link, old, tiny, TG_GIVE | TG_RETIRE));
	tgt_check(2);
	CU_ASSERT_EQUAL(tgt_check_number("published"), 2);
	/* From now on the span has them. */
	memory(false);
	other = tg_malloc(8);
	CU_ASSERT_EQUAL(tg_publish(other), 0);
	memory(true);
	tg_free(other);
	tg_free(tiny);
	tg_free(link);
}

static void test_frees_are_owed_and_paid_by_a_trim(void)
{
	make_foreign();
	memory(false);
	free_objects(NULL);
	/* All of them stay, and are known. */
	tgt_check(N);
	CU_ASSERT_EQUAL(tgt_stats().pending_frees, N);
	CU_ASSERT_FALSE(has_more(objects[0]));
	CU_ASSERT_EQUAL(tg_trim(), 0);
	tgt_check(N);
	CU_ASSERT_EQUAL(tgt_stats().pending_frees, N);
	memory(true);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_stats().pending_frees, 0);
	CU_ASSERT_EQUAL(tgt_stats().errors, 0);
	tgt_check(0);
}

static void test_frees_are_paid_when_memory_is_needed(void)
{
	void *p;

	make_foreign();
	memory(false);
	free_objects(NULL);
	memory(true);
	tgt_check(N);
	/* The first of its class, so the thread asks for a span. */
	p = tg_malloc(5000);
	CU_ASSERT_EQUAL(tgt_stats().pending_frees, 0);
	tgt_check(1);
	tg_free(p);
}

static void *owe(void *arg)
{
	tg_free(tg_malloc(8));
	memory(false);
	free_objects(NULL);
	if (tgt_stats().pending_frees != N)
		return NULL;
	memory(true);
	return arg;
}

static void test_frees_are_paid_when_the_thread_ends(void)
{
	pthread_t thread;
	void *done = NULL;

	(void)make_objects(NULL);
	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, owe, &done), 0);
	pthread_join(thread, &done);
	CU_ASSERT_PTR_NOT_NULL(done);
	tgt_check(0);
	CU_ASSERT_EQUAL(tgt_stats().pending_frees, 0);
}

/* A thread that does nothing but free. */
static void test_frees_are_paid_by_later_frees(void)
{
	uint64_t messages;
	unsigned i;

	make_foreign();
	memory(false);
	messages = tgt_stats().messages;
	for (i = 0; i < N / 2; i++)
		tg_free(objects[i]);
	CU_ASSERT_EQUAL(tgt_stats().pending_frees, N / 2);
	/* It was not asked for each of them. */
	CU_ASSERT(tgt_stats().messages < messages + N / 4);
	memory(true);
	/* An owed free has not begun, a buffered one counts as done. */
	for (; i < N && tgt_check_number("objects") > N / 2; i++) {
		tg_free(objects[i]);
		(void)poll(NULL, 0, 1);
	}
	CU_ASSERT(i < N);
	for (; i < N; i++)
		tg_free(objects[i]);
	tgt_check(0);
}

static void test_frees_are_paid_by_a_detach(void)
{
	make_foreign();
	memory(false);
	free_objects(NULL);
	memory(true);
	CU_ASSERT_EQUAL(tg_detach(), 0);
	CU_ASSERT(tgt_wait_at_most("clients", 0));
	tgt_check(0);
	CU_ASSERT_EQUAL(tg_attach(NULL), 0);
}

static void test_an_object_owed_twice_is_told(void)
{
	make_foreign();
	memory(false);
	tg_free(objects[7]);
	tg_free(objects[7]);
	CU_ASSERT_EQUAL(tgt_stats().pending_frees, 2);
	CU_ASSERT_EQUAL(tgt_stats().errors, 0);
	memory(true);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_stats().errors, 1);
	tgt_check(N - 1);
	/* Its owner has freed it meanwhile. */
	memory(false);
	tg_free(objects[7]);
	CU_ASSERT_EQUAL(tgt_stats().errors, 2);
	memory(true);
	objects[7] = NULL;
	free_objects(NULL);
}

static void owe_and_be_killed(void *arg)
{
	struct tgt_meeting *meeting = arg;

	tg_free(tg_malloc(8));
	tgt_tell_parent(meeting);
	TGT_REQUIRE(tgt_wait_parent_said(meeting));
	free_objects(NULL);
	TGT_EXPECT(tgt_stats().pending_frees == N);
	raise(SIGKILL);
}

/* It is the price of a kill on a machine without memory: nothing is broken, but what was owed stays. */
static void test_what_the_dead_owed_stays(void)
{
	struct tgt_meeting meeting;
	pid_t child;

	make_foreign();
	CU_ASSERT_FATAL(tgt_meeting_open(&meeting));
	child = tgt_fork(owe_and_be_killed, &meeting);
	CU_ASSERT_FATAL(child > 0);
	CU_ASSERT(tgt_wait_child_said(&meeting));
	memory(false);
	tgt_tell_child(&meeting);
	CU_ASSERT_EQUAL(tgt_wait(child), 128 + SIGKILL);
	tgt_meeting_close(&meeting);
	CU_ASSERT(tgt_wait_at_least("recovered_clients", 1));
	memory(true);
	tgt_check(N);
	CU_ASSERT_FALSE(has_more(objects[0]));
	free_objects(NULL);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	tgt_check(0);
}

/* ---- dense objects ---- */

static void make_dense(void *shared)
{
	void **made = shared;
	unsigned i;

	for (i = 0; i < N; i++)
		made[i] = tg_malloc(64);
}

static void *make_dense_here(void *arg)
{
	make_dense(objects);
	return arg;
}

static void test_dense_objects_of_others_are_owed(void)
{
	void **shared = mmap(NULL, sizeof(objects), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CU_ASSERT_FATAL(shared != MAP_FAILED);
	CU_ASSERT_EQUAL(tgt_in_child(make_dense, shared), 0);
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	memcpy(objects, shared, sizeof(objects));
	(void)munmap(shared, sizeof(objects));
	memory(false);
	CU_ASSERT_EQUAL(tg_publish(objects[0]), -ENOMEM);
	free_objects(NULL);
	tgt_check(N);
	CU_ASSERT_EQUAL(tgt_stats().pending_frees, N);
	CU_ASSERT_FALSE(has_more(objects[0]));
	memory(true);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT(has_more(objects[0]));
	CU_ASSERT_EQUAL(tgt_stats().pending_frees, 0);
	CU_ASSERT_EQUAL(tgt_stats().errors, 0);
	tgt_check(0);
}

/* Of another thread of ours: what the freeing thread keeps at hand needs no words before it lets go of it. */
static void test_dense_slots_at_hand_are_owed_when_they_go(void)
{
	pthread_t thread;
	uint64_t owed;

	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, make_dense_here, NULL), 0);
	pthread_join(thread, NULL);
	memory(false);
	free_objects(NULL);
	owed = tgt_stats().pending_frees;
	CU_ASSERT(owed > 0 && owed < N);
	tgt_check((long long)owed);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_stats().pending_frees, N);
	CU_ASSERT_FALSE(has_more(objects[0]));
	tgt_check(N);
	CU_ASSERT_EQUAL(tgt_stats().errors, 0);
	/* It shows at once which of them are freed twice. */
	tg_free(objects[0]);
	tg_free(objects[N - 1]);
	CU_ASSERT_EQUAL(tgt_stats().errors, 2);
	memory(true);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_stats().pending_frees, 0);
	CU_ASSERT_EQUAL(tgt_stats().errors, 2);
	tgt_check(0);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Publish, root and swap say that there is no memory",
		 test_publish_and_swap_say_so},
		{"Frees are owed, and done by a trim", test_frees_are_owed_and_paid_by_a_trim},
		{"Frees are done when the thread needs memory",
		 test_frees_are_paid_when_memory_is_needed},
		{"Frees are done when the thread ends", test_frees_are_paid_when_the_thread_ends},
		{"Frees are done by later frees", test_frees_are_paid_by_later_frees},
		{"Frees are done by a detach", test_frees_are_paid_by_a_detach},
		{"An object freed twice meanwhile is told", test_an_object_owed_twice_is_told},
		{"What the dead owed stays", test_what_the_dead_owed_stays},
		{"Dense objects of others are owed", test_dense_objects_of_others_are_owed},
		{"Dense slots at hand are owed when they go",
		 test_dense_slots_at_hand_are_owed_when_they_go},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"owed", NULL, NULL, set_up, tear_down, tests},
		CU_SUITE_INFO_NULL,
	};
	const char *build = getenv("TG_BUILDDIR");
	char tgd[4096];

	snprintf(tgd, sizeof(tgd), "%s/tests/integration/tgd_full", build ? build : ".");
	setenv("TGD", tgd, 1);
	return tgt_run("owed", suites);
}
