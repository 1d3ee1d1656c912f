/* accept.c - takes connections in, and turns away those for which there is no room.
 *
 * Accepting has a budget, so that a crowd at the door does not keep those inside waiting, and stops
 * for a second when no descriptors are left: the socket would stay readable and the loop would spin.
 */
#include "daemon/accept.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "daemon/log.h"
#include "daemon/session.h"

#define ACCEPTS_A_TURN  64u
#define ACCEPT_PAUSE_MS 1000

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

static void pause_accepting(struct tgd_accept *accept, unsigned ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	evconnlistener_disable(accept->listener);
	if (!accept->stopped)
		evtimer_add(accept->again, &tv);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
		      int size, void *arg)
{
	struct tgd_accept *accept = arg;
	struct tgd_context *context = accept->context;
	struct tgd_peer peer;
	char why[200];
	int r;

	(void)listener;
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
	if (++accept->n_now >= ACCEPTS_A_TURN)
		pause_accepting(accept, 0);
}

static void on_accept_error(struct evconnlistener *listener, void *arg)
{
	int error = EVUTIL_SOCKET_ERROR();

	(void)listener;
	tgd_log(TGD_LOG_ERROR, "no connections are accepted for %d ms: %s", ACCEPT_PAUSE_MS,
		strerror(error));
	pause_accepting(arg, ACCEPT_PAUSE_MS);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
	struct tgd_accept *accept = arg;

	(void)fd;
	(void)what;
	accept->n_now = 0;
	evconnlistener_enable(accept->listener);
}

/* ---- life ---- */

int tgd_accept_init(struct tgd_accept *accept, struct tgd_context *context, int fd)
{
	*accept = (struct tgd_accept){.context = context};
	accept->listener = evconnlistener_new(context->base, on_accept, accept,
					      LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
	if (accept->listener == NULL) {
		close(fd);
		return -ENOMEM;
	}
	evconnlistener_set_error_cb(accept->listener, on_accept_error);
	accept->again = evtimer_new(context->base, on_accept_again, accept);
	return accept->again == NULL ? -ENOMEM : 0;
}

void tgd_accept_stop(struct tgd_accept *accept)
{
	accept->stopped = true;
	evtimer_del(accept->again);
	evconnlistener_disable(accept->listener);
}

void tgd_accept_done(struct tgd_accept *accept)
{
	if (accept->listener != NULL)
		evconnlistener_free(accept->listener);
	if (accept->again != NULL)
		event_free(accept->again);
}
