/* talk.c - tgctl's side of the conversation with the daemon.
 *
 * One connection, one request at a time, each with a deadline: tgctl is what one uses when
 * something is wrong, so it must not hang with the daemon.  Nothing here prints; whatever fails
 * leaves a sentence in talk->why that says what was wrong and, if there is something to do about
 * it, what.  Two kinds of failure are told apart by talk->refused: the daemon answered with an
 * error (then the connection is still good), or there was no sensible answer (then it is not
 * used again).  The answer lies in the talk's own memory until the next request.
 */
#include "client/ctl/talk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "shm/base.h"

#define REOPEN_MS 10 /* between two attempts */

struct tgc_talk *tgc_talk_new(void)
{
	struct tgc_talk *talk = malloc(sizeof(*talk));

	if (talk == NULL)
		return NULL;
	talk->timeout_ms = TGC_TALK_TIMEOUT_MS;
	talk->refused = false;
	talk->why[0] = '\0';
	talk->daemon_pid = talk->keeper_pid = 0;
	talk->daemon[0] = '\0';
	talk->fd = -1;
	talk->last_id = 0;
	talk->n_in = 0;
	talk->n_used = 0;
	tgp_arena_init(&talk->arena, talk->memory, sizeof(talk->memory));
	return talk;
}

struct tgc_talk *tgc_talk_free(struct tgc_talk *talk)
{
	if (talk == NULL)
		return NULL;
	if (talk->fd >= 0)
		close(talk->fd);
	free(talk);
	return NULL;
}

