/*
 * test_sizeclass: the class tables are Go's, to the byte, and the two lookups are exact everywhere.
 *
 * The sums and checksums come from Go's published tables, not from our generator, so a wrong rule
 * in the generator cannot agree with itself here. Everything that is small enough is tried in
 * full: all request sizes, and all offsets of a span of every class.
 */
#include "shm/sizeclass.h"

#include <CUnit/CUnit.h>
#include <string.h>

#include "shm/layout.h"
#include "tests/support/runner.h"

/* The usual CRC-32 (reflected 0xedb88320), one bit at a time. */
static uint32_t crc32(const uint8_t *bytes, size_t n)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < n; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

static unsigned sum(const uint8_t *bytes, size_t n)
{
	unsigned total = 0;

	for (size_t i = 0; i < n; i++)
		total += bytes[i];
	return total;
}

static uint32_t span_bytes(unsigned class)
{
	return tgs_classes[class].n_pages * TGS_PAGE_SIZE;
}

static uint32_t tail_bytes(unsigned class)
{
	return span_bytes(class) - tgs_classes[class].n_slots * tgs_classes[class].size;
}

static void test_crc(void)
{
	CU_ASSERT_EQUAL(crc32((const uint8_t *)"123456789", 9), 0xcbf43926u);
}

static void test_tables_are_those_of_go(void)
{
	CU_ASSERT_EQUAL(sizeof(tgs_class_table_a), 129);
	CU_ASSERT_EQUAL(sum(tgs_class_table_a, 129), 2972);
	CU_ASSERT_EQUAL(crc32(tgs_class_table_a, 129), 0x092e8492u);
	CU_ASSERT_EQUAL(sizeof(tgs_class_table_b), 249);
	CU_ASSERT_EQUAL(sum(tgs_class_table_b, 249), 14342);
	CU_ASSERT_EQUAL(crc32(tgs_class_table_b, 249), 0xad826808u);
}

static void test_sizes_are_those_of_go(void)
{
	static const uint32_t sizes[TGS_CLASSES] = {
		0,     8,     16,    24,    32,    48,    64,    80,    96,    112,   128,   144,
		160,   176,   192,   208,   224,   240,   256,   288,   320,   352,   384,   416,
		448,   480,   512,   576,   640,   704,   768,   896,   1024,  1152,  1280,  1408,
		1536,  1792,  2048,  2304,  2688,  3072,  3200,  3456,  4096,  4864,  5376,  6144,
		6528,  6784,  6912,  8192,  9472,  9728,  10240, 10880, 12288, 13568, 14336, 16384,
		18432, 19072, 20480, 21760, 24576, 27264, 28672, 32768,
	};
	unsigned total_pages = 0, one_page = 0;

	for (unsigned c = 0; c < TGS_CLASSES; c++) {
		CU_ASSERT_EQUAL(tgs_classes[c].size, sizes[c]);
		total_pages += tgs_classes[c].n_pages;
		one_page += tgs_classes[c].n_pages == 1;
	}
	CU_ASSERT_EQUAL(total_pages, 168);
	CU_ASSERT_EQUAL(one_page, 39);
	CU_ASSERT_EQUAL(tgs_classes[65].n_pages, 10);
	CU_ASSERT_EQUAL(tgs_classes[TGS_CLASSES - 1].size, TGS_SMALL_MAX);
}

static void test_slots_fill_the_span(void)
{
	for (unsigned c = 1; c < TGS_CLASSES; c++) {
		const struct tgs_class *class = &tgs_classes[c];

		CU_ASSERT_EQUAL(class->n_slots, span_bytes(c) / class->size);
		CU_ASSERT(tail_bytes(c) < class->size);
		CU_ASSERT(tail_bytes(c) * 16 <= span_bytes(c));
		CU_ASSERT(class->n_pages >= 1 && class->n_pages <= 10);
	}
	CU_ASSERT_EQUAL(tail_bytes(5), 32);
	CU_ASSERT_EQUAL(tail_bytes(19), 128);
	CU_ASSERT_EQUAL(tail_bytes(28), 512);
	CU_ASSERT_EQUAL(tail_bytes(50), 768);
	CU_ASSERT_EQUAL(tail_bytes(65), 128);
}

