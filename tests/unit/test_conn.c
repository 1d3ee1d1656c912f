/* A connection between a peer that does what it should not and an owner that answers with what the
 * test wants.
 *
 * Longer than other files, as input and output are tested with one fixture, and each needs all of
 * it.
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CUnit/CUnit.h>

#include "daemon/conn.h"
#include "proto/fdpass.h"
#include "proto/frame.h"
#include "tests/support/runner.h"

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

static void on_frame(void *owner, const uint8_t *payload, size_t len)
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

static void on_broken(void *owner, const char *why)
{
	(void)owner;
	n_broken++;
	broken_why = why;
	tgd_conn_send(conn, "told", 4, NULL, 0);
}

static void on_closed(void *owner, const char *why)
{
	(void)owner;
	n_closed++;
	closed_why = why;
	conn = tgd_conn_free(conn);
}

static const struct tgd_conn_ops ops = {
	.frame = on_frame, .broken = on_broken, .closed = on_closed};

static void on_alarm(evutil_socket_t fd, short what, void *arg)
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
static void settle(void)
{
	unsigned i;

	for (i = 0; i < 100; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static void set_up(void)
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

static void tear_down(void)
{
	conn = tgd_conn_free(conn);
	event_free(alarm_event);
	event_base_free(base);
	if (peer >= 0)
		close(peer);
}

/* ---- the peer ---- */

static size_t make_frame(uint8_t *buf, size_t len, uint8_t fill)
{
	tgp_frame_put_head(buf, (uint32_t)len);
	memset(buf + TGP_FRAME_HEAD, fill, len);
	return TGP_FRAME_HEAD + len;
}

static void peer_send(const void *bytes, size_t n)
{
	CU_ASSERT_EQUAL_FATAL(send(peer, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}

static void peer_send_frame(size_t len, uint8_t fill)
{
	static uint8_t buf[TGP_FRAME_HEAD + TGP_FRAME_MAX];

	peer_send(buf, make_frame(buf, len, fill));
}

/* Reads what is there, up to the end: bytes, and whether the end was reached. */
static size_t peer_read(bool *ret_end)
{
	static uint8_t buf[65536];
	size_t total = 0;
	ssize_t n;

	while ((n = recv(peer, buf, sizeof(buf), 0)) > 0)
		total += (size_t)n;
	*ret_end = n == 0 || errno == ECONNRESET;
	return total;
}

static unsigned count_open_files(void)
{
	struct stat st;
	unsigned n = 0;
	int fd;

	for (fd = 0; fd < 1024; fd++)
		n += fstat(fd, &st) == 0;
	return n;
}

/* ---- input ---- */

static void a_frame_is_handed_over_whole_when_its_last_byte_is_there(void)
{
	uint8_t buf[TGP_FRAME_HEAD + 100];
	size_t n = make_frame(buf, 100, 'x'), i;

	for (i = 0; i < n; i++) {
		CU_ASSERT_EQUAL(n_frames, 0);
		peer_send(buf + i, 1);
		settle();
	}
	CU_ASSERT_EQUAL(n_frames, 1);
	CU_ASSERT_EQUAL(last_len, 100);
	CU_ASSERT_EQUAL(memcmp(last_frame, buf + TGP_FRAME_HEAD, 100), 0);
}

static void several_frames_in_one_read_are_all_handled_in_order(void)
{
	uint8_t buf[3 * (TGP_FRAME_HEAD + 10)];
	size_t n = 0;

	n += make_frame(buf + n, 10, 'a');
	n += make_frame(buf + n, 5, 'b');
	n += make_frame(buf + n, 1, 'c');
	peer_send(buf, n);
	RUN_UNTIL(n_frames == 3);
	CU_ASSERT_EQUAL(frame_bytes, 16);
	CU_ASSERT_EQUAL(last_frame[0], 'c');
}

static void the_largest_frame_comes_through_in_pieces(void)
{
	static uint8_t buf[TGP_FRAME_HEAD + TGP_FRAME_MAX];
	size_t n = make_frame(buf, TGP_FRAME_MAX, 'L'), at, piece;

	for (at = 0; at < n; at += piece) {
		piece = n - at < 1000 ? n - at : 1000;
		peer_send(buf + at, piece);
		settle();
	}
	RUN_UNTIL(n_frames == 1);
	CU_ASSERT_EQUAL(last_len, TGP_FRAME_MAX);
	CU_ASSERT_EQUAL(memcmp(last_frame, buf + TGP_FRAME_HEAD, TGP_FRAME_MAX), 0);
}

static void one_peer_gets_a_bounded_number_of_frames_a_turn(void)
{
	unsigned i;

	for (i = 0; i < 5 * TGD_CONN_FRAMES; i++)
		peer_send_frame(1, 'x');
	event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
	CU_ASSERT_EQUAL(n_frames, TGD_CONN_FRAMES);
	RUN_UNTIL(n_frames == 5 * TGD_CONN_FRAMES);
}

static void a_length_that_cannot_be_is_told_and_ends_the_connection(void)
{
	static const uint8_t heads[][TGP_FRAME_HEAD] = {
		{0, 0, 0, 0},
		{1, 0, 1, 0},
		{0xff, 0xff, 0xff, 0xff},
		{'G', 'E', 'T', ' '},
	};
	unsigned i;
	bool end;

	for (i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		if (i > 0) {
			tear_down();
			set_up();
		}
		peer_send_frame(3, 'x');
		peer_send(heads[i], sizeof(heads[i]));
		peer_send("more of it", 10);
		RUN_UNTIL(n_closed == 1);
		CU_ASSERT_EQUAL(n_frames, 1);
		CU_ASSERT_EQUAL(n_broken, 1);
		CU_ASSERT_EQUAL(peer_read(&end), 4);
		CU_ASSERT(end);
	}
}

static void descriptors_that_a_peer_sends_are_closed_and_end_the_connection(void)
{
	unsigned before = count_open_files(), n;
	int fds[3] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(fds))];
	} control;
	struct iovec iov = {.iov_base = "x", .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes};
	struct cmsghdr *head;
	bool end;

	for (n = 1; n <= 3; n++) {
		if (n > 1) {
			tear_down();
			set_up();
		}
		memset(&control, 0, sizeof(control));
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		head = CMSG_FIRSTHDR(&msg);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(head), fds, n * sizeof(int));
		CU_ASSERT_EQUAL_FATAL(sendmsg(peer, &msg, MSG_NOSIGNAL), 1);
		RUN_UNTIL(n_closed == 1);
		CU_ASSERT_EQUAL(n_broken, 1);
		CU_ASSERT_EQUAL(peer_read(&end), 4);
		CU_ASSERT(end);
		/* The connection's own socket is closed, and nothing else is open. */
		CU_ASSERT_EQUAL(count_open_files(), before - 1);
	}
}

