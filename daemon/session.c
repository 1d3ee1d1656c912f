/* session.c - the life of a connection, from bytes that are a frame to a request that may be
 * handled.
 *
 * Here is what depends on how far a connection has come; what a request does is request.c's.  A
 * peer that breaks the rules (bad frame, message that does not unpack, no Hello first, no common
 * version) gets one error reply and is disconnected once that is sent; a request that merely cannot
 * be done gets an error reply and nothing else happens. A session that closes frees itself, from
 * the loop; its client goes on as "away".
 */
#include "daemon/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "daemon/client.h"
#include "daemon/conn.h"
#include "daemon/heap.h"
#include "daemon/log.h"
#include "daemon/request.h"
#include "proto/fdpass.h"

#define HELLO_TIMEOUT_MS 10000

static uint8_t arena_buffer[TGP_UNPACK_MAX];
static uint8_t reply_buffer[TGP_FRAME_HEAD + TGP_FRAME_MAX];

const char *tgd_session_label(const struct tgd_session *session)
{
	static char label[160];

	snprintf(label, sizeof(label), "pid %d, uid %u, %s", (int)session->peer.pid,
		 (unsigned)session->peer.uid,
		 session->program[0] != '\0' ? session->program : "not greeted");
	return label;
}

void tgd_session_reply(struct tgd_session *session, const Tgd__Reply *reply, const int *fds)
{
	ssize_t n = tgp_reply_pack(reply, reply_buffer, sizeof(reply_buffer));

	if (n < 0) {
		tgd_log(TGD_LOG_ERROR, "an answer to %s is too long for a frame",
			tgd_session_label(session));
		tgd_session_reply_error(session, reply->id, -EMSGSIZE,
					"the answer is too long for a frame");
		return;
	}
	tgd_conn_send(session->conn, reply_buffer, (size_t)n, fds, fds != NULL ? TGP_FDS_MAX : 0);
}

void tgd_session_reply_error(struct tgd_session *session, uint64_t id, int error, const char *why)
{
	Tgd__Reply reply = TGD__REPLY__INIT;
	char text[512];

	snprintf(text, sizeof(text), "%s", why[0] != '\0' ? why : strerror(-error));
	tgp_text_clean(text, TGP_TEXT_MAX);
	reply.id = id;
	reply.error = error;
	reply.message = text;
	tgd_session_reply(session, &reply, NULL);
}

void tgd_session_set_client(struct tgd_session *session, struct tgd_client *client)
{
	if (session->client != NULL)
		session->client->session = NULL;
	session->client = client;
	if (client != NULL)
		client->session = session;
}

static void set_attach_unread(struct tgd_session *session, bool unread)
{
	if (unread && !session->attach_unread)
		session->context->n_unread_attaches++;
	else if (!unread && session->attach_unread)
		session->context->n_unread_attaches--;
	session->attach_unread = unread;
}

/* Descriptors in flight count against us until they are read, and some peers never read. */
unsigned tgd_session_unread_attaches(struct tgd_context *context, uid_t uid)
{
	struct tgd_session *session;
	unsigned n = 0;

	if (context->n_unread_attaches == 0)
		return 0;
	DL_FOREACH (context->sessions, session) {
		if (session->attach_unread && tgd_conn_all_read(session->conn))
			set_attach_unread(session, false);
		if (session->attach_unread && session->peer.uid == uid)
			n++;
	}
	return n;
}

static void set_waiting(struct tgd_session *session, bool waits)
{
	session->context->n_waiting += waits ? 1 : -1;
	tgd_conn_hold(session->conn, waits);
}

void tgd_session_await_end(struct tgd_session *session, uint64_t request, uint32_t client_id)
{
	session->awaited_client = client_id;
	session->awaited_request = request;
	set_waiting(session, true);
}

bool tgd_session_await_settled(struct tgd_session *session, unsigned timeout_ms)
{
	if (session->has_waited)
		return false;
	session->settle_by = tgd_now_ms() + timeout_ms;
	tgd_conn_again(session->conn);
	set_waiting(session, true);
	session->context->want_work(session->context);
	return true;
}

/* Is the client live, or dead and not settled yet? */
static bool is_listed(const struct tgd_context *context, uint32_t client_id, bool some_are_dead)
{
	struct tgd_client_info info = {.id = 0};

	if (tgd_heap_client_get(context->heap, client_id, &info) == 0)
		return true;
	for (info.id = 0; some_are_dead && tgd_heap_client_after(context->heap, info.id, &info);) {
		if (info.id == client_id)
			return true;
	}
	return false;
}

