/* conn.c - bytes between a socket and frames, with limits in both directions.
 *
 * Raw events and our own recvmsg and sendmsg: a bufferevent would read() and so lose descriptors,
 * both those that we send and those that a peer pushes on us.  evbuffers are only the byte queues;
 * an empty one holds no memory, so an idle connection costs its struct.
 *
 * Input is read into one buffer of the process, and only while all frames read so far have been
 * handled.  Handling stops (and with it reading) when
 *   - unsent output is over HIGH, until it is under LOW: who does not read is not listened to;
 *   - FRAMES were handled in this wake-up, until the next turn of the loop: so one peer cannot
 *     starve the others;
 *   - the owner holds the connection.
 * So a peer costs at most one read and one frame of input, and HIGH and one reply of output,
 * whatever it does.
 *
 * OPEN -> ENDING (only output is left) -> CLOSED (no socket; `closed` is called from the loop,
 * once).  Nothing is freed in here but by tgd_conn_free: functions change the state, and callbacks
 * act on it when they are done.
 */
#include "daemon/conn.h"

#include <assert.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "proto/fdpass.h"
#include "proto/frame.h"
#include "shm/base.h"

#define READ_SIZE (64u * 1024)
#define RETRY_MS  100 /* until descriptors in flight may have been taken by those they are for */

enum conn_state { OPEN, ENDING, CLOSED };

/* What the one timer of a connection waits for. */
enum timer_use {
	TIMER_IDLE,
	TIMER_DEADLINE, /* the owner's */
	TIMER_STALL,
	TIMER_LINGER,
};

struct tgd_conn {
	const struct tgd_conn_ops *ops;
	void *owner;
	enum conn_state state;
	int fd;
	bool reading, writing; /* the event is added */
	bool throttled;        /* output was over HIGH and is not under LOW yet */
	bool held;
	bool again;    /* the frame that is handled is to come again */
	bool retiring; /* nothing more is read */
	bool waits;    /* `soon` will handle the frames that are left */
	bool handling; /* a frame is; who handles it flushes afterwards */
	bool told_closed;
	enum timer_use timer_use;
	const char *why; /* of a deadline, an end, or a close */
	struct event read_event, write_event;
	struct event timer; /* something did not happen in time */
	struct event soon;  /* next turn of the loop, or a retry: go on */
	struct evbuffer *in, *out;
	int fds[TGP_FDS_MAX]; /* ride on the byte `fds_at` of `out` */
	size_t n_fds, fds_at;
};

/* One for the process: what a read brings is in `in` or handled before the next. */
static uint8_t read_buffer[READ_SIZE];

static void set_timer(struct tgd_conn *conn, enum timer_use use, unsigned ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};

	conn->timer_use = use;
	if (use == TIMER_IDLE)
		evtimer_del(&conn->timer);
	else
		evtimer_add(&conn->timer, &tv);
}

static void call_soon(struct tgd_conn *conn, unsigned ms)
{
	struct timeval tv = {.tv_usec = ms * 1000};

	evtimer_add(&conn->soon, &tv);
}

/* Makes libevent watch for what the state asks for. */
static void update_events(struct tgd_conn *conn)
{
	bool read = conn->state == OPEN && !conn->throttled && !conn->held && !conn->waits &&
		    !conn->retiring;

	if (conn->state == CLOSED)
		return;
	if (read && !conn->reading)
		event_add(&conn->read_event, NULL);
	else if (!read && conn->reading)
		event_del(&conn->read_event);
	conn->reading = read;
}

void tgd_conn_close(struct tgd_conn *conn, const char *why)
{
	if (conn->state == CLOSED)
		return;
	conn->state = CLOSED;
	conn->why = why;
	event_del(&conn->read_event);
	event_del(&conn->write_event);
	set_timer(conn, TIMER_IDLE, 0);
	close(conn->fd);
	conn->fd = -1;
	evbuffer_drain(conn->in, evbuffer_get_length(conn->in));
	evbuffer_drain(conn->out, evbuffer_get_length(conn->out));
	call_soon(conn, 0);
}

/* ---- output ---- */

/* One sendmsg with what lies in one piece at the start of `out`.  Bytes sent or -errno. */
static ssize_t send_piece(struct tgd_conn *conn)
{
	struct evbuffer_iovec piece;
	bool with_fds = conn->n_fds > 0 && conn->fds_at == 0;
	size_t n;
	ssize_t sent;

	evbuffer_peek(conn->out, -1, NULL, &piece, 1);
	n = piece.iov_len;
	/* The descriptors must come with the first byte of their frame and no earlier one. */
	if (conn->n_fds > 0 && conn->fds_at > 0 && n > conn->fds_at)
		n = conn->fds_at;
	sent = tgp_send_fds(conn->fd, piece.iov_base, n, conn->fds, with_fds ? conn->n_fds : 0);
	if (sent <= 0)
		return sent;
	if (with_fds)
		conn->n_fds = 0;
	else if (conn->n_fds > 0)
		conn->fds_at -= sent;
	evbuffer_drain(conn->out, sent);
	return sent;
}

