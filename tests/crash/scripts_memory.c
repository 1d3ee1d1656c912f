/* scripts_memory.c - scripts of every kind of allocation, resize and free, and of spans that come and go.
 *
 * `a` and `b` of a script are sizes, or a size and a count.
 */
#include "tests/crash/ledger.h"
#include "tests/crash/run.h"
#include "tests/support/child.h"

/* Objects in spans of each kind; BIG: freed at once by those who do not own them. */
enum {
	TINY = 8,
	DENSE = 48,
	SPARSE = 1024,
	BIG = 4096,
	PAGE = 8192,
	LARGE = 40000,
	MIB = 1 << 20,
};

static size_t a(void)
{
	return tgt_ledger->script->a;
}

static size_t b(void)
{
	return tgt_ledger->script->b;
}

/* ---- malloc ---- */

static void one_at_hand(void)
{
	tgt_do_malloc(0, a());
}

static void malloc_one(void)
{
	tgt_begin();
	tgt_do_malloc(1, a());
	tgt_end();
}

static void malloc_many(void)
{
	tgt_begin();
	tgt_do_mallocs(1, (unsigned)b(), a());
	tgt_end();
}

static void malloc_tiny_mix(void)
{
	static const size_t sizes[] = {1, 15, 8, 3, 4, 12, 2, 7, 16 - 1, 1, 1, 9, 5, 6, 11, 8};
	unsigned i;

	tgt_begin();
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		tgt_do_malloc(1 + i, sizes[i]);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i += 2)
		tgt_do_free(tgt_item(1 + i));
	tgt_end();
}

static void calloc_twice(void)
{
	tgt_begin();
	tgt_do_calloc(1, a());
	tgt_do_free(tgt_item(1));
	tgt_do_calloc(1, a());
	tgt_end();
}

static void aligned(void)
{
	tgt_begin();
	tgt_do_aligned(1, a(), b());
	tgt_end();
}

/* The heap is full: what is cached goes back, and it is asked for again. */
static void fill_heap(void)
{
	unsigned i;

	for (i = 0; i < 100; i++)
		tgt_do_malloc(100 + i, 300);
	for (i = 0; i < 7; i++)
		tgt_do_malloc(i, 8 * MIB);
	tgt_do_frees(100, 50);
}

static void malloc_in_vain(void)
{
	tgt_begin();
	tgt_do_malloc_fails(10, 16 * MIB);
	tgt_do_malloc(10, BIG);
	tgt_end();
}

static void fill_all(void)
{
	unsigned i;

	for (i = 0; i < 7; i++)
		tgt_do_malloc(i, 8 * MIB);
	for (; i < 15; i++)
		tgt_do_malloc(i, MIB - 16 * PAGE);
	for (; i < TGT_ITEMS_MAX - 1; i++) {
		struct tgt_item *item = tgt_item(i);
		void *p = tg_malloc(32768);

		if (p == NULL)
			break;
		tg_free(p);
		tgt_do_malloc(i, 32768);
		TGT_REQUIRE(item->state == TGT_HERE);
	}
}

static void malloc_small_in_vain(void)
{
	tgt_begin();
	tgt_do_malloc_fails(TGT_ITEMS_MAX - 1, 32768);
	tgt_end();
}

/* ---- free ---- */

static void two_own(void)
{
	tgt_do_mallocs(0, 2, a());
}

static void two_published(void)
{
	two_own();
	tgt_do_publish(tgt_item(0));
	tgt_do_publish(tgt_item(1));
}

static void free_own(void)
{
	tgt_begin();
	tgt_do_free(tgt_item(0));
	tgt_do_malloc(2, a());
	tgt_do_free(tgt_item(1));
	tgt_end();
}

/* Several spans full, so that the one that is freed in is not the one at hand. */
static void many_own(void)
{
	tgt_do_mallocs(0, (unsigned)b(), a());
}

static void free_first(void)
{
	tgt_begin();
	tgt_do_free(tgt_item(0));
	tgt_do_free(tgt_item(1));
	tgt_end();
}

static void some_foreign(void)
{
	tgt_do_mallocs(0, 3, a());
	tgt_do_publish(tgt_item(1));
}

static void free_foreign(void)
{
	tgt_begin();
	tgt_do_frees(0, 3);
	tgt_end();
}

static void free_foreign_flush(void)
{
	tgt_begin();
	tgt_do_frees(0, 3);
	tgt_do_trim();
	tgt_end();
}

