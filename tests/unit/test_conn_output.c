/* test_conn_output - what a connection writes: to a peer that does not read, until a deadline, with descriptors.
 *
 * What it reads is test_conn's.
 */
#include <CUnit/CUnit.h>
#include <event2/event.h>
#include <stdbool.h>
#include <unistd.h>

#include "daemon/conn.h"
#include "proto/fdpass.h"
#include "tests/support/conns.h"
#include "tests/support/runner.h"

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
	{"output", NULL, NULL, set_up, tear_down, output_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("conn_output", suites);
}
