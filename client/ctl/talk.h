/* talk.h - tgctl's side of the conversation with the daemon: connect, ask, get the answer or a
 * sentence why not. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/msg.h"

#define TGC_TALK_TIMEOUT_MS 5000 /* what an answer may take */

struct tgc_talk {
	int timeout_ms;
	bool refused;     /* the last failure was the daemon's answer, not the lack of one */
	char why[768];    /* a sentence about the last failure */
	pid_t daemon_pid; /* as the daemon tells it */
	pid_t keeper_pid; /* the same; 0: none */
	char daemon[TGP_PROGRAM_MAX + 1]; /* "tgd 0.1.0" */

	/* private */
	int fd;
	uint64_t last_id;
	size_t n_in;   /* bytes in `in` */
	size_t n_used; /* of these: the frame that the last answer came in */
	uint8_t in[TGP_FRAME_HEAD + TGP_FRAME_MAX];
	uint8_t memory[TGP_UNPACK_MAX];
	struct tgp_arena arena;
};

/* Not connected.  NULL: out of memory. */
struct tgc_talk *tgc_talk_new(void);

/* Connects to the socket and says hello. */
int tgc_talk_open(struct tgc_talk *talk, const char *path);

/* One admin request and its answer, which is valid until the next call.  body: enum of the
 * answer's oneof, 0 = any. */
int tgc_talk_ask(struct tgc_talk *talk, const Tgd__Admin *ask, unsigned body,
		 const Tgd__Reply **ret);

/* Waits until the daemon, told to stop, has ended.  -ETIMEDOUT. */
int tgc_talk_wait_end(struct tgc_talk *talk);

/* Waits until the process that we talk to has closed the connection, and opens another one to the next
 * that serves at the path. */
int tgc_talk_reopen(struct tgc_talk *talk, const char *path);

/* Connected or not, NULL or not.  Returns NULL. */
struct tgc_talk *tgc_talk_free(struct tgc_talk *talk);
