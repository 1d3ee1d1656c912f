/* test_tgcached_table - the table of tgcached by itself: a process killed or stopped inside a change hurts nobody.
 *
 * The test is one user of the table and its children are others.  A child is killed or stops itself between its look at a
 * bucket and its swap, where it would have held a lock if there were one; and a debugger's single steps kill it all along
 * the way through a change.  After each death the heap has exactly the table and its buckets.
 */
#include <CUnit/CUnit.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "examples/tgcached/cached.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

static void set_up(void)
{
	tgt_set_up_daemon(NULL);
}

/* The key "key" has a number as its value. */

static struct item *see(void *arg, struct item *old)
{
	*(long *)arg = old != NULL ? atol(item_value(old)) : -1;
	return old;
}

static long value_of(struct table *table, const char *key)
{
	long n = -2;

	CU_ASSERT(table_change(table, key, see, &n));
	return n;
}

static struct item *add_one(void *arg, struct item *old)
{
	static struct item *item;
	const char *key = arg != NULL ? arg : "key";
	char text[24];
	int n = snprintf(text, sizeof(text), "%ld", old != NULL ? atol(item_value(old)) + 1 : 1);

	item_new(&item, key, strlen(key), (size_t)n, 0, 0);
	memcpy(item_value(item), text, (size_t)n);
	return item;
}

static struct item *take_away(void *arg, struct item *old)
{
	(void)arg;
	(void)old;
	return NULL;
}

static long long objects_of(struct table *table)
{
	uint64_t stats[N_STATS];

	table_stats(table, stats);
	return (long long)stats[OBJECTS];
}

static struct item *die(void *arg, struct item *old)
{
	(void)arg;
	kill(getpid(), SIGKILL);
	return old;
}

static void die_in_change(void *arg)
{
	struct table *table = cached_attach();

	TGT_REQUIRE(table != NULL);
	table_change(table, arg, die, NULL);
}

static void test_dead_in_change(void)
{
	struct table *table = cached_attach();

	CU_ASSERT_PTR_NOT_NULL_FATAL(table);
	CU_ASSERT(table_change(table, "key", add_one, NULL));
	for (int i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL(tgt_in_child(die_in_change, "key"), 128 + SIGKILL);
		CU_ASSERT_EQUAL(value_of(table, "key"), i + 1);
		CU_ASSERT(table_change(table, "key", add_one, NULL));
	}
	CU_ASSERT_EQUAL(tgt_in_child(die_in_change, "other"), 128 + SIGKILL);
	table_flush(table, 0);
	CU_ASSERT_EQUAL(value_of(table, "key"), -1);
	CU_ASSERT_EQUAL(objects_of(table), 1);
	tg_detach();
	tgt_held = 1;
}

/* Stops itself the first time, between its look at the bucket and its swap. */
static struct item *stop_and_add(void *arg, struct item *old)
{
	int *n_calls = arg;

	if ((*n_calls)++ == 0)
		raise(SIGSTOP);
	return add_one(NULL, old);
}

static void stop_in_change(void *arg)
{
	struct table *table = cached_attach();
	int n_calls = 0;

	TGT_REQUIRE(table != NULL);
	TGT_EXPECT(table_change(table, arg, stop_and_add, &n_calls));
	TGT_EXPECT(n_calls == 2);
	tg_detach();
}

static void test_stopped_in_change(void)
{
	struct table *table = cached_attach();
	long before;
	int status;
	pid_t pid;

	CU_ASSERT_PTR_NOT_NULL_FATAL(table);
	for (int i = 0; i < 20; i++) {
		CU_ASSERT(table_change(table, "key", add_one, NULL));
		before = value_of(table, "key");
		pid = tgt_fork(stop_in_change, "key");
		CU_ASSERT_EQUAL(waitpid(pid, &status, WUNTRACED), pid);
		CU_ASSERT(WIFSTOPPED(status));
		/* Once, twice...: the memory that the stopped one looked at becomes another bucket, and then another. */
		for (int j = 0; j <= i; j++)
			CU_ASSERT(table_change(table, "key", add_one, NULL));
		kill(pid, SIGCONT);
		CU_ASSERT_EQUAL(tgt_wait(pid), 0);
		CU_ASSERT_EQUAL(value_of(table, "key"), before + i + 2);
	}
	tgt_held = objects_of(table);
	CU_ASSERT_EQUAL(tgt_held, 2);
	tg_detach();
}

