/* test_layout - the bytes that processes share lie where they always did.
 *
 * Every number here is written down a second time on purpose: processes of two builds share a heap if their layout version
 * is the same, so a test that fails here means that TGS_LAYOUT_VERSION must go up, and then that this test changes.
 */
#include "shm/layout.h"

#include <CUnit/CUnit.h>
#include <stddef.h>

#include "shm/region.h"
#include "tests/support/runner.h"

static void test_version(void)
{
	CU_ASSERT_EQUAL(TGS_LAYOUT_VERSION, 8);
	CU_ASSERT_EQUAL(TGS_MAP_MAGIC, UINT64_C(0x0a70616d20677401));
	CU_ASSERT_EQUAL(TGS_HEAP_MAGIC, UINT64_C(0x0a70616568677402));
	CU_ASSERT_EQUAL(TGS_PAGE_SIZE, 8192);
	CU_ASSERT_EQUAL(1 << TGS_PAGE_SHIFT, TGS_PAGE_SIZE);
	CU_ASSERT_EQUAL(TGS_SLOTS_MAX, 16384);
	CU_ASSERT_EQUAL(TGS_CLIENTS_MAX, 16384);
	CU_ASSERT_EQUAL(TGS_ROOTS_MAX, 4096);
}

static void test_sizes(void)
{
	CU_ASSERT_EQUAL(sizeof(struct tgs_geometry), 144);
	CU_ASSERT_EQUAL(sizeof(struct tgs_map_header), 320);
	CU_ASSERT_EQUAL(sizeof(struct tgs_root), 160);
	CU_ASSERT_EQUAL(sizeof(struct tgs_client), 128);
	CU_ASSERT_EQUAL(sizeof(struct tgs_slot_owner), 8);
	CU_ASSERT_EQUAL(sizeof(struct tgs_heap_header), 24);
	CU_ASSERT_EQUAL(sizeof(struct tgs_step), 64);
	CU_ASSERT_EQUAL(sizeof(struct tgs_pending), 16);
	CU_ASSERT_EQUAL(sizeof(struct tgs_slot), 8704);
	CU_ASSERT_EQUAL(sizeof(struct tgs_unit), 32);
	CU_ASSERT_EQUAL(sizeof(struct tgs_record), 128);
	CU_ASSERT_EQUAL(TGS_DENSE_BYTES(0), 128);
	CU_ASSERT_EQUAL(TGS_DENSE_BYTES(2), 512);
	CU_ASSERT_EQUAL(sizeof(struct tgs_tiny_taken), 1024);
	CU_ASSERT_EQUAL(sizeof(struct tgs_tiny_more), 4096);
}

static void test_offsets_in_the_map(void)
{
	CU_ASSERT_EQUAL(offsetof(struct tgs_map_header, magic), 0);
	CU_ASSERT_EQUAL(offsetof(struct tgs_map_header, layout_version), 8);
	CU_ASSERT_EQUAL(offsetof(struct tgs_map_header, header_bytes), 12);
	CU_ASSERT_EQUAL(offsetof(struct tgs_map_header, uuid), 16);
	CU_ASSERT_EQUAL(offsetof(struct tgs_map_header, name), 32);
	CU_ASSERT_EQUAL(offsetof(struct tgs_map_header, base), 96);
	CU_ASSERT_EQUAL(offsetof(struct tgs_map_header, reserve_bytes), 104);
	CU_ASSERT_EQUAL(offsetof(struct tgs_map_header, geometry), 112);
	CU_ASSERT_EQUAL(offsetof(struct tgs_map_header, limit_bytes), 256);
	CU_ASSERT_EQUAL(offsetof(struct tgs_map_header, daemon_epoch), 264);
	CU_ASSERT_EQUAL(offsetof(struct tgs_map_header, trim_epoch), 272);
	CU_ASSERT_EQUAL(offsetof(struct tgs_map_header, n_roots), 280);
	CU_ASSERT_EQUAL(offsetof(struct tgs_root, ref), 8);
	CU_ASSERT_EQUAL(offsetof(struct tgs_root, name), 16);
	CU_ASSERT_EQUAL(offsetof(struct tgs_client, pid), 4);
	CU_ASSERT_EQUAL(offsetof(struct tgs_client, start_time), 8);
	CU_ASSERT_EQUAL(offsetof(struct tgs_client, flags), 24);
	CU_ASSERT_EQUAL(offsetof(struct tgs_client, name), 32);
}