/* Notes why something failed, and returns `error`. */
__attribute__((format(printf, 3, 4))) static int fail(struct tgc_talk *talk, int error,
						      const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(talk->why, sizeof(talk->why), format, args);
	va_end(args);
	return error;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* 0 when the descriptor is ready, -ETIMEDOUT at the deadline. */
static int wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = events};
	int64_t left;
	int n;

	for (;;) {
		left = deadline - now_ms();
		n = poll(&p, 1, left > 0 ? (int)left : 0);
		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

static int explain_timeout(struct tgc_talk *talk)
{
	return fail(talk, -ETIMEDOUT,
		    "the daemon did not answer within %.1f s; it may be stopped or very busy",
		    talk->timeout_ms / 1000.0);
}

static int explain_connect(struct tgc_talk *talk, const char *path, int error)
{
	struct stat st;

	switch (error) {
	case ECONNREFUSED:
		if (stat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
			return fail(talk, -ENOTSOCK,
				    "%s is not a socket; name the daemon's with --socket PATH",
				    path);
		return fail(talk, -error,
			    "no daemon at %s: connection refused; start one with: tgd --socket %s",
			    path, path);
	case ENOENT:
		return fail(talk, -error,
			    "no daemon at %s: no such file; start one with: tgd --socket %s", path,
			    path);
	case EACCES:
	case EPERM:
		return fail(talk, -error,
			    "may not connect to %s: permission denied; run this as the user of the "
			    "daemon, or have its administrator admit you",
			    path);
	case EAGAIN:
		return fail(
			talk, -ETIMEDOUT,
			"the daemon at %s does not accept connections: its queue is full; it may "
			"be stopped or very busy",
			path);
	default:
		return fail(talk, -error, "cannot connect to %s: %s", path, strerror(error));
	}
}

static int connect_to(struct tgc_talk *talk, const char *path)
{
	/* A listener whose queue is full lets a connect wait, for as long as a send may. */
	struct timeval timeout = {.tv_sec = talk->timeout_ms / 1000,
				  .tv_usec = talk->timeout_ms % 1000 * 1000};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	TGS_CLOSE int fd = -1;

	if (strlen(path) >= sizeof(address.sun_path))
		return fail(talk, -ENAMETOOLONG, "%s: longer than the %zu bytes of a socket's path",
			    path, sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(talk, -errno, "cannot make a socket: %s", strerror(errno));
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
		return fail(talk, -errno, "cannot set a timeout: %s", strerror(errno));
	while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		if (errno != EINTR)
			return explain_connect(talk, path, errno);
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return fail(talk, -errno, "cannot use the socket: %s", strerror(errno));
	talk->fd = fd;
	fd = -1;
	return 0;
}

static int explain_broken(struct tgc_talk *talk, int error)
{
	if (error == 0 || error == ECONNRESET || error == EPIPE)
		return fail(talk, -ECONNRESET,
			    "the daemon closed the connection without an answer; its log says why");
	return fail(talk, -error, "lost the connection to the daemon: %s", strerror(error));
}

static int send_request(struct tgc_talk *talk, Tgd__Request *request, int64_t deadline)
{
	uint8_t buf[1024];
	ssize_t size, n;
	size_t done;
	int r;

	request->id = ++talk->last_id;
	size = tgp_request_pack(request, buf, sizeof(buf));
	if (size < 0)
		return fail(talk, (int)size, "cannot pack the request: %s", strerror((int)-size));
	for (done = 0; done < (size_t)size; done += (size_t)n) {
		n = send(talk->fd, buf + done, (size_t)size - done, MSG_NOSIGNAL);
		if (n >= 0)
			continue;
		if (errno != EAGAIN && errno != EINTR)
			return explain_broken(talk, errno);
		n = 0;
		r = wait_for(talk->fd, POLLOUT, deadline);
		if (r < 0)
			return explain_timeout(talk);
	}
	return 0;
}

/* Reads until a whole frame is at the start of talk->in. */
static int receive_frame(struct tgc_talk *talk, int64_t deadline, const uint8_t **ret_payload,
			 size_t *ret_len)
{
	ssize_t n;
	int r;

	talk->n_in -= talk->n_used;
	memmove(talk->in, talk->in + talk->n_used, talk->n_in);
	talk->n_used = 0;
	for (;;) {
		r = tgp_frame_next(talk->in, talk->n_in, ret_payload, ret_len);
		if (r < 0)
			return fail(talk, r,
				    "what answers there is no tgd: its first bytes are no frame");
		if (r > 0) {
			talk->n_used = TGP_FRAME_HEAD + *ret_len;
			return 0;
		}
		r = wait_for(talk->fd, POLLIN, deadline);
		if (r < 0)
			return explain_timeout(talk);
		/* recv, not recvmsg: whatever descriptors came along are dropped by the kernel. */
		n = recv(talk->fd, talk->in + talk->n_in, sizeof(talk->in) - talk->n_in, 0);
		if (n == 0)
			return explain_broken(talk, 0);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return explain_broken(talk, errno);
		if (n > 0)
			talk->n_in += (size_t)n;
	}
}

/* Sends the request and waits for its reply.  On any failure but a refusal the connection is
 * closed. */
static int call(struct tgc_talk *talk, Tgd__Request *request, unsigned body, const Tgd__Reply **ret)
{
	int64_t deadline = now_ms() + talk->timeout_ms;
	const Tgd__Reply *reply;
	const uint8_t *payload;
	char why[256];
	size_t len;
	int r;

	talk->refused = false;
	if (talk->fd < 0)
		return fail(talk, -ENOTCONN, "not connected to a daemon");
	r = send_request(talk, request, deadline);
	if (r >= 0)
		r = receive_frame(talk, deadline, &payload, &len);
	if (r >= 0) {
		tgp_arena_reset(&talk->arena);
		r = tgp_reply_unpack(&talk->arena, payload, len, &reply, why, sizeof(why));
		if (r < 0)
			fail(talk, r, "the daemon's answer makes no sense: %s", why);
	}
	/* Id 0 is how the daemon says that it could not read the request. */
	if (r >= 0 && reply->id != request->id && !(reply->id == 0 && reply->error != 0))
		r = fail(talk, -EPROTO, "the daemon answered request %llu instead of %llu",
			 (unsigned long long)reply->id, (unsigned long long)request->id);
	if (r >= 0 && reply->error != 0) {
		talk->refused = true;
		return fail(talk, reply->error, "%s",
			    reply->message[0] != '\0' ? reply->message : strerror(-reply->error));
	}
	if (r >= 0 && body != 0 && reply->body_case != body)
		r = fail(talk, -EPROTO,
			 "the daemon's answer is of another kind than the question; are tgd and "
			 "tgctl of the same version?");
	if (r < 0) {
		close(talk->fd);
		talk->fd = -1;
		return r;
	}
	*ret = reply;
	return 0;
}

/* Connects and says hello; `path` need not outlive the call.  0, or -errno with talk->why:
 * nobody there (-ENOENT, -ECONNREFUSED, -ENOTSOCK), not allowed (-EACCES), -ETIMEDOUT, not a tgd
 * or one that speaks no version that we do (-EPROTO).  Once only for each talk. */
int tgc_talk_open(struct tgc_talk *talk, const char *path)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Hello hello = TGD__HELLO__INIT;
	const Tgd__Reply *reply;
	uint32_t version;
	int r;

	talk->refused = false;
	r = connect_to(talk, path);
	if (r < 0)
		return r;
	hello.version = TGP_VERSION;
	hello.min_version = TGP_MIN_VERSION;
	hello.program = (char *)"tgctl " PACKAGE_VERSION;
	request.body_case = TGD__REQUEST__BODY_HELLO;
	request.hello = &hello;
	r = call(talk, &request, TGD__REPLY__BODY_HELLO, &reply);
	if (r < 0)
		return r;
	version = reply->hello->version;
	if (version < TGP_MIN_VERSION || version > TGP_VERSION)
		return fail(
			talk, -EPROTO,
			"the daemon speaks version %u of the protocol, this tgctl speaks %d to %d; "
			"use the tgctl that came with it",
			version, TGP_MIN_VERSION, TGP_VERSION);
	talk->daemon_pid = (pid_t)reply->hello->pid;
	talk->keeper_pid = (pid_t)reply->hello->keeper_pid;
	snprintf(talk->daemon, sizeof(talk->daemon), "%s", reply->hello->program);
	return 0;
}

/* One request and its answer, whose body must be `body` (a TGD__REPLY__BODY_..., 0: any).  The
 * answer is valid until the next call.  0, or -errno with talk->why; with talk->refused it is
 * the daemon's own error. */
int tgc_talk_ask(struct tgc_talk *talk, const Tgd__Admin *ask, unsigned body,
		 const Tgd__Reply **ret)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Admin admin = *ask;

	request.body_case = TGD__REQUEST__BODY_ADMIN;
	request.admin = &admin;
	return call(talk, &request, body, ret);
}

/* The daemon as a pidfd, or -1: it is in another pid namespace, or it is not who listens.  Its keeper is
 * the one that ends last. */
static int open_daemon(struct tgc_talk *talk)
{
	socklen_t size = sizeof(struct ucred);
	struct ucred peer;
	pid_t last = talk->keeper_pid != 0 ? talk->keeper_pid : talk->daemon_pid;

	if (getsockopt(talk->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.pid <= 0 ||
	    peer.pid != last)
		return -1;
	return pidfd_open(peer.pid, 0);
}

/* Drops what comes until the other side closes, or the deadline. */
static int wait_close(struct tgc_talk *talk, int64_t deadline)
{
	uint8_t rest[256];
	ssize_t n = 0;
	int r;

	do {
		r = wait_for(talk->fd, POLLIN, deadline);
		if (r >= 0)
			n = recv(talk->fd, rest, sizeof(rest), 0);
	} while (r >= 0 && (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))));
	return r;
}

