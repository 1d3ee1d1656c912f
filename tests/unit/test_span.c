/* test_span - from a page or a pointer to the span and the object that it means, for every class and every offset.
 */
#include "shm/span.h"

#include <CUnit/CUnit.h>
#include <string.h>

#include "tests/support/region.h"
#include "tests/support/runner.h"
#include "tests/support/taken.h"

static void test_every_page_of_a_span_leads_to_it(void)
{
	uint64_t page = 100;
	unsigned class, i;

	for (class = 2; class <= TGS_CLASS_TINY; class ++) {
		tgt_put_span(page, class, class + 10, 0);
		for (i = 0; i < tgs_classes[class].n_pages; i++) {
			struct tgs_span span = tgt_span(page + i);

			CU_ASSERT_EQUAL(span.page, page);
			CU_ASSERT_EQUAL(span.class, class);
			CU_ASSERT_EQUAL(span.owner, class + 10);
			CU_ASSERT_EQUAL(span.n_pages, tgs_classes[class].n_pages);
			CU_ASSERT_EQUAL(span.n_slots, tgs_classes[class].n_slots);
		}
		page += tgs_classes[class].n_pages;
	}
}

static void test_a_large_span_is_found_at_its_first_page(void)
{
	struct tgs_span span;

	tgt_put_span(10, 0, 5, 7);
	CU_ASSERT_TRUE(tgs_span_at(tgt_heap, 10, &span));
	CU_ASSERT_EQUAL(span.class, 0);
	CU_ASSERT_EQUAL(span.n_pages, 7);
	CU_ASSERT_EQUAL(span.n_slots, 1);
	CU_ASSERT_EQUAL(span.owner, 5);
	CU_ASSERT_FALSE(tgs_span_at(tgt_heap, 9, &span));
	CU_ASSERT_FALSE(tgs_span_at(tgt_heap, 11, &span));
	CU_ASSERT_FALSE(tgs_span_at(tgt_heap, 16, &span));
}

static void test_entries_that_make_no_sense(void)
{
	struct tgs_span span;

	CU_ASSERT_FALSE(tgs_span_at(tgt_heap, 0, &span));
	CU_ASSERT_FALSE(tgs_span_at(tgt_heap, TGT_REGION_PAGES, &span));
	CU_ASSERT_FALSE(tgs_span_at(tgt_heap, UINT64_MAX, &span));
	/* A class that there is not; a first page before the heap; no length; one beyond the end. */
	tgt_set_entry(20, tgs_entry_make(69, 2, 0, 0));
	CU_ASSERT_FALSE(tgs_span_at(tgt_heap, 20, &span));
	tgt_set_entry(20, tgs_entry_make(127, 2, 0, 0));
	CU_ASSERT_FALSE(tgs_span_at(tgt_heap, 20, &span));
	tgt_set_entry(3, tgs_entry_make(5, 2, 4, 0));
	CU_ASSERT_FALSE(tgs_span_at(tgt_heap, 3, &span));
	tgt_set_entry(20, tgs_entry_make(0, 2, 0, 0));
	CU_ASSERT_FALSE(tgs_span_at(tgt_heap, 20, &span));
	tgt_set_entry(TGT_REGION_PAGES - 1, tgs_entry_make(0, 2, 0, 1));
	CU_ASSERT_TRUE(tgs_span_at(tgt_heap, TGT_REGION_PAGES - 1, &span));
	tgt_set_entry(TGT_REGION_PAGES - 1, tgs_entry_make(0, 2, 0, 2));
	CU_ASSERT_FALSE(tgs_span_at(tgt_heap, TGT_REGION_PAGES - 1, &span));
	tgt_set_entry(20, tgs_entry_make(0, 2, 0, UINT32_MAX));
	CU_ASSERT_FALSE(tgs_span_at(tgt_heap, 20, &span));
	/* Not marked as a span, whatever else it says. */
	tgt_set_entry(20, tgs_entry_make(5, 2, 0, 0) & ~TGS_ENTRY_SPAN);
	CU_ASSERT_FALSE(tgs_span_at(tgt_heap, 20, &span));
}

