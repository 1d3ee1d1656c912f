/* cache.c - a thread cache's spans: which have room, which are empty, and the step from one unit of slots to the next.
 *
 * All of it is private memory and could be made again from what is taken.  Lists are kept so that the next span with
 * room is found at once: partly used ones at the head (they fill up first), empty ones at the tail (from there they go
 * back to the daemon).
 */
#include "client/cache.h"

#include <string.h>

#include "shm/remote.h"

/* Of a class, so much may lie in spans that could go back: at first, and at most. */
#define HINT_BYTES     (UINT64_C(256) << 10)
#define HINT_BYTES_MAX (UINT64_C(2) << 20)
/* Long stacks of hints, a page each, for so many classes, and one more for so many pages in spans. */
#define LONG_STACKS      2u
#define LONG_STACK_PAGES 32u

static struct tgc_cache no_cache;
__thread struct tgc_cache *tgc_cache = &no_cache;

struct tgc_cache *tgc_no_cache(void)
{
	return &no_cache;
}

uint64_t tgc_span_page(const struct tgc_span *span)
{
	return (uint64_t)(span - tgc_process->spans);
}

/* Slots of a unit that are not taken; of a group of blocks, for tiny spans. */
static uint64_t unit_free(const struct tgc_cache *cache, unsigned class, uint64_t page,
			  unsigned unit)
{
	const struct tgs_class *info = &tgs_classes[class];

	if (class == TGS_CLASS_TINY)
		return tgc_tiny_free_blocks(cache, page, unit);
	return ~tgs_used_first(&tgc_heap, info->kind, page, unit,
			       (unsigned)tgs_min(info->n_slots - unit * 64, 64)) &
	       tgs_unit_mask(info->n_slots, unit);
}

/* Units to go through: a tiny span's are its groups of 64 blocks. */
static unsigned n_units(unsigned class)
{
	return class == TGS_CLASS_TINY ? TGS_TINY_UNITS / 16
				       : tgs_span_units(tgs_classes[class].n_slots);
}

static unsigned n_slots(unsigned class)
{
	return class == TGS_CLASS_TINY ? TGS_PAGE_SIZE / 16 : tgs_classes[class].n_slots;
}

static void list_add_tail(struct tgc_supply *supply, struct tgc_span *span)
{
	span->next = NULL;
	span->prev = supply->tail;
	if (supply->tail)
		supply->tail->next = span;
	else
		supply->head = span;
	supply->tail = span;
}

/* Puts a span that is not current where it belongs, by `used` and `room`. */
static void span_place(struct tgc_cache *cache, struct tgc_span *span)
{
	struct tgc_supply *supply = &cache->supply[span->class];

	if (span->room == 0) {
		span->place = TGC_SPAN_FULL;
		return;
	}
	span->place = TGC_SPAN_LISTED;
	if (span->used == 0) {
		list_add_tail(supply, span);
		supply->n_empty++;
		tgc_count(&cache->empty_pages, tgs_classes[span->class].n_pages);
	} else {
		tgc_list_add_head(supply, span);
	}
}

static void span_unlist(struct tgc_cache *cache, struct tgc_span *span)
{
	struct tgc_supply *supply = &cache->supply[span->class];

	tgc_list_remove(supply, span);
	if (span->used == 0) {
		supply->n_empty--;
		tgc_count(&cache->empty_pages, -(uint64_t)tgs_classes[span->class].n_pages);
		if (supply->n_empty < supply->low)
			supply->low = supply->n_empty;
	}
	span->place = TGC_SPAN_FULL;
}

void tgc_span_survey(struct tgc_cache *cache, struct tgc_span *span)
{
	uint64_t page = tgc_span_page(span);
	unsigned unit;

	span->room = 0;
	span->used = n_slots(span->class);
	for (unit = 0; unit < n_units(span->class); unit++) {
		uint64_t free_slots = unit_free(cache, span->class, page, unit);

		if (free_slots != 0)
			span->room |= UINT64_C(1) << unit;
		span->used -= (uint32_t)__builtin_popcountll(free_slots);
	}
}

