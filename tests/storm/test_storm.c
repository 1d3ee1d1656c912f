/* test_storm - a random client is killed every few milliseconds and replaced at once, the daemon every second; nothing is
 * lost, damaged or leaked, and nobody hangs.
 *
 * Eight clients with four threads each do everything that the library offers (work.c, links.c, buckets.c).  In a first
 * storm all reclaim, in a second one half of them keep.  Some are stopped for a while before they are killed.  At the end the last client accounts for every
 * object (audit.c) and frees it; then the heap is empty, to the byte.  How long calls took the survivors is printed, not
 * asserted.
 *
 * TG_STORM_SEED: the seed; TG_STORM_KILLS: how many kills; TG_STORM_DAEMON_MS: from one kill of the daemon to the next.
 * What happens when depends on the machine as well.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/storm/storm.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/message.h"
#include "tests/support/peer.h"
#include "tests/support/runner.h"

/* Enough for link words to have long numbers, and for the walk of the map to be short. */
static const char *const args[] = {"--reserve", "8G", "--limit", "4G", NULL};

static pid_t pids[STORM_CLIENTS];
static uint64_t seed, random_state;
static unsigned n_stops;

static uint64_t from_environment(const char *name, uint64_t fallback)
{
	const char *text = getenv(name);

	return text != NULL && *text != '\0' ? strtoull(text, NULL, 0) : fallback;
}

static uint64_t some(uint64_t n)
{
	return (tgt_random(&random_state) >> 20) % n;
}

static void rest_us(uint64_t us)
{
	struct timespec time = {.tv_sec = (time_t)(us / 1000000),
				.tv_nsec = (long)(us % 1000000) * 1000};

	nanosleep(&time, NULL);
}

/* ---- the daemon's killer ---- */

/* Which processes serve now; false: the daemon does not say. */
static bool ask_daemon(pid_t *ret_worker, pid_t *ret_keeper)
{
	static struct tgt_peer peer;
	const Tgd__Reply *reply;
	bool known;

	if (tgt_peer_connect(&peer, tgt_d.socket) < 0)
		return false;
	known = tgt_peer_hello(&peer) == 0 &&
		tgt_peer_admin(&peer, TGD__ADMIN__WHAT__STATUS, 0, &reply) == 0 &&
		reply->body_case == TGD__REPLY__BODY_STATUS;
	if (known) {
		*ret_worker = (pid_t)reply->status->pid;
		*ret_keeper = (pid_t)reply->status->keeper_pid;
	}
	tgt_peer_close(&peer);
	return known;
}

/* A process of its own, as it waits for the daemon. */
static void kill_daemons(void *arg)
{
	uint64_t ms = from_environment("TG_STORM_DAEMON_MS", 1000);
	pid_t worker, keeper, killed_keeper = 0;
	bool of_keeper;

	(void)arg;
	while (!storm_board->stop) {
		rest_us(ms * (500 + some(1000)));
		if (storm_board->stop || !ask_daemon(&worker, &keeper) || keeper <= 0)
			continue;
		/* Both at once would be the end of the heap: a dead one has its successor first, however slow. */
		if (keeper == killed_keeper)
			continue;
		of_keeper = some(5) == 0;
		if (kill(of_keeper ? keeper : worker, SIGKILL) < 0)
			continue;
		if (of_keeper) {
			killed_keeper = keeper;
			atomic_fetch_add(&storm_board->keeper_kills, 1);
		} else {
			atomic_fetch_add(&storm_board->worker_kills, 1);
		}
	}
}

/* ---- clients ---- */

static void run_client(void *arg)
{
	storm_client_run(*(unsigned *)arg);
}

static void start_client(unsigned client)
{
	pids[client] = tgt_fork(run_client, &client);
	CU_ASSERT_FATAL(pids[client] > 0);
}

/* What its threads were about to do. */
static void say_doubts(unsigned client)
{
	unsigned i;

	for (i = 0; i < STORM_THREADS; i++) {
		const struct storm_book *book = &storm_board->books[client * STORM_THREADS + i];
		const struct storm_doubt *doubt = &book->doubt;
		const struct storm_entry *entry = &book->table[doubt->index % STORM_TABLE];

		storm_fail("  its thread %u: operation %u, entry %u: %llx, %u bytes, kind %u, made "
			   "by seat %u, %s",
			   i, doubt->op, doubt->index, (unsigned long long)entry->ref, entry->size,
			   entry->kind, entry->maker, entry->published ? "published" : "private");
	}
}

/* Waits for its end, and puts its books in order. */
static void bury(unsigned client, bool killed)
{
	int status = tgt_wait(pids[client]);

	if (status != (killed ? 128 + SIGKILL : 0) && !(killed && status == 0)) {
		storm_fail("client %u, pid %d: ended with status %d", client, (int)pids[client],
			   status);
		say_doubts(client);
	}
	storm_settle(client, killed);
}