/* Every byte of a span of each class. */
static void test_every_pointer_into_a_span(void)
{
	unsigned class;
	uint64_t at;

	for (class = 2; class <= TGS_CLASS_TINY; class ++) {
		const struct tgs_class *info = &tgs_classes[class];
		const uint8_t *first = tgs_page_address(tgt_heap, 50);
		unsigned wrong = 0;

		tgt_put_span(50, class, 2, 0);
		for (at = 0; at < info->n_pages * UINT64_C(8192); at++) {
			struct tgs_object object;
			enum tgs_find found = tgs_object_find(tgt_heap, first + at, &object);
			bool start = at % info->size == 0 && at / info->size < info->n_slots;

			wrong += found != (start ? TGS_FOUND : TGS_NOT_A_START);
			wrong += object.span.page != 50 || object.span.class != class;
			if (start)
				wrong += object.index != at / info->size ||
					 object.unit != object.index / 64 ||
					 object.bit != UINT64_C(1) << object.index % 64;
		}
		CU_ASSERT_EQUAL(wrong, 0);
		tgt_remove_span(50);
	}
}

static void test_pointers_elsewhere(void)
{
	uint8_t *end = tgt_heap->data + tgt_heap->data_bytes;
	struct tgs_object object;
	int on_stack;

	CU_ASSERT_EQUAL(tgs_object_find(tgt_heap, NULL, &object), TGS_NOT_IN_HEAP);
	CU_ASSERT_EQUAL(tgs_object_find(tgt_heap, &on_stack, &object), TGS_NOT_IN_HEAP);
	CU_ASSERT_EQUAL(tgs_object_find(tgt_heap, tgt_heap->base, &object), TGS_NOT_IN_HEAP);
	CU_ASSERT_EQUAL(tgs_object_find(tgt_heap, tgt_heap->data - 1, &object), TGS_NOT_IN_HEAP);
	CU_ASSERT_EQUAL(tgs_object_find(tgt_heap, end, &object), TGS_NOT_IN_HEAP);
	CU_ASSERT_EQUAL(tgs_object_find(tgt_heap, (void *)UINTPTR_MAX, &object), TGS_NOT_IN_HEAP);
	CU_ASSERT_EQUAL(tgs_object_find(tgt_heap, tgt_heap->data, &object), TGS_NO_SPAN);
	CU_ASSERT_EQUAL(tgs_object_find(tgt_heap, end - 1, &object), TGS_NO_SPAN);
	tgt_put_span(0, 0, 2, 3);
	CU_ASSERT_EQUAL(tgs_object_find(tgt_heap, tgt_heap->data, &object), TGS_FOUND);
	CU_ASSERT_EQUAL(object.index, 0);
	CU_ASSERT_EQUAL(tgs_object_find(tgt_heap, tgt_heap->data + 1, &object), TGS_NOT_A_START);
	CU_ASSERT_EQUAL(tgs_object_find(tgt_heap, tgt_heap->data + 8192, &object), TGS_NO_SPAN);
}

static unsigned n_set(const uint8_t *bytes, size_t n)
{
	unsigned set = 0;

	while (n-- > 0)
		set += *bytes++ != 0;
	return set;
}

