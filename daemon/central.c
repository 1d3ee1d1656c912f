/* central.c - spans that no client holds: taken, put, swept.
 *
 * What is read from the heap is masked to the slots that a span has, so that bits which a client
 * scribbled elsewhere neither keep a span from becoming empty nor count as room.
 */
#include "daemon/central.h"

#include <stdatomic.h>

#include "shm/base.h"
#include "shm/link.h"
#include "shm/remote.h"

/* ThreadSanitizer does not know fences.  What it then misses is order between atomics, no data
 * race. */
#if defined(__SANITIZE_THREAD__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif

/* How many spans one request may look at in vain; as in Go. */
#define LOOK_MAX 100

/* Rounds of harvest for a span into which others free at this moment. */
#define HARVESTS_MAX 4

void tgd_central_init(struct tgd_central *central, const struct tgs_heap *view,
		      struct tgd_lease *lease, struct tgd_holders *holders)
{
	*central = (struct tgd_central){.view = view, .lease = lease, .holders = holders};
}

static uint64_t unit_used(const struct tgs_heap *view, const struct tgs_span *span, unsigned unit)
{
	unsigned kind = tgs_classes[span->class].kind;

	return tgs_used_bits(view, kind, span->page, unit) & tgs_unit_mask(span->n_slots, unit);
}

/* Blocks of a unit of a tiny span in which no object starts. */
static unsigned free_blocks(uint64_t taken)
{
	unsigned n = 0, i;

	for (i = 0; i < 64; i += 16)
		n += (taken >> i & 0xffff) == 0;
	return n;
}

uint32_t tgd_central_room(const struct tgs_heap *view, const struct tgs_span *span)
{
	uint32_t blocks = 0, used = 0;
	unsigned unit;

	for (unit = 0; unit < tgs_span_units(span->n_slots); unit++) {
		uint64_t bits = unit_used(view, span, unit);

		used += (uint32_t)__builtin_popcountll(bits);
		blocks += free_blocks(bits);
	}
	return span->class == TGS_CLASS_TINY ? blocks : span->n_slots - used;
}

/* Nothing lives there, and nobody's free is waiting there to be harvested. */
static bool is_empty(const struct tgs_heap *view, const struct tgs_span *span)
{
	unsigned kind = tgs_classes[span->class].kind;
	unsigned unit;

	for (unit = 0; unit < tgs_span_units(span->n_slots); unit++) {
		if (unit_used(view, span, unit) != 0 ||
		    tgs_remote_bits(view, kind, span->page, unit) != 0)
			return false;
	}
	return true;
}

static bool is_published(const struct tgs_heap *view, const struct tgs_span *span)
{
	unsigned kind = tgs_classes[span->class].kind;
	unsigned unit;

	for (unit = 0; unit < tgs_span_units(span->n_slots); unit++) {
		uint64_t published = tgs_published_bits(view, kind, span->page, unit);

		if (unit_used(view, span, unit) & ~published)
			return false;
	}
	return true;
}

/* No object lives there that would have to die with the process that made it.  A swap that gives an object publishes it
 * before it is known whether it gets in: that does not count. */
static bool all_published(const struct tgs_heap *view, const struct tgs_span *span)
{
	return is_published(view, span) &&
	       !tgs_link_gives_inside(view, tgs_ref_of(view, tgs_page_address(view, span->page)),
				      span->n_pages << TGS_PAGE_SHIFT) &&
	       is_published(view, span);
}

/* A free of something that is not allocated leaves nothing but its remote bit; the harvest drops
 * it, and whoever did it was told by the library.  So the harvest's counts do not matter here. */
static void harvest(const struct tgd_central *central, const struct tgs_span *span)
{
	struct tgs_harvest found = {0};

	tgs_remote_harvest_span(central->view, span, &found);
}

/* Harvests a span that is ours.  False: it was empty and is a span no more. */
static bool settle(struct tgd_central *central, const struct tgs_span *span)
{
	harvest(central, span);
	if (!is_empty(central->view, span))
		return true;
	tgd_lease_destroy(central->lease, span);
	return false;
}

/* The new holder first, then the fence, then the harvest: see the head of central.h. */
static bool move_and_settle(struct tgd_central *central, struct tgs_span *span, unsigned slot)
{
	tgd_lease_move(central->lease, span, slot);
	atomic_thread_fence(memory_order_seq_cst);
	return settle(central, span);
}

static void file(struct tgd_central *central, const struct tgs_span *span)
{
	tgd_lease_set_partial(central->lease, span, tgd_central_room(central->view, span) > 0);
}

void tgd_central_put(struct tgd_central *central, struct tgs_span *span, unsigned closet)
{
	if (closet != TGS_SLOT_NONE) {
		if (!move_and_settle(central, span, closet))
			return;
		if (!all_published(central->view, span))
			return;
	}
	if (move_and_settle(central, span, TGS_SLOT_CENTRAL))
		file(central, span);
}

