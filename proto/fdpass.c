/* fdpass.c - one sendmsg or recvmsg that may carry descriptors.
 *
 * A peer can attach descriptors to any byte, also where none is expected, and each one that the
 * kernel installs is ours to close.  So every receive, also one that wants none, brings a control
 * buffer, walks all of it, and closes everything when there is more than the caller asked for.
 * On a stream a descriptor comes with some part of the bytes, not with a message: what it is for
 * is known from the frame that these bytes end up in.
 * Invariants:
 * - after an error no descriptor stays open that was not open before;
 * - a descriptor received has close-on-exec from the start: no fork and exec in between keeps it;
 * - no memory is allocated.
 * Safe from any thread, but two threads on one socket get each other's bytes.
 */
#include "proto/fdpass.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for more than we take, so that a peer that sends a few too many is seen by count.  With
 * even more the kernel sets MSG_CTRUNC, drops the rest, and still installs those that fit. */
#define RECV_ROOM (TGP_FDS_MAX + 2)

/* The union aligns the bytes as the headers in them need it. */
union send_control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int) * TGP_FDS_MAX)];
};

union recv_control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int) * RECV_ROOM)];
};

/* Sends n bytes (at least 1) and with the first of them n_fds descriptors, 0..TGP_FDS_MAX; they
 * stay open here.  Bytes sent, which may be fewer than n: the descriptors are gone with the
 * first part, so the rest is to be sent with n_fds 0.  -EAGAIN: the socket does not block and is
 * full; -ETOOMANYREFS: too many of our descriptors wait unread in sockets, try again later;
 * -EINVAL: n is 0 or n_fds too large; or what else sendmsg says.  No SIGPIPE is raised. */
ssize_t tgp_send_fds(int sock, const void *bytes, size_t n, const int *fds, size_t n_fds)
{
	struct iovec iov = {.iov_base = (void *)bytes, .iov_len = n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	union send_control control;
	ssize_t sent;

	/* Descriptors without a byte would be dropped by the kernel without a word. */
	if (n == 0 || n_fds > TGP_FDS_MAX)
		return -EINVAL;
	if (n_fds > 0) {
		struct cmsghdr *head;

		memset(&control, 0, sizeof(control));
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		head = CMSG_FIRSTHDR(&msg);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(head), fds, sizeof(int) * n_fds);
	}
	do
		sent = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

/* Collects all descriptors that came with the message; returns how many.  `all` has RECV_ROOM
 * places. */
static size_t collect_fds(struct msghdr *msg, int *all)
{
	struct cmsghdr *head;
	size_t n_all = 0;

	for (head = CMSG_FIRSTHDR(msg); head != NULL; head = CMSG_NXTHDR(msg, head)) {
		size_t n_here;

		if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
			continue;
		n_here = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		assert(n_here <= RECV_ROOM - n_all);
		memcpy(all + n_all, CMSG_DATA(head), sizeof(int) * n_here);
		n_all += n_here;
	}
	return n_all;
}

/* Receives up to `size` bytes (at least 1) and the descriptors that came with them into fds,
 * which has room for max_fds (0: none is expected, fds may be NULL; more than TGP_FDS_MAX are
 * never taken).  Bytes received, 0 when the peer has closed; then *ret_n_fds descriptors are the
 * caller's.  -EPROTO: more descriptors came than are allowed, or this process cannot hold more
 * (RLIMIT_NOFILE; the kernel tells both alike); all were closed, the bytes are lost: drop the
 * connection.  -EAGAIN: the socket does not block and has nothing; -EINVAL: size
 * is 0; or what else recvmsg says. */
ssize_t tgp_recv_fds(int sock, void *buf, size_t size, int *fds, size_t max_fds, size_t *ret_n_fds)
{
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	union recv_control control;
	struct msghdr msg;
	int all[RECV_ROOM];
	size_t n_all;
	ssize_t got;

	if (size == 0)
		return -EINVAL;
	do {
		/* A failed call may have written to the lengths. */
		memset(&control, 0, sizeof(control));
		msg = (struct msghdr){
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control.bytes,
			.msg_controllen = sizeof(control.bytes),
		};
		got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;

	n_all = collect_fds(&msg, all);
	if (n_all > max_fds || n_all > TGP_FDS_MAX || (msg.msg_flags & MSG_CTRUNC) != 0) {
		while (n_all > 0)
			close(all[--n_all]);
		return -EPROTO;
	}
	if (n_all > 0)
		memcpy(fds, all, sizeof(int) * n_all);
	*ret_n_fds = n_all;
	return got;
}
