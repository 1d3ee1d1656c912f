/* refill.c - when a class has no free slot at hand: from nearest to farthest.
 *
 *   1. the next unit with room of the current span, then of the other spans that the thread holds
 *   2. what other threads and processes have freed of our spans (the dirty bits say which)
 *   3. a slot of a larger class that has many free (client/borrow.c)
 *   4. spans from the daemon, in batches that double while demand lasts, with one for each class that will need one soon
 *      (client/demand.c); while demand lasts, the next batch is asked for ahead of need (client/prefetch.c), and fresh memory
 *      mapped ahead of the program's faults (client/populate.c)
 *
 * In the other direction, empty spans are kept for the next rise, since a live set that swings would otherwise cost
 * messages for ever.  What goes back: what nobody has needed for a second, beyond twice the last batch; all beyond
 * that when the thread hoards more than its share of the limit; and, while other classes grow, what one keeps that nobody
 * allocates from any more, with what its hints keep from being empty.
 */
#include <errno.h>

#include "client/cache.h"
#include "client/prefetch.h"
#include "client/rpc.h"

#define BATCH_LOG_MAX    8u                  /* at most 256 spans at a time, ... */
#define BATCH_BYTES_MIN  (UINT64_C(1) << 20) /* ... a megabyte, or, up to 8, ... */
#define BATCH_BYTES_MAX  (UINT64_C(8) << 20)
#define BATCH_PART       32u /* ... this part of what the thread has */
#define BATCH_CLASS_PART 8u  /* ... but no more than this part of what it has of the class, ... */
#define BATCH_FEW \
	4u /* ... or so many: but one at first, which may be all that is ever needed, ... */
#define BATCH_FEW_PART  4u     /* ... more when there are so many times as many, ... */
#define BATCH_FEW_PAGES 1024u  /* ... or when the thread has so many pages for each */
#define AHEAD_PART      32u    /* of what there is of the class, or, in a burst, of all, or ... */
#define AHEAD_PAGES_MIN 8u     /* ... so many pages */
#define AHEAD_LATE_PART 4u     /* when so much of the last ones is left, or, ... */
#define AHEAD_AT_ONCE   16384u /* ... from so many pages on (128 MiB), at once */
#define PREFETCH_LOG_MIN \
	2u /* demand that has doubled twice may last: the next span is asked for ahead, ... */
#define PREFETCH_SPANS  8u /* ... but not while one more would be much, ... */
#define PREFETCH_BURST  3u /* ... or, in a burst, not needed */
#define PUT_MAX         128u
#define DEATHS_MAX      3u /* of workers while all is given back */
#define HOARD_MS        1000u
#define HOARD_BYTES_MAX (UINT64_C(256) << 20)
#define YIELD_PAGES_MIN 128u
#define STILL_LOOKS     4u /* of as many during the growth by an eighth */

/* So many bytes may be asked for at once. */
static uint64_t batch_bytes(const struct tgc_cache *cache)
{
	uint64_t part = (cache->n_pages << TGS_PAGE_SHIFT) / BATCH_PART;

	return tgs_min(tgs_max(part, BATCH_BYTES_MIN), BATCH_BYTES_MAX);
}

_Static_assert(1u << BATCH_LOG_MAX == TGP_SPANS_MAX, "what a request may ask for");

static unsigned batch_size(const struct tgc_cache *cache, unsigned class)
{
	uint64_t bytes = (uint64_t)tgs_classes[class].n_pages << TGS_PAGE_SHIFT;

	uint64_t n = tgs_min(1u << cache->supply[class].batch, batch_bytes(cache) / bytes);
	uint64_t have = cache->supply[class].n_spans;
	uint64_t few = tgs_max(have / BATCH_FEW_PART, cache->n_pages / BATCH_FEW_PAGES);

	few = tgs_max(tgc_demand_burst(cache, class), tgs_min(few, BATCH_FEW));
	return (unsigned)tgs_max(1, tgs_min(n, tgs_max(have / BATCH_CLASS_PART, few)));
}

