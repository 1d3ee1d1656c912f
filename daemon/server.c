/* server.c - owns all the rest and the event loop in which it happens.
 *
 * One thread, and nothing in it waits: sockets, signals, ends of processes and timers are events,
 * and the heap's background work is done in slices between them, by a timer of 0 ms, so that
 * sockets are looked at after each slice. Accepting has a budget, too, and stops for a second when
 * no descriptors are left: the socket would stay readable and the loop would spin.  How many
 * connections there may be follows from the limit of open files: each may bring a pidfd.
 */
#include "daemon/server.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "daemon/client.h"
#include "daemon/heap.h"
#include "daemon/listen.h"
#include "daemon/session.h"
#include "proto/size.h"
#include "shm/base.h"

#define ACCEPTS_A_TURN   64u
#define ACCEPT_PAUSE_MS  1000
#define FILES_OF_OUR_OWN 64u
#define SESSIONS_MIN     16u
#define N_SIGNALS        3

struct tgd_server {
	struct tgd_context context; /* first: a context is cast back to its server */
	struct tgd_listener listener;
	struct evconnlistener *accepting;
	struct event *accept_again;
	struct event *work;
	struct event *idle;
	struct event *signals[N_SIGNALS];
	unsigned n_accepted; /* since accept_again last ran */
	bool work_is_near;   /* the timer is at 0 already */
};

uint64_t tgd_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void add_timer(struct event *timer, uint64_t ms)
{
	struct timeval tv = {.tv_sec = (time_t)(ms / 1000),
			     .tv_usec = (suseconds_t)(ms % 1000) * 1000};

	evtimer_add(timer, &tv);
}

/* ---- what the parts below ask for ---- */

static void want_work(struct tgd_context *context)
{
	struct tgd_server *server = (struct tgd_server *)context;

	if (server->work_is_near)
		return;
	server->work_is_near = true;
	add_timer(server->work, 0);
}

static void clients_changed(struct tgd_context *context)
{
	struct tgd_server *server = (struct tgd_server *)context;

	if (context->config->idle_exit_s == 0)
		return;
	if (context->n_clients > 0)
		evtimer_del(server->idle);
	else
		add_timer(server->idle, (uint64_t)context->config->idle_exit_s * 1000);
}

static void stop(struct tgd_context *context, const char *why)
{
	tgd_log(TGD_LOG_NOTICE, "ending: %s; %u clients are attached", why, context->n_clients);
	event_base_loopexit(context->base, NULL);
}

/* ---- timers and signals ---- */

static void on_work(evutil_socket_t fd, short what, void *arg)
{
	struct tgd_server *server = arg;
	int next_ms;

	(void)fd;
	(void)what;
	next_ms = tgd_heap_work(server->context.heap, tgd_now_ms());
	server->work_is_near = next_ms == 0;
	if (next_ms >= 0)
		add_timer(server->work, (uint64_t)next_ms);
}

static void on_idle(evutil_socket_t fd, short what, void *arg)
{
	struct tgd_server *server = arg;
	char why[80];

	(void)fd;
	(void)what;
	snprintf(why, sizeof(why), "no client was attached for %u s",
		 server->context.config->idle_exit_s);
	stop(&server->context, why);
}

static void on_end_signal(evutil_socket_t number, short what, void *arg)
{
	struct tgd_server *server = arg;
	char why[80];

	(void)what;
	snprintf(why, sizeof(why), "signal %d (%s)", (int)number, strsignal((int)number));
	stop(&server->context, why);
}

/* SIGHUP: the file's limit counts from now on.  The rest is for the next start. */
static void on_reload(evutil_socket_t number, short what, void *arg)
{
	struct tgd_server *server = arg;
	struct tgd_config *config = server->context.config, new;
	char why[512] = "", text[TGP_SIZE_TEXT];

	(void)number;
	(void)what;
	if (config->file[0] == '\0') {
		tgd_log(TGD_LOG_INFO, "SIGHUP: nothing to read again, as there is no --config");
		return;
	}
	if (tgd_config_reload(config, &new, why, sizeof(why)) < 0) {
		tgd_log(TGD_LOG_ERROR, "SIGHUP: nothing is changed: %s", why);
		return;
	}
	tgp_format_size(new.limit_bytes, text, sizeof(text));
	if (tgd_heap_set_limit(server->context.heap, new.limit_bytes) < 0) {
		tgd_log(TGD_LOG_ERROR, "SIGHUP: the limit cannot be %s: %s", text,
			tgd_heap_why(server->context.heap));
		return;
	}
	config->limit_bytes = new.limit_bytes;
	tgd_log(TGD_LOG_INFO, "SIGHUP: the limit is %s now%s", text,
		(new.set_by_args & 1u << TGD_CONFIG_LIMIT) != 0 ? ", as the command line says"
								: "");
	want_work(&server->context);
}

