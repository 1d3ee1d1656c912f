/* test_alloc - what tg_malloc, tg_calloc, tg_realloc and tg_aligned_alloc give, for every size class and beyond.
 *
 * Objects carry a pattern over all of their usable bytes, so that two which overlap are found out.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/tg.h"
#include "shm/sizeclass.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

/* Sizes around every border between classes, and large ones. */
static size_t sizes[4 * TGS_CLASSES + 32];
static unsigned n_sizes;

static int list_sizes(void)
{
	static const size_t large[] = {32769,  40 * 1024, 65536,         65537,
				       100000, 1 << 20,   (1 << 20) + 1, 5 << 20};
	unsigned class, i;
	size_t size;

	n_sizes = 0;
	for (size = 1; size < 16; size++)
		sizes[n_sizes++] = size;
	for (class = 2; class < TGS_CLASSES; class ++) {
		sizes[n_sizes++] = tgs_classes[class].size - 1;
		sizes[n_sizes++] = tgs_classes[class].size;
		if (tgs_classes[class].size < TGS_SMALL_MAX)
			sizes[n_sizes++] = tgs_classes[class].size + 1;
	}
	for (i = 0; i < sizeof(large) / sizeof(*large); i++)
		sizes[n_sizes++] = large[i];
	return 0;
}

static size_t promised_alignment(size_t size)
{
	if (size > 24 || size == 16)
		return 16;
	return size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1;
}

static bool is_aligned(const void *p, size_t align)
{
	return ((uintptr_t)p & (align - 1)) == 0;
}

/* Hidden from the compiler, which warns of sizes that cannot be had. */
static size_t hidden(size_t size)
{
	volatile size_t v = size;

	return v;
}

static void test_objects_do_not_overlap(void)
{
	static void *objects[8][4 * TGS_CLASSES + 32];
	unsigned round, i;

	for (round = 0; round < 8; round++) {
		for (i = 0; i < n_sizes; i++) {
			void *p = tg_malloc(sizes[i]);

			CU_ASSERT_PTR_NOT_NULL_FATAL(p);
			CU_ASSERT(is_aligned(p, promised_alignment(sizes[i])));
			CU_ASSERT(tg_usable_size(p) >= sizes[i]);
			/* Tiny objects share what is left of their block: only what was asked for is theirs to fill now. */
			tgt_fill_object(p, sizes[i] < 16 ? sizes[i] : tg_usable_size(p),
					round * 1000 + i);
			objects[round][i] = p;
		}
	}
	tgt_check(8 * n_sizes);
	for (round = 0; round < 8; round++) {
		for (i = 0; i < n_sizes; i++) {
			void *p = objects[round][i];

			CU_ASSERT(tgt_is_filled(p, sizes[i] < 16 ? sizes[i] : tg_usable_size(p),
						round * 1000 + i));
			tg_free(p);
		}
	}
}

static void test_waste_is_bounded(void)
{
	unsigned i;

	/* Go's classes waste an eighth at most, but among the smallest ones. */
	for (i = 0; i < n_sizes; i++) {
		void *p = tg_malloc(sizes[i]);
		size_t usable = tg_usable_size(p);

		if (sizes[i] >= 16 && sizes[i] <= TGS_SMALL_MAX)
			CU_ASSERT_EQUAL(usable, tgs_classes[tgs_size_to_class(sizes[i])].size);
		if (sizes[i] > TGS_SMALL_MAX) {
			CU_ASSERT(usable - sizes[i] <= sizes[i] / 4);
			CU_ASSERT_EQUAL(usable % 8192, 0);
		}
		tg_free(p);
	}
}

static void test_malloc_0(void)
{
	void *p = tg_malloc(0), *q = tg_malloc(0), *r = tg_calloc(0, 17);

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	CU_ASSERT_PTR_NOT_NULL_FATAL(q);
	CU_ASSERT_PTR_NOT_NULL_FATAL(r);
	CU_ASSERT_PTR_NOT_EQUAL(p, q);
	CU_ASSERT_PTR_NOT_EQUAL(q, r);
	CU_ASSERT_PTR_NOT_EQUAL(p, r);
	tgt_check(3);
	tg_free(p);
	tg_free(q);
	tg_free(r);
}

