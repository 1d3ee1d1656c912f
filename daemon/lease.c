/* lease.c - page map entries, lists of spans, and the counters that follow from them.
 *
 * Entries are written with release: a client that reads an entry sees the backed, zeroed state
 * behind it.  All pages of a small span have an entry, with the distance to the first; a large span
 * has one, since a pointer into its middle is no object.
 */
#include "daemon/lease.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "shm/base.h"

int tgd_lease_init(struct tgd_lease *lease, const struct tgs_heap *view, struct tgd_pages *pages,
		   struct tgd_backing *backing)
{
	uint64_t n_pages = view->geometry.n_pages;

	lease->view = view;
	lease->pages = pages;
	lease->backing = backing;
	lease->links = tgd_sparse_new(n_pages * sizeof(*lease->links));
	lease->partial_bits = tgd_sparse_new(tgs_round_up(n_pages, 64) / 8);
	if (!lease->links || !lease->partial_bits) {
		tgd_lease_done(lease);
		return -ENOMEM;
	}
	return 0;
}

void tgd_lease_done(struct tgd_lease *lease)
{
	uint64_t n_pages = lease->view ? lease->view->geometry.n_pages : 0;

	tgd_sparse_free(lease->links, n_pages * sizeof(*lease->links));
	tgd_sparse_free(lease->partial_bits, tgs_round_up(n_pages, 64) / 8);
	lease->links = NULL;
	lease->partial_bits = NULL;
}

/* Entries that were never written may be a hole in the file; reading one would make the kernel fill
 * it. */
static bool has_entry(const struct tgd_lease *lease, uint64_t page)
{
	return page < lease->end_page &&
	       tgd_backing_has_map(lease->backing, lease->view->geometry.page_map_at + page * 8, 8);
}

bool tgd_lease_at(const struct tgd_lease *lease, uint64_t page, struct tgs_span *ret_span)
{
	return has_entry(lease, page) && tgs_span_at(lease->view, page, ret_span) &&
	       ret_span->page == page;
}

bool tgd_lease_from(const struct tgd_lease *lease, uint64_t page, struct tgs_span *ret_span)
{
	const uint64_t in_block = TGS_OS_PAGE / 8;

	while (page < lease->end_page) {
		if (page % in_block == 0 && !has_entry(lease, page)) {
			page += in_block;
			continue;
		}
		if (tgd_lease_at(lease, page, ret_span))
			return true;
		page++;
	}
	return false;
}

static bool is_partial(const struct tgd_lease *lease, uint64_t page)
{
	return lease->partial_bits[page / 64] >> page % 64 & 1;
}

static struct tgd_list *list_of(struct tgd_lease *lease, const struct tgs_span *span)
{
	if (span->owner != TGS_SLOT_CENTRAL)
		return &lease->slot[span->owner];
	return is_partial(lease, span->page) ? &lease->partial[span->class]
					     : &lease->full[span->class];
}

static void list_add(struct tgd_lease *lease, struct tgd_list *list, const struct tgs_span *span)
{
	uint32_t page = (uint32_t)span->page;

	lease->links[page] =
		(struct tgd_lease_link){.prev = TGD_PAGE_NONE, .next = tgd_list_head(list)};
	if (list->n_spans != 0)
		lease->links[list->head].prev = page;
	else
		list->tail = page;
	list->head = page;
	lease->n_orphans += span->owner == TGS_SLOT_CENTRAL;
	list->n_spans++;
	list->n_pages += span->n_pages;
}

static void list_remove(struct tgd_lease *lease, struct tgd_list *list, const struct tgs_span *span)
{
	struct tgd_lease_link link = lease->links[span->page];

	if (link.prev != TGD_PAGE_NONE)
		lease->links[link.prev].next = link.next;
	else
		list->head = link.next;
	if (link.next != TGD_PAGE_NONE)
		lease->links[link.next].prev = link.prev;
	else
		list->tail = link.prev;
	lease->n_orphans -= span->owner == TGS_SLOT_CENTRAL;
	list->n_spans--;
	list->n_pages -= span->n_pages;
}

