/* scripts_memory.c - scripts of every kind of allocation, resize and free, and of spans that come and go.
 *
 * `a` and `b` of a script are sizes, or a size and a count.
 */
#include <pthread.h>

#include "tests/crash/ledger.h"
#include "tests/crash/oracle.h"
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
	HUGE = 4 * MIB, /* has at least one huge page in it */
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

/* Freed a moment ago: what malloc takes first. */
static void two_warm(void)
{
	tgt_do_mallocs(10, (unsigned)b(), a());
	tgt_do_frees(10, 2);
}

static void malloc_warm(void)
{
	tgt_begin();
	tgt_do_malloc(1, a());
	tgt_do_free(tgt_item(12));
	tgt_do_malloc(2, a());
	tgt_do_malloc(3, a());
	tgt_do_free(tgt_item(2));
	tgt_do_trim();
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
		tgt_do_malloc(i, 2 * MIB);
	tgt_do_frees(100, 50);
}

static void malloc_in_vain(void)
{
	tgt_begin();
	tgt_do_malloc_fails(10, 4 * MIB);
	tgt_do_malloc(10, BIG);
	tgt_end();
}

static void fill_all(void)
{
	unsigned i;

	for (i = 0; i < 7; i++)
		tgt_do_malloc(i, 2 * MIB);
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

/* As many are free as there may be hints, after there was no room for one once. */
static void no_hint_left(void)
{
	tgt_do_mallocs(0, 200, a());
	tgt_do_frees(0, 2 * 67);
}

/* Of two units, most of them of the second. */
static void free_some(void)
{
	tgt_begin();
	tgt_do_frees(2 * 67, 4);
	tgt_do_malloc(200, a());
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

/* Four in a span, so in one word; more words than fit the buffer without sharing a place. */
static void many_foreign(void)
{
	tgt_do_mallocs(0, 4 * (unsigned)b(), a());
}

static void free_many_foreign(void)
{
	unsigned i;

	tgt_begin();
	for (i = 0; i < b(); i++)
		tgt_do_free(tgt_item(4 * i));
	tgt_end();
}

/* ---- harvest ---- */

static void own_in_pages(void)
{
	tgt_do_mallocs(0, (unsigned)b(), a());
	tgt_meet();
}

static void published_in_pages(void)
{
	unsigned i;

	tgt_do_mallocs(0, (unsigned)b(), a());
	for (i = 0; i < b(); i++)
		tgt_do_publish(tgt_item(i));
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
	for (i = 0; i < 6 && i < b(); i += 2)
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

static void *do_nothing(void *arg)
{
	return arg;
}

/* In a process that has had another thread, freeing a large object is an exchange. */
static void two_own_of_threads(void)
{
	pthread_t thread;

	TGT_REQUIRE(pthread_create(&thread, NULL, do_nothing, NULL) == 0);
	TGT_REQUIRE(pthread_join(thread, NULL) == 0);
	two_own();
}

/* More empty spans than a thread may hoard. */
static void hoard(void)
{
	tgt_do_mallocs(0, (unsigned)b(), a());
	tgt_do_frees(0, (unsigned)b() - 30);
}

static void free_hoard(void)
{
	tgt_begin();
	tgt_do_frees((unsigned)b() - 30, 15);
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
	TGT_REQUIRE(tgt_admin(TGD__ADMIN__WHAT__TRIM, 0) != NULL);
}

static void heed(void)
{
	tgt_begin();
	tgt_do_malloc(90, 12345);
	tgt_end();
}

const struct tgt_script tgt_memory_scripts[] = {
	{"malloc, first, tiny", .operation = malloc_one, .a = TINY},
	{"malloc, first, dense", .operation = malloc_one, .a = DENSE},
	{"malloc, first, sparse", .operation = malloc_one, .a = SPARSE},
	{"malloc, first, large", .operation = malloc_one, .a = LARGE},
	{"malloc, huge pages", .operation = malloc_one, .a = HUGE},
	{"malloc, next, dense", .set_up = one_at_hand, .operation = malloc_one, .a = DENSE},
	{"malloc, next, sparse", .set_up = one_at_hand, .operation = malloc_one, .a = SPARSE},
	{"malloc, tiny ones of all sizes", .operation = malloc_tiny_mix},
	{"malloc, many spans", .set_up = one_at_hand, .operation = malloc_many, .a = PAGE, .b = 40},
	{"malloc, a full span", .set_up = one_at_hand, .operation = malloc_many, .a = BIG, .b = 6},
	{"malloc, warm block, tiny", .set_up = two_warm, .operation = malloc_warm, .a = TINY,
	 .b = 6},
	{"malloc, warm slots, dense", .set_up = two_warm, .operation = malloc_warm, .a = DENSE,
	 .b = 70},
	{"malloc, warm slots, sparse", .set_up = two_warm, .operation = malloc_warm, .a = BIG,
	 .b = 7},
	{"malloc, large in vain", .set_up = fill_heap, .operation = malloc_in_vain},
	{"malloc, small in vain", .set_up = fill_all, .operation = malloc_small_in_vain,
	 .flags = TGT_KEEP_ONLY},
	{"calloc, dense", .operation = calloc_twice, .a = DENSE},
	{"calloc, tiny", .operation = calloc_twice, .a = TINY},
	{"calloc, large", .operation = calloc_twice, .a = LARGE},
	{"aligned, tiny", .operation = aligned, .a = 8, .b = 8},
	{"aligned, page", .operation = aligned, .a = 4096, .b = 5000},
	{"aligned, large", .operation = aligned, .a = 65536, .b = 100000},
	{"free, own tiny", .set_up = two_own, .operation = free_own, .a = TINY},
	{"free, own dense", .set_up = two_own, .operation = free_own, .a = DENSE},
	{"free, own sparse", .set_up = two_own, .operation = free_own, .a = SPARSE},
	{"free, own, beyond the hints", .set_up = no_hint_left, .operation = free_some, .a = DENSE},
	{"free, own tiny, beyond the hints", .set_up = no_hint_left, .operation = free_some,
	 .a = 15},
	{"free, own large", .set_up = two_own, .operation = free_own, .a = LARGE},
	{"free, own published tiny", .set_up = two_published, .operation = free_own, .a = TINY},
	{"free, own published dense", .set_up = two_published, .operation = free_own, .a = DENSE},
	{"free, own published large", .set_up = two_published, .operation = free_own, .a = LARGE},
	{"free, own, in a full span", .set_up = many_own, .operation = free_first, .a = BIG,
	 .b = 6},
	{"free, foreign tiny", .observer = some_foreign, .operation = free_foreign, .a = TINY},
	{"free, foreign dense", .observer = some_foreign, .operation = free_foreign, .a = DENSE},
	{"free, foreign big", .observer = some_foreign, .operation = free_foreign, .a = BIG},
	{"free, foreign large", .observer = some_foreign, .operation = free_foreign, .a = LARGE},
	{"free, foreign tiny, flushed", .observer = some_foreign, .operation = free_foreign_flush,
	 .a = TINY},
	{"free, foreign dense, flushed", .observer = some_foreign, .operation = free_foreign_flush,
	 .a = DENSE},
	{"free, foreign sparse, flushed", .observer = some_foreign, .operation = free_foreign_flush,
	 .a = SPARSE},
	{"free, many foreign", .observer = many_foreign, .operation = free_many_foreign, .a = 2048,
	 .b = 24},
	{"harvest by refill, sparse", .set_up = own_in_pages, .operation = refill_harvests,
	 .meeting = others_free, .a = BIG, .b = 14},
	{"harvest by refill, tiny", .set_up = own_in_pages, .operation = refill_harvests,
	 .meeting = others_free, .a = 15, .b = 512},
	{"harvest by refill, dense", .set_up = own_in_pages, .operation = refill_harvests,
	 .meeting = others_free, .a = 512, .b = 48},
	{"harvest by refill, large", .set_up = own_in_pages, .operation = refill_harvests,
	 .meeting = others_free, .a = LARGE, .b = 6},
	{"harvest by trim, sparse", .set_up = own_in_pages, .operation = trim_harvests,
	 .meeting = others_free, .a = BIG, .b = 16},
	{"harvest by trim, tiny", .set_up = own_in_pages, .operation = trim_harvests,
	 .meeting = others_free, .a = TINY, .b = 20},
	{"harvest by trim, large", .set_up = own_in_pages, .operation = trim_harvests,
	 .meeting = others_free, .a = LARGE, .b = 6},
	{"harvest by trim, published", .set_up = published_in_pages, .operation = trim_harvests,
	 .meeting = others_free, .a = DENSE, .b = 20},
	{"realloc, in place", .set_up = one_at_hand, .operation = realloc_stays, .a = 100,
	 .b = 110},
	{"realloc, tiny in place", .set_up = one_at_hand, .operation = realloc_stays, .a = 8,
	 .b = 6},
	{"realloc, small to small", .set_up = one_at_hand, .operation = realloc_moves, .a = 100,
	 .b = 1000},
	{"realloc, published", .set_up = published_at_hand, .operation = realloc_moves, .a = 100,
	 .b = 1000},
	{"realloc, tiny to small", .set_up = one_at_hand, .operation = realloc_moves, .a = TINY,
	 .b = DENSE},
	{"realloc, small to large", .set_up = one_at_hand, .operation = realloc_moves, .a = DENSE,
	 .b = LARGE},
	{"realloc, large to small", .set_up = one_at_hand, .operation = realloc_moves, .a = LARGE,
	 .b = DENSE},
	{"realloc, large grows", .set_up = one_at_hand, .operation = realloc_stays, .a = LARGE,
	 .b = 4 * LARGE},
	{"realloc, large shrinks", .set_up = one_at_hand, .operation = realloc_stays,
	 .a = 4 * LARGE, .b = LARGE},
	{"realloc, large moves", .set_up = two_own, .operation = realloc_moves, .a = LARGE,
	 .b = 4 * LARGE},
	{"realloc, foreign", .observer = some_foreign, .operation = realloc_moves, .a = DENSE,
	 .b = 4 * DENSE},
	{"realloc, foreign large", .observer = some_foreign, .operation = realloc_moves, .a = LARGE,
	 .b = 2 * LARGE},
	{"large, kept and given back", .operation = large_come_and_go, .a = 600000},
	{"large, hints of several threads", .set_up = two_own_of_threads, .operation = free_own,
	 .a = LARGE},
	{"spans given back", .set_up = hoard, .operation = free_hoard, .a = 32768, .b = 90},
	{"trim", .set_up = hold_much, .operation = trim},
	{"pressure", .set_up = hold_and_meet, .operation = heed, .meeting = press},
	{.name = NULL},
};