static void test_offsets_in_the_heap(void)
{
	CU_ASSERT_EQUAL(offsetof(struct tgs_slot, tiny_block), 8);
	CU_ASSERT_EQUAL(offsetof(struct tgs_slot, tiny_left), 16);
	CU_ASSERT_EQUAL(offsetof(struct tgs_slot, held), 24);
	CU_ASSERT_EQUAL(offsetof(struct tgs_slot, step), 64);
	CU_ASSERT_EQUAL(offsetof(struct tgs_slot, mark), 128);
	CU_ASSERT_EQUAL(offsetof(struct tgs_slot, dirty), 192);
	CU_ASSERT_EQUAL(offsetof(struct tgs_slot, pending), 320);
	CU_ASSERT_EQUAL(offsetof(struct tgs_step, word), 0);
	CU_ASSERT_EQUAL(offsetof(struct tgs_step, seq), 8);
	CU_ASSERT_EQUAL(offsetof(struct tgs_step, arg), 16);
	CU_ASSERT_EQUAL(offsetof(struct tgs_step, old_ref), 24);
	CU_ASSERT_EQUAL(offsetof(struct tgs_step, new_ref), 32);
	CU_ASSERT_EQUAL(offsetof(struct tgs_pending, mask), 8);
	CU_ASSERT_EQUAL(offsetof(struct tgs_unit, published), 8);
	CU_ASSERT_EQUAL(offsetof(struct tgs_unit, remote), 16);
	CU_ASSERT_EQUAL(offsetof(struct tgs_record, unit), 32);
	CU_ASSERT_EQUAL(TGS_DENSE_UNITS * sizeof(struct tgs_unit), 256);
}

static void test_entries_keep_what_is_put_into_them(void)
{
	static const unsigned owners[] = {0, 1, 2, 1000, TGS_SLOTS_MAX - 1};
	static const uint64_t lengths[] = {0, 1, 5, 1 << 20, UINT32_MAX};
	unsigned class, i, delta, k;

	for (class = 0; class <= 68; class ++) {
		for (i = 0; i < 5; i++) {
			for (delta = 0; delta < 16; delta++) {
				for (k = 0; k < 5; k++) {
					uint64_t entry =
						tgs_entry_make(class, owners[i], delta, lengths[k]);

					CU_ASSERT(entry & TGS_ENTRY_SPAN);
					CU_ASSERT_EQUAL(tgs_entry_class(entry), class);
					CU_ASSERT_EQUAL(tgs_entry_owner(entry), owners[i]);
					CU_ASSERT_EQUAL(tgs_entry_delta(entry), delta);
					CU_ASSERT_EQUAL(tgs_entry_large_pages(entry), lengths[k]);
				}
			}
		}
	}
	CU_ASSERT_EQUAL(tgs_entry_make(13, 2, 3, 4), UINT64_C(0x000000040300028d));
	CU_ASSERT_EQUAL(tgs_entry_make(68, 2, 0, 0) | TGS_ENTRY_MORE, UINT64_C(0x00000000100002c4));
	/* A remote word: 32 bits, slot, number; nothing left over. */
	CU_ASSERT_EQUAL(32 + TGS_SLOT_BITS + TGS_REMOTE_SEQ_BITS, 64);
	/* The 64 objects of a unit are 64 bits side by side, in the middle of two words. */
	CU_ASSERT_EQUAL(tgs_remote_objects(UINT64_C(0x1234567800000000), 0), 0x12345678);
	CU_ASSERT_EQUAL(tgs_remote_objects(UINT64_C(0xffffffff12345678), 1), 0x12345678);
	CU_ASSERT_EQUAL(offsetof(struct tgs_record, unit.remote) % 16, 0);
	CU_ASSERT_EQUAL(offsetof(struct tgs_tiny_more, unit[1].remote) % 16, 0);
}

static void test_the_geometry_of_64_gib(void)
{
	struct tgs_geometry g;

	tgs_geometry_init(&g, UINT64_C(8388608));
	CU_ASSERT_EQUAL(g.roots_at, 4096);
	CU_ASSERT_EQUAL(g.clients_at, 659456);
	CU_ASSERT_EQUAL(g.slots_at, 2756608);
	CU_ASSERT_EQUAL(g.page_map_at, 2887680);
	CU_ASSERT_EQUAL(g.map_bytes, 69996544);
	CU_ASSERT_EQUAL(g.threads_at, 4096);
	CU_ASSERT_EQUAL(g.dirty_at, 142610432);
	CU_ASSERT_EQUAL(g.records_at, 143659008);
	CU_ASSERT_EQUAL(g.dense_at, 1217400832);
	CU_ASSERT_EQUAL(g.dense_taken_at[0], UINT64_C(3364884480));
	CU_ASSERT_EQUAL(g.dense_taken_at[1], UINT64_C(4438626304));
	CU_ASSERT_EQUAL(g.dense_taken_at[2], UINT64_C(6586109952));
	CU_ASSERT_EQUAL(g.tiny_taken_at, UINT64_C(10881077248));
	CU_ASSERT_EQUAL(g.tiny_more_at, UINT64_C(19471011840));
	CU_ASSERT_EQUAL(g.data_at, UINT64_C(53833891840));
	CU_ASSERT_EQUAL(g.heap_bytes, g.data_at + (UINT64_C(64) << 30));
	CU_ASSERT_EQUAL(g.link_offset_bits, 37);
	CU_ASSERT_EQUAL(g.link_seq_bits, 13);
}