static void set_writing(struct tgd_conn *conn, bool on)
{
	if (on && !conn->writing)
		event_add(&conn->write_event, NULL);
	else if (!on && conn->writing)
		event_del(&conn->write_event);
	conn->writing = on;
}

/* Sends what the socket takes, and waits for room if it does not take all. */
static void flush(struct tgd_conn *conn)
{
	bool progress = false;
	ssize_t sent = 1;

	while (evbuffer_get_length(conn->out) > 0) {
		sent = send_piece(conn);
		if (sent <= 0)
			break;
		progress = true;
	}
	if (sent == -ETOOMANYREFS) {
		set_writing(conn, false);
		call_soon(conn, RETRY_MS);
		return;
	}
	if (sent < 0 && sent != -EAGAIN) {
		tgd_conn_close(conn, sent == -EPIPE || sent == -ECONNRESET ? "the peer closed it"
									   : "sending failed");
		return;
	}
	if (evbuffer_get_length(conn->out) == 0) {
		set_writing(conn, false);
		if (conn->timer_use == TIMER_STALL)
			set_timer(conn, TIMER_IDLE, 0);
		if (conn->state == ENDING)
			tgd_conn_close(conn, conn->why);
		return;
	}
	set_writing(conn, true);
	if (conn->timer_use == TIMER_IDLE || (conn->timer_use == TIMER_STALL && progress))
		set_timer(conn, TIMER_STALL, TGD_CONN_STALL_MS);
}

void tgd_conn_send(struct tgd_conn *conn, const void *bytes, size_t n, const int *fds, size_t n_fds)
{
	size_t before = evbuffer_get_length(conn->out);

	if (conn->state == CLOSED)
		return;
	if (n_fds > 0) {
		assert(conn->n_fds == 0 && n_fds <= TGP_FDS_MAX);
		memcpy(conn->fds, fds, n_fds * sizeof(fds[0]));
		conn->n_fds = n_fds;
		conn->fds_at = before;
	}
	if (before + n > TGD_CONN_HARD)
		tgd_conn_close(conn, "it does not read what it asked for");
	else if (evbuffer_add(conn->out, bytes, n) < 0)
		tgd_conn_close(conn, "out of memory");
	else if (!conn->handling)
		call_soon(conn, 0);
}

/* ---- input ---- */

static void break_off(struct tgd_conn *conn, const char *why)
{
	conn->ops->broken(conn->owner, why);
	tgd_conn_end(conn, why);
}

/* The frame at the start of `in`: as tgp_frame_next. */
static int next_frame(struct tgd_conn *conn, const uint8_t **ret_payload, size_t *ret_len)
{
	size_t n = evbuffer_get_length(conn->in), most = TGP_FRAME_HEAD + TGP_FRAME_MAX;
	struct evbuffer_iovec piece;
	uint8_t *bytes;
	int r;

	if (n == 0)
		return 0;
	evbuffer_peek(conn->in, -1, NULL, &piece, 1);
	r = tgp_frame_next(piece.iov_base, piece.iov_len, ret_payload, ret_len);
	if (r != 0 || piece.iov_len == n)
		return r;
	/* The frame may lie in several pieces. */
	bytes = evbuffer_pullup(conn->in, (ssize_t)tgs_min(n, most));
	if (bytes == NULL)
		return -ENOMEM;
	return tgp_frame_next(bytes, tgs_min(n, most), ret_payload, ret_len);
}

/* Handles the frames that are there, as far as the rules above allow. */
static void handle_frames(struct tgd_conn *conn)
{
	const uint8_t *payload;
	unsigned n_frames = 0;
	size_t len;
	int r;

	conn->waits = false;
	while (conn->state == OPEN && !conn->held) {
		if (evbuffer_get_length(conn->out) > TGD_CONN_HIGH)
			conn->throttled = true;
		if (conn->throttled)
			break;
		r = next_frame(conn, &payload, &len);
		if (r == -EPROTO) {
			break_off(conn, "a frame's length is 0 or over the limit");
			break;
		}
		if (r < 0) {
			tgd_conn_close(conn, "out of memory");
			break;
		}
		if (r == 0)
			break;
		if (n_frames++ == TGD_CONN_FRAMES) {
			conn->waits = true;
			call_soon(conn, 0);
			break;
		}
		conn->handling = true;
		conn->again = false;
		conn->ops->frame(conn->owner, payload, len);
		conn->handling = false;
		if (conn->state != CLOSED && !conn->again)
			evbuffer_drain(conn->in, TGP_FRAME_HEAD + len);
	}
}

