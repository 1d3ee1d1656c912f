/* rpc.c - the connection to the daemon: connect, ask, wait, and connect again when it is gone.
 *
 * One request is in flight at a time, under the lock.  The buffers lie in wiped memory, as all that is this process's
 * own: a forked child finds no connection.  The descriptor is looked at before each use (device and inode): a program
 * that closed all its descriptors and opened others must not find our bytes in its files.
 */
#include "client/rpc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client/autostart.h"
#include "client/process.h"
#include "proto/fdpass.h"

#define OUT_SIZE    8192u
#define IN_SIZE     16384u
#define UNPACK_SIZE 65536u
#define RETRY_MS    20
#define GAVE_UP_MS  100
#define LOOK_NS     25000 /* so long we look for an answer again and again before we sleep */
#define LOOK_MISSES 4u    /* after so many in vain only one wait in LOOK_RETRY begins with it */
#define LOOK_RETRY  16u

struct tgc_rpc {
	pthread_mutex_t lock;
	int cancel_state; /* of the thread that has the lock, as it was before; the next two likewise */
	int saved_errno;
	bool used_libc;
	bool gave_up;    /* the last attempt to make the connection again failed */
	unsigned misses; /* waits, one after the other, in which looking was in vain */
	uint64_t next_id;
	_Atomic uint64_t messages;
	_Atomic uint64_t reconnects;
	struct tgc_post *posts; /* outstanding */
	struct tgp_arena arena;
	char why[TGP_TEXT_MAX + 1];
	int fds[TGP_FDS_MAX]; /* came with the last reply */
	size_t n_fds;
	size_t in_n, out_n;
	bool holds; /* requests wait in `out` for others to be sent with them */
	uint8_t out[OUT_SIZE];
	uint8_t in[IN_SIZE];
	uint8_t unpack[UNPACK_SIZE];
};

static struct tgc_rpc *rpc(void)
{
	return tgc_process->rpc;
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t now_ms(void)
{
	return now_ns() / 1000000;
}

static void complain(const char *what, int error)
{
	snprintf(rpc()->why, sizeof(rpc()->why), "%s %.107s: %s", what, tgc_saved.socket,
		 strerror(error));
}

/* Is the descriptor still the socket that we opened? */
static bool still_ours(void)
{
	struct stat st;

	return tgc_saved.socket_fd >= 0 && fstat(tgc_saved.socket_fd, &st) == 0 &&
	       st.st_dev == tgc_saved.socket_dev && st.st_ino == tgc_saved.socket_ino;
}

/* The reply to a posted request has come, or never will. */
static void take_post(struct tgc_post **where, const Tgd__Reply *reply)
{
	struct tgc_post *post = *where;

	*where = post->next;
	post->next = NULL;
	post->id = 0;
	post->take(post, reply);
}

static void disconnect(void)
{
	while (rpc()->posts)
		take_post(&rpc()->posts, NULL);
	if (still_ours())
		close(tgc_saved.socket_fd);
	tgc_saved.socket_fd = -1;
	rpc()->in_n = rpc()->out_n = 0;
	rpc()->holds = false;
}

static void close_fds(void)
{
	while (rpc()->n_fds > 0)
		close(rpc()->fds[--rpc()->n_fds]);
}

static int wait_for(short events, int64_t deadline)
{
	struct pollfd pfd = {.fd = tgc_saved.socket_fd, .events = events};
	int64_t left;
	int n;

	for (;;) {
		/* Looks once also when the time is over: we may have been stopped while the answer came. */
		left = deadline - now_ms();
		n = poll(&pfd, 1, left > 0 ? (int)left : 0);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0 && left <= 0)
			return -ETIMEDOUT;
	}
}

static int send_all(const uint8_t *bytes, size_t n, int64_t deadline)
{
	while (n > 0) {
		ssize_t sent = tgp_send_fds(tgc_saved.socket_fd, bytes, n, NULL, 0);

		if (sent == -EAGAIN) {
			int r = wait_for(POLLOUT, deadline);

			if (r < 0)
				return r;
			continue;
		}
		if (sent < 0)
			return (int)sent;
		bytes += sent;
		n -= (size_t)sent;
	}
	return 0;
}