static void a_peer_that_closes_in_the_middle_of_a_frame_is_gone(void)
{
	peer_send("\x10\0\0\0half", 8);
	close(peer);
	peer = -1;
	RUN_UNTIL(n_closed == 1);
	CU_ASSERT_EQUAL(n_frames, 0);
	CU_ASSERT_EQUAL(n_broken, 0);
}

static void what_was_sent_before_a_half_close_is_answered(void)
{
	bool end;

	answer_bytes = 1000;
	peer_send_frame(1, 'x');
	peer_send_frame(1, 'x');
	shutdown(peer, SHUT_WR);
	RUN_UNTIL(n_closed == 1);
	CU_ASSERT_EQUAL(n_frames, 2);
	CU_ASSERT_EQUAL(peer_read(&end), 2000);
	CU_ASSERT(end);
}

static void while_held_nothing_is_handled_and_afterwards_all_is(void)
{
	tgd_conn_hold(conn, true);
	peer_send_frame(1, 'x');
	peer_send_frame(1, 'x');
	settle();
	CU_ASSERT_EQUAL(n_frames, 0);
	tgd_conn_hold(conn, false);
	RUN_UNTIL(n_frames == 2);
}

static void the_owner_may_close_or_end_from_within_a_frame(void)
{
	bool end;

	close_at_frame = 2;
	answer_bytes = 10;
	peer_send_frame(1, 'x');
	peer_send_frame(1, 'x');
	peer_send_frame(1, 'x');
	RUN_UNTIL(n_closed == 1);
	CU_ASSERT_EQUAL(n_frames, 2);
	CU_ASSERT_STRING_EQUAL(closed_why, "the test closed it");

	tear_down();
	set_up();
	end_at_frame = 2;
	answer_bytes = 10;
	peer_send_frame(1, 'x');
	peer_send_frame(1, 'x');
	peer_send_frame(1, 'x');
	RUN_UNTIL(n_closed == 1);
	CU_ASSERT_EQUAL(n_frames, 2);
	CU_ASSERT_EQUAL(peer_read(&end), 20);
	CU_ASSERT(end);
}

