/* test_link - tg_swap: a pointer in the heap changes, and with it who owns what.
 *
 * The lists here are such that nobody reads a node which another one may have retired: anybody pushes, but each list is
 * popped by one thread.  (Two that pop the same list need more than a compare-and-swap, in any heap.)
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/message.h"
#include "tests/support/runner.h"

#define N_PROCESSES 3
#define N_THREADS   2
#define N_LISTS     (N_PROCESSES * N_THREADS)

static void swap_fails(tg_link *link, const void *expected, void *desired, unsigned flags,
		       int error)
{
	errno = 12345;
	CU_ASSERT_FALSE(tg_swap(link, expected, desired, flags));
	CU_ASSERT_EQUAL(errno, error);
}

static void published_are(long long n)
{
	CU_ASSERT_EQUAL(tgt_check_number("published"), n);
}

static void test_a_swap_changes_the_link(void)
{
	tg_link *link = tg_calloc(1, sizeof(*link));
	void *p = tg_malloc(10), *q = tg_malloc(100000);

	CU_ASSERT_PTR_NULL(tg_link_get(link));
	swap_fails(link, p, q, 0, 0);
	CU_ASSERT_TRUE(tg_swap(link, NULL, p, 0));
	CU_ASSERT_PTR_EQUAL(tg_link_get(link), p);
	swap_fails(link, NULL, q, 0, 0);
	swap_fails(link, q, NULL, 0, 0);
	CU_ASSERT_TRUE(tg_swap(link, p, q, 0));
	CU_ASSERT_PTR_EQUAL(tg_link_get(link), q);
	CU_ASSERT_TRUE(tg_swap(link, q, q, 0));
	CU_ASSERT_TRUE(tg_swap(link, q, NULL, 0));
	CU_ASSERT_PTR_NULL(tg_link_get(link));
	CU_ASSERT_TRUE(tg_swap(link, NULL, NULL, 0));
	/* Without flags nothing changes hands. */
	tgt_check(3);
	published_are(0);
	tg_free(link);
	tg_free(p);
	tg_free(q);
}

static void test_give(void)
{
	tg_link *link = tg_calloc(1, sizeof(*link));
	void *p = tg_malloc(3), *q = tg_malloc(50000);

	CU_ASSERT_TRUE(tg_swap(link, NULL, p, TG_GIVE));
	published_are(1);
	/* What did not get in stays its maker's. */
	swap_fails(link, NULL, q, TG_GIVE, 0);
	published_are(1);
	CU_ASSERT_TRUE(tg_swap(link, p, q, TG_GIVE));
	published_are(2);
	/* What was the heap's before stays so. */
	swap_fails(link, NULL, p, TG_GIVE, 0);
	published_are(2);
	CU_ASSERT_TRUE(tg_swap(link, q, NULL, TG_GIVE));
	tgt_check(3);
	tg_free(link);
	tg_free(p);
	tg_free(q);
	published_are(0);
}

static void test_retire(void)
{
	tg_link *link = tg_calloc(1, sizeof(*link));
	void *p = tg_malloc(3), *q = tg_malloc(300);

	CU_ASSERT_TRUE(tg_swap(link, NULL, p, TG_GIVE));
	swap_fails(link, q, NULL, TG_RETIRE, 0);
	tgt_check(3);
	CU_ASSERT_TRUE(tg_swap(link, p, q, TG_GIVE | TG_RETIRE));
	tgt_check(2);
	published_are(1);
	CU_ASSERT_EQUAL(tg_usable_size(p), 0);
	CU_ASSERT_TRUE(tg_swap(link, q, NULL, TG_RETIRE));
	tgt_check(1);
	published_are(0);
	CU_ASSERT_TRUE(tg_swap(link, NULL, NULL, TG_GIVE | TG_RETIRE));
	tg_free(link);
}

