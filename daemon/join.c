/* join.c - who becomes a client, stays one, and ceases to be one.
 *
 * A client is a process.  The kernel says who is at the other end of a connection; pid and start time
 * say whether it is a client already: then, if it names its id, it is that client again by a new
 * connection, and else it has forgotten that it was one (it executed another program), and what it
 * held is settled as at its end.  The same two numbers say of each client of the daemon before us
 * whether it still lives.
 */
#include "daemon/join.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/client.h"
#include "daemon/conn.h"
#include "daemon/heap.h"
#include "daemon/log.h"
#include "shm/base.h"

#define ATTACH_FLAGS        1u  /* TG_RECLAIM */
#define UNREAD_ATTACHES_MAX 64u /* of one user */

int tgd_join_hello(struct tgd_session *session, const Tgd__Request *request,
		   struct tgd_answer *answer)
{
	const Tgd__Hello *hello = request->hello;
	Tgd__HelloReply *reply = &answer->body.hello;
	struct tgd_keeping keeping;

	if (session->state != TGD_SESSION_NEW)
		return tgd_answer_refuse(answer, -EPROTO,
					 "Hello is the first request of a connection only");
	if (hello->version < TGP_MIN_VERSION || hello->min_version > TGP_VERSION)
		return tgd_answer_refuse(
			answer, -EPROTO,
			"no common version of the protocol: %s speaks %u to %u, "
			"this daemon (" PACKAGE_VERSION ") %u to %u; upgrade the older one",
			hello->program[0] != '\0' ? hello->program : "your program",
			hello->min_version, hello->version, TGP_MIN_VERSION, TGP_VERSION);
	tgd__hello_reply__init(reply);
	reply->version = (uint32_t)tgs_min(hello->version, TGP_VERSION);
	reply->program = "tgd " PACKAGE_VERSION;
	reply->pid = (uint32_t)getpid();
	session->context->tell_keeping(session->context, &keeping);
	reply->keeper_pid = (uint32_t)keeping.keeper_pid;
	answer->reply.body_case = TGD__REPLY__BODY_HELLO;
	answer->reply.hello = reply;
	session->state = TGD_SESSION_GREETED;
	session->version = reply->version;
	snprintf(session->program, sizeof(session->program), "%s", hello->program);
	return 0;
}

/* A client's process has ended, or forgot that it was a client: everything of it goes. */
static void end_client(struct tgd_client *client, const char *how, bool orderly)
{
	struct tgd_session *session = client->session;

	if (session != NULL) {
		tgd_session_set_client(session, NULL);
		session->state = TGD_SESSION_DETACHED;
		tgd_conn_close(session->conn, "its client has ended");
	}
	tgd_client_end(client, how, orderly);
}

static void on_client_exit(struct tgd_client *client)
{
	end_client(client, "exited", false);
}

int tgd_clients_resume(struct tgd_context *context, char *why, size_t why_size)
{
	struct tgd_client_info info = {.id = 0};
	int r;

	while (tgd_heap_client_after(context->heap, info.id, &info)) {
		if (info.dead)
			continue;
		r = tgd_client_resume(context, &info, on_client_exit);
		if (r == -ESRCH) {
			tgd_log(TGD_LOG_INFO,
				"client %u (pid %u, uid %u, \"%s\") ended while no daemon served",
				info.id, info.pid, info.uid, info.name);
			r = tgd_heap_client_end(context->heap, info.id);
		}
		if (r < 0) {
			snprintf(why, why_size, "client %u (pid %u) cannot be watched: %s", info.id,
				 info.pid, strerror(-r));
			return r;
		}
	}
	return 0;
}

/* Is the heap out of the process's reach for good?  Then it has executed another program. */
static bool has_lost_heap(const struct tgd_client *client)
{
	struct tgd_heap *heap = client->context->heap;

	return !tgd_peer_may_have_mapped(client->pid, tgd_heap_heap_fd(heap),
					 tgd_heap_view(heap)->geometry.heap_bytes);
}

void tgd_client_lost(struct tgd_client *client, const char *why)
{
	if (has_lost_heap(client)) {
		end_client(client, "has the heap mapped no more: it executes another program",
			   false);
		return;
	}
	tgd_log(TGD_LOG_INFO, "%s lost its connection: %s; it may come back until it exits",
		client->label, why);
}

/* The process was a client before; what of that?  0: it may become a new client; 1: it is that
 * client again; negative: no. */
static int consider_earlier(const Tgd__Attach *attach, struct tgd_client *earlier,
			    uint64_t start_time, struct tgd_answer *answer)
{
	if (earlier != NULL && earlier->start_time != start_time) {
		end_client(earlier, "exited", false);
		earlier = NULL;
	}
	if (attach->client_id != 0) {
		if (earlier == NULL || earlier->id != attach->client_id)
			return tgd_answer_refuse(
				answer, -ESRCH,
				"your process is not client %u of this daemon; attach "
				"as a new one",
				attach->client_id);
		return 1;
	}
	if (earlier == NULL)
		return 0;
	/* A connection that is open still may be held by a child that was forked before the exec. */
	if (earlier->session != NULL && !tgd_conn_hung_up(earlier->session->conn) &&
	    !has_lost_heap(earlier))
		return tgd_answer_refuse(answer, -EALREADY,
					 "your process is client %u already, by another connection",
					 earlier->id);
	/* It executed another program, or lost its memory of us in another way: what it held is out
	 * of reach. */
	end_client(earlier, "was forgotten by its process, which attaches anew", false);
	return 0;
}

