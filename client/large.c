/* large.c - objects over 32 KiB: a span each, held by one slot for the whole process, under a lock of the process.
 *
 * A freed large span is kept for the next object of about its size, most recently freed first; beyond a number and an
 * amount, those freed longest ago go back to the daemon.  Under the lock only: `tgc_process->large`, a cache like a
 * thread's whose class 0 lists the idle spans (head: freed last).
 */
#include <errno.h>
#include <string.h>

#include "client/cache.h"
#include "client/rpc.h"
#include "shm/remote.h"

#define IDLE_SPANS_MAX 64u
#define IDLE_PAGES_MIN 64u

static uint64_t idle_pages_max(void)
{
	uint64_t limit = atomic_load_explicit(&tgc_heap.map->limit_bytes, memory_order_relaxed);

	return tgs_min(UINT64_C(64) << 20, limit / 16) / TGS_PAGE_SIZE;
}

static uint64_t
	idle_pages; /* in class 0's list; under large_lock; means nothing while there is no large cache */

/* How much may lie idle when a span of n_pages must come from the daemon, since none of them fits.  A program whose objects
 * grow never asks for their sizes again. */
static uint64_t idle_pages_at_miss(const struct tgc_cache *cache, uint64_t n_pages)
{
	uint64_t in_use = cache->n_pages - idle_pages;

	return tgs_min(idle_pages_max(), tgs_max(tgs_max(n_pages, in_use / 8), IDLE_PAGES_MIN));
}

static struct tgc_cache *lock_large(void)
{
	if (!tgc_enter())
		return NULL;
	pthread_mutex_lock(&tgc_process->large_lock);
	if (!tgc_process->large) {
		tgc_process->large = tgc_cache_open(NULL);
		idle_pages = 0;
	}
	if (!tgc_process->large)
		pthread_mutex_unlock(&tgc_process->large_lock);
	return tgc_process->large;
}

static void unlock_large(void)
{
	pthread_mutex_unlock(&tgc_process->large_lock);
}

static void idle_add(struct tgc_cache *cache, struct tgc_span *span)
{
	struct tgc_supply *idle = &cache->supply[0];

	span->place = TGC_SPAN_LARGE_IDLE;
	span->prev = NULL;
	span->next = idle->head;
	if (idle->head)
		idle->head->prev = span;
	else
		idle->tail = span;
	idle->head = span;
	idle->n_empty++;
	idle_pages += span->n_pages;
}

static void idle_remove(struct tgc_cache *cache, struct tgc_span *span)
{
	struct tgc_supply *idle = &cache->supply[0];

	if (span->prev)
		span->prev->next = span->next;
	else
		idle->head = span->next;
	if (span->next)
		span->next->prev = span->prev;
	else
		idle->tail = span->prev;
	span->next = span->prev = NULL;
	span->place = TGC_SPAN_LARGE;
	idle->n_empty--;
	idle_pages -= span->n_pages;
}

/* Gives idle spans back, oldest first, until the rest is within bounds. */
static void idle_shrink(struct tgc_cache *cache, unsigned spans_max, uint64_t pages_max)
{
	struct tgc_supply *idle = &cache->supply[0];

	while (idle->tail && (idle->n_empty > spans_max || idle_pages > pages_max)) {
		uint64_t pages[32];
		size_t n = 0;

		while (idle->tail && n < TGS_ARRAY_LEN(pages) &&
		       (idle->n_empty > spans_max || idle_pages > pages_max)) {
			struct tgc_span *span = idle->tail;

			idle_remove(cache, span);
			pages[n++] = tgc_span_page(span);
			tgc_span_remove(cache, span);
		}
		(void)tgc_rpc_put_spans(cache->slot_id, pages, n);
	}
}

void tgc_large_harvested(struct tgc_span *span)
{
	if (span->place == TGC_SPAN_LARGE)
		idle_add(tgc_process->large, span);
}

void tgc_large_found(struct tgc_cache *cache, struct tgc_span *span)
{
	idle_add(cache, span);
}

/* The smallest idle span that fits without wasting more than a quarter; of equals the one freed last. */
static struct tgc_span *idle_find(struct tgc_cache *cache, uint64_t n_pages, uint64_t align_pages)
{
	struct tgc_span *best = NULL, *span;