static int get_spans(struct tgc_cache *cache, unsigned class, unsigned count)
{
	struct tgc_get_spans get;
	const Tgd__Reply *reply;
	Tgd__Request *request;
	int r;

	/* Again if none of those that came may be used. */
	do {
		request = tgc_get_spans(&get, cache->slot_id, class, count);
		tgc_demand_others(cache, class, &get);
		tgc_rpc_begin();
		r = tgc_rpc_call(request, TGD__REPLY__BODY_SPANS, &reply);
		if (r == 0)
			r = tgc_take_spans(cache, class, reply->spans);
		tgc_rpc_end();
		count = (unsigned)tgs_min(2 * count, TGC_PREFETCH_MAX);
	} while (r == -EADDRINUSE);
	return r;
}

/* All that the process only keeps, but for what other threads have at hand. */
static void give_up_all(struct tgc_cache *cache)
{
	tgc_return_all(cache);
	tgc_large_unload(cache);
	tgc_idle_give_back();
	tgc_large_trim();
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
	give_up_all(cache);
}

/* Takes up to `n` empty spans out of a class and gives them back.  Stops when there is no daemon: 0 or -errno. */
static int put_empty(struct tgc_cache *cache, unsigned class, uint32_t n)
{
	struct tgc_supply *supply = &cache->supply[class];
	uint64_t pages[PUT_MAX];
	size_t i;
	int r = 0;

	while (n > 0 && r != -ENOTCONN) {
		for (i = 0; i < PUT_MAX && n > 0 && supply->tail && supply->tail->used == 0;
		     i++, n--) {
			pages[i] = tgc_span_page(supply->tail);
			tgc_span_remove(cache, supply->tail);
		}
		if (i == 0)
			break;
		r = tgc_rpc_put_spans(cache->slot_id, pages, i);
	}
	return r;
}

/* Empty spans of a class beyond a batch, which it may just have asked for to grow.  One that is out of use needs none. */
static uint32_t surplus(const struct tgc_cache *cache, unsigned class)
{
	const struct tgc_supply *supply = &cache->supply[class];
	uint32_t batch = supply->still < STILL_LOOKS ? batch_size(cache, class) : 0;

	return supply->n_empty > batch ? supply->n_empty - batch : 0;
}

/* A class of which nothing was allocated while others grew by an eighth of all is out of use: its hints, each maybe
 * the only thing in a span, go back to their spans.  All this costs it, if it is used again, is that the first slots are
 * looked up anew.  `count` spans of `growing` are about to be asked for. */
static void note_still(struct tgc_cache *cache, unsigned growing, unsigned count)
{
	unsigned class;

	cache->supply[growing].still = 0;
	cache->grown_pages += (uint64_t)count * tgs_classes[growing].n_pages;
	if (cache->grown_pages < cache->n_pages / (8 * STILL_LOOKS))
		return;
	cache->grown_pages = 0;
	tgc_large_look(cache, STILL_LOOKS);
	for (class = 1; class < TGS_CLASSES_ALL; class += 1) {
		struct tgc_supply *supply = &cache->supply[class];
		const struct tgc_bin *bin = &cache->bins[class];

		if (supply->n_spans == 0 || class == growing)
			continue;
		if (bin->free != supply->seen_free || bin->address != supply->seen_address ||
		    bin->top < supply->seen_top)
			supply->still = 0;
		else if (++supply->still >= STILL_LOOKS)
			tgc_bin_unload(cache, class);
		supply->seen_free = bin->free;
		supply->seen_address = bin->address;
		supply->seen_top = bin->top;
	}
}

/* Before the heap grows for one class or a large object, others give back what they keep empty for a next rise, if that is
 * more than a part of what we hold: first those that have the most. */
void tgc_yield_empty(struct tgc_cache *cache)
{
	uint64_t most = tgs_max(cache->n_pages / 32, YIELD_PAGES_MIN);
	unsigned class, richest;
	uint64_t pages, max;

	if (cache->empty_pages <= most)
		return;
	/* Some room below the bound, or the next request would be two messages again. */
	while (cache->empty_pages > most / 2) {
		for (class = 1, richest = 0, max = 0; class < TGS_CLASSES_ALL; class += 1) {
			pages = (uint64_t)surplus(cache, class) * tgs_classes[class].n_pages;
			if (pages > max) {
				max = pages;
				richest = class;
			}
		}
		if (richest == 0 || put_empty(cache, richest, surplus(cache, richest)) == -ENOTCONN)
			break;
	}
}

