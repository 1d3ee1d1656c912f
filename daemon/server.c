/* server.c - owns all the rest and the event loop in which it happens.
 *
 * One thread, and nothing in it waits: sockets, signals, ends of processes and timers are events,
 * and the heap's background work is done in slices between them, by a timer of 0 ms, so that
 * sockets are looked at after each slice.  How many connections there may be follows from the limit
 * of open files: each may bring a pidfd.
 *
 * It ends in one of two ways: for good, and then its files go; or it retires, as another worker is
 * to go on with the heap.  Then nothing is read any more, what was read is answered, and what the
 * peers have not asked yet they ask the next one.
 */
#include "daemon/server.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "daemon/accept.h"
#include "daemon/client.h"
#include "daemon/heap.h"
#include "daemon/join.h"
#include "daemon/kept.h"
#include "daemon/listen.h"
#include "daemon/session.h"
#include "proto/size.h"
#include "shm/base.h"

#define FILES_OF_OUR_OWN 64u
#define SESSIONS_MIN     16u
#define N_SIGNALS        3
#define RETIRE_MS        2000 /* how long peers may take to read the last answers */
#define RETIRE_LOOK_MS   1
#define BURST_NS         80000 /* requests that come closer than this are a burst ... */
#define LOOK_NS          40000 /* ... in which we look for the next one for so long */
#define LOOK_MISSES      4u    /* after so many in vain only ... */
#define LOOK_RETRY       16u   /* ... once in so many */

