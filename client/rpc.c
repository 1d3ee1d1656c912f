/* rpc.c - the connection to the daemon: connect, ask, and connect again when it is gone.
 *
 * One thread at a time asks, under the lock; posted requests may be outstanding meanwhile.  client/wire.c has the bytes.
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
#include <unistd.h>

#include "client/autostart.h"
#include "client/prefetch.h"
#include "client/process.h"
#include "client/wire.h"

#define RETRY_MS   20
#define GAVE_UP_MS 100

#define UNHEARD_MAX 16u /* answers that nobody waits for: they must fit into the socket */

static void complain(const char *what, int error)
{
	snprintf(tgc_wire()->why, sizeof(tgc_wire()->why), "%s %.107s: %s", what, tgc_saved.socket,
		 strerror(error));
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
		if ((r != -EAGAIN && r != -EINTR) || tgc_wire_now_ms() >= deadline) {
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
	tgc_wire()->in_n = 0;
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
	r = tgc_wire_send(&request, deadline);
	*ret_id = request.id;
	return r;
}

/* Why there is no conversation with what listens there, unless it has told us itself. */
static void explain(int r)
{
	struct tgc_rpc *c = tgc_wire();

	if (r == -ETIMEDOUT)
		snprintf(c->why, sizeof(c->why), "no answer from %.107s within %d ms",
			 tgc_saved.socket, tgc_saved.timeout_ms);
	else if (r == -EPROTO && c->why[0] == '\0')
		snprintf(c->why, sizeof(c->why), "what answers at %.107s is no tgd",
			 tgc_saved.socket);
	else if (c->why[0] == '\0')
		complain("lost the connection to", -r);
}

/* Connects and attaches, as client `id` (0: as a new one).  All requests are sent before an answer is awaited: a new client that
 * is about to allocate asks for what it needs for that, too. */
static int connect_as(uint32_t id, const Tgd__Reply **ret, int64_t deadline)
{
	Tgd__Attach attach = TGD__ATTACH__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	uint64_t hello;
	int r;

	tgc_wire()->why[0] = '\0';
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
	tgc_wire()->holds = true;
	r = say_hello(&hello, deadline);
	if (r == 0)
		r = tgc_wire_send(&request, deadline);
	if (r == 0 && id == 0 && tgc_saved.is_malloc)
		r = tgc_first_post();
	if (r == 0)
		r = tgc_wire_release(deadline);
	tgc_wire()->holds = false;
	/* Whoever refuses us may have closed already, and told why. */
	if (r == 0 || r == -EPIPE)
		r = tgc_wire_await(hello, TGD__REPLY__BODY_HELLO, NULL, deadline);
	if (r == 0)
		r = tgc_wire_await(request.id, TGD__REPLY__BODY_ATTACH, ret, deadline);
	if (r < 0) {
		explain(r);
		tgc_wire_disconnect();
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
	int64_t deadline = tgc_wire_now_ms() + tgc_saved.timeout_ms;
	bool started = false;
	const Tgd__Reply *reply;
	int r;

	if (!tgc_process->rpc) {
		tgc_process->rpc = tgc_wiped_alloc(sizeof(struct tgc_rpc));
		if (!tgc_process->rpc)
			return -ENOMEM;
	}
	tgp_arena_init(&tgc_wire()->arena, tgc_wire()->unpack, TGC_UNPACK_SIZE);
	tgc_wire()->first = (struct tgc_first){0};
	atomic_store_explicit(&tgc_wire()->messages, 0, memory_order_relaxed);
	atomic_store_explicit(&tgc_wire()->reconnects, 0, memory_order_relaxed);
	tgc_wire_disconnect(); /* in a forked child: lets go of the parent's connection */
	for (;;) {
		r = connect_as(0, &reply, deadline);
		/* The daemon is being replaced.  The last try has some time to go, or it would only time out. */
		if (connection_lost(r) && tgc_wire_now_ms() + GAVE_UP_MS < deadline) {
			(void)poll(NULL, 0, RETRY_MS);
			continue;
		}
		/* A forked child has its parent's heap: another daemon would be of no use to it. */
		if (!no_daemon(r) || !(tgc_saved.flags & TG_AUTOSTART) || tgc_heap.base ||
		    tgc_wire_now_ms() >= deadline)
			break;
		if (!started) {
			r = tgc_autostart(tgc_wire()->why, sizeof(tgc_wire()->why));
			if (r < 0)
				return r;
			started = true;
		}
		(void)poll(NULL, 0, RETRY_MS);
	}
	if (r < 0)
		return r;
	if (tgc_wire()->n_fds != 2 || reply->attach->heap_uuid.len != sizeof(tgc_saved.uuid)) {
		tgc_wire_close_fds();
		tgc_wire_disconnect();
		snprintf(tgc_wire()->why, sizeof(tgc_wire()->why),
			 "the daemon's answer came without the heap's two descriptors");
		return -EPROTO;
	}
	*ret = reply->attach;
	*ret_map_fd = tgc_wire()->fds[0];
	*ret_heap_fd = tgc_wire()->fds[1];
	tgc_wire()->n_fds = 0;
	return 0;
}

void tgc_rpc_close(void)
{
	if (!tgc_process->rpc)
		return;
	tgc_wire_close_fds();
	tgc_wire_disconnect();
}

/* Makes the connection again until the deadline.  The heap must be the one that we have mapped. */
static int reconnect(int64_t deadline)
{
	const Tgd__Reply *reply;
	int r;

	for (;;) {
		tgc_wire_disconnect();
		r = connect_as(tgc_process->client_id, &reply, deadline);
		if (r == 0 && (reply->attach->heap_uuid.len != sizeof(tgc_saved.uuid) ||
			       memcmp(reply->attach->heap_uuid.data, tgc_saved.uuid,
				      sizeof(tgc_saved.uuid)) != 0)) {
			tgc_wire_close_fds();
			tgc_wire_disconnect();
			snprintf(tgc_wire()->why, sizeof(tgc_wire()->why),
				 "the daemon at %.107s serves another heap now", tgc_saved.socket);
			return -ENOTCONN;
		}
		tgc_wire_close_fds();
		if (r == 0) {
			tgc_process->client_id = reply->attach->client_id;
			atomic_fetch_add_explicit(&tgc_wire()->reconnects, 1, memory_order_relaxed);
			return 0;
		}
		if ((!no_daemon(r) && !connection_lost(r)) || tgc_wire()->gave_up ||
		    tgc_wire_now_ms() >= deadline)
			return -ENOTCONN;
		(void)poll(NULL, 0, RETRY_MS);
	}
}

/* malloc and free are no cancellation points, and what we call is; and a free leaves errno alone. */
void tgc_rpc_begin(void)
{
	int saved_errno = errno, cancel_state;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	pthread_mutex_lock(&tgc_wire()->lock);
	tgc_wire()->cancel_state = cancel_state;
	tgc_wire()->saved_errno = saved_errno;
	tgc_wire()->used_libc = tgc_use_libc;
	tgc_use_libc = true;
}

void tgc_rpc_end(void)
{
	int saved_errno = tgc_wire()->saved_errno, cancel_state = tgc_wire()->cancel_state;

	tgc_use_libc = tgc_wire()->used_libc;
	pthread_mutex_unlock(&tgc_wire()->lock);
	pthread_setcancelstate(cancel_state, NULL);
	errno = saved_errno;
}

int tgc_rpc_call(Tgd__Request *request, Tgd__Reply__BodyCase body, const Tgd__Reply **ret)
{
	int64_t deadline = tgc_wire_now_ms() + tgc_saved.timeout_ms;
	int r;

	for (;;) {
		bool asked = tgc_wire_is_ours();

		r = asked ? tgc_wire_exchange(request, body, ret, deadline) : -ENOTCONN;
		if (!connection_lost(r))
			break;
		/* It may have been done, and the answer lost: a root that is as it should be is no error then. */
		if (asked && request->body_case == TGD__REQUEST__BODY_ROOT_SET)
			request->root_set->again = true;
		/* Once a whole timeout has passed in vain, further calls try and hardly wait. */
		if (tgc_wire()->gave_up)
			deadline = tgs_min((uint64_t)deadline,
					   (uint64_t)tgc_wire_now_ms() + GAVE_UP_MS);
		r = reconnect(deadline);
		tgc_wire()->gave_up = r < 0;
		if (r < 0)
			return r;
		if (tgc_wire_now_ms() >= deadline)
			return -ENOTCONN; /* a daemon that lets us in and out again */
	}
	if (r == -ETIMEDOUT || r == -EPROTO) {
		/* What may still come on this connection answers a question that nobody asks any more. */
		tgc_wire_disconnect();
		tgc_wire()->gave_up = r == -ETIMEDOUT;
		return r == -ETIMEDOUT ? -ENOTCONN : r;
	}
	tgc_wire()->n_unheard = 0;
	return r;
}

int tgc_rpc_post(Tgd__Request *request, struct tgc_post *post)
{
	int r;

	/* What is held back was looked at when that began. */
	if (!tgc_wire()->holds && !tgc_wire_is_ours())
		return -ENOTCONN;
	r = tgc_wire_send(request, tgc_wire_now_ms() + tgc_saved.timeout_ms);
	if (r < 0) {
		tgc_wire_disconnect();
		return -ENOTCONN;
	}
	post->id = request->id;
	post->next = tgc_wire()->posts;
	tgc_wire()->posts = post;
	return 0;
}

void tgc_rpc_collect(struct tgc_post *post)
{
	int64_t deadline = tgc_wire_now_ms() + tgc_saved.timeout_ms;
	const Tgd__Reply *reply;

	if (post->id != 0 && !tgc_wire_is_ours())
		tgc_wire_disconnect();
	while (post->id != 0) {
		if (tgc_wire_receive(&reply, deadline) < 0)
			tgc_wire_disconnect();
	}
}

const char *tgc_rpc_why(void)
{
	return tgc_process && tgc_process->rpc ? tgc_wire()->why : "";
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
	if (tgc_wire()->n_unheard == UNHEARD_MAX || !tgc_wire_is_ours()) {
		r = tgc_rpc_call(&request, TGD__REPLY__BODY__NOT_SET, NULL);
	} else {
		tgc_wire()->n_unheard++;
		r = tgc_wire_send(&request, tgc_wire_now_ms() + tgc_saved.timeout_ms);
		if (r < 0) {
			tgc_wire_disconnect();
			r = -ENOTCONN;
		}
	}
	tgc_rpc_end();
	return r;
}

/* Answers come in the order of the requests: after those comes that to a question. */
void tgc_rpc_settle(uint32_t slot, uint64_t known)
{
	Tgd__Holdings body = TGD__HOLDINGS__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	const Tgd__Reply *reply;

	body.slot = slot;
	body.known = known;
	request.body_case = TGD__REQUEST__BODY_HOLDINGS;
	request.holdings = &body;
	tgc_rpc_begin();
	if (tgc_wire()->n_unheard != 0)
		(void)tgc_rpc_call(&request, TGD__REPLY__BODY_HOLDINGS, &reply);
	tgc_rpc_end();
}

uint64_t tgc_rpc_messages(void)
{
	return atomic_load_explicit(&tgc_wire()->messages, memory_order_relaxed);
}

uint64_t tgc_rpc_reconnects(void)
{
	return atomic_load_explicit(&tgc_wire()->reconnects, memory_order_relaxed);
}
