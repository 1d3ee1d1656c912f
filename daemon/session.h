/* session.h - one connection and how far it has come: NEW -> GREETED -> ATTACHED -> DETACHED. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/context.h"
#include "proto/msg.h"

enum tgd_session_state {
	TGD_SESSION_NEW,      /* only Hello is taken */
	TGD_SESSION_GREETED,  /* Attach, and what tgctl asks */
	TGD_SESSION_ATTACHED, /* everything; has a client */
	TGD_SESSION_DETACHED, /* as GREETED, but attaches no more */
};

struct tgd_session {
	struct tgd_context *context;
	struct tgd_conn *conn;
	struct tgd_peer peer;
	enum tgd_session_state state;
	uint32_t version; /* what both sides speak, once greeted */
	char program[TGP_PROGRAM_MAX + 1];
	struct tgd_client *client; /* when attached */
	bool attach_unread;        /* descriptors may lie in the socket */
	bool refused;              /* may not be here; the first request is answered so */
	uint32_t awaited_client;   /* not 0: nothing is handled before that client is settled */
	uint64_t awaited_request;  /* which is the answer to this request */
	uint64_t settle_by; /* tgd_now_ms; not 0: nor before all the dead are settled, or then */
	bool has_waited;    /* for that, with the request that is handled now */
	unsigned last_slot; /* that was opened; 0 = none */
	struct tgd_session *prev, *next;
};

/* Takes over the socket, also on failure.  `may_connect`: else its first request is refused.
 * -ENOMEM. */
int tgd_session_new(struct tgd_context *context, int fd, const struct tgd_peer *peer,
		    bool may_connect);

/* Closes the connection.  The client, if any, stays, and is away. */
void tgd_session_free(struct tgd_session *session);

/* Sends a reply; `fds` (2 of them, or NULL) go with it. */
void tgd_session_reply(struct tgd_session *session, const Tgd__Reply *reply, const int *fds);

/* Sends an error reply with a sentence, which is cut and cleaned as the protocol wants it. */
void tgd_session_reply_error(struct tgd_session *session, uint64_t id, int error, const char *why);

/* The session is (no longer) the client's connection. */
void tgd_session_set_client(struct tgd_session *session, struct tgd_client *client);

/* How many sessions of this user may have descriptors unread in their sockets now? */
unsigned tgd_session_unread_attaches(struct tgd_context *context, uid_t uid);

/* The answer to `request` follows when the client has ended and is settled; until then the session is
 * not listened to. */
void tgd_session_await_end(struct tgd_session *session, uint64_t request, uint32_t client_id);

/* The request at hand is handled again when the clients that have ended are settled, or after so long
 * at most. False: it has waited before. */
bool tgd_session_await_settled(struct tgd_session *session, unsigned timeout_ms);

/* After each slice of the heap's work: goes on with those who wait for what is settled now. */
void tgd_sessions_go_on(struct tgd_context *context);

/* Nothing more is read; what has been is answered. */
void tgd_sessions_retire(struct tgd_context *context);

/* Has all that was read been answered, and sent? */
bool tgd_sessions_quiet(const struct tgd_context *context);

/* "pid 12, uid 0, tgctl 0.1.0" for the log; static storage. */
const char *tgd_session_label(const struct tgd_session *session);