static void test_huge_sizes(void)
{
	static const size_t huge[] = {SIZE_MAX,         SIZE_MAX - 7, SIZE_MAX - 8191,
				      SIZE_MAX / 2 + 1, SIZE_MAX / 2, (size_t)1 << 62,
				      (size_t)1 << 48,  65 * GIB};
	unsigned i;

	for (i = 0; i < sizeof(huge) / sizeof(*huge); i++) {
		errno = 0;
		CU_ASSERT_PTR_NULL(tg_malloc(hidden(huge[i])));
		CU_ASSERT_EQUAL(errno, ENOMEM);
		errno = 0;
		CU_ASSERT_PTR_NULL(tg_calloc(1, hidden(huge[i])));
		CU_ASSERT_EQUAL(errno, ENOMEM);
		errno = 0;
		CU_ASSERT_PTR_NULL(tg_aligned_alloc(4096, hidden(huge[i])));
		CU_ASSERT_EQUAL(errno, ENOMEM);
	}
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_aligned_alloc((size_t)1 << 62, 64));
	CU_ASSERT_EQUAL(errno, ENOMEM);
}

static void test_calloc_overflow(void)
{
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_calloc(hidden(SIZE_MAX), 2));
	CU_ASSERT_EQUAL(errno, ENOMEM);
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_calloc(hidden(SIZE_MAX / 2 + 1), 2));
	CU_ASSERT_EQUAL(errno, ENOMEM);
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_calloc((size_t)1 << 32, hidden((size_t)1 << 32)));
	CU_ASSERT_EQUAL(errno, ENOMEM);
	/* A product that is small is none of these. */
	void *p = tg_calloc(3, 5);

	CU_ASSERT_PTR_NOT_NULL(p);
	tg_free(p);
}

static void test_calloc_is_zero(void)
{
	void *objects[24];
	unsigned round, i, k;

	for (i = 0; i < n_sizes; i++) {
		for (round = 0; round < 3; round++) {
			for (k = 0; k < 24; k++) {
				objects[k] = tg_calloc(1, sizes[i]);
				CU_ASSERT_PTR_NOT_NULL_FATAL(objects[k]);
				CU_ASSERT(tgt_is_zero(objects[k], sizes[i]));
				/* Dirty for the next round, or for its neighbours now, if they overlap. */
				memset(objects[k], 0xa5, sizes[i]);
				if (sizes[i] > 65536 && k == 3)
					break;
			}
			for (k = sizes[i] > 65536 ? 4 : 24; k > 0; k--)
				tg_free(objects[k - 1]);
		}
	}
}

static void test_calloc_after_trim(void)
{
	unsigned i;

	/* Memory that went back to the daemon full of bytes, and comes again. */
	for (i = 0; i < n_sizes; i++) {
		void *p = tg_malloc(sizes[i]);

		CU_ASSERT_PTR_NOT_NULL_FATAL(p);
		memset(p, 0xff, sizes[i]);
		tg_free(p);
	}
	CU_ASSERT_EQUAL(tg_trim(), 0);
	for (i = 0; i < n_sizes; i++) {
		void *p = tg_calloc(sizes[i], 1);

		CU_ASSERT_PTR_NOT_NULL_FATAL(p);
		CU_ASSERT(tgt_is_zero(p, sizes[i]));
		tg_free(p);
	}
}

static void test_aligned_alloc(void)
{
	static const size_t some[] = {0,   1,    3,    15,    16,    17,     24,
				      100, 4096, 5000, 32768, 40000, 1 << 20};
	void *objects[13][23];
	unsigned i, shift;

	for (i = 0; i < 13; i++) {
		for (shift = 0; shift <= 22; shift++) {
			void *p = tg_aligned_alloc((size_t)1 << shift, some[i]);

			CU_ASSERT_PTR_NOT_NULL_FATAL(p);
			CU_ASSERT(is_aligned(p, (size_t)1 << shift));
			CU_ASSERT(tg_usable_size(p) >= some[i]);
			tgt_fill_object(p, some[i], i * 100 + shift);
			objects[i][shift] = p;
		}
	}
	tgt_check(13 * 23);
	for (i = 0; i < 13; i++) {
		for (shift = 0; shift <= 22; shift++) {
			CU_ASSERT(tgt_is_filled(objects[i][shift], some[i], i * 100 + shift));
			tg_free(objects[i][shift]);
		}
	}
}

static void test_big_alignments(void)
{
	unsigned shift;

	for (shift = 23; shift <= 30; shift++) {
		void *p = tg_aligned_alloc((size_t)1 << shift, 100);

		CU_ASSERT_PTR_NOT_NULL_FATAL(p);
		CU_ASSERT(is_aligned(p, (size_t)1 << shift));
		tg_free(p);
	}
}

