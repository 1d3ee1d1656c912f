/* test_hostile_peers - peers that speak no protocol, or speak it wrongly: who breaks it is told how, and disconnected.
 *
 * Those that ask for too much, or too slowly, are test_greedy_peers's.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/badpeers.h"
#include "tests/support/peer.h"
#include "tests/support/runner.h"

/* The bad peer is told what it did, and disconnected. */
static void expect_told(int error, const char *words)
{
	const Tgd__Reply *reply;

	CU_ASSERT_EQUAL_FATAL(tgt_peer_next(&bad, &reply), 0);
	CU_ASSERT_EQUAL(reply->error, error);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply->message, words));
	if (strstr(reply->message, words) == NULL)
		fprintf(stderr, "not \"%s\" in: %s\n", words, reply->message);
	CU_ASSERT(tgt_peer_at_end(&bad));
}

static void a_frame_of_garbage_is_told_and_disconnected(void)
{
	uint8_t buf[TGP_FRAME_HEAD + 100];

	tgp_frame_put_head(buf, 100);
	memset(buf + TGP_FRAME_HEAD, 0xff, 100);
	send_bytes(buf, sizeof(buf));
	expect_told(-EPROTO, "not a well-formed Request");
}

static void another_protocol_is_told_and_disconnected(void)
{
	send_bytes("GET / HTTP/1.1\r\nHost: heap\r\n\r\n", 30);
	expect_told(-EPROTO, "frame's length");
}

static void an_oversize_and_an_empty_frame_are_told_and_disconnected(void)
{
	send_bytes("\x01\x00\x01\x00", 4);
	expect_told(-EPROTO, "frame's length");
	tgt_peer_close(&bad);
	set_up();
	send_bytes("\0\0\0\0", 4);
	expect_told(-EPROTO, "frame's length");
}

static void a_request_without_hello_is_told_and_disconnected(void)
{
	uint8_t buf[64];

	send_bytes(buf, pack_ping(7, buf, sizeof(buf)));
	expect_told(-EPROTO, "must be Hello");
}

static void a_second_hello_is_told_and_disconnected(void)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Hello hello = TGD__HELLO__INIT;
	uint8_t buf[64];

	CU_ASSERT_EQUAL_FATAL(tgt_peer_hello(&bad), 0);
	hello.version = TGP_VERSION;
	request.id = 9;
	request.body_case = TGD__REQUEST__BODY_HELLO;
	request.hello = &hello;
	send_bytes(buf, pack(&request, buf, sizeof(buf)));
	expect_told(-EPROTO, "first request of a connection only");
}

static void another_version_is_told_both_ranges_and_disconnected(void)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Hello hello = TGD__HELLO__INIT;
	uint8_t buf[64];

	hello.version = 99;
	hello.min_version = 42;
	hello.program = "libtg 9.0";
	request.id = 1;
	request.body_case = TGD__REQUEST__BODY_HELLO;
	request.hello = &hello;
	send_bytes(buf, pack(&request, buf, sizeof(buf)));
	expect_told(-EPROTO, "libtg 9.0 speaks 42 to 99, this daemon");
}

static void a_newer_program_that_also_speaks_ours_is_welcome(void)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Hello hello = TGD__HELLO__INIT;
	const Tgd__Reply *reply;

	hello.version = TGP_VERSION + 5;
	hello.min_version = TGP_VERSION;
	request.body_case = TGD__REQUEST__BODY_HELLO;
	request.hello = &hello;
	CU_ASSERT_EQUAL_FATAL(tgt_peer_ask(&bad, &request, &reply), 0);
	CU_ASSERT_EQUAL(reply->error, 0);
	CU_ASSERT_EQUAL(reply->hello->version, TGP_VERSION);
}

static void half_a_frame_and_a_close_is_just_a_close(void)
{
	send_bytes("\x20\0\0\0only a part", 15);
	tgt_peer_close(&bad);
}

static void descriptors_that_are_sent_are_not_kept(void)
{
	int fds[3] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(fds))];
	} control;
	struct iovec iov = {.iov_base = "x", .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes};
	struct cmsghdr *head;

	memset(&control, 0, sizeof(control));
	msg.msg_controllen = sizeof(control.bytes);
	head = CMSG_FIRSTHDR(&msg);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(head), fds, sizeof(fds));
	CU_ASSERT_EQUAL_FATAL(sendmsg(bad.fd, &msg, MSG_NOSIGNAL), 1);
	expect_told(-EPROTO, "sent a descriptor");
}

