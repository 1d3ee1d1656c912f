/* test_grants - what a process does with the spans that the daemon grants it: those that it may not use, those that cannot
 * be, and how many large ones it asks for at a time.
 *
 * Which pages may not be used libtgmalloc says in a forked child (client/malloc/fork.c); here this program does.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <string.h>

#include "client/cache.h"
#include "client/tg.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define PAGE 8192u
#define MIB  ((size_t)1 << 20)

/* ---- pages that may not be used ---- */

static uint64_t usable_from, usable_to = UINT64_MAX;
static unsigned n_refused;

bool tgc_malloc_may_use(uint64_t page, uint64_t n_pages)
{
	bool may = page >= usable_from && page + n_pages <= usable_to;

	n_refused += !may;
	return may;
}

static void set_up(void)
{
	usable_from = 0;
	usable_to = UINT64_MAX;
	n_refused = 0;
	tgt_set_up();
}

static uint64_t page_of(const void *p)
{
	return (uint64_t)((const uint8_t *)p - tgc_heap.data) >> TGS_PAGE_SHIFT;
}

/* Twice as many each time, so it does not take long. */
static void test_small_spans_are_asked_for_until_one_is_usable(void)
{
	uint64_t messages = tgt_stats().messages;
	void *p;

	usable_from = 64;
	p = tg_malloc(100);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	CU_ASSERT(page_of(p) >= usable_from);
	CU_ASSERT(n_refused > 0);
	CU_ASSERT(tgt_stats().messages - messages < 16);
	tgt_fill_object(p, 100, 1);
	tgt_check(1);
	CU_ASSERT(tgt_is_filled(p, 100, 1));
	tg_free(p);
}

static void test_large_spans_are_asked_for_until_one_is_usable(void)
{
	void *p;

	usable_from = 64;
	p = tg_malloc(100000);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	CU_ASSERT(page_of(p) >= usable_from);
	CU_ASSERT(n_refused > 0);
	tgt_fill_object(p, 100000, 1);
	tgt_check(1);
	CU_ASSERT(tgt_is_filled(p, 100000, 1));
	tg_free(p);
}

static void test_a_large_object_does_not_grow_into_pages_that_are_not_usable(void)
{
	void *p = tg_malloc(100000), *q;

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	tgt_fill_object(p, 100000, 1);
	usable_to = page_of(p) + (100000 + PAGE - 1) / PAGE;
	/* In a free heap it would, and nowhere else may it lie either. */
	CU_ASSERT_PTR_NULL(tgc_large_realloc(p, page_of(p), 200000));
	CU_ASSERT_EQUAL(n_refused, 1);
	usable_to = UINT64_MAX;
	q = tgc_large_realloc(p, page_of(p), 200000);
	CU_ASSERT_PTR_EQUAL(q, p);
	CU_ASSERT(tgt_is_filled(p, 100000, 1));
	tg_free(p);
}

/* ---- spans that cannot be ---- */

static void test_what_cannot_be_is_not_taken_in(void)
{
	uint64_t n_pages = tgc_heap.geometry.n_pages;
	struct tgc_cache *cache = tgc_cache_get();
	unsigned two = 1;

	CU_ASSERT_PTR_NOT_NULL_FATAL(cache);
	while (tgs_classes[two].n_pages < 2)
		two++;
	CU_ASSERT_EQUAL(tgc_span_add(cache, n_pages, 5, true), -EPROTO);
	CU_ASSERT_EQUAL(tgc_span_add(cache, UINT64_MAX, 5, true), -EPROTO);
	CU_ASSERT_EQUAL(tgc_span_add(cache, n_pages - 1, two, true), -EPROTO);
	CU_ASSERT_EQUAL(tgc_span_add(cache, 10, 0, true), -EPROTO);
	CU_ASSERT_EQUAL(tgc_span_add(cache, 10, TGS_CLASSES_ALL, true), -EPROTO);
	CU_ASSERT_EQUAL(tgc_span_add(cache, 10, 256 + 5, true), -EPROTO);
	CU_ASSERT_EQUAL(tgc_span_add_large(cache, n_pages - 1, 2, true), -EPROTO);
	CU_ASSERT_EQUAL(tgc_span_add_large(cache, 1, n_pages, true), -EPROTO);
	CU_ASSERT_EQUAL(tgt_stats().spans, 0);
	CU_ASSERT_EQUAL(tgt_stats().span_bytes, 0);
}

/* ---- how many large ones at a time ---- */

#define MANY 100u
#define SIZE 40000u /* of so few pages that a batch is some */

static void *objects[MANY];

static void make_many(void)
{
	unsigned i;

	for (i = 0; i < MANY; i++) {
		objects[i] = tg_malloc(SIZE);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
	}
}

static void free_many(void)
{
	unsigned i;

	for (i = 0; i < MANY; i++)
		tg_free(objects[i]);
}

/* Takes what is kept, and then one more: so many spans come.  They are free again afterwards. */
static unsigned come_at_once(void)
{
	uint64_t messages = tgt_stats().messages, spans = 0;
	unsigned i;

	for (i = 0; i < MANY && tgt_stats().messages == messages; i++) {
		spans = tgt_stats().spans;
		objects[i] = tg_malloc(SIZE);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
	}
	spans = tgt_stats().spans - spans;
	while (i-- > 0)
		tg_free(objects[i]);
	return (unsigned)spans;
}

static void set_up_small(void)
{
	static const char *const args[] = {"--limit", "8M", NULL};

	usable_from = 0;
	usable_to = UINT64_MAX;
	tgt_set_up_with(args, NULL);
}

/* Of 4 MiB an eighth of the limit is kept: the rest goes back little by little, which says each time that fewer will do. */
static void test_who_gives_back_again_and_again_gets_one_at_a_time(void)
{
	make_many();
	free_many();
	CU_ASSERT(tgt_stats().cached_bytes <= MIB + MIB / 4);
	CU_ASSERT_EQUAL(come_at_once(), 1);
}

/* However many go back, it is once that too many came. */
static void test_who_gives_much_back_once_goes_on_as_before(void)
{
	void *p;

	make_many();
	free_many();
	CU_ASSERT(tgt_stats().cached_bytes >= MANY * SIZE);
	/* None fits it: most of what is kept goes. */
	p = tg_malloc(MIB);
	CU_ASSERT_PTR_NOT_NULL(p);
	CU_ASSERT(tgt_stats().cached_bytes <= MIB);
	CU_ASSERT(come_at_once() > 1);
	tg_free(p);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Small objects do not lie in pages that are not usable",
		 test_small_spans_are_asked_for_until_one_is_usable},
		{"Nor do large ones", test_large_spans_are_asked_for_until_one_is_usable},
		{"Nor does one grow into them",
		 test_a_large_object_does_not_grow_into_pages_that_are_not_usable},
		{"What no span can be is not taken in", test_what_cannot_be_is_not_taken_in},
		{"After much went back at once large spans come several at a time, as before",
		 test_who_gives_much_back_once_goes_on_as_before},
		CU_TEST_INFO_NULL,
	};
	CU_TestInfo small[] = {
		{"Who gives large spans back again and again gets one at a time",
		 test_who_gives_back_again_and_again_gets_one_at_a_time},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"grants", NULL, NULL, set_up, tgt_tear_down, tests},
		{"grants of a small heap", NULL, NULL, set_up_small, tgt_tear_down, small},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("grants", suites);
}