/* `count` spans of the class are about to be asked for. */
static void make_room(struct tgc_cache *cache, unsigned class, unsigned count)
{
	note_still(cache, class, count);
	tgc_yield_empty(cache);
}

/* From the daemon: what was asked for ahead of need, or now.  0 or -errno. */
static int fetch(struct tgc_cache *cache, unsigned class)
{
	struct tgc_supply *supply = &cache->supply[class];
	unsigned n;
	int r;

	tgc_demand_note(cache, class);
	if (tgc_prefetch_take(cache, class) && supply->head) {
		if (supply->batch < BATCH_LOG_MAX)
			supply->batch++;
		return 0;
	}
	if (supply->n_spans == 0) {
		tgc_first_of_class(cache, class);
		if (supply->head)
			return 0;
	}
	n = batch_size(cache, class);
	make_room(cache, class, n);
	r = get_spans(cache, class, n);
	if (r == -ENOMEM) {
		/* What we hoard may be what is missing. */
		give_up_all(cache);
		supply->batch = 0;
		return get_spans(cache, class, 1);
	}
	if (r == 0 && supply->batch < BATCH_LOG_MAX)
		supply->batch++;
	return r;
}

/* From what we hold: spans with room, spans that others have freed in. */
static bool at_hand(struct tgc_cache *cache, unsigned class)
{
	if (tgc_bin_next(cache, class))
		return true;
	return tgc_cache_drain(cache) && tgc_bin_next(cache, class);
}

/* Before the daemon is asked.  True: now there is something at hand. */
static bool settle_first(struct tgc_cache *cache, unsigned class)
{
	heed_requests(cache);
	tgc_foreign_flush(cache);
	tgc_agree(cache);
	return tgc_bin_next(cache, class);
}

/* So many are asked for ahead: what is not needed then lies about. */
static unsigned ahead_size(const struct tgc_cache *cache, unsigned class)
{
	uint64_t part = cache->supply[class].n_spans / AHEAD_PART;
	uint64_t most =
		tgs_max(cache->n_pages / AHEAD_PART, AHEAD_PAGES_MIN) / tgs_classes[class].n_pages;

	/* Of a class in a burst as if all were of that class. */
	part = tgs_max(part, tgs_min(tgc_demand_burst(cache, class), most));
	return (unsigned)tgs_max(1, tgs_min(batch_size(cache, class), part));
}

/* Is it time to ask for the next batch?  When the last span is begun; or, while the spans at hand are new, when a quarter of
 * them is left, so that the daemon makes the next while these are used, if both are little against what the thread has.  Where
 * the heap is large, at once: its growth waits for memory to be made. */
static bool wants_more(const struct tgc_cache *cache, unsigned class)
{
	const struct tgc_supply *supply = &cache->supply[class];
	unsigned n = ahead_size(cache, class), left;

	if (!supply->head)
		return true;
	left = cache->n_pages < AHEAD_AT_ONCE ? n / AHEAD_LATE_PART : n;
	return supply->head->fresh && supply->n_empty < left &&
	       (uint64_t)n * tgs_classes[class].n_pages <= cache->n_pages / (2 * BATCH_PART);
}

/* Spans of a class that has nothing at hand. */
static bool get_more(struct tgc_cache *cache, unsigned class)
{
	struct tgc_supply *supply = &cache->supply[class];
	int r;

	if (settle_first(cache, class))
		return true;
	/* It goes up and down, and does not just grow; or it took what others had just got to grow. */
	if (supply->borrowed != 0 && !tgc_demand_lasts(cache, class))
		supply->batch = 0;
	tgc_borrow_reset(cache, class);
	r = fetch(cache, class);
	if (r == 0 && !tgc_bin_next(cache, class))
		r = -ENOMEM;
	if (r < 0)
		errno = tgc_alloc_errno(r);
	return r == 0;
}

/* A span has become current, maybe: the next may be asked for ahead, if this one is new.  One that has been current before
 * shows that the class does not only grow. */
