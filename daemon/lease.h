/* lease.h - which slot holds which span: the page map, and a list for each holder.
 *
 * The only writer of the page map.  A span is in exactly one list: that of the slot which holds it,
 * or, if that is central, of its class's partial spans (with room) or full ones.  So settling a
 * client takes time in the spans that it holds, whatever the size of the heap.  The lists' links
 * lie in private memory, by first page.
 *
 *   create    pages of the page heap, backed, state zero -> a span of a slot
 *   move      from one holder to another
 *   destroy   an empty span -> state cleared, entries cleared, pages free: in this order, so that
 *             whoever comes after a crash never finds a free page with state
 *
 * Entries are written from the first page up, and cleared from the last page down.  So a daemon
 * that is killed leaves nothing that the next one would have to guess at (takeover.h):
 *
 *   entries of the last pages missing    half made, or half ended: it ends; it was empty either way
 *   owners that differ                   half moved: the first page's is right
 *
 * A large span has one entry: it is made, moved, resized and ended by one store.
 *
 * A dense or tiny span's entry also says whether its published and remote words have memory
 * (TGS_ENTRY_MORE).  It does exactly when they have: memory first, then the bit.  A daemon killed in
 * between leaves memory that no entry tells of, which the next one gives back like all such.  Those
 * of dense spans in a group of 16 pages lie in one block: all of these spans get the bit then, from
 * the first page up, so that the next daemon finds one that has it before any that has not.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/backing.h"
#include "daemon/pages.h"
#include "shm/region.h"
#include "shm/sizeclass.h"
#include "shm/span.h"

#define TGD_PAGE_NONE UINT32_MAX

/* Spans, linked; the last one added is first.  All zero is empty, so the many that no slot needs take no memory. */
struct tgd_list {
	uint32_t head, tail; /* first pages, if it has any */
	uint64_t n_spans, n_pages;
};

/* TGD_PAGE_NONE: it is empty. */
static inline uint32_t tgd_list_head(const struct tgd_list *list)
{
	return list->n_spans != 0 ? list->head : TGD_PAGE_NONE;
}

struct tgd_lease_link {
	uint32_t prev, next;
};

struct tgd_lease {
	const struct tgs_heap *view;
	struct tgd_pages *pages;
	struct tgd_backing *backing;
	struct tgd_lease_link *links;        /* by first page */
	uint64_t *partial_bits;              /* by first page: which of central's two lists */
	struct tgd_list slot[TGS_SLOTS_MAX]; /* TGS_SLOT_CENTRAL's stays empty */
	struct tgd_list partial[TGS_CLASSES_ALL];
	struct tgd_list full[TGS_CLASSES_ALL];
	uint64_t class_spans[TGS_CLASSES_ALL];
	uint64_t class_pages[TGS_CLASSES_ALL];
	uint64_t n_spans, n_pages, peak_pages;
	uint64_t n_orphans; /* spans of central's */
	uint64_t end_page;  /* all pages ever in a span are below */
};

/* -ENOMEM.  `lease` was zero. */
int tgd_lease_init(struct tgd_lease *lease, const struct tgs_heap *view, struct tgd_pages *pages,
		   struct tgd_backing *backing);
void tgd_lease_done(struct tgd_lease *lease);

/* The span that starts at this page.  False: none does. */
bool tgd_lease_at(const struct tgd_lease *lease, uint64_t page, struct tgs_span *ret_span);

/* The first span that starts at this page or above.  False: there is none. */
bool tgd_lease_from(const struct tgd_lease *lease, uint64_t page, struct tgs_span *ret_span);

/* Backed pages, in use in the page heap, become a span of `slot`. */
void tgd_lease_create(struct tgd_lease *lease, uint64_t page, uint64_t n_pages, unsigned class,
		      unsigned slot);

/* Changes the holder, in the page map first.  To central it goes as full; see
 * tgd_lease_set_partial. */
void tgd_lease_move(struct tgd_lease *lease, struct tgs_span *span, unsigned slot);

/* Puts memory behind the published and remote words of a dense or tiny span, and says so in its entry
 * and those of all whose words lie there, too; nothing to do if they have it.  `urgent`: see
 * tgd_backing_words.  -ENOMEM. */
int tgd_lease_back_more(struct tgd_lease *lease, const struct tgs_span *span, bool urgent);

/* A span of central's: whether it has room. */
void tgd_lease_set_partial(struct tgd_lease *lease, const struct tgs_span *span, bool partial);

/* A span of a list becomes the list's last: round robin. */
void tgd_lease_rotate(struct tgd_lease *lease, const struct tgs_span *span);

/* A large span gets longer (the pages are in use and backed) or shorter (the rest becomes free). */
void tgd_lease_resize(struct tgd_lease *lease, struct tgs_span *span, uint64_t n_pages);

/* An empty span ends. */
void tgd_lease_destroy(struct tgd_lease *lease, const struct tgs_span *span);

/* ---- for a daemon that takes the files over ---- */

/* A span that stands in the page map, whole.  The pages are in use in the page heap by now, or
 * soon. */
void tgd_lease_found(struct tgd_lease *lease, const struct tgs_span *span);

/* Not listed yet: all entries name the span's owner, and say whether its words have memory. */
void tgd_lease_finish_move(struct tgd_lease *lease, const struct tgs_span *span);

/* Not listed: the first n entries, all that are left, go. */
void tgd_lease_finish_end(struct tgd_lease *lease, const struct tgs_span *span, uint64_t n);

/* Neighbours in a span's list: the one that was added after it, the one before. */
static inline uint32_t tgd_lease_prev(const struct tgd_lease *lease, uint32_t page)
{
	return lease->links[page].prev;
}

static inline uint32_t tgd_lease_next(const struct tgd_lease *lease, uint32_t page)
{
	return lease->links[page].next;
}
