/* storm.h - many clients at work on one heap, any of them killed at any time, and books by which all is added up.
 *
 * Books.  What a thread owns and what it is about to do stand in the *board*, memory that all processes of the test share
 * and that is not in the heap.  A *seat* is the place of one thread of one client: its book outlives the process, and the
 * next process in that place goes on with what the book names.  So what may be left in the heap is known to the object,
 * but for one object a killed thread: the one that it was being handed.  A thread writes down what it is about to do (the
 * doubt), does it, changes the book, and crosses the doubt out; the driver, which nobody kills, settles the doubts of the
 * dead (settle.c).
 *
 * Objects of HEAD bytes and more say what they are: maker and number name one for good.  What is given through a link is
 * marked in the maker's `gave` bits, what is taken out of one in its `took` bits: each is delivered exactly once.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/tg.h"
#include "shm/sizeclass.h"

#define STORM_CLIENTS  8
#define STORM_THREADS  4 /* of each client */
#define STORM_SEATS    (STORM_CLIENTS * STORM_THREADS)
#define STORM_TABLE    48         /* objects that a thread owns, at most */
#define STORM_NUMBERS  (1u << 22) /* objects with a head that a seat makes, at most */
#define STORM_MAYBES   4096       /* of a seat */
#define STORM_SIZE_MAX (100 << 10)

/* ---- objects ---- */

enum storm_kind {
	STORM_PRIVATE, /* in a table; also what goes through mailboxes */
	STORM_NODE,
	STORM_CELL,
	STORM_BUCKET,
	STORM_LEAF,
	STORM_ROOT,
	STORM_TINY, /* without a head; in the cells for tiny ones */
};

struct storm_head {
	uint64_t check;        /* over the rest but `next` */
	_Atomic uint64_t next; /* NODE: ref of the node below */
	uint64_t depth;        /* NODE: of the stack with it */
	uint64_t number;
	uint32_t size;
	uint16_t seat, kind; /* of the maker */
};

#define STORM_BUCKET_LINKS 4

/* The rest of an object is a pattern of its own, but for the links of a bucket. */
struct storm_bucket {
	struct storm_head head;
	tg_link links[STORM_BUCKET_LINKS];
};

/* Which object: seat and number. */
struct storm_name {
	uint32_t seat, number;
};

/* Makes the object out of fresh memory. */
void storm_object_make(void *p, enum storm_kind kind, unsigned seat, uint32_t number, size_t size);

/* Is it whole, and of that kind?  What may be freed at any time is read, too, so nothing is believed. */
bool storm_object_ok(const void *p, enum storm_kind kind, struct storm_name *ret);

/* Objects of 1 to 15 bytes, whose size the reader knows. */
void storm_tiny_make(void *p, size_t size, uint64_t random);
bool storm_tiny_ok(const void *p, size_t size);

/* The class of spans in which an object of that size lies. */
unsigned storm_class(size_t size);

/* ---- the board ---- */

/* What a book knows of an object.  ref is written last, and is 0 if there is none. */
struct storm_entry {
	_Atomic uint64_t ref;
	uint64_t seed; /* of the pattern, if it has no head */
	uint32_t size, number;
	uint16_t maker, kind;
	bool has_head, published;
};

enum storm_op {
	STORM_NOTHING,
	STORM_MALLOC,   /* into the entry */
	STORM_FREE,     /* of the entry */
	STORM_REALLOC,  /* of the entry */
	STORM_BECOMES,  /* the entry becomes `fresh` */
	STORM_GIVE,     /* of the entry, into a link */
	STORM_TAKE,     /* of what `fresh` says, out of a link, into the entry */
	STORM_RETIRE,   /* of what `fresh` names, in a link */
	STORM_EXCHANGE, /* GIVE and RETIRE at once */
	STORM_PUBLISH,  /* of the entry */
	STORM_SET_ROOT, /* to the entry */
	STORM_ROOT_SET, /* the root is `fresh` now, the entry becomes `old` */
};

struct storm_doubt {
	_Atomic uint32_t op;
	uint32_t index; /* of the entry; STORM_TABLE: none */
	uint32_t size;  /* MALLOC, REALLOC: asked for */
	struct storm_entry fresh, old;
};

/* An object that may be left in the heap, or not. */
struct storm_maybe {
	struct storm_entry entry;
	bool must; /* if nobody has got it, it must be there */
};

enum storm_call {
	STORM_CALL_MALLOC,
	STORM_CALL_REALLOC,
	STORM_CALL_FREE,
	STORM_CALL_FREE_OTHERS,
	STORM_CALL_LARGE,
	STORM_CALL_SWAP,
	STORM_CALL_PUBLISH,
	STORM_CALL_ROOT,
	STORM_CALL_ATTACH,
	STORM_CALL_DETACH,
	STORM_CALLS
};

/* Times in nanoseconds, 8 steps for each power of two. */
#define STORM_STEPS (64 * 8)

struct storm_times {
	uint64_t n, max_ns;
	uint32_t step[STORM_STEPS];
};

struct storm_book {
	struct storm_entry table[STORM_TABLE];
	struct storm_doubt doubt;
	struct storm_entry root;  /* what the seat's root leads to */
	uint32_t root_name;       /* counts the names of the seat's roots */
	_Atomic uint32_t numbers; /* used up so far */
	_Atomic uint64_t turns;
	struct storm_times times[STORM_CALLS];
	/* The driver's: */
	unsigned n_maybes;
	unsigned n_unknown
		[TGS_CLASSES_ALL]; /* objects of a class that threads were just being handed */
	struct storm_maybe maybes[STORM_MAYBES];
};