static void test_wrong_alignments(void)
{
	static const size_t wrong[] = {0, 3, 5, 12, 24, 48, 8191, 8193, SIZE_MAX};
	unsigned i;

	for (i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		errno = 0;
		CU_ASSERT_PTR_NULL(tg_aligned_alloc(hidden(wrong[i]), 64));
		CU_ASSERT_EQUAL(errno, EINVAL);
	}
}

static void test_usable_size(void)
{
	int on_stack = 0;

	CU_ASSERT_EQUAL(tg_usable_size(NULL), 0);
	errno = 0;
	CU_ASSERT_EQUAL(tg_usable_size(&on_stack), 0);
	CU_ASSERT_EQUAL(errno, EFAULT);
}

static void test_refs(void)
{
	int on_stack = 0;
	unsigned i;

	CU_ASSERT_EQUAL(tg_to_ref(NULL), 0);
	CU_ASSERT_PTR_NULL(tg_from_ref(0));
	for (i = 0; i < n_sizes; i++) {
		void *p = tg_malloc(sizes[i]);

		CU_ASSERT_NOT_EQUAL(tg_to_ref(p), 0);
		CU_ASSERT_PTR_EQUAL(tg_from_ref(tg_to_ref(p)), p);
		tg_free(p);
	}
	errno = 0;
	CU_ASSERT_EQUAL(tg_to_ref(&on_stack), 0);
	CU_ASSERT_EQUAL(errno, EFAULT);
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_from_ref(1));
	CU_ASSERT_EQUAL(errno, EFAULT);
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_from_ref(UINT64_MAX));
	CU_ASSERT_EQUAL(errno, EFAULT);
}

static void test_a_steady_state_sends_no_message(void)
{
	void *objects[64] = {NULL};
	struct tg_stats before;
	long long messages = 0;
	unsigned round, i;

	/* Warm after the first round; tgctl must agree with the library's own count. */
	for (round = 0; round < 200; round++) {
		if (round == 1) {
			before = tgt_stats();
			messages = tgt_status("messages");
		}
		for (i = 0; i < n_sizes; i++) {
			/* Large ones beyond what the cache keeps are another matter. */
			if (sizes[i] > 2 * MIB)
				continue;
			tg_free(objects[i % 64]);
			objects[i % 64] = tg_malloc(sizes[i]);
			CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i % 64]);
		}
		for (i = 0; i < 64; i++) {
			tg_free(objects[i]);
			objects[i] = NULL;
		}
	}
	CU_ASSERT_EQUAL(tgt_stats().messages, before.messages);
	CU_ASSERT_EQUAL(tgt_stats().spans, before.spans);
	CU_ASSERT_EQUAL(tgt_status("messages"), messages);
}

static void test_what_one_size_leaves_serves_others(void)
{
	const size_t bytes = 16 * MIB;
	size_t size, i;
	void **objects = malloc(bytes / 512 * sizeof(*objects));

	for (size = 512; size <= 8192; size *= 2) {
		for (i = 0; i < bytes / size; i++) {
			objects[i] = tg_malloc(size);
			CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
		}
		CU_ASSERT(tgt_stats().span_bytes < bytes + bytes / 4);
		for (i = 0; i < bytes / size; i++)
			tg_free(objects[i]);
	}
	/* The daemon had no more memory for it, either. */
	CU_ASSERT(tgt_status("resident_bytes") < (long long)(bytes + bytes / 2));
	free(objects);
}

/* The last objects that were freed of each size are at hand for the next; each may be all that is in its span.  They do not
 * keep it when no such size is asked for any more. */
static void test_sizes_out_of_use_keep_nothing(void)
{
	const size_t bytes = 2 * MIB, more = 24 * MIB;
	void **objects = malloc(more / 64 * sizeof(*objects));
	size_t size, i, n;

	for (size = 1024; size <= 8192; size += 512) {
		n = bytes / size;
		for (i = 0; i < n; i++)
			objects[i] = tg_malloc(size);
		/* Those freed last lie far apart. */
		for (i = 0; i < n / 64 * 64; i++)
			tg_free(objects[i % 64 * (n / 64) + i / 64]);
		for (; i < n; i++)
			tg_free(objects[i]);
	}
	for (i = 0; i < more / 64; i++)
		objects[i] = tg_malloc(64);
	CU_ASSERT(tgt_stats().span_bytes < more + more / 8);
	for (i = 0; i < more / 64; i++)
		tg_free(objects[i]);
	tgt_check(0);
	free(objects);
}