/* Each object has a bit of its own: none shares one, none is missing, and all lie where the layout has room for them. */
static void test_every_object_has_bits_of_its_own(void)
{
	unsigned class, index, kind;

	for (class = 0; class <= TGS_CLASS_TINY; class ++) {
		const struct tgs_class *info = &tgs_classes[class];
		struct tgs_span span;

		if (class == 1)
			continue;
		tgt_put_span(60, class, 2, 1);
		span = tgt_span(60);
		CU_ASSERT_TRUE(tgs_span_empty(tgt_heap, &span));
		for (index = 0; index < span.n_slots; index++) {
			struct tgs_object object;
			const uint8_t *p =
				tgs_page_address(tgt_heap, 60) + (uint64_t)index * info->size;

			CU_ASSERT_EQUAL(tgs_object_find(tgt_heap, p, &object), TGS_FOUND);
			CU_ASSERT_FALSE(tgs_object_live(tgt_heap, &object));
			tgt_take(60, index);
			CU_ASSERT_TRUE(tgs_object_live(tgt_heap, &object));
		}
		CU_ASSERT_EQUAL(tgs_span_live(tgt_heap, &span), span.n_slots);
		CU_ASSERT_EQUAL(tgs_span_units(span.n_slots), (span.n_slots + 63) / 64);
		for (index = 0; index < span.n_slots; index++)
			atomic_fetch_or(tgt_remote_word(60, index), tgt_remote_bit(index));
		CU_ASSERT_EQUAL(tgs_span_live(tgt_heap, &span), 0);
		CU_ASSERT_FALSE(tgs_span_empty(tgt_heap, &span));
		/* Nothing of it lies in another page's state. */
		CU_ASSERT_EQUAL(n_set((uint8_t *)&tgt_heap->records[61], 128), 0);
		CU_ASSERT_EQUAL(n_set((uint8_t *)&tgt_heap->dense[61 * TGS_DENSE_UNITS], 256), 0);
		for (kind = TGS_DENSE_2; kind <= TGS_DENSE_8; kind++)
			CU_ASSERT_EQUAL(n_set((uint8_t *)tgs_taken_bytes(tgt_heap, kind, 61),
					      UINT64_C(64) << kind),
					0);
		CU_ASSERT_EQUAL(n_set((uint8_t *)&tgt_heap->tiny_taken[61], 1024), 0);
		CU_ASSERT_EQUAL(n_set((uint8_t *)&tgt_heap->tiny_more[61], 4096), 0);
		memset(&tgt_heap->records[60], 0, sizeof(struct tgs_record));
		memset(&tgt_heap->dense[60 * TGS_DENSE_UNITS], 0, 256);
		tgt_clear_taken(60);
		memset(&tgt_heap->tiny_taken[60], 0, 1024);
		memset(&tgt_heap->tiny_more[60], 0, 4096);
		CU_ASSERT_TRUE(tgs_span_empty(tgt_heap, &span));
		tgt_remove_span(60);
	}
}

static void test_a_tag_alone_is_no_object(void)
{
	struct tgs_span span;

	tgt_put_span(60, 5, 2, 0);
	span = tgt_span(60);
	*tgt_remote_word(60, 0) = UINT64_C(0xabcdef) << TGS_REMOTE_SLOT_SHIFT(0);
	*tgt_remote_word(60, 40) = UINT64_C(0xabcdef) << TGS_REMOTE_SLOT_SHIFT(1);
	CU_ASSERT_EQUAL(tgs_remote_bits(tgt_heap, TGS_DENSE_4, 60, 0), 0);
	CU_ASSERT_TRUE(tgs_span_empty(tgt_heap, &span));
	*tgt_remote_word(60, 40) |= tgt_remote_bit(63);
	CU_ASSERT_EQUAL(tgs_remote_bits(tgt_heap, TGS_DENSE_4, 60, 0), UINT64_C(1) << 63);
}

static size_t size_at(uint64_t page, unsigned index)
{
	struct tgs_object object;

	CU_ASSERT_EQUAL(
		tgs_object_find(tgt_heap,
				tgs_page_address(tgt_heap, page) +
					(uint64_t)index * tgs_classes[tgt_span(page).class].size,
				&object),
		TGS_FOUND);
	return tgs_object_size(tgt_heap, &object);
}

static void test_sizes_of_objects(void)
{
	unsigned class;

	for (class = 2; class < TGS_CLASSES; class ++) {
		tgt_put_span(70, class, 2, 0);
		CU_ASSERT_EQUAL(size_at(70, 0), tgs_classes[class].size);
		tgt_remove_span(70);
	}
	tgt_put_span(70, 0, 2, 9);
	CU_ASSERT_EQUAL(size_at(70, 0), 9 * 8192);
}

static void test_sizes_of_tiny_objects(void)
{
	struct tgs_slot *slot = &tgt_heap->slots[2];

	tgt_put_span(70, TGS_CLASS_TINY, 2, 0);
	tgt_take(70, 32);
	tgt_take(70, 33);
	tgt_take(70, 36);
	tgt_take(70, 48);
	/* Up to the next one; behind the last one, to the end of the block, but not into the next block. */
	CU_ASSERT_EQUAL(size_at(70, 32), 1);
	CU_ASSERT_EQUAL(size_at(70, 33), 3);
	CU_ASSERT_EQUAL(size_at(70, 36), 12);
	CU_ASSERT_EQUAL(size_at(70, 48), 16);
	/* While the block is its owner's current one, only up to what has been handed out. */
	slot->tiny_block = tgs_ref_of(tgt_heap, tgs_page_address(tgt_heap, 70)) + 32;
	slot->tiny_left = 9;
	CU_ASSERT_EQUAL(size_at(70, 33), 3);
	CU_ASSERT_EQUAL(size_at(70, 36), 3);
	CU_ASSERT_EQUAL(size_at(70, 48), 16);
	/* The slot is anybody's to write: what makes no sense is not believed. */
	slot->tiny_left = 13;
	CU_ASSERT_EQUAL(size_at(70, 36), 12);
	slot->tiny_left = UINT64_MAX;
	CU_ASSERT_EQUAL(size_at(70, 36), 12);
	/* Blocks of the daemon's own are nobody's current ones. */
	slot->tiny_left = 9;
	tgt_put_span(70, TGS_CLASS_TINY, TGS_SLOT_CENTRAL, 0);
	CU_ASSERT_EQUAL(size_at(70, 36), 12);
}

