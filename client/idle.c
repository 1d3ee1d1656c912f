/* idle.c - the large spans that the process keeps: found by length, given back by age.
 *
 * They lie in the lists of the large cache's supply, one list for each length up to 8 pages and for each quarter of a
 * doubling above, freed last first.  A request looks into the few lists that can have what fits, and not at all of a long
 * one, so that its cost does not grow with what is kept.  `room` of an idle span says when it became idle.
 *
 * What goes back: all above a share of the limit, and what nobody has needed for a second above a smaller one.  So a
 * program that frees and allocates the same again and again, however much, sends no messages, and one that once had much
 * does not keep it.  And most of it when an object is asked for that none of them fits.
 */
#include "client/idle.h"

#include "client/rpc.h"

#define KEEP_BYTES_MAX   (UINT64_C(64) << 20) /* for good */
#define KEEP_PART        16
#define HOLD_BYTES_MAX   (UINT64_C(256) << 20) /* for a second */
#define HOLD_PART        8
#define HOLD_MS          1000u
#define MISSED_PAGES_MIN 64u
#define SMALL_PAGES      64u
#define ALONE_PAGES      4u /* objects that would be small ones: see tgc_demand_alone */
#define LOOK_MAX         16u
#define PUT_MAX          32u

static uint64_t clock_of_adds; /* only its order counts, so a forked child may go on with it */

static uint64_t share(uint64_t bytes_max, unsigned part)
{
	uint64_t limit = atomic_load_explicit(&tgc_heap.map->limit_bytes, memory_order_relaxed);

	return tgs_min(bytes_max, limit / part) / TGS_PAGE_SIZE;
}

uint64_t tgc_idle_waste(uint64_t n_pages)
{
	if (n_pages <= ALONE_PAGES)
		return ALONE_PAGES;
	return n_pages <= SMALL_PAGES ? n_pages / 2 : n_pages / 4;
}

unsigned tgc_idle_list(uint64_t n_pages)
{
	unsigned log;

	if (n_pages < 8)
		return (unsigned)n_pages;
	log = 63 - (unsigned)__builtin_clzll(n_pages);
	return (unsigned)tgs_min(8 + (log - 3) * 4 + (n_pages >> (log - 2) & 3),
				 TGS_CLASSES_ALL - 1);
}

void tgc_idle_add(struct tgc_cache *large, struct tgc_span *span)
{
	struct tgc_supply *list = &large->supply[tgc_idle_list(span->n_pages)];

	span->place = TGC_SPAN_LARGE_IDLE;
	span->room = ++clock_of_adds;
	tgc_list_add_head(list, span);
	tgc_count(&large->empty_pages, span->n_pages);
}

void tgc_idle_remove(struct tgc_cache *large, struct tgc_span *span)
{
	struct tgc_supply *list = &large->supply[tgc_idle_list(span->n_pages)];

	tgc_list_remove(list, span);
	span->place = TGC_SPAN_LARGE;
	tgc_count(&large->empty_pages, -(uint64_t)span->n_pages);
	large->supply[0].low = (uint32_t)tgs_min(large->supply[0].low, large->empty_pages);
}

static bool fits(const struct tgc_span *span, uint64_t n_pages, uint64_t align_pages)
{
	return span->n_pages >= n_pages && span->n_pages - n_pages <= tgc_idle_waste(n_pages) &&
	       ((uintptr_t)tgs_page_address(&tgc_heap, tgc_span_page(span)) &
		(align_pages * TGS_PAGE_SIZE - 1)) == 0;
}

struct tgc_span *tgc_idle_find(const struct tgc_cache *large, uint64_t n_pages,
			       uint64_t align_pages)
{
	unsigned i, last = tgc_idle_list(n_pages + tgc_idle_waste(n_pages)), look;

	for (i = tgc_idle_list(n_pages); i <= last; i++) {
		struct tgc_span *span = large->supply[i].head, *best = NULL;

		for (look = 0; span && look < LOOK_MAX; span = span->next, look++) {
			if (!fits(span, n_pages, align_pages) ||
			    (best && best->n_pages <= span->n_pages))
				continue;
			best = span;
			if (best->n_pages == n_pages)
				break;
		}
		if (best)
			return best;
	}
	return NULL;
}

static struct tgc_span *oldest(const struct tgc_cache *large)
{
	struct tgc_span *span = NULL;
	unsigned i;

	for (i = 0; i < TGS_CLASSES_ALL; i++) {
		struct tgc_span *tail = large->supply[i].tail;

		if (tail && (!span || tail->room < span->room))
			span = tail;
	}
	return span;
}

/* Of this length more came than was needed.  Each request raises it by one: who gives back what he has just got gets less the
 * next time. */
static void lower(struct tgc_supply *demand)
{
	demand->batch -= (uint8_t)tgs_min(demand->batch, 2);
}

void tgc_idle_shrink(struct tgc_cache *large, uint64_t pages_max)
{
	bool lowered[TGS_CLASSES_ALL] = {false};
	uint64_t pages[PUT_MAX];
	size_t n;

	while (large->empty_pages > pages_max) {
		for (n = 0; n < PUT_MAX && large->empty_pages > pages_max; n++) {
			struct tgc_span *span = oldest(large);
			unsigned list = tgc_idle_list(span->n_pages);

			tgc_idle_remove(large, span);
			if (!lowered[list])
				lower(&large->supply[list]);
			lowered[list] = true;
			pages[n] = tgc_span_page(span);
			tgc_span_remove(large, span);
		}
		(void)tgc_rpc_put_spans(large->slot_id, pages, n);
	}
}

void tgc_idle_settle(struct tgc_cache *large)
{
	struct tgc_supply *all = &large->supply[0];
	uint64_t keep = share(KEEP_BYTES_MAX, KEEP_PART);
	uint64_t hold = share(HOLD_BYTES_MAX, HOLD_PART);
	uint64_t idle = large->empty_pages;
	uint32_t now;

	if (idle <= keep)
		return;
	if (idle > hold) {
		/* More than what is over, or the next free would be the next message. */
		tgc_idle_shrink(large, hold - hold / 4);
		return;
	}
	now = tgc_coarse_ms();
	if (now - all->since < HOLD_MS)
		return;
	/* The first look after a quiet time starts the second in which the least is taken. */
	if (now - all->since < 2 * HOLD_MS)
		tgc_idle_shrink(large, idle - tgs_min(all->low, idle - keep));
	all->since = now;
	all->low = (uint32_t)large->empty_pages;
}

/* A program whose objects grow never asks for their sizes again. */
uint64_t tgc_idle_most(uint64_t in_use, uint64_t n_pages)
{
	return tgs_max(tgs_max(n_pages, in_use / 8), MISSED_PAGES_MIN);
}

static void give_back_all(struct tgc_cache *large)
{
	tgc_agree(large);
	tgc_cache_drain(large);
	tgc_idle_shrink(large, 0);
	tgc_rpc_settle(large->slot_id, large->n_spans);
}

void tgc_large_trim(void)
{
	struct tgc_cache *large;
	unsigned i;

	if (!tgc_process->large)
		return;
	large = tgc_large_lock();
	if (!large)
		return;
	for (i = 0; i < TGS_CLASSES_ALL; i++)
		large->supply[i].batch = 0;
	give_back_all(large);
	/* As in tgc_return_all: a worker may have died meanwhile. */
	if (large->agreed != tgc_rpc_reconnects())
		give_back_all(large);
	tgc_large_unlock();
}
