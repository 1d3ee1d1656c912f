/* test_realloc - tg_realloc between all kinds of objects: what stays in place, what moves, and that no byte is lost.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "client/tg.h"
#include "shm/sizeclass.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

static const size_t sizes[] = {1,     2,     3,     7,     8,      9,       15,     16,    17,
			       24,    25,    100,   1000,  1024,   1025,    4096,   20000, 32760,
			       32768, 32769, 65536, 70000, 300000, 1 << 20, 3 << 20};
#define N_SIZES (sizeof(sizes) / sizeof(*sizes))

static void test_contents_are_kept(void)
{
	unsigned from, to;

	for (from = 0; from < N_SIZES; from++) {
		for (to = 0; to < N_SIZES; to++) {
			size_t kept = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
			void *p = tg_malloc(sizes[from]), *q;

			CU_ASSERT_PTR_NOT_NULL_FATAL(p);
			tgt_fill_object(p, sizes[from], from * 100 + to);
			q = tg_realloc(p, sizes[to]);
			CU_ASSERT_PTR_NOT_NULL_FATAL(q);
			CU_ASSERT(tg_usable_size(q) >= sizes[to]);
			CU_ASSERT(tgt_is_filled(q, kept, from * 100 + to));
			memset(q, 0xee, sizes[to]);
			tg_free(q);
		}
	}
}

static void test_within_a_class_nothing_moves(void)
{
	unsigned class;

	for (class = 3; class < TGS_CLASSES; class ++) {
		size_t smallest = tgs_classes[class - 1].size + 1,
		       biggest = tgs_classes[class].size;
		void *p = tg_malloc(smallest);

		CU_ASSERT_PTR_NOT_NULL_FATAL(p);
		CU_ASSERT_PTR_EQUAL(tg_realloc(p, biggest), p);
		CU_ASSERT_PTR_EQUAL(tg_realloc(p, smallest), p);
		tg_free(p);
	}
}

static void test_a_shrunk_object_gives_its_room_back(void)
{
	unsigned to;

	for (to = 0; to < N_SIZES; to++) {
		void *p = tg_malloc(4 << 20);

		CU_ASSERT_PTR_NOT_NULL_FATAL(p);
		p = tg_realloc(p, sizes[to]);
		CU_ASSERT_PTR_NOT_NULL_FATAL(p);
		CU_ASSERT(tg_usable_size(p) <= sizes[to] + sizes[to] / 2 + 16);
		tg_free(p);
	}
}

static void test_a_large_object_grows_step_by_step(void)
{
	size_t size = 40000, filled, moved = 0;
	uint8_t *p = tg_malloc(size), *q;
	uint64_t messages = tgt_stats().messages;

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	tgt_fill_object(p, size, 7);
	while (size < (size_t)32 << 20) {
		filled = size;
		size += 10000;
		q = tg_realloc(p, size);
		CU_ASSERT_PTR_NOT_NULL_FATAL(q);
		moved += q != p;
		p = q;
		tgt_fill_object(p + filled, size - filled, size);
	}
	/* Nothing lies behind it, so it need not move; and it asks for more than it needs, so it need not ask each time. */
	CU_ASSERT(moved <= 4);
	CU_ASSERT(tgt_stats().messages - messages < 200);
	CU_ASSERT(tgt_is_filled(p, 40000, 7));
	for (filled = 40000; filled < size; filled += 10000)
		CU_ASSERT(tgt_is_filled(p + filled, 10000, filled + 10000));
	tg_free(p);
}

/* They lie in each other's way, so they have to move, and each move makes room for some growth. */
static void test_objects_that_grow_side_by_side_ask_seldom(void)
{
	uint64_t messages = tgt_stats().messages;
	void *p[4] = {NULL};
	size_t size;
	unsigned i;

	for (size = 40000; size < (size_t)4 << 20; size += size / 8) {
		for (i = 0; i < 4; i++) {
			p[i] = tg_realloc(p[i], size);
			CU_ASSERT_PTR_NOT_NULL_FATAL(p[i]);
		}
	}
	/* 40 steps of each. */
	CU_ASSERT(tgt_stats().messages - messages < 4 * 40 / 2);
	for (i = 0; i < 4; i++)
		tg_free(p[i]);
}

static void test_null_and_zero(void)
{
	void *p = tg_realloc(NULL, 100);

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	tgt_check(1);
	CU_ASSERT_PTR_NULL(tg_realloc(p, 0));
	tgt_check(0);
	p = tg_realloc(NULL, 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	tgt_check(1);
	tg_free(p);
}

static void test_a_refused_realloc_keeps_the_object(void)
{
	unsigned from;

	for (from = 0; from < N_SIZES; from++) {
		void *p = tg_malloc(sizes[from]);
		volatile size_t absurd = SIZE_MAX / 4;

		CU_ASSERT_PTR_NOT_NULL_FATAL(p);
		tgt_fill_object(p, sizes[from], from);
		errno = 0;
		CU_ASSERT_PTR_NULL(tg_realloc(p, absurd));
		CU_ASSERT_EQUAL(errno, ENOMEM);
		errno = 0;
		absurd = SIZE_MAX;
		CU_ASSERT_PTR_NULL(tg_realloc(p, absurd));
		CU_ASSERT_EQUAL(errno, ENOMEM);
		CU_ASSERT(tgt_is_filled(p, sizes[from], from));
		tg_free(p);
	}
}

static void resize_them(void *arg)
{
	void **objects = arg;
	unsigned i;

	for (i = 0; i < N_SIZES; i++) {
		size_t size = sizes[N_SIZES - 1 - i];
		size_t kept = size < sizes[i] ? size : sizes[i];

		objects[i] = tg_realloc(objects[i], size);
		TGT_REQUIRE(objects[i] != NULL);
		TGT_EXPECT(tgt_is_filled(objects[i], kept, i));
		tg_free(objects[i]);
	}
}

static void test_objects_of_another_process(void)
{
	void *objects[N_SIZES];
	unsigned i;

	for (i = 0; i < N_SIZES; i++) {
		objects[i] = tg_malloc(sizes[i]);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
		tgt_fill_object(objects[i], sizes[i], i);
	}
	CU_ASSERT_EQUAL(tgt_in_child(resize_them, objects), 0);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"From any size to any other the contents are kept", test_contents_are_kept},
		{"Within a class nothing moves", test_within_a_class_nothing_moves},
		{"A shrunk object gives its room back", test_a_shrunk_object_gives_its_room_back},
		{"A large object grows in place, asking seldom",
		 test_a_large_object_grows_step_by_step},
		{"Objects that grow side by side ask seldom",
		 test_objects_that_grow_side_by_side_ask_seldom},
		{"realloc of NULL allocates, to 0 bytes frees", test_null_and_zero},
		{"A refused realloc keeps the object as it is",
		 test_a_refused_realloc_keeps_the_object},
		{"Objects of another process can be resized too", test_objects_of_another_process},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"realloc", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("realloc", suites);
}