static void test_what_cannot_be_swapped(void)
{
	tg_link *links = tg_calloc(4, sizeof(*links)), on_stack = {0};
	uint8_t *p = tg_malloc(100), *dead = tg_malloc(100), *keep = tg_malloc(100);

	tg_free(dead);
	swap_fails(links, NULL, p, 4, EINVAL);
	swap_fails(links, NULL, p, TG_GIVE | 0x80000000u, EINVAL);
	swap_fails((tg_link *)((char *)links + 4), NULL, p, 0, EINVAL);
	swap_fails(&on_stack, NULL, p, 0, EFAULT);
	swap_fails(links, NULL, &on_stack, 0, EFAULT);
	swap_fails(links, &on_stack, NULL, 0, EFAULT);
	swap_fails(links, NULL, dead, TG_GIVE, EFAULT);
	swap_fails(links, NULL, p + 16, TG_GIVE, EFAULT);
	CU_ASSERT_PTR_NULL(tg_link_get(links));
	/* A link may lead to what is no object, but that cannot be retired. */
	CU_ASSERT_TRUE(tg_swap(links, NULL, p + 16, 0));
	swap_fails(links, p + 16, NULL, TG_RETIRE, EFAULT);
	CU_ASSERT_TRUE(tg_swap(links, p + 16, NULL, 0));
	/* All of it without a trace. */
	published_are(0);
	tgt_check(3);
	tg_free(links);
	tg_free(p);
	tg_free(keep);
}

