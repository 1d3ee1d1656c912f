/* client.c - the processes that are clients, and the watch for their end.
 *
 * A client is a process, not a connection: its socket may close and a child that it forked may hold
 * a copy of it, but what it has in the heap is settled when the kernel says that the process has
 * ended (pidfd), or when it detaches. In between it is "away" and may come back.  So the table here
 * lives as long as the processes do, with at most one client a process; sessions come and go.  The
 * heap's own client table says the same, for the next daemon, which takes up from there the watch for
 * those that still live.
 */
#include "daemon/client.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/log.h"

struct watch {
	struct tgd_client client;
	void (*on_exit)(struct tgd_client *client);
};

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct watch *watch = arg;

	(void)fd;
	(void)what;
	watch->on_exit(&watch->client);
}

static struct tgd_client *client_free(struct tgd_client *client)
{
	if (client->exit_event != NULL)
		event_free(client->exit_event);
	if (client->pidfd >= 0)
		close(client->pidfd);
	free((struct watch *)client);
	return NULL;
}

/* A client that is in no table yet. */
static struct tgd_client *client_new(struct tgd_context *context, int pidfd,
				     void (*on_exit)(struct tgd_client *client))
{
	struct watch *watch = calloc(1, sizeof(*watch));
	struct tgd_client *client = &watch->client;

	if (watch == NULL)
		return NULL;
	watch->on_exit = on_exit;
	client->context = context;
	client->pidfd = -1;
	client->exit_event = event_new(context->base, pidfd, EV_READ, on_readable, watch);
	if (client->exit_event == NULL || event_add(client->exit_event, NULL) < 0)
		return client_free(client);
	return client;
}

static void enter(struct tgd_client *client, int pidfd, const char *name)
{
	struct tgd_context *context = client->context;

	client->pidfd = pidfd;
	snprintf(client->label, sizeof(client->label), "client %u (pid %d, uid %u, \"%s\")",
		 client->id, (int)client->pid, (unsigned)client->uid, name);
	HASH_ADD(by_id, context->clients_by_id, id, sizeof(client->id), client);
	HASH_ADD(by_pid, context->clients_by_pid, pid, sizeof(client->pid), client);
	context->n_clients++;
}

int tgd_client_add(struct tgd_context *context, const struct tgd_client_new *new,
		   void (*on_exit)(struct tgd_client *client), struct tgd_client **ret)
{
	const struct tgd_peer *peer = new->peer;
	struct tgd_client *client = client_new(context, new->pidfd, on_exit);
	int r;

	if (client == NULL)
		return -ENOMEM;
	r = tgd_heap_client_add(context->heap, (uint32_t)peer->pid, new->start_time, peer->uid,
				peer->gid, new->flags, new->name, &client->id);
	if (r < 0) {
		client_free(client);
		return r;
	}
	client->pid = peer->pid;
	client->uid = peer->uid;
	client->start_time = new->start_time;
	enter(client, new->pidfd, new->name);
	context->clients_changed(context);
	*ret = client;
	return 0;
}

int tgd_client_resume(struct tgd_context *context, const struct tgd_client_info *info,
		      void (*on_exit)(struct tgd_client *client))
{
	struct tgd_client *client;
	int pidfd, r;

	r = tgd_peer_reopen_process((pid_t)info->pid, info->start_time, &pidfd);
	if (r < 0)
		return r;
	client = client_new(context, pidfd, on_exit);
	if (client == NULL) {
		close(pidfd);
		return -ENOMEM;
	}
	client->id = info->id;
	client->pid = (pid_t)info->pid;
	client->uid = (uid_t)info->uid;
	client->start_time = info->start_time;
	enter(client, pidfd, info->name);
	return 0;
}

struct tgd_client *tgd_client_by_id(const struct tgd_context *context, uint32_t id)
{
	struct tgd_client *client;

	HASH_FIND(by_id, context->clients_by_id, &id, sizeof(id), client);
	return client;
}

struct tgd_client *tgd_client_by_pid(const struct tgd_context *context, pid_t pid)
{
	struct tgd_client *client;

	HASH_FIND(by_pid, context->clients_by_pid, &pid, sizeof(pid), client);
	return client;
}

void tgd_client_end(struct tgd_client *client, const char *how, bool orderly)
{
	struct tgd_context *context = client->context;
	struct tgd_client_info info;
	int r;

	if (tgd_heap_client_get(context->heap, client->id, &info) == 0)
		tgd_log(TGD_LOG_INFO, "%s %s; it held %u threads' caches, %llu spans, %llu bytes",
			client->label, how, info.threads, (unsigned long long)info.spans,
			(unsigned long long)info.span_bytes);
	r = orderly ? tgd_heap_client_detach(context->heap, client->id)
		    : tgd_heap_client_end(context->heap, client->id);
	if (r < 0)
		tgd_log(TGD_LOG_ERROR, "%s cannot be settled: %s", client->label,
			tgd_heap_why(context->heap));
	HASH_DELETE(by_id, context->clients_by_id, client);
	HASH_DELETE(by_pid, context->clients_by_pid, client);
	context->n_clients--;
	client_free(client);
	context->clients_changed(context);
	context->want_work(context);
}

void tgd_clients_free(struct tgd_context *context)
{
	struct tgd_client *client, *next;

	HASH_ITER (by_id, context->clients_by_id, client, next) {
		HASH_DELETE(by_id, context->clients_by_id, client);
		HASH_DELETE(by_pid, context->clients_by_pid, client);
		client_free(client);
	}
	context->n_clients = 0;
}