	for (span = cache->supply[0].head; span; span = span->next) {
		if (span->n_pages < n_pages || span->n_pages - n_pages > n_pages / 4 ||
		    ((uintptr_t)tgs_page_address(&tgc_heap, tgc_span_page(span)) &
		     (align_pages * TGS_PAGE_SIZE - 1)) != 0)
			continue;
		if (!best || span->n_pages < best->n_pages)
			best = span;
		if (best->n_pages == n_pages)
			break;
	}
	return best;
}

/* *ret_span is NULL if the span that came may not be used. */
static int get_large(struct tgc_cache *cache, uint64_t n_pages, uint64_t align_pages,
		     struct tgc_span **ret)
{
	Tgd__GetLarge get = TGD__GET_LARGE__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	const Tgd__Reply *reply;
	int r;

	get.slot = cache->slot_id;
	get.n_pages = n_pages;
	get.align_pages = align_pages;
	request.body_case = TGD__REQUEST__BODY_GET_LARGE;
	request.get_large = &get;

	tgc_rpc_begin();
	r = tgc_rpc_call(&request, TGD__REPLY__BODY_SPANS, &reply);
	if (r == 0 && (reply->spans->n_spans != 1 ||
		       reply->spans->spans[0]->page >= tgc_heap.geometry.n_pages))
		r = -EPROTO;
	if (r == 0) {
		uint64_t page = reply->spans->spans[0]->page;
		bool usable = tgc_span_add(cache, page, 0, n_pages, reply->spans->spans[0]->zero);

		*ret = usable ? tgc_span_record(page) : NULL;
	}
	tgc_rpc_end();
	return r;
}

static int get_usable_large(struct tgc_cache *cache, uint64_t n_pages, uint64_t align_pages,
			    struct tgc_span **ret)
{
	int r;

	do
		r = get_large(cache, n_pages, align_pages, ret);
	while (r == 0 && !*ret);
	return r;
}

static int large_span(struct tgc_cache *cache, uint64_t n_pages, uint64_t align_pages,
		      struct tgc_span **ret)
{
	struct tgc_span *span = idle_find(cache, n_pages, align_pages);
	int r;

	if (!span) {
		tgc_cache_drain(cache);
		span = idle_find(cache, n_pages, align_pages);
	}
	if (span) {
		idle_remove(cache, span);
		*ret = span;
		return 0;
	}
	tgc_agree(cache);
	/* Some room below the bound, or each miss would give one back. */
	if (idle_pages > idle_pages_at_miss(cache, n_pages))
		idle_shrink(cache, IDLE_SPANS_MAX, idle_pages_at_miss(cache, n_pages) / 2);
	r = get_usable_large(cache, n_pages, align_pages, ret);
	if (r != -ENOMEM)
		return r;
	/* What we hoard may be what is missing. */
	idle_shrink(cache, 0, 0);
	if (tgc_cache->slot_id != 0)
		tgc_return_all(tgc_cache);
	tgc_idle_give_back();
	return get_usable_large(cache, n_pages, align_pages, ret);
}

void *tgc_large_alloc(size_t size, size_t align, bool *ret_zero)
{
	uint64_t n_pages = size / TGS_PAGE_SIZE + (size % TGS_PAGE_SIZE != 0);
	uint64_t align_pages = align > TGS_PAGE_SIZE ? align / TGS_PAGE_SIZE : 1;
	struct tgc_cache *cache;
	struct tgc_span *span;
	uint64_t page;
	int r;

	cache = lock_large();
	if (!cache)
		return NULL;
	n_pages += n_pages == 0;
	if (n_pages > tgc_heap.geometry.n_pages || align_pages > tgc_heap.geometry.n_pages) {
		unlock_large();
		errno = ENOMEM;
		return NULL;
	}
	r = large_span(cache, n_pages, align_pages, &span);
	if (r < 0) {
		unlock_large();
		errno = tgc_alloc_errno(r);
		return NULL;
	}
	page = tgc_span_page(span);
	if (ret_zero)
		*ret_zero = span->zero != 0;
	span->zero = 0;
	atomic_store_explicit(&tgc_heap.records[page].unit.taken, 1, memory_order_release);
	unlock_large();
	return tgs_page_address(&tgc_heap, page);
}