/* To be put to sleep and woken costs more than most answers take.  So we look for the answer for a while; unless that
 * was in vain lately, as it is where the daemon and we have one processor between us.  Returns until when. */
static int64_t look_begin(void)
{
	struct tgc_rpc *c = rpc();

	if (c->misses >= LOOK_MISSES && c->misses++ % LOOK_RETRY != 0)
		return 0;
	return now_ns() + LOOK_NS;
}

/* Nothing has come: shall we look again?  *until becomes 0 when we shall not any more. */
static bool look_again(int64_t *until)
{
	if (*until == 0)
		return false;
	if (now_ns() < *until)
		return true;
	*until = 0;
	rpc()->misses++;
	return false;
}

/* Reads until a whole frame is there, and unpacks it. */
static int receive(const Tgd__Reply **ret, int64_t deadline)
{
	struct tgc_rpc *c = rpc();
	int64_t look_until = look_begin();
	const uint8_t *payload;
	size_t len;
	int r;

	for (;;) {
		int fds[TGP_FDS_MAX];
		size_t n_fds = 0, i;
		ssize_t got;

		r = tgp_frame_next(c->in, c->in_n, &payload, &len);
		if (r < 0)
			return r;
		if (r > 0)
			break;
		if (c->in_n == IN_SIZE)
			return -EPROTO;
		got = tgp_recv_fds(tgc_saved.socket_fd, c->in + c->in_n, IN_SIZE - c->in_n, fds,
				   TGP_FDS_MAX, &n_fds);
		if (got == -EAGAIN) {
			if (look_again(&look_until))
				continue;
			r = wait_for(POLLIN, deadline);
			if (r < 0)
				return r;
			continue;
		}
		if (got < 0)
			return (int)got;
		if (got == 0)
			return -ECONNRESET;
		if (n_fds > 0)
			close_fds();
		for (i = 0; i < n_fds; i++)
			c->fds[c->n_fds++] = fds[i];
		c->in_n += (size_t)got;
	}
	if (look_until != 0)
		c->misses = 0;
	tgp_arena_reset(&c->arena);
	r = tgp_reply_unpack(&c->arena, payload, len, ret, c->why, sizeof(c->why));
	memmove(c->in, c->in + TGP_FRAME_HEAD + len, c->in_n - TGP_FRAME_HEAD - len);
	c->in_n -= TGP_FRAME_HEAD + len;
	return r;
}

/* Receives one reply; if it is that of a posted request, hands it over, and *ret is NULL. */
static int receive_any(const Tgd__Reply **ret, int64_t deadline)
{
	struct tgc_post **where;
	int r;

	r = receive(ret, deadline);
	if (r < 0)
		return r;
	for (where = &rpc()->posts; *where; where = &(*where)->next) {
		if ((*where)->id == (*ret)->id) {
			take_post(where, *ret);
			*ret = NULL;
			break;
		}
	}
	return 0;
}

/* What is held back goes. */
static int send_held(int64_t deadline)
{
	size_t n = rpc()->out_n;

	rpc()->holds = false;
	rpc()->out_n = 0;
	return send_all(rpc()->out, n, deadline);
}

static int send_request(Tgd__Request *request, int64_t deadline)
{
	struct tgc_rpc *c = rpc();
	ssize_t n;

	request->id = ++c->next_id;
	n = tgp_request_pack(request, c->out + c->out_n, OUT_SIZE - c->out_n);
	if (n < 0)
		return (int)n;
	c->out_n += (size_t)n;
	atomic_fetch_add_explicit(&c->messages, 1, memory_order_relaxed);
	return c->holds ? 0 : send_held(deadline);
}

