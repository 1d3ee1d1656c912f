/* Peers that break the rules, against one daemon that has to serve a good client after each of
 * them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <CUnit/CUnit.h>

#include "tests/support/daemon.h"
#include "tests/support/peer.h"
#include "tests/support/runner.h"

#define NOBODY          65534
#define N_FILES         128 /* of the daemon: 64 for itself, 2 a connection */
#define CONNECTIONS_MAX 32

static struct tgt_daemon d;
static struct tgt_peer bad;
static pid_t daemon_pid;

static int start_all(void)
{
	const char *const args[] = {"--mode", "0666", NULL};
	int r = tgt_daemon_start_limited(&d, args, N_FILES);

	daemon_pid = r == 0 ? tgt_daemon_worker(&d, NULL) : 0;
	return r;
}

static int stop_all(void)
{
	return tgt_daemon_stop(&d);
}

static void set_up(void)
{
	CU_ASSERT_EQUAL_FATAL(tgt_peer_connect(&bad, d.socket), 0);
}

/* What each test ends with: the daemon is the same one and does its work. */
static void tear_down(void)
{
	tgt_peer_close(&bad);
	CU_ASSERT_EQUAL(tgt_peer_good_client(d.socket), 0);
	CU_ASSERT_EQUAL(kill(daemon_pid, 0), 0);
}

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

static void send_bytes(const void *bytes, size_t n)
{
	CU_ASSERT_EQUAL_FATAL(tgt_peer_send(&bad, bytes, n, NULL), 0);
}

/* Packs a request; the caller chooses everything. */
static size_t pack(const Tgd__Request *request, uint8_t *buf, size_t size)
{
	ssize_t n = tgp_request_pack(request, buf, size);

	CU_ASSERT_FATAL(n > 0);
	return (size_t)n;
}

static size_t pack_ping(uint64_t id, uint8_t *buf, size_t size)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Admin admin = TGD__ADMIN__INIT;

	admin.what = TGD__ADMIN__WHAT__PING;
	request.id = id;
	request.body_case = TGD__REQUEST__BODY_ADMIN;
	request.admin = &admin;
	return pack(&request, buf, size);
}

/* ---- what is no protocol ---- */

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

/* Random bytes behind a good hello, from fixed seeds: whatever they are, the daemon ends the
 * connection or answers. */
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

/* ---- what is too much or too little ---- */

static void a_peer_that_never_reads_is_not_listened_to_and_loses_nothing_when_it_does(void)
{
	uint64_t n_asked = 0, n_answered, skip = 0;
	const Tgd__Reply *reply;
	uint8_t buf[64];
	size_t n, sent;
	int r = 0;

	CU_ASSERT_EQUAL_FATAL(tgt_peer_hello(&bad), 0);
	/* Until the daemon takes no more.  It must stop: what it keeps for one peer is bounded. */
	while (r == 0 && n_asked < 10000000) {
		n = pack_ping(1 + n_asked, buf, sizeof(buf));
		r = tgt_peer_send(&bad, buf, n, &sent);
		if (r == 0)
			n_asked++;
		else
			skip = sent;
		if (r == -EAGAIN && sent == 0) {
			/* The socket is full; is it for good?  The daemon may just be slower than
			 * we. */
			struct pollfd p = {.fd = bad.fd, .events = POLLOUT};

			if (poll(&p, 1, 500) == 1)
				r = 0;
		}
	}
	CU_ASSERT_EQUAL(r, -EAGAIN);
	CU_ASSERT_EQUAL(tgt_peer_good_client(d.socket), 0);

	/* A part of the last request is on its way; what it began must be ended. */
	CU_ASSERT_EQUAL(skip, 0);
	for (n_answered = 0; n_answered < n_asked; n_answered++) {
		CU_ASSERT_EQUAL_FATAL(tgt_peer_next(&bad, &reply), 0);
		CU_ASSERT_EQUAL_FATAL(reply->id, 1 + n_answered);
	}
}

static void a_peer_that_dribbles_bytes_and_never_says_hello_is_disconnected(void)
{
	struct pollfd p = {.fd = bad.fd, .events = POLLIN};
	time_t start = time(NULL);
	bool end = false;
	char c;

	/* The head of a frame of 255 bytes, then a byte of it now and then. */
	send_bytes("\xff\0\0\0", 4);
	while (!end && time(NULL) - start < TGT_TIMEOUT_MS / 1000) {
		if (poll(&p, 1, 200) == 1)
			end = recv(bad.fd, &c, 1, 0) <= 0;
		else
			(void)send(bad.fd, "x", 1, MSG_NOSIGNAL);
	}
	CU_ASSERT(end);
}

static struct tgt_peer crowd[2 * CONNECTIONS_MAX];

/* Returns when there is room again: the daemon sees that they are gone a little later. */
static void leave_crowd(void)
{
	time_t start = time(NULL);
	size_t i;
	int r;

	for (i = 0; i < sizeof(crowd) / sizeof(crowd[0]); i++)
		tgt_peer_close(&crowd[i]);
	do {
		r = tgt_peer_connect(&crowd[0], d.socket);
		if (r == 0)
			r = tgt_peer_hello(&crowd[0]);
		tgt_peer_close(&crowd[0]);
	} while (r < 0 && time(NULL) - start < TGT_TIMEOUT_MS / 1000);
	CU_ASSERT_EQUAL(r, 0);
}