/* ---- killed at an instruction ---- */

struct victim {
	change_fn *change;
	const char *key;
};

/* Traced; stops before the change and after it. */
static void change_traced(void *arg)
{
	struct victim *victim = arg;
	struct table *table = cached_attach();

	TGT_REQUIRE(table != NULL);
	/* The caches are filled before, so that what is left is the change itself. */
	tg_free(tg_malloc(100));
	table_change(table, "warm", add_one, "warm");
	table_change(table, "warm", victim->change, "warm");
	TGT_REQUIRE(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
	raise(SIGSTOP);
	table_change(table, victim->key, victim->change, NULL);
	raise(SIGSTOP);
}

/* Lets a child take n_steps instructions on its way through the change, and kills it.  How many it took: fewer if it was
 * through before. */
static unsigned kill_at(struct victim *victim, unsigned n_steps)
{
	pid_t pid = tgt_fork(change_traced, victim);
	unsigned steps = 0;
	int status;

	CU_ASSERT_EQUAL_FATAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_FATAL(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
	while (steps < n_steps) {
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0 ||
		    waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status) ||
		    WSTOPSIG(status) == SIGSTOP)
			break;
		steps++;
	}
	kill(pid, SIGKILL);
	CU_ASSERT_EQUAL(tgt_wait(pid), 128 + SIGKILL);
	return steps;
}

/* Kills a change of this kind at n points: it took place, or it did not.  Every other one is near the end, where the swap
 * lies; the rest is spread over all. */
static void kill_everywhere(struct table *table, change_fn *change, bool there, unsigned n)
{
	struct victim victim = {change, "key"};
	unsigned total, done = 0;

	table_change(table, "key", there ? add_one : take_away, NULL);
	total = kill_at(&victim, 1000000);
	CU_ASSERT_FATAL(total > n && total < 1000000);
	for (unsigned i = 0; i < n; i++) {
		long before, after, changed;

		table_change(table, "key", there ? add_one : take_away, NULL);
		before = value_of(table, "key");
		changed = change == take_away ? -1 : there ? before + 1 : 1;
		kill_at(&victim,
			i % 2 ? total - 1 - 8 * i : total / n * i + (unsigned)rand() % (total / n));
		after = value_of(table, "key");
		CU_ASSERT(after == before || after == changed);
		done += after == changed;
		CU_ASSERT_FATAL(tgt_wait_at_most("clients", 1));
		tgt_check(objects_of(table));
	}
	CU_ASSERT(done < n);
	/* And behind the end of the way it did. */
	kill_at(&victim, 1000000);
	CU_ASSERT_EQUAL(value_of(table, "key") == -1, change == take_away);
	printf("(%u instructions, %u of %u took place) ", total, done, n);
}

static void test_killed_everywhere(void)
{
	struct table *table = cached_attach();
	unsigned n = tgt_scaled(30), seed = (unsigned)time(NULL);

	CU_ASSERT_PTR_NOT_NULL_FATAL(table);
	printf("seed %u ", seed);
	srand(seed);
	kill_everywhere(table, add_one, true, n);
	kill_everywhere(table, add_one, false, n);
	kill_everywhere(table, take_away, true, n);
	tgt_held = objects_of(table);
	tg_detach();
}

static CU_TestInfo tests[] = {
	{"a worker killed in the middle of a change leaves nothing to repair", test_dead_in_change},
	{"one stopped there stops nobody, and then changes what it finds", test_stopped_in_change},
	{"killed at any instruction, a change took place or did not", test_killed_everywhere},
	CU_TEST_INFO_NULL,
};

int main(void)
{
	CU_SuiteInfo suites[] = {
		{"table", NULL, NULL, set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("tgcached_table", suites);
}
