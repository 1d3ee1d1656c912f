/* settle.c - what the driver does with the books of a process that has died: each doubt becomes certain, or is written
 * down as a *maybe*, for the audit.
 *
 * Under reclaim, what was not published is gone.  What was published, or is kept, and whose free was under way may be
 * there or not.  Of an object that was on its way into a link we know that it is there, or that somebody has got it.
 */
#include <stdio.h>

#include "tests/storm/storm.h"

void storm_drop_private(struct storm_book *book)
{
	unsigned i;

	for (i = 0; i < STORM_TABLE; i++) {
		if (!book->table[i].published)
			atomic_store(&book->table[i].ref, 0);
	}
}

static void add_maybe(struct storm_book *book, const struct storm_entry *entry, bool must)
{
	struct storm_maybe *maybe;

	if (entry->ref == 0)
		return;
	if (book->n_maybes == STORM_MAYBES) {
		storm_fail("more doubts than there is room for");
		return;
	}
	maybe = &book->maybes[book->n_maybes++];
	storm_entry_set(&maybe->entry, entry);
	maybe->must = must;
}

/* Somebody was just being handed an object of that size, or was to free one whose content is not known. */
static void add_unknown(struct storm_book *book, size_t size, bool reclaims)
{
	if (!reclaims)
		book->n_unknown[storm_class(size)]++;
}

static struct storm_name name_of(const struct storm_entry *entry)
{
	return (struct storm_name){entry->maker, entry->number};
}

/* It was given, or it was not. */
static void settle_give(struct storm_book *book, struct storm_entry *entry, bool reclaims)
{
	if (entry->ref == 0)
		return;
	if (!entry->has_head) {
		/* A tiny one: it has no name. */
		add_unknown(book, entry->size, reclaims);
	} else {
		storm_mark(storm_board->maybe_gave, name_of(entry));
		if (!reclaims || entry->published)
			add_maybe(book, entry, true);
	}
	atomic_store(&entry->ref, 0);
}

static void settle_take(struct storm_book *book, struct storm_entry *entry,
			const struct storm_entry *fresh)
{
	if (entry->ref != 0) {
		storm_mark(storm_board->took, name_of(fresh));
		return;
	}
	storm_mark(storm_board->maybe_took, name_of(fresh));
	add_maybe(book, fresh, false);
}

/* Nobody knows what the root leads to: the seat goes on with another one. */
static void settle_root(struct storm_book *book, struct storm_entry *entry)
{
	add_maybe(book, &book->root, false);
	add_maybe(book, entry, false);
	atomic_store(&book->root.ref, 0);
	atomic_store(&entry->ref, 0);
	book->root_name++;
}

static void settle(struct storm_book *book, bool reclaims)
{
	struct storm_doubt *doubt = &book->doubt;
	struct storm_entry none = {0};
	struct storm_entry *entry = doubt->index < STORM_TABLE ? &book->table[doubt->index] : &none;

	switch ((enum storm_op)doubt->op) {
	case STORM_NOTHING:
		break;
	case STORM_MALLOC:
		if (entry->ref == 0)
			add_unknown(book, doubt->size, reclaims);
		break;
	case STORM_REALLOC:
		add_unknown(book, doubt->size, reclaims);
		/* fall through */
	case STORM_FREE:
		/* A tiny object's pattern may have changed since it was noted. */
		if (entry->kind == STORM_TINY)
			add_unknown(book, entry->size, reclaims);
		else if (!reclaims || entry->published)
			add_maybe(book, entry, false);
		atomic_store(&entry->ref, 0);
		break;
	case STORM_BECOMES:
		storm_entry_set(entry, &doubt->fresh);
		break;
	case STORM_EXCHANGE:
		if (entry->ref != 0)
			storm_mark(storm_board->maybe_took, name_of(&doubt->fresh));
		else
			storm_mark(storm_board->took, name_of(&doubt->fresh));
		/* fall through */
	case STORM_GIVE:
		settle_give(book, entry, reclaims);
		break;
	case STORM_TAKE:
		settle_take(book, entry, &doubt->fresh);
		break;
	case STORM_RETIRE:
		storm_mark(storm_board->maybe_took, name_of(&doubt->fresh));
		break;
	case STORM_PUBLISH:
		if (reclaims && !entry->published) {
			add_maybe(book, entry, false);
			atomic_store(&entry->ref, 0);
		}
		break;
	case STORM_SET_ROOT:
		settle_root(book, entry);
		break;
	case STORM_ROOT_SET:
		storm_entry_set(entry, &doubt->old);
		storm_entry_set(&book->root, &doubt->fresh);
		break;
	}
	atomic_store(&doubt->op, STORM_NOTHING);
}

void storm_settle(unsigned client, bool killed)
{
	bool reclaims = storm_reclaims(client);
	unsigned i;

	for (i = 0; i < STORM_THREADS; i++) {
		struct storm_book *book = &storm_board->books[client * STORM_THREADS + i];

		if (!killed && book->doubt.op != STORM_NOTHING)
			storm_fail("a thread of client %u ended in the middle of operation %u",
				   client, book->doubt.op);
		settle(book, reclaims);
		if (reclaims)
			storm_drop_private(book);
	}
}