/* Worst waste: each object is the smallest request of its class. In hundredths of a percent. */
static unsigned worst_waste(unsigned c)
{
	uint32_t unused =
		(tgs_classes[c].size - tgs_classes[c - 1].size - 1) * tgs_classes[c].n_slots +
		tail_bytes(c);

	return (unsigned)((unused * UINT64_C(10000) + span_bytes(c) / 2) / span_bytes(c));
}

static void test_waste(void)
{
	CU_ASSERT_EQUAL(worst_waste(1), 8750);
	CU_ASSERT_EQUAL(worst_waste(2), 4375);
	CU_ASSERT_EQUAL(worst_waste(3), 2924);
	CU_ASSERT_EQUAL(worst_waste(5), 3152);
	CU_ASSERT_EQUAL(worst_waste(45), 1665);
	CU_ASSERT_EQUAL(worst_waste(61), 357);
	CU_ASSERT_EQUAL(worst_waste(67), 1250);
	for (unsigned c = 11; c < TGS_CLASSES; c++)
		CU_ASSERT(worst_waste(c) <= 1665);
}

static void test_kinds(void)
{
	for (unsigned c = 0; c < TGS_CLASSES; c++) {
		unsigned n = tgs_classes[c].n_slots;

		CU_ASSERT_EQUAL(tgs_classes[c].kind, n <= 64    ? TGS_SPARSE
						     : n <= 128 ? TGS_DENSE_2
						     : n <= 256 ? TGS_DENSE_4
								: TGS_DENSE_8);
		CU_ASSERT_EQUAL(tgs_is_dense(tgs_classes[c].kind), n > 64);
		if (c != 1)
			CU_ASSERT(n <= 512);
	}
	CU_ASSERT_EQUAL(tgs_classes[1].n_slots, 1024);
	CU_ASSERT_EQUAL(tgs_classes[3].kind, TGS_DENSE_8);
	CU_ASSERT_EQUAL(tgs_classes[4].kind, TGS_DENSE_4);
	CU_ASSERT_EQUAL(tgs_classes[5].kind, TGS_DENSE_4);
	CU_ASSERT_EQUAL(tgs_classes[6].kind, TGS_DENSE_2);
	CU_ASSERT_EQUAL(tgs_classes[9].kind, TGS_DENSE_2);
	CU_ASSERT_EQUAL(tgs_classes[10].kind, TGS_SPARSE);
}

static void test_large_and_tiny(void)
{
	const struct tgs_class *tiny = &tgs_classes[TGS_CLASS_TINY];

	CU_ASSERT_EQUAL(tgs_classes[0].size, 0);
	CU_ASSERT_EQUAL(tgs_classes[0].n_slots, 1);
	CU_ASSERT_EQUAL(tgs_classes[0].magic, 0);
	CU_ASSERT_EQUAL(tgs_slot_index(0, 0), 0);
	CU_ASSERT_EQUAL(tgs_slot_index(0, UINT64_C(1) << 40), 0);

	CU_ASSERT_EQUAL(tiny->size, 1);
	CU_ASSERT_EQUAL(tiny->n_slots, TGS_PAGE_SIZE);
	CU_ASSERT_EQUAL(tiny->n_pages, 1);
	CU_ASSERT_EQUAL(tiny->kind, TGS_TINY);
	CU_ASSERT_FALSE(tgs_is_dense(TGS_TINY));
	for (uint32_t offset = 0; offset <= TGS_PAGE_SIZE; offset++)
		CU_ASSERT_EQUAL(tgs_slot_index(TGS_CLASS_TINY, offset), offset);
}

static void test_every_size_gets_the_smallest_class(void)
{
	unsigned expected = 1, wrong = 0;

	for (uint32_t size = 1; size <= TGS_SMALL_MAX; size++) {
		if (size > tgs_classes[expected].size)
			expected++;
		wrong += tgs_size_to_class(size) != expected;
	}
	CU_ASSERT_EQUAL(expected, TGS_CLASSES - 1);
	CU_ASSERT_EQUAL(wrong, 0);
}

