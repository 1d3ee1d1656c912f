/* wire.c - bytes to the daemon and back: frames, waiting, and what belongs to whom.
 *
 * The buffers lie in wiped memory, as all that is this process's own: a forked child finds no connection.  The descriptor is
 * looked at before each use (device and inode): a program that closed all its descriptors and opened others must not find
 * our bytes in its files.
 */
#include "client/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS \
	80000 /* so long we look for an answer before we sleep: memory for it may have to be made */
#define LOOK_MISSES 4u /* after so many in vain only one wait in LOOK_RETRY begins with it */
#define LOOK_RETRY  16u

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t tgc_wire_now_ms(void)
{
	return now_ns() / 1000000;
}

/* Is the descriptor still the socket that we opened? */
bool tgc_wire_is_ours(void)
{
	struct stat st;

	return tgc_saved.socket_fd >= 0 && fstat(tgc_saved.socket_fd, &st) == 0 &&
	       st.st_dev == tgc_saved.socket_dev && st.st_ino == tgc_saved.socket_ino;
}

/* The reply to a posted request has come, or never will. */
static void take_post(struct tgc_post **where, const Tgd__Reply *reply)
{
	struct tgc_post *post = *where;

	*where = post->next;
	post->next = NULL;
	post->id = 0;
	post->take(post, reply);
}

void tgc_wire_disconnect(void)
{
	while (tgc_wire()->posts)
		take_post(&tgc_wire()->posts, NULL);
	if (tgc_wire_is_ours())
		close(tgc_saved.socket_fd);
	tgc_saved.socket_fd = -1;
	tgc_wire()->in_n = tgc_wire()->out_n = 0;
	tgc_wire()->holds = false;
}

void tgc_wire_close_fds(void)
{
	while (tgc_wire()->n_fds > 0)
		close(tgc_wire()->fds[--tgc_wire()->n_fds]);
}

static int wait_for(short events, int64_t deadline)
{
	struct pollfd pfd = {.fd = tgc_saved.socket_fd, .events = events};
	int64_t left;
	int n;

	for (;;) {
		/* Looks once also when the time is over: we may have been stopped while the answer came. */
		left = deadline - tgc_wire_now_ms();
		n = poll(&pfd, 1, left > 0 ? (int)left : 0);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0 && left <= 0)
			return -ETIMEDOUT;
	}
}

static int send_all(const uint8_t *bytes, size_t n, int64_t deadline)
{
	while (n > 0) {
		ssize_t sent = tgp_send_fds(tgc_saved.socket_fd, bytes, n, NULL, 0);

		if (sent == -EAGAIN) {
			int r = wait_for(POLLOUT, deadline);

			if (r < 0)
				return r;
			continue;
		}
		if (sent < 0)
			return (int)sent;
		bytes += sent;
		n -= (size_t)sent;
	}
	return 0;
}

/* To be put to sleep and woken costs more than most answers take.  So we look for the answer for a while; unless that
 * was in vain lately, as it is where the daemon and we have one processor between us.  Returns until when. */
static int64_t look_begin(void)
{
	struct tgc_rpc *c = tgc_wire();

	if (c->misses >= LOOK_MISSES && c->misses++ % LOOK_RETRY != 0)
		return 0;
	return now_ns() + LOOK_NS;
}

/* Nothing has come: shall we look again?  *until becomes 0 when we shall not any more. */
static bool look_again(int64_t *until)
{
	if (*until == 0)
		return false;
	if (now_ns() < *until)
		return true;
	*until = 0;
	tgc_wire()->misses++;
	return false;
}