static void test_bytes_of_slots(void)
{
	static const unsigned taken[] = {0, 7, 8, 63, 64, 511};
	const uint64_t some = UINT64_C(1) << 63 | 1 << 9 | 1 << 7;
	const tgs_taken *bytes = tgs_taken_bytes(tgt_heap, TGS_DENSE_8, 60);
	struct tgs_object object;
	unsigned i;

	tgt_put_span(60, 2, 5, 0);
	for (i = 0; i < TGS_ARRAY_LEN(taken); i++)
		tgt_set_taken(tgt_heap, TGS_DENSE_8, 60, taken[i]);
	CU_ASSERT_EQUAL(tgs_taken_bits(tgt_heap, TGS_DENSE_8, 60, 0), UINT64_C(1) << 63 | 0x181);
	CU_ASSERT_EQUAL(tgs_taken_bits(tgt_heap, TGS_DENSE_8, 60, 1), 1);
	CU_ASSERT_EQUAL(tgs_taken_bits(tgt_heap, TGS_DENSE_8, 60, 7), UINT64_C(1) << 63);
	CU_ASSERT_EQUAL(tgs_used_first(tgt_heap, TGS_DENSE_8, 60, 0, 8) & 0xff, 0x81);
	/* A mark makes nothing taken. */
	tgs_taken_special(tgt_heap, TGS_DENSE_8, 60, 0, some);
	CU_ASSERT_EQUAL(tgs_taken_bits(tgt_heap, TGS_DENSE_8, 60, 0), UINT64_C(1) << 63 | 0x181);
	CU_ASSERT_EQUAL(bytes[7], TGS_TAKEN | TGS_SPECIAL);
	CU_ASSERT_EQUAL(bytes[9], TGS_SPECIAL);
	CU_ASSERT_EQUAL(bytes[8], TGS_TAKEN);
	CU_ASSERT_EQUAL(tgs_taken_clear(tgt_heap, TGS_DENSE_8, 60, 0, some),
			UINT64_C(1) << 63 | 1 << 7);
	CU_ASSERT_EQUAL(bytes[7] | bytes[9] | bytes[63], 0);
	CU_ASSERT_EQUAL(tgs_taken_bits(tgt_heap, TGS_DENSE_8, 60, 0), 0x101);
	/* Whoever publishes says so in the byte, where the owner looks. */
	CU_ASSERT_EQUAL(tgs_object_find(tgt_heap, tgs_page_address(tgt_heap, 60) + 8 * 16, &object),
			TGS_FOUND);
	tgs_publish(tgt_heap, &object);
	CU_ASSERT_EQUAL(bytes[8], TGS_TAKEN | TGS_SPECIAL);
	CU_ASSERT_EQUAL(tgs_published_bits(tgt_heap, TGS_DENSE_8, 60, 0), 1 << 8);
	tgs_unpublish(tgt_heap, &object);
	CU_ASSERT_EQUAL(tgs_published_bits(tgt_heap, TGS_DENSE_8, 60, 0), 0);
	CU_ASSERT_TRUE(tgs_object_live(tgt_heap, &object));
}

