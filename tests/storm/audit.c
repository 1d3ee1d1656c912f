/* audit.c - the last client's walk of the heap: every live object is accounted for, and every object that should live
 * does.
 *
 * First a census: where an object lives, from the page map and the state bits.  Then whatever is reachable, or named by a
 * book, crosses its line out; twice is wrong, and so is a line that is not there.  What is left must be among the maybes,
 * or, of clients that keep, be one that a killed thread was just being handed.  Then each object that was given through a
 * link must have been taken exactly once, or be reachable.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/process.h"
#include "shm/span.h"
#include "tests/storm/storm.h"

struct live {
	uint64_t ref;
	bool explained;
};

static struct live *lives;
static size_t n_lives, room;
static uint64_t n_reachable, n_owned, n_maybe, n_unknown;

static void add_live(uint64_t ref)
{
	if (n_lives == room) {
		room = room ? 2 * room : 4096;
		lives = realloc(lives, room * sizeof(*lives));
		if (lives == NULL)
			abort();
	}
	lives[n_lives++] = (struct live){ref, false};
}

static void count_span(const struct tgs_span *span)
{
	const struct tgs_class *class = &tgs_classes[span->class];
	uint64_t start = tgc_heap.geometry.data_at + (span->page << TGS_PAGE_SHIFT);
	unsigned unit;

	for (unit = 0; unit < tgs_span_units(span->n_slots); unit++) {
		uint64_t bits = tgs_taken_bits(&tgc_heap, class->kind, span->page, unit) &
				~tgs_remote_bits(&tgc_heap, class->kind, span->page, unit);

		for (; bits != 0; bits &= bits - 1) {
			uint64_t index = unit * 64 + (unsigned)__builtin_ctzll(bits);
			uint64_t size = span->class == TGS_CLASS_TINY ? 1 : class->size;

			add_live(start + index * size);
		}
	}
}

/* In order of addresses. */
static void take_census(void)
{
	struct tgs_span span;
	uint64_t page = 0;

	n_lives = n_reachable = n_owned = n_maybe = n_unknown = 0;
	while (page < tgc_heap.geometry.n_pages) {
		if (tgs_span_at(&tgc_heap, page, &span) && span.page == page) {
			count_span(&span);
			page += span.n_pages;
		} else {
			page++;
		}
	}
}

static struct live *find(uint64_t ref)
{
	size_t low = 0, high = n_lives;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (lives[middle].ref < ref)
			low = middle + 1;
		else
			high = middle;
	}
	return low < n_lives && lives[low].ref == ref ? &lives[low] : NULL;
}

/* The object lives, and this is why. */
static bool explain(uint64_t ref, const char *what, uint64_t *n)
{
	struct live *live = find(ref);

	if (live == NULL)
		storm_fail("lost: %s at %llx", what, (unsigned long long)ref);
	else if (live->explained)
		storm_fail("two have it: %s at %llx", what, (unsigned long long)ref);
	else
		live->explained = true;
	(*n)++;
	return live != NULL;
}

/* ---- reachable ---- */

static _Atomic uint64_t (*reached)[STORM_NUMBERS / 64];

static void reach(const void *p, enum storm_kind kind, const char *what)
{
	struct storm_name name;

	if (!explain(tg_to_ref(p), what, &n_reachable))
		return;
	if (!storm_object_ok(p, kind, &name))
		storm_fail("damaged: %s at %p", what, p);
	else if (kind != STORM_ROOT && storm_mark(reached, name))
		storm_fail("reached twice: %s at %p", what, p);
}

static void reach_bucket(const struct storm_arena *arena, const struct storm_bucket *bucket)
{
	unsigned i;

	reach(bucket, STORM_BUCKET, "bucket");
	for (i = 0; i < STORM_BUCKET_LINKS; i++) {
		const void *leaf = tg_link_get(&bucket->links[i]);

		if (leaf != arena->marks.empty && leaf != arena->marks.sealed)
			reach(leaf, STORM_LEAF, "leaf of a bucket");
	}
}

