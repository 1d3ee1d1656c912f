/* test_fdpass: descriptors arrive as sent, or the message is refused and not one of them leaks.
 *
 * The hostile sender is a raw sendmsg that does what tgp_send_fds refuses to.  The number of open
 * descriptors is counted before and after each refusal.
 */
#include "proto/fdpass.h"

#include <CUnit/CUnit.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "tests/support/runner.h"

enum { RAW_MAX = 20 };

static int sockets[2] = {-1, -1}; /* [0] sends, [1] receives */
static int files[2] = {-1, -1};   /* the two ends of a pipe: told apart by their access mode */

static void set_up(void)
{
	CU_ASSERT_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
	CU_ASSERT_FATAL(pipe(files) == 0);
}

static void close_socket(int i)
{
	close(sockets[i]);
	sockets[i] = -1;
}

static void tear_down(void)
{
	int i;

	for (i = 0; i < 2; i++) {
		if (sockets[i] >= 0)
			close_socket(i);
		close(files[i]);
		files[i] = -1;
	}
}

static int count_open(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	CU_ASSERT_FATAL(dir != NULL);
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

/* Sends n copies of a descriptor with the byte 'x', as many as the kernel lets through. */
static void send_raw(size_t n)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * RAW_MAX)];
	} control = {.bytes = {0}};
	char byte = 'x';
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes};
	size_t i;

	msg.msg_controllen = CMSG_SPACE(sizeof(int) * n);
	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(sizeof(int) * n);
	for (i = 0; i < n; i++)
		memcpy(CMSG_DATA(&control.align) + i * sizeof(int), &files[0], sizeof(int));
	CU_ASSERT_FATAL(sendmsg(sockets[0], &msg, 0) == 1);
}