static void kill_unpublished(const struct tgd_central *central, const struct tgs_span *span,
			     const struct tgs_pending_set *pending)
{
	const struct tgs_heap *view = central->view;
	unsigned kind = tgs_classes[span->class].kind;
	unsigned unit;

	for (unit = 0; unit < tgs_span_units(span->n_slots); unit++) {
		uint64_t stays = tgs_published_bits(view, kind, span->page, unit);

		stays |= tgs_pending_bits(view, pending, kind, span->page, unit);
		stays |= tgs_remote_bits(view, kind, span->page, unit);
		(void)tgs_taken_clear(view, kind, span->page, unit,
				      tgs_taken_bits(view, kind, span->page, unit) & ~stays);
	}
}

/* What threads of the dead process kept at hand. */
static void clear_held(const struct tgd_central *central, const struct tgs_span *span)
{
	unsigned kind = tgs_classes[span->class].kind;
	unsigned unit;

	for (unit = 0; unit < tgs_span_units(span->n_slots); unit++)
		tgs_held_clear(central->view, kind, span->page, unit);
}

void tgd_central_adopt(struct tgd_central *central, struct tgs_span *span, bool kill,
		       const struct tgs_pending_set *pending)
{
	int i;

	/* While the map still says whose it was: a daemon killed in here leaves a span of a dead client, and
	 * not one of central's with objects that nobody would ever free. */
	clear_held(central, span);
	if (kill) {
		harvest(central, span);
		kill_unpublished(central, span, pending);
	}
	tgd_lease_move(central->lease, span, TGS_SLOT_CENTRAL);
	atomic_thread_fence(memory_order_seq_cst);
	/* Frees may come in all the time; a span that they keep from being empty is dirty and gets
	 * swept. */
	for (i = 0; i < HARVESTS_MAX; i++) {
		if (!settle(central, span))
			return;
		if (tgs_span_live(central->view, span) > 0)
			break;
	}
	file(central, span);
}

/* Hands a span over.  Harvested before the move: from the move on, `taken` is the new holder's alone,
 * who may free an object in it at once.  He harvests when he hears of the span, after the move. */
static void grant(struct tgd_central *central, struct tgs_span *span, unsigned slot,
		  struct tgd_grant *ret)
{
	harvest(central, span);
	tgd_lease_move(central->lease, span, slot);
	*ret = (struct tgd_grant){.page = span->page,
				  .free = tgd_central_room(central->view, span)};
}

static bool take_from_closet(struct tgd_central *central, unsigned class, unsigned slot,
			     unsigned closet, struct tgd_grant *ret)
{
	uint32_t page = tgd_list_head(&central->lease->slot[closet]);
	struct tgs_span span;
	int i;

	for (i = 0; i < LOOK_MAX && page != TGD_PAGE_NONE; i++) {
		if (!tgd_lease_at(central->lease, page, &span))
			break;
		page = tgd_lease_next(central->lease, page);
		if (span.class == class && tgd_central_room(central->view, &span) > 0) {
			grant(central, &span, slot, ret);
			return true;
		}
	}
	return false;
}

static bool take_partial(struct tgd_central *central, unsigned class, unsigned slot, bool published,
			 struct tgd_grant *ret)
{
	uint32_t page = tgd_list_head(&central->lease->partial[class]);
	struct tgs_span span;
	int i;

	for (i = 0; i < LOOK_MAX && page != TGD_PAGE_NONE; i++) {
		if (!tgd_lease_at(central->lease, page, &span))
			break;
		page = tgd_lease_next(central->lease, page);
		if (!published || all_published(central->view, &span)) {
			grant(central, &span, slot, ret);
			return true;
		}
	}
	return false;
}

static bool take_dirty_mark(const struct tgd_central *central, uint64_t page)
{
	_Atomic uint64_t *word = &central->view->dirty[page / 64];
	uint64_t bit = UINT64_C(1) << page % 64;

	if (!(atomic_load_explicit(word, memory_order_acquire) & bit))
		return false;
	/* Cleared before the harvest: a free after it marks the span again. */
	return atomic_fetch_and_explicit(word, ~bit, memory_order_seq_cst) & bit;
}

/* Full spans that may have room by now.  Those looked at go to the end, so that the next call sees
 * others. */
static bool take_full(struct tgd_central *central, unsigned class, unsigned slot, bool published,
		      struct tgd_grant *ret)
{
	struct tgd_list *full = &central->lease->full[class];
	uint64_t left = tgs_min(full->n_spans, LOOK_MAX);
	struct tgs_span span;

	while (left-- > 0 && tgd_lease_at(central->lease, tgd_list_head(full), &span)) {
		if (!take_dirty_mark(central, span.page)) {
			tgd_lease_rotate(central->lease, &span);
			continue;
		}
		if (!settle(central, &span))
			continue;
		file(central, &span);
		if (tgd_central_room(central->view, &span) == 0) {
			tgd_lease_rotate(central->lease, &span);
		} else if (!published || all_published(central->view, &span)) {
			grant(central, &span, slot, ret);
			return true;
		}
	}
	return false;
}