/* Asks for memory for the state of tiny spans; returns the error of the reply. */
static int back_state(const uint64_t *pages, size_t n, uint32_t ahead)
{
	Tgd__BackState body = TGD__BACK_STATE__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	const Tgd__Reply *reply;

	body.n_pages = n;
	body.pages = (uint64_t *)(uintptr_t)pages;
	body.ahead = ahead;
	request.body_case = TGD__REQUEST__BODY_BACK_STATE;
	request.back_state = &body;
	CU_ASSERT_EQUAL_FATAL(tgt_peer_ask(&bad, &request, &reply), 0);
	return reply->error;
}

static void state_of_what_is_no_tiny_span_is_not_given(void)
{
	const uint64_t pages[] = {0, 1, 12345, UINT64_MAX};
	const Tgd__Reply *reply;
	unsigned i;

	CU_ASSERT_EQUAL(tgt_peer_hello(&bad), 0);
	CU_ASSERT_EQUAL(back_state(pages, 1, 0), -ENOTCONN);
	CU_ASSERT_EQUAL(tgt_peer_attach(&bad, "bad", 0, 0, &reply), 0);
	for (i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(back_state(&pages[i], 1, UINT32_MAX), -EINVAL);
	CU_ASSERT_EQUAL(back_state(pages, 4, 7), -EINVAL);
	CU_ASSERT_EQUAL(tgt_peer_detach(&bad), 0);
}

static void state_of_no_page_at_all_is_told_and_disconnected(void)
{
	Tgd__BackState body = TGD__BACK_STATE__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	const Tgd__Reply *reply;
	uint8_t buf[64];

	CU_ASSERT_EQUAL(tgt_peer_hello(&bad), 0);
	CU_ASSERT_EQUAL(tgt_peer_attach(&bad, "bad", 0, 0, &reply), 0);
	request.id = 77;
	request.body_case = TGD__REQUEST__BODY_BACK_STATE;
	request.back_state = &body;
	send_bytes(buf, pack(&request, buf, sizeof(buf)));
	expect_told(-EPROTO, "pages");
}

/* Random bytes behind a good hello, from fixed seeds: whatever they are, the daemon ends the
 * connection or answers. */
static void random_payloads_never_hurt(void)
{
	uint64_t state = 0x9e3779b97f4a7c15;
	uint8_t buf[TGP_FRAME_HEAD + 64];
	unsigned i, k;

	for (i = 0; i < 2000; i++) {
		uint32_t len;

		if (i > 0) {
			tgt_peer_close(&bad);
			set_up();
		}
		if (i % 2 == 0)
			CU_ASSERT_EQUAL_FATAL(tgt_peer_hello(&bad), 0);
		state = state * 6364136223846793005u + 1442695040888963407u;
		len = 1 + (uint32_t)(state >> 58);
		tgp_frame_put_head(buf, len);
		for (k = 0; k < len; k++) {
			state = state * 6364136223846793005u + 1442695040888963407u;
			/* Small bytes look like tags and lengths more often. */
			buf[TGP_FRAME_HEAD + k] = (uint8_t)(state >> (i % 3 == 0 ? 56 : 59));
		}
		(void)tgt_peer_send(&bad, buf, TGP_FRAME_HEAD + len, NULL);
	}
}

static CU_TestInfo tests[] = {
	{"a frame of garbage is told and disconnected",
	 a_frame_of_garbage_is_told_and_disconnected},
	{"another protocol is told and disconnected", another_protocol_is_told_and_disconnected},
	{"an oversize and an empty frame are told and disconnected",
	 an_oversize_and_an_empty_frame_are_told_and_disconnected},
	{"a request without Hello is told and disconnected",
	 a_request_without_hello_is_told_and_disconnected},
	{"a second Hello is told and disconnected", a_second_hello_is_told_and_disconnected},
	{"another version is told both ranges and disconnected",
	 another_version_is_told_both_ranges_and_disconnected},
	{"a newer program that also speaks ours is welcome",
	 a_newer_program_that_also_speaks_ours_is_welcome},
	{"half a frame and a close is just a close", half_a_frame_and_a_close_is_just_a_close},
	{"descriptors that are sent are not kept", descriptors_that_are_sent_are_not_kept},
	{"state of what is no tiny span is not given", state_of_what_is_no_tiny_span_is_not_given},
	{"state of no page at all is told and disconnected",
	 state_of_no_page_at_all_is_told_and_disconnected},
	{"random payloads never hurt", random_payloads_never_hurt},
	{"no connection and no client is left", no_connection_and_no_client_is_left},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"hostile peers", start_all, stop_all, set_up, tear_down, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("hostile_peers", suites);
}
