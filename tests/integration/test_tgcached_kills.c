/* test_tgcached_kills - workers die at random under load, and no answer is ever wrong.
 *
 * Clients write to few keys, so that they meet at them, and keep a diary in memory that they share: what was tried, and
 * what was answered.  A number that an incr or a cas was told must have been told to nobody else; who was told that its
 * add was stored must be the only one; a value must be one that was written, whole.  A client whose worker died does not
 * know whether its last command took place, but by then it is settled.
 *
 * At the end the heap holds the table and its buckets, and not one object more.
 */
#include <CUnit/CUnit.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/cached.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

enum {
	N_WORKERS = 4,
	N_CLIENTS = 5,
	N_NUMBERS = 3,
	NUMBER_MAX = 1000000,
	N_LOCKS = 2,
	N_VALUES = 200, /* of them HOT where nothing may be evicted */
	HOT = 8,
	VALUE_MAX = 300000,
};

static struct tgt_cached cached;

struct diary {
	_Atomic bool stop;
	_Atomic unsigned commands; /* that were answered */
	_Atomic unsigned tried[N_NUMBERS], told[N_NUMBERS];
	_Atomic bool is_told[N_NUMBERS][NUMBER_MAX];
	_Atomic int holders[N_LOCKS]; /* client + 1; 0: nobody */
	_Atomic unsigned held;
	_Atomic unsigned written[N_CLIENTS]
				[N_VALUES]; /* the number of the last set that was begun */
	_Atomic unsigned seen;
};

struct client {
	struct diary *diary;
	int i;     /* which one */
	bool cold; /* only values, which may be evicted */
	int fd;    /* -1: not connected */
	uint64_t seed;
	unsigned last[N_CLIENTS][N_VALUES]; /* the latest value of each writer that we saw */
	char buffer[VALUE_MAX + 64], expected[VALUE_MAX + 64];
};

static void set_up(void)
{
	tgt_set_up_daemon(NULL);
	CU_ASSERT_FATAL(tgt_cached_start(&cached, N_WORKERS));
}

static void set_up_small(void)
{
	static const char *const args[] = {"--limit", "24M", NULL};

	tgt_set_up_daemon(args);
	CU_ASSERT_FATAL(tgt_cached_start(&cached, N_WORKERS));
}

static void tear_down(void)
{
	CU_ASSERT_EQUAL(tgt_cached_stop(&cached), 0);
	CU_ASSERT(tgt_wait_at_most("clients", 0));
	tgt_tear_down();
}

static unsigned any(struct client *c, unsigned n)
{
	c->seed = c->seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (unsigned)(c->seed >> 33) % n;
}

/* Sends a command (and a value) and reads the first line of the answer.  False: the worker has died. */
static bool ask(struct client *c, const char *command, const char *value, size_t n, char *ret_line)
{
	while (c->fd < 0)
		c->fd = tgt_connect_port(cached.port);
	if (tgt_send(c->fd, command, strlen(command), 0) && tgt_send(c->fd, value, n, 0) &&
	    tgt_send(c->fd, "\r\n", 2, 0) && tgt_read_line(c->fd, ret_line, 320)) {
		c->diary->commands++;
		return true;
	}
	close(c->fd);
	c->fd = -1;
	return false;
}

/* 1: there, in c->buffer; 0: not; -1: the worker has died. */
static int get(struct client *c, const char *key, size_t *ret_n, unsigned long long *ret_cas)
{
	char line[320];
	bool ok;

	snprintf(line, sizeof(line), "gets %s", key);
	if (!ask(c, line, "", 0, line))
		return -1;
	if (strcmp(line, "END") == 0)
		return 0;
	TGT_REQUIRE(sscanf(line, "VALUE %*s 0 %zu %llu", ret_n, ret_cas) == 2);
	TGT_REQUIRE(*ret_n <= VALUE_MAX);
	ok = tgt_read_bytes(c->fd, c->buffer, *ret_n + 2) &&
	     tgt_read_line(c->fd, line, sizeof(line));
	if (!ok) {
		close(c->fd);
		c->fd = -1;
		return -1;
	}
	TGT_REQUIRE(memcmp(c->buffer + *ret_n, "\r\n", 2) == 0 && strcmp(line, "END") == 0);
	c->buffer[*ret_n] = '\0';
	return 1;
}

static void tell(struct client *c, unsigned i, unsigned long long number)
{
	TGT_REQUIRE(number > 0 && number < NUMBER_MAX);
	TGT_REQUIRE(!atomic_exchange(&c->diary->is_told[i][number], true));
	c->diary->told[i]++;
}

