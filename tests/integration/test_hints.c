/* test_hints - a small heap has long stacks of hints for few classes only (client/cache.c).
 */
#include <CUnit/CUnit.h>

#include "client/cache.h"
#include "client/tg.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define CLASSES 8u
#define MANY    256u  /* of each class: more than there ever are hints */
#define LIVE    4096u /* of 1 KiB: 512 pages */

static const size_t sizes[CLASSES] = {16, 32, 48, 64, 80, 96, 112, 128};

static void *small[MANY], *others[LIVE];

static void make(void **to, size_t size, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		to[i] = tg_malloc(size);
		CU_ASSERT_PTR_NOT_NULL_FATAL(to[i]);
	}
}

static void free_all(void **of, unsigned n)
{
	while (n-- > 0)
		tg_free(of[n]);
}

static unsigned n_long(void)
{
	unsigned i, n = 0;

	for (i = 0; i < CLASSES; i++) {
		unsigned class = tgs_size_to_class(sizes[i]);

		n += tgc_cache->bins[class].bottom == tgc_cache->hints[class].at;
	}
	return n;
}

/* Twice: a class has use for more hints when some were missed. */
static void use_all(void)
{
	unsigned i;

	for (i = 0; i < 2 * CLASSES; i++) {
		make(small, sizes[i % CLASSES], MANY);
		free_all(small, MANY);
	}
}

static void test_the_heap_decides_how_many_stacks_are_long(void)
{
	use_all();
	CU_ASSERT(n_long() >= 1);
	CU_ASSERT(n_long() <= 3);
	make(others, 1024, LIVE);
	use_all();
	CU_ASSERT_EQUAL(n_long(), CLASSES);
	free_all(others, LIVE);
}

static void test_trim_leaves_none(void)
{
	make(others, 1024, LIVE);
	use_all();
	CU_ASSERT_EQUAL(n_long(), CLASSES);
	free_all(others, LIVE);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(n_long(), 0);
	CU_ASSERT_EQUAL(tgc_cache->n_long_stacks, 0);
	use_all();
	CU_ASSERT(n_long() >= 1);
	CU_ASSERT(n_long() <= 3);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"The heap decides how many stacks are long",
		 test_the_heap_decides_how_many_stacks_are_long},
		{"A trim leaves none that is long", test_trim_leaves_none},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"hints", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("hints", suites);
}
