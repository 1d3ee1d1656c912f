/* test_greedy_peers - peers that want too much, or give too little: replies that nobody reads, bytes that never become a
 * frame, more connections than there can be, all of them for one user, no descriptor left.
 *
 * The daemon bounds what it keeps for each, and serves all others meanwhile.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/badpeers.h"
#include "tests/support/peer.h"
#include "tests/support/runner.h"

#define NOBODY 65534

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

static CU_TestInfo tests[] = {
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
	{"greedy peers", start_all, stop_all, set_up, tear_down, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("greedy_peers", suites);
}
