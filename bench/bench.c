/* bench.c - daemons, clients that are killed, survivors, and the clock.
 */
#include "bench/bench.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/process.h"
#include "client/tg.h"
#include "shm/sizeclass.h"
#include "tests/support/peer.h"

#define WATCH_NS   20000
#define BEFORE_MS  300
#define PACE_MS    0.003 /* between two calls of a survivor that allocates */
#define SPAN_BYTES 8192  /* a class with one object a span */

void bench_die(const char *what)
{
	fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
	exit(EXIT_FAILURE);
}

double bench_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* ---- the daemon ---- */

void bench_start(struct bench *b, uint64_t reserve_gib)
{
	const char *args[] = {"--reserve", NULL, "--limit", NULL, NULL};
	char reserve[32], limit[32];

	snprintf(reserve, sizeof(reserve), "%lluG", (unsigned long long)reserve_gib);
	snprintf(limit, sizeof(limit), "%lluG",
		 (unsigned long long)(reserve_gib < 16 ? reserve_gib : 16));
	args[1] = reserve;
	args[3] = limit;
	/* Whom a dead keeper leaves behind becomes our child. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (tgt_daemon_start(&b->daemon, args) < 0)
		bench_die("tgd cannot be started");
	setenv("TG_SOCKET", b->daemon.socket, 1);
	b->attached = false;
}

void bench_stop(struct bench *b)
{
	if (b->attached && tg_detach() < 0)
		bench_die("tg_detach failed");
	if (tgt_daemon_stop(&b->daemon) != 0)
		bench_die("tgd did not end as it should");
}

/* ---- a client that holds objects ---- */

static void hold(void *arg)
{
	struct bench_holder *holder = arg;
	struct tg_options options = {
		.size = sizeof(options),
		.name = "holder",
		.flags = holder->reclaim ? TG_RECLAIM : 0,
	};
	uint64_t i;

	TGT_REQUIRE(tg_attach(&options) == 0);
	for (i = 0; i < holder->n_objects; i++) {
		uint64_t *p = tg_malloc(holder->size);

		TGT_REQUIRE(p != NULL);
		*p = i;
	}
	tgt_tell_parent(&holder->meeting);
	(void)tgt_wait_parent_said(&holder->meeting);
}

void bench_hold(struct bench_holder *holder)
{
	char byte;

	if (!tgt_meeting_open(&holder->meeting))
		bench_die("no pipe");
	holder->pid = tgt_fork(hold, holder);
	if (holder->pid < 0)
		bench_die("no process");
	close(holder->meeting.to_parent[1]);
	holder->meeting.to_parent[1] = -1;
	if (read(holder->meeting.to_parent[0], &byte, 1) != 1)
		bench_die("the client could not allocate what it was to hold");
}

static void end_meeting(struct bench_holder *holder)
{
	tgt_meeting_close(&holder->meeting);
	holder->pid = 0;
}

void bench_release(struct bench_holder *holder)
{
	tgt_tell_child(&holder->meeting);
	if (tgt_wait(holder->pid) != 0)
		bench_die("a client did not end as it should");
	end_meeting(holder);
}

/* ---- its death ---- */

void bench_watch(struct bench *b)
{
	if (tg_attach(NULL) < 0)
		bench_die(tg_attach_error());
	b->attached = true;
}

static const struct tgs_client *entry_of(pid_t pid)
{
	const uint8_t *map = (const uint8_t *)tgc_heap.map;
	const struct tgs_client *clients =
		(const struct tgs_client *)(map + tgc_heap.geometry.clients_at);
	unsigned i;

	for (i = 0; i < 64; i++) {
		if (clients[i].pid == (uint32_t)pid && clients[i].state == TGS_CLIENT_LIVE)
			return &clients[i];
	}
	bench_die("the client is not in the map's table");
}

static void wait_settled(const struct tgs_client *entry)
{
	const struct timespec rest = {.tv_nsec = WATCH_NS};
	double deadline = bench_now_ms() + 60000;

	while (atomic_load_explicit(&entry->state, memory_order_acquire) != TGS_CLIENT_FREE) {
		if (bench_now_ms() > deadline)
			bench_die("the daemon does not settle a dead client");
		nanosleep(&rest, NULL);
	}
}

struct bench_recovery bench_recover(struct bench_holder *holder)
{
	const struct tgs_client *entry = entry_of(holder->pid);
	struct pollfd ended = {.fd = (int)syscall(SYS_pidfd_open, holder->pid, 0),
			       .events = POLLIN};
	double killed, dead, settled;

	if (ended.fd < 0)
		bench_die("no pidfd");
	prctl(PR_SET_TIMERSLACK, 1);
	killed = bench_now_ms();
	kill(holder->pid, SIGKILL);
	while (poll(&ended, 1, -1) < 0)
		;
	dead = bench_now_ms();
	wait_settled(entry);
	settled = bench_now_ms();
	close(ended.fd);
	(void)tgt_wait(holder->pid);
	end_meeting(holder);
	return (struct bench_recovery){.exit_ms = dead - killed, .settled_ms = settled - killed};
}

/* ---- the daemon's death ---- */

static bool ask(const char *socket, Tgd__Admin__What what, pid_t *ret_worker, pid_t *ret_keeper)
{
	static struct tgt_peer peer;
	const Tgd__Reply *reply;
	bool answered;

	if (tgt_peer_connect(&peer, socket) < 0)
		return false;
	answered = tgt_peer_hello(&peer) == 0 && tgt_peer_admin(&peer, what, 0, &reply) == 0;
	if (answered && reply->body_case == TGD__REPLY__BODY_STATUS) {
		*ret_worker = (pid_t)reply->status->pid;
		*ret_keeper = (pid_t)reply->status->keeper_pid;
	}
	tgt_peer_close(&peer);
	return answered;
}

double bench_restart(const struct bench *b)
{
	const char *socket = b->daemon.socket;
	pid_t worker = 0, keeper = 0, next = 0;
	double killed, answered;
	int pidfd;

	if (!ask(socket, TGD__ADMIN__WHAT__STATUS, &worker, &keeper))
		bench_die("tgd does not answer");
	if (keeper <= 0)
		return -1;
	pidfd = (int)syscall(SYS_pidfd_open, worker, 0);
	killed = bench_now_ms();
	kill(worker, SIGKILL);
	/* A connection that the dying one takes would not be answered. */
	while (poll(&(struct pollfd){.fd = pidfd, .events = POLLIN}, 1, -1) < 0)
		;
	while (!ask(socket, TGD__ADMIN__WHAT__PING, &next, &keeper)) {
		if (bench_now_ms() > killed + 60000)
			bench_die("no new worker serves");
	}
	answered = bench_now_ms();
	close(pidfd);
	if (!ask(socket, TGD__ADMIN__WHAT__STATUS, &next, &keeper) || next == worker)
		bench_die("the worker was not replaced");
	return answered - killed;
}

/* ---- a survivor ---- */

struct survivor {
	enum bench_work work;
	const char *socket;
	_Atomic uint64_t n;
	_Atomic bool stop;
	uint32_t ns[BENCH_CALLS_MAX];
};

static bool goes_on(const struct survivor *s)
{
	return !s->stop && s->n < BENCH_CALLS_MAX;
}

static void note(struct survivor *s, double start)
{
	s->ns[s->n] = (uint32_t)((bench_now_ms() - start) * 1e6);
	atomic_fetch_add(&s->n, 1);
}

/* Not as fast as can be: it would have used up the heap before the other one is recovered. */
static void allocate(struct survivor *s)
{
	TGT_REQUIRE(tg_attach(NULL) == 0);
	while (goes_on(s)) {
		double start = bench_now_ms();

		TGT_REQUIRE(tg_malloc(SPAN_BYTES) != NULL);
		note(s, start);
		while (bench_now_ms() < start + PACE_MS && goes_on(s))
			;
	}
}

static const Tgd__Reply *must_ask(struct tgt_peer *peer, Tgd__Request *request)
{
	const Tgd__Reply *reply = NULL;

	TGT_REQUIRE(tgt_peer_ask(peer, request, &reply) == 0 && reply->error == 0);
	return reply;
}

static void ask_for_spans(struct survivor *s)
{
	static struct tgt_peer peer;
	Tgd__OpenSlot open = TGD__OPEN_SLOT__INIT;
	Tgd__GetSpans get = TGD__GET_SPANS__INIT;
	Tgd__PutSpans put = TGD__PUT_SPANS__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	const Tgd__Reply *reply;
	uint64_t pages[8];

	TGT_REQUIRE(tgt_peer_connect(&peer, s->socket) == 0 && tgt_peer_hello(&peer) == 0 &&
		    tgt_peer_attach(&peer, "survivor", 0, 0, &reply) == 0);
	request.body_case = TGD__REQUEST__BODY_OPEN_SLOT;
	request.open_slot = &open;
	get.slot = put.slot = must_ask(&peer, &request)->slot->slot;
	get.class_ = tgs_size_to_class(SPAN_BYTES);
	get.count = 8;
	put.pages = pages;
	while (goes_on(s)) {
		double start = bench_now_ms();

		request.body_case = TGD__REQUEST__BODY_GET_SPANS;
		request.get_spans = &get;
		reply = must_ask(&peer, &request);
		note(s, start);
		for (put.n_pages = 0; put.n_pages < reply->spans->n_spans; put.n_pages++)
			pages[put.n_pages] = reply->spans->spans[put.n_pages]->page;
		request.body_case = TGD__REQUEST__BODY_PUT_SPANS;
		request.put_spans = &put;
		must_ask(&peer, &request);
	}
	tgt_peer_close(&peer);
}

static void survive(void *arg)
{
	struct survivor *s = arg;

	if (s->work == BENCH_MALLOC)
		allocate(s);
	else
		ask_for_spans(s);
}

static int by_time(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Sorts that part of the times. */
static struct bench_stall stall_of(struct survivor *s, uint64_t from, uint64_t to)
{
	uint32_t *ns = s->ns + from;
	uint64_t n = to - from;

	if (n == 0)
		return (struct bench_stall){0};
	qsort(ns, n, sizeof(*ns), by_time);
	return (struct bench_stall){n, ns[n / 2] / 1e3, ns[n * 99 / 100] / 1e3,
				    ns[n * 999 / 1000] / 1e3, ns[n - 1] / 1e3};
}

void bench_survive(struct bench *b, struct bench_holder *holder, enum bench_work work,
		   struct bench_stall *ret_before, struct bench_stall *ret_during)
{
	struct survivor *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t killed_at, settled_at;
	double start;
	pid_t pid;

	if (s == MAP_FAILED)
		bench_die("out of memory");
	s->work = work;
	s->socket = b->daemon.socket;
	pid = tgt_fork(survive, s);
	if (pid < 0)
		bench_die("no process");
	bench_watch(b);
	for (start = bench_now_ms();
	     bench_now_ms() < start + BEFORE_MS && s->n < BENCH_CALLS_MAX / 4;)
		poll(NULL, 0, 1);
	killed_at = s->n;
	bench_recover(holder);
	/* The one that was under way counts, too. */
	for (settled_at = s->n; s->n <= settled_at && goes_on(s);)
		poll(NULL, 0, 1);
	settled_at = s->n;
	atomic_store(&s->stop, true);
	if (tgt_wait(pid) != 0)
		bench_die("the survivor did not survive");
	if (settled_at == BENCH_CALLS_MAX)
		bench_die("the survivor had no room to go on");
	*ret_before = stall_of(s, 0, killed_at);
	*ret_during = stall_of(s, killed_at, settled_at);
	munmap(s, sizeof(*s));
}