static void reach_links(const struct storm_arena *arena)
{
	const struct storm_head *node;
	unsigned i;

	explain(tg_to_ref(arena), "arena", &n_reachable);
	for (i = 0; i < STORM_STACKS; i++) {
		for (node = tg_link_get(&arena->stacks[i]); node != NULL;
		     node = tg_from_ref(node->next)) {
			uint64_t before = n_reachable;

			reach(node, STORM_NODE, "node of a stack");
			/* In a ring it would go on for ever. */
			if (n_reachable == before || n_reachable > n_lives)
				break;
		}
	}
	for (i = 0; i < STORM_CELLS; i++) {
		if (tg_link_get(&arena->cells[i]) != NULL)
			reach(tg_link_get(&arena->cells[i]), STORM_CELL, "object in a cell");
	}
	for (i = 0; i < STORM_BUCKETS; i++) {
		if (tg_link_get(&arena->buckets[i]) != NULL)
			reach_bucket(arena, tg_link_get(&arena->buckets[i]));
	}
	for (i = 0; i < STORM_SEATS; i++) {
		if (tg_link_get(&arena->mailboxes[i]) != NULL)
			reach(tg_link_get(&arena->mailboxes[i]), STORM_PRIVATE,
			      "object in a mailbox");
	}
	for (i = 0; i < STORM_TINIES; i++) {
		const void *p = tg_link_get(&arena->tinies[i]);

		if (p != NULL && explain(tg_to_ref(p), "tiny object", &n_reachable) &&
		    !storm_tiny_ok(p, i + 1))
			storm_fail("damaged: tiny object of %u bytes", i + 1);
	}
}

/* What the roots lead to, also those that were given up, and the end of them all. */
static void reach_roots(void)
{
	unsigned seat, i;
	char name[40];

	for (seat = 0; seat < STORM_SEATS; seat++) {
		const struct storm_book *book = &storm_board->books[seat];

		for (i = 0; i <= book->root_name; i++) {
			const void *p;

			snprintf(name, sizeof(name), "storm-%u-%u", seat, i);
			p = tg_root_get(name);
			if (i == book->root_name && tg_to_ref(p) != book->root.ref)
				storm_fail("root %s leads to %p, not where it was set to", name, p);
			if (p == NULL)
				continue;
			reach(p, STORM_ROOT, "object of a root");
			if (tg_root_set(name, NULL) < 0)
				storm_fail("root %s cannot be removed", name);
		}
	}
	if (tg_root_set(STORM_ARENA_ROOT, NULL) < 0)
		storm_fail("the root of the arena cannot be removed");
}

/* ---- in the books ---- */

static void check_tables(void)
{
	unsigned seat, i;

	for (seat = 0; seat < STORM_SEATS; seat++) {
		for (i = 0; i < STORM_TABLE; i++) {
			const struct storm_entry *entry = &storm_board->books[seat].table[i];

			if (entry->ref == 0)
				continue;
			if (explain(entry->ref, "object in a book", &n_owned) &&
			    !storm_entry_ok(entry))
				storm_fail("damaged: object of %u bytes in the book of seat %u",
					   entry->size, seat);
		}
	}
}

static bool delivered(const struct storm_entry *entry)
{
	struct storm_name name = {entry->maker, entry->number};

	return storm_marked(storm_board->took, name) || storm_marked(reached, name) ||
	       storm_marked(storm_board->maybe_took, name);
}

static void check_maybes(void)
{
	unsigned seat, i;

	for (seat = 0; seat < STORM_SEATS; seat++) {
		for (i = 0; i < storm_board->books[seat].n_maybes; i++) {
			const struct storm_maybe *maybe = &storm_board->books[seat].maybes[i];
			struct live *live = find(maybe->entry.ref);

			if (live != NULL && !live->explained && storm_entry_ok(&maybe->entry)) {
				live->explained = true;
				n_maybe++;
			} else if (maybe->must && !delivered(&maybe->entry)) {
				storm_fail("lost: an object that seat %u was giving", seat);
			}
		}
	}
}

