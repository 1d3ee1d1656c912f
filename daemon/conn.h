/* conn.h - one socket: frames in, frames out, and no more of either than we are ready to keep. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;
struct tgd_conn;

#define TGD_CONN_HIGH      (256u * 1024)  /* unsent bytes at which no more requests are read */
#define TGD_CONN_LOW       (64u * 1024)   /* unsent bytes at which they are read again */
#define TGD_CONN_HARD      (1024u * 1024) /* unsent bytes at which the peer is given up */
#define TGD_CONN_FRAMES    32u            /* frames of one peer that are handled in a row */
#define TGD_CONN_LINGER_MS 1000  /* how long a peer that is told to go may take to read why */
#define TGD_CONN_STALL_MS  30000 /* how long a peer may leave everything that we send unread */

/* What the owner of a connection is told.  All are called from the event loop, none from within a
 * call of the owner's. In `frame` and `broken` the connection may be sent to, ended or closed, but
 * not freed. */
struct tgd_conn_ops {
	/* A whole frame has come; the payload is valid during the call. */
	void (*frame)(void *owner, const uint8_t *payload, size_t len);

	/* The peer sent what cannot be part of the protocol; nothing it sends is read any more.
	 * The owner says so to the peer; then the connection ends by itself. */
	void (*broken)(void *owner, const char *why);

	/* The socket is closed; the owner frees the connection now, or later. */
	void (*closed)(void *owner, const char *why);
};

/* Takes over the socket, which must not block, also on failure.  -ENOMEM. */
int tgd_conn_new(struct event_base *base, int fd, const struct tgd_conn_ops *ops, void *owner,
		 struct tgd_conn **ret);

/* NULL is fine.  Returns NULL.  `closed` is not called. */
struct tgd_conn *tgd_conn_free(struct tgd_conn *conn);

/* Queues bytes, and with the first of them up to 2 descriptors, which stay the caller's and must
 * stay open.  Only one batch of descriptors can wait.  Bytes for a connection that is closed are
 * dropped. */
void tgd_conn_send(struct tgd_conn *conn, const void *bytes, size_t n, const int *fds,
		   size_t n_fds);

/* Closes the connection after `timeout_ms`, as the peer has not done what `why` names; 0: no
 * longer. */
void tgd_conn_deadline(struct tgd_conn *conn, unsigned timeout_ms, const char *why);

/* While held, no frame is handled; what comes is left in the socket. */
void tgd_conn_hold(struct tgd_conn *conn, bool held);

/* In `frame`, with the connection held: the same frame comes again when it is held no more. */
void tgd_conn_again(struct tgd_conn *conn);

/* Reads nothing any more; the frames that are there are handled. */
void tgd_conn_retire(struct tgd_conn *conn);

/* Is no whole frame left to handle, and nothing to send? */
bool tgd_conn_is_quiet(const struct tgd_conn *conn);

/* Sends what is queued, for a second at most, and closes; what comes is ignored. */
void tgd_conn_end(struct tgd_conn *conn, const char *why);

/* Closes at once; `closed` follows from the loop. */
void tgd_conn_close(struct tgd_conn *conn, const char *why);

/* Has the peer read all that was sent to it? */
bool tgd_conn_all_read(const struct tgd_conn *conn);

/* Has the peer closed its end?  Known here before its bytes are read. */
bool tgd_conn_hung_up(const struct tgd_conn *conn);

/* The socket, to ask the kernel about the peer; -1 once it is closed. */
int tgd_conn_fd(const struct tgd_conn *conn);
