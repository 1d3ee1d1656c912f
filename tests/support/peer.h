/* peer.h - the other end of a daemon's socket, byte by byte or request by request, for tests.
 *
 * Every wait has a deadline of TGT_TIMEOUT_MS.  Functions return 0 or -errno of the conversation:
 * -ENODATA when the daemon has closed it, -ETIMEDOUT, -EPROTO for an answer that is none.  That a
 * request was refused is no failure of the conversation: it stands in the reply, which is valid
 * until the next call for the same peer.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/fdpass.h"
#include "proto/msg.h"

struct tgt_peer {
	int fd; /* -1: none */
	uint64_t last_id;
	int fds[TGP_FDS_MAX]; /* came with the last attach; closed with the peer */
	size_t n_fds;
	size_t n_in, n_used;
	uint8_t in[2 * (TGP_FRAME_HEAD + TGP_FRAME_MAX)];
	uint8_t memory[TGP_UNPACK_MAX];
	struct tgp_arena arena;
	unsigned
		look_us; /* so long it looks for an answer before it sleeps, as libtg does; 0: not at all */
};

int tgt_peer_connect(struct tgt_peer *peer, const char *socket);
void tgt_peer_close(struct tgt_peer *peer);

/* Sends bytes as they are.  -EAGAIN with *ret_sent when the socket takes no more (may be NULL: then
 * it waits). */
int tgt_peer_send(struct tgt_peer *peer, const void *bytes, size_t n, size_t *ret_sent);

/* The next reply. */
int tgt_peer_next(struct tgt_peer *peer, const Tgd__Reply **ret);

/* Waits for the end of the connection.  False: there is something else to read, or the time is
 * over. */
bool tgt_peer_at_end(struct tgt_peer *peer);

/* Gives the request an id, sends it, and waits for the reply to it. */
int tgt_peer_ask(struct tgt_peer *peer, Tgd__Request *request, const Tgd__Reply **ret);

int tgt_peer_hello(struct tgt_peer *peer);
int tgt_peer_attach(struct tgt_peer *peer, const char *name, uint32_t flags, uint32_t client_id,
		    const Tgd__Reply **ret);
int tgt_peer_detach(struct tgt_peer *peer);
int tgt_peer_admin(struct tgt_peer *peer, Tgd__Admin__What what, uint64_t value,
		   const Tgd__Reply **ret);

/* Connects, says hello, attaches, gets a slot and detaches, as a well-behaved client does.  0, or
 * what went wrong. */
int tgt_peer_good_client(const char *socket);
