/* test_roots - names that lead to objects: set, found by others, exchanged, removed, refused.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define ROOTS_MAX 4096

static void no_root(const char *name)
{
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_root_get(name));
	CU_ASSERT_EQUAL(errno, ENOENT);
}

static void test_set_get_remove(void)
{
	void *p = tg_malloc(10), *q = tg_malloc(100);

	no_root("a");
	CU_ASSERT_EQUAL(tg_root_set("a", p), 0);
	CU_ASSERT_PTR_EQUAL(tg_root_get("a"), p);
	no_root("b");
	no_root("A");
	no_root("aa");
	CU_ASSERT_EQUAL(tg_root_set("b", q), 0);
	CU_ASSERT_EQUAL(tg_root_set("a", q), 0);
	CU_ASSERT_PTR_EQUAL(tg_root_get("a"), q);
	CU_ASSERT_PTR_EQUAL(tg_root_get("b"), q);
	CU_ASSERT_EQUAL(tgt_status("roots"), 2);
	CU_ASSERT_EQUAL(tg_root_set("a", NULL), 0);
	no_root("a");
	CU_ASSERT_EQUAL(tg_root_set("a", NULL), -ENOENT);
	CU_ASSERT_EQUAL(tg_root_set("never", NULL), -ENOENT);
	CU_ASSERT_PTR_EQUAL(tg_root_get("b"), q);
	CU_ASSERT_EQUAL(tgt_status("roots"), 1);
	/* A root holds nothing alive and frees nothing. */
	tgt_check(2);
	CU_ASSERT_EQUAL(tg_root_set("b", NULL), 0);
	tgt_check(2);
	tg_free(p);
	tg_free(q);
}

static void test_a_root_publishes_its_object(void)
{
	void *p = tg_malloc(10);

	CU_ASSERT_EQUAL(tgt_check_number("published"), 0);
	CU_ASSERT_EQUAL(tg_root_set("r", p), 0);
	CU_ASSERT_EQUAL(tgt_check_number("published"), 1);
	CU_ASSERT_EQUAL(tg_root_set("r", NULL), 0);
	CU_ASSERT_EQUAL(tgt_check_number("published"), 1);
	tg_free(p);
	CU_ASSERT_EQUAL(tgt_check_number("published"), 0);
}

static void test_compare_and_set(void)
{
	void *p = tg_malloc(10), *q = tg_malloc(10);

	CU_ASSERT_EQUAL(tg_root_cas("r", p, q), -EAGAIN);
	no_root("r");
	CU_ASSERT_EQUAL(tg_root_cas("r", NULL, p), 0);
	CU_ASSERT_PTR_EQUAL(tg_root_get("r"), p);
	CU_ASSERT_EQUAL(tg_root_cas("r", NULL, q), -EAGAIN);
	CU_ASSERT_EQUAL(tg_root_cas("r", q, p), -EAGAIN);
	CU_ASSERT_PTR_EQUAL(tg_root_get("r"), p);
	CU_ASSERT_EQUAL(tg_root_cas("r", p, q), 0);
	CU_ASSERT_PTR_EQUAL(tg_root_get("r"), q);
	CU_ASSERT_EQUAL(tg_root_cas("r", p, NULL), -EAGAIN);
	CU_ASSERT_EQUAL(tg_root_cas("r", q, NULL), 0);
	no_root("r");
	tg_free(p);
	tg_free(q);
}

static void test_names(void)
{
	char name[200];
	void *p = tg_malloc(10);

	memset(name, 'n', sizeof(name));
	name[127] = '\0';
	CU_ASSERT_EQUAL(tg_root_set(name, p), 0);
	CU_ASSERT_PTR_EQUAL(tg_root_get(name), p);
	name[126] = '\0';
	no_root(name);
	name[126] = 'n';
	CU_ASSERT_EQUAL(tg_root_set(name, NULL), 0);
	name[127] = 'n';
	name[128] = '\0';
	CU_ASSERT_EQUAL(tg_root_set(name, p), -ENAMETOOLONG);
	CU_ASSERT_EQUAL(tg_root_cas(name, NULL, p), -ENAMETOOLONG);
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_root_get(name));
	CU_ASSERT_EQUAL(errno, ENAMETOOLONG);
	CU_ASSERT_EQUAL(tg_root_set("", p), -EINVAL);
	CU_ASSERT_EQUAL(tg_root_set(NULL, p), -EINVAL);
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_root_get(""));
	CU_ASSERT_EQUAL(errno, EINVAL);
	CU_ASSERT_EQUAL(tg_root_set("a name / with spaces \xc3\xa4", p), 0);
	CU_ASSERT_PTR_EQUAL(tg_root_get("a name / with spaces \xc3\xa4"), p);
	CU_ASSERT_EQUAL(tg_root_set("a name / with spaces \xc3\xa4", NULL), 0);
	/* Refused, and the next request is answered. */
	CU_ASSERT(tg_root_set("not UTF-8: \xff\xfe", p) < 0);
	CU_ASSERT_EQUAL(tg_root_set("r", p), 0);
	CU_ASSERT_EQUAL(tgt_status("roots"), 1);
	tg_free(p);
}

