/* scale-clients.c - up to 10,000 clients of one daemon: its memory for each, and whether one waits longer for it.
 *
 * A client is a process, as the kernel tells of the one that connects.  So each is one, but of the cheapest kind: it
 * shares memory and descriptors with us, connects, and sleeps; what is to be said on its connection we say.  How many
 * there can be is bounded by the files that the daemon may have open: two a client.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/scale.h"
#include "shm/sizeclass.h"
#include "tests/support/peer.h"

#define STACK_SIZE  16384
#define CLIENTS_MAX 10000
#define CALLS       2000
#define WAIT_MS     30000

struct client {
	pid_t pid;
	_Atomic int fd; /* 0: not yet; negative: an error */
	char *stack;
};

static struct client clients[CLIENTS_MAX];
static unsigned n_clients;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static struct tgt_peer peer, ours;

/* ---- clients ---- */

static int client_main(void *arg)
{
	struct client *client = arg;
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		fd = -errno;
	atomic_store(&client->fd, fd < 0 ? -1 : fd);
	while (pause() < 0)
		;
	return 0;
}

static bool start_process(struct client *client)
{
	double deadline = bench_now_ms() + WAIT_MS;

	client->fd = 0;
	client->stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (client->stack == MAP_FAILED)
		return false;
	/* Errno and all else that belongs to a thread is shared, too: we wait while it works. */
	client->pid = clone(client_main, client->stack + STACK_SIZE,
			    CLONE_VM | CLONE_FILES | SIGCHLD, client);
	if (client->pid < 0) {
		munmap(client->stack, STACK_SIZE);
		return false;
	}
	n_clients++;
	while (atomic_load(&client->fd) == 0 && bench_now_ms() < deadline)
		sched_yield();
	return client->fd > 0;
}

/* The descriptors of the heap are closed again: a client would map and close them. */
static int attach(int fd)
{
	const Tgd__Reply *reply;
	int r;

	peer.fd = fd;
	peer.last_id = 0;
	peer.n_in = peer.n_used = peer.n_fds = 0;
	tgp_arena_init(&peer.arena, peer.memory, sizeof(peer.memory));
	r = tgt_peer_hello(&peer);
	if (r == 0)
		r = tgt_peer_attach(&peer, "crowd", 0, 0, &reply);
	if (r == 0 && reply->error != 0) {
		fprintf(stderr, "tg-scale: no more clients: %s\n", reply->message);
		r = -1;
	}
	peer.fd = -1;
	tgt_peer_close(&peer);
	return r;
}

/* Up to so many.  False: there can be no more. */
static bool grow(unsigned n)
{
	while (n_clients < n) {
		struct client *client = &clients[n_clients];

		if (!start_process(client) || attach(client->fd) != 0)
			return false;
	}
	return true;
}

static void end_clients(void)
{
	unsigned i;

	for (i = 0; i < n_clients; i++)
		kill(clients[i].pid, SIGKILL);
	for (i = 0; i < n_clients; i++) {
		waitpid(clients[i].pid, NULL, 0);
		munmap(clients[i].stack, STACK_SIZE);
		if (clients[i].fd > 0)
			close(clients[i].fd);
	}
	n_clients = 0;
}

/* ---- what one of them sees ---- */

static const Tgd__Reply *must_ask(Tgd__Request *request)
{
	const Tgd__Reply *reply = NULL;

	if (tgt_peer_ask(&ours, request, &reply) < 0 || reply->error != 0)
		bench_die("the daemon does not do what it is asked for");
	return reply;
}

static void connect_ourselves(uint32_t *ret_slot)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__OpenSlot open = TGD__OPEN_SLOT__INIT;
	const Tgd__Reply *reply;

	if (tgt_peer_connect(&ours, address.sun_path) < 0 || tgt_peer_hello(&ours) != 0 ||
	    tgt_peer_attach(&ours, "prober", 0, 0, &reply) != 0 || reply->error != 0)
		bench_die("the daemon does not take a client");
	request.body_case = TGD__REQUEST__BODY_OPEN_SLOT;
	ours.look_us = SCALE_LOOK_US;
	request.open_slot = &open;
	*ret_slot = must_ask(&request)->slot->slot;
}

static double ask_status(void)
{
	const Tgd__Reply *reply;
	double begin = bench_now_ms();

	if (tgt_peer_admin(&ours, TGD__ADMIN__WHAT__STATUS, 0, &reply) != 0 || reply->error != 0)
		bench_die("the daemon does not tell its status");
	return (bench_now_ms() - begin) * 1e3;
}

/* Gives it back, which is not timed. */
static double ask_span(uint32_t slot)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__GetSpans get = TGD__GET_SPANS__INIT;
	Tgd__PutSpans put = TGD__PUT_SPANS__INIT;
	double begin = bench_now_ms(), us;
	const Tgd__Reply *reply;
	uint64_t page;

	get.slot = put.slot = slot;
	get.class_ = tgs_size_to_class(64);
	get.count = 1;
	request.body_case = TGD__REQUEST__BODY_GET_SPANS;
	request.get_spans = &get;
	reply = must_ask(&request);
	us = (bench_now_ms() - begin) * 1e3;
	page = reply->spans->spans[0]->page;
	put.n_pages = 1;
	put.pages = &page;
	request.body_case = TGD__REQUEST__BODY_PUT_SPANS;
	request.put_spans = &put;
	must_ask(&request);
	return us;
}

