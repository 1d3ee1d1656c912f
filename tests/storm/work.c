/* work.c - turns of a thread with objects of its own: malloc, free, realloc, publish, and its root.
 *
 * Every change of the book is such that a kill between any two stores leaves it in order: what an entry holds is written
 * before its ref; what changes as a whole is first written beside (`fresh`) and then copied, by whoever comes next.
 */
#include <stdio.h>
#include <string.h>

#include "tests/storm/storm.h"
#include "tests/support/fixture.h"

uint64_t storm_random(struct storm_worker *w, uint64_t below)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (w->random * UINT64_C(0x2545f4914f6cdd1d) >> 20) % below;
}

/* 1 byte to 100 KiB, as many of each order of magnitude. */
static size_t some_size(struct storm_worker *w)
{
	size_t top = (size_t)2 << storm_random(w, 17);
	size_t size = top / 2 + storm_random(w, top / 2);

	return size < STORM_SIZE_MAX ? size : STORM_SIZE_MAX;
}

/* ---- the book ---- */

unsigned storm_free_entry(struct storm_worker *w)
{
	unsigned start = (unsigned)storm_random(w, STORM_TABLE), i;

	for (i = 0; i < STORM_TABLE; i++) {
		unsigned index = (start + i) % STORM_TABLE;

		if (w->book->table[index].ref == 0)
			return index;
	}
	return STORM_TABLE;
}

static unsigned some_entry(struct storm_worker *w)
{
	unsigned index = (unsigned)storm_random(w, STORM_TABLE);

	return w->book->table[index].ref != 0 ? index : STORM_TABLE;
}

void storm_doubt(struct storm_worker *w, enum storm_op op, unsigned index)
{
	w->book->doubt.index = index;
	atomic_store(&w->book->doubt.op, op);
}

void storm_no_doubt(struct storm_worker *w)
{
	atomic_store(&w->book->doubt.op, STORM_NOTHING);
}

void storm_entry_set(struct storm_entry *to, const struct storm_entry *from)
{
	atomic_store(&to->ref, 0);
	to->seed = from->seed;
	to->size = from->size;
	to->number = from->number;
	to->maker = from->maker;
	to->kind = from->kind;
	to->has_head = from->has_head;
	to->published = from->published;
	atomic_store(&to->ref, from->ref);
}

bool storm_entry_ok(const struct storm_entry *entry)
{
	const void *p = tg_from_ref(entry->ref);
	struct storm_name name;

	if (p == NULL)
		return false;
	if (!entry->has_head)
		return tgt_is_filled(p, entry->size, entry->seed);
	return storm_object_ok(p, entry->kind, &name) && name.seat == entry->maker &&
	       name.number == entry->number;
}

static void check_entry(const struct storm_entry *entry, const char *when)
{
	bool lives = tg_usable_size(tg_from_ref(entry->ref)) >= entry->size;

	if (!lives || !storm_entry_ok(entry))
		storm_fail("object %llx of %u bytes, number %u of seat %u, kind %u, %s, %s %s",
			   (unsigned long long)entry->ref, entry->size, entry->number, entry->maker,
			   entry->kind, entry->published ? "published" : "private",
			   lives ? "is damaged" : "does not live", when);
}

void storm_check_book(const struct storm_book *book, const char *when)
{
	unsigned i;

	for (i = 0; i < STORM_TABLE; i++) {
		if (book->table[i].ref != 0)
			check_entry(&book->table[i], when);
	}
	if (book->root.ref != 0)
		check_entry(&book->root, when);
}

/* ---- objects of one's own ---- */

static void fill(struct storm_worker *w, void *p, struct storm_entry *entry, enum storm_kind kind,
		 size_t size)
{
	uint32_t number = w->book->numbers;

	entry->size = (uint32_t)size;
	entry->maker = (uint16_t)w->seat;
	entry->kind = (uint16_t)kind;
	entry->published = false;
	entry->has_head = size >= sizeof(struct storm_head) && number < STORM_NUMBERS;
	if (entry->has_head) {
		entry->number = number;
		atomic_store(&w->book->numbers, number + 1);
		storm_object_make(p, kind, w->seat, number, size);
	} else {
		entry->seed = w->random;
		tgt_fill_object(p, size, entry->seed);
	}
}

void *storm_new(struct storm_worker *w, unsigned index, enum storm_kind kind, size_t size)
{
	struct storm_entry *entry = &w->book->table[index];
	uint64_t since;
	void *p;

	w->book->doubt.size = (uint32_t)size;
	storm_doubt(w, STORM_MALLOC, index);
	since = storm_now_ns();
	p = tg_malloc(size);
	storm_time(w->book, size > 32768 ? STORM_CALL_LARGE : STORM_CALL_MALLOC, since);
	if (p == NULL) {
		storm_fail("tg_malloc(%zu): %m", size);
	} else {
		fill(w, p, entry, kind, size);
		atomic_store(&entry->ref, tg_to_ref(p));
	}
	storm_no_doubt(w);
	return p;
}

