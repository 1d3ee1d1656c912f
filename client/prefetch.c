/* prefetch.c - one request for spans that a thread has sent and does not wait for.
 *
 * The reply is read by whichever thread next waits for one of its own, so what it brings is only noted in the cache
 * (under the connection's lock) and put in its place by the cache's own thread.  One at a time for each cache.
 */
#include "client/prefetch.h"

Tgd__Request *tgc_get_spans(struct tgc_get_spans *get, uint32_t slot, unsigned class,
			    unsigned count)
{
	get->body = (Tgd__GetSpans)TGD__GET_SPANS__INIT;
	get->body.slot = slot;
	get->body.class_ = class;
	get->body.count = count;
	get->request = (Tgd__Request)TGD__REQUEST__INIT;
	get->request.body_case = TGD__REQUEST__BODY_GET_SPANS;
	get->request.get_spans = &get->body;
	return &get->request;
}

/* Under the connection's lock, in any thread. */
static void note(struct tgc_post *post, const Tgd__Reply *reply)
{
	struct tgc_prefetch *prefetch = tgs_container_of(post, struct tgc_prefetch, post);
	size_t i;

	prefetch->n = 0;
	if (!reply || reply->error != 0 || reply->body_case != TGD__REPLY__BODY_SPANS)
		return;
	for (i = 0; i < reply->spans->n_spans && i < TGC_PREFETCH_MAX; i++) {
		prefetch->grants[prefetch->n].page = reply->spans->spans[i]->page;
		prefetch->grants[prefetch->n++].zero = reply->spans->spans[i]->zero;
	}
}

void tgc_prefetch_ask(struct tgc_cache *cache, unsigned class, unsigned count)
{
	struct tgc_prefetch *prefetch = &cache->prefetch;
	struct tgc_get_spans get;

	if (prefetch->class != 0)
		return;
	prefetch->post.take = note;
	prefetch->n = 0;
	tgc_rpc_begin();
	if (tgc_rpc_post(tgc_get_spans(&get, cache->slot_id, class,
				       (unsigned)tgs_min(count, TGC_PREFETCH_MAX)),
			 &prefetch->post) == 0)
		prefetch->class = class;
	tgc_rpc_end();
}

void tgc_prefetch_settle(struct tgc_cache *cache)
{
	struct tgc_prefetch *prefetch = &cache->prefetch;
	unsigned class = prefetch->class;
	size_t i;

	if (class == 0)
		return;
	tgc_rpc_begin();
	tgc_rpc_collect(&prefetch->post);
	tgc_rpc_end();
	prefetch->class = 0;
	for (i = 0; i < prefetch->n; i++) {
		if (prefetch->grants[i].page < tgc_heap.geometry.n_pages)
			tgc_span_add(cache, prefetch->grants[i].page, class,
				     tgs_classes[class].n_pages, prefetch->grants[i].zero);
	}
}

bool tgc_prefetch_take(struct tgc_cache *cache, unsigned class)
{
	if (cache->prefetch.class != class)
		return false;
	tgc_prefetch_settle(cache);
	return cache->prefetch.n != 0;
}