static int become_client(struct tgd_session *session, const Tgd__Attach *attach,
			 struct tgd_client **ret, struct tgd_answer *answer)
{
	struct tgd_context *context = session->context;
	struct tgd_client_new new = {
		.peer = &session->peer, .flags = attach->flags, .name = attach->name};
	struct tgd_client *earlier;
	int r;

	if (context->n_clients >= context->max_sessions && attach->client_id == 0)
		return tgd_answer_refuse(
			answer, -EMFILE,
			"%u processes are clients, as many as this daemon can watch; "
			"raise its limit of open files (ulimit -n)",
			context->n_clients);
	r = tgd_peer_open_process(&session->peer, tgd_conn_fd(session->conn), &new.pidfd,
				  &new.start_time, answer->why, sizeof(answer->why));
	if (r < 0)
		return r;
	earlier = tgd_client_by_pid(context, session->peer.pid);
	r = consider_earlier(attach, earlier, new.start_time, answer);
	if (r != 0) {
		close(new.pidfd);
		if (r > 0)
			*ret = earlier;
		return r;
	}
	r = tgd_client_add(context, &new, on_client_exit, ret);
	if (r < 0) {
		close(new.pidfd);
		return tgd_answer_heap_refuses(session, answer, r);
	}
	return 0;
}

static int check_attach(struct tgd_session *session, const Tgd__Attach *attach,
			struct tgd_answer *answer)
{
	struct tgd_context *context = session->context;
	const char *name = context->config->heap;
	uid_t uid = session->peer.uid;

	if (session->state != TGD_SESSION_GREETED)
		return tgd_answer_refuse(answer, -EALREADY,
					 "this connection has attached before; make a new one");
	if (attach->heap[0] != '\0' && strcmp(attach->heap, name) != 0)
		return tgd_answer_refuse(answer, -ENOENT,
					 "this daemon serves the heap \"%s\", not \"%s\"", name,
					 attach->heap);
	if ((attach->flags & ~ATTACH_FLAGS) != 0)
		return tgd_answer_refuse(answer, -EINVAL,
					 "the flags 0x%x are not known to this daemon",
					 attach->flags & ~ATTACH_FLAGS);
	if (uid != 0 && tgd_session_unread_attaches(context, uid) >= UNREAD_ATTACHES_MAX)
		return tgd_answer_refuse(answer, -EAGAIN,
					 "%u connections of uid %u have attached and not read the "
					 "answer; try again when they have",
					 UNREAD_ATTACHES_MAX, (unsigned)uid);
	return 0;
}

int tgd_join_attach(struct tgd_session *session, const Tgd__Request *request,
		    struct tgd_answer *answer)
{
	const struct tgs_map_header *map = tgd_heap_view(session->context->heap)->map;
	Tgd__AttachReply *reply = &answer->body.attach;
	struct tgd_client *client = NULL;
	int r;

	r = check_attach(session, request->attach, answer);
	if (r < 0)
		return r;
	r = become_client(session, request->attach, &client, answer);
	if (r < 0)
		return r;
	/* The kernel says that it is the same process, so a connection that it still has is one
	 * that it gave up. */
	if (client->session != NULL) {
		struct tgd_session *old = client->session;

		tgd_session_set_client(old, NULL);
		old->state = TGD_SESSION_DETACHED;
		tgd_conn_close(old->conn, "its process made another");
	}
	tgd_session_set_client(session, client);
	session->state = TGD_SESSION_ATTACHED;
	tgd_log(TGD_LOG_INFO, "%s %s (%s)", client->label, r > 0 ? "came back" : "attached",
		session->program);

	tgd__attach_reply__init(reply);
	reply->client_id = client->id;
	reply->map_bytes = map->geometry.map_bytes;
	reply->heap_bytes = map->geometry.heap_bytes;
	reply->heap_base = map->base;
	reply->heap_uuid.len = sizeof(map->uuid);
	reply->heap_uuid.data = (uint8_t *)map->uuid;
	answer->reply.body_case = TGD__REPLY__BODY_ATTACH;
	answer->reply.attach = reply;
	answer->with_fds = true;
	return 0;
}

int tgd_join_detach(struct tgd_session *session, const Tgd__Request *request,
		    struct tgd_answer *answer)
{
	struct tgd_client *client = session->client;

	(void)request;
	(void)answer;
	tgd_session_set_client(session, NULL);
	session->state = TGD_SESSION_DETACHED;
	end_client(client, "detached", true);
	return 0;
}
