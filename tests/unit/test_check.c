/* test_check - the walk behind `tgctl check` finds each broken rule, and counts exactly what lives.
 */
#include "shm/check.h"

#include <CUnit/CUnit.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/region.h"
#include "tests/support/runner.h"

enum { OWNER = 2, FREER = 3, OTHER = 4, PAGE = 10 };

static void set_up(void)
{
	tgt_region_set_up();
	tgt_open_slot(OWNER);
	tgt_open_slot(FREER);
	tgt_open_slot(OTHER);
}

static struct tgs_check_span counts_of(uint64_t page, const struct tgs_pending_set *pending)
{
	struct tgs_span span = tgt_span(page);
	struct tgs_check_span counts;
	char why[256] = "";

	CU_ASSERT_EQUAL(tgs_check_span(tgt_heap, &span, pending, &counts, why, sizeof(why)), 0);
	CU_ASSERT_STRING_EQUAL(why, "");
	return counts;
}

static void is_broken(uint64_t page, const struct tgs_pending_set *pending, const char *text)
{
	struct tgs_span span = tgt_span(page);
	struct tgs_check_span counts;
	char why[256] = "";

	CU_ASSERT_EQUAL(tgs_check_span(tgt_heap, &span, pending, &counts, why, sizeof(why)), 1);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, text));
	if (strstr(why, text) == NULL)
		printf("\"%s\" is not in \"%s\"\n", text, why);
	/* Room for little: cut, and not written past. */
	memset(why, 'x', sizeof(why));
	CU_ASSERT_EQUAL(tgs_check_span(tgt_heap, &span, pending, &counts, why, 10), 1);
	CU_ASSERT_EQUAL(strlen(why), 9);
	CU_ASSERT_EQUAL(why[10], 'x');
}

static void test_counts(void)
{
	unsigned class, i;

	for (class = 2; class < TGS_CLASSES; class ++) {
		struct tgs_check_span counts;
		unsigned n = tgs_classes[class].n_slots;

		tgt_put_span(PAGE, class, OWNER, 0);
		counts = counts_of(PAGE, NULL);
		CU_ASSERT_EQUAL(counts.objects, 0);
		for (i = 0; i < n; i++)
			tgt_take(PAGE, i);
		*tgt_remote_word(PAGE, n - 1) |= tgt_remote_bit(n - 1);
		*tgs_published_word(tgt_heap, tgs_classes[class].kind, PAGE, 0) = 1;
		counts = counts_of(PAGE, NULL);
		CU_ASSERT_EQUAL(counts.objects, n - 1);
		CU_ASSERT_EQUAL(counts.object_bytes, (uint64_t)(n - 1) * tgs_classes[class].size);
		CU_ASSERT_EQUAL(counts.remote, 1);
		CU_ASSERT_EQUAL(counts.published, n > 1);
		CU_ASSERT_EQUAL(counts.pending, 0);
		tgt_remove_span(PAGE);
		memset(&tgt_heap->records[PAGE], 0, sizeof(struct tgs_record));
		memset(&tgt_heap->dense[PAGE * TGS_DENSE_UNITS], 0, 256);
		tgt_clear_taken(PAGE);
	}
	tgt_put_span(PAGE, 0, OWNER, 12);
	CU_ASSERT_EQUAL(counts_of(PAGE, NULL).object_bytes, 0);
	tgt_take(PAGE, 0);
	CU_ASSERT_EQUAL(counts_of(PAGE, NULL).objects, 1);
	CU_ASSERT_EQUAL(counts_of(PAGE, NULL).object_bytes, 12 * 8192);
}

static void test_counts_of_tiny_objects(void)
{
	struct tgs_check_span counts;

	tgt_put_span(PAGE, TGS_CLASS_TINY, OWNER, 0);
	tgt_take(PAGE, 0);
	tgt_take(PAGE, 3);
	tgt_take(PAGE, 8191);
	counts = counts_of(PAGE, NULL);
	CU_ASSERT_EQUAL(counts.objects, 3);
	CU_ASSERT_EQUAL(counts.object_bytes, 3 + 13 + 1);
}

static void test_broken_rules(void)
{
	tgt_put_span(PAGE, 30, OWNER, 0);
	tgt_take(PAGE, tgs_classes[30].n_slots);
	is_broken(PAGE, NULL, "has a bit set, but there is no such slot");
	tgt_heap->records[PAGE].taken[tgs_classes[30].n_slots] = 0;
	tgt_heap->records[PAGE].unit.published = UINT64_C(1) << 63;
	is_broken(PAGE, NULL, "span at page 10 (class 30, owner 2): slot 63 has a bit set");
	tgt_heap->records[PAGE].unit.published = 0;
	tgt_heap->records[PAGE].unit.remote[1] = tgt_remote_bit(63);
	is_broken(PAGE, NULL, "slot 63 has a bit set, but there is no such slot");
	tgt_heap->records[PAGE].unit.remote[1] = 0;

	tgt_heap->records[PAGE].unit.remote[0] = tgt_remote_bit(2);
	is_broken(PAGE, NULL, "slot 2 is freed by others but was not allocated");
	tgt_take(PAGE, 2);
	CU_ASSERT_EQUAL(counts_of(PAGE, NULL).remote, 1);
	tgt_heap->records[PAGE].unit.published = 1 << 3;
	is_broken(PAGE, NULL, "slot 3 is published but not allocated");
	tgt_take(PAGE, 3);
	CU_ASSERT_EQUAL(counts_of(PAGE, NULL).published, 1);
	CU_ASSERT_EQUAL(counts_of(PAGE, NULL).objects, 1);
}