static void kill_and_replace(void)
{
	unsigned client = (unsigned)some(STORM_CLIENTS);

	if (some(16) == 0) {
		/* What it had begun stays begun for a while. */
		kill(pids[client], SIGSTOP);
		rest_us(some(50000));
		n_stops++;
	}
	kill(pids[client], SIGKILL);
	bury(client, true);
	start_client(client);
}

static void storm(unsigned n_kills)
{
	unsigned i;

	for (i = 0; i < STORM_CLIENTS; i++)
		start_client(i);
	for (i = 0; i < n_kills && storm_board->failures == 0; i++) {
		rest_us(1000 + some(15000));
		kill_and_replace();
	}
}

/* Half of them end by themselves, the others are killed. */
static void end_clients(void)
{
	unsigned i;

	for (i = 0; i < STORM_CLIENTS; i++) {
		if (i / 2 % 2 == 0) {
			kill(pids[i], SIGKILL);
			bury(i, true);
		}
	}
	atomic_store(&storm_board->stop, true);
	for (i = 0; i < STORM_CLIENTS; i++) {
		if (i / 2 % 2 != 0)
			bury(i, false);
	}
}

/* ---- the heap before and after ---- */

static void make_arena(void *arg)
{
	struct storm_arena *arena;

	(void)arg;
	TGT_REQUIRE(tg_attach(NULL) == 0);
	arena = tg_calloc(1, sizeof(*arena));
	TGT_REQUIRE(arena != NULL);
	TGT_EXPECT(tg_root_set(STORM_ARENA_ROOT, arena) == 0);
	TGT_EXPECT(tg_detach() == 0);
}

/* Alone, and after recovery. */
static void audit(void)
{
	long long objects;

	CU_ASSERT(tgt_wait_at_most("clients", 0));
	objects = tgt_check_number("objects");
	tgt_check(objects);
	CU_ASSERT_EQUAL(tg_attach(NULL), 0);
	CU_ASSERT_EQUAL(storm_audit(), (uint64_t)objects);
	tgt_check(0);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	tgt_check(0);
	CU_ASSERT_EQUAL(tg_detach(), 0);
	tgt_check(0);
	CU_ASSERT(tgt_wait_at_most("span_bytes", 0));
}

static uint64_t turns(void)
{
	uint64_t n = 0;
	unsigned seat;

	for (seat = 0; seat < STORM_SEATS; seat++)
		n += storm_board->books[seat].turns;
	return n;
}

/* `all_reclaim`: what is left then is known to the object. */
static void run_storm(bool all_reclaim)
{
	/* Of each of two storms. */
	unsigned n_kills = (unsigned)from_environment("TG_STORM_KILLS", tgt_scaled(200)) / 2;
	pid_t killer;

	printf("\n");
	n_stops = 0;
	random_state = seed * 2 + 1;
	CU_ASSERT_FATAL(storm_board_open(seed, all_reclaim));
	CU_ASSERT_EQUAL_FATAL(tgt_in_child(make_arena, NULL), 0);
	killer = tgt_fork(kill_daemons, NULL);
	storm(n_kills);
	end_clients();
	CU_ASSERT_EQUAL(tgt_wait(killer), 0);
	audit();
	printf("    %u clients killed (%u of them stopped before), %u workers, %u keepers; %llu "
	       "turns\n",
	       n_kills, n_stops, storm_board->worker_kills, storm_board->keeper_kills,
	       (unsigned long long)turns());
	storm_print_times();
	CU_ASSERT_EQUAL(storm_board->failures, 0);
	if (storm_board->failures > 0)
		fprintf(stderr, "---- log of tgd:\n%s----\n", tgt_daemon_log(&tgt_d));
	storm_board_close();
}

static void test_reclaim(void)
{
	run_storm(true);
}

static void test_both(void)
{
	run_storm(false);
}

/* ---- the daemon, whoever it is by then ---- */

static void set_up(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	tgt_set_up_daemon(args);
}

/* The keeper that the fixture has started may be dead, and its successor is nobody's child but ours. */
static void tear_down(void)
{
	const char *const stop[] = {"stop", NULL};
	pid_t pid;
	int status;

	json_decref(tgt_tgctl(&tgt_d, stop, &status));
	CU_ASSERT_EQUAL(status, 0);
	while ((pid = waitpid(-1, &status, 0)) > 0 || errno == EINTR)
		;
	tgt_d.pid = 0;
	CU_ASSERT_EQUAL(tgt_daemon_stop(&tgt_d), 0);
	unsetenv("TG_SOCKET");
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Clients that reclaim, and daemons, are killed at random, and only what is "
		 "reachable is left",
		 test_reclaim},
		{"Of clients that keep nothing is lost, and of others nothing is leaked",
		 test_both},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"storm", NULL, NULL, set_up, tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	seed = from_environment("TG_STORM_SEED", (uint64_t)time(NULL));
	printf("TG_STORM_SEED=%llu\n", (unsigned long long)seed);
	return tgt_run("storm", suites);
}