static void say_leaked(const struct live *live)
{
	const struct storm_head *head = tg_from_ref(live->ref);
	struct tgs_object object;

	tgs_object_find(&tgc_heap, head, &object);
	storm_fail("leaked: class %u, %zu bytes at %llx, %s (kind %u, seat %u, number %llu, if it "
		   "has any)",
		   object.span.class, tg_usable_size(head), (unsigned long long)live->ref,
		   tgs_published_bits(&tgc_heap, tgs_classes[object.span.class].kind,
				      object.span.page, object.unit) &
				   object.bit
			   ? "published"
			   : "private",
		   head->kind, head->seat, (unsigned long long)head->number);
}

/* What nothing explains is what killed threads of clients that keep were just being handed. */
static void check_rest(void)
{
	unsigned may[TGS_CLASSES_ALL] = {0}, seat, class, n_may = 0;
	struct tgs_object object;
	size_t i;

	for (seat = 0; seat < STORM_SEATS; seat++) {
		for (class = 0; class < TGS_CLASSES_ALL; class ++) {
			may[class] += storm_board->books[seat].n_unknown[class];
			n_may += storm_board->books[seat].n_unknown[class];
		}
	}
	for (i = 0; i < n_lives; i++) {
		if (lives[i].explained)
			continue;
		tgs_object_find(&tgc_heap, tg_from_ref(lives[i].ref), &object);
		if (may[object.span.class] == 0)
			say_leaked(&lives[i]);
		else
			may[object.span.class]--;
		n_unknown++;
	}
	printf("    %zu objects are left: %llu reachable, %llu in books, %llu being freed or "
	       "handed "
	       "over, %llu (of at most %u) being allocated\n",
	       n_lives, (unsigned long long)n_reachable, (unsigned long long)n_owned,
	       (unsigned long long)n_maybe, (unsigned long long)n_unknown, n_may);
}

/* ---- delivered exactly once ---- */

static void check_deliveries(void)
{
	uint64_t n = 0, lost = 0, twice = 0, never_given = 0;
	unsigned seat, i;

	for (seat = 0; seat < STORM_SEATS; seat++) {
		for (i = 0; i < STORM_NUMBERS / 64; i++) {
			uint64_t gave = storm_board->gave[seat][i];
			uint64_t took = storm_board->took[seat][i];
			uint64_t there = reached[seat][i];

			n += (unsigned)__builtin_popcountll(gave);
			lost += (unsigned)__builtin_popcountll(gave & ~took & ~there &
							       ~storm_board->maybe_took[seat][i]);
			twice += (unsigned)__builtin_popcountll(took & there);
			never_given += (unsigned)__builtin_popcountll(
				(took | there) & ~gave & ~storm_board->maybe_gave[seat][i]);
		}
	}
	if (lost + twice + never_given > 0)
		storm_fail("of %llu objects given, %llu are lost, %llu are there and were taken; "
			   "%llu others were not given",
			   (unsigned long long)n, (unsigned long long)lost,
			   (unsigned long long)twice, (unsigned long long)never_given);
	printf("    %llu objects went through links, each once\n", (unsigned long long)n);
}

uint64_t storm_audit(void)
{
	const struct storm_arena *arena = tg_root_get(STORM_ARENA_ROOT);
	size_t i;

	if (arena == NULL) {
		storm_fail("the root of the arena is gone");
		return 0;
	}
	reached = calloc(STORM_SEATS, sizeof(*reached));
	if (reached == NULL)
		abort();
	take_census();
	reach_links(arena);
	reach_roots();
	check_tables();
	check_maybes();
	check_rest();
	check_deliveries();
	for (i = 0; i < n_lives; i++)
		tg_free(tg_from_ref(lives[i].ref));
	free(reached);
	free(lives);
	lives = NULL;
	room = 0;
	return n_lives;
}