void storm_free_at(struct storm_worker *w, unsigned index)
{
	struct storm_entry *entry = &w->book->table[index];
	uint64_t since;

	check_entry(entry, "when its owner frees it");
	storm_doubt(w, STORM_FREE, index);
	since = storm_now_ns();
	tg_free(tg_from_ref(entry->ref));
	storm_time(w->book, entry->maker == w->seat ? STORM_CALL_FREE : STORM_CALL_FREE_OTHERS,
		   since);
	atomic_store(&entry->ref, 0);
	storm_no_doubt(w);
}

/* The part of the pattern that both sizes have must still be there. */
static void resize(struct storm_worker *w, unsigned index)
{
	struct storm_entry *entry = &w->book->table[index];
	struct storm_entry *fresh = &w->book->doubt.fresh;
	size_t size = some_size(w), kept = size < entry->size ? size : entry->size;
	uint64_t since;
	void *p;

	check_entry(entry, "before it is resized");
	w->book->doubt.size = (uint32_t)size;
	storm_doubt(w, STORM_REALLOC, index);
	since = storm_now_ns();
	p = tg_realloc(tg_from_ref(entry->ref), size);
	storm_time(w->book, STORM_CALL_REALLOC, since);
	if (p == NULL) {
		storm_fail("tg_realloc to %zu: %m", size);
		storm_no_doubt(w);
		return;
	}
	if (!entry->has_head && !tgt_is_filled(p, kept, entry->seed))
		storm_fail("an object of %u bytes is damaged after realloc to %zu", entry->size,
			   size);
	fill(w, p, fresh, STORM_PRIVATE, size);
	atomic_store(&fresh->ref, tg_to_ref(p));
	storm_doubt(w, STORM_BECOMES, index);
	storm_entry_set(entry, fresh);
	storm_no_doubt(w);
}

static void publish(struct storm_worker *w, unsigned index)
{
	struct storm_entry *entry = &w->book->table[index];
	uint64_t since;
	int r;

	storm_doubt(w, STORM_PUBLISH, index);
	since = storm_now_ns();
	r = tg_publish(tg_from_ref(entry->ref));
	storm_time(w->book, STORM_CALL_PUBLISH, since);
	if (r < 0)
		storm_fail("tg_publish of a live object: %d", r);
	entry->published = true;
	storm_no_doubt(w);
}

/* The seat's root leads to a new object, and the one that it led to is in the table again. */
static void set_root(struct storm_worker *w)
{
	struct storm_doubt *doubt = &w->book->doubt;
	unsigned index = storm_free_entry(w);
	struct storm_entry *entry;
	char name[40];
	uint64_t since;
	void *p;
	int r;

	if (index == STORM_TABLE || w->book->numbers >= STORM_NUMBERS)
		return;
	p = storm_new(w, index, STORM_ROOT, sizeof(struct storm_head) + storm_random(w, 300));
	if (p == NULL)
		return;
	entry = &w->book->table[index];
	snprintf(name, sizeof(name), "storm-%u-%u", w->seat, w->book->root_name);
	storm_doubt(w, STORM_SET_ROOT, index);
	since = storm_now_ns();
	r = tg_root_set(name, p);
	storm_time(w->book, STORM_CALL_ROOT, since);
	if (r < 0) {
		storm_fail("tg_root_set(%s): %d", name, r);
		storm_no_doubt(w);
		return;
	}
	if (tg_root_get(name) != p)
		storm_fail("root %s does not lead where it was set to", name);
	storm_entry_set(&doubt->fresh, entry);
	doubt->fresh.published = true;
	storm_entry_set(&doubt->old, &w->book->root);
	storm_doubt(w, STORM_ROOT_SET, index);
	storm_entry_set(entry, &doubt->old);
	storm_entry_set(&w->book->root, &doubt->fresh);
	storm_no_doubt(w);
}

void storm_turn_table(struct storm_worker *w)
{
	unsigned what = (unsigned)storm_random(w, 1000);
	unsigned index = what < 450 ? storm_free_entry(w) : some_entry(w);

	if (what == 999) {
		set_root(w);
		return;
	}
	if (index == STORM_TABLE)
		return;
	if (what >= 600)
		check_entry(&w->book->table[index], "when its owner looks at it");
	if (what < 450)
		storm_new(w, index, STORM_PRIVATE, some_size(w));
	else if (what < 850)
		storm_free_at(w, index);
	else if (what >= 900)
		publish(w, index);
	else if (!w->book->table[index].published)
		resize(w, index);
}