/* What both kinds of spans have. */
static int take_in(struct tgc_cache *cache, uint64_t page, unsigned class, uint64_t n_pages,
		   bool zero)
{
	struct tgc_span **bucket = &cache->bucket[page % TGS_DIRTY_BITS], *span;

	if (page >= tgc_heap.geometry.n_pages || n_pages > tgc_heap.geometry.n_pages - page)
		return -EPROTO;
	span = tgc_span_record(page);
	tgc_count(&cache->n_spans, 1);
	tgc_count(&cache->n_pages, n_pages);
	if (!tgc_pages_usable(page, n_pages)) {
		span->place = TGC_SPAN_UNUSABLE;
		return -EADDRINUSE;
	}
	*span = (struct tgc_span){
		.class = (uint8_t) class,
		.n_pages = (uint32_t)n_pages,
		.zero = zero ? ~UINT64_C(0) : 0,
		.fresh = zero,
		.bucket_next = *bucket,
	};
	if (*bucket)
		(*bucket)->bucket_prev = span;
	*bucket = span;
	cache->supply[class].n_spans++;
	return 0;
}

int tgc_span_add_large(struct tgc_cache *cache, uint64_t page, uint64_t n_pages, bool zero)
{
	int r = take_in(cache, page, 0, n_pages, zero);

	if (r == 0)
		tgc_span_record(page)->place = TGC_SPAN_LARGE;
	return r;
}

int tgc_span_add(struct tgc_cache *cache, uint64_t page, unsigned class, bool zero)
{
	struct tgc_span *span;
	int r;

	if (class == 0 || class >= TGS_CLASSES_ALL)
		return -EPROTO;
	r = take_in(cache, page, class, tgs_classes[class].n_pages, zero);
	if (r < 0)
		return r;
	span = tgc_span_record(page);
	tgc_own(cache, page, class);
	if (!zero) {
		/* It may come from central, with objects of others in it and frees of them waiting. */
		struct tgs_span shape = {.page = page,
					 .n_pages = tgs_classes[class].n_pages,
					 .class = class,
					 .n_slots = tgs_classes[class].n_slots};
		struct tgs_harvest harvest = {0};

		tgs_remote_harvest_span(&tgc_heap, &shape, &harvest);
	}
	tgc_span_survey(cache, span);
	span_place(cache, span);
	return 0;
}

void tgc_span_remove(struct tgc_cache *cache, struct tgc_span *span)
{
	struct tgc_span **bucket = &cache->bucket[tgc_span_page(span) % TGS_DIRTY_BITS];

	if (span->class != 0)
		tgc_disown(tgc_span_page(span), span->class);
	if (span->place == TGC_SPAN_LISTED)
		span_unlist(cache, span);
	if (span->bucket_prev)
		span->bucket_prev->bucket_next = span->bucket_next;
	else
		*bucket = span->bucket_next;
	if (span->bucket_next)
		span->bucket_next->bucket_prev = span->bucket_prev;
	cache->supply[span->class].n_spans--;
	tgc_count(&cache->n_spans, -UINT64_C(1));
	tgc_count(&cache->n_pages, -(uint64_t)span->n_pages);
	memset(span, 0, sizeof(*span));
}

void tgc_span_freed(struct tgc_cache *cache, struct tgc_span *span, unsigned unit, uint32_t n)
{
	/* Most often nothing changes its place: it has had room, and does not become empty.  The bin's own unit is looked at
	 * again when it is used up. */
	if (TGS_LIKELY(span->place == TGC_SPAN_CURRENT ||
		       (span->place == TGC_SPAN_LISTED && span->used != n))) {
		span->room |= UINT64_C(1) << unit;
		span->used -= n;
		return;
	}
	if (span->place == TGC_SPAN_LISTED)
		span_unlist(cache, span);
	span->used -= n;
	span->room |= UINT64_C(1) << unit;
	span_place(cache, span);
	if (span->used == 0 && !cache->draining)
		tgc_return_some(cache, span->class);
}

static void move_hints(struct tgc_bin *bin, struct tgc_hint *to)
{
	uint64_t n = (uint64_t)(bin->top - bin->bottom);

	memcpy(to + 1, bin->bottom + 1, n * sizeof(*to));
	bin->bottom = to;
	bin->top = to + n;
}

/* There is room for so many hints, as far as they do not stand for more than so many bytes. */
static void set_limit(struct tgc_cache *cache, struct tgc_bin *bin, uint64_t n, uint64_t bytes)
{
	unsigned class = (unsigned)(bin - cache->bins);

	n = tgs_min(tgs_min(n, tgs_max(2, bytes / bin->size)), TGC_HINTS_MAX);
	if (n > TGC_HINTS_FEW && bin->bottom == cache->few_hints[class].at) {
		if (cache->n_long_stacks >= LONG_STACKS + cache->n_pages / LONG_STACK_PAGES)
			return;
		cache->n_long_stacks++;
		move_hints(bin, cache->hints[class].at);
		cache->supply[class].seen_top = bin->top;
		cache->supply[class].still = 0;
	}
	bin->limit = bin->bottom + n;
}