static void write_entries(struct tgd_lease *lease, const struct tgs_span *span)
{
	_Atomic uint64_t *entries = (_Atomic uint64_t *)(uintptr_t)lease->view->page_map;
	uint64_t large = span->class == 0 ? span->n_pages : 0;
	uint64_t n = span->class == 0 ? 1 : span->n_pages;
	unsigned kind = tgs_classes[span->class].kind;
	uint64_t more = 0, i;

	/* Also what an earlier span on this page has left: it is there, so it may be used. */
	if (kind != TGS_SPARSE && tgd_backing_has_words(lease->backing, kind, span->page))
		more = TGS_ENTRY_MORE;
	for (i = 0; i < n; i++)
		atomic_store_explicit(
			&entries[span->page + i],
			more | tgs_entry_make(span->class, span->owner, (unsigned)i, large),
			memory_order_release);
}

static void clear_entries(struct tgd_lease *lease, const struct tgs_span *span, uint64_t n)
{
	_Atomic uint64_t *entries = (_Atomic uint64_t *)(uintptr_t)lease->view->page_map;

	while (n-- > 0)
		atomic_store_explicit(&entries[span->page + n], 0, memory_order_release);
}

static void count_pages(struct tgd_lease *lease, unsigned class, uint64_t n_pages)
{
	lease->class_pages[class] += n_pages;
	lease->n_pages += n_pages;
	lease->peak_pages = tgs_max(lease->peak_pages, lease->n_pages);
}

void tgd_lease_create(struct tgd_lease *lease, uint64_t page, uint64_t n_pages, unsigned class,
		      unsigned slot)
{
	struct tgs_span span = {
		.page = page,
		.n_pages = n_pages,
		.class = class,
		.owner = slot,
		.n_slots = tgs_classes[class].n_slots,
	};

	write_entries(lease, &span);
	tgd_lease_found(lease, &span);
}

void tgd_lease_found(struct tgd_lease *lease, const struct tgs_span *span)
{
	list_add(lease, list_of(lease, span), span);
	lease->n_spans++;
	lease->class_spans[span->class]++;
	count_pages(lease, span->class, span->n_pages);
	lease->end_page = tgs_max(lease->end_page, span->page + span->n_pages);
}

void tgd_lease_finish_move(struct tgd_lease *lease, const struct tgs_span *span)
{
	write_entries(lease, span);
}

void tgd_lease_finish_end(struct tgd_lease *lease, const struct tgs_span *span, uint64_t n)
{
	clear_entries(lease, span, n);
}

static void put_partial_bit(struct tgd_lease *lease, uint64_t page, bool partial)
{
	uint64_t bit = UINT64_C(1) << page % 64;

	if (partial)
		lease->partial_bits[page / 64] |= bit;
	else
		lease->partial_bits[page / 64] &= ~bit;
}

void tgd_lease_move(struct tgd_lease *lease, struct tgs_span *span, unsigned slot)
{
	list_remove(lease, list_of(lease, span), span);
	span->owner = slot;
	write_entries(lease, span);
	put_partial_bit(lease, span->page, false);
	list_add(lease, list_of(lease, span), span);
}

void tgd_lease_set_partial(struct tgd_lease *lease, const struct tgs_span *span, bool partial)
{
	assert(span->owner == TGS_SLOT_CENTRAL);
	if (is_partial(lease, span->page) == partial)
		return;
	list_remove(lease, list_of(lease, span), span);
	put_partial_bit(lease, span->page, partial);
	list_add(lease, list_of(lease, span), span);
}

void tgd_lease_rotate(struct tgd_lease *lease, const struct tgs_span *span)
{
	struct tgd_list *list = list_of(lease, span);
	uint32_t page = (uint32_t)span->page;

	if (list->tail == page)
		return;
	list_remove(lease, list, span);
	lease->links[page] = (struct tgd_lease_link){.prev = list->tail, .next = TGD_PAGE_NONE};
	lease->links[list->tail].next = page;
	list->tail = page;
	lease->n_orphans += span->owner == TGS_SLOT_CENTRAL;
	list->n_spans++;
	list->n_pages += span->n_pages;
}