/* ---- accepting ---- */

/* Tells a peer that it cannot stay, as far as its socket takes that at once. */
static void turn_away(int fd, const struct tgd_peer *peer, int error, const char *why)
{
	uint8_t frame[512];
	Tgd__Reply reply = TGD__REPLY__INIT;
	ssize_t n;

	reply.error = error;
	reply.message = (char *)why;
	n = tgp_reply_pack(&reply, frame, sizeof(frame));
	if (n > 0)
		(void)send(fd, frame, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
	tgd_log(TGD_LOG_WARNING, "turning away pid %d, uid %u: %s", (int)peer->pid,
		(unsigned)peer->uid, why);
}

/* Root and the daemon's own user may have all connections that there are, any other user half of
 * them. */
static bool is_full(const struct tgd_context *context, const struct tgd_peer *peer, char *why,
		    size_t why_size)
{
	unsigned n = 0, max = context->max_sessions;
	const struct tgd_session *session;

	if (context->n_sessions >= max) {
		snprintf(why, why_size,
			 "%u connections are open, the most that this daemon takes; raise its "
			 "limit of "
			 "open files (ulimit -n)",
			 context->n_sessions);
		return true;
	}
	if (tgd_peer_may_administer(peer) || context->n_sessions < max / 2)
		return false;
	DL_FOREACH (context->sessions, session)
		n += session->peer.uid == peer->uid;
	if (n < max / 2)
		return false;
	snprintf(why, why_size, "uid %u has %u connections open, the most that one user may have",
		 (unsigned)peer->uid, n);
	return true;
}

static void pause_accepting(struct tgd_server *server, unsigned ms)
{
	evconnlistener_disable(server->accepting);
	add_timer(server->accept_again, ms);
}

static void on_accept(struct evconnlistener *accepting, evutil_socket_t fd,
		      struct sockaddr *address, int size, void *arg)
{
	struct tgd_server *server = arg;
	struct tgd_context *context = &server->context;
	struct tgd_peer peer;
	char why[200];
	int r;

	(void)accepting;
	(void)address;
	(void)size;
	r = tgd_peer_get(fd, &peer);
	if (r < 0) {
		close(fd);
		tgd_log(TGD_LOG_WARNING, "a peer without credentials was turned away: %s",
			strerror(-r));
	} else if (is_full(context, &peer, why, sizeof(why))) {
		turn_away(fd, &peer, -EUSERS, why);
		close(fd);
	} else {
		r = tgd_session_new(context, fd, &peer,
				    tgd_peer_may_connect(&peer, fd, &context->access));
		if (r < 0)
			tgd_log(TGD_LOG_WARNING, "pid %d, uid %u was turned away: %s",
				(int)peer.pid, (unsigned)peer.uid, strerror(-r));
	}
	if (++server->n_accepted >= ACCEPTS_A_TURN)
		pause_accepting(server, 0);
}

static void on_accept_error(struct evconnlistener *accepting, void *arg)
{
	int error = EVUTIL_SOCKET_ERROR();

	(void)accepting;
	tgd_log(TGD_LOG_ERROR, "no connections are accepted for %d ms: %s", ACCEPT_PAUSE_MS,
		strerror(error));
	pause_accepting(arg, ACCEPT_PAUSE_MS);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
	struct tgd_server *server = arg;

	(void)fd;
	(void)what;
	server->n_accepted = 0;
	evconnlistener_enable(server->accepting);
}

/* ---- life ---- */

/* As many open files as we are allowed to have; returns how many that are. */
static uint64_t raise_open_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 0;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0 && getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 0;
	return limit.rlim_cur;
}