/* Sends what is queued, and if the peer then reads again, listens to it again. */
static void flush_and_go_on(struct tgd_conn *conn)
{
	while (conn->state != CLOSED) {
		flush(conn);
		if (!conn->throttled || conn->state != OPEN ||
		    evbuffer_get_length(conn->out) >= TGD_CONN_LOW)
			break;
		conn->throttled = false;
		conn->waits = true;
		call_soon(conn, 0);
	}
	update_events(conn);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct tgd_conn *conn = arg;
	size_t n_fds = 0;
	ssize_t n;

	(void)what;
	n = tgp_recv_fds(fd, read_buffer, sizeof(read_buffer), NULL, 0, &n_fds);
	if (n == -EAGAIN)
		return;
	if (n == -EPROTO) {
		break_off(conn, "it sent a descriptor; none is ever expected");
	} else if (n < 0) {
		tgd_conn_close(conn, n == -ECONNRESET ? "the peer closed it" : "receiving failed");
	} else if (n == 0) {
		tgd_conn_end(conn, "the peer closed it");
	} else if (evbuffer_add(conn->in, read_buffer, n) < 0) {
		tgd_conn_close(conn, "out of memory");
	} else {
		handle_frames(conn);
	}
	flush_and_go_on(conn);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	flush_and_go_on(arg);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct tgd_conn *conn = arg;
	const char *why = conn->why;

	(void)fd;
	(void)what;
	if (conn->timer_use == TIMER_STALL)
		why = "it does not read what it asked for";
	tgd_conn_close(conn, why);
}

static void on_soon(evutil_socket_t fd, short what, void *arg)
{
	struct tgd_conn *conn = arg;

	(void)fd;
	(void)what;
	if (conn->state == CLOSED) {
		if (!conn->told_closed) {
			conn->told_closed = true;
			conn->ops->closed(conn->owner, conn->why);
		}
		return;
	}
	if (conn->waits)
		handle_frames(conn);
	flush_and_go_on(conn);
}

/* ---- life ---- */

int tgd_conn_new(struct event_base *base, int fd, const struct tgd_conn_ops *ops, void *owner,
		 struct tgd_conn **ret)
{
	struct tgd_conn *conn = calloc(1, sizeof(*conn));

	if (conn == NULL) {
		close(fd);
		return -ENOMEM;
	}
	conn->fd = fd;
	conn->ops = ops;
	conn->owner = owner;
	event_assign(&conn->read_event, base, fd, EV_READ | EV_PERSIST, on_readable, conn);
	event_assign(&conn->write_event, base, fd, EV_WRITE | EV_PERSIST, on_writable, conn);
	evtimer_assign(&conn->timer, base, on_timer, conn);
	evtimer_assign(&conn->soon, base, on_soon, conn);
	conn->in = evbuffer_new();
	conn->out = evbuffer_new();
	if (conn->in == NULL || conn->out == NULL) {
		tgd_conn_free(conn);
		return -ENOMEM;
	}
	update_events(conn);
	*ret = conn;
	return 0;
}

struct tgd_conn *tgd_conn_free(struct tgd_conn *conn)
{
	if (conn == NULL)
		return NULL;
	event_del(&conn->read_event);
	event_del(&conn->write_event);
	evtimer_del(&conn->timer);
	evtimer_del(&conn->soon);
	event_debug_unassign(&conn->read_event);
	event_debug_unassign(&conn->write_event);
	event_debug_unassign(&conn->timer);
	event_debug_unassign(&conn->soon);
	if (conn->fd >= 0)
		close(conn->fd);
	if (conn->in != NULL)
		evbuffer_free(conn->in);
	if (conn->out != NULL)
		evbuffer_free(conn->out);
	free(conn);
	return NULL;
}

void tgd_conn_deadline(struct tgd_conn *conn, unsigned timeout_ms, const char *why)
{
	if (conn->state != OPEN)
		return;
	conn->why = why;
	set_timer(conn, timeout_ms > 0 ? TIMER_DEADLINE : TIMER_IDLE, timeout_ms);
}

void tgd_conn_hold(struct tgd_conn *conn, bool held)
{
	if (conn->held == held || conn->state != OPEN)
		return;
	conn->held = held;
	if (!held) {
		conn->waits = true;
		call_soon(conn, 0);
	}
	update_events(conn);
}

void tgd_conn_again(struct tgd_conn *conn)
{
	conn->again = true;
}

void tgd_conn_retire(struct tgd_conn *conn)
{
	conn->retiring = true;
	update_events(conn);
}

bool tgd_conn_is_quiet(const struct tgd_conn *conn)
{
	return conn->state == CLOSED || (!conn->held && !conn->waits && !conn->throttled &&
					 evbuffer_get_length(conn->out) == 0);
}

void tgd_conn_end(struct tgd_conn *conn, const char *why)
{
	if (conn->state != OPEN)
		return;
	conn->state = ENDING;
	conn->why = why;
	set_timer(conn, TIMER_LINGER, TGD_CONN_LINGER_MS);
	update_events(conn);
	call_soon(conn, 0);
}

bool tgd_conn_all_read(const struct tgd_conn *conn)
{
	int unread = 0;

	if (conn->state == CLOSED)
		return true;
	return evbuffer_get_length(conn->out) == 0 && ioctl(conn->fd, SIOCOUTQ, &unread) == 0 &&
	       unread == 0;
}

bool tgd_conn_hung_up(const struct tgd_conn *conn)
{
	struct pollfd p = {.fd = conn->fd, .events = POLLRDHUP};

	return conn->state != OPEN ||
	       (poll(&p, 1, 0) == 1 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0);
}

int tgd_conn_fd(const struct tgd_conn *conn)
{
	return conn->fd;
}
