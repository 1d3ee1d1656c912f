/* links.c - turns with what hangs on links: stacks, cells of objects of all sizes, cells of tiny ones, mailboxes.
 *
 * Who takes an object out of a link reads it first, and by the swap that then succeeds it knows that what it read was
 * alive: it must have been whole.
 */
#include <errno.h>

#include "client/process.h"
#include "tests/storm/storm.h"

/* tg_swap_seen, timed.  An object in a link is alive for as long as it is there. */
bool storm_swap_seen(struct storm_worker *w, tg_link *link, uint64_t seen, void *desired,
		     unsigned flags)
{
	uint64_t since = storm_now_ns();
	bool swung = tg_swap_seen(link, seen, desired, flags);
	int error = errno;

	storm_time(w->book, STORM_CALL_SWAP, since);
	if (!swung && error != 0)
		storm_fail("tg_swap_seen: errno %d; a link that %s", error,
			   tg_link_look(link, NULL) == seen ? "has not changed" : "has changed");
	return swung;
}

static void taken(struct storm_name name, bool ok, const char *from)
{
	if (!ok)
		storm_fail("what came out of a %s was damaged", from);
	else if (storm_mark(storm_board->took, name))
		storm_fail("object %u of seat %u came out of a %s, and was taken before",
			   name.number, name.seat, from);
}

/* What the doubt says of an object that is taken. */
static void note_taking(struct storm_worker *w, enum storm_op op, unsigned index, uint64_t ref,
			struct storm_name name)
{
	struct storm_entry *fresh = &w->book->doubt.fresh;

	fresh->has_head = true;
	fresh->published = true;
	fresh->kind = STORM_PRIVATE;
	fresh->maker = (uint16_t)name.seat;
	fresh->number = name.number;
	atomic_store(&fresh->ref, ref);
	storm_doubt(w, op, index);
}

bool storm_give(struct storm_worker *w, tg_link *link, uint64_t seen, unsigned index)
{
	struct storm_entry *entry = &w->book->table[index];
	bool swung;

	storm_doubt(w, STORM_GIVE, index);
	swung = storm_swap_seen(w, link, seen, tg_from_ref(entry->ref), TG_GIVE);
	if (swung) {
		storm_mark(storm_board->gave, (struct storm_name){entry->maker, entry->number});
		atomic_store(&entry->ref, 0);
	}
	storm_no_doubt(w);
	return swung;
}

/* Takes what the link leads to out of it, for good; `next` takes its place. */
bool storm_retire(struct storm_worker *w, tg_link *link, uint64_t seen, const void *there,
		  enum storm_kind kind, void *next, const char *from)
{
	struct storm_name name;
	bool ok, swung;

	ok = storm_object_ok(there, kind, &name);
	if (!ok && tg_link_look(link, NULL) != seen)
		return false;
	note_taking(w, STORM_RETIRE, STORM_TABLE, 0, ok ? name : (struct storm_name){0});
	swung = storm_swap_seen(w, link, seen, next, TG_RETIRE);
	if (swung)
		taken(name, ok, from);
	storm_no_doubt(w);
	return swung;
}

/* Gives the entry's object and retires what was there, in one step. */
bool storm_exchange(struct storm_worker *w, tg_link *link, uint64_t seen, const void *there,
		    enum storm_kind kind, unsigned index, const char *from)
{
	struct storm_entry *entry = &w->book->table[index];
	struct storm_name name;
	bool ok, swung;

	if (there == NULL)
		return storm_give(w, link, seen, index);
	ok = storm_object_ok(there, kind, &name);
	if (!ok && tg_link_look(link, NULL) != seen)
		return false;
	note_taking(w, STORM_EXCHANGE, index, 0, ok ? name : (struct storm_name){0});
	swung = storm_swap_seen(w, link, seen, tg_from_ref(entry->ref), TG_GIVE | TG_RETIRE);
	if (swung) {
		taken(name, ok, from);
		storm_mark(storm_board->gave, (struct storm_name){entry->maker, entry->number});
		atomic_store(&entry->ref, 0);
	}
	storm_no_doubt(w);
	return swung;
}

unsigned storm_new_entry(struct storm_worker *w, enum storm_kind kind, size_t size)
{
	unsigned index = storm_free_entry(w);

	/* Without a number left, nothing is given any more. */
	if (index == STORM_TABLE || w->book->numbers >= STORM_NUMBERS)
		return STORM_TABLE;
	return storm_new(w, index, kind, size) != NULL ? index : STORM_TABLE;
}

/* ---- stacks ---- */

#define DEPTH_MAX 100

static void push(struct storm_worker *w, tg_link *stack)
{
	unsigned index =
		storm_new_entry(w, STORM_NODE, sizeof(struct storm_head) + storm_random(w, 700));
	struct storm_head *node;
	unsigned tries;

	if (index == STORM_TABLE)
		return;
	node = tg_from_ref(w->book->table[index].ref);
	for (tries = 0; tries < 100; tries++) {
		void *top;
		uint64_t seen = tg_link_look(stack, &top);
		const struct storm_head *head = top;

		atomic_store(&node->next, tg_to_ref(top));
		node->depth = head != NULL ? *(const volatile uint64_t *)&head->depth + 1 : 1;
		if (storm_give(w, stack, seen, index))
			return;
	}
	storm_free_at(w, index);
}

