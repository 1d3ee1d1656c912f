/* test_stopped - a client that is stopped, wherever it is, blocks nobody, and its memory stays its own.
 *
 * One process, the victim, does mixed work with two threads and is stopped at a random moment.  Then two others are told to
 * do one kind of operation after the other, on the same links and on the victim's objects, and each must come to its end
 * before a deadline.  Then the victim goes on, or is killed where it stands.
 *
 * What a process has made stands in a table that all see: pointer, size and salt in one word, which is also the seed of the
 * object's bytes.  Who wants to free an object first takes the word out.  So at rest the number of live objects is known,
 * but for what a killed thread had just in its hands.
 */
#include <CUnit/CUnit.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/message.h"
#include "tests/support/runner.h"

#define N_HELD      64
#define N_LINKS     16
#define N_THREADS   2 /* of the victim */
#define N_SURVIVORS 2
#define FILL_MAX    512u

static const size_t sizes[] = {1,    3,    8,    15,    16,    24,    40,     100,    200,
			       500,  1000, 3000, 8192,  20000, 32768, 33000,  70000,  200000,
			       9,    12,   64,   64,    128,   128,   256,    1 << 20};
#define N_SIZES (sizeof(sizes) / sizeof(*sizes))

struct hands {
	_Atomic uint64_t held[N_HELD];
};

enum what { REPLACE, RESIZE, TAKE, SWAP, ROOT, TRIM, THREAD, N_WHAT };
static const char *const names[N_WHAT] = {"allocate and free",
					  "realloc",
					  "free the stopped one's objects",
					  "swing links",
					  "use roots",
					  "trim",
					  "start and end a thread"};

/* Seen by all processes. */
static struct common {
	struct hands hands[N_THREADS + N_SURVIVORS]; /* the victim's first */
	_Atomic uint64_t steps;			     /* of the victim */
	_Atomic bool quit;
	_Atomic int command; /* enum what: of the survivors */
	unsigned flags;
} *common;

static tg_link *links; /* in the heap */

/* ---- objects ---- */

static void *object_of(uint64_t word)
{
	return (void *)(uintptr_t)(word & ((UINT64_C(1) << 48) - 1));
}

static size_t size_of(uint64_t word)
{
	return sizes[word >> 48 & 63];
}

static size_t filled_part(size_t size)
{
	return size < FILL_MAX ? size : FILL_MAX;
}

static uint64_t choose(uint64_t *random)
{
	return tgt_random(random) % N_SIZES << 48 | tgt_random(random) << 54;
}

static uint64_t make(uint64_t *random)
{
	uint64_t word = choose(random);
	void *p = tg_malloc(size_of(word));

	TGT_REQUIRE(p != NULL);
	word |= (uintptr_t)p;
	tgt_fill_object(p, filled_part(size_of(word)), word);
	return word;
}

static bool is_whole(uint64_t word)
{
	return tgt_is_filled(object_of(word), filled_part(size_of(word)), word);
}

static void drop(uint64_t word)
{
	if (word == 0)
		return;
	TGT_EXPECT(is_whole(word));
	tg_free(object_of(word));
}

static _Atomic uint64_t *some_hand(struct hands *hands, uint64_t *random)
{
	return &hands->held[tgt_random(random) % N_HELD];
}

static unsigned count_held(struct hands *hands)
{
	unsigned i, n = 0;

	for (i = 0; i < N_HELD; i++)
		n += atomic_load(&hands->held[i]) != 0;
	return n;
}

static void drop_all(struct hands *hands)
{
	unsigned i;

	for (i = 0; i < N_HELD; i++)
		drop(atomic_exchange(&hands->held[i], 0));
}

/* ---- operations ---- */

static void resize(_Atomic uint64_t *hand, uint64_t *random)
{
	uint64_t old = atomic_exchange(hand, 0), word = choose(random);
	size_t both;
	void *p;

	if (old == 0)
		return;
	both = size_of(old) < size_of(word) ? size_of(old) : size_of(word);
	p = tg_realloc(object_of(old), size_of(word));
	TGT_REQUIRE(p != NULL);
	TGT_EXPECT(tgt_is_filled(p, filled_part(both) & ~(size_t)7, old));
	word |= (uintptr_t)p;
	tgt_fill_object(p, filled_part(size_of(word)), word);
	atomic_store(hand, word);
}