bool tgd_central_take(struct tgd_central *central, unsigned class, unsigned slot, unsigned closet,
		      struct tgd_grant *ret)
{
	bool published = closet != TGS_SLOT_NONE;

	if (published && take_from_closet(central, class, slot, closet, ret))
		return true;
	return take_partial(central, class, slot, published, ret) ||
	       take_full(central, class, slot, published, ret);
}

static void sweep_span(struct tgd_central *central, uint64_t page)
{
	struct tgs_span span;

	/* A mark may be older than the span's move to a client, who has harvested it since, or than
	 * its end. */
	if (tgd_lease_at(central->lease, page, &span) && span.owner == TGS_SLOT_CENTRAL &&
	    settle(central, &span))
		file(central, &span);
}

unsigned tgd_central_sweep(struct tgd_central *central, uint64_t n_words, bool *ret_done)
{
	const struct tgs_heap *view = central->view;
	uint64_t end = (central->lease->end_page + 63) / 64;
	uint64_t in_block = TGS_OS_PAGE / sizeof(uint64_t);
	unsigned found = 0;

	for (*ret_done = false; n_words > 0; n_words--) {
		uint64_t at = central->cursor, bits;

		if (at >= end) {
			central->cursor = 0;
			*ret_done = true;
			break;
		}
		if (!tgd_backing_has_state(central->lease->backing,
					   view->geometry.dirty_at + at * 8, 8)) {
			central->cursor = tgs_round_down(at, in_block) + in_block;
			continue;
		}
		central->cursor++;
		if (atomic_load_explicit(&view->dirty[at], memory_order_relaxed) == 0)
			continue;
		bits = atomic_exchange_explicit(&view->dirty[at], 0, memory_order_seq_cst);
		for (; bits != 0; bits &= bits - 1, found++)
			sweep_span(central, at * 64 + (unsigned)__builtin_ctzll(bits));
	}
	return found;
}

/* Spans of a closet: all, or those whose hint is set.  One that holds only published objects is
 * central's by right. */
static unsigned sweep_closet(struct tgd_central *central, unsigned closet,
			     const uint64_t hints[TGS_DIRTY_BITS / 64])
{
	uint32_t page = tgd_list_head(&central->lease->slot[closet]);
	struct tgs_span span;
	unsigned found = 0;

	while (page != TGD_PAGE_NONE && tgd_lease_at(central->lease, page, &span)) {
		uint64_t bit = page % TGS_DIRTY_BITS;

		page = tgd_lease_next(central->lease, page);
		if (!(hints[bit / 64] >> bit % 64 & 1))
			continue;
		found++;
		if (settle(central, &span) && all_published(central->view, &span) &&
		    move_and_settle(central, &span, TGS_SLOT_CENTRAL))
			file(central, &span);
	}
	return found;
}

unsigned tgd_central_sweep_closets(struct tgd_central *central)
{
	uint32_t i;
	unsigned found = 0, word;

	for (i = 0; i < central->holders->n_used; i++) {
		const struct tgd_holder *holder = &central->holders->table[i];
		uint64_t hints[TGS_DIRTY_BITS / 64], any = 0;

		if (holder->state != TGS_CLIENT_LIVE || holder->closet == TGS_SLOT_NONE ||
		    central->lease->slot[holder->closet].n_spans == 0)
			continue;
		for (word = 0; word < TGS_DIRTY_BITS / 64; word++) {
			hints[word] = atomic_exchange_explicit(
				&central->view->slots[holder->closet].dirty[word], 0,
				memory_order_seq_cst);
			any |= hints[word];
		}
		if (any)
			found += sweep_closet(central, holder->closet, hints);
	}
	return found;
}

static void sweep_list(struct tgd_central *central, const struct tgd_list *list)
{
	uint32_t page = tgd_list_head(list);
	struct tgs_span span;

	/* A span that has got room goes to the head of the partial ones, which were looked at before. */
	while (page != TGD_PAGE_NONE && tgd_lease_at(central->lease, page, &span)) {
		page = tgd_lease_next(central->lease, page);
		if (settle(central, &span))
			file(central, &span);
	}
}

void tgd_central_sweep_all(struct tgd_central *central)
{
	uint64_t all[TGS_DIRTY_BITS / 64];
	unsigned i;

	for (i = 0; i < TGS_CLASSES_ALL; i++) {
		sweep_list(central, &central->lease->partial[i]);
		sweep_list(central, &central->lease->full[i]);
	}
	for (i = 0; i < TGS_DIRTY_BITS / 64; i++)
		all[i] = UINT64_MAX;
	for (i = 0; i < central->holders->n_used; i++) {
		if (central->holders->table[i].state == TGS_CLIENT_LIVE &&
		    central->holders->table[i].closet != TGS_SLOT_NONE)
			(void)sweep_closet(central, central->holders->table[i].closet, all);
	}
}
