/* peer.c - speaks the protocol with a daemon, well or, if the test wants that, badly. */
#include "tests/support/peer.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/daemon.h"

int tgt_peer_connect(struct tgt_peer *peer, const char *socket_path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int r;

	peer->last_id = 0;
	peer->n_fds = peer->n_in = peer->n_used = 0;
	peer->look_us = 0;
	tgp_arena_init(&peer->arena, peer->memory, sizeof(peer->memory));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
	peer->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (peer->fd < 0)
		return -errno;
	if (connect(peer->fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		r = -errno;
		tgt_peer_close(peer);
		return r;
	}
	return 0;
}

static void close_fds(struct tgt_peer *peer)
{
	while (peer->n_fds > 0)
		close(peer->fds[--peer->n_fds]);
}

void tgt_peer_close(struct tgt_peer *peer)
{
	close_fds(peer);
	if (peer->fd >= 0)
		close(peer->fd);
	peer->fd = -1;
}

static long long now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static int wait_for(struct tgt_peer *peer, short events)
{
	struct pollfd p = {.fd = peer->fd, .events = events};
	long long until = peer->look_us != 0 ? now_us() + peer->look_us : 0;
	int r;

	do
		r = poll(&p, 1, 0);
	while (r == 0 && until != 0 && now_us() < until);
	if (r == 0)
		r = poll(&p, 1, TGT_TIMEOUT_MS);
	return r > 0 ? 0 : r == 0 ? -ETIMEDOUT : -errno;
}

int tgt_peer_send(struct tgt_peer *peer, const void *bytes, size_t n, size_t *ret_sent)
{
	size_t at = 0;
	int r = 0;

	while (at < n && r == 0) {
		ssize_t sent = send(peer->fd, (const char *)bytes + at, n - at,
				    MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent >= 0)
			at += (size_t)sent;
		else if (errno != EAGAIN || ret_sent != NULL)
			r = -errno;
		else
			r = wait_for(peer, POLLOUT);
	}
	if (ret_sent != NULL)
		*ret_sent = at;
	return r;
}

/* Receives some bytes more. */
static int receive(struct tgt_peer *peer)
{
	size_t n_fds = 0;
	ssize_t n;
	int fds[TGP_FDS_MAX], r;

	r = wait_for(peer, POLLIN);
	if (r < 0)
		return r;
	n = tgp_recv_fds(peer->fd, peer->in + peer->n_in, sizeof(peer->in) - peer->n_in, fds,
			 TGP_FDS_MAX, &n_fds);
	if (n == 0 || n == -ECONNRESET)
		return -ENODATA;
	if (n < 0)
		return (int)n;
	if (n_fds > 0) {
		close_fds(peer);
		memcpy(peer->fds, fds, sizeof(fds));
		peer->n_fds = n_fds;
	}
	peer->n_in += (size_t)n;
	return 0;
}

int tgt_peer_next(struct tgt_peer *peer, const Tgd__Reply **ret)
{
	const uint8_t *payload;
	char why[256];
	size_t len;
	int r;

	memmove(peer->in, peer->in + peer->n_used, peer->n_in - peer->n_used);
	peer->n_in -= peer->n_used;
	peer->n_used = 0;
	while ((r = tgp_frame_next(peer->in, peer->n_in, &payload, &len)) == 0) {
		r = receive(peer);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	peer->n_used = TGP_FRAME_HEAD + len;
	tgp_arena_reset(&peer->arena);
	r = tgp_reply_unpack(&peer->arena, payload, len, ret, why, sizeof(why));
	if (r < 0)
		fprintf(stderr, "the daemon's answer: %s\n", why);
	return r;
}

bool tgt_peer_at_end(struct tgt_peer *peer)
{
	return peer->n_in == peer->n_used && receive(peer) == -ENODATA;
}

int tgt_peer_ask(struct tgt_peer *peer, Tgd__Request *request, const Tgd__Reply **ret)
{
	static uint8_t frame[TGP_FRAME_HEAD + TGP_FRAME_MAX];
	ssize_t n;
	int r;

	request->id = ++peer->last_id;
	n = tgp_request_pack(request, frame, sizeof(frame));
	if (n < 0)
		return (int)n;
	r = tgt_peer_send(peer, frame, (size_t)n, NULL);
	if (r == 0)
		r = tgt_peer_next(peer, ret);
	if (r == 0 && (*ret)->id != request->id)
		return -EPROTO;
	return r;
}

/* 0 only if the request was done. */
static int ask_and_expect(struct tgt_peer *peer, Tgd__Request *request)
{
	const Tgd__Reply *reply;
	int r = tgt_peer_ask(peer, request, &reply);

	if (r == 0 && reply->error != 0)
		fprintf(stderr, "the daemon refuses: %s\n", reply->message);
	return r < 0 ? r : reply->error;
}

int tgt_peer_hello(struct tgt_peer *peer)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Hello hello = TGD__HELLO__INIT;

	hello.version = TGP_VERSION;
	hello.min_version = TGP_MIN_VERSION;
	hello.program = "test";
	request.body_case = TGD__REQUEST__BODY_HELLO;
	request.hello = &hello;
	return ask_and_expect(peer, &request);
}

int tgt_peer_attach(struct tgt_peer *peer, const char *name, uint32_t flags, uint32_t client_id,
		    const Tgd__Reply **ret)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Attach attach = TGD__ATTACH__INIT;

	attach.name = (char *)name;
	attach.flags = flags;
	attach.client_id = client_id;
	request.body_case = TGD__REQUEST__BODY_ATTACH;
	request.attach = &attach;
	return tgt_peer_ask(peer, &request, ret);
}

int tgt_peer_detach(struct tgt_peer *peer)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Detach detach = TGD__DETACH__INIT;

	request.body_case = TGD__REQUEST__BODY_DETACH;
	request.detach = &detach;
	return ask_and_expect(peer, &request);
}

int tgt_peer_admin(struct tgt_peer *peer, Tgd__Admin__What what, uint64_t value,
		   const Tgd__Reply **ret)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Admin admin = TGD__ADMIN__INIT;

	admin.what = what;
	admin.value = value;
	request.body_case = TGD__REQUEST__BODY_ADMIN;
	request.admin = &admin;
	return tgt_peer_ask(peer, &request, ret);
}

static int use_heap(struct tgt_peer *peer)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__OpenSlot open = TGD__OPEN_SLOT__INIT;
	const Tgd__Reply *reply;
	int r;

	r = tgt_peer_hello(peer);
	if (r == 0)
		r = tgt_peer_attach(peer, "good", 0, 0, &reply);
	if (r < 0)
		return r;
	if (reply->error != 0)
		return reply->error;
	if (reply->body_case != TGD__REPLY__BODY_ATTACH || peer->n_fds != TGP_FDS_MAX)
		return -EPROTO;
	request.body_case = TGD__REQUEST__BODY_OPEN_SLOT;
	request.open_slot = &open;
	r = ask_and_expect(peer, &request);
	return r < 0 ? r : tgt_peer_detach(peer);
}

int tgt_peer_good_client(const char *socket_path)
{
	struct tgt_peer *peer = malloc(sizeof(*peer));
	int r;

	if (peer == NULL)
		return -ENOMEM;
	r = tgt_peer_connect(peer, socket_path);
	if (r == 0)
		r = use_heap(peer);
	tgt_peer_close(peer);
	free(peer);
	return r;
}