/* Where one table ends and the other begins, and the subtraction wraps. */
static void test_sizes_around_the_seam(void)
{
	for (size_t size = 1016; size <= 1024; size++)
		CU_ASSERT_EQUAL(tgs_size_to_class(size), 32);
	CU_ASSERT_EQUAL(tgs_size_to_class(1025), 33);
	CU_ASSERT_EQUAL(tgs_size_to_class(896), 31);
	CU_ASSERT_EQUAL(tgs_size_to_class(897), 32);
	CU_ASSERT_EQUAL(tgs_size_to_class(15), 2);
	CU_ASSERT_EQUAL(tgs_size_to_class(16), 2);
	CU_ASSERT_EQUAL(tgs_size_to_class(17), 3);
	CU_ASSERT_EQUAL(tgs_size_to_class(TGS_SMALL_MAX), 67);
}

static void test_reciprocal_is_division(void)
{
	unsigned wrong = 0;

	for (unsigned c = 1; c < TGS_CLASSES; c++) {
		uint32_t size = tgs_classes[c].size;

		CU_ASSERT_EQUAL(tgs_classes[c].magic, ((UINT64_C(1) << 32) + size - 1) / size);
		for (uint64_t offset = 0; offset <= span_bytes(c); offset++)
			wrong += tgs_slot_index(c, offset) != offset / size;
		if (tail_bytes(c))
			CU_ASSERT_EQUAL(tgs_slot_index(c, span_bytes(c) - 1),
					tgs_classes[c].n_slots);
	}
	CU_ASSERT_EQUAL(wrong, 0);
}

static uint32_t natural_alignment(uint32_t size)
{
	return (size & -size) < TGS_PAGE_SIZE ? (size & -size) : TGS_PAGE_SIZE;
}

/* The alignment that every class at or above this size has. */
static uint32_t alignment_from(uint32_t size)
{
	uint32_t least = TGS_PAGE_SIZE;

	for (unsigned c = tgs_size_to_class(size); c < TGS_CLASSES; c++)
		if (natural_alignment(tgs_classes[c].size) < least)
			least = natural_alignment(tgs_classes[c].size);
	return least;
}

static void test_alignment(void)
{
	for (unsigned c = 1; c < TGS_CLASSES; c++) {
		uint32_t size = tgs_classes[c].size;

		CU_ASSERT_EQUAL(natural_alignment(size) < 16, size == 8 || size == 24);
	}
	CU_ASSERT_EQUAL(alignment_from(8), 8);
	CU_ASSERT_EQUAL(alignment_from(32), 16);
	CU_ASSERT_EQUAL(alignment_from(256), 32);
	CU_ASSERT_EQUAL(alignment_from(512), 64);
	CU_ASSERT_EQUAL(alignment_from(768), 128);
	CU_ASSERT_EQUAL(alignment_from(28672), 4096);
	CU_ASSERT_EQUAL(alignment_from(32768), 8192);
}

static CU_TestInfo tests[] = {
	{"the checksum of the tests is CRC-32", test_crc},
	{"both lookup tables are Go's", test_tables_are_those_of_go},
	{"the 68 sizes and their pages are Go's", test_sizes_are_those_of_go},
	{"slots fill the span up to a tail of a sixteenth", test_slots_fill_the_span},
	{"the worst waste of a class is Go's", test_waste},
	{"the kind follows from the number of slots", test_kinds},
	{"a large span has one slot and a tiny span one a byte", test_large_and_tiny},
	{"every size gets the smallest class that fits", test_every_size_gets_the_smallest_class},
	{"sizes where the tables meet get the right class", test_sizes_around_the_seam},
	{"the reciprocal is division at every offset", test_reciprocal_is_division},
	{"only 8 and 24 are not aligned to 16", test_alignment},
	CU_TEST_INFO_NULL,
};

int main(void)
{
	CU_SuiteInfo suites[] = {
		{"size classes", NULL, NULL, NULL, NULL, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("sizeclass", suites);
}
