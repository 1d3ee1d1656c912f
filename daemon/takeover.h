/* takeover.h - the parts of tgd_heap_adopt, for takeover*.c alone.
 *
 * First everything is looked at (tgd_takeover_check) and nothing changed: what no killed daemon can
 * have left is refused with a sentence that says where it is and what is wrong.  Then everything is
 * rebuilt.  A daemon killed while rebuilding leaves what the next one can take over in the same
 * way.
 *
 * Of the map only what was ever written is read: reading a hole would make the kernel fill it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/heap-impl.h"
#include "shm/span.h"

struct tgd_takeover {
	struct tgd_heap *heap;
	char *why; /* the sentence, if it is refused */
	size_t why_size;
};

/* A span as its entries have it. */
struct tgd_takeover_span {
	struct tgs_span span; /* owner: by the first page's entry */
	uint64_t
		n_entries; /* that are there; fewer than it should have: half made, or half ended */
	bool half_moved;   /* the last ones name the owner before */
};

/* Writes the sentence and returns -EPROTO. */
int tgd_takeover_refuse(struct tgd_takeover *takeover, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The first span at this page or above: 1; there is none: 0; what is there is no span: -EPROTO.
 * The next one lies at span.page + span.n_pages or above, also if entries are missing. */
int tgd_takeover_next(struct tgd_takeover *takeover, uint64_t page, struct tgd_takeover_span *ret);

/* The whole page map; the tables and the header. */
int tgd_takeover_check_map(struct tgd_takeover *takeover);
int tgd_takeover_check_tables(struct tgd_takeover *takeover, const char *name);
