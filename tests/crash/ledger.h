/* ledger.h - what a process that is to be killed has done so far, noted before and after each call, where it outlives it.
 *
 * A script calls the heap through these functions only.  Each object is an item; its state says what the oracle (oracle.h)
 * may find: nothing but the object in hand of the call that was cut is left open, and of a tg_swap that was cut not even
 * that.  Items lie at the same address in the test program and all its children, as the heap does.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/tg.h"
#include "tests/crash/control.h"

#define TGT_ITEMS_MAX 1024u
#define TGT_NO_POINT  UINT64_MAX

enum tgt_state {
	TGT_NONE,
	TGT_COMING,   /* in the call that makes it; where it will lie is not known yet */
	TGT_HERE,     /* there, with its pattern */
	TGT_GOING,    /* in the call that frees it */
	TGT_CHANGING, /* in tg_realloc: it may be here, or there, or both */
	TGT_GONE,
};

enum tgt_published { TGT_PRIVATE, TGT_MAYBE_PUBLISHED, TGT_PUBLISHED };

struct tgt_item {
	_Atomic uint32_t state;
	_Atomic uint32_t published;
	void *p;
	size_t size;
	size_t new_size; /* CHANGING */
	uint64_t seed;   /* of its pattern */
	bool observers;  /* made by the test program, which lives on */
	bool has_link;   /* its first 8 bytes are a tg_link */
};

/* The call that changes more than one item. */
struct tgt_hand {
	_Atomic uint32_t busy; /* a swap is in hand; set last */
	struct tgt_item *link, *old, *new;
	struct tgt_item
		*others; /* somebody else made the link lead there meanwhile; NULL: nobody */
	unsigned flags;
};

/* Where a root leads. */
struct tgt_root {
	char name[16]; /* "": no script has set one */
	_Atomic uint32_t busy;
	struct tgt_item *is, *next;
};

struct tgt_ledger {
	/* what the child is to do */
	const struct tgt_script *script;
	bool reclaim;
	uint64_t k; /* 0: not to be cut */
	int signal;
	/* and to its daemon: TGT_NO_POINT: nothing, 0: its points are only counted */
	uint64_t daemon_k, daemon_next;
	char socket[108];
	_Atomic uint32_t met;  /* futex: meetings that the child has come to ... */
	_Atomic uint32_t gone; /* ... and has been let go from */
	_Atomic uint32_t armed_once;
	_Atomic uint32_t finished; /* the operation was not cut */
	/* what it has done */
	_Atomic uint64_t n_made;
	struct tgt_hand hand;
	struct tgt_root root;
	struct tgt_item item[TGT_ITEMS_MAX];
};

/* Shared by the test program and all that it forks; made once. */
extern struct tgt_ledger *tgt_ledger;
bool tgt_ledger_make(void);

/* Forgets all items. */
void tgt_ledger_clear(void);

static inline struct tgt_item *tgt_item(unsigned i)
{
	return &tgt_ledger->item[i];
}

/* Calls of the heap, noted.  What fails although it should not ends the process (TGT_REQUIRE).  Item `i` must be free. */
struct tgt_item *tgt_do_malloc(unsigned i, size_t size);
struct tgt_item *tgt_do_calloc(unsigned i, size_t size);
struct tgt_item *tgt_do_aligned(unsigned i, size_t align, size_t size);
/* An object for tg_swap: the first 8 bytes are a link, null to begin with. */
struct tgt_item *tgt_do_link(unsigned i, size_t size);
/* It must be the case that there is no memory for it. */
void tgt_do_malloc_fails(unsigned i, size_t size);
/* The first n items are made, or freed, one after the other; from `first` on. */
void tgt_do_mallocs(unsigned first, unsigned n, size_t size);
void tgt_do_frees(unsigned first, unsigned n);
void tgt_do_free(struct tgt_item *item);
/* `at_place`: it must not move, or must. */
void tgt_do_realloc(struct tgt_item *item, size_t size, bool in_place);
void tgt_do_publish(struct tgt_item *item);
void tgt_do_trim(void);
/* One name a script. */
void tgt_do_root_set(const char *name, struct tgt_item *item);
void tgt_do_root_cas(const char *name, struct tgt_item *expected, struct tgt_item *item);
/* `old`, `new`: NULL for null.  Says whether it swung.  `seen`: with tg_swap_seen. */
bool tgt_do_swap(struct tgt_item *link, struct tgt_item *old, struct tgt_item *new, unsigned flags);
bool tgt_do_swap_seen(struct tgt_item *link, struct tgt_item *old, struct tgt_item *new,
		      unsigned flags);

/* By the test program, while the child's swap of the same link is in hand. */
bool tgt_do_others_swap(struct tgt_item *link, struct tgt_item *old, struct tgt_item *new,
			unsigned flags);

/* The pattern is there.  `size`: of its first bytes. */
bool tgt_item_intact(const struct tgt_item *item, const void *p, size_t size);

/* In the child: points count from here on, to there.  (Those of a daemon count on until it is disarmed.) */
void tgt_begin(void);
void tgt_end(void);

/* Takes aim at the daemon, if the ledger says so.  tgt_begin does it. */
void tgt_arm_daemon(void);

/* In the child: until the test program has run the script's `meeting`. */
void tgt_meet(void);

/* True in the processes that are to be killed. */
extern bool tgt_is_child;