static void test_what_is_no_object(void)
{
	uint8_t *p = tg_malloc(100), *large = tg_malloc(100000);
	int on_stack = 0;

	CU_ASSERT_EQUAL(tg_root_set("r", &on_stack), -EFAULT);
	CU_ASSERT_EQUAL(tg_root_set("r", p + 1), -EFAULT);
	CU_ASSERT_EQUAL(tg_root_set("r", p + 16), -EFAULT);
	CU_ASSERT_EQUAL(tg_root_set("r", large + 8192), -EFAULT);
	CU_ASSERT_EQUAL(tg_root_cas("r", NULL, &on_stack), -EFAULT);
	tg_free(p);
	tg_free(large);
	CU_ASSERT_EQUAL(tg_root_set("r", p), -EFAULT);
	CU_ASSERT_EQUAL(tg_root_set("r", large), -EFAULT);
	no_root("r");
}

static void test_a_full_table(void)
{
	char name[64];
	uint8_t *p = tg_malloc(100);
	unsigned i;

	for (i = 0; i < ROOTS_MAX; i++) {
		snprintf(name, sizeof(name), "root %u", i);
		CU_ASSERT_EQUAL_FATAL(tg_root_set(name, p), 0);
	}
	CU_ASSERT_EQUAL(tg_root_set("one more", p), -ENOSPC);
	CU_ASSERT_EQUAL(tg_root_cas("one more", NULL, p), -ENOSPC);
	no_root("one more");
	CU_ASSERT_EQUAL(tgt_status("roots"), ROOTS_MAX);
	/* Those that there are can be changed; room that is made can be used. */
	CU_ASSERT_EQUAL(tg_root_set("root 4095", p), 0);
	CU_ASSERT_PTR_EQUAL(tg_root_get("root 4095"), p);
	CU_ASSERT_EQUAL(tg_root_set("root 17", NULL), 0);
	no_root("root 17");
	CU_ASSERT_EQUAL(tg_root_set("one more", p), 0);
	CU_ASSERT_PTR_EQUAL(tg_root_get("one more"), p);
	CU_ASSERT_EQUAL(tg_root_set("root 17", p), -ENOSPC);
	CU_ASSERT_EQUAL(tg_root_set("one more", NULL), 0);
	for (i = 0; i < ROOTS_MAX; i++) {
		snprintf(name, sizeof(name), "root %u", i);
		if (i != 17)
			CU_ASSERT_EQUAL(tg_root_set(name, NULL), 0);
	}
	CU_ASSERT_EQUAL(tgt_status("roots"), 0);
	tg_free(p);
}

static void find_and_answer(void *arg)
{
	uint64_t *question = tg_root_get("question"), *answer;

	(void)arg;
	TGT_REQUIRE(question != NULL);
	TGT_EXPECT(*question == 6 * 9);
	answer = tg_malloc(sizeof(*answer));
	TGT_REQUIRE(answer != NULL);
	*answer = 42;
	TGT_EXPECT(tg_root_set("answer", answer) == 0);
	TGT_EXPECT(tg_root_cas("question", question, NULL) == 0);
	tg_free(question);
}

static void test_processes_find_each_others_objects(void)
{
	uint64_t *question = tg_malloc(sizeof(*question)), *answer;

	*question = 6 * 9;
	CU_ASSERT_EQUAL(tg_root_set("question", question), 0);
	CU_ASSERT_EQUAL(tgt_in_child(find_and_answer, NULL), 0);
	no_root("question");
	answer = tg_root_get("answer");
	CU_ASSERT_PTR_NOT_NULL_FATAL(answer);
	CU_ASSERT_EQUAL(*answer, 42);
	tgt_check(1);
	CU_ASSERT_EQUAL(tg_root_set("answer", NULL), 0);
	tg_free(answer);
}

/* ---- readers while roots change ---- */

static struct {
	void *one, *two;
	_Atomic bool stop;
} flips;