static void swing(uint64_t *random)
{
	tg_link *link = &links[tgt_random(random) % N_LINKS];
	uint64_t *node = NULL, seed = tgt_random(random);
	void *old;

	if (tgt_random(random) % 4 != 0) {
		size_t size = 16 + tgt_random(random) % (tgt_random(random) % 8 ? 200 : 40000);

		node = tg_malloc(size);
		TGT_REQUIRE(node != NULL);
		node[0] = filled_part(size);
		node[1] = seed;
		tgt_fill_object(node + 2, node[0] - 16, seed);
	}
	old = tg_link_get(link);
	if ((old != NULL || node != NULL) && !tg_swap(link, old, node, TG_GIVE | TG_RETIRE))
		tg_free(node);
}

static void use_roots(uint64_t *random)
{
	char name[16];

	snprintf(name, sizeof(name), "root %u", (unsigned)tgt_random(random) % 4);
	TGT_EXPECT(tg_root_set(name, links) == 0);
	TGT_EXPECT(tg_root_get(name) == links);
}

static void do_one(enum what what, struct hands *hands, struct hands *others, uint64_t *random);

static void *short_life(void *arg)
{
	struct hands *hands = arg;
	uint64_t random = (uintptr_t)&random ^ atomic_load(&hands->held[0]);
	unsigned i;

	for (i = 0; i < 5; i++)
		do_one(REPLACE, hands, NULL, &random);
	return NULL;
}

static void do_one(enum what what, struct hands *hands, struct hands *others, uint64_t *random)
{
	_Atomic uint64_t *hand = some_hand(hands, random);
	pthread_t thread;

	switch (what) {
	case REPLACE:
		drop(atomic_exchange(hand, 0));
		atomic_store(hand, make(random));
		break;
	case RESIZE:
		resize(hand, random);
		break;
	case TAKE:
		drop(atomic_exchange(some_hand(others, random), 0));
		break;
	case SWAP:
		swing(random);
		break;
	case ROOT:
		use_roots(random);
		break;
	case TRIM:
		TGT_EXPECT(tg_trim() == 0);
		break;
	default:
		TGT_REQUIRE(pthread_create(&thread, NULL, short_life, hands) == 0);
		pthread_join(thread, NULL);
	}
}

/* ---- the victim ---- */

/* Under TG_RECLAIM it takes nothing from the survivors, so that after its death the count is exact. */
static enum what mixed(uint64_t *random)
{
	unsigned n = (unsigned)(tgt_random(random) % 200);

	if (n < 90)
		return REPLACE;
	if (n < 110)
		return RESIZE;
	if (n < 130)
		return common->flags & TG_RECLAIM ? SWAP : TAKE;
	if (n < 190)
		return SWAP;
	if (n < 195)
		return ROOT;
	return n < 198 ? TRIM : THREAD;
}

struct worker {
	pthread_t thread;
	uint64_t random;
	struct hands *hands;
};

static void *work(void *arg)
{
	struct worker *worker = arg;

	while (!atomic_load(&common->quit)) {
		do_one(mixed(&worker->random), worker->hands, &common->hands[N_THREADS],
		       &worker->random);
		atomic_fetch_add(&common->steps, 1);
	}
	drop_all(worker->hands);
	return NULL;
}