/* No request asks for more than a request may, however large a class has become. */
static void test_a_class_that_grows_for_long(void)
{
	enum { N = 40000 };
	void **objects = malloc(N * sizeof(*objects));
	unsigned i;

	for (i = 0; i < N; i++) {
		objects[i] = tg_malloc(i % 2 == 0 ? 2048 : 4096);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
	}
	CU_ASSERT_EQUAL(tgt_stats().reconnects, 0);
	for (i = 0; i < N; i++)
		tg_free(objects[i]);
	tgt_check(0);
	free(objects);
}

static void test_accounting_is_net_zero(void)
{
	struct tg_stats stats;
	unsigned i;

	for (i = 0; i < n_sizes; i++)
		tg_free(tg_malloc(sizes[i]));
	stats = tgt_stats();
	CU_ASSERT(stats.span_bytes > 0);
	CU_ASSERT(stats.cached_bytes <= stats.span_bytes);
	CU_ASSERT_EQUAL(stats.span_bytes, tgt_status("span_bytes"));
	CU_ASSERT_EQUAL(stats.spans, tgt_status("spans"));
	CU_ASSERT_EQUAL(tg_trim(), 0);
	stats = tgt_stats();
	CU_ASSERT_EQUAL(stats.spans, 0);
	CU_ASSERT_EQUAL(stats.span_bytes, 0);
	CU_ASSERT_EQUAL(stats.cached_bytes, 0);
	CU_ASSERT_EQUAL(stats.pending_frees, 0);
	CU_ASSERT_EQUAL(stats.errors, 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

static void test_stats_of_other_sizes(void)
{
	struct {
		struct tg_stats stats;
		uint64_t more;
	} longer = {.stats.size = sizeof(longer), .more = 17};
	struct tg_stats shorter = {.size = offsetof(struct tg_stats, spans), .spans = 17};
	struct tg_stats none = {.size = 0};

	/* Programs built with an older or a newer tg.h. */
	CU_ASSERT_EQUAL(tg_stats(&longer.stats), 0);
	CU_ASSERT_EQUAL(longer.stats.size, sizeof(struct tg_stats));
	CU_ASSERT_EQUAL(longer.more, 17);
	CU_ASSERT_EQUAL(tg_stats(&shorter), 0);
	CU_ASSERT(shorter.messages > 0);
	CU_ASSERT_EQUAL(shorter.spans, 17);
	CU_ASSERT_EQUAL(tg_stats(&none), -EINVAL);
	CU_ASSERT_EQUAL(tg_stats(NULL), -EINVAL);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Objects of all sizes are aligned, big enough, and do not overlap",
		 test_objects_do_not_overlap},
		{"An object has the room of its class, and a large one whole pages",
		 test_waste_is_bounded},
		{"malloc(0) returns a pointer of its own that must be freed", test_malloc_0},
		{"Absurd sizes are refused with ENOMEM", test_huge_sizes},
		{"calloc refuses a product that overflows", test_calloc_overflow},
		{"calloc returns zeros, also in memory that was used before", test_calloc_is_zero},
		{"calloc returns zeros in memory that went back to the daemon in between",
		 test_calloc_after_trim},
		{"aligned_alloc gives every power of two up to 4 MiB", test_aligned_alloc},
		{"aligned_alloc gives alignments up to 1 GiB", test_big_alignments},
		{"aligned_alloc refuses what is no power of two", test_wrong_alignments},
		{"usable_size is 0 for NULL and for what is no object", test_usable_size},
		{"A ref leads back to its pointer, and nowhere if it is none", test_refs},
		{"A steady state of malloc and free sends no message",
		 test_a_steady_state_sends_no_message},
		{"What one size leaves serves the next", test_what_one_size_leaves_serves_others},
		{"Sizes that are out of use keep nothing", test_sizes_out_of_use_keep_nothing},
		{"A class that grows for long asks for no more than it may",
		 test_a_class_that_grows_for_long},
		{"The accounts add up, and are zero after a trim", test_accounting_is_net_zero},
		{"tg_stats fills in what the caller has room for", test_stats_of_other_sizes},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"alloc", list_sizes, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("alloc", suites);
}