static void many_foreign(void)
{
	unsigned i;

	for (i = 0; i < b(); i++)
		tgt_do_malloc(i, 512 + 128 * (i % 8));
}

/* More words than the buffer has places. */
static void free_many_foreign(void)
{
	tgt_begin();
	tgt_do_frees(0, (unsigned)b());
	tgt_end();
}

/* ---- harvest ---- */

static void own_in_pages(void)
{
	tgt_do_mallocs(0, (unsigned)b(), a());
	tgt_meet();
}

/* The observer frees half of what the child has made. */
static void others_free(void)
{
	unsigned i;

	for (i = 0; i < b(); i += 2)
		tgt_do_free(tgt_item(i));
	tgt_do_trim();
}

static void refill_harvests(void)
{
	unsigned i;

	tgt_begin();
	for (i = 0; i < b(); i += 2)
		tgt_do_malloc(i, a());
	tgt_end();
}

static void trim_harvests(void)
{
	tgt_begin();
	tgt_do_trim();
	tgt_end();
}

/* ---- realloc ---- */

static void realloc_moves(void)
{
	tgt_begin();
	tgt_do_realloc(tgt_item(0), b(), false);
	tgt_end();
}

static void realloc_stays(void)
{
	tgt_begin();
	tgt_do_realloc(tgt_item(0), b(), true);
	tgt_end();
}

static void published_at_hand(void)
{
	one_at_hand();
	tgt_do_publish(tgt_item(0));
}

/* ---- spans ---- */

static void large_come_and_go(void)
{
	tgt_begin();
	tgt_do_mallocs(1, 3, a());
	tgt_do_frees(1, 2);
	tgt_do_malloc(4, a());
	tgt_do_free(tgt_item(3));
	tgt_do_free(tgt_item(4));
	tgt_end();
}

/* More empty spans than a thread may hoard. */
static void hoard(void)
{
	tgt_do_mallocs(0, (unsigned)b(), a());
	tgt_do_frees(0, (unsigned)b() - 200);
}

static void free_hoard(void)
{
	unsigned first = (unsigned)b() - 200;

	tgt_do_frees(first, 40);
	tgt_begin();
	tgt_do_frees(first + 40, 60);
	tgt_end();
}

static void trim(void)
{
	tgt_begin();
	tgt_do_trim();
	tgt_end();
}

static void hold_much(void)
{
	tgt_do_mallocs(0, 40, PAGE);
	tgt_do_mallocs(40, 40, DENSE);
	tgt_do_mallocs(80, 5, LARGE);
	tgt_do_mallocs(85, 5, TINY);
	tgt_do_frees(0, 39);
	tgt_do_frees(40, 40);
	tgt_do_frees(80, 4);
	tgt_do_frees(85, 5);
}

/* The daemon asks for what clients hoard; they give it at their next refill. */
static void hold_and_meet(void)
{
	hold_much();
	tgt_meet();
}

static void press(void)
{
	tgt_do_malloc(200, 100);
	tgt_admin_trim();
}

static void heed(void)
{
	tgt_begin();
	tgt_do_malloc(90, 12345);
	tgt_end();
}

