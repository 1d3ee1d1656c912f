/* agree.c - after a connection was lost: which spans are ours?
 *
 * Answers may have been lost with it.  A grant that never arrived stands in the page map as ours, and we do not know of it;
 * so does a span that we gave back with a message that nobody read.  The other way round cannot be: we forget a span before
 * we give it back.  So a thread whose connection was made anew asks the daemon what its slot holds, and takes in what it
 * does not know of: as free memory, for that is what it is.  Each thread does so for its own slot, at its next call that
 * needs the daemon anyway: then none of its messages is under way.
 */
#include "client/cache.h"

#include "client/prefetch.h"
#include "client/rpc.h"

/* Asks; `each` is called for each span (or slot) of the answer.  0 or -errno. */
static int ask(uint32_t slot, uint64_t known, void (*each)(struct tgc_cache *, uint64_t),
	       struct tgc_cache *cache)
{
	Tgd__Holdings body = TGD__HOLDINGS__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	const Tgd__Reply *reply;
	uint64_t pages[TGP_SPANS_MAX];
	size_t i, n;
	int r;

	body.slot = slot;
	body.known = known;
	request.body_case = TGD__REQUEST__BODY_HOLDINGS;
	request.holdings = &body;
	do {
		r = tgc_rpc_call(&request, TGD__REPLY__BODY_HOLDINGS, &reply);
		if (r < 0)
			return r;
		if (reply->holdings->n == known)
			return 0;
		/* What is done for each may need the connection, and with it the reply's memory. */
		body.after = reply->holdings->next;
		n = tgs_min(reply->holdings->n_pages, TGP_SPANS_MAX);
		for (i = 0; i < n; i++)
			pages[i] = reply->holdings->pages[i];
		for (i = 0; i < n; i++)
			each(cache, pages[i]);
	} while (body.after != 0);
	return 0;
}

static void take_in(struct tgc_cache *cache, uint64_t page)
{
	struct tgs_span span;

	if (!tgs_span_at(&tgc_heap, page, &span) || span.page != page ||
	    span.owner != cache->slot_id || tgc_span_record(page)->place != TGC_SPAN_NONE)
		return;
	if (span.class != 0)
		(void)tgc_span_add(cache, page, span.class, false);
	else if (tgc_span_add_large(cache, page, span.n_pages, false) == 0)
		tgc_large_found(cache, tgc_span_record(page));
}

void tgc_agree(struct tgc_cache *cache)
{
	uint64_t now = tgc_rpc_reconnects();
	int r;

	if (TGS_LIKELY(cache->agreed == now))
		return;
	/* What it brings is ours and not in the books yet. */
	tgc_prefetch_settle(cache);
	tgc_rpc_begin();
	r = ask(cache->slot_id, cache->n_spans, take_in, cache);
	tgc_rpc_end();
	if (r == 0)
		cache->agreed = now;
}

/* A slot that we have no cache for: the answer to our OpenSlot was lost. */
static void close_unknown(struct tgc_cache *unused, uint64_t slot)
{
	Tgd__CloseSlot body = TGD__CLOSE_SLOT__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	struct tgc_cache *cache;

	(void)unused;
	for (cache = atomic_load_explicit(&tgc_process->all, memory_order_acquire); cache;
	     cache = cache->next_all) {
		if (cache->slot_id == slot)
			return;
	}
	body.slot = (uint32_t)slot;
	request.body_case = TGD__REQUEST__BODY_CLOSE_SLOT;
	request.close_slot = &body;
	(void)tgc_rpc_call(&request, TGD__REPLY__BODY__NOT_SET, NULL);
}

void tgc_agree_slots(void)
{
	(void)tgc_first_lost();
	(void)ask(0, UINT64_MAX, close_unknown, NULL);
}