/* The reply to the request of that id. */
static int await_reply(uint64_t id, Tgd__Reply__BodyCase body, const Tgd__Reply **ret,
		       int64_t deadline)
{
	struct tgc_rpc *c = rpc();
	const Tgd__Reply *reply = NULL;
	int r;

	do
		r = receive_any(&reply, deadline);
	while (r == 0 && (!reply || (reply->id != id && reply->id != 0)));
	if (r < 0)
		return r;
	if (reply->error != 0) {
		snprintf(c->why, sizeof(c->why), "%s", reply->message);
		return reply->error < 0 && reply->error > -4096 ? reply->error : -EPROTO;
	}
	if (reply->body_case != body)
		return -EPROTO;
	if (ret)
		*ret = reply;
	return 0;
}

/* One exchange on the connection that there is. */
static int exchange(Tgd__Request *request, Tgd__Reply__BodyCase body, const Tgd__Reply **ret,
		    int64_t deadline)
{
	int r = send_request(request, deadline);

	/* After EPIPE there may still be a reply to read that tells why. */
	return r < 0 && r != -EPIPE ? r : await_reply(request->id, body, ret, deadline);
}

static int connect_socket(int64_t deadline)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;
	int fd, r;

	memcpy(address.sun_path, tgc_saved.socket, strlen(tgc_saved.socket) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* A backlog that is full is EAGAIN on a Unix socket, and nothing to wait on: try again. */
	while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		r = -errno;
		if ((r != -EAGAIN && r != -EINTR) || now_ms() >= deadline) {
			close(fd);
			return r == -EAGAIN ? -ETIMEDOUT : r;
		}
		(void)poll(NULL, 0, 1);
	}
	if (fstat(fd, &st) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	/* Out of the way of programs that expect small numbers for what they open themselves. */
	r = fcntl(fd, F_DUPFD_CLOEXEC, 200);
	if (r >= 0) {
		close(fd);
		fd = r;
	}
	tgc_saved.socket_fd = fd;
	tgc_saved.socket_dev = st.st_dev;
	tgc_saved.socket_ino = st.st_ino;
	rpc()->in_n = 0;
	return 0;
}

static int say_hello(uint64_t *ret_id, int64_t deadline)
{
	Tgd__Hello hello = TGD__HELLO__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	char program[TGP_PROGRAM_MAX];
	int r;

	snprintf(program, sizeof(program), "libtg %s", tg_version());
	hello.version = TGP_VERSION;
	hello.min_version = TGP_MIN_VERSION;
	hello.program = program;
	request.body_case = TGD__REQUEST__BODY_HELLO;
	request.hello = &hello;
	r = send_request(&request, deadline);
	*ret_id = request.id;
	return r;
}

/* Why there is no conversation with what listens there, unless it has told us itself. */
static void explain(int r)
{
	struct tgc_rpc *c = rpc();

	if (r == -ETIMEDOUT)
		snprintf(c->why, sizeof(c->why), "no answer from %.107s within %d ms",
			 tgc_saved.socket, tgc_saved.timeout_ms);
	else if (r == -EPROTO && c->why[0] == '\0')
		snprintf(c->why, sizeof(c->why), "what answers at %.107s is no tgd",
			 tgc_saved.socket);
	else if (c->why[0] == '\0')
		complain("lost the connection to", -r);
}

/* Connects and attaches, as client `id` (0: as a new one).  Both requests are sent before an answer is awaited. */
static int connect_as(uint32_t id, const Tgd__Reply **ret, int64_t deadline)
{
	Tgd__Attach attach = TGD__ATTACH__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	uint64_t hello;
	int r;

	rpc()->why[0] = '\0';
	r = connect_socket(deadline);
	if (r < 0) {
		complain("cannot connect to", -r);
		return r;
	}
	attach.heap = tgc_saved.heap;
	attach.name = tgc_saved.name;
	attach.flags = tgc_saved.flags & TG_RECLAIM;
	attach.client_id = id;
	request.body_case = TGD__REQUEST__BODY_ATTACH;
	request.attach = &attach;
	rpc()->holds = true;
	r = say_hello(&hello, deadline);
	rpc()->holds = false;
	if (r == 0)
		r = send_request(&request, deadline);
	/* Whoever refuses us may have closed already, and told why. */
	if (r == 0 || r == -EPIPE)
		r = await_reply(hello, TGD__REPLY__BODY_HELLO, NULL, deadline);
	if (r == 0)
		r = await_reply(request.id, TGD__REPLY__BODY_ATTACH, ret, deadline);
	if (r < 0) {
		explain(r);
		disconnect();
	}
	return r;
}