void tgc_hints_reset(struct tgc_cache *cache, unsigned class)
{
	struct tgc_bin *bin = &cache->bins[class];

	if (bin->bottom == cache->hints[class].at)
		cache->n_long_stacks--;
	bin->top = bin->bottom = cache->few_hints[class].at;
	set_limit(cache, bin, TGC_HINTS_FEW, HINT_BYTES);
}

/* So many slots (tiny: blocks) of the unit in which p lies are free for their span now. */
static void slots_freed(struct tgc_cache *cache, unsigned class, const uint8_t *p, uint32_t n)
{
	uint64_t page = (uint64_t)(p - tgc_heap.data) >> TGS_PAGE_SHIFT, offset;
	uint32_t index;

	page -= tgs_entry_delta(tgs_page_entry(&tgc_heap, page));
	offset = (uint64_t)(p - tgs_page_address(&tgc_heap, page));
	index = class == TGS_CLASS_TINY ? (uint32_t)offset / 16 : tgs_slot_index(class, offset);
	tgc_span_freed(cache, tgc_span_record(page), index / 64, n);
}

/* What was spilled is free for its span now. */
static void settle_spilled(struct tgc_cache *cache, unsigned class)
{
	struct tgc_supply *supply = &cache->supply[class];
	uint32_t n = supply->spilled;

	if (n == 0)
		return;
	supply->spilled = 0;
	supply->spilled_unit = 0;
	slots_freed(cache, class, supply->spilled_p, n);
}

bool tgc_spill_next(struct tgc_cache *cache, unsigned class, uintptr_t unit, const void *p)
{
	struct tgc_supply *supply = &cache->supply[class];
	struct tgc_bin *bin = &cache->bins[class];

	if (!tgc_owns_it(cache, p))
		return false;
	settle_spilled(cache, class);
	if (supply->full_free != bin->free || supply->full_address != bin->address)
		set_limit(cache, bin, 2 * (uint64_t)(bin->limit - bin->bottom), HINT_BYTES_MAX);
	supply->full_free = bin->free;
	supply->full_address = bin->address;
	supply->spilled_unit = unit;
	supply->spilled = 1;
	supply->spilled_p = p;
	return true;
}

void tgc_bins_init(struct tgc_cache *cache)
{
	unsigned class;

	for (class = 1; class < TGS_CLASSES_ALL; class += 1) {
		struct tgc_bin *bin = &cache->bins[class];
		bool tiny = class == TGS_CLASS_TINY;

		bin->size = tiny ? 16 : tgs_classes[class].size;
		tgc_hints_reset(cache, class);
	}
}

/* Loads a unit of the current span into the bin.  False if it turns out to have no free slot. */
static bool load_unit(struct tgc_cache *cache, struct tgc_span *span, unsigned unit)
{
	struct tgc_bin *bin = &cache->bins[span->class];
	uint64_t page = tgc_span_page(span);
	uint64_t bit = UINT64_C(1) << unit;

	span->room &= ~bit;
	bin->free = unit_free(cache, span->class, page, unit);
	cache->supply[span->class].zero = span->zero & bit ? bin->free : 0;
	span->zero &= ~bit;
	cache->supply[span->class].unit = unit;
	bin->address = tgs_page_address(&tgc_heap, page) + (size_t)unit * 64 * bin->size;
	if (span->class == TGS_CLASS_TINY)
		bin->bits = tgc_tiny_bits_of(bin->address);
	else
		bin->taken =
			tgs_taken_bytes(&tgc_heap, tgs_classes[span->class].kind, page) + unit * 64;
	span->used += (uint32_t)__builtin_popcountll(bin->free);
	return bin->free != 0;
}

/* The current span is used up: its word is empty and no other unit has room. */
static void drop_current(struct tgc_cache *cache, unsigned class)
{
	struct tgc_bin *bin = &cache->bins[class];
	struct tgc_span *span = cache->supply[class].current;

	cache->supply[class].current = NULL;
	bin->address = NULL;
	bin->free = 0;
	if (span)
		span_place(cache, span);
}

bool tgc_bin_next(struct tgc_cache *cache, unsigned class)
{
	struct tgc_supply *supply = &cache->supply[class];

	settle_spilled(cache, class);
	if (cache->bins[class].free != 0)
		return true;
	for (;;) {
		struct tgc_span *span = supply->current;

		while (span && span->room != 0) {
			if (load_unit(cache, span, (unsigned)__builtin_ctzll(span->room)))
				return true;
		}
		drop_current(cache, class);
		if (!supply->head)
			return false;
		supply->current = supply->head;
		span_unlist(cache, supply->current);
		supply->current->place = TGC_SPAN_CURRENT;
	}
}