bool tgc_large_free(void *p, uint64_t page)
{
	struct tgs_unit *unit = &tgc_heap.records[page].unit;
	struct tgc_cache *cache = lock_large();
	bool ok = false;

	if (!cache)
		return true; /* no daemon: the object stays */
	if (tgc_span_record(page)->place == TGC_SPAN_LARGE &&
	    p == tgs_page_address(&tgc_heap, page) &&
	    atomic_load_explicit(&unit->taken, memory_order_relaxed) == 1 &&
	    !(atomic_load_explicit(&unit->remote[0], memory_order_relaxed) & 1)) {
		tgc_links_end(page, p, (size_t)tgc_span_record(page)->n_pages << TGS_PAGE_SHIFT);
		atomic_store_explicit(&unit->published, 0, memory_order_relaxed);
		atomic_store_explicit(&unit->taken, 0, memory_order_release);
		idle_add(cache, tgc_span_record(page));
		idle_shrink(cache, IDLE_SPANS_MAX, idle_pages_max());
		ok = true;
	}
	unlock_large();
	return ok;
}

static int resize(struct tgc_cache *cache, uint64_t page, uint64_t n_pages)
{
	Tgd__Resize body = TGD__RESIZE__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	const Tgd__Reply *reply;
	int r;

	body.slot = cache->slot_id;
	body.page = page;
	body.n_pages = n_pages;
	request.body_case = TGD__REQUEST__BODY_RESIZE;
	request.resize = &body;

	tgc_rpc_begin();
	r = tgc_rpc_call(&request, TGD__REPLY__BODY_SPANS, &reply);
	tgc_rpc_end();
	return r;
}

/* Can, and may, the pages behind the span be had? */
static bool may_resize(uint64_t page, uint64_t have, uint64_t want)
{
	if (want > tgc_heap.geometry.n_pages)
		return false;
	return !tgc_pages_usable || tgc_pages_usable(page + have, want - have);
}

/* In place: when it fits without wasting a quarter, or when the daemon can lengthen or shorten the span where it is.
 * One that grows gets an eighth more than it asked for, if it can be had, since it will likely grow again. */
void *tgc_large_realloc(void *p, uint64_t page, size_t size)
{
	uint64_t n_pages = size / TGS_PAGE_SIZE + (size % TGS_PAGE_SIZE != 0);
	struct tgc_cache *cache;
	struct tgc_span *span;
	uint64_t have, want;
	int r = 0;

	cache = lock_large();
	if (!cache)
		return NULL;
	if (tgs_entry_owner(tgs_page_entry(&tgc_heap, page)) != cache->slot_id) {
		unlock_large();
		return NULL;
	}
	span = tgc_span_record(page);
	have = span->n_pages;
	if (n_pages < have && have - n_pages > n_pages / 4) {
		/* What is to go is given up before we ask: the daemon may take it although its answer never comes. */
		tgc_count(&cache->n_pages, n_pages - have);
		span->n_pages = (uint32_t)n_pages;
		(void)resize(cache, page, n_pages);
	} else if (n_pages > have) {
		want = n_pages;
		if (n_pages > 16 && n_pages < UINT64_C(1) << 28)
			want += n_pages / 8;
		r = may_resize(page, have, want) ? resize(cache, page, want) : -ENOMEM;
		if (r < 0 && want != n_pages) {
			want = n_pages;
			r = resize(cache, page, want);
		}
		if (r == 0) {
			tgc_count(&cache->n_pages, want - have);
			span->n_pages = (uint32_t)want;
		}
	}
	unlock_large();
	return r == 0 ? p : NULL;
}

void tgc_large_trim(void)
{
	struct tgc_cache *cache;

	if (!tgc_process->large)
		return;
	cache = lock_large();
	if (!cache)
		return;
	tgc_agree(cache);
	tgc_cache_drain(cache);
	idle_shrink(cache, 0, 0);
	if (cache->agreed != tgc_rpc_reconnects()) {
		/* As in tgc_return_all: a worker has died meanwhile. */
		tgc_agree(cache);
		idle_shrink(cache, 0, 0);
	}
	unlock_large();
}

void tgc_large_count(struct tg_stats *stats)
{
	if (!tgc_process->large || !lock_large())
		return;
	stats->cached_bytes += idle_pages * TGS_PAGE_SIZE;
	unlock_large();
}
