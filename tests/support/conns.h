/* conns.h - a connection between a peer that does what it should not and an owner that answers with what the test wants.
 *
 * For test_conn and test_conn_output.
 */
#pragma once

#include <CUnit/CUnit.h>
#include <errno.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/conn.h"
#include "proto/frame.h"

#define DEADLINE_S 20

static struct event_base *base;
static struct event *alarm_event;
static struct tgd_conn *conn;
static int peer; /* the other end; does not block */

/* What the owner was told, and what it does. */
static unsigned n_frames, n_broken, n_closed;
static size_t frame_bytes;
static uint8_t last_frame[TGP_FRAME_MAX];
static size_t last_len;
static const char *broken_why, *closed_why;
static bool timed_out;
static size_t answer_bytes;     /* of the answer to each frame; 0: none */
static unsigned close_at_frame; /* the owner closes in this frame; 0: never */
static unsigned end_at_frame;
static uint8_t answer[TGP_FRAME_MAX];

static inline void on_frame(void *owner, const uint8_t *payload, size_t len)
{
	CU_ASSERT_PTR_EQUAL(owner, &n_frames);
	n_frames++;
	frame_bytes += len;
	last_len = len;
	memcpy(last_frame, payload, len);
	if (answer_bytes > 0)
		tgd_conn_send(conn, answer, answer_bytes, NULL, 0);
	if (n_frames == close_at_frame)
		tgd_conn_close(conn, "the test closed it");
	if (n_frames == end_at_frame)
		tgd_conn_end(conn, "the test ended it");
}

static inline void on_broken(void *owner, const char *why)
{
	(void)owner;
	n_broken++;
	broken_why = why;
	tgd_conn_send(conn, "told", 4, NULL, 0);
}

static inline void on_closed(void *owner, const char *why)
{
	(void)owner;
	n_closed++;
	closed_why = why;
	conn = tgd_conn_free(conn);
}

static const struct tgd_conn_ops ops = {
	.frame = on_frame, .broken = on_broken, .closed = on_closed};

static inline void on_alarm(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	timed_out = true;
}

/* Lets the loop run until the condition holds, for DEADLINE_S at most. */
#define RUN_UNTIL(condition)                                \
	do {                                                \
		while (!(condition) && !timed_out)          \
			event_base_loop(base, EVLOOP_ONCE); \
		CU_ASSERT_FALSE(timed_out);                 \
	} while (0)

/* Lets the loop run until nothing is left to be done now. */
static inline void settle(void)
{
	unsigned i;

	for (i = 0; i < 100; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static inline void set_up(void)
{
	struct timeval deadline = {.tv_sec = DEADLINE_S};
	int ends[2];

	n_frames = n_broken = n_closed = 0;
	frame_bytes = answer_bytes = last_len = 0;
	close_at_frame = end_at_frame = 0;
	broken_why = closed_why = NULL;
	timed_out = false;
	base = event_base_new();
	CU_ASSERT_PTR_NOT_NULL_FATAL(base);
	alarm_event = evtimer_new(base, on_alarm, NULL);
	evtimer_add(alarm_event, &deadline);
	CU_ASSERT_EQUAL_FATAL(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
	peer = ends[1];
	CU_ASSERT_EQUAL_FATAL(tgd_conn_new(base, ends[0], &ops, &n_frames, &conn), 0);
}

static inline void tear_down(void)
{
	conn = tgd_conn_free(conn);
	event_free(alarm_event);
	event_base_free(base);
	if (peer >= 0)
		close(peer);
}

/* ---- the peer ---- */

static inline size_t make_frame(uint8_t *buf, size_t len, uint8_t fill)
{
	tgp_frame_put_head(buf, (uint32_t)len);
	memset(buf + TGP_FRAME_HEAD, fill, len);
	return TGP_FRAME_HEAD + len;
}

static inline void peer_send(const void *bytes, size_t n)
{
	CU_ASSERT_EQUAL_FATAL(send(peer, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}

static inline void peer_send_frame(size_t len, uint8_t fill)
{
	static uint8_t buf[TGP_FRAME_HEAD + TGP_FRAME_MAX];

	peer_send(buf, make_frame(buf, len, fill));
}

/* Reads what is there, up to the end: bytes, and whether the end was reached. */
static inline size_t peer_read(bool *ret_end)
{
	static uint8_t buf[65536];
	size_t total = 0;
	ssize_t n;

	while ((n = recv(peer, buf, sizeof(buf), 0)) > 0)
		total += (size_t)n;
	*ret_end = n == 0 || errno == ECONNRESET;
	return total;
}
