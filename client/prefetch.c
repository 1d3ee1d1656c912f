/* prefetch.c - requests for spans that a thread has sent and does not wait for.
 *
 * The reply is read by whichever thread next waits for one of its own, so what it brings is only noted in the cache
 * (under the connection's lock) and put in its place by the cache's own thread.  One at a time for each class, and some for
 * each cache.
 */
#include "client/prefetch.h"

Tgd__Request *tgc_get_spans(struct tgc_get_spans *get, uint32_t slot, unsigned class,
			    unsigned count)
{
	get->body = (Tgd__GetSpans)TGD__GET_SPANS__INIT;
	get->body.slot = slot;
	get->body.class_ = class;
	get->body.count = count;
	get->body.also = get->also;
	get->request = (Tgd__Request)TGD__REQUEST__INIT;
	get->request.body_case = TGD__REQUEST__BODY_GET_SPANS;
	get->request.get_spans = &get->body;
	return &get->request;
}

void tgc_get_spans_also(struct tgc_get_spans *get, unsigned class)
{
	get->also[get->body.n_also++] = class;
}

int tgc_take_spans(struct tgc_cache *cache, unsigned class, const Tgd__SpansReply *reply)
{
	int r = -EPROTO;
	size_t i;

	for (i = 0; i < reply->n_spans; i++) {
		const Tgd__SpanGrant *grant = reply->spans[i];
		unsigned of = grant->class_ != 0 ? grant->class_ : class;
		int taken = tgc_span_add(cache, grant->page, of, grant->zero);

		if (of == class && r != 0 && taken != -EPROTO)
			r = taken;
	}
	return r;
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
		const Tgd__SpanGrant *grant = reply->spans->spans[i];

		prefetch->grants[prefetch->n++] =
			(uint32_t)(2 * grant->page + (grant->zero ? 1 : 0));
	}
}

/* What was asked for of a class.  NULL: nothing. */
static struct tgc_prefetch *find(struct tgc_cache *cache, unsigned class)
{
	unsigned i;

	for (i = 0; i < TGC_PREFETCHES; i++) {
		if (cache->prefetched[i] == class)
			return &cache->prefetch[i];
	}
	return NULL;
}

/* Waits for it, if need be. */
static void take(struct tgc_cache *cache, struct tgc_prefetch *prefetch)
{
	uint8_t *asked = &cache->prefetched[prefetch - cache->prefetch];
	unsigned class = *asked;
	size_t i;

	tgc_rpc_begin();
	tgc_rpc_collect(&prefetch->post);
	tgc_rpc_end();
	*asked = 0;
	for (i = 0; i < prefetch->n; i++)
		(void)tgc_span_add(cache, prefetch->grants[i] / 2, class, prefetch->grants[i] % 2);
}

/* The place of what was asked for longest ago: most likely it has come, and nobody needed it. */
static struct tgc_prefetch *make_place(struct tgc_cache *cache)
{
	unsigned i = cache->n_prefetches++ % TGC_PREFETCHES;

	if (cache->prefetched[i] != 0)
		take(cache, &cache->prefetch[i]);
	return &cache->prefetch[i];
}

bool tgc_prefetch_asked(struct tgc_cache *cache, unsigned class)
{
	return find(cache, class) != NULL;
}

void tgc_prefetch_ask(struct tgc_cache *cache, unsigned class, unsigned count)
{
	struct tgc_prefetch *prefetch;
	struct tgc_get_spans get;

	prefetch = make_place(cache);
	prefetch->post.take = note;
	prefetch->n = 0;
	tgc_rpc_begin();
	if (tgc_rpc_post(tgc_get_spans(&get, cache->slot_id, class,
				       (unsigned)tgs_min(count, TGC_PREFETCH_MAX)),
			 &prefetch->post) == 0)
		cache->prefetched[prefetch - cache->prefetch] = (uint8_t) class;
	tgc_rpc_end();
}

void tgc_prefetch_settle(struct tgc_cache *cache)
{
	unsigned i;

	for (i = 0; i < TGC_PREFETCHES; i++) {
		if (cache->prefetched[i] != 0)
			take(cache, &cache->prefetch[i]);
	}
}

bool tgc_prefetch_take(struct tgc_cache *cache, unsigned class)
{
	struct tgc_prefetch *prefetch = find(cache, class);

	if (!prefetch)
		return false;
	take(cache, prefetch);
	return prefetch->n != 0;
}