const struct tgt_script tgt_memory_scripts[] = {
	{"malloc, first, tiny", NULL, NULL, malloc_one, .a = TINY},
	{"malloc, first, dense", NULL, NULL, malloc_one, .a = DENSE},
	{"malloc, first, sparse", NULL, NULL, malloc_one, .a = SPARSE},
	{"malloc, first, large", NULL, NULL, malloc_one, .a = LARGE},
	{"malloc, next, dense", NULL, one_at_hand, malloc_one, .a = DENSE},
	{"malloc, next, sparse", NULL, one_at_hand, malloc_one, .a = SPARSE},
	{"malloc, tiny ones of all sizes", NULL, NULL, malloc_tiny_mix},
	{"malloc, many spans", NULL, one_at_hand, malloc_many, .a = PAGE, .b = 40},
	{"malloc, a full span", NULL, one_at_hand, malloc_many, .a = BIG, .b = 6},
	{"malloc, large in vain", NULL, fill_heap, malloc_in_vain},
	{"malloc, small in vain", NULL, fill_all, malloc_small_in_vain, .flags = TGT_KEEP_ONLY},
	{"calloc, dense", NULL, NULL, calloc_twice, .a = DENSE},
	{"calloc, tiny", NULL, NULL, calloc_twice, .a = TINY},
	{"calloc, large", NULL, NULL, calloc_twice, .a = LARGE},
	{"aligned, tiny", NULL, NULL, aligned, .a = 8, .b = 8},
	{"aligned, page", NULL, NULL, aligned, .a = 4096, .b = 5000},
	{"aligned, large", NULL, NULL, aligned, .a = 65536, .b = 100000},
	{"free, own tiny", NULL, two_own, free_own, .a = TINY},
	{"free, own dense", NULL, two_own, free_own, .a = DENSE},
	{"free, own sparse", NULL, two_own, free_own, .a = SPARSE},
	{"free, own large", NULL, two_own, free_own, .a = LARGE},
	{"free, own published tiny", NULL, two_published, free_own, .a = TINY},
	{"free, own published dense", NULL, two_published, free_own, .a = DENSE},
	{"free, own published large", NULL, two_published, free_own, .a = LARGE},
	{"free, own, in a full span", NULL, many_own, free_first, .a = BIG, .b = 6},
	{"free, foreign tiny", some_foreign, NULL, free_foreign, .a = TINY},
	{"free, foreign dense", some_foreign, NULL, free_foreign, .a = DENSE},
	{"free, foreign big", some_foreign, NULL, free_foreign, .a = BIG},
	{"free, foreign large", some_foreign, NULL, free_foreign, .a = LARGE},
	{"free, foreign tiny, flushed", some_foreign, NULL, free_foreign_flush, .a = TINY},
	{"free, foreign dense, flushed", some_foreign, NULL, free_foreign_flush, .a = DENSE},
	{"free, foreign sparse, flushed", some_foreign, NULL, free_foreign_flush, .a = SPARSE},
	{"free, many foreign", many_foreign, NULL, free_many_foreign, .b = 100},
	{"harvest by refill, sparse", NULL, own_in_pages, refill_harvests, others_free, 0, BIG, 16},
	{"harvest by refill, tiny", NULL, own_in_pages, refill_harvests, others_free, 0, 15, 600},
	{"harvest by refill, dense", NULL, own_in_pages, refill_harvests, others_free, 0, 512, 64},
	{"harvest by refill, large", NULL, own_in_pages, refill_harvests, others_free, 0, LARGE, 6},
	{"harvest by trim, sparse", NULL, own_in_pages, trim_harvests, others_free, 0, BIG, 16},
	{"harvest by trim, tiny", NULL, own_in_pages, trim_harvests, others_free, 0, TINY, 20},
	{"harvest by trim, large", NULL, own_in_pages, trim_harvests, others_free, 0, LARGE, 6},
	{"realloc, in place", NULL, one_at_hand, realloc_stays, .a = 100, .b = 110},
	{"realloc, tiny in place", NULL, one_at_hand, realloc_stays, .a = 8, .b = 6},
	{"realloc, small to small", NULL, one_at_hand, realloc_moves, .a = 100, .b = 1000},
	{"realloc, published", NULL, published_at_hand, realloc_moves, .a = 100, .b = 1000},
	{"realloc, tiny to small", NULL, one_at_hand, realloc_moves, .a = TINY, .b = DENSE},
	{"realloc, small to large", NULL, one_at_hand, realloc_moves, .a = DENSE, .b = LARGE},
	{"realloc, large to small", NULL, one_at_hand, realloc_moves, .a = LARGE, .b = DENSE},
	{"realloc, large grows", NULL, one_at_hand, realloc_stays, .a = LARGE, .b = 4 * LARGE},
	{"realloc, large shrinks", NULL, one_at_hand, realloc_stays, .a = 4 * LARGE, .b = LARGE},
	{"realloc, large moves", NULL, two_own, realloc_moves, .a = LARGE, .b = 4 * LARGE},
	{"realloc, foreign", some_foreign, NULL, realloc_moves, .a = DENSE, .b = 4 * DENSE},
	{"realloc, foreign large", some_foreign, NULL, realloc_moves, .a = LARGE, .b = 2 * LARGE},
	{"large, kept and given back", NULL, NULL, large_come_and_go, .a = 2 * MIB},
	{"spans given back", NULL, hoard, free_hoard, .a = PAGE, .b = 600},
	{"trim", NULL, hold_much, trim},
	{"pressure", NULL, hold_and_meet, heed, press},
	{.name = NULL},
};