static void count(struct client *c, unsigned i)
{
	unsigned long long number, cas;
	char line[320], key[32];
	size_t n;

	snprintf(key, sizeof(key), "n%u", i);
	if (any(c, 2) == 0) {
		c->diary->tried[i]++;
		snprintf(line, sizeof(line), "incr %s 1", key);
		if (!ask(c, line, "", 0, line))
			return;
		TGT_REQUIRE(sscanf(line, "%llu", &number) == 1);
		tell(c, i, number);
		return;
	}
	if (get(c, key, &n, &cas) < 0)
		return;
	number = strtoull(c->buffer, NULL, 10) + 1;
	n = (size_t)snprintf(c->buffer, sizeof(c->buffer), "%llu", number);
	snprintf(line, sizeof(line), "cas %s 0 0 %zu %llu\r\n", key, n, cas);
	c->diary->tried[i]++;
	if (!ask(c, line, c->buffer, n, line))
		return;
	TGT_REQUIRE(strcmp(line, "STORED") == 0 || strcmp(line, "EXISTS") == 0);
	if (line[0] == 'S')
		tell(c, i, number);
}

/* Whether the lock is ours, after a worker died that was asked to change that. */
static bool is_ours(struct client *c, const char *key)
{
	unsigned long long cas;
	size_t n;
	int r;

	while ((r = get(c, key, &n, &cas)) < 0)
		;
	return r == 1 && atoi(c->buffer) == c->i + 1;
}

static void hold(struct client *c, unsigned i)
{
	char line[320], key[32], name[16];
	int nobody = 0;
	bool ours;

	snprintf(key, sizeof(key), "lock%u", i);
	snprintf(name, sizeof(name), "%d", c->i + 1);
	snprintf(line, sizeof(line), "add %s 0 0 %zu\r\n", key, strlen(name));
	ours = ask(c, line, name, strlen(name), line) ? strcmp(line, "STORED") == 0
						      : is_ours(c, key);
	if (!ours)
		return;
	TGT_REQUIRE(atomic_compare_exchange_strong(&c->diary->holders[i], &nobody, c->i + 1));
	c->diary->held++;
	if (any(c, 2) == 0) { /* a change beside it leaves it as it is */
		snprintf(line, sizeof(line), "touch %s 1000", key);
		if (ask(c, line, "", 0, line))
			TGT_REQUIRE(strcmp(line, "TOUCHED") == 0);
	}
	TGT_REQUIRE(is_ours(c, key));
	TGT_REQUIRE(atomic_exchange(&c->diary->holders[i], 0) == c->i + 1);
	do {
		snprintf(line, sizeof(line), "delete %s", key);
		if (ask(c, line, "", 0, line)) {
			TGT_REQUIRE(strcmp(line, "DELETED") == 0);
			return;
		}
	} while (is_ours(c, key));
}

/* Key, writer and number, and then bytes that depend on them. */
static size_t make_value(const struct client *c, char *value, unsigned key, unsigned writer,
			 unsigned number)
{
	uint64_t x = ((uint64_t)number << 16 | key << 8 | writer) * UINT64_C(0x9e3779b97f4a7c15);
	size_t size = c->cold || x % 8 == 0 ? (x >> 8) % VALUE_MAX : (x >> 8) % 500,
	       n = (size_t)sprintf(value, "%u %u %u ", key, writer, number);

	for (; n < size; n++) {
		x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
		value[n] = (char)(x >> 56);
	}
	return n;
}

static void write_value(struct client *c, unsigned key)
{
	unsigned number = ++c->diary->written[c->i][key];
	size_t n = make_value(c, c->buffer, key, (unsigned)c->i, number);
	char line[320];

	snprintf(line, sizeof(line), "set v%u 0 0 %zu\r\n", key, n);
	if (ask(c, line, c->buffer, n, line))
		TGT_REQUIRE(strcmp(line, "STORED") == 0);
}

static void read_value(struct client *c, unsigned key)
{
	unsigned found, writer, number;
	unsigned long long cas;
	char name[32];
	size_t n;

	snprintf(name, sizeof(name), "v%u", key);
	if (get(c, name, &n, &cas) != 1)
		return;
	TGT_REQUIRE(sscanf(c->buffer, "%u %u %u", &found, &writer, &number) == 3);
	TGT_REQUIRE(found == key && writer < N_CLIENTS);
	TGT_REQUIRE(number >= c->last[writer][key] && number <= c->diary->written[writer][key]);
	TGT_REQUIRE(n == make_value(c, c->expected, key, writer, number) &&
		    memcmp(c->buffer, c->expected, n) == 0);
	c->last[writer][key] = number;
	c->diary->seen++;
}