static void test_geometries_leave_no_gap_and_no_overlap(void)
{
	static const uint64_t pages[] = {1,   63,   64,     65,      511,
					 512, 8192, 100000, 1 << 23, UINT64_C(1) << 31};
	unsigned i;

	for (i = 0; i < sizeof(pages) / sizeof(*pages); i++) {
		uint64_t n = pages[i];
		struct tgs_geometry g;

		tgs_geometry_init(&g, n);
		CU_ASSERT_EQUAL(g.n_pages, n);
		CU_ASSERT(g.roots_at >= sizeof(struct tgs_map_header));
		CU_ASSERT(g.clients_at >= g.roots_at + TGS_ROOTS_MAX * sizeof(struct tgs_root));
		CU_ASSERT(g.slots_at >= g.clients_at + TGS_CLIENTS_MAX * sizeof(struct tgs_client));
		CU_ASSERT(g.page_map_at >=
			  g.slots_at + TGS_SLOTS_MAX * sizeof(struct tgs_slot_owner));
		CU_ASSERT(g.map_bytes >= g.page_map_at + 8 * n);
		CU_ASSERT(g.dirty_at >= g.threads_at + TGS_SLOTS_MAX * sizeof(struct tgs_slot));
		CU_ASSERT(g.records_at >= g.dirty_at + (n + 7) / 8);
		CU_ASSERT(g.dense_at >= g.records_at + n * sizeof(struct tgs_record));
		CU_ASSERT(g.dense_taken_at[0] >= g.dense_at + n * 8 * sizeof(struct tgs_unit));
		CU_ASSERT(g.dense_taken_at[1] >= g.dense_taken_at[0] + n * 128);
		CU_ASSERT(g.dense_taken_at[2] >= g.dense_taken_at[1] + n * 256);
		CU_ASSERT(g.tiny_taken_at >= g.dense_taken_at[2] + n * 512);
		CU_ASSERT(g.tiny_more_at >= g.tiny_taken_at + n * sizeof(struct tgs_tiny_taken));
		CU_ASSERT(g.data_at >= g.tiny_more_at + n * sizeof(struct tgs_tiny_more));
		CU_ASSERT(g.data_at <
			  g.tiny_more_at + n * sizeof(struct tgs_tiny_more) + (4 << 20));
		CU_ASSERT_EQUAL(g.data_at % (4 << 20), 0);
		CU_ASSERT_EQUAL(g.heap_bytes, g.data_at + n * TGS_PAGE_SIZE);
		CU_ASSERT_EQUAL(
			(g.roots_at | g.clients_at | g.slots_at | g.page_map_at | g.map_bytes) %
				4096,
			0);
		CU_ASSERT_EQUAL((g.threads_at | g.dirty_at | g.records_at | g.dense_at |
				 g.dense_taken_at[0] | g.dense_taken_at[1] | g.dense_taken_at[2] |
				 g.tiny_taken_at) %
					4096,
				0);
		/* A link's word: an offset that reaches the end, a slot, and a number that tells steps apart. */
		CU_ASSERT_EQUAL(g.heap_bytes >> g.link_offset_bits, 0);
		CU_ASSERT_EQUAL(g.link_offset_bits + TGS_SLOT_BITS + g.link_seq_bits, 64);
		CU_ASSERT(g.link_seq_bits >= 4);
	}
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Versions and limits are what they were", test_version},
		{"Structures are as long as they were", test_sizes},
		{"Fields of the map file lie where they did", test_offsets_in_the_map},
		{"Fields of the heap file lie where they did", test_offsets_in_the_heap},
		{"A page map entry keeps what is put into it",
		 test_entries_keep_what_is_put_into_them},
		{"A heap of 64 GiB is laid out as it was", test_the_geometry_of_64_gib},
		{"Heaps of all lengths are laid out without overlap",
		 test_geometries_leave_no_gap_and_no_overlap},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"layout", NULL, NULL, NULL, NULL, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("layout", suites);
}
