/* rpc.h - one request to the daemon, one reply: the only way out of the process.
 *
 * The connection is shared by the threads, under a lock of its own that is taken last.  Nothing here calls malloc: the
 * library may be the process's malloc.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/msg.h"

/* Lock and unlock.  A reply is valid until tgc_rpc_end. */
void tgc_rpc_begin(void);
void tgc_rpc_end(void);

/* Sends a request (its id is filled in) and waits for the reply, which must have that body, unless it is an error.  If
 * the connection is gone, makes it again, as the client that we are, within the timeout.  0, the daemon's -errno,
 * -ENOTCONN (no daemon within the timeout, or it is not the one whose heap we have), -EPROTO. */
int tgc_rpc_call(Tgd__Request *request, Tgd__Reply__BodyCase body, const Tgd__Reply **ret);

/* A request that nobody waits for.  `take` is called once, with its reply, or with NULL if the connection was lost: while
 * some thread waits for its own reply, or in tgc_rpc_collect; always between begin and end. */
struct tgc_post {
	uint64_t id; /* 0: nothing outstanding */
	struct tgc_post *next;
	void (*take)(struct tgc_post *post, const Tgd__Reply *reply);
};

/* Sends it.  Does not connect: -ENOTCONN, and take is not called. */
int tgc_rpc_post(Tgd__Request *request, struct tgc_post *post);

/* Waits until `take` has been called. */
void tgc_rpc_collect(struct tgc_post *post);

/* Asked for in one piece with attaching (client/first.c): a slot for the thread that attaches, and spans for it.  All under
 * the connection's lock, and forgotten by a forked child. */
#define TGC_FIRST_MAX 32u

struct tgc_first {
	struct tgc_post slot_post, spans_post;
	uint32_t slot;   /* that has come, and that nobody has taken yet; 0: none */
	bool slot_lost;  /* the answer was: the daemon may have opened one that we do not know of */
	bool spans_lost; /* likewise */
	uint32_t n_grants; /* spans that have come for it */
	struct tgc_first_grant {
		uint64_t page;
		uint32_t class;
		bool zero;
	} grants[TGC_FIRST_MAX];
};

/* What the reply to the last failed call said. */
const char *tgc_rpc_why(void);

/* Takes spans out of our hands.  They must not be touched any more, whatever this returns.  The answer is not waited for:
 * what a daemon that dies meanwhile has not done is found by agreeing (client/agree.c), as after any lost answer. */
int tgc_rpc_put_spans(uint32_t slot, uint64_t *pages, size_t n);

/* Waits until the daemon has done all that.  `known`: spans that the slot is to have then. */
void tgc_rpc_settle(uint32_t slot, uint64_t known);

/* The first connection of this process: connects, says hello, attaches; the descriptors are the caller's.  Not locked. */
int tgc_rpc_open(const Tgd__AttachReply **ret, int *ret_map_fd, int *ret_heap_fd);
void tgc_rpc_close(void);

uint64_t tgc_rpc_messages(void);
uint64_t tgc_rpc_reconnects(void);
