/* large.c - objects over 32 KiB: a span each, held by one slot for the whole process.
 *
 * Any thread of the process may free any of them: what tells it that it was the one is the exchange of the taken byte.  The
 * span then becomes one of the thread's hints, and the thread's next object of about its length takes it from there: no
 * lock, no message.  What is too much for the hints, published, or of a thread that has none goes the long way, under a
 * lock of the process (never in shared memory), to the spans that the process keeps (client/idle.c), and from there to the
 * daemon.  `tgc_process->large`, under the lock only, is a cache like a thread's, whose lists hold those.
 *
 * Hints and idle spans are private and decide nothing: their taken bytes are clear, a second free of one shows as any
 * double free, and what a killed process had of them is free.
 */
#include <errno.h>
#include <string.h>
#include <sys/single_threaded.h>

#include "client/cache.h"
#include "client/idle.h"
#include "client/rpc.h"
#include "shm/remote.h"

#define HINT_BYTES_MAX      (UINT64_C(32) << 20) /* of one thread; ... */
#define POPULATE_PAGES_MAX  4096u /* what is longer does not come cleared (daemon/backing.c) */
#define STILL_PAGES_MIN     32u
#define YIELD_PART          8u /* of what the thread has: so much of small classes may lie empty */
#define ALL_HINTS_BYTES_MAX (UINT64_C(256) << 20) /* of all together, and an eighth of the limit */

struct tgc_cache *tgc_large_lock(void)
{
	if (!tgc_enter())
		return NULL;
	pthread_mutex_lock(&tgc_process->large_lock);
	if (!tgc_process->large)
		tgc_process->large = tgc_cache_open(NULL, false);
	if (!tgc_process->large)
		pthread_mutex_unlock(&tgc_process->large_lock);
	return tgc_process->large;
}

void tgc_large_unlock(void)
{
	pthread_mutex_unlock(&tgc_process->large_lock);
}

static inline struct tgs_record *record_of(uint64_t page)
{
	return &tgc_heap.records[page];
}

static struct tgc_span *span_of(const struct tgs_record *record)
{
	return tgc_span_record((uint64_t)(record - tgc_heap.records));
}

/* ---- hints ---- */

/* The thread's share of what hints may hold: a quarter of what the others have left.  Under the lock; `large->large` counts
 * what is shared out. */
static void open_hints(struct tgc_cache *large, struct tgc_cache *cache)
{
	struct tgc_large_hints *hints = &cache->large;
	uint64_t limit = atomic_load_explicit(&tgc_heap.map->limit_bytes, memory_order_relaxed);
	uint64_t left = tgs_min(ALL_HINTS_BYTES_MAX, limit / 8) / TGS_PAGE_SIZE;

	if (hints->n_max != 0 || cache->slot_id == 0)
		return;
	left -= tgs_min(left, large->large.n_pages_max);
	hints->n_pages_max = tgs_min(HINT_BYTES_MAX / TGS_PAGE_SIZE, left / 4);
	large->large.n_pages_max += hints->n_pages_max;
	hints->n_max = TGC_LARGE_HINTS_MAX;
	hints->entry = tgs_entry_make(0, large->slot_id, 0, 0);
}

static inline struct tgc_large_hint *last_hint(struct tgc_large_hints *hints)
{
	struct tgc_large_hint *last =
		&hints->hint[atomic_load_explicit(&hints->n, memory_order_relaxed)];

	TGC_HIDE(last);
	return last;
}