static bool no_daemon(int r)
{
	return r == -ENOENT || r == -ECONNREFUSED;
}

static bool connection_lost(int r)
{
	return r == -EPIPE || r == -ECONNRESET || r == -ENOTCONN || r == -EBADF || r == -ENOTSOCK;
}

int tgc_rpc_open(const Tgd__AttachReply **ret, int *ret_map_fd, int *ret_heap_fd)
{
	int64_t deadline = now_ms() + tgc_saved.timeout_ms;
	bool started = false;
	const Tgd__Reply *reply;
	int r;

	if (!tgc_process->rpc) {
		tgc_process->rpc = tgc_wiped_alloc(sizeof(struct tgc_rpc));
		if (!tgc_process->rpc)
			return -ENOMEM;
	}
	tgp_arena_init(&rpc()->arena, rpc()->unpack, UNPACK_SIZE);
	atomic_store_explicit(&rpc()->messages, 0, memory_order_relaxed);
	atomic_store_explicit(&rpc()->reconnects, 0, memory_order_relaxed);
	disconnect(); /* in a forked child: lets go of the parent's connection */
	for (;;) {
		r = connect_as(0, &reply, deadline);
		/* The daemon is being replaced.  The last try has some time to go, or it would only time out. */
		if (connection_lost(r) && now_ms() + GAVE_UP_MS < deadline) {
			(void)poll(NULL, 0, RETRY_MS);
			continue;
		}
		/* A forked child has its parent's heap: another daemon would be of no use to it. */
		if (!no_daemon(r) || !(tgc_saved.flags & TG_AUTOSTART) || tgc_heap.base ||
		    now_ms() >= deadline)
			break;
		if (!started) {
			r = tgc_autostart(rpc()->why, sizeof(rpc()->why));
			if (r < 0)
				return r;
			started = true;
		}
		(void)poll(NULL, 0, RETRY_MS);
	}
	if (r < 0)
		return r;
	if (rpc()->n_fds != 2 || reply->attach->heap_uuid.len != sizeof(tgc_saved.uuid)) {
		close_fds();
		disconnect();
		snprintf(rpc()->why, sizeof(rpc()->why),
			 "the daemon's answer came without the heap's two descriptors");
		return -EPROTO;
	}
	*ret = reply->attach;
	*ret_map_fd = rpc()->fds[0];
	*ret_heap_fd = rpc()->fds[1];
	rpc()->n_fds = 0;
	return 0;
}

void tgc_rpc_close(void)
{
	if (!tgc_process->rpc)
		return;
	close_fds();
	disconnect();
}

/* Makes the connection again until the deadline.  The heap must be the one that we have mapped. */
static int reconnect(int64_t deadline)
{
	const Tgd__Reply *reply;
	int r;

	for (;;) {
		disconnect();
		r = connect_as(tgc_process->client_id, &reply, deadline);
		if (r == 0 && (reply->attach->heap_uuid.len != sizeof(tgc_saved.uuid) ||
			       memcmp(reply->attach->heap_uuid.data, tgc_saved.uuid,
				      sizeof(tgc_saved.uuid)) != 0)) {
			close_fds();
			disconnect();
			snprintf(rpc()->why, sizeof(rpc()->why),
				 "the daemon at %.107s serves another heap now", tgc_saved.socket);
			return -ENOTCONN;
		}
		close_fds();
		if (r == 0) {
			tgc_process->client_id = reply->attach->client_id;
			atomic_fetch_add_explicit(&rpc()->reconnects, 1, memory_order_relaxed);
			return 0;
		}
		if ((!no_daemon(r) && !connection_lost(r)) || rpc()->gave_up ||
		    now_ms() >= deadline)
			return -ENOTCONN;
		(void)poll(NULL, 0, RETRY_MS);
	}
}