/* What a thread keeps at hand is no object, and not free either. */
static void test_slots_at_hand(void)
{
	struct tgs_span span;
	struct tgs_object object;

	tgt_put_span(60, 2, 5, 0);
	CU_ASSERT_TRUE_FATAL(tgs_span_at(tgt_heap, 60, &span));
	tgs_taken_bytes(tgt_heap, TGS_DENSE_8, 60)[66] = TGS_HELD;
	CU_ASSERT_EQUAL(tgs_taken_bits(tgt_heap, TGS_DENSE_8, 60, 1), 0);
	CU_ASSERT_EQUAL(tgs_used_bits(tgt_heap, TGS_DENSE_8, 60, 1), 4);
	CU_ASSERT_EQUAL(tgs_span_live(tgt_heap, &span), 0);
	CU_ASSERT_FALSE(tgs_span_empty(tgt_heap, &span));
	CU_ASSERT_EQUAL(
		tgs_object_find(tgt_heap, tgs_page_address(tgt_heap, 60) + 66 * 16, &object),
		TGS_FOUND);
	CU_ASSERT_FALSE(tgs_object_live(tgt_heap, &object));
	/* What is on its way to its owner is taken, and lives no more. */
	tgs_taken_bytes(tgt_heap, TGS_DENSE_8, 60)[66] = TGS_TAKEN | TGS_GOING;
	CU_ASSERT_EQUAL(tgs_taken_bits(tgt_heap, TGS_DENSE_8, 60, 1), 4);
	CU_ASSERT_FALSE(tgs_object_live(tgt_heap, &object));
	/* When those who kept it have ended, it is free; what lives stays. */
	tgs_taken_bytes(tgt_heap, TGS_DENSE_8, 60)[68] = TGS_HELD;
	tgt_set_taken(tgt_heap, TGS_DENSE_8, 60, 67);
	tgs_held_clear(tgt_heap, TGS_DENSE_8, 60, 1);
	CU_ASSERT_EQUAL(tgs_used_bits(tgt_heap, TGS_DENSE_8, 60, 1), 8);
	CU_ASSERT_EQUAL(tgs_taken_bits(tgt_heap, TGS_DENSE_8, 60, 1), 8);
	/* Nor is it published any more. */
	CU_ASSERT_EQUAL(
		tgs_object_find(tgt_heap, tgs_page_address(tgt_heap, 60) + 67 * 16, &object),
		TGS_FOUND);
	tgs_publish(tgt_heap, &object);
	tgs_taken_bytes(tgt_heap, TGS_DENSE_8, 60)[67] |= TGS_GOING;
	tgs_held_clear(tgt_heap, TGS_DENSE_8, 60, 1);
	CU_ASSERT_EQUAL(tgs_used_bits(tgt_heap, TGS_DENSE_8, 60, 1), 0);
	CU_ASSERT_EQUAL(tgs_published_bits(tgt_heap, TGS_DENSE_8, 60, 1), 0);
}

static void test_masks_of_units(void)
{
	CU_ASSERT_EQUAL(tgs_unit_mask(1, 0), 1);
	CU_ASSERT_EQUAL(tgs_unit_mask(63, 0), UINT64_MAX >> 1);
	CU_ASSERT_EQUAL(tgs_unit_mask(64, 0), UINT64_MAX);
	CU_ASSERT_EQUAL(tgs_unit_mask(65, 0), UINT64_MAX);
	CU_ASSERT_EQUAL(tgs_unit_mask(65, 1), 1);
	CU_ASSERT_EQUAL(tgs_unit_mask(512, 7), UINT64_MAX);
	CU_ASSERT_EQUAL(tgs_unit_mask(8192, 127), UINT64_MAX);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Every page of a span leads to it", test_every_page_of_a_span_leads_to_it},
		{"A large span is found at its first page only",
		 test_a_large_span_is_found_at_its_first_page},
		{"Entries that make no sense are no spans", test_entries_that_make_no_sense},
		{"Every pointer into a span is an object's start or is not",
		 test_every_pointer_into_a_span},
		{"Pointers elsewhere lead to no object", test_pointers_elsewhere},
		{"Every object has bits of its own, in its span's state",
		 test_every_object_has_bits_of_its_own},
		{"A tag alone does not make an object freed", test_a_tag_alone_is_no_object},
		{"An object has the size of its class, or of its span", test_sizes_of_objects},
		{"A tiny object reaches to the next one, or to what is handed out",
		 test_sizes_of_tiny_objects},
		{"A slot is taken or not, whatever else its byte says", test_bytes_of_slots},
		{"Slots at hand are neither live nor free", test_slots_at_hand},
		{"The mask of a unit has a bit for each slot", test_masks_of_units},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"span", NULL, NULL, tgt_region_set_up, tgt_region_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("span", suites);
}
