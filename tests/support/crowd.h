/* crowd.h - processes that work on each other's objects, with a table that tells at any time what lives.
 *
 * What a process has made stands in a table that all see (its hands): pointer, size and salt in one word, which is also the
 * seed of the object's bytes.  Who wants to free an object first takes the word out.  So at rest the number of live objects
 * is known, but for what a thread that was killed had just taken out, or not yet put in.
 *
 * Survivors are processes that do one kind of operation when told to, and say when they are done.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/tg.h"
#include "tests/support/child.h"

#define TGT_HELD  64
#define TGT_LINKS 16

#define TGT_VICTIMS   2 /* threads that may be stopped or killed; their hands come first */
#define TGT_SURVIVORS 2

struct tgt_hands {
	_Atomic uint64_t held[TGT_HELD];
};

enum tgt_what {
	TGT_REPLACE,
	TGT_RESIZE,
	TGT_TAKE, /* free what is in other hands */
	TGT_SWAP,
	TGT_ROOT,
	TGT_TRIM,
	TGT_THREAD,
	TGT_N_WHAT,
};

/* Seen by all processes. */
struct tgt_crowd {
	struct tgt_hands hands[TGT_VICTIMS + TGT_SURVIVORS];
	_Atomic uint64_t steps; /* for the test's use */
	_Atomic bool quit;      /* likewise */
	_Atomic int command;    /* enum tgt_what: of the survivors */
	unsigned flags;         /* TG_RECLAIM */
	tg_link *links;         /* in the heap: published, TGT_LINKS of them */
};

extern struct tgt_crowd *tgt_crowd;

/* Makes the crowd's memory and links; this process is attached.  tgt_crowd_done frees links, their nodes and roots. */
void tgt_crowd_init(unsigned flags);
void tgt_crowd_done(void);

/* A new object, filled. */
uint64_t tgt_crowd_make(uint64_t *random);
/* Is the object as it was filled? */
bool tgt_crowd_is_whole(uint64_t word);
/* Checks and frees it; 0 is fine. */
void tgt_crowd_drop(uint64_t word);
void tgt_crowd_drop_all(struct tgt_hands *hands);

/* One operation with these hands; `others` are the hands to take from. */
void tgt_crowd_do(enum tgt_what what, struct tgt_hands *hands, struct tgt_hands *others,
		  uint64_t *random);

/* Live objects by the tables, links included, if nobody is in the middle of anything.  Asserts that all nodes are whole. */
long long tgt_crowd_count(void);

struct tgt_survivor {
	struct tgt_meeting meeting;
	struct tgt_hands *hands;
	uint64_t random;
	pid_t pid;
};

void tgt_survivors_start(struct tgt_survivor *survivors, uint64_t *random);
/* All at the same time, one kind of operation after the other; asserts that each comes to its end. */
void tgt_survivors_go_on(struct tgt_survivor *survivors);
void tgt_survivors_end(struct tgt_survivor *survivors);