/* malloc and free are no cancellation points, and what we call is; and a free leaves errno alone. */
void tgc_rpc_begin(void)
{
	int saved_errno = errno, cancel_state;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	pthread_mutex_lock(&rpc()->lock);
	rpc()->cancel_state = cancel_state;
	rpc()->saved_errno = saved_errno;
	rpc()->used_libc = tgc_use_libc;
	tgc_use_libc = true;
}

void tgc_rpc_end(void)
{
	int saved_errno = rpc()->saved_errno, cancel_state = rpc()->cancel_state;

	tgc_use_libc = rpc()->used_libc;
	pthread_mutex_unlock(&rpc()->lock);
	pthread_setcancelstate(cancel_state, NULL);
	errno = saved_errno;
}

int tgc_rpc_call(Tgd__Request *request, Tgd__Reply__BodyCase body, const Tgd__Reply **ret)
{
	int64_t deadline = now_ms() + tgc_saved.timeout_ms;
	int r;

	for (;;) {
		bool asked = still_ours();

		r = asked ? exchange(request, body, ret, deadline) : -ENOTCONN;
		if (!connection_lost(r))
			break;
		/* It may have been done, and the answer lost: a root that is as it should be is no error then. */
		if (asked && request->body_case == TGD__REQUEST__BODY_ROOT_SET)
			request->root_set->again = true;
		/* Once a whole timeout has passed in vain, further calls try and hardly wait. */
		if (rpc()->gave_up)
			deadline = tgs_min((uint64_t)deadline, (uint64_t)now_ms() + GAVE_UP_MS);
		r = reconnect(deadline);
		rpc()->gave_up = r < 0;
		if (r < 0)
			return r;
		if (now_ms() >= deadline)
			return -ENOTCONN; /* a daemon that lets us in and out again */
	}
	if (r == -ETIMEDOUT || r == -EPROTO) {
		/* What may still come on this connection answers a question that nobody asks any more. */
		disconnect();
		rpc()->gave_up = r == -ETIMEDOUT;
		return r == -ETIMEDOUT ? -ENOTCONN : r;
	}
	return r;
}

int tgc_rpc_post(Tgd__Request *request, struct tgc_post *post)
{
	int r;

	if (!still_ours())
		return -ENOTCONN;
	r = send_request(request, now_ms() + tgc_saved.timeout_ms);
	if (r < 0) {
		disconnect();
		return -ENOTCONN;
	}
	post->id = request->id;
	post->next = rpc()->posts;
	rpc()->posts = post;
	return 0;
}

void tgc_rpc_hold(void)
{
	rpc()->holds = still_ours();
}

void tgc_rpc_release(void)
{
	if (send_held(now_ms() + tgc_saved.timeout_ms) < 0)
		disconnect();
}

void tgc_rpc_collect(struct tgc_post *post)
{
	int64_t deadline = now_ms() + tgc_saved.timeout_ms;
	const Tgd__Reply *reply;

	while (post->id != 0) {
		if (!still_ours() || receive_any(&reply, deadline) < 0)
			disconnect();
	}
}

const char *tgc_rpc_why(void)
{
	return tgc_process && tgc_process->rpc ? rpc()->why : "";
}

int tgc_rpc_put_spans(uint32_t slot, uint64_t *pages, size_t n)
{
	Tgd__PutSpans put = TGD__PUT_SPANS__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	int r;

	put.slot = slot;
	put.n_pages = n;
	put.pages = pages;
	request.body_case = TGD__REQUEST__BODY_PUT_SPANS;
	request.put_spans = &put;
	tgc_rpc_begin();
	r = tgc_rpc_call(&request, TGD__REPLY__BODY__NOT_SET, NULL);
	tgc_rpc_end();
	return r;
}

uint64_t tgc_rpc_messages(void)
{
	return atomic_load_explicit(&rpc()->messages, memory_order_relaxed);
}

uint64_t tgc_rpc_reconnects(void)
{
	return atomic_load_explicit(&rpc()->reconnects, memory_order_relaxed);
}