static void test_rules_hold_in_every_unit(void)
{
	tgt_put_span(PAGE, 2, OWNER, 0);
	tgt_heap->dense[PAGE * TGS_DENSE_UNITS + 7].remote[1] = tgt_remote_bit(63);
	is_broken(PAGE, NULL, "slot 511 is freed by others");
	tgt_put_span(PAGE, TGS_CLASS_TINY, OWNER, 0);
	tgt_heap->tiny_more[PAGE].unit[127].published = UINT64_C(1) << 63;
	is_broken(PAGE, NULL, "slot 8191 is published but not allocated");
}

/* ---- frees under way ---- */

static void buffer(unsigned self, unsigned place, unsigned index)
{
	struct tgs_pending *pending = &tgt_heap->slots[self].pending[place];

	tgt_heap->slots[self].held |= tgs_pending_group(place);
	pending->word = tgs_ref_of(tgt_heap, tgt_remote_word(PAGE, index));
	pending->mask |= UINT32_C(1) << index % 32;
}

static void test_buffered_frees_are_not_live(void)
{
	static const uint32_t slots[] = {OWNER, FREER, OTHER};
	struct tgs_pending_set pending;
	struct tgs_check_span counts;
	unsigned i;

	tgt_put_span(PAGE, 2, OWNER, 0);
	for (i = 0; i < 512; i++)
		tgt_take(PAGE, i);
	/* In one place, in two places of different threads, in several words, and one that is applied already. */
	buffer(FREER, 9, 0);
	buffer(FREER, 9, 1);
	buffer(OTHER, 63, 2);
	buffer(FREER, 0, 32);
	buffer(OTHER, 0, 511);
	*tgt_remote_word(PAGE, 64) = tgt_remote_bit(64);
	buffer(OTHER, 17, 64);
	CU_ASSERT_EQUAL(tgs_pending_collect(tgt_heap, slots, 3, &pending), 0);
	CU_ASSERT_EQUAL(pending.n, 5);
	counts = counts_of(PAGE, &pending);
	CU_ASSERT_EQUAL(counts.objects, 512 - 6);
	CU_ASSERT_EQUAL(counts.pending, 5);
	CU_ASSERT_EQUAL(counts.remote, 1);
	CU_ASSERT_EQUAL(tgs_pending_bits(tgt_heap, &pending, TGS_DENSE_4, PAGE, 0),
			UINT64_C(0x100000007));
	CU_ASSERT_EQUAL(tgs_pending_bits(tgt_heap, &pending, TGS_DENSE_4, PAGE, 3), 0);
	CU_ASSERT_EQUAL(tgs_pending_bits(tgt_heap, NULL, TGS_DENSE_4, PAGE, 0), 0);
	tgs_pending_done(&pending);
	CU_ASSERT_EQUAL(pending.n, 0);

	CU_ASSERT_EQUAL(tgs_pending_collect(tgt_heap, slots, 1, &pending), 0);
	CU_ASSERT_EQUAL(pending.n, 0);
	CU_ASSERT_EQUAL(counts_of(PAGE, &pending).objects, 511);
	tgs_pending_done(&pending);
	CU_ASSERT_EQUAL(tgs_pending_collect(tgt_heap, NULL, 0, &pending), 0);
	tgs_pending_done(&pending);
}

static void test_a_buffered_free_of_nothing(void)
{
	static const uint32_t slots[] = {FREER};
	struct tgs_pending_set pending;

	tgt_put_span(PAGE, 2, OWNER, 0);
	buffer(FREER, 3, 100);
	CU_ASSERT_EQUAL(tgs_pending_collect(tgt_heap, slots, 1, &pending), 0);
	is_broken(PAGE, &pending, "slot 100 has a free buffered but is not allocated");
	tgs_pending_done(&pending);
}

static void test_free_pages(void)
{
	char why[256] = "";
	unsigned i;

	CU_ASSERT_EQUAL(tgs_check_free_page(tgt_heap, PAGE, why, sizeof(why)), 0);
	for (i = 0; i < 64; i++) {
		((uint8_t *)&tgt_heap->records[PAGE])[i] = 1;
		CU_ASSERT_EQUAL(tgs_check_free_page(tgt_heap, PAGE, why, sizeof(why)), 1);
		CU_ASSERT_PTR_NOT_NULL(strstr(why, "page 10 belongs to no span"));
		((uint8_t *)&tgt_heap->records[PAGE])[i] = 0;
	}
	CU_ASSERT_EQUAL(tgs_check_free_page(tgt_heap, PAGE, why, sizeof(why)), 0);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Live objects are counted, for every class", test_counts},
		{"Tiny objects are counted with the bytes they use", test_counts_of_tiny_objects},
		{"Each broken rule is found and told", test_broken_rules},
		{"The rules hold in every unit of a span", test_rules_hold_in_every_unit},
		{"Objects whose free is buffered are not live", test_buffered_frees_are_not_live},
		{"A buffered free of what is not allocated is damage",
		 test_a_buffered_free_of_nothing},
		{"A free page has a record of zeros", test_free_pages},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"check", NULL, NULL, set_up, tgt_region_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("check", suites);
}