static void *read_roots(void *arg)
{
	uint64_t *n = arg;

	while (!atomic_load(&flips.stop)) {
		void *p = tg_root_get("flip");

		TGT_EXPECT(p == flips.one || p == flips.two);
		p = tg_root_get("comes and goes");
		TGT_EXPECT(p == NULL || p == flips.one);
		/* Takes the place of the one that comes and goes, each time. */
		p = tg_root_get("other");
		TGT_EXPECT(p == NULL || p == flips.two);
		++*n;
	}
	return NULL;
}

static void test_readers_see_one_or_the_other(void)
{
	pthread_t threads[2];
	uint64_t n[2] = {0, 0};
	unsigned i;

	flips.one = tg_malloc(10);
	flips.two = tg_malloc(20);
	flips.stop = false;
	CU_ASSERT_EQUAL(tg_root_set("flip", flips.one), 0);
	for (i = 0; i < 2; i++)
		CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, read_roots, &n[i]), 0);
	for (i = 0; i < 1000; i++) {
		CU_ASSERT_EQUAL(tg_root_set("flip", i % 2 ? flips.one : flips.two), 0);
		CU_ASSERT_EQUAL(tg_root_set("comes and goes", flips.one), 0);
		CU_ASSERT_EQUAL(tg_root_set("comes and goes", NULL), 0);
		CU_ASSERT_EQUAL(tg_root_set("other", flips.two), 0);
		CU_ASSERT_EQUAL(tg_root_set("other", NULL), 0);
	}
	flips.stop = true;
	for (i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		CU_ASSERT(n[i] > 0);
	}
	CU_ASSERT_EQUAL(tg_root_set("flip", NULL), 0);
	tg_free(flips.one);
	tg_free(flips.two);
}

/* ---- two processes count with tg_root_cas alone ---- */

#define STEPS 300

static void count_up(void *arg)
{
	unsigned i;

	(void)arg;
	for (i = 0; i < STEPS;) {
		uint64_t *old = tg_root_get("count"), *next = tg_malloc(sizeof(*next));

		TGT_REQUIRE(old != NULL && next != NULL);
		/* Old ones are not freed here: the other process may be reading them. */
		*next = *old + 1;
		if (tg_root_cas("count", old, next) == 0)
			i++;
		else
			tg_free(next);
	}
}

static void test_two_processes_count_with_cas(void)
{
	uint64_t *count = tg_calloc(1, sizeof(*count));
	pid_t pid;

	CU_ASSERT_EQUAL(tg_root_set("count", count), 0);
	pid = tgt_fork(count_up, NULL);
	CU_ASSERT_FATAL(pid > 0);
	count_up(NULL);
	CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	count = tg_root_get("count");
	CU_ASSERT_PTR_NOT_NULL_FATAL(count);
	CU_ASSERT_EQUAL(*count, 2 * STEPS);
	tgt_held = 2 * STEPS + 1;
}

static void test_the_list_of_tgctl(void)
{
	const char *const args[] = {"roots", NULL};
	json_t *answer, *roots;
	void *p = tg_malloc(100);

	CU_ASSERT_EQUAL(tg_root_set("first", p), 0);
	CU_ASSERT_EQUAL(tg_root_set("second", p), 0);
	answer = tgt_tgctl(&tgt_d, args, NULL);
	roots = json_object_get(answer, "roots");
	CU_ASSERT_EQUAL(json_array_size(roots), 2);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(json_array_get(roots, 1), "name")),
			       "second");
	CU_ASSERT_EQUAL(tgt_json_int(json_array_get(roots, 0), "ref"), (long long)tg_to_ref(p));
	CU_ASSERT_EQUAL(tgt_json_int(json_array_get(roots, 0), "size"), 112);
	json_decref(answer);
	tg_free(p);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"A root is set, found, changed and removed", test_set_get_remove},
		{"A root publishes its object", test_a_root_publishes_its_object},
		{"tg_root_cas changes what leads to the expected object and nothing else",
		 test_compare_and_set},
		{"Names of 1 to 127 bytes are taken, others refused", test_names},
		{"A root does not lead to what is no live object", test_what_is_no_object},
		{"A full table refuses one root more, and takes one again when there is room",
		 test_a_full_table},
		{"Processes find each other's objects by roots",
		 test_processes_find_each_others_objects},
		{"Who looks while roots change sees the old or the new object",
		 test_readers_see_one_or_the_other},
		{"Two processes count with tg_root_cas alone", test_two_processes_count_with_cas},
		{"tgctl lists the roots", test_the_list_of_tgctl},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"roots", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("roots", suites);
}
