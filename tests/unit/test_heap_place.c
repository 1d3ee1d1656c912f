/* test_heap_place: spans whose state is of one kind lie together, unless there is much idle memory elsewhere.
 */
#include "tests/support/heap.h"
#include "tests/support/runner.h"

#define GROUP 16u

enum { SPARSE = 30, DENSE = 5, TINY = TGS_CLASS_TINY };

static void small_heap(void)
{
	start_heap(64 * MIB, 0);
}

static void kinds_lie_in_groups_of_their_own(void)
{
	static const unsigned classes[] = {SPARSE, DENSE, TINY};
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), i, k;
	uint64_t group[3] = {0};

	for (i = 0; i < GROUP; i++) {
		for (k = 0; k < 3; k++) {
			uint64_t page = get_span(client, slot, classes[k]).page;

			if (i == 0)
				group[k] = page / GROUP;
			/* Sparse ones go where there is no other kind. */
			if (k == 0) {
				CU_ASSERT(page / GROUP != group[1] || i == 0);
				CU_ASSERT(page / GROUP != group[2] || i == 0);
			} else {
				CU_ASSERT_EQUAL(page / GROUP, group[k]);
			}
		}
	}
	CU_ASSERT(group[1] != group[0] && group[2] != group[0] && group[1] != group[2]);
	/* Full: the next one begins another. */
	CU_ASSERT(get_span(client, slot, DENSE).page / GROUP != group[1]);
}

/* A block of 4 KiB has room for the bytes of 32, 16 or 8 spans, by how many slots they have: with others asked for in between,
 * they fill as few as can be. */
static void dense_spans_fill_blocks_with_their_like(void)
{
	static const unsigned classes[] = {6, 5, 2};
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), i, k, n;
	uint64_t page[3][64];

	for (i = 0; i < 64; i++) {
		for (k = 0; k < 3; k++)
			page[k][i] = get_span(client, slot, classes[k]).page;
		(void)get_span(client, slot, SPARSE);
	}
	for (k = 0; k < 3; k++) {
		unsigned in_block = 32 >> k, blocks = 0;

		for (i = 0; i < 64; i++) {
			for (n = 0; n < i && page[k][n] / in_block != page[k][i] / in_block; n++)
				;
			blocks += n == i;
		}
		CU_ASSERT_EQUAL(blocks, 64 / in_block);
	}
}

/* Pages whose spans had 512 slots get spans with 128: what they had for 512 goes, but where one of the old ones is left. */
static void state_of_another_kind_goes(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), n = 0, i;
	struct tgd_grant old[64], next[64];
	uint64_t before;

	CU_ASSERT_EQUAL_FATAL(tgd_heap_get_spans(heap, client, slot, 2, 64, old, &n), 0);
	CU_ASSERT_EQUAL_FATAL(n, 64);
	take_objects(old[20].page, 512);
	for (i = 0; i < 64; i++)
		CU_ASSERT_EQUAL(i != 20 ? put_span(client, slot, old[i].page) : 0, 0);
	before = status().resident_bytes;
	for (i = 0; i < 63; i += n)
		CU_ASSERT_EQUAL_FATAL(
			tgd_heap_get_spans(heap, client, slot, 6, 63 - i, &next[i], &n), 0);
	for (i = 0; i < 63; i++)
		CU_ASSERT(next[i].page >= old[0].page && next[i].page <= old[63].page);
	/* 7 of 8 blocks went, 2 came. */
	CU_ASSERT_EQUAL(status().resident_bytes, before - 5 * TGS_OS_PAGE);
	CU_ASSERT_EQUAL(checked().objects, 512);
}

static void a_batch_goes_into_groups(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), n = 0;
	struct tgd_grant grant[40];

	(void)get_span(client, slot, SPARSE);
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, DENSE, 40, grant, &n), 0);
	CU_ASSERT_EQUAL(n, 40);
	CU_ASSERT_EQUAL(grant[0].page % GROUP, 0);
	CU_ASSERT_EQUAL(grant[39].page, grant[0].page + 39);
	/* The rest of the third group. */
	CU_ASSERT_EQUAL(get_span(client, slot, DENSE).page, grant[0].page + 40);
	CU_ASSERT(get_span(client, slot, SPARSE).page < grant[0].page);
}

static void much_idle_memory_is_used_wherever_it_is(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client), n = 0, i;
	struct tgd_grant grant[64];
	uint64_t resident;

	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, DENSE, 64, grant, &n), 0);
	for (i = 0; i < n; i++)
		CU_ASSERT_EQUAL(put_span(client, slot, grant[i].page), 0);
	resident = status().resident_bytes;
	for (i = 0; i < 40; i++)
		(void)get_span(client, slot, SPARSE);
	CU_ASSERT(status().resident_bytes <= resident + 2 * TGS_OS_PAGE);
}

static void large_spans_take_holes_that_have_memory(void)
{
	uint32_t client = add_client(0);
	unsigned slot = open_slot(client);
	uint64_t empty = get_large(client, slot, 10).page, wall = get_large(client, slot, 1).page;
	uint64_t idle = get_large(client, slot, 10).page;

	(void)get_large(client, slot, 1);
	CU_ASSERT(empty < wall && wall < idle);
	CU_ASSERT_EQUAL(put_span(client, slot, empty), 0);
	(void)tgd_heap_trim(heap);
	CU_ASSERT_EQUAL(put_span(client, slot, idle), 0);
	CU_ASSERT_EQUAL(get_large(client, slot, 6).page, idle);
	/* What is left is too short. */
	CU_ASSERT_EQUAL(get_large(client, slot, 6).page, empty);
	CU_ASSERT_EQUAL(get_large(client, slot, 4).page, idle + 6);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Dense and tiny spans lie in groups of their own",
		 kinds_lie_in_groups_of_their_own},
		{"Dense spans fill blocks with their like",
		 dense_spans_fill_blocks_with_their_like},
		{"State of another kind goes when pages become other spans",
		 state_of_another_kind_goes},
		{"A batch fills groups, and the next span the last of them",
		 a_batch_goes_into_groups},
		{"Much idle memory is used wherever it is",
		 much_idle_memory_is_used_wherever_it_is},
		{"Large spans take holes that have memory first",
		 large_spans_take_holes_that_have_memory},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"heap-place", NULL, NULL, small_heap, end_heap, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("heap-place", suites);
}