struct tgd_server {
	struct tgd_context context; /* first: a context is cast back to its server */
	struct tgd_kept kept;
	struct tgd_listener listener;
	struct tgd_accept accept;
	bool takes_over; /* the heap was another worker's before */
	struct event *work;
	struct event *idle;
	struct event *retire;
	struct event *signals[N_SIGNALS];
	bool work_is_near;  /* the timer is at 0 already */
	bool ends;          /* for good: with its files */
	uint64_t retire_by; /* tgd_now_ms */
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

static void end(struct tgd_server *server, const char *kind, const char *why)
{
	struct tgd_context *context = &server->context;

	server->ends = true;
	tgd_kept_leave(&server->kept, "ended", kind);
	tgd_log(TGD_LOG_NOTICE, "ending: %s; %u clients are attached", why, context->n_clients);
	event_base_loopexit(context->base, NULL);
}

static void stop(struct tgd_context *context, const char *why)
{
	end((struct tgd_server *)context, "request", why);
}

static int upgrade(struct tgd_context *context, int program, const char *path)
{
	return tgd_kept_upgrade(&((struct tgd_server *)context)->kept, program, path);
}

static void tell_keeping(const struct tgd_context *context, struct tgd_keeping *ret)
{
	const struct tgd_handover *have = &((const struct tgd_server *)context)->kept.have;

	*ret = (struct tgd_keeping){.keeper_pid = have->keeper_pid,
				    .restarts = have->restarts,
				    .upgrade_failure = have->failure};
}

/* ---- retiring ---- */

/* Called again and again until all is said. */
static void on_retire(evutil_socket_t fd, short what, void *arg)
{
	struct tgd_server *server = arg;

	(void)fd;
	(void)what;
	if ((!tgd_sessions_quiet(&server->context) && tgd_now_ms() < server->retire_by) ||
	    tgd_kept_retire(&server->kept) < 0) {
		add_timer(server->retire, RETIRE_LOOK_MS);
		return;
	}
	event_base_loopbreak(server->context.base);
}

static void retire(void *arg)
{
	struct tgd_server *server = arg;

	tgd_log(TGD_LOG_NOTICE, "retiring: another worker follows; %u clients are attached",
		server->context.n_clients);
	server->retire_by = tgd_now_ms() + RETIRE_MS;
	tgd_accept_stop(&server->accept);
	tgd_sessions_retire(&server->context);
	add_timer(server->retire, 0);
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
	tgd_sessions_go_on(&server->context);
}

static void on_idle(evutil_socket_t fd, short what, void *arg)
{
	struct tgd_server *server = arg;
	char why[80];

	(void)fd;
	(void)what;
	snprintf(why, sizeof(why), "no client was attached for %u s",
		 server->context.config->idle_exit_s);
	end(server, "request", why);
}

static void on_end_signal(evutil_socket_t number, short what, void *arg)
{
	struct tgd_server *server = arg;
	char why[80];

	(void)what;
	snprintf(why, sizeof(why), "signal %d (%s)", (int)number, strsignal((int)number));
	end(server, "signal", why);
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

static int make_events(struct tgd_server *server)
{
	static const int numbers[N_SIGNALS] = {SIGTERM, SIGINT, SIGHUP};
	struct event_base *base = server->context.base;
	sigset_t caught;
	unsigned i;

	server->work = evtimer_new(base, on_work, server);
	server->idle = evtimer_new(base, on_idle, server);
	server->retire = evtimer_new(base, on_retire, server);
	if (server->work == NULL || server->idle == NULL || server->retire == NULL)
		return -ENOMEM;
	sigemptyset(&caught);
	for (i = 0; i < N_SIGNALS; i++) {
		server->signals[i] = evsignal_new(
			base, numbers[i], numbers[i] == SIGHUP ? on_reload : on_end_signal, server);
		if (server->signals[i] == NULL || evsignal_add(server->signals[i], NULL) < 0)
			return -ENOMEM;
		sigaddset(&caught, numbers[i]);
	}
	/* The keeper had them blocked, so that none came to a worker that could not hear it yet. */
	sigprocmask(SIG_UNBLOCK, &caught, NULL);
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

static void init_context(struct tgd_context *context, struct tgd_config *config,
			 const struct tgd_handover *handover)
{
	uint64_t files = raise_open_files();

	/* Name and socket are those of the keeper's start, whatever the config file says by now. */
	snprintf(config->heap, sizeof(config->heap), "%s", handover->name);
	snprintf(config->socket, sizeof(config->socket), "%s", handover->socket);
	context->config = config;
	context->access =
		(struct tgd_access){.mode = handover->mode, .uid = geteuid(), .gid = handover->gid};
	context->max_sessions = (unsigned)tgs_min(
		files > FILES_OF_OUR_OWN ? (files - FILES_OF_OUR_OWN) / 2 : 0, TGS_CLIENTS_MAX);
	context->max_sessions = (unsigned)tgs_max(context->max_sessions, SESSIONS_MIN);
	context->start_ms = tgd_now_ms();
	context->want_work = want_work;
	context->clients_changed = clients_changed;
	context->stop = stop;
	context->upgrade = upgrade;
	context->tell_keeping = tell_keeping;
}

/* A heap of our own, or the one that was handed over. */
static int get_heap(struct tgd_server *server, const struct tgd_handover *handover, char *why,
		    size_t why_size)
{
	struct tgd_context *context = &server->context;
	struct tgd_config *config = context->config;
	struct tgd_heap_options options = {
		.name = handover->name,
		.reserve_bytes = config->reserve_bytes,
		.limit_bytes = config->limit_bytes,
		.base = config->base,
	};
	int r;

	server->takes_over = handover->map >= 0;
	if (!server->takes_over) {
		r = tgd_heap_new(&context->heap, &options, why, why_size);
		if (r == 0)
			tgd_heap_set_huge(context->heap, config->huge);
		return r;
	}
	r = tgd_heap_adopt(&context->heap, handover->map, handover->heap, handover->name, why,
			   why_size);
	if (r == -EPROTO)
		tgd_kept_leave(&server->kept, "refused", why);
	if (r < 0)
		return r;
	tgd_heap_set_huge(context->heap, config->huge);
	return tgd_clients_resume(context, why, why_size);
}

/* On failure the server is half built and the caller frees it. */
static int start(struct tgd_server *server, struct tgd_config *config,
		 const struct tgd_handover *handover, char *why, size_t why_size)
{
	struct tgd_context *context = &server->context;
	int r;

	init_context(context, config, handover);
	tgd_listen_resume(&server->listener, handover->socket, handover->lock);
	context->base = make_base();
	if (context->base == NULL) {
		snprintf(why, why_size,
			 "the event loop cannot be made: out of memory or of open files");
		return -ENOMEM;
	}
	r = tgd_kept_init(&server->kept, handover, config->argv, context->base, retire, server);
	if (r == 0)
		r = make_events(server);
	if (r == 0)
		r = tgd_accept_init(&server->accept, context, handover->listener);
	if (r < 0) {
		snprintf(why, why_size, "the event loop cannot be set up: %s", strerror(-r));
		return r;
	}
	r = get_heap(server, handover, why, why_size);
	if (r < 0)
		return r;
	r = tgd_kept_files(&server->kept, tgd_heap_map_fd(context->heap),
			   tgd_heap_heap_fd(context->heap), !server->takes_over);
	if (r < 0) {
		snprintf(why, why_size, "no more open files for the heap: %s", strerror(-r));
		return r;
	}
	clients_changed(context);
	want_work(context);
	return 0;
}

int tgd_server_new(struct tgd_server **ret, struct tgd_config *config,
		   const struct tgd_handover *handover, char *why, size_t why_size)
{
	struct tgd_server *server = calloc(1, sizeof(*server));
	int r;

	if (server == NULL) {
		snprintf(why, why_size, "out of memory");
		return -ENOMEM;
	}
	tgd_handover_init(&server->kept.have);
	server->kept.program = -1;
	r = start(server, config, handover, why, why_size);
	if (r < 0) {
		tgd_server_free(server);
		return r;
	}
	*ret = server;
	return 0;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Requests come in bursts: a program that starts, a heap that grows.  To sleep in between and be woken costs each of them
 * more than the answer takes.  So while one request follows the other closely, we look for the next for a moment before
 * we sleep; unless that was in vain lately, as it is on a busy machine, where who sleeps is sooner heard than who looks. */
static int serve(struct tgd_context *context)
{
	uint64_t answered = context->messages, last_ns = 0, now;
	unsigned misses = 0;
	bool looks = false;
	int r;

	for (;;) {
		now = now_ns();
		if (context->messages != answered) {
			misses = looks ? 0 : misses;
			looks = now - last_ns < BURST_NS &&
				(misses < LOOK_MISSES || misses++ % LOOK_RETRY == 0);
			answered = context->messages;
			last_ns = now;
		} else if (looks && now - last_ns >= LOOK_NS) {
			looks = false;
			misses++;
		}
		r = event_base_loop(context->base, looks ? EVLOOP_NONBLOCK : EVLOOP_ONCE);
		if (r != 0 || event_base_got_exit(context->base) ||
		    event_base_got_break(context->base))
			return r < 0 ? -EIO : 0;
	}
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
		server->listener.path, (unsigned)context->access.mode, context->max_sessions);
	if (server->takes_over)
		tgd_log(TGD_LOG_NOTICE,
			"goes on with the heap of the daemon before it: %u clients are attached, "
			"%llu spans, %llu roots",
			context->n_clients, (unsigned long long)status.spans,
			(unsigned long long)status.roots);
	tgd_kept_ready(&server->kept);
	return serve(context);
}

struct tgd_server *tgd_server_free(struct tgd_server *server)
{
	struct tgd_session *session, *next;
	unsigned i;

	if (server == NULL)
		return NULL;
	/* First the name, so that whoever sees its connection end can start another daemon in this
	 * place. */
	if (server->ends)
		tgd_listen_done(&server->listener);
	DL_FOREACH_SAFE (server->context.sessions, session, next)
		tgd_session_free(session);
	tgd_clients_free(&server->context);
	tgd_accept_done(&server->accept);
	for (i = 0; i < N_SIGNALS; i++) {
		if (server->signals[i] != NULL)
			event_free(server->signals[i]);
	}
	if (server->work != NULL)
		event_free(server->work);
	if (server->idle != NULL)
		event_free(server->idle);
	if (server->retire != NULL)
		event_free(server->retire);
	tgd_kept_done(&server->kept);
	if (server->context.base != NULL)
		event_base_free(server->context.base);
	tgd_heap_free(server->context.heap);
	free(server);
	return NULL;
}