static void unload_hints(struct tgc_cache *cache, unsigned class)
{
	struct tgc_bin *bin = &cache->bins[class];

	while (bin->top != bin->bottom) {
		struct tgc_hint hint = *bin->top--;

		/* Freed twice at the same moment (client/alloc.c), and used again. */
		if (TGS_UNLIKELY(class != TGS_CLASS_TINY &&
				 atomic_load_explicit(hint.taken, memory_order_relaxed) !=
					 TGS_HELD)) {
			tgc_report(TGC_DOUBLE_FREE, hint.p);
			continue;
		}
		if (!tgc_owns_it(cache, hint.p)) {
			tgc_foreign_unhold(cache, hint.p, hint.taken);
			continue;
		}
		if (class != TGS_CLASS_TINY)
			atomic_store_explicit(hint.taken, 0, memory_order_relaxed);
		slots_freed(cache, class, hint.p, 1);
	}
}

void tgc_bin_unload(struct tgc_cache *cache, unsigned class)
{
	struct tgc_bin *bin = &cache->bins[class];
	struct tgc_supply *supply = &cache->supply[class];
	struct tgc_span *span = supply->current;

	unload_hints(cache, class);
	settle_spilled(cache, class);
	if (!span)
		return;
	if (bin->free != 0) {
		span->room |= UINT64_C(1) << supply->unit;
		span->used -= (uint32_t)__builtin_popcountll(bin->free);
		/* The unit is as zero as it was, if nothing of it was handed out. */
		if (supply->zero == bin->free &&
		    unit_free(cache, class, tgc_span_page(span), supply->unit) == bin->free &&
		    span->used == 0)
			span->zero |= UINT64_C(1) << supply->unit;
	}
	drop_current(cache, class);
}

/* Frees of others in one span of ours. */
static void drain_span(struct tgc_cache *cache, struct tgc_span *span)
{
	uint64_t page = tgc_span_page(span);
	const struct tgs_class *info = &tgs_classes[span->class];
	struct tgs_harvest harvest = {0};
	unsigned unit;

	for (unit = 0; unit < tgs_span_units(info->n_slots); unit++) {
		uint64_t freed = tgs_remote_harvest(&tgc_heap, info->kind, page, unit, &harvest);

		tgc_report_twice(page, span->class, unit, harvest.twice);
		if (freed == 0)
			continue;
		if (span->class == TGS_CLASS_TINY)
			tgc_tiny_harvested(cache, page, unit, freed);
		else if (span->class == 0)
			tgc_large_harvested(span);
		else
			tgc_span_freed(cache, span, unit, (uint32_t)__builtin_popcountll(freed));
	}
}

/* Has anybody freed objects of our spans?  Mostly not, and this is asked each time that a class has run dry. */
static bool is_dirty(const struct tgs_slot *slot)
{
	uint64_t any = 0;
	unsigned i;

#pragma GCC unroll 16
	for (i = 0; i < TGS_DIRTY_BITS / 64; i++)
		any |= atomic_load_explicit(&slot->dirty[i], memory_order_relaxed);
	return any != 0;
}

bool tgc_cache_drain(struct tgc_cache *cache)
{
	unsigned i, class;

	if (!is_dirty(cache->slot))
		return false;
	/* Nothing is given back before the end: that would take spans out of the lists that are being walked. */
	cache->draining = true;
	for (i = 0; i < TGS_DIRTY_BITS / 64; i++) {
		uint64_t dirty = atomic_load_explicit(&cache->slot->dirty[i], memory_order_relaxed);

		if (dirty == 0)
			continue;
		dirty = atomic_exchange_explicit(&cache->slot->dirty[i], 0, memory_order_seq_cst);
		for (; dirty != 0; dirty &= dirty - 1) {
			struct tgc_span *span =
				cache->bucket[i * 64 + (unsigned)__builtin_ctzll(dirty)];

			while (span) {
				struct tgc_span *next = span->bucket_next;

				drain_span(cache, span);
				span = next;
			}
		}
	}
	cache->draining = false;
	for (class = 1; class < TGS_CLASSES_ALL; class += 1) {
		if (cache->supply[class].n_empty != 0)
			tgc_return_some(cache, class);
	}
	return true;
}