/* The received descriptor is the pipe's end `file`, with close-on-exec; it is closed here. */
static void expect_file(int fd, int file)
{
	struct stat sent, got;

	CU_ASSERT_FATAL(fstat(files[file], &sent) == 0 && fstat(fd, &got) == 0);
	CU_ASSERT(sent.st_dev == got.st_dev && sent.st_ino == got.st_ino);
	CU_ASSERT_EQUAL(fcntl(fd, F_GETFL) & O_ACCMODE, file == 0 ? O_RDONLY : O_WRONLY);
	CU_ASSERT((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
	close(fd);
}

static void zero_to_two_descriptors_arrive_in_order(void)
{
	size_t n, i, n_fds;
	int before = count_open();

	for (n = 0; n <= TGP_FDS_MAX; n++) {
		int fds[TGP_FDS_MAX] = {-1, -1};
		char buf[16] = "";

		CU_ASSERT_EQUAL(tgp_send_fds(sockets[0], "hello", 5, files, n), 5);
		n_fds = 99;
		CU_ASSERT_EQUAL(tgp_recv_fds(sockets[1], buf, sizeof(buf), fds, 2, &n_fds), 5);
		CU_ASSERT_EQUAL(memcmp(buf, "hello", 5), 0);
		CU_ASSERT_EQUAL_FATAL(n_fds, n);
		for (i = 0; i < n; i++)
			expect_file(fds[i], (int)i);
		for (; i < TGP_FDS_MAX; i++)
			CU_ASSERT_EQUAL(fds[i], -1);
	}
	CU_ASSERT_EQUAL(count_open(), before);
}

static void sender_refuses_three_descriptors_and_none_without_a_byte(void)
{
	int three[3] = {files[0], files[0], files[0]}, fd;
	char byte;

	CU_ASSERT_EQUAL(tgp_send_fds(sockets[0], "x", 1, three, 3), -EINVAL);
	CU_ASSERT_EQUAL(tgp_send_fds(sockets[0], "", 0, three, 1), -EINVAL);
	CU_ASSERT_EQUAL(tgp_send_fds(sockets[0], "", 0, NULL, 0), -EINVAL);
	fd = -1;
	CU_ASSERT_EQUAL(tgp_send_fds(sockets[0], "x", 1, &fd, 1), -EBADF);
	CU_ASSERT(recv(sockets[1], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

/* 3 and 4 fit in the control buffer and are refused by count, more by MSG_CTRUNC. */
static void more_than_two_are_refused_and_none_leaks(void)
{
	size_t n, n_fds;
	int before = count_open();

	for (n = 3; n <= RAW_MAX; n++) {
		int fds[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
		char buf[16];

		send_raw(n);
		n_fds = 99;
		/* Room for 8, but never more than TGP_FDS_MAX are taken. */
		CU_ASSERT_EQUAL(tgp_recv_fds(sockets[1], buf, sizeof(buf), fds, 8, &n_fds),
				-EPROTO);
		CU_ASSERT(n_fds == 99 && fds[0] == -1);
		CU_ASSERT_EQUAL(count_open(), before);
	}
}

static void more_than_the_caller_wants_are_refused_and_none_leaks(void)
{
	size_t n, max, n_fds = 99;
	int before = count_open();

	for (max = 0; max < TGP_FDS_MAX; max++) {
		for (n = max + 1; n <= TGP_FDS_MAX; n++) {
			int fd = -1;
			char byte;

			send_raw(n);
			CU_ASSERT_EQUAL(tgp_recv_fds(sockets[1], &byte, 1, max == 0 ? NULL : &fd,
						     max, &n_fds),
					-EPROTO);
			CU_ASSERT(n_fds == 99 && fd == -1);
			CU_ASSERT_EQUAL(count_open(), before);
		}
	}
}

static void no_room_for_a_descriptor_in_this_process_is_an_error(void)
{
	struct rlimit old, low;
	int before = count_open(), next = dup(0), fd = -1;
	size_t n_fds = 99;
	char byte;
	ssize_t r;

	CU_ASSERT_FATAL(next >= 0);
	CU_ASSERT_FATAL(getrlimit(RLIMIT_NOFILE, &old) == 0);
	close(next);
	send_raw(1);
	low = old;
	low.rlim_cur = (rlim_t)next;
	CU_ASSERT_FATAL(setrlimit(RLIMIT_NOFILE, &low) == 0);
	r = tgp_recv_fds(sockets[1], &byte, 1, &fd, 1, &n_fds);
	CU_ASSERT_FATAL(setrlimit(RLIMIT_NOFILE, &old) == 0);
	CU_ASSERT_EQUAL(r, -EPROTO);
	CU_ASSERT(fd == -1 && n_fds == 99);
	CU_ASSERT_EQUAL(count_open(), before);
}

static void descriptor_comes_once_though_the_send_was_partial(void)
{
	enum { LEN = 1 << 20 };
	uint8_t *out = malloc(LEN), *in = malloc(LEN);
	size_t sent, received = 0, n_got = 0, i, n_fds;
	int fd = -1, fds[TGP_FDS_MAX];
	ssize_t r;

	for (i = 0; i < LEN; i++)
		out[i] = (uint8_t)(i * 7 + (i >> 10));
	CU_ASSERT_FATAL(fcntl(sockets[0], F_SETFL, O_NONBLOCK) == 0);
	r = tgp_send_fds(sockets[0], out, LEN, files, 1);
	CU_ASSERT_FATAL(r > 0 && r < LEN);
	sent = (size_t)r;

	while (received < LEN) {
		r = sent < LEN ? tgp_send_fds(sockets[0], out + sent, LEN - sent, NULL, 0) : 0;
		CU_ASSERT_FATAL(r >= 0 || r == -EAGAIN);
		sent += r > 0 ? (size_t)r : 0;
		r = tgp_recv_fds(sockets[1], in + received, LEN - received, fds, 2, &n_fds);
		CU_ASSERT_FATAL(r > 0);
		received += (size_t)r;
		for (i = 0; i < n_fds; i++)
			fd = fds[i];
		n_got += n_fds;
	}
	CU_ASSERT_EQUAL(n_got, 1);
	CU_ASSERT_EQUAL(memcmp(in, out, LEN), 0);
	expect_file(fd, 0);
	free(in);
	free(out);
}

/* With the first byte: a receiver that takes one byte at a time has it at once. */
static void descriptor_rides_with_the_first_byte(void)
{
	size_t n_fds = 99;
	int fd = -1;
	char byte;

	CU_ASSERT_EQUAL(tgp_send_fds(sockets[0], "abc", 3, &files[1], 1), 3);
	CU_ASSERT_EQUAL(tgp_recv_fds(sockets[1], &byte, 1, &fd, 1, &n_fds), 1);
	CU_ASSERT_EQUAL(byte, 'a');
	CU_ASSERT_EQUAL_FATAL(n_fds, 1);
	expect_file(fd, 1);
	CU_ASSERT_EQUAL(tgp_recv_fds(sockets[1], &byte, 1, &fd, 1, &n_fds), 1);
	CU_ASSERT(byte == 'b' && n_fds == 0);
}

static void closed_peer_is_the_end_for_the_receiver_and_an_error_for_the_sender(void)
{
	size_t n_fds = 99;
	char byte;

	close_socket(0);
	CU_ASSERT_EQUAL(tgp_recv_fds(sockets[1], &byte, 1, NULL, 0, &n_fds), 0);
	CU_ASSERT_EQUAL(n_fds, 0);
	/* SIGPIPE would end the test here. */
	CU_ASSERT_EQUAL(tgp_send_fds(sockets[1], "x", 1, NULL, 0), -EPIPE);
}

static void socket_that_does_not_block_says_again(void)
{
	static const uint8_t bytes[4096];
	size_t n_fds = 99;
	char byte;
	ssize_t r;

	CU_ASSERT_FATAL(fcntl(sockets[0], F_SETFL, O_NONBLOCK) == 0);
	CU_ASSERT_FATAL(fcntl(sockets[1], F_SETFL, O_NONBLOCK) == 0);
	CU_ASSERT_EQUAL(tgp_recv_fds(sockets[1], &byte, 1, NULL, 0, &n_fds), -EAGAIN);
	CU_ASSERT_EQUAL(n_fds, 99);
	do
		r = tgp_send_fds(sockets[0], bytes, sizeof(bytes), NULL, 0);
	while (r > 0);
	CU_ASSERT_EQUAL(r, -EAGAIN);
}

static void errors_of_the_socket_come_back(void)
{
	size_t n_fds;
	char byte;

	CU_ASSERT_EQUAL(tgp_recv_fds(-1, &byte, 1, NULL, 0, &n_fds), -EBADF);
	CU_ASSERT_EQUAL(tgp_send_fds(-1, "x", 1, NULL, 0), -EBADF);
	CU_ASSERT_EQUAL(tgp_recv_fds(files[0], &byte, 1, NULL, 0, &n_fds), -ENOTSOCK);
	CU_ASSERT_EQUAL(tgp_recv_fds(sockets[1], &byte, 0, NULL, 0, &n_fds), -EINVAL);
}

static volatile sig_atomic_t n_signals;

/* The third signal sends the byte that is waited for; the ones before only interrupt. */
static void on_alarm(int number)
{
	(void)number;
	if (++n_signals == 3 && write(sockets[0], "x", 1) != 1)
		_exit(99);
}

static void interrupted_receive_goes_on(void)
{
	struct sigaction action = {.sa_handler = on_alarm}, old; /* without SA_RESTART */
	struct itimerval every_10_ms = {{0, 10000}, {0, 10000}}, off = {{0, 0}, {0, 0}};
	size_t n_fds = 99;
	char byte = 0;
	ssize_t r;

	n_signals = 0;
	CU_ASSERT_FATAL(sigaction(SIGALRM, &action, &old) == 0);
	CU_ASSERT_FATAL(setitimer(ITIMER_REAL, &every_10_ms, NULL) == 0);
	r = tgp_recv_fds(sockets[1], &byte, 1, NULL, 0, &n_fds);
	setitimer(ITIMER_REAL, &off, NULL);
	sigaction(SIGALRM, &old, NULL);
	CU_ASSERT_EQUAL(r, 1);
	CU_ASSERT_EQUAL(byte, 'x');
	CU_ASSERT(n_signals >= 3);
}

static CU_TestInfo descriptor_tests[] = {
	{"zero to two descriptors arrive in order", zero_to_two_descriptors_arrive_in_order},
	{"the sender refuses three descriptors, and any without a byte",
	 sender_refuses_three_descriptors_and_none_without_a_byte},
	{"more than two are refused and none leaks", more_than_two_are_refused_and_none_leaks},
	{"more than the caller wants are refused and none leaks",
	 more_than_the_caller_wants_are_refused_and_none_leaks},
	{"no room for a descriptor in this process is an error",
	 no_room_for_a_descriptor_in_this_process_is_an_error},
	{"a descriptor comes once, though the send was partial",
	 descriptor_comes_once_though_the_send_was_partial},
	{"a descriptor rides with the first byte", descriptor_rides_with_the_first_byte},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo socket_tests[] = {
	{"a closed peer is the end for the receiver and an error for the sender",
	 closed_peer_is_the_end_for_the_receiver_and_an_error_for_the_sender},
	{"a socket that does not block says again", socket_that_does_not_block_says_again},
	{"errors of the socket come back", errors_of_the_socket_come_back},
	{"an interrupted receive goes on", interrupted_receive_goes_on},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"descriptors", NULL, NULL, set_up, tear_down, descriptor_tests},
	{"sockets", NULL, NULL, set_up, tear_down, socket_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("fdpass", suites);
}
