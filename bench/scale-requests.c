/* scale-requests.c - how many spans one daemon hands out and takes back when clients ask without pause.
 *
 * Each client gets a batch of spans and gives it back, again and again: two requests.  It waits for each answer, as libtg
 * does: one alone looks for it a moment before it sleeps.  So does the daemon for the next request, which counts as busy:
 * what a request costs it is busy time by requests only where many clients leave it no moment to look.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/scale.h"
#include "proto/msg.h"
#include "shm/sizeclass.h"
#include "tests/support/peer.h"

#define CLIENTS_MAX 8
#define WARM_MS     200
#define SPAN_BYTES  8192

struct asker {
	_Alignas(64) _Atomic uint64_t n_requests;
};

/* Shared with the children. */
struct board {
	const char *socket;
	unsigned batch, look_us;
	_Atomic bool stop;
	_Atomic unsigned n_at_work;
	struct asker askers[CLIENTS_MAX];
};

struct one {
	struct board *board;
	unsigned i;
};

static const Tgd__Reply *must_ask(struct tgt_peer *peer, Tgd__Request *request)
{
	const Tgd__Reply *reply = NULL;

	TGT_REQUIRE(tgt_peer_ask(peer, request, &reply) == 0 && reply->error == 0);
	return reply;
}

static uint32_t join(struct tgt_peer *peer, const char *socket)
{
	Tgd__OpenSlot open = TGD__OPEN_SLOT__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	const Tgd__Reply *reply;

	TGT_REQUIRE(tgt_peer_connect(peer, socket) == 0 && tgt_peer_hello(peer) == 0 &&
		    tgt_peer_attach(peer, "asker", 0, 0, &reply) == 0);
	request.body_case = TGD__REQUEST__BODY_OPEN_SLOT;
	request.open_slot = &open;
	return must_ask(peer, &request)->slot->slot;
}

/* A grant may be less than was asked for; then some more are. */
static void get_and_put(struct tgt_peer *peer, uint32_t slot, unsigned batch, struct asker *asker)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__GetSpans get = TGD__GET_SPANS__INIT;
	Tgd__PutSpans put = TGD__PUT_SPANS__INIT;
	uint64_t pages[TGP_SPANS_MAX];
	const Tgd__Reply *reply;

	get.slot = put.slot = slot;
	get.class_ = tgs_size_to_class(SPAN_BYTES);
	put.pages = pages;
	while (put.n_pages < batch) {
		get.count = batch - (unsigned)put.n_pages;
		request.body_case = TGD__REQUEST__BODY_GET_SPANS;
		request.get_spans = &get;
		reply = must_ask(peer, &request);
		for (size_t i = 0; i < reply->spans->n_spans; i++)
			pages[put.n_pages++] = reply->spans->spans[i]->page;
		asker->n_requests++;
	}
	request.body_case = TGD__REQUEST__BODY_PUT_SPANS;
	request.put_spans = &put;
	must_ask(peer, &request);
	asker->n_requests++;
}

static void ask_without_pause(void *arg)
{
	const struct one *one = arg;
	struct board *board = one->board;
	static struct tgt_peer peer;
	uint32_t slot = join(&peer, board->socket);

	peer.look_us = board->look_us;
	board->n_at_work++;
	while (!board->stop)
		get_and_put(&peer, slot, board->batch, &board->askers[one->i]);
	tgt_peer_close(&peer);
}

static uint64_t n_requests(const struct board *board)
{
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; i < CLIENTS_MAX; i++)
		sum += board->askers[i].n_requests;
	return sum;
}

static void rest(unsigned ms)
{
	usleep(ms * 1000);
}

struct rate {
	double requests_per_s, busy; /* busy: the daemon's part of one processor */
};

static struct rate ask_for(unsigned ms, const struct board *board, pid_t worker)
{
	uint64_t before = n_requests(board);
	double cpu = scale_cpu_s(worker), begin = bench_now_ms(), seconds;

	rest(ms);
	seconds = (bench_now_ms() - begin) / 1e3;
	return (struct rate){(double)(n_requests(board) - before) / seconds,
			     (scale_cpu_s(worker) - cpu) / seconds};
}

static struct rate measure(const struct scale *scale, unsigned n_clients, unsigned batch)
{
	struct board *board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct one ones[CLIENTS_MAX];
	pid_t pids[CLIENTS_MAX];
	double deadline = bench_now_ms() + 30000;
	struct bench b;
	struct rate rate;
	unsigned i;

	if (board == MAP_FAILED)
		bench_die("out of memory");
	bench_start(&b, 64);
	board->socket = b.daemon.socket;
	board->batch = batch;
	/* Where there are not the processors for it, libtg does not look for answers, either. */
	board->look_us = n_clients == 1 ? SCALE_LOOK_US : 0;
	for (i = 0; i < n_clients; i++) {
		ones[i] = (struct one){board, i};
		pids[i] = tgt_fork(ask_without_pause, &ones[i]);
		if (pids[i] < 0)
			bench_die("no process");
	}
	while (board->n_at_work < n_clients && bench_now_ms() < deadline)
		rest(1);
	rest(WARM_MS);
	rate = ask_for(scale->quick ? 300 : 2000, board, tgt_daemon_worker(&b.daemon, NULL));
	board->stop = true;
	for (i = 0; i < n_clients; i++) {
		if (tgt_wait(pids[i]) != 0)
			bench_die("a client was refused");
	}
	bench_stop(&b);
	munmap(board, sizeof(*board));
	return rate;
}

static void one_row(struct scale *scale, json_t *rows, unsigned n_clients, unsigned batch)
{
	double requests[SCALE_ROUNDS_MAX], busy[SCALE_ROUNDS_MAX];
	struct rate rate;
	unsigned i;

	for (i = 0; i < scale->rounds; i++) {
		rate = measure(scale, n_clients, batch);
		requests[i] = rate.requests_per_s;
		busy[i] = rate.busy;
	}
	rate.requests_per_s = scale_median(requests, scale->rounds);
	rate.busy = scale_median(busy, scale->rounds);
	/* Half of the requests get spans, the other half gives them back. */
	scale_say(scale, "%10u %10u %12.0f %12.0f %10.1f %12.2f\n", n_clients, batch,
		  rate.requests_per_s, rate.requests_per_s / 2 * batch, 100 * rate.busy,
		  1e6 * rate.busy / rate.requests_per_s);
	scale_add(rows, json_pack("{s:i, s:i, s:f, s:f, s:f}", "clients", (int)n_clients, "batch",
				  (int)batch, "requests_per_s", rate.requests_per_s, "spans_per_s",
				  rate.requests_per_s / 2 * batch, "daemon_busy", rate.busy));
}

void scale_requests(struct scale *scale)
{
	static const unsigned crowds[] = {1, 2, CLIENTS_MAX}, batches[] = {1, 8, 64};
	json_t *rows = scale_table(scale, "requests");
	unsigned i, j;

	scale_say(scale,
		  "\nClients that get spans and give them back without pause\n"
		  "%10s %10s %12s %12s %10s %12s\n",
		  "clients", "batch", "requests/s", "spans/s", "daemon %", "cpu us/req");
	for (i = 0; i < 3; i++) {
		for (j = 0; j < 3; j++)
			one_row(scale, rows, crowds[i], batches[j]);
	}
}