void tgd_lease_resize(struct tgd_lease *lease, struct tgs_span *span, uint64_t n_pages)
{
	uint64_t old = span->n_pages;

	assert(span->class == 0 && n_pages > 0);
	list_of(lease, span)->n_pages += n_pages - old;
	span->n_pages = n_pages;
	write_entries(lease, span);
	count_pages(lease, 0, n_pages - old);
	lease->end_page = tgs_max(lease->end_page, span->page + n_pages);
	if (n_pages < old)
		tgd_pages_release(lease->pages, span->page + n_pages, old - n_pages, false);
}

/* Do the words of this span lie where those of spans of that kind do? */
static bool same_words(const struct tgs_span *span, unsigned kind)
{
	unsigned its = tgs_classes[span->class].kind;

	return its == kind || (tgs_is_dense(its) && tgs_is_dense(kind));
}

int tgd_lease_back_more(struct tgd_lease *lease, const struct tgs_span *span, bool urgent)
{
	unsigned kind = tgs_classes[span->class].kind;
	uint64_t n = tgs_is_dense(kind) ? TGS_DENSE_GROUP : 1;
	uint64_t page = tgs_round_down(span->page, n), end = page + n;
	struct tgs_span other;
	int r;

	assert(kind != TGS_SPARSE);
	r = tgd_backing_words(lease->backing, kind, span->page, urgent);
	for (; r == 0 && page < end; page++) {
		if (tgd_lease_at(lease, page, &other) && same_words(&other, kind) &&
		    !tgs_has_more(lease->view, kind, page))
			write_entries(lease, &other);
	}
	return r;
}

static void clear_word(_Atomic uint64_t *word)
{
	if (atomic_load_explicit(word, memory_order_relaxed) != 0)
		atomic_store_explicit(word, 0, memory_order_relaxed);
}

/* All bytes of a unit, whatever is in them. */
static void clear_taken(const struct tgs_heap *view, unsigned kind, uint64_t page, unsigned unit)
{
	typedef _Atomic uint64_t __attribute__((may_alias)) eight;
	unsigned i;

	if (kind == TGS_TINY) {
		clear_word(&view->tiny_taken[page].taken[unit]);
		return;
	}
	for (i = 0; i < 64; i += 8)
		clear_word((eight *)&tgs_taken_bytes(view, kind, page)[unit * 64 + i]);
}

/* The span is empty, but a client may have left what no object accounts for: flags, a bit published
 * by mistake, bits beyond the last slot.  Free pages have no state, whoever scribbled there. */
static void clear_state(const struct tgd_lease *lease, const struct tgs_span *span)
{
	const struct tgs_heap *view = lease->view;
	unsigned kind = tgs_classes[span->class].kind;
	_Atomic uint64_t *dirty = &view->dirty[span->page / 64];
	uint64_t bit = UINT64_C(1) << span->page % 64;
	bool more = tgs_has_more(view, kind, span->page);
	unsigned unit;

	for (unit = 0; unit < tgs_span_units(span->n_slots); unit++) {
		clear_taken(view, kind, span->page, unit);
		if (!more)
			continue;
		clear_word(tgs_published_word(view, kind, span->page, unit));
		clear_word(tgs_remote_word(view, kind, span->page, unit, 0));
		clear_word(tgs_remote_word(view, kind, span->page, unit, 1));
	}
	clear_word(&view->records[span->page].flags);
	if (atomic_load_explicit(dirty, memory_order_relaxed) & bit)
		atomic_fetch_and_explicit(dirty, ~bit, memory_order_relaxed);
}

void tgd_lease_destroy(struct tgd_lease *lease, const struct tgs_span *span)
{
	clear_state(lease, span);
	clear_entries(lease, span, span->class == 0 ? 1 : span->n_pages);
	list_remove(lease, list_of(lease, span), span);
	put_partial_bit(lease, span->page, false);
	lease->n_spans--;
	lease->class_spans[span->class]--;
	lease->class_pages[span->class] -= span->n_pages;
	lease->n_pages -= span->n_pages;
	tgd_pages_release(lease->pages, span->page, span->n_pages, false);
}