static void begin(struct tgc_cache *cache, unsigned class, const struct tgc_span *before)
{
	struct tgc_supply *supply = &cache->supply[class];
	struct tgc_span *current = supply->current;
	uint32_t n_min;

	if (current == before)
		return;
	if (current->begun) {
		if (supply->batch > 0)
			supply->batch--;
		return;
	}
	current->begun = true;
	n_min = tgc_demand_lasts(cache, class) ? PREFETCH_BURST : PREFETCH_SPANS;
	if (supply->batch >= PREFETCH_LOG_MIN && supply->n_spans >= n_min &&
	    wants_more(cache, class) && !tgc_prefetch_asked(cache, class)) {
		make_room(cache, class, ahead_size(cache, class));
		tgc_prefetch_ask(cache, class, ahead_size(cache, class));
	}
	if (current->fresh)
		tgc_populate(tgc_span_page(current), tgs_classes[class].n_pages);
	current->fresh = false;
}

bool tgc_refill(struct tgc_cache *cache, unsigned class)
{
	const struct tgc_span *before = cache->supply[class].current;

	if (!at_hand(cache, class) && !get_more(cache, class))
		return false;
	begin(cache, class, before);
	return true;
}

/* What was asked for ahead when the class grew, which it does no more. */
static bool take_asked(struct tgc_cache *cache, unsigned class)
{
	if (!tgc_prefetch_take(cache, class) || !tgc_bin_next(cache, class))
		return false;
	cache->supply[class].batch = 0;
	return true;
}

unsigned tgc_refill_or_borrow(struct tgc_cache *cache, unsigned class)
{
	const struct tgc_span *before = cache->supply[class].current;

	if (!at_hand(cache, class)) {
		unsigned from = tgc_borrow(cache, class);

		if (from != 0 && !take_asked(cache, class))
			return from;
		if (from == 0 && !get_more(cache, class))
			return 0;
	}
	begin(cache, class, before);
	return class;
}

static uint64_t hoard_pages_max(void)
{
	uint64_t limit = atomic_load_explicit(&tgc_heap.map->limit_bytes, memory_order_relaxed);

	return tgs_min(HOARD_BYTES_MAX, limit / 16) / TGS_PAGE_SIZE;
}

void tgc_return_some(struct tgc_cache *cache, unsigned class)
{
	struct tgc_supply *supply = &cache->supply[class];
	uint64_t hoard = hoard_pages_max();
	bool much = cache->empty_pages > hoard;
	uint32_t keep, over, now = 0;

	/* Whatever costs least is asked first: spans become empty all the time. */
	if (!much) {
		now = tgc_coarse_ms();
		if (now - supply->since < HOARD_MS)
			return;
	}
	keep = 2 * batch_size(cache, class);
	if (supply->n_empty <= keep)
		return;
	over = supply->n_empty - keep;
	if (much) {
		/* A quarter below the bound, or the next span that becomes empty would be the next message. */
		hoard = cache->empty_pages - (hoard - hoard / 4);
		(void)put_empty(
			cache, class,
			(uint32_t)tgs_min(over + keep / 2, hoard / tgs_classes[class].n_pages + 1));
		return;
	}
	/* The first look after a quiet time starts the second in which the least is taken. */
	if (now - supply->since < 2 * HOARD_MS)
		(void)put_empty(cache, class, (uint32_t)tgs_min(supply->low, over));
	supply->since = now;
	supply->low = supply->n_empty;
}

static void give_back_all(struct tgc_cache *cache)
{
	unsigned class;

	tgc_prefetch_settle(cache);
	tgc_agree(cache);
	tgc_tiny_unload(cache);
	for (class = 1; class < TGS_CLASSES_ALL; class += 1) {
		tgc_bin_unload(cache, class);
		tgc_hints_reset(cache, class);
		cache->supply[class].batch = 0;
		/* Each would wait for the daemon again. */
		if (put_empty(cache, class, cache->supply[class].n_empty) == -ENOTCONN)
			break;
	}
	/* Of what was at hand, that of other threads. */
	tgc_foreign_flush(cache);
	tgc_rpc_settle(cache->slot_id, cache->n_spans);
}

void tgc_return_all(struct tgc_cache *cache)
{
	unsigned deaths = 0;

	give_back_all(cache);
	/* A worker that died meanwhile may have read only part of a message: what it left is found by agreeing; and so may the
	 * next one. */
	while (cache->agreed != tgc_rpc_reconnects() && deaths++ < DEATHS_MAX)
		give_back_all(cache);
}