static int make_events(struct tgd_server *server, int fd)
{
	static const int numbers[N_SIGNALS] = {SIGTERM, SIGINT, SIGHUP};
	struct event_base *base = server->context.base;
	unsigned i;

	server->accepting = evconnlistener_new(
		base, on_accept, server, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
	if (server->accepting == NULL) {
		close(fd);
		return -ENOMEM;
	}
	evconnlistener_set_error_cb(server->accepting, on_accept_error);
	server->accept_again = evtimer_new(base, on_accept_again, server);
	server->work = evtimer_new(base, on_work, server);
	server->idle = evtimer_new(base, on_idle, server);
	if (server->accept_again == NULL || server->work == NULL || server->idle == NULL)
		return -ENOMEM;
	for (i = 0; i < N_SIGNALS; i++) {
		server->signals[i] = evsignal_new(
			base, numbers[i], numbers[i] == SIGHUP ? on_reload : on_end_signal, server);
		if (server->signals[i] == NULL || evsignal_add(server->signals[i], NULL) < 0)
			return -ENOMEM;
	}
	return 0;
}

static struct event_base *make_base(void)
{
	struct event_config *how = event_config_new();
	struct event_base *base = NULL;

	if (how != NULL) {
		event_config_set_flag(how, EVENT_BASE_FLAG_NOLOCK);
		base = event_base_new_with_config(how);
		event_config_free(how);
	}
	return base;
}

static void init_context(struct tgd_context *context, struct tgd_config *config)
{
	uint64_t files = raise_open_files();

	context->config = config;
	context->access = (struct tgd_access){
		.mode = config->mode,
		.uid = geteuid(),
		.gid = config->group != (gid_t)-1 ? config->group : getegid(),
	};
	context->max_sessions = (unsigned)tgs_min(
		files > FILES_OF_OUR_OWN ? (files - FILES_OF_OUR_OWN) / 2 : 0, TGS_CLIENTS_MAX);
	context->max_sessions = (unsigned)tgs_max(context->max_sessions, SESSIONS_MIN);
	context->start_ms = tgd_now_ms();
	context->want_work = want_work;
	context->clients_changed = clients_changed;
	context->stop = stop;
}

/* On failure the server is half built and the caller frees it. */
static int start(struct tgd_server *server, struct tgd_config *config, char *why, size_t why_size)
{
	struct tgd_context *context = &server->context;
	struct tgd_heap_options options = {
		.name = config->heap,
		.reserve_bytes = config->reserve_bytes,
		.limit_bytes = config->limit_bytes,
		.base = config->base,
	};
	int fd, r;

	init_context(context, config);
	context->base = make_base();
	if (context->base == NULL) {
		snprintf(why, why_size,
			 "the event loop cannot be made: out of memory or of open files");
		return -ENOMEM;
	}
	/* Before the heap, as it is the likely mistake, and cheap. */
	r = tgd_listen(&server->listener, config->socket, &context->access, &fd, why, why_size);
	if (r < 0)
		return r;
	r = make_events(server, fd);
	if (r < 0) {
		snprintf(why, why_size, "the event loop cannot be set up: %s", strerror(-r));
		return r;
	}
	r = tgd_heap_new(&context->heap, &options, why, why_size);
	if (r < 0)
		return r;
	clients_changed(context);
	want_work(context);
	return 0;
}

int tgd_server_new(struct tgd_server **ret, struct tgd_config *config, char *why, size_t why_size)
{
	struct tgd_server *server = calloc(1, sizeof(*server));
	int r;

	if (server == NULL) {
		snprintf(why, why_size, "out of memory");
		return -ENOMEM;
	}
	server->listener.lock_fd = -1;
	r = start(server, config, why, why_size);
	if (r < 0) {
		tgd_server_free(server);
		return r;
	}
	*ret = server;
	return 0;
}

int tgd_server_run(struct tgd_server *server)
{
	char reserve[TGP_SIZE_TEXT], limit[TGP_SIZE_TEXT];
	struct tgd_context *context = &server->context;
	struct tgd_heap_status status;

	tgd_heap_status(context->heap, &status);
	tgp_format_size(status.reserve_bytes, reserve, sizeof(reserve));
	tgp_format_size(status.limit_bytes, limit, sizeof(limit));
	tgd_log(TGD_LOG_NOTICE,
		"ready: heap \"%s\" at 0x%llx, reserves %s, limit %s; socket %s, mode %04o, at "
		"most %u "
		"connections",
		context->config->heap, (unsigned long long)status.base, reserve, limit,
		context->config->socket, (unsigned)context->config->mode, context->max_sessions);
	return event_base_dispatch(context->base) < 0 ? -EIO : 0;
}

struct tgd_server *tgd_server_free(struct tgd_server *server)
{
	struct tgd_session *session, *next;
	unsigned i;

	if (server == NULL)
		return NULL;
	/* First the name, so that whoever sees its connection end can start another daemon in this
	 * place. */
	tgd_listen_done(&server->listener);
	DL_FOREACH_SAFE (server->context.sessions, session, next)
		tgd_session_free(session);
	tgd_clients_free(&server->context);
	if (server->accepting != NULL)
		evconnlistener_free(server->accepting);
	for (i = 0; i < N_SIGNALS; i++) {
		if (server->signals[i] != NULL)
			event_free(server->signals[i]);
	}
	if (server->accept_again != NULL)
		event_free(server->accept_again);
	if (server->work != NULL)
		event_free(server->work);
	if (server->idle != NULL)
		event_free(server->idle);
	if (server->context.base != NULL)
		event_base_free(server->context.base);
	tgd_heap_free(server->context.heap);
	free(server);
	return NULL;
}