/* ---- output ---- */

static void a_peer_that_does_not_read_is_not_listened_to_until_it_does(void)
{
	const unsigned n = 200;
	unsigned sent, before;
	size_t total = 0;
	bool end;

	/* 200 answers of 16 KiB: far more than HIGH and what the socket takes. */
	answer_bytes = 16 * 1024;
	for (sent = 0; sent < n; sent++)
		peer_send_frame(1, 'x');
	settle();
	before = n_frames;
	CU_ASSERT(before < n);
	settle();
	CU_ASSERT_EQUAL(n_frames, before);

	/* It reads: everything is answered, nothing is lost. */
	while (total < n * answer_bytes && !timed_out) {
		event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
		total += peer_read(&end);
		CU_ASSERT_FALSE_FATAL(end);
	}
	CU_ASSERT_EQUAL(total, n * answer_bytes);
	CU_ASSERT_EQUAL(n_frames, n);
	CU_ASSERT_EQUAL(n_closed, 0);
	RUN_UNTIL(tgd_conn_all_read(conn));
}

static void output_over_the_hard_limit_closes_the_connection(void)
{
	size_t sent;

	for (sent = 0; sent <= TGD_CONN_HARD + sizeof(answer); sent += sizeof(answer))
		tgd_conn_send(conn, answer, sizeof(answer), NULL, 0);
	RUN_UNTIL(n_closed == 1);
	CU_ASSERT_STRING_EQUAL(closed_why, "it does not read what it asked for");
}

static void a_peer_that_is_told_to_go_and_does_not_read_goes_all_the_same(void)
{
	unsigned i;

	for (i = 0; i < TGD_CONN_HARD / sizeof(answer); i++)
		tgd_conn_send(conn, answer, sizeof(answer), NULL, 0);
	tgd_conn_end(conn, "the test ended it");
	RUN_UNTIL(n_closed == 1);
	CU_ASSERT_STRING_EQUAL(closed_why, "the test ended it");
}

static void a_deadline_that_passes_closes_the_connection_and_one_taken_back_does_not(void)
{
	tgd_conn_deadline(conn, 1, "too late");
	tgd_conn_deadline(conn, 0, NULL);
	peer_send("\1", 1);
	settle();
	CU_ASSERT_EQUAL(n_closed, 0);
	/* Bytes that are no frame do not put it off. */
	tgd_conn_deadline(conn, 1, "too late");
	RUN_UNTIL(n_closed == 1);
	CU_ASSERT_STRING_EQUAL(closed_why, "too late");
}

/* Reads with descriptors: adds to *n_bytes; returns how many came. */
static size_t peer_recv_fds(size_t max, size_t *n_bytes)
{
	static uint8_t buf[65536];
	int fds[TGP_FDS_MAX];
	size_t n_fds = 0, i;
	ssize_t n;

	n = tgp_recv_fds(peer, buf, max, fds, TGP_FDS_MAX, &n_fds);
	if (n <= 0)
		return 0;
	*n_bytes += (size_t)n;
	for (i = 0; i < n_fds; i++)
		close(fds[i]);
	return n_fds;
}

static void descriptors_come_once_with_the_first_byte_of_their_frame(void)
{
	int fds[2] = {STDIN_FILENO, STDOUT_FILENO};
	size_t n_bytes = 0;

	/* A queue before and behind, all sent at once. */
	tgd_conn_send(conn, answer, 1000, NULL, 0);
	tgd_conn_send(conn, answer, 500, fds, 2);
	tgd_conn_send(conn, answer, 1000, NULL, 0);
	settle();
	/* A read of plain bytes and one more takes the descriptors in; less does not. */
	CU_ASSERT_EQUAL(peer_recv_fds(999, &n_bytes), 0);
	CU_ASSERT_EQUAL(n_bytes, 999);
	CU_ASSERT_EQUAL(peer_recv_fds(2, &n_bytes), 2);
	CU_ASSERT_EQUAL(n_bytes, 1001);
	while (n_bytes < 2500)
		CU_ASSERT_EQUAL_FATAL(peer_recv_fds(100, &n_bytes), 0);
	RUN_UNTIL(tgd_conn_all_read(conn));
}