static void pop(struct storm_worker *w, tg_link *stack)
{
	unsigned tries;

	for (tries = 0; tries < 100; tries++) {
		void *top, *next;
		uint64_t seen = tg_link_look(stack, &top), ref;

		if (top == NULL)
			return;
		ref = atomic_load(&((struct storm_head *)top)->next);
		next = tg_from_ref(ref);
		if ((next == NULL) != (ref == 0)) {
			if (tg_link_look(stack, NULL) == seen)
				storm_fail("the top of a stack leads out of the heap");
			continue;
		}
		if (storm_retire(w, stack, seen, top, STORM_NODE, next, "stack"))
			return;
	}
}

void storm_turn_stack(struct storm_worker *w)
{
	tg_link *stack = &w->arena->stacks[storm_random(w, STORM_STACKS)];
	void *top;
	uint64_t depth;

	tg_link_look(stack, &top);
	depth = top != NULL ? *(const volatile uint64_t *)&((struct storm_head *)top)->depth : 0;
	if (depth < DEPTH_MAX && storm_random(w, 2) != 0)
		push(w, stack);
	else
		pop(w, stack);
}

/* ---- cells ---- */

void storm_turn_cell(struct storm_worker *w)
{
	tg_link *cell = &w->arena->cells[storm_random(w, STORM_CELLS)];
	size_t size = sizeof(struct storm_head) + ((size_t)1 << storm_random(w, 17)) - 1;
	unsigned tries, index;
	uint64_t seen;
	void *there;

	if (storm_random(w, 8) == 0) {
		seen = tg_link_look(cell, &there);
		if (there != NULL)
			storm_retire(w, cell, seen, there, STORM_CELL, NULL, "cell");
		return;
	}
	index = storm_new_entry(w, STORM_CELL, size);
	if (index == STORM_TABLE)
		return;
	for (tries = 0; tries < 10; tries++) {
		seen = tg_link_look(cell, &there);
		if (storm_exchange(w, cell, seen, there, STORM_CELL, index, "cell"))
			return;
	}
	storm_free_at(w, index);
}

/* ---- tiny objects: they have no names, but their size is known by the cell ---- */

void storm_turn_tiny(struct storm_worker *w)
{
	unsigned i = (unsigned)storm_random(w, STORM_TINIES), index = storm_free_entry(w);
	tg_link *cell = &w->arena->tinies[i];
	struct storm_entry *entry;
	bool swung, ok;
	uint64_t seen;
	void *p, *there;

	if (index == STORM_TABLE)
		return;
	p = storm_new(w, index, STORM_TINY, i + 1);
	if (p == NULL)
		return;
	entry = &w->book->table[index];
	/* From here on its pattern is another one: an entry that does not match is one in doubt. */
	storm_doubt(w, STORM_GIVE, index);
	storm_tiny_make(p, i + 1, w->random);
	seen = tg_link_look(cell, &there);
	ok = there == NULL || storm_tiny_ok(there, i + 1);
	swung = storm_swap_seen(w, cell, seen, p, TG_GIVE | TG_RETIRE);
	if (swung) {
		if (!ok)
			storm_fail("a tiny object of %u bytes was damaged", i + 1);
		atomic_store(&entry->ref, 0);
		storm_no_doubt(w);
		return;
	}
	storm_doubt(w, STORM_FREE, index);
	tg_free(p);
	atomic_store(&entry->ref, 0);
	storm_no_doubt(w);
}

/* ---- mailboxes: what is taken out becomes the taker's, who later frees what another process made ---- */

static void take_mail(struct storm_worker *w)
{
	tg_link *box = &w->arena->mailboxes[w->seat];
	unsigned index = storm_free_entry(w);
	struct storm_entry *fresh = &w->book->doubt.fresh;
	struct storm_name name;
	uint64_t seen;
	void *p;

	seen = tg_link_look(box, &p);
	if (p == NULL || index == STORM_TABLE)
		return;
	/* Nobody else takes out of this box. */
	if (!storm_object_ok(p, STORM_PRIVATE, &name)) {
		storm_fail("what lies in the mailbox of seat %u is damaged", w->seat);
		return;
	}
	fresh->size = ((struct storm_head *)p)->size;
	note_taking(w, STORM_TAKE, index, tg_to_ref(p), name);
	if (storm_swap_seen(w, box, seen, NULL, 0)) {
		storm_entry_set(&w->book->table[index], fresh);
		taken(name, true, "mailbox");
	} else {
		storm_fail("the mailbox of seat %u has changed", w->seat);
	}
	storm_no_doubt(w);
}

static void send_mail(struct storm_worker *w)
{
	unsigned other = (w->seat + 1 + (unsigned)storm_random(w, STORM_SEATS - 1)) % STORM_SEATS;
	tg_link *box = &w->arena->mailboxes[other];
	unsigned index = (unsigned)storm_random(w, STORM_TABLE);
	const struct storm_entry *entry = &w->book->table[index];
	void *there;
	uint64_t seen = tg_link_look(box, &there);

	/* Only what was never given before: it is delivered once. */
	if (there == NULL && entry->ref != 0 && entry->has_head && entry->maker == w->seat &&
	    entry->kind == STORM_PRIVATE)
		storm_give(w, box, seen, index);
}

void storm_turn_mail(struct storm_worker *w)
{
	if (storm_random(w, 2) == 0)
		take_mail(w);
	else
		send_mail(w);
}