static void be_victim(void *arg)
{
	uint64_t random = *(uint64_t *)arg;
	struct worker workers[N_THREADS];
	unsigned i;

	for (i = 0; i < N_THREADS; i++) {
		workers[i].random = tgt_random(&random);
		workers[i].hands = &common->hands[i];
		TGT_REQUIRE(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
	}
	for (i = 0; i < N_THREADS; i++)
		pthread_join(workers[i].thread, NULL);
}

/* ---- the survivors ---- */

struct survivor {
	struct tgt_meeting meeting;
	struct hands *hands;
	uint64_t random;
	pid_t pid;
};

/* Each command is done and answered; the last one is to end. */
static void survive(void *arg)
{
	struct survivor *survivor = arg;
	unsigned i, n;
	int what;

	while (tgt_wait_parent_said(&survivor->meeting)) {
		what = atomic_load(&common->command);
		if (what == N_WHAT)
			break;
		n = what == TRIM || what == THREAD ? 2 : what == ROOT ? 5 : 60;
		for (i = 0; i < n; i++)
			do_one((enum what)what, survivor->hands,
			       &common->hands[tgt_random(&survivor->random) % N_THREADS],
			       &survivor->random);
		tgt_tell_parent(&survivor->meeting);
	}
	drop_all(survivor->hands);
}

static void start_survivors(struct survivor *survivors, uint64_t *random)
{
	unsigned i;

	for (i = 0; i < N_SURVIVORS; i++) {
		survivors[i].random = tgt_random(random);
		survivors[i].hands = &common->hands[N_THREADS + i];
		CU_ASSERT_FATAL(tgt_meeting_open(&survivors[i].meeting));
		survivors[i].pid = tgt_fork(survive, &survivors[i]);
	}
}

/* Both at the same time, one kind after the other: nobody is blocked. */
static void survivors_go_on(struct survivor *survivors)
{
	unsigned i;
	int what;
	bool ok;

	for (what = 0; what < N_WHAT; what++) {
		atomic_store(&common->command, what);
		for (i = 0; i < N_SURVIVORS; i++)
			tgt_tell_child(&survivors[i].meeting);
		for (i = 0; i < N_SURVIVORS; i++) {
			ok = tgt_wait_child_said(&survivors[i].meeting);
			CU_ASSERT(ok);
			if (!ok)
				printf("survivor %u did not come to an end: %s\n", i, names[what]);
		}
	}
}

static void end_survivors(struct survivor *survivors)
{
	unsigned i;

	atomic_store(&common->command, N_WHAT);
	for (i = 0; i < N_SURVIVORS; i++)
		tgt_tell_child(&survivors[i].meeting);
	for (i = 0; i < N_SURVIVORS; i++) {
		CU_ASSERT_EQUAL(tgt_wait(survivors[i].pid), 0);
		tgt_meeting_close(&survivors[i].meeting);
	}
}

/* ---- what all stories share ---- */

static void set_up_as(unsigned flags)
{
	struct tg_options options = {.size = sizeof(options), .flags = flags, .timeout_ms = 20000};

	tgt_set_up_with(NULL, &options);
	common = mmap(NULL, sizeof(*common), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	CU_ASSERT_FATAL(common != MAP_FAILED);
	common->flags = flags;
	links = tg_calloc(N_LINKS, sizeof(*links));
	CU_ASSERT_PTR_NOT_NULL_FATAL(links);
	CU_ASSERT_EQUAL(tg_publish(links), 0);
}

static void set_up_keep(void)
{
	set_up_as(0);
}

static void set_up_reclaim(void)
{
	set_up_as(TG_RECLAIM);
}

static unsigned count_nodes(void)
{
	unsigned i, n = 0;

	for (i = 0; i < N_LINKS; i++) {
		const uint64_t *node = tg_link_get(&links[i]);

		if (node == NULL)
			continue;
		n++;
		CU_ASSERT(node[0] <= FILL_MAX && tgt_is_filled(node + 2, node[0] - 16, node[1]));
	}
	return n;
}

static void tear_down(void)
{
	char name[16];
	unsigned i;

	(void)count_nodes();
	for (i = 0; i < N_LINKS; i++)
		(void)tg_swap(&links[i], tg_link_get(&links[i]), NULL, TG_RETIRE);
	for (i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "root %u", i);
		(void)tg_root_set(name, NULL);
	}
	tg_free(links);
	munmap(common, sizeof(*common));
	tgt_tear_down();
}

static void stop(pid_t pid)
{
	int status = 0;

	CU_ASSERT_EQUAL(kill(pid, SIGSTOP), 0);
	CU_ASSERT_EQUAL(waitpid(pid, &status, WUNTRACED), pid);
	CU_ASSERT(WIFSTOPPED(status));
}

static bool wait_for_steps(uint64_t n)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;
	const struct timespec pause = {.tv_nsec = 200000};

	while (atomic_load(&common->steps) < n) {
		if (tgt_now_ms() > deadline)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

/* ---- stopped at a random moment ---- */

/* All live objects, if nobody is in the middle of anything. */
static long long count_known(void)
{
	long long n = 1 + count_nodes();
	unsigned i;

	for (i = 0; i < N_THREADS + N_SURVIVORS; i++)
		n += count_held(&common->hands[i]);
	return n;
}

static void check_memory_of_victim(void)
{
	unsigned i, k;

	for (i = 0; i < N_THREADS; i++) {
		for (k = 0; k < N_HELD; k++) {
			uint64_t word = atomic_load(&common->hands[i].held[k]);

			CU_ASSERT(word == 0 || is_whole(word));
		}
	}
}

/* It dies where it was stopped; what it had in its hands may be lost to the program, but no more. */
static void kill_victim(pid_t pid, unsigned n_killed)
{
	bool reclaim = common->flags & TG_RECLAIM;
	long long more;
	unsigned i, k;

	CU_ASSERT_EQUAL(kill(pid, SIGKILL), 0);
	CU_ASSERT_EQUAL(tgt_wait(pid), 128 + SIGKILL);
	CU_ASSERT_FATAL(tgt_wait_at_least("recovered_clients", n_killed));
	CU_ASSERT(tgt_wait_at_most("clients", 1 + N_SURVIVORS));
	for (i = 0; reclaim && i < N_THREADS; i++) {
		for (k = 0; k < N_HELD; k++)
			atomic_store(&common->hands[i].held[k], 0);
	}
	more = tgt_check_number("objects") - tgt_held - count_known();
	/* Two: a realloc has both the old object and the new one. */
	CU_ASSERT(more >= 0 && more <= (reclaim ? 0 : 2 * N_THREADS));
	if (more < 0 || more > (reclaim ? 0 : 2 * N_THREADS))
		printf("%lld objects more than known\n", more);
	tgt_held += more;
	for (i = 0; i < N_THREADS; i++)
		drop_all(&common->hands[i]);
}

static void test_stopped_at_random_moments(void)
{
	unsigned round, n_rounds = tgt_scaled(80), n_killed = 0;
	struct survivor survivors[N_SURVIVORS];
	uint64_t random = (uint64_t)time(NULL), seed = random;
	const char *given = getenv("TG_TEST_SEED");
	pid_t pid = 0;

	if (given)
		seed = random = strtoull(given, NULL, 0);
	printf("TG_TEST_SEED=%llu ", (unsigned long long)seed);
	start_survivors(survivors, &random);
	survivors_go_on(survivors);
	for (round = 0; round < n_rounds; round++) {
		struct timespec moment = {.tv_nsec = (long)(tgt_random(&random) % 2000000)};

		if (pid == 0) {
			seed = tgt_random(&random);
			pid = tgt_fork(be_victim, &seed);
		}
		CU_ASSERT_FATAL(wait_for_steps(atomic_load(&common->steps) + 50));
		nanosleep(&moment, NULL);
		stop(pid);
		check_memory_of_victim();
		survivors_go_on(survivors);
		check_memory_of_victim();
		tgt_check(tgt_check_number("objects"));
		if (round % 3 != 2) {
			CU_ASSERT_EQUAL(kill(pid, SIGCONT), 0);
			continue;
		}
		kill_victim(pid, ++n_killed);
		pid = 0;
	}
	if (pid != 0) {
		atomic_store(&common->quit, true);
		CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	}
	end_survivors(survivors);
}

/* ---- stopped with its locks ---- */

static char state_of(pid_t pid)
{
	char path[32], text[512] = "", *p;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "r");
	if (file) {
		text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
		fclose(file);
	}
	p = strrchr(text, ')');
	return p && p[1] ? p[2] : '?';
}

/* Asks the daemon, which does not answer. */
static void ask_for_much(void *arg)
{
	struct tgt_meeting *meeting = arg;
	uint64_t random = 1, word = make(&random);
	unsigned char *p;

	tgt_tell_parent(meeting);
	TGT_REQUIRE(tgt_wait_parent_said(meeting));
	atomic_store(&common->steps, 1);
	p = tg_malloc(3 << 20);
	atomic_store(&common->steps, 2);
	TGT_EXPECT(p != NULL);
	memset(p, 1, 3 << 20);
	tg_free(p);
	drop(word);
}

/* Stops the child while it waits for the daemon: it has the lock of its connection and that of its large objects.  The
 * daemon answers then, but nobody is there to read it. */
static pid_t stop_with_locks(struct tgt_meeting *meeting)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;
	pid_t daemon = (pid_t)tgt_status("pid"), pid;

	atomic_store(&common->steps, 0);
	pid = tgt_fork(ask_for_much, meeting);
	CU_ASSERT(tgt_wait_child_said(meeting));
	CU_ASSERT_EQUAL_FATAL(kill(daemon, SIGSTOP), 0);
	tgt_tell_child(meeting);
	while (atomic_load(&common->steps) == 0 || state_of(pid) != 'S') {
		if (atomic_load(&common->steps) == 2 || tgt_now_ms() > deadline)
			break;
		sched_yield();
	}
	stop(pid);
	CU_ASSERT_EQUAL(atomic_load(&common->steps), 1);
	CU_ASSERT_EQUAL(kill(daemon, SIGCONT), 0);
	return pid;
}