void tgd_sessions_go_on(struct tgd_context *context)
{
	Tgd__Reply reply = TGD__REPLY__INIT;
	struct tgd_heap_status status;
	struct tgd_session *session;
	bool settled;

	if (context->n_waiting == 0)
		return;
	tgd_heap_status(context->heap, &status);
	settled = status.dead_clients == 0;
	DL_FOREACH (context->sessions, session) {
		if (session->awaited_client != 0 &&
		    !is_listed(context, session->awaited_client, !settled)) {
			session->awaited_client = 0;
			reply.id = session->awaited_request;
			tgd_session_reply(session, &reply, NULL);
			set_waiting(session, false);
		} else if (session->settle_by != 0 &&
			   (settled || tgd_now_ms() >= session->settle_by)) {
			session->settle_by = 0;
			session->has_waited = true;
			set_waiting(session, false);
		}
	}
}

void tgd_sessions_retire(struct tgd_context *context)
{
	struct tgd_session *session;

	DL_FOREACH (context->sessions, session)
		tgd_conn_retire(session->conn);
}

bool tgd_sessions_quiet(const struct tgd_context *context)
{
	const struct tgd_session *session;

	DL_FOREACH (context->sessions, session) {
		if (!tgd_conn_is_quiet(session->conn))
			return false;
	}
	return true;
}

/* The peer broke the rules: it is told, and the connection ends. */
static void break_off(struct tgd_session *session, uint64_t id, int error, const char *why)
{
	tgd_log(TGD_LOG_WARNING, "disconnecting %s: %s", tgd_session_label(session), why);
	tgd_session_reply_error(session, id, error, why);
	tgd_conn_end(session->conn, "it broke the protocol");
}

/* ---- what the connection tells ---- */

static void on_frame(void *owner, const uint8_t *payload, size_t len)
{
	struct tgd_session *session = owner;
	const Tgd__Request *request;
	struct tgp_arena arena;
	char why[256] = "";

	tgp_arena_init(&arena, arena_buffer, sizeof(arena_buffer));
	if (tgp_request_unpack(&arena, payload, len, &request, why, sizeof(why)) < 0) {
		break_off(session, 0, -EPROTO, why);
	} else if (session->refused) {
		snprintf(why, sizeof(why),
			 "uid %u may not use the heap of this daemon (its socket has mode %04o, "
			 "uid %u, gid %u); "
			 "see --mode and --group in tgd(8)",
			 (unsigned)session->peer.uid, (unsigned)session->context->access.mode,
			 (unsigned)session->context->access.uid,
			 (unsigned)session->context->access.gid);
		break_off(session, request->id, -EACCES, why);
	} else if (session->state == TGD_SESSION_NEW &&
		   request->body_case != TGD__REQUEST__BODY_HELLO) {
		break_off(session, request->id, -EPROTO,
			  "the first request of a connection must be Hello");
	} else if (tgd_request_handle(session, request, why, sizeof(why)) == -EPROTO) {
		break_off(session, request->id, -EPROTO, why);
	} else if (session->state != TGD_SESSION_NEW &&
		   request->body_case == TGD__REQUEST__BODY_HELLO) {
		tgd_conn_deadline(session->conn, 0, NULL);
	} else if (request->body_case == TGD__REQUEST__BODY_ATTACH &&
		   session->state == TGD_SESSION_ATTACHED) {
		set_attach_unread(session, true);
	}
	if (session->settle_by == 0)
		session->has_waited = false;
}

static void on_broken(void *owner, const char *why)
{
	break_off(owner, 0, -EPROTO, why);
}

static void on_closed(void *owner, const char *why)
{
	struct tgd_session *session = owner;
	struct tgd_client *client = session->client;

	tgd_session_set_client(session, NULL);
	if (client != NULL)
		tgd_client_lost(client, why);
	else
		tgd_log(TGD_LOG_DEBUG, "connection of %s closed: %s", tgd_session_label(session),
			why);
	tgd_session_free(session);
}

static const struct tgd_conn_ops conn_ops = {
	.frame = on_frame, .broken = on_broken, .closed = on_closed};

/* ---- life ---- */

int tgd_session_new(struct tgd_context *context, int fd, const struct tgd_peer *peer,
		    bool may_connect)
{
	struct tgd_session *session = calloc(1, sizeof(*session));
	int r;

	if (session == NULL) {
		close(fd);
		return -ENOMEM;
	}
	session->context = context;
	session->peer = *peer;
	session->refused = !may_connect;
	r = tgd_conn_new(context->base, fd, &conn_ops, session, &session->conn);
	if (r < 0) {
		free(session);
		return r;
	}
	tgd_conn_deadline(session->conn, HELLO_TIMEOUT_MS, "it did not say Hello in time");
	DL_APPEND(context->sessions, session);
	context->n_sessions++;
	tgd_log(TGD_LOG_DEBUG, "connection of pid %d, uid %u", (int)peer->pid, (unsigned)peer->uid);
	return 0;
}

void tgd_session_free(struct tgd_session *session)
{
	set_attach_unread(session, false);
	if (session->awaited_client != 0 || session->settle_by != 0)
		session->context->n_waiting--;
	tgd_session_set_client(session, NULL);
	DL_DELETE(session->context->sessions, session);
	session->context->n_sessions--;
	tgd_conn_free(session->conn);
	free(session);
}
