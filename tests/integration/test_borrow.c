/* test_borrow - a class that goes up and down uses slots of a larger one before it asks for a span (client/borrow.c).
 */
#include <CUnit/CUnit.h>
#include <stdint.h>

#include "client/tg.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define OF_896 9 /* in a span, as 8 of 1 KiB */
#define MANY   512

static void *objects[MANY], *others[MANY];

static void allocate(void **to, size_t size, size_t align, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		to[i] = align == 0 ? tg_malloc(size) : tg_aligned_alloc(align, size);
		CU_ASSERT_PTR_NOT_NULL_FATAL(to[i]);
	}
}

static void free_all(void **of, unsigned n)
{
	while (n-- > 0)
		tg_free(of[n]);
}

/* `n` objects of the size, which fill a span; one was freed meanwhile. */
static void fill_span(size_t size, size_t align, unsigned n)
{
	allocate(objects, size, align, n);
	tg_free(objects[0]);
	allocate(objects, size, align, 1);
}

/* `n` slots of the size are free. */
static void leave_free(size_t size, unsigned n)
{
	allocate(others, size, 0, n);
	free_all(others, n);
}

static void test_a_slot_of_a_larger_class_is_used(void)
{
	long long spans;
	void *p;

	leave_free(1024, 8);
	fill_span(896, 0, OF_896);
	spans = tgt_status("spans");
	p = tg_malloc(896);
	CU_ASSERT_EQUAL(tg_usable_size(p), 1024);
	tgt_check(OF_896 + 1);
	tg_free(p);
	/* It is a slot like others of that class. */
	CU_ASSERT_PTR_EQUAL(tg_malloc(1024), p);
	tg_free(p);
	CU_ASSERT_EQUAL(tgt_status("spans"), spans);
	free_all(objects, OF_896);
}

static void test_a_class_that_only_grows_gets_spans(void)
{
	leave_free(1024, 8);
	allocate(objects, 896, 0, OF_896 + 1);
	CU_ASSERT_EQUAL(tg_usable_size(objects[OF_896]), 896);
	free_all(objects, OF_896 + 1);
}

static void test_few_free_slots_are_not_lent(void)
{
	void *p;

	/* Of 16 one. */
	allocate(others, 1024, 0, 16);
	/* What came with them and is empty. */
	CU_ASSERT_EQUAL(tg_trim(), 0);
	tg_free(others[0]);
	fill_span(896, 0, OF_896);
	p = tg_malloc(896);
	CU_ASSERT_EQUAL(tg_usable_size(p), 896);
	tg_free(p);
	free_all(objects, OF_896);
	free_all(others + 1, 15);
}

/* Of four slots, which is as many spans, one. */
static void test_each_large_slot_that_was_freed_is_lent(void)
{
	void *p;

	allocate(others, 16384, 0, 4);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	fill_span(12288, 0, 2);
	tg_free(others[0]);
	p = tg_malloc(12288);
	CU_ASSERT_PTR_EQUAL(p, others[0]);
	CU_ASSERT_EQUAL(tg_usable_size(p), 16384);
	tg_free(p);
	free_all(objects, 2);
	free_all(others + 1, 3);
}

static void test_who_borrows_often_gets_a_span(void)
{
	unsigned i;
	void *p;

	leave_free(1024, 8);
	fill_span(896, 0, OF_896);
	for (i = 0; i < 1000; i++) {
		p = tg_malloc(896);
		if (tg_usable_size(p) == 896)
			break;
		tg_free(p);
	}
	CU_ASSERT(i > OF_896);
	CU_ASSERT_FATAL(i < 1000);
	tg_free(p);
	free_all(objects, OF_896);
}

/* 16 bytes are aligned to 16, which slots of 24 are not; and what was asked to be aligned is. */
static void test_what_is_borrowed_is_aligned(void)
{
	unsigned i;

	leave_free(24, 341);
	fill_span(16, 0, 512);
	for (i = 0; i < 64; i++) {
		others[i] = tg_malloc(16);
		CU_ASSERT_EQUAL((uintptr_t)others[i] % 16, 0);
	}
	free_all(others, 64);
	free_all(objects, 512);

	leave_free(208, 39);
	fill_span(192, 64, 42);
	others[0] = tg_aligned_alloc(64, 192);
	CU_ASSERT_EQUAL((uintptr_t)others[0] % 64, 0);
	tg_free(others[0]);
	free_all(objects, 42);
}

/* Cleared, though the slot was used before. */
static void test_calloc_clears_what_it_borrows(void)
{
	void *p;

	allocate(others, 1024, 0, 8);
	tgt_fill_object(others[7], 1024, 7);
	free_all(others, 8);
	fill_span(896, 0, OF_896);
	p = tg_calloc(1, 896);
	CU_ASSERT_EQUAL(tg_usable_size(p), 1024);
	CU_ASSERT(tgt_is_zero(p, 896));
	tg_free(p);
	free_all(objects, OF_896);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"A slot of a larger class is used before a span is asked for",
		 test_a_slot_of_a_larger_class_is_used},
		{"A class that only grows gets spans", test_a_class_that_only_grows_gets_spans},
		{"A class that has few free slots lends none", test_few_free_slots_are_not_lent},
		{"Each large slot that was freed is lent",
		 test_each_large_slot_that_was_freed_is_lent},
		{"Who borrows often gets a span", test_who_borrows_often_gets_a_span},
		{"What is borrowed is aligned as it should be", test_what_is_borrowed_is_aligned},
		{"calloc clears what it borrows", test_calloc_clears_what_it_borrows},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"borrow", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("borrow", suites);
}