/* Reads until a whole frame is there, and unpacks it. */
static int receive(const Tgd__Reply **ret, int64_t deadline)
{
	struct tgc_rpc *c = tgc_wire();
	int64_t look_until = look_begin();
	const uint8_t *payload;
	size_t len;
	int r;

	for (;;) {
		int fds[TGP_FDS_MAX];
		size_t n_fds = 0, i;
		ssize_t got;

		r = tgp_frame_next(c->in, c->in_n, &payload, &len);
		if (r < 0)
			return r;
		if (r > 0)
			break;
		if (c->in_n == TGC_IN_SIZE)
			return -EPROTO;
		got = tgp_recv_fds(tgc_saved.socket_fd, c->in + c->in_n, TGC_IN_SIZE - c->in_n, fds,
				   TGP_FDS_MAX, &n_fds);
		if (got == -EAGAIN) {
			if (look_again(&look_until))
				continue;
			r = wait_for(POLLIN, deadline);
			if (r < 0)
				return r;
			continue;
		}
		if (got < 0)
			return (int)got;
		if (got == 0)
			return -ECONNRESET;
		if (n_fds > 0)
			tgc_wire_close_fds();
		for (i = 0; i < n_fds; i++)
			c->fds[c->n_fds++] = fds[i];
		c->in_n += (size_t)got;
	}
	if (look_until != 0)
		c->misses = 0;
	tgp_arena_reset(&c->arena);
	r = tgp_reply_unpack(&c->arena, payload, len, ret, c->why, sizeof(c->why));
	memmove(c->in, c->in + TGP_FRAME_HEAD + len, c->in_n - TGP_FRAME_HEAD - len);
	c->in_n -= TGP_FRAME_HEAD + len;
	return r;
}

/* Receives one reply; if it is that of a posted request, hands it over, and *ret is NULL. */
int tgc_wire_receive(const Tgd__Reply **ret, int64_t deadline)
{
	struct tgc_post **where;
	int r;

	r = receive(ret, deadline);
	if (r < 0)
		return r;
	for (where = &tgc_wire()->posts; *where; where = &(*where)->next) {
		if ((*where)->id == (*ret)->id) {
			take_post(where, *ret);
			*ret = NULL;
			break;
		}
	}
	return 0;
}

/* What is held back goes. */
int tgc_wire_release(int64_t deadline)
{
	size_t n = tgc_wire()->out_n;

	tgc_wire()->holds = false;
	tgc_wire()->out_n = 0;
	return send_all(tgc_wire()->out, n, deadline);
}

int tgc_wire_send(Tgd__Request *request, int64_t deadline)
{
	struct tgc_rpc *c = tgc_wire();
	ssize_t n;

	request->id = ++c->next_id;
	n = tgp_request_pack(request, c->out + c->out_n, TGC_OUT_SIZE - c->out_n);
	if (n < 0)
		return (int)n;
	c->out_n += (size_t)n;
	atomic_fetch_add_explicit(&c->messages, 1, memory_order_relaxed);
	return c->holds ? 0 : tgc_wire_release(deadline);
}

/* The reply to the request of that id. */
int tgc_wire_await(uint64_t id, Tgd__Reply__BodyCase body, const Tgd__Reply **ret, int64_t deadline)
{
	struct tgc_rpc *c = tgc_wire();
	const Tgd__Reply *reply = NULL;
	int r;

	do
		r = tgc_wire_receive(&reply, deadline);
	while (r == 0 && (!reply || (reply->id != id && reply->id != 0)));
	if (r < 0)
		return r;
	if (reply->error != 0) {
		snprintf(c->why, sizeof(c->why), "%s", reply->message);
		return reply->error < 0 && reply->error > -4096 ? reply->error : -EPROTO;
	}
	if (reply->body_case != body)
		return -EPROTO;
	if (ret)
		*ret = reply;
	return 0;
}

/* One exchange on the connection that there is. */
int tgc_wire_exchange(Tgd__Request *request, Tgd__Reply__BodyCase body, const Tgd__Reply **ret,
		      int64_t deadline)
{
	int r = tgc_wire_send(request, deadline);

	/* After EPIPE there may still be a reply to read that tells why. */
	return r < 0 && r != -EPIPE ? r : tgc_wire_await(request->id, body, ret, deadline);
}
