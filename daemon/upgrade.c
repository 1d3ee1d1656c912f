/* upgrade.c - tgd --upgrade: asks the running daemon to go on as this program.
 *
 * A client of the wire like tgctl, of three requests: Hello, who says which process serves; UPGRADE
 * with the path of our own file; and, on a new connection once the old one has closed, STATUS, which
 * says whether the new process is what we wanted.  Blocking, with a deadline on every wait.
 */
#include "daemon/upgrade.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "proto/msg.h"
#include "shm/base.h"

#define ANSWER_S   10 /* what one answer may take: a new daemon takes the heap over meanwhile */
#define REPLACE_MS 60000
#define RETRY_MS   10

static uint8_t frame[TGP_FRAME_HEAD + TGP_FRAME_MAX];
static uint8_t memory[TGP_UNPACK_MAX];
static struct tgp_arena arena;

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int receive(int sock, const Tgd__Reply **ret, char *why, size_t why_size)
{
	const uint8_t *payload;
	size_t n = 0, len;
	ssize_t got;
	int r;

	while ((r = tgp_frame_next(frame, n, &payload, &len)) == 0) {
		got = recv(sock, frame + n, sizeof(frame) - n, 0);
		if (got <= 0) {
			r = got == 0 ? -ECONNRESET : -errno;
			snprintf(why, why_size, "no answer from the daemon: %s", strerror(-r));
			return r;
		}
		n += (size_t)got;
	}
	if (r < 0) {
		snprintf(why, why_size, "what answers there is no tgd");
		return r;
	}
	tgp_arena_init(&arena, memory, sizeof(memory));
	return tgp_reply_unpack(&arena, payload, len, ret, why, why_size);
}

/* One request and its answer, valid until the next. */
static int ask(int sock, Tgd__Request *request, const Tgd__Reply **ret, char *why, size_t why_size)
{
	ssize_t n;
	int r;

	request->id = 1;
	n = tgp_request_pack(request, frame, sizeof(frame));
	if (n < 0 || send(sock, frame, (size_t)n, MSG_NOSIGNAL) != n) {
		r = n < 0 ? (int)n : -errno;
		snprintf(why, why_size, "the daemon cannot be asked: %s", strerror(-r));
		return r;
	}
	r = receive(sock, ret, why, why_size);
	if (r == 0 && (*ret)->error != 0) {
		r = (*ret)->error;
		snprintf(why, why_size, "%s", (*ret)->message);
	}
	return r;
}

/* Connects and says Hello: the socket, and the pid and program that answer. */
static int greet(const char *path, pid_t *ret_pid, char *program, char *why, size_t why_size)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval timeout = {.tv_sec = ANSWER_S};
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Hello hello = TGD__HELLO__INIT;
	const Tgd__Reply *reply;
	int sock, r;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	if (connect(sock, (struct sockaddr *)&address, sizeof(address)) < 0) {
		r = -errno;
		snprintf(why, why_size, "no daemon at %s: %s", path, strerror(-r));
		close(sock);
		return r;
	}
	hello.version = TGP_VERSION;
	hello.min_version = TGP_MIN_VERSION;
	hello.program = "tgd --upgrade " PACKAGE_VERSION;
	request.body_case = TGD__REQUEST__BODY_HELLO;
	request.hello = &hello;
	r = ask(sock, &request, &reply, why, why_size);
	if (r == 0 && reply->body_case != TGD__REPLY__BODY_HELLO) {
		snprintf(why, why_size, "what answers there is no tgd");
		r = -EPROTO;
	}
	if (r < 0) {
		close(sock);
		return r;
	}
	*ret_pid = (pid_t)reply->hello->pid;
	snprintf(program, TGP_PROGRAM_MAX + 1, "%s", reply->hello->program);
	return sock;
}

static int ask_admin(int sock, Tgd__Admin__What what, char *path, const Tgd__Reply **ret, char *why,
		     size_t why_size)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Admin admin = TGD__ADMIN__INIT;

	admin.what = what;
	admin.path = path;
	request.body_case = TGD__REQUEST__BODY_ADMIN;
	request.admin = &admin;
	return ask(sock, &request, ret, why, why_size);
}

/* Waits for a process other than the old one to serve: its socket. */
static int await_other(const char *path, pid_t old, pid_t *ret_pid, char *program, char *why,
		       size_t why_size)
{
	int64_t deadline = now_ms() + REPLACE_MS;
	int sock;

	for (;;) {
		sock = greet(path, ret_pid, program, why, why_size);
		if (sock >= 0 && *ret_pid != old)
			return sock;
		if (sock >= 0)
			close(sock);
		if (now_ms() >= deadline)
			break;
		poll(NULL, 0, RETRY_MS);
	}
	if (sock >= 0)
		snprintf(why, why_size, "process %d still serves; see its log", (int)old);
	return sock >= 0 ? -ETIMEDOUT : sock;
}

static int upgrade(const char *path, char *why, size_t why_size)
{
	char self[TGP_TEXT_MAX + 1], old_program[TGP_PROGRAM_MAX + 1],
		new_program[TGP_PROGRAM_MAX + 1];
	TGS_CLOSE int old_sock = -1, new_sock = -1;
	const Tgd__Reply *reply;
	pid_t old, new;
	ssize_t n;
	int r;

	n = readlink("/proc/self/exe", self, sizeof(self));
	if (n < 0 || n == (ssize_t)sizeof(self)) {
		snprintf(why, why_size, "this program's file is not known, or has too long a path");
		return -EINVAL;
	}
	self[n] = '\0';
	old_sock = greet(path, &old, old_program, why, why_size);
	if (old_sock < 0)
		return old_sock;
	r = ask_admin(old_sock, TGD__ADMIN__WHAT__UPGRADE, self, &reply, why, why_size);
	if (r < 0)
		return r;
	/* It closes the connection when it retires. */
	(void)recv(old_sock, frame, sizeof(frame), 0);
	new_sock = await_other(path, old, &new, new_program, why, why_size);
	if (new_sock < 0)
		return new_sock;
	r = ask_admin(new_sock, TGD__ADMIN__WHAT__STATUS, "", &reply, why, why_size);
	if (r < 0)
		return r;
	if (reply->body_case == TGD__REPLY__BODY_STATUS &&
	    reply->status->upgrade_failure[0] != '\0') {
		snprintf(why, why_size, "%s", reply->status->upgrade_failure);
		return -ECHILD;
	}
	printf("%s, process %d, has been replaced by %s, process %d\n", old_program, (int)old,
	       new_program, (int)new);
	return 0;
}

int tgd_upgrade(const struct tgd_config *config)
{
	char why[512] = "";

	if (upgrade(config->socket, why, sizeof(why)) == 0)
		return 0;
	fprintf(stderr, "tgd: not upgraded: %s\n", why);
	return 1;
}