static void be_client(void *arg)
{
	struct client *c = arg;
	char line[320];

	while (!c->diary->stop) {
		unsigned what = c->cold ? 4 + any(c, 4) : any(c, 8),
			 key = any(c, c->cold ? N_VALUES : HOT);

		if (what < 2) {
			count(c, any(c, N_NUMBERS));
		} else if (what < 4) {
			hold(c, any(c, N_LOCKS));
		} else if (what < 6) {
			read_value(c, key);
		} else if (any(c, 8) != 0) {
			write_value(c, key);
		} else {
			snprintf(line, sizeof(line), any(c, 2) ? "delete v%u" : "touch v%u 0", key);
			ask(c, line, "", 0, line);
		}
	}
}

static struct diary *start_clients(struct client *clients, pid_t *pids, bool cold, uint64_t seed)
{
	struct diary *diary = mmap(NULL, sizeof(*diary), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CU_ASSERT_FATAL(diary != MAP_FAILED);
	for (int i = 0; i < N_CLIENTS; i++) {
		clients[i].diary = diary;
		clients[i].i = i;
		clients[i].cold = cold;
		clients[i].fd = -1;
		clients[i].seed = seed + (unsigned)i;
		pids[i] = tgt_fork(be_client, &clients[i]);
	}
	return diary;
}

/* Waits until some commands more were answered, but not for long: perhaps all wait for a stopped worker. */
static void wait_for_commands(struct diary *diary, unsigned n, int most_ms)
{
	unsigned before = diary->commands;

	for (int i = 0; i < most_ms && diary->commands - before < n; i++)
		(void)poll(NULL, 0, 1);
}

static void kill_workers(struct diary *diary, unsigned n_kills, uint64_t seed)
{
	struct client dice = {.seed = seed};
	pid_t workers[N_WORKERS], pid;

	for (unsigned i = 0; i < n_kills; i++) {
		wait_for_commands(diary, 1 + any(&dice, 60), TGT_TIMEOUT_MS);
		CU_ASSERT_FATAL(tgt_cached_workers(&cached, workers));
		pid = workers[any(&dice, N_WORKERS)];
		if (i % 4 == 0) {
			kill(pid, SIGSTOP);
			wait_for_commands(diary, 20, 20);
		}
		if (i % 8 == 0) /* to die is not the only way on */
			kill(pid, SIGCONT);
		else
			kill(pid, SIGKILL);
	}
}

static void storm(bool cold, unsigned n_kills)
{
	static struct client clients[N_CLIENTS];
	uint64_t seed = (uint64_t)time(NULL);
	pid_t pids[N_CLIENTS];
	struct diary *diary;
	int fd;

	printf("seed %llu ", (unsigned long long)seed);
	memset(clients, 0, sizeof(clients));
	fd = tgt_connect_port(cached.port);
	for (int i = 0; i < N_NUMBERS && !cold; i++) {
		char key[32];

		snprintf(key, sizeof(key), "n%d", i);
		CU_ASSERT_FATAL(tgt_cached_set(fd, key, "0", 1));
	}
	close(fd);
	diary = start_clients(clients, pids, cold, seed);
	kill_workers(diary, n_kills, seed);
	diary->stop = true;
	for (int i = 0; i < N_CLIENTS; i++)
		CU_ASSERT_EQUAL(tgt_wait(pids[i]), 0);
	printf("%u commands, %u values seen, %u locks held, %u numbers told ", diary->commands,
	       diary->seen, diary->held, diary->told[0] + diary->told[1] + diary->told[2]);
	fd = tgt_connect_port(cached.port);
	for (int i = 0; i < N_NUMBERS && !cold; i++) {
		char key[32], *value;
		size_t n;

		snprintf(key, sizeof(key), "n%d", i);
		value = tgt_cached_get(fd, key, &n);
		CU_ASSERT_FATAL(value != NULL);
		CU_ASSERT(strtoul(value, NULL, 10) >= diary->told[i]);
		CU_ASSERT(strtoul(value, NULL, 10) <= diary->tried[i]);
		CU_ASSERT(diary->told[i] > 0);
		free(value);
	}
	CU_ASSERT(diary->seen > 0 && (cold || diary->held > 0));
	if (cold)
		CU_ASSERT(tgt_cached_stat(fd, "evictions") > 0);
	tgt_held = tgt_cached_stat(fd, "objects");
	CU_ASSERT(tgt_held > 1);
	close(fd);
	munmap(diary, sizeof(*diary));
}

static void test_storm(void)
{
	storm(false, tgt_scaled(1000));
}

static void test_eviction_storm(void)
{
	storm(true, tgt_scaled(400));
}

static CU_TestInfo tests[] = {
	{"workers killed at random give no wrong answer and leave no object behind", test_storm},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo small_tests[] = {
	{"the same while items are evicted", test_eviction_storm},
	CU_TEST_INFO_NULL,
};

int main(void)
{
	CU_SuiteInfo suites[] = {
		{"kills", NULL, NULL, set_up, tear_down, tests},
		{"kills in a small heap", NULL, NULL, set_up_small, tear_down, small_tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("tgcached_kills", suites);
}
