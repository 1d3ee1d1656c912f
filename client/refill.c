/* refill.c - when a class has no free slot at hand: from nearest to farthest.
 *
 *   1. the next unit with room of the current span, then of the other spans that the thread holds
 *   2. what other threads and processes have freed of our spans (the dirty bits say which)
 *   3. spans from the daemon, in batches that double while demand lasts
 *
 * In the other direction, spans that hold nothing are kept, up to twice the last batch, and what is above goes back to
 * the daemon in one message.  In a steady state neither happens.
 */
#include <errno.h>

#include "client/cache.h"
#include "client/rpc.h"

#define BATCH_LOG_MAX 7               /* at most 128 spans at a time ... */
#define BATCH_BYTES_MAX (UINT64_C(1) << 20) /* ... and a megabyte */
#define PUT_MAX 128u

static uint64_t span_bytes(unsigned class)
{
	return (uint64_t)tgs_classes[class].n_pages << TGS_PAGE_SHIFT;
}

static unsigned batch_size(const struct tgc_bin *bin, unsigned class)
{
	return (unsigned)tgs_max(1, tgs_min(1u << bin->batch, BATCH_BYTES_MAX / span_bytes(class)));
}

static int get_spans(struct tgc_cache *cache, unsigned class, unsigned count)
{
	Tgd__GetSpans get = TGD__GET_SPANS__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	const Tgd__Reply *reply;
	size_t i;
	int r;

	get.slot = cache->slot_id;
	get.class_ = class;
	get.count = count;
	request.body_case = TGD__REQUEST__BODY_GET_SPANS;
	request.get_spans = &get;

	tgc_rpc_begin();
	r = tgc_rpc_call(&request, TGD__REPLY__BODY_SPANS, &reply);
	for (i = 0; r == 0 && i < reply->spans->n_spans; i++) {
		const Tgd__SpanGrant *grant = reply->spans->spans[i];

		if (grant->page < tgc_heap.geometry.n_pages)
			tgc_span_add(cache, grant->page, class, tgs_classes[class].n_pages, grant->zero);
	}
	tgc_rpc_end();
	return r;
}

/* Somebody asked that we give back what we only keep: the daemon, or tg_trim in another thread. */
static void heed_requests(struct tgc_cache *cache)
{
	uint64_t pressure = atomic_load_explicit(&tgc_heap.map->trim_epoch, memory_order_relaxed);
	uint64_t trim = atomic_load_explicit(&tgc_process->trim_request, memory_order_relaxed);

	if (cache->pressure_seen == pressure && cache->trim_seen == trim)
		return;
	cache->pressure_seen = pressure;
	cache->trim_seen = trim;
	tgc_return_all(cache);
}

bool tgc_refill(struct tgc_cache *cache, unsigned class)
{
	struct tgc_bin *bin = &cache->bins[class];
	int r;

	if (tgc_bin_next(cache, class))
		return true;
	tgc_cache_drain(cache);
	if (tgc_bin_next(cache, class))
		return true;
	heed_requests(cache);
	tgc_foreign_flush(cache);
	r = get_spans(cache, class, batch_size(bin, class));
	if (r == -ENOMEM) {
		/* What we hoard may be what is missing. */
		tgc_return_all(cache);
		tgc_large_trim();
		bin->batch = 0;
		r = get_spans(cache, class, 1);
	}
	if (r < 0) {
		errno = -r;
		return false;
	}
	if (bin->batch < BATCH_LOG_MAX)
		bin->batch++;
	if (!tgc_bin_next(cache, class)) {
		errno = ENOMEM;
		return false;
	}
	return true;
}

/* Takes up to `n` empty spans out of a class and gives them back. */
static void put_empty(struct tgc_cache *cache, unsigned class, unsigned n)
{
	struct tgc_bin *bin = &cache->bins[class];
	uint64_t pages[PUT_MAX];
	size_t i;

	while (n > 0) {
		for (i = 0; i < PUT_MAX && n > 0 && bin->tail && bin->tail->used == 0; i++, n--) {
			pages[i] = tgc_span_page(bin->tail);
			tgc_span_remove(cache, bin->tail);
		}
		if (i == 0)
			return;
		(void)tgc_rpc_put_spans(cache->slot_id, pages, i);
	}
}

void tgc_return_some(struct tgc_cache *cache, unsigned class)
{
	struct tgc_bin *bin = &cache->bins[class];
	unsigned keep = 2 * batch_size(bin, class);

	if (bin->n_empty > keep)
		put_empty(cache, class, bin->n_empty - keep / 2);
}

void tgc_return_all(struct tgc_cache *cache)
{
	unsigned class;

	tgc_tiny_unload(cache);
	for (class = 1; class < TGS_CLASSES_ALL; class++) {
		tgc_bin_unload(cache, class);
		put_empty(cache, class, cache->bins[class].n_empty);
		cache->bins[class].batch = 0;
	}
}
