/* test_conn - what a connection reads: frames, what is none, descriptors, the end; and when its owner is told.
 *
 * What it writes is test_conn_output's.
 */
#include <CUnit/CUnit.h>
#include <event2/event.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/conn.h"
#include "proto/frame.h"
#include "tests/support/conns.h"
#include "tests/support/runner.h"

static unsigned count_open_files(void)
{
	struct stat st;
	unsigned n = 0;
	int fd;

	for (fd = 0; fd < 1024; fd++)
		n += fstat(fd, &st) == 0;
	return n;
}

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

static CU_SuiteInfo suites[] = {
	{"input", NULL, NULL, set_up, tear_down, input_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("conn", suites);
}