/* How many of twice as many connections as there can be are welcome. */
static unsigned join_crowd(void)
{
	const Tgd__Reply *reply;
	unsigned n = 0, i;
	int r;

	for (i = 0; i < sizeof(crowd) / sizeof(crowd[0]); i++)
		crowd[i].fd = -1;
	for (i = 0; i < sizeof(crowd) / sizeof(crowd[0]); i++) {
		if (tgt_peer_connect(&crowd[i], d.socket) < 0)
			return 0;
		if (tgt_peer_hello(&crowd[i]) == 0) {
			n++;
			continue;
		}
		/* Who is turned away is told why, if he reads it, and that is all. */
		while ((r = tgt_peer_next(&crowd[i], &reply)) == 0)
			CU_ASSERT_EQUAL(reply->error, -EUSERS);
		if (r != -ENODATA)
			return 0;
	}
	return n;
}

static void a_flood_of_connections_ends_at_the_limit(void)
{
	struct pollfd p = {.events = POLLIN};
	const Tgd__Reply *reply;

	/* The bad peer of this test is one of them. */
	CU_ASSERT_EQUAL(join_crowd(), CONNECTIONS_MAX - 1);
	tgt_peer_close(&bad);
	leave_crowd();

	/* Being turned away comes with a sentence. */
	CU_ASSERT(join_crowd() >= CONNECTIONS_MAX / 2);
	set_up();
	p.fd = bad.fd;
	CU_ASSERT_EQUAL(poll(&p, 1, TGT_TIMEOUT_MS), 1);
	CU_ASSERT_EQUAL_FATAL(tgt_peer_next(&bad, &reply), 0);
	CU_ASSERT_EQUAL(reply->error, -EUSERS);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply->message, "32 connections are open"));
	CU_ASSERT(tgt_peer_at_end(&bad));
	leave_crowd();
}

static void one_user_cannot_take_all_connections(void)
{
	pid_t parent = getpid(), pid;
	int done[2], go_on[2], status = -1;
	unsigned n = 0;
	char c;

	if (geteuid() != 0)
		return;
	CU_ASSERT_EQUAL_FATAL(pipe2(done, O_CLOEXEC), 0);
	CU_ASSERT_EQUAL_FATAL(pipe2(go_on, O_CLOEXEC), 0);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0 ||
		    prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
			_exit(2);
		close(go_on[1]);
		n = join_crowd();
		_exit(write(done[1], &n, sizeof(n)) == sizeof(n) && read(go_on[0], &c, 1) == 0 ? 0
											       : 1);
	}
	close(done[1]);
	close(go_on[0]);
	CU_ASSERT_EQUAL(read(done[0], &n, sizeof(n)), sizeof(n));
	CU_ASSERT_EQUAL(n, CONNECTIONS_MAX / 2);
	CU_ASSERT_EQUAL(tgt_peer_good_client(d.socket), 0);
	close(go_on[1]);
	close(done[0]);
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_EQUAL(status, 0);
}

static unsigned count_open_files(pid_t pid)
{
	char path[32];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir != NULL && readdir(dir) != NULL)
		n++;
	if (dir != NULL)
		closedir(dir);
	return n - 2; /* . and .. */
}

static void without_a_free_descriptor_it_waits_and_goes_on_when_there_is_one(void)
{
	struct rlimit old, tight;

	/* Say hello, so that the connection is counted. */
	CU_ASSERT_EQUAL_FATAL(tgt_peer_hello(&bad), 0);
	CU_ASSERT_EQUAL_FATAL(prlimit(daemon_pid, RLIMIT_NOFILE, NULL, &old), 0);
	tight = old;
	tight.rlim_cur = count_open_files(daemon_pid);
	CU_ASSERT_EQUAL_FATAL(prlimit(daemon_pid, RLIMIT_NOFILE, &tight, NULL), 0);
	crowd[0].fd = -1;
	CU_ASSERT_EQUAL(tgt_peer_connect(&crowd[0], d.socket), 0);
	CU_ASSERT(tgt_daemon_wait_log(&d, "no connections are accepted for"));
	/* Who is connected is served meanwhile. */
	{
		const Tgd__Reply *reply;

		CU_ASSERT_EQUAL(tgt_peer_admin(&bad, TGD__ADMIN__WHAT__PING, 0, &reply), 0);
	}
	CU_ASSERT_EQUAL(prlimit(daemon_pid, RLIMIT_NOFILE, &old, NULL), 0);
	CU_ASSERT_EQUAL(tgt_peer_hello(&crowd[0]), 0);
	tgt_peer_close(&crowd[0]);
}

/* After all of the above: nothing of it is left. */
static void no_connection_and_no_client_is_left(void)
{
	const Tgd__Reply *reply;
	unsigned before;

	CU_ASSERT_EQUAL_FATAL(tgt_peer_hello(&bad), 0);
	before = count_open_files(daemon_pid);
	CU_ASSERT(before < 40);
	CU_ASSERT_EQUAL_FATAL(tgt_peer_admin(&bad, TGD__ADMIN__WHAT__CHECK, 0, &reply), 0);
	CU_ASSERT(reply->check->ok);
	CU_ASSERT_EQUAL(reply->check->objects, 0);
	CU_ASSERT_EQUAL_FATAL(tgt_peer_admin(&bad, TGD__ADMIN__WHAT__STATUS, 0, &reply), 0);
	CU_ASSERT_EQUAL(reply->status->clients, 0);
	CU_ASSERT_EQUAL(reply->status->slots, 0);
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
	{"a peer that never reads is not listened to, and loses nothing when it does",
	 a_peer_that_never_reads_is_not_listened_to_and_loses_nothing_when_it_does},
	{"a peer that dribbles bytes and never says Hello is disconnected",
	 a_peer_that_dribbles_bytes_and_never_says_hello_is_disconnected},
	{"a flood of connections ends at the limit", a_flood_of_connections_ends_at_the_limit},
	{"one user cannot take all connections", one_user_cannot_take_all_connections},
	{"without a free descriptor it waits, and goes on when there is one",
	 without_a_free_descriptor_it_waits_and_goes_on_when_there_is_one},
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