struct latency {
	double p50, p99;
};

static struct latency latency_of(double *us, unsigned n)
{
	struct latency latency = {.p50 = scale_median(us, n)};

	latency.p99 = us[n * 99 / 100];
	return latency;
}

static void measure(struct scale *scale, uint32_t slot, struct latency *ret_status,
		    struct latency *ret_span)
{
	static double us[CALLS];
	double p[4][SCALE_ROUNDS_MAX];
	unsigned n = scale->quick ? CALLS / 10 : CALLS, round, i;

	for (round = 0; round < scale->rounds; round++) {
		struct latency l;

		for (i = 0; i < n; i++)
			us[i] = ask_status();
		l = latency_of(us, n);
		p[0][round] = l.p50;
		p[1][round] = l.p99;
		for (i = 0; i < n; i++)
			us[i] = ask_span(slot);
		l = latency_of(us, n);
		p[2][round] = l.p50;
		p[3][round] = l.p99;
	}
	*ret_status = (struct latency){scale_median(p[0], scale->rounds),
				       scale_median(p[1], scale->rounds)};
	*ret_span = (struct latency){scale_median(p[2], scale->rounds),
				     scale_median(p[3], scale->rounds)};
}

/* ---- the table ---- */

static void one_crowd(struct scale *scale, json_t *rows, pid_t worker, uint64_t memory_before,
		      uint32_t slot, double attach_ms, unsigned n_new)
{
	uint64_t memory = scale_memory_of(worker, "RssAnon") - memory_before;
	struct latency status, span;
	unsigned n = n_clients + 1;
	double each = (double)memory / n, attach_us = n_new > 0 ? attach_ms * 1e3 / n_new : 0;

	measure(scale, slot, &status, &span);
	scale_say(scale, "%10u %12.1f %12.0f %10.0f %10.1f %10.1f %10.1f %10.1f\n", n,
		  (double)memory / 1024, each, attach_us, status.p50, status.p99, span.p50,
		  span.p99);
	scale_add(rows,
		  json_pack("{s:i, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "clients", (int)n,
			    "daemon_bytes", (json_int_t)memory, "bytes_per_client", each,
			    "attach_us", attach_us, "status_p50_us", status.p50, "status_p99_us",
			    status.p99, "span_p50_us", span.p50, "span_p99_us", span.p99));
}

/* Until only we are left. */
static double settle_ms(void)
{
	double begin = bench_now_ms();
	const Tgd__Reply *reply;

	end_clients();
	do {
		if (bench_now_ms() > begin + 2.0 * WAIT_MS)
			bench_die("the daemon does not settle its clients");
		if (tgt_peer_admin(&ours, TGD__ADMIN__WHAT__STATUS, 0, &reply) != 0)
			bench_die("the daemon does not tell its status");
	} while (reply->status->clients > 1);
	return bench_now_ms() - begin;
}

static void say_bound(const struct scale *scale, unsigned wanted)
{
	struct rlimit files = {0};

	getrlimit(RLIMIT_NOFILE, &files);
	if (n_clients + 1 < wanted)
		scale_say(scale, "no more than %u: a process may have %llu files open here\n",
			  n_clients + 1, (unsigned long long)files.rlim_max);
}

void scale_clients(struct scale *scale)
{
	static const unsigned crowds[] = {1, 10, 100, 1000, CLIENTS_MAX};
	json_t *rows = scale_table(scale, "clients");
	unsigned i, n = sizeof(crowds) / sizeof(crowds[0]) - (scale->quick ? 1 : 0), dead;
	struct bench b;
	uint64_t before;
	uint32_t slot;
	pid_t worker;
	double ms;

	bench_start(&b, 64);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", b.daemon.socket);
	worker = tgt_daemon_worker(&b.daemon, NULL);
	before = scale_memory_of(worker, "RssAnon");
	connect_ourselves(&slot);
	scale_say(scale,
		  "\nClients that are connected, and how long one of them waits for the daemon\n"
		  "%10s %12s %12s %10s %10s %10s %10s %10s\n",
		  "clients", "daemon KiB", "B/client", "attach us", "status p50", "p99", "span p50",
		  "p99");
	for (i = 0; i < n; i++) {
		unsigned had = n_clients;
		double begin = bench_now_ms();
		bool all = grow(crowds[i] - 1);

		ms = bench_now_ms() - begin;
		one_crowd(scale, rows, worker, before, slot, ms, n_clients - had);
		if (!all)
			break;
	}
	say_bound(scale, crowds[n - 1]);
	dead = n_clients;
	ms = settle_ms();
	scale_say(scale, "all but one killed at once: %u were settled in %.0f ms\n", dead, ms);
	json_object_set_new(scale->result, "clients_settled",
			    json_pack("{s:i, s:f}", "clients", (int)dead, "ms", ms));
	tgt_peer_close(&ours);
	bench_stop(&b);
}