static void descriptors_arrive_once_also_when_the_socket_is_full(void)
{
	int fds[2] = {STDIN_FILENO, STDOUT_FILENO};
	size_t n_bytes = 0, n_fds = 0, before = 600 * 1024, behind = 300 * 1024, i;

	for (i = 0; i < before; i += 60 * 1024)
		tgd_conn_send(conn, answer, 60 * 1024, NULL, 0);
	tgd_conn_send(conn, answer, 60 * 1024, fds, 2);
	for (i = 60 * 1024; i < behind; i += 60 * 1024)
		tgd_conn_send(conn, answer, 60 * 1024, NULL, 0);
	while (n_bytes < before + behind && !timed_out) {
		size_t n;

		event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
		n = peer_recv_fds(7777, &n_bytes);
		if (n > 0) {
			/* With the part that holds the frame's first byte. */
			CU_ASSERT(n_bytes > before);
			CU_ASSERT(n_bytes - 7777 <= before);
		}
		n_fds += n;
	}
	CU_ASSERT_EQUAL(n_bytes, before + behind);
	CU_ASSERT_EQUAL(n_fds, 2);
}

static void a_connection_knows_what_was_read_and_whether_the_peer_is_there(void)
{
	bool end;

	CU_ASSERT(tgd_conn_all_read(conn));
	CU_ASSERT_FALSE(tgd_conn_hung_up(conn));
	tgd_conn_send(conn, answer, 10, NULL, 0);
	CU_ASSERT_FALSE(tgd_conn_all_read(conn));
	settle();
	CU_ASSERT_FALSE(tgd_conn_all_read(conn));
	CU_ASSERT_EQUAL(peer_read(&end), 10);
	CU_ASSERT(tgd_conn_all_read(conn));
	close(peer);
	peer = -1;
	CU_ASSERT(tgd_conn_hung_up(conn));
}

static CU_TestInfo input_tests[] = {
	{"a frame is handed over whole when its last byte is there",
	 a_frame_is_handed_over_whole_when_its_last_byte_is_there},
	{"several frames in one read are all handled in order",
	 several_frames_in_one_read_are_all_handled_in_order},
	{"the largest frame comes through in pieces", the_largest_frame_comes_through_in_pieces},
	{"one peer gets a bounded number of frames a turn",
	 one_peer_gets_a_bounded_number_of_frames_a_turn},
	{"a length that cannot be is told and ends the connection",
	 a_length_that_cannot_be_is_told_and_ends_the_connection},
	{"descriptors that a peer sends are closed and end the connection",
	 descriptors_that_a_peer_sends_are_closed_and_end_the_connection},
	{"a peer that closes in the middle of a frame is gone",
	 a_peer_that_closes_in_the_middle_of_a_frame_is_gone},
	{"what was sent before a half close is answered",
	 what_was_sent_before_a_half_close_is_answered},
	{"while held nothing is handled and afterwards all is",
	 while_held_nothing_is_handled_and_afterwards_all_is},
	{"the owner may close or end from within a frame",
	 the_owner_may_close_or_end_from_within_a_frame},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo output_tests[] = {
	{"a peer that does not read is not listened to until it does",
	 a_peer_that_does_not_read_is_not_listened_to_until_it_does},
	{"output over the hard limit closes the connection",
	 output_over_the_hard_limit_closes_the_connection},
	{"a peer that is told to go and does not read goes all the same",
	 a_peer_that_is_told_to_go_and_does_not_read_goes_all_the_same},
	{"a deadline that passes closes the connection and one taken back does not",
	 a_deadline_that_passes_closes_the_connection_and_one_taken_back_does_not},
	{"descriptors come once with the first byte of their frame",
	 descriptors_come_once_with_the_first_byte_of_their_frame},
	{"descriptors arrive once also when the socket is full",
	 descriptors_arrive_once_also_when_the_socket_is_full},
	{"a connection knows what was read and whether the peer is there",
	 a_connection_knows_what_was_read_and_whether_the_peer_is_there},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"input", NULL, NULL, set_up, tear_down, input_tests},
	{"output", NULL, NULL, set_up, tear_down, output_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("conn", suites);
}