static void test_stopped_with_its_locks(void)
{
	struct survivor survivors[N_SURVIVORS];
	struct tgt_meeting meeting;
	uint64_t random = 1;
	unsigned round;
	pid_t pid;

	CU_ASSERT_FATAL(tgt_meeting_open(&meeting));
	start_survivors(survivors, &random);
	for (round = 0; round < 4; round++) {
		pid = stop_with_locks(&meeting);
		survivors_go_on(survivors);
		if (round % 2 == 0) {
			CU_ASSERT_EQUAL(kill(pid, SIGCONT), 0);
			CU_ASSERT_EQUAL(tgt_wait(pid), 0);
		} else {
			CU_ASSERT_EQUAL(kill(pid, SIGKILL), 0);
			CU_ASSERT_EQUAL(tgt_wait(pid), 128 + SIGKILL);
			/* Its small object; the large one was granted and never its own. */
			tgt_held += !(common->flags & TG_RECLAIM);
		}
		CU_ASSERT(tgt_wait_at_least("recovered_clients", round + 1));
		tgt_check(tgt_held + count_known());
	}
	end_survivors(survivors);
	tgt_meeting_close(&meeting);
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	CU_ASSERT(tgt_status("span_bytes") < 3 << 20);
}

/* The answer came while the process was stopped, for longer than it would have waited: it is there all the same. */
static void ask_and_be_stopped_for_long(void *arg)
{
	struct tg_options options = {.size = sizeof(options), .timeout_ms = 2000};

	TGT_REQUIRE(tg_detach() == 0);
	options.flags = common->flags;
	TGT_REQUIRE(tg_attach(&options) == 0);
	ask_for_much(arg);
}

