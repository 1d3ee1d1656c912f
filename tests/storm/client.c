/* client.c - the life of a client process: attach, four threads at work, detach, and again, until it is killed.
 *
 * A thread works for some turns and ends; its last act is to start the next one in its seat, which joins it.  Between
 * detaching and attaching no thread runs.
 */
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/storm/storm.h"

#define TIMEOUT_MS 60000

struct seat {
	struct storm_worker worker;
	pthread_t thread, before; /* the current one, and the one that it is to join */
	bool has_before;
};

static struct seat seats[STORM_THREADS];
static _Atomic bool pause_all;
static sem_t n_ended;

static void turn(struct storm_worker *w)
{
	unsigned what = (unsigned)storm_random(w, 100);

	if (what < 55)
		storm_turn_table(w);
	else if (what < 65)
		storm_turn_stack(w);
	else if (what < 75)
		storm_turn_cell(w);
	else if (what < 80)
		storm_turn_tiny(w);
	else if (what < 90)
		storm_turn_mail(w);
	else
		storm_turn_bucket(w);
	atomic_fetch_add_explicit(&w->book->turns, 1, memory_order_relaxed);
}

static void *work(void *arg)
{
	struct seat *seat = arg;
	struct storm_worker *w = &seat->worker;
	uint64_t n;

	if (seat->has_before)
		pthread_join(seat->before, NULL);
	n = 1 + storm_random(w, 20000);
	while (n-- > 0 && !atomic_load_explicit(&pause_all, memory_order_relaxed))
		turn(w);
	seat->before = pthread_self();
	seat->has_before = true;
	if (atomic_load(&pause_all) || pthread_create(&seat->thread, NULL, work, seat) != 0)
		sem_post(&n_ended);
	return NULL;
}

static void start_seats(unsigned client, uint64_t random)
{
	struct storm_arena *arena = tg_root_get(STORM_ARENA_ROOT);
	unsigned i;

	if (arena == NULL) {
		storm_fail("the root of the arena is gone: %m");
		_exit(1);
	}
	sem_init(&n_ended, 0, 0);
	atomic_store(&pause_all, false);
	for (i = 0; i < STORM_THREADS; i++) {
		unsigned seat = client * STORM_THREADS + i;

		seats[i] = (struct seat){
			.worker = {.seat = seat,
				   .reclaims = storm_reclaims(client),
				   .random = random + (seat + 1) * UINT64_C(0x9e3779b97f4a7c15),
				   .book = &storm_board->books[seat],
				   .arena = arena},
		};
		/* What the process before had is there, whether it is settled yet or not. */
		storm_check_book(seats[i].worker.book, "when a process takes it over");
		if (pthread_create(&seats[i].thread, NULL, work, &seats[i]) != 0) {
			storm_fail("no thread: %m");
			_exit(1);
		}
	}
}

static void wait_some(uint64_t ms)
{
	uint64_t end = storm_now_ns() + ms * 1000000;

	while (!storm_board->stop && storm_now_ns() < end) {
		struct timespec rest = {.tv_nsec = 2000000};

		nanosleep(&rest, NULL);
	}
}

static void end_seats(void)
{
	unsigned i;

	atomic_store(&pause_all, true);
	for (i = 0; i < STORM_THREADS; i++) {
		while (sem_wait(&n_ended) < 0)
			;
	}
	for (i = 0; i < STORM_THREADS; i++)
		pthread_join(seats[i].before, NULL);
}

static void attach(unsigned client)
{
	struct storm_book *book = &storm_board->books[client * STORM_THREADS];
	struct tg_options options = {
		.size = sizeof(options),
		.name = storm_reclaims(client) ? "storm, reclaims" : "storm, keeps",
		.flags = storm_reclaims(client) ? TG_RECLAIM : 0,
		.timeout_ms = TIMEOUT_MS,
	};
	uint64_t since = storm_now_ns();
	int r = tg_attach(&options);

	if (r < 0) {
		storm_fail("tg_attach: %s: %s", strerror(-r), tg_attach_error());
		_exit(1);
	}
	storm_time(book, STORM_CALL_ATTACH, since);
}

static void detach(unsigned client)
{
	struct storm_book *book = &storm_board->books[client * STORM_THREADS];
	uint64_t since = storm_now_ns();
	unsigned i;
	int r = tg_detach();

	if (r < 0)
		storm_fail("tg_detach: %s", strerror(-r));
	storm_time(book, STORM_CALL_DETACH, since);
	for (i = 0; storm_reclaims(client) && i < STORM_THREADS; i++)
		storm_drop_private(&book[i]);
}

void storm_client_run(unsigned client)
{
	uint64_t random = storm_now_ns() ^ storm_board->seed;

	while (!storm_board->stop) {
		attach(client);
		start_seats(client, random);
		random = random * UINT64_C(6364136223846793005) + 1;
		wait_some(50 + random % 512);
		end_seats();
		detach(client);
	}
}