static void test_links_anywhere_in_an_object(void)
{
	/* In a large one too, beyond its first page. */
	tg_link *links = tg_calloc(20000, sizeof(*links));
	void *p = tg_malloc(10);
	unsigned i;

	CU_ASSERT_PTR_NOT_NULL_FATAL(links);
	for (i = 0; i < 20000; i += 999) {
		CU_ASSERT_TRUE(tg_swap(&links[i], NULL, p, TG_GIVE));
		CU_ASSERT_PTR_EQUAL(tg_link_get(&links[i]), p);
	}
	tg_free(links);
	tg_free(p);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	/* A span that had links leaves no trace in its record either: `check` looks. */
	tgt_check(0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

/* ---- many processes ---- */

struct node {
	struct node *next;
	uint64_t from, value;
};

/* In the heap. */
struct arena {
	tg_link lists[N_LISTS];
	tg_link cell;
	_Atomic uint64_t pushed, popped, pushed_sum, popped_sum;
	_Atomic uint64_t replaced, lost;
	_Atomic unsigned n_pushing;
	unsigned n; /* of pushes, of each thread */
};

struct worker {
	struct arena *arena;
	unsigned id;
};

static bool push(tg_link *list, struct node *node)
{
	do
		node->next = tg_link_get(list);
	while (!tg_swap(list, node->next, node, TG_GIVE) && errno == 0);
	return tg_link_get(list) != NULL || errno == 0;
}

/* By the list's own thread alone: what it reads here, nobody else retires. */
static struct node *pop(tg_link *list, uint64_t *ret_value)
{
	struct node *first;

	do {
		first = tg_link_get(list);
		if (first == NULL)
			return NULL;
		*ret_value = first->value;
	} while (!tg_swap(list, first, first->next, TG_RETIRE) && TGT_EXPECT(errno == 0));
	return first;
}

static void pop_some(struct worker *w, unsigned n)
{
	uint64_t value = 0;

	while (n-- > 0 && pop(&w->arena->lists[w->id], &value) != NULL) {
		atomic_fetch_add(&w->arena->popped, 1);
		atomic_fetch_add(&w->arena->popped_sum, value);
	}
}

static void *push_and_pop(void *arg)
{
	struct worker *w = arg;
	struct arena *arena = w->arena;
	uint64_t random = w->id + 1, sum = 0;
	unsigned i;

	for (i = 0; i < arena->n; i++) {
		struct node *node = tg_malloc(sizeof(*node));

		TGT_REQUIRE(node != NULL);
		node->value = tgt_random(&random) >> 32;
		sum += node->value;
		TGT_EXPECT(push(&arena->lists[tgt_random(&random) % N_LISTS], node));
		pop_some(w, i % 3);
	}
	atomic_fetch_add(&arena->pushed, arena->n);
	atomic_fetch_add(&arena->pushed_sum, sum);
	atomic_fetch_sub(&arena->n_pushing, 1);
	while (atomic_load(&arena->n_pushing) != 0)
		pop_some(w, 1);
	pop_some(w, UINT32_MAX);
	return NULL;
}

static void *replace(void *arg)
{
	struct worker *w = arg;
	uint64_t replaced = 0, lost = 0;
	unsigned i;

	for (i = 0; i < w->arena->n; i++) {
		/* Objects of many sizes go through the cell, tiny ones too. */
		void *p = tg_malloc(1 + (i * 7 + w->id) % 600);

		TGT_REQUIRE(p != NULL);
		if (tg_swap(&w->arena->cell, tg_link_get(&w->arena->cell), p,
			    TG_GIVE | TG_RETIRE)) {
			replaced++;
		} else {
			/* The old object may have gone meanwhile, its place even be free. */
			TGT_EXPECT(errno == 0 || errno == EFAULT);
			tg_free(p);
			lost++;
		}
	}
	atomic_fetch_add(&w->arena->replaced, replaced);
	atomic_fetch_add(&w->arena->lost, lost);
	return NULL;
}

struct crew {
	struct arena *arena;
	unsigned process;
	void *(*work)(void *);
};

static void work_together(void *arg)
{
	struct crew *crew = arg;
	struct worker workers[N_THREADS];
	pthread_t threads[N_THREADS];
	unsigned i;

	for (i = 0; i < N_THREADS; i++) {
		workers[i] = (struct worker){crew->arena, crew->process * N_THREADS + i};
		TGT_REQUIRE(pthread_create(&threads[i], NULL, crew->work, &workers[i]) == 0);
	}
	for (i = 0; i < N_THREADS; i++)
		pthread_join(threads[i], NULL);
}

static void run_crews(struct arena *arena, void *(*work)(void *))
{
	pid_t pids[N_PROCESSES];
	unsigned i;

	for (i = 0; i < N_PROCESSES; i++) {
		struct crew crew = {arena, i, work};

		pids[i] = tgt_fork(work_together, &crew);
		CU_ASSERT_FATAL(pids[i] > 0);
	}
	for (i = 0; i < N_PROCESSES; i++)
		CU_ASSERT_EQUAL(tgt_wait(pids[i]), 0);
}

static void test_lists_of_many_processes(void)
{
	struct arena *arena = tg_calloc(1, sizeof(*arena));

	arena->n = tgt_scaled(40000);
	arena->n_pushing = N_LISTS;
	run_crews(arena, push_and_pop);
	CU_ASSERT_EQUAL(arena->pushed, N_LISTS * (uint64_t)arena->n);
	CU_ASSERT_EQUAL(arena->popped, arena->pushed);
	CU_ASSERT_EQUAL(arena->popped_sum, arena->pushed_sum);
	tgt_check(1);
	tg_free(arena);
}

static void test_a_cell_that_all_replace(void)
{
	struct arena *arena = tg_calloc(1, sizeof(*arena));

	arena->n = tgt_scaled(40000);
	run_crews(arena, replace);
	CU_ASSERT_EQUAL(arena->replaced + arena->lost, N_LISTS * (uint64_t)arena->n);
	CU_ASSERT(arena->replaced >= arena->n);
	tgt_check(2);
	/* The arena, in which others swing, and what is in the cell. */
	published_are(2);
	CU_ASSERT_TRUE(tg_swap(&arena->cell, tg_link_get(&arena->cell), NULL, TG_RETIRE));
	tgt_check(1);
	tg_free(arena);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"A swap changes the link if it leads to what was expected",
		 test_a_swap_changes_the_link},
		{"TG_GIVE publishes what the link now leads to", test_give},
		{"TG_RETIRE frees what the link led to", test_retire},
		{"What cannot be swapped is refused without a trace", test_what_cannot_be_swapped},
		{"Links lie anywhere in an object and go with it",
		 test_links_anywhere_in_an_object},
		{"Many processes push on and pop from lists, and no node is lost",
		 test_lists_of_many_processes},
		{"Of all that many processes put into one cell one object is left",
		 test_a_cell_that_all_replace},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"link", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("link", suites);
}
