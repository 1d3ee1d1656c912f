/* load.c - a client at work: small, tiny and large objects, more each round than it keeps, so that spans come and go and the
 * daemon is asked in every round.
 */
#include "tests/support/load.h"

#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"

#define N_OBJECTS   400
#define LARGE       (256u * 1024)
#define ROUNDS_MORE 20

struct tgt_load_board {
	_Atomic bool stop;
	_Atomic unsigned long rounds;
};

static const size_t sizes[] = {8, 24, 100, 1000, 9000, 30000};

static size_t size_of(unsigned i)
{
	return i % 100 == 99 ? LARGE : sizes[i % (sizeof(sizes) / sizeof(sizes[0]))];
}

static void round_of_work(unsigned long round)
{
	void *objects[N_OBJECTS];
	unsigned i;

	for (i = 0; i < N_OBJECTS; i++) {
		objects[i] = tg_malloc(size_of(i));
		TGT_REQUIRE(objects[i] != NULL);
		tgt_fill_object(objects[i], size_of(i), round * N_OBJECTS + i);
	}
	for (i = 0; i < N_OBJECTS; i++) {
		TGT_EXPECT(tgt_is_filled(objects[i], size_of(i), round * N_OBJECTS + i));
		tg_free(objects[i]);
	}
}

static void work(void *arg)
{
	struct tgt_load_board *board = arg;
	char load_name[32];
	void *root;

	snprintf(load_name, sizeof(load_name), "load %d", (int)getpid());
	TGT_REQUIRE(tg_attach(NULL) == 0);
	while (!atomic_load(&board->stop)) {
		round_of_work(atomic_load(&board->rounds));
		/* A root is the daemon's business each time. */
		root = tg_malloc(64);
		TGT_REQUIRE(root != NULL && tg_root_set(load_name, root) == 0);
		TGT_EXPECT(tg_root_get(load_name) == root);
		TGT_REQUIRE(tg_root_set(load_name, NULL) == 0);
		tg_free(root);
		atomic_fetch_add(&board->rounds, 1);
	}
	TGT_EXPECT(tg_detach() == 0);
}

static bool await_rounds(const struct tgt_load *load, unsigned long n)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;

	while (atomic_load(&load->board->rounds) < n && tgt_now_ms() < deadline)
		(void)poll(NULL, 0, 1);
	return atomic_load(&load->board->rounds) >= n;
}

bool tgt_load_start(struct tgt_load *load)
{
	load->board = mmap(NULL, sizeof(*load->board), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (load->board == MAP_FAILED)
		return false;
	load->pid = tgt_fork(work, load->board);
	return load->pid > 0 && await_rounds(load, 1);
}

bool tgt_load_goes_on(const struct tgt_load *load)
{
	return await_rounds(load, atomic_load(&load->board->rounds) + ROUNDS_MORE);
}

int tgt_load_stop(struct tgt_load *load)
{
	int status;

	atomic_store(&load->board->stop, true);
	status = tgt_wait(load->pid);
	munmap(load->board, sizeof(*load->board));
	return status;
}