struct storm_board {
	uint64_t seed;
	bool all_reclaim;
	_Atomic bool stop;         /* clients: end */
	_Atomic unsigned failures; /* what went wrong is on standard error */
	_Atomic unsigned worker_kills, keeper_kills;
	struct storm_book books[STORM_SEATS];
	_Atomic uint64_t gave[STORM_SEATS][STORM_NUMBERS / 64];
	_Atomic uint64_t took[STORM_SEATS][STORM_NUMBERS / 64];
	/* Killed while it took that one, and nobody knows whether it did; or while it gave it. */
	_Atomic uint64_t maybe_took[STORM_SEATS][STORM_NUMBERS / 64];
	_Atomic uint64_t maybe_gave[STORM_SEATS][STORM_NUMBERS / 64];
};

extern struct storm_board *storm_board;

/* Before the first fork.  `all_reclaim`: see storm_reclaims.  False: no memory. */
bool storm_board_open(uint64_t seed, bool all_reclaim);
void storm_board_close(void);

/* Does the client reclaim?  Every other one does, or all. */
bool storm_reclaims(unsigned client);

/* Something is wrong: says so, as in printf, and the test fails. */
void storm_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Sets the bit of an object; says whether it was set. */
bool storm_mark(_Atomic uint64_t bits[][STORM_NUMBERS / 64], struct storm_name name);
bool storm_marked(_Atomic uint64_t bits[][STORM_NUMBERS / 64], struct storm_name name);

uint64_t storm_now_ns(void);
void storm_time(struct storm_book *book, enum storm_call call, uint64_t since_ns);
/* Prints n, p50, p99 and max of each kind of call, over all seats. */
void storm_print_times(void);

/* ---- what lies in the heap for all ---- */

#define STORM_STACKS     4
#define STORM_CELLS      64
#define STORM_TINIES     15 /* sizes 1 to 15 */
#define STORM_BUCKETS    8
#define STORM_ARENA_ROOT "storm"

/* Objects that stand for "nobody here" and "nobody any more" in the links of a bucket: no link of it is ever a word of zero,
 * which would be like that of any cleared memory. */
struct storm_marks {
	char empty[32], sealed[32];
};

struct storm_arena {
	tg_link stacks[STORM_STACKS];
	tg_link cells[STORM_CELLS];
	tg_link tinies[STORM_TINIES];
	tg_link buckets[STORM_BUCKETS];
	tg_link mailboxes[STORM_SEATS];
	struct storm_marks marks;
};

/* ---- a thread at work ---- */

struct storm_worker {
	unsigned seat;
	bool reclaims;
	uint64_t random;
	struct storm_book *book;
	struct storm_arena *arena;
};

uint64_t storm_random(struct storm_worker *w, uint64_t below);

/* One turn of each sort: work.c, links.c, buckets.c. */
void storm_turn_table(struct storm_worker *w);
void storm_turn_stack(struct storm_worker *w);
void storm_turn_cell(struct storm_worker *w);
void storm_turn_tiny(struct storm_worker *w);
void storm_turn_mail(struct storm_worker *w);
void storm_turn_bucket(struct storm_worker *w);

/* An entry that is free, STORM_TABLE if none is. */
unsigned storm_free_entry(struct storm_worker *w);
void storm_doubt(struct storm_worker *w, enum storm_op op, unsigned index);
void storm_no_doubt(struct storm_worker *w);
/* A new object with a head, in that entry.  NULL: the seat has used all its numbers, or it failed and that was said. */
void *storm_new(struct storm_worker *w, unsigned index, enum storm_kind kind, size_t size);
void storm_free_at(struct storm_worker *w, unsigned index);
void storm_entry_set(struct storm_entry *to, const struct storm_entry *from);
/* Is the object that the entry names whole? */
bool storm_entry_ok(const struct storm_entry *entry);
/* Are all that the book names?  Else says so, and when it was seen. */
void storm_check_book(const struct storm_book *book, const char *when);

/* links.c.  `seen` is the word of the link, `there` the object that it leads to, `index` the entry of what is given.
 * True: done.  All say what is wrong when what was taken is not whole. */
bool storm_swap_seen(struct storm_worker *w, tg_link *link, uint64_t seen, void *desired,
		     unsigned flags);
unsigned storm_new_entry(struct storm_worker *w, enum storm_kind kind, size_t size);
bool storm_give(struct storm_worker *w, tg_link *link, uint64_t seen, unsigned index);
bool storm_retire(struct storm_worker *w, tg_link *link, uint64_t seen, const void *there,
		  enum storm_kind kind, void *next, const char *from);
bool storm_exchange(struct storm_worker *w, tg_link *link, uint64_t seen, const void *there,
		    enum storm_kind kind, unsigned index, const char *from);

/* ---- processes ---- */

/* The whole life of a client, in a process of its own. */
void storm_client_run(unsigned client);

/* The process is dead: what its seats were about to do is put in order. */
void storm_settle(unsigned client, bool killed);

/* The process has detached or died under reclaim: what it had and did not publish is gone. */
void storm_drop_private(struct storm_book *book);

/* The last client, attached, alone: all that lives in the heap is what the books say, to the object; then frees it all.
 * Returns how many objects there were; what is wrong it says by storm_fail. */
uint64_t storm_audit(void);
