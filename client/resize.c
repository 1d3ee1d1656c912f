/* resize.c - a large object of another length, where it is.
 *
 * Its span fits, or the daemon lengthens or shortens it: a message, but no byte of the object is copied.
 */
#include <errno.h>

#include "client/cache.h"
#include "client/idle.h"
#include "client/rpc.h"

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

/* Can, and may, the pages behind the span be had?  That another span begins there the page map tells; that they lie inside of
 * one, only the daemon knows. */
static bool may_resize(uint64_t page, uint64_t have, uint64_t want)
{
	if (want > tgc_heap.geometry.n_pages - page || tgs_page_entry(&tgc_heap, page + have) != 0)
		return false;
	return tgc_pages_usable(page + have, want - have);
}

/* What grows will likely grow again, and to ask the daemon costs more than to copy some pages. */
size_t tgc_large_grown(size_t size)
{
	uint64_t n_pages = (size - 1) / TGS_PAGE_SIZE + 1;

	if (n_pages > tgc_heap.geometry.n_pages)
		return size;
	return (n_pages + tgc_idle_waste(n_pages)) << TGS_PAGE_SHIFT;
}

/* In place: when it fits without wasting too much, or when the daemon can lengthen or shorten the span where it is. */
void *tgc_large_realloc(void *p, uint64_t page, size_t size)
{
	uint64_t n_pages = size / TGS_PAGE_SIZE + (size % TGS_PAGE_SIZE != 0);
	struct tgc_cache *cache;
	struct tgc_span *span;
	uint64_t have, want;
	int r = 0;

	cache = tgc_large_lock();
	if (!cache)
		return NULL;
	if (tgs_entry_owner(tgs_page_entry(&tgc_heap, page)) != cache->slot_id) {
		tgc_large_unlock();
		return NULL;
	}
	span = tgc_span_record(page);
	have = span->n_pages;
	if (n_pages < have && have - n_pages > tgc_idle_waste(n_pages)) {
		/* What is to go is given up before we ask: the daemon may take it although its answer never comes, and
		 * then what the page map says must not be believed. */
		tgc_count(&cache->n_pages, n_pages - have);
		span->n_pages = (uint32_t)n_pages;
		atomic_fetch_or_explicit(&tgc_heap.records[page].flags, TGS_RECORD_SHORTER,
					 memory_order_relaxed);
		if (resize(cache, page, n_pages) == 0)
			atomic_fetch_and_explicit(&tgc_heap.records[page].flags,
						  ~TGS_RECORD_SHORTER, memory_order_relaxed);
	} else if (n_pages > have) {
		want = tgc_large_grown(size) >> TGS_PAGE_SHIFT;
		r = may_resize(page, have, want) ? resize(cache, page, want) : -ENOMEM;
		if (r == 0) {
			tgc_count(&cache->n_pages, want - have);
			span->n_pages = (uint32_t)want;
		}
	}
	tgc_large_unlock();
	return r == 0 ? p : NULL;
}