static void test_stopped_for_longer_than_the_timeout(void)
{
	struct timespec while_stopped = {.tv_sec = 2, .tv_nsec = 100000000};
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;
	pid_t daemon = (pid_t)tgt_status("pid"), pid;
	struct tgt_meeting meeting;

	CU_ASSERT_FATAL(tgt_meeting_open(&meeting));
	pid = tgt_fork(ask_and_be_stopped_for_long, &meeting);
	CU_ASSERT(tgt_wait_child_said(&meeting));
	CU_ASSERT_EQUAL_FATAL(kill(daemon, SIGSTOP), 0);
	tgt_tell_child(&meeting);
	while (atomic_load(&common->steps) == 0 || state_of(pid) != 'S') {
		if (atomic_load(&common->steps) == 2 || tgt_now_ms() > deadline)
			break;
		sched_yield();
	}
	stop(pid);
	CU_ASSERT_EQUAL(kill(daemon, SIGCONT), 0);
	nanosleep(&while_stopped, NULL);
	CU_ASSERT_EQUAL(kill(pid, SIGCONT), 0);
	CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	tgt_meeting_close(&meeting);
	tgt_check(1);
}

static CU_TestInfo tests[] = {
	{"A client stopped at a random moment blocks nobody, and goes on or is recovered",
	 test_stopped_at_random_moments},
	{"A client stopped while it holds its own locks blocks no other process",
	 test_stopped_with_its_locks},
	{"A client stopped for longer than its timeout finds the answer",
	 test_stopped_for_longer_than_the_timeout},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"stopped, policy keep", NULL, NULL, set_up_keep, tear_down, tests},
	{"stopped, policy reclaim", NULL, NULL, set_up_reclaim, tear_down, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("stopped", suites);
}