/* Behind the last one.  `sum`: of the pages of all, with it. */
static inline void push_hint(struct tgc_large_hints *hints, struct tgc_large_hint *last, void *p,
			     struct tgs_record *record, uint64_t n_pages, uint64_t sum)
{
	last[1].p = p;
	last[1].record = record;
	last[1].n_pages = n_pages;
	atomic_store_explicit(&last[1].sum, sum, memory_order_relaxed);
	atomic_store_explicit(&hints->n, atomic_load_explicit(&hints->n, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

static inline uint64_t sum_of(const struct tgc_large_hints *hints)
{
	uint32_t n = atomic_load_explicit(&hints->n, memory_order_relaxed);

	return atomic_load_explicit(&hints->hint[n].sum, memory_order_relaxed);
}

uint64_t tgc_large_hinted_pages(const struct tgc_cache *cache)
{
	return sum_of(&cache->large);
}

/* The `n` hints from number `first` on are no more. */
static void drop_hints(struct tgc_large_hints *hints, uint32_t first, uint32_t n)
{
	uint32_t end = hints->n - n, i;

	for (i = first; i <= end; i++) {
		struct tgc_large_hint *hint = &hints->hint[i], *from = &hints->hint[i + n];

		hint->p = from->p;
		hint->record = from->record;
		hint->n_pages = from->n_pages;
		hint->sum = hints->hint[i - 1].sum + from->n_pages;
	}
	hints->n = end;
}

/* So many of the oldest hints become idle spans.  Under the lock. */
static void spill_hints(struct tgc_cache *large, struct tgc_large_hints *hints, uint32_t n)
{
	uint32_t i;

	for (i = 1; i <= n; i++)
		tgc_idle_add(large, span_of(hints->hint[i].record));
	drop_hints(hints, 1, n);
}

/* Makes room for one more of so many pages: not just for this one, or the next would come here, too. */
static void make_room(struct tgc_cache *large, struct tgc_large_hints *hints, uint64_t n_pages)
{
	uint64_t sum = sum_of(hints);
	uint32_t n = hints->n / 2;

	if (hints->n < hints->n_max && sum + n_pages <= hints->n_pages_max)
		return;
	while (n < hints->n && sum - hints->hint[n].sum + n_pages > hints->n_pages_max)
		n++;
	spill_hints(large, hints, n);
}

static void close_hints(struct tgc_cache *large, struct tgc_large_hints *hints)
{
	spill_hints(large, hints, hints->n);
	large->large.n_pages_max -= hints->n_pages_max;
	*hints = (struct tgc_large_hints){.n = 0};
}

void tgc_large_unload(struct tgc_cache *cache)
{
	struct tgc_cache *large;

	if (cache->large.n_max == 0)
		return;
	large = tgc_large_lock();
	if (!large)
		return;
	close_hints(large, &cache->large);
	tgc_idle_settle(large);
	tgc_large_unlock();
}

void tgc_large_look(struct tgc_cache *cache, uint32_t n_looks)
{
	struct tgc_large_hints *hints = &cache->large;
	struct tgc_cache *large = tgc_process->large;
	uint64_t idle;

	if (hints->n_max == 0)
		return;
	idle = sum_of(hints) + atomic_load_explicit(&large->empty_pages, memory_order_relaxed);
	hints->still = idle == hints->seen ? hints->still + 1 : 0;
	hints->seen = idle;
	if (hints->still < n_looks || idle <= STILL_PAGES_MIN)
		return;
	large = tgc_large_lock();
	if (!large)
		return;
	spill_hints(large, hints, hints->n);
	tgc_idle_shrink(large, STILL_PAGES_MIN);
	tgc_large_unlock();
}

static void push_span(struct tgc_large_hints *hints, const struct tgc_span *span)
{
	uint64_t page = tgc_span_page(span);

	push_hint(hints, last_hint(hints), tgs_page_address(&tgc_heap, page), record_of(page),
		  span->n_pages, sum_of(hints) + span->n_pages);
}

/* A span that holds nothing any more is kept: by the thread if it can.  Under the lock. */
static void keep(struct tgc_cache *large, struct tgc_cache *cache, struct tgc_span *span)
{
	struct tgc_large_hints *hints = &cache->large;

	open_hints(large, cache);
	if (span->n_pages > hints->n_pages_max) {
		tgc_idle_add(large, span);
		return;
	}
	make_room(large, hints, span->n_pages);
	push_span(hints, span);
}

void tgc_large_harvested(struct tgc_span *span)
{
	if (span->place == TGC_SPAN_LARGE)
		tgc_idle_add(tgc_process->large, span);
}

void tgc_large_found(struct tgc_cache *cache, struct tgc_span *span)
{
	tgc_idle_add(cache, span);
}

/* ---- malloc ---- */

/* None fits.  Most of what is idle goes back then, this thread's hints first of all. */
static void give_back_at_miss(struct tgc_cache *large, uint64_t n_pages)
{
	struct tgc_large_hints *hints = &tgc_cache->large;
	uint64_t sum = sum_of(hints), idle = large->empty_pages + sum;
	uint64_t most = tgc_idle_most(large->n_pages - idle, n_pages);
	uint32_t n = 0;

	if (idle <= most)
		return;
	/* Some room below the bound, or each miss would give one back. */
	while (n < hints->n && sum - hints->hint[n].sum > most / 2)
		n++;
	spill_hints(large, hints, n);
	tgc_idle_shrink(large, most / 2 - sum_of(hints));
}

static int large_span(struct tgc_cache *large, uint64_t n_pages, uint64_t align_pages,
		      struct tgc_span **ret)
{
	struct tgc_span *span = tgc_idle_find(large, n_pages, align_pages);
	int r;

	if (!span) {
		tgc_cache_drain(large);
		span = tgc_idle_find(large, n_pages, align_pages);
	}
	if (span) {
		tgc_idle_remove(large, span);
		*ret = span;
		return 0;
	}
	tgc_agree(large);
	tgc_idle_settle(large);
	give_back_at_miss(large, n_pages);
	if (tgc_cache->empty_pages > tgc_cache->n_pages / YIELD_PART)
		tgc_yield_empty(tgc_cache);
	r = tgc_large_get(large, n_pages, align_pages, ret);
	if (r != -ENOMEM)
		return r;
	/* What we hoard may be what is missing. */
	if (tgc_cache->slot_id != 0) {
		close_hints(large, &tgc_cache->large);
		tgc_return_all(tgc_cache);
	}
	tgc_idle_shrink(large, 0);
	tgc_idle_give_back();
	return tgc_large_get(large, n_pages, align_pages, ret);
}

/* Who had no hint, and was helped by an idle span, will most likely need more of its length. */
static void take_more(struct tgc_cache *large, struct tgc_large_hints *hints, uint64_t n_pages)
{
	unsigned n = hints->n_max / 4;
	struct tgc_span *span;

	while (n-- > 0 && hints->n < hints->n_max &&
	       sum_of(hints) + 2 * n_pages <= hints->n_pages_max / 2) {
		span = tgc_idle_find(large, n_pages, 1);
		if (!span || span->zero)
			return;
		tgc_idle_remove(large, span);
		push_span(hints, span);
	}
}

static void *alloc_of_process(uint64_t n_pages, uint64_t align_pages, bool *ret_zero)
{
	struct tgc_cache *large;
	struct tgc_span *span;
	uint64_t page;
	bool populate;
	int r;

	large = tgc_large_lock();
	if (!large)
		return NULL;
	r = large_span(large, n_pages, align_pages, &span);
	if (r < 0) {
		tgc_large_unlock();
		errno = tgc_alloc_errno(r);
		return NULL;
	}
	open_hints(large, tgc_cache);
	take_more(large, &tgc_cache->large, span->n_pages);
	if (ret_zero)
		*ret_zero = span->zero != 0;
	populate = span->fresh && span->n_pages <= POPULATE_PAGES_MAX;
	span->zero = 0;
	span->fresh = false;
	page = tgc_span_page(span);
	atomic_store_explicit(&record_of(page)->taken[0], TGS_TAKEN, memory_order_release);
	tgc_large_unlock();
	if (populate)
		tgc_populate(page, n_pages);
	return tgs_page_address(&tgc_heap, page);
}

static void *alloc_slow(uint64_t n_pages, uint64_t align_pages, bool *ret_zero)
{
	void *p;

	/* A thread that has large objects has use for hints; without a slot it goes without. */
	if (tgc_cache->slot_id == 0)
		(void)tgc_cache_get();
	p = alloc_of_process(n_pages, align_pages, ret_zero);
	tgc_cache_return_late();
	return p;
}

static inline void *use(const struct tgc_large_hint *hint)
{
	void *p = hint->p;

	atomic_store_explicit(&hint->record->taken[0], TGS_TAKEN, memory_order_release);
	return p;
}

/* The shortest that has room for n_pages, if it does not waste too much; of equals the one made last.  0: none. */
static uint32_t best_hint(const struct tgc_large_hints *hints, uint64_t n_pages)
{
	uint64_t least = tgc_idle_waste(n_pages) + 1;
	uint32_t best = 0, i;

	for (i = hints->n; i > 0 && least > 0; i--) {
		/* What is too short is more than anything. */
		uint64_t waste = hints->hint[i].n_pages - n_pages;

		if (waste < least) {
			least = waste;
			best = i;
		}
	}
	return best;
}

bool tgc_large_at_hand(const struct tgc_cache *cache, size_t size)
{
	return best_hint(&cache->large, (size - 1) / TGS_PAGE_SIZE + 1) != 0;
}

/* The daemon aligns addresses of where the heap usually lies.  Mapped elsewhere (TG_ANY_ADDRESS), objects keep that up to 4 MiB. */
static bool can_align(size_t align)
{
	return (((uintptr_t)tgc_heap.base ^ tgc_heap.map->base) & (align - 1)) == 0;
}

void *tgc_large_alloc(size_t size, size_t align, bool *ret_zero)
{
	struct tgc_large_hints *hints = &tgc_cache->large;
	uint64_t n_pages = size != 0 ? (size - 1) / TGS_PAGE_SIZE + 1 : 1;
	uint64_t align_pages = align > TGS_PAGE_SIZE ? align / TGS_PAGE_SIZE : 1;
	uint32_t best = align_pages == 1 ? best_hint(hints, n_pages) : 0;
	struct tgc_large_hint hint;

	if (best != 0) {
		hint = hints->hint[best];
		drop_hints(hints, best, 1);
		return use(&hint);
	}
	if (n_pages > tgc_heap.geometry.n_pages || align_pages > tgc_heap.geometry.n_pages ||
	    !can_align(align)) {
		if (tgc_enter())
			errno = ENOMEM;
		return NULL;
	}
	return alloc_slow(n_pages, align_pages, ret_zero);
}

void *tgc_large_malloc(size_t size)
{
	struct tgc_large_hints *hints = &tgc_cache->large;
	const struct tgc_large_hint *last = last_hint(hints);

	/* The one freed last, if it has this very length (which hint 0 has not). */
	if (TGS_LIKELY(last->n_pages == (size - 1) / TGS_PAGE_SIZE + 1)) {
		atomic_store_explicit(&hints->n,
				      atomic_load_explicit(&hints->n, memory_order_relaxed) - 1,
				      memory_order_relaxed);
		return use(last);
	}
	return tgc_large_alloc(size, 1, NULL);
}

/* ---- free ---- */

/* 0: nothing but its taken byte has to be cleared. */
static inline uint64_t unusual(const struct tgs_record *record)
{
	return (atomic_load_explicit(&record->taken[0], memory_order_relaxed) ^ TGS_TAKEN) |
	       atomic_load_explicit(&record->flags, memory_order_relaxed);
}

/* Clears the taken byte.  Of several threads that do so at once one has freed the object: true. */
static inline bool clear_taken(struct tgs_record *record)
{
	if (__libc_single_threaded) {
		atomic_store_explicit(&record->taken[0], 0, memory_order_release);
		return true;
	}
	return atomic_exchange_explicit(&record->taken[0], 0, memory_order_acq_rel) & TGS_TAKEN;
}

void tgc_large_free_own(struct tgc_cache *cache, void *p, uint64_t page, uint64_t entry)
{
	struct tgc_large_hints *hints = &cache->large;
	struct tgc_large_hint *last = last_hint(hints);
	struct tgs_record *record = record_of(page);
	uint64_t n_pages = tgs_entry_large_pages(entry);
	uint64_t sum = atomic_load_explicit(&last->sum, memory_order_relaxed) + n_pages;

	TGC_HIDE(record);
	/* There is a record only if there is a span, and so only if the thread has hints. */
	if (TGS_UNLIKELY(sum > hints->n_pages_max || hints->n >= hints->n_max ||
			 (unusual(record) | (uintptr_t)p % TGS_PAGE_SIZE) != 0)) {
		tgc_foreign_free(p);
		return;
	}
	if (TGS_UNLIKELY(!clear_taken(record))) {
		tgc_report(TGC_DOUBLE_FREE, p);
		return;
	}
	push_hint(hints, last, p, record, n_pages, sum);
}

bool tgc_large_free(void *p, uint64_t page)
{
	struct tgs_unit *unit = &record_of(page)->unit;
	struct tgc_cache *large = tgc_large_lock();
	bool ok = false;

	if (!large)
		return true; /* no daemon: the object stays */
	if (tgc_span_record(page)->place == TGC_SPAN_LARGE &&
	    p == tgs_page_address(&tgc_heap, page) &&
	    (atomic_load_explicit(&record_of(page)->taken[0], memory_order_relaxed) & TGS_TAKEN) &&
	    !(tgs_remote_bits(&tgc_heap, TGS_SPARSE, page, 0) & 1)) {
		tgc_links_end(page, p, (size_t)tgc_span_record(page)->n_pages << TGS_PAGE_SHIFT);
		atomic_store_explicit(&unit->published, 0, memory_order_relaxed);
		ok = clear_taken(record_of(page));
	}
	if (ok) {
		keep(large, tgc_cache, tgc_span_record(page));
		tgc_idle_settle(large);
	}
	tgc_large_unlock();
	return ok;
}