/* Waits until the daemon has closed the connection and, where it can be seen, its process has
 * ended.  0, or -ETIMEDOUT with talk->why. */
int tgc_talk_wait_end(struct tgc_talk *talk)
{
	int64_t deadline = now_ms() + talk->timeout_ms;
	TGS_CLOSE int pidfd = open_daemon(talk);
	int r = wait_close(talk, deadline);

	if (r >= 0 && pidfd >= 0)
		r = wait_for(pidfd, POLLIN, deadline);
	if (r < 0)
		return fail(talk, r, "the daemon agreed to stop but still runs after %.1f s",
			    talk->timeout_ms / 1000.0);
	return 0;
}

/* 0, or -errno with talk->why: -ETIMEDOUT, or as tgc_talk_open.  All within the talk's timeout. */
int tgc_talk_reopen(struct tgc_talk *talk, const char *path)
{
	int64_t deadline = now_ms() + talk->timeout_ms;
	pid_t before = talk->daemon_pid;
	int r;

	r = wait_close(talk, deadline);
	if (r < 0)
		return fail(talk, r, "process %d still serves after %.1f s", (int)before,
			    talk->timeout_ms / 1000.0);
	for (;;) {
		if (talk->fd >= 0)
			close(talk->fd);
		talk->fd = -1;
		talk->n_in = talk->n_used = 0;
		r = tgc_talk_open(talk, path);
		/* The one that let us in may be the last of the old, or end before it answers. */
		if ((r == 0 && talk->daemon_pid != before) || now_ms() >= deadline ||
		    (r < 0 && r != -ECONNRESET && r != -EPIPE))
			break;
		poll(NULL, 0, REOPEN_MS);
	}
	if (r == 0 && talk->daemon_pid == before)
		return fail(talk, -ETIMEDOUT, "process %d still serves", (int)before);
	return r;
}
