/* test_tgcached_workers - several processes, one cache: whichever worker is asked, whoever dies.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/cached.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define N_WORKERS 4
#define N_WRITERS 3
#define N_KEYS    300 /* of a writer */

static struct tgt_cached cached;

static void set_up(void)
{
	tgt_set_up_daemon(NULL);
	CU_ASSERT_FATAL(tgt_cached_start(&cached, N_WORKERS));
}

static void set_up_small(void)
{
	static const char *const args[] = {"--limit", "48M", NULL};

	tgt_set_up_daemon(args);
	CU_ASSERT_FATAL(tgt_cached_start(&cached, N_WORKERS));
}

/* Tests set tgt_held. */
static void tear_down(void)
{
	CU_ASSERT_EQUAL(tgt_cached_stop(&cached), 0);
	CU_ASSERT(tgt_wait_at_most("clients", 0)); /* those that were killed, too */
	tgt_tear_down();
}

/* A connection that this worker has accepted: nobody else can, as all others stand still. */
static int connect_to(const pid_t *workers, int i)
{
	int fd;

	for (int j = 0; j < N_WORKERS; j++) {
		if (j != i)
			kill(workers[j], SIGSTOP);
	}
	fd = tgt_connect_port(cached.port);
	CU_ASSERT_EQUAL(tgt_cached_stat(fd, "pid"), workers[i]);
	for (int j = 0; j < N_WORKERS; j++)
		kill(workers[j], SIGCONT);
	return fd;
}

static size_t make_value(char *value, int key, unsigned number)
{
	size_t n = (size_t)sprintf(value, "%d %u ", key, number);
	size_t size = n + (unsigned)key * 7919u % 6000;

	memset(value + n, 'a' + (int)(number % 26), size - n);
	value[size] = '\0';
	return size;
}

/* Whether the value is one of the key's, whole; its number. */
static bool is_value(const char *value, size_t n, int key, unsigned *ret_number)
{
	char expected[8000];
	int found;

	return sscanf(value, "%d %u", &found, ret_number) == 2 && found == key &&
	       n == make_value(expected, key, *ret_number) && memcmp(value, expected, n) == 0;
}

static void test_every_worker(void)
{
	char key[32], value[8000], *back;
	pid_t workers[N_WORKERS];
	unsigned number;
	int fds[N_WORKERS];
	size_t n;

	CU_ASSERT_FATAL(tgt_cached_workers(&cached, workers));
	for (int i = 0; i < N_WORKERS; i++)
		fds[i] = connect_to(workers, i);
	for (int k = 0; k < 400; k++) {
		snprintf(key, sizeof(key), "key%d", k);
		CU_ASSERT(tgt_cached_set(fds[k % N_WORKERS], key, value, make_value(value, k, 1)));
	}
	for (int k = 0; k < 400 * N_WORKERS; k++) {
		snprintf(key, sizeof(key), "key%d", k / N_WORKERS);
		back = tgt_cached_get(fds[k % N_WORKERS], key, &n);
		CU_ASSERT_FATAL(back != NULL && is_value(back, n, k / N_WORKERS, &number));
		free(back);
	}
	CU_ASSERT(tgt_send(fds[0], "delete key7\r\n", 13, 0) &&
		  tgt_read_line(fds[0], key, sizeof(key)));
	CU_ASSERT_PTR_NULL(tgt_cached_get(fds[1], "key7", &n));
	CU_ASSERT_EQUAL(tgt_cached_stat(fds[2], "curr_items"), 399);
	tgt_held = tgt_cached_stat(fds[2], "objects");
	CU_ASSERT(tgt_held > 1 && tgt_held <= 400); /* with the table */
	for (int i = 0; i < N_WORKERS; i++)
		close(fds[i]);
}

/* What the writers say that they did, where the test can read it. */
struct diary {
	_Atomic bool stop;
	_Atomic unsigned tried[N_WRITERS * N_KEYS], stored[N_WRITERS * N_KEYS];
};

struct writer {
	struct diary *diary;
	int i;
};

/* Stores its own keys again and again; connects anew when its worker dies. */
static void write_keys(void *arg)
{
	struct writer *writer = arg;
	struct diary *diary = writer->diary;
	char key[32], value[8000];
	int fd = -1;

	for (unsigned number = 1; !diary->stop; number++) {
		for (int k = writer->i * N_KEYS; k < (writer->i + 1) * N_KEYS && !diary->stop;
		     k++) {
			if (fd < 0)
				fd = tgt_connect_port(cached.port);
			TGT_REQUIRE(fd >= 0);
			snprintf(key, sizeof(key), "key%d", k);
			diary->tried[k] = number;
			if (tgt_cached_set(fd, key, value, make_value(value, k, number))) {
				diary->stored[k] = number;
			} else {
				close(fd);
				fd = -1;
			}
		}
	}
}

static void test_killed_workers(void)
{
	struct diary *diary = mmap(NULL, sizeof(*diary), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t workers[N_WORKERS], writers[N_WRITERS];
	unsigned n_kills = tgt_scaled(60), n_present = 0, number;
	struct writer args[N_WRITERS];
	char key[32], *back;
	size_t n;
	int fd;

	CU_ASSERT_FATAL(diary != MAP_FAILED);
	for (int i = 0; i < N_WRITERS; i++) {
		args[i] = (struct writer){diary, i};
		writers[i] = tgt_fork(write_keys, &args[i]);
	}
	for (unsigned i = 0; i < n_kills; i++) {
		unsigned seen = diary->tried[0] + diary->tried[N_KEYS] + diary->tried[2 * N_KEYS];
		long long end = tgt_now_ms() + TGT_TIMEOUT_MS;

		CU_ASSERT_FATAL(tgt_cached_workers(&cached, workers));
		kill(workers[i % N_WORKERS], SIGKILL);
		/* The next one when there was some work in between. */
		while (diary->tried[0] + diary->tried[N_KEYS] + diary->tried[2 * N_KEYS] <
			       seen + 2 &&
		       tgt_now_ms() < end)
			poll(NULL, 0, 1);
	}
	diary->stop = true;
	for (int i = 0; i < N_WRITERS; i++)
		CU_ASSERT_EQUAL(tgt_wait(writers[i]), 0);
	CU_ASSERT_FATAL(tgt_cached_workers(&cached, workers));
	fd = tgt_connect_port(cached.port);
	for (int k = 0; k < N_WRITERS * N_KEYS; k++) {
		snprintf(key, sizeof(key), "key%d", k);
		back = tgt_cached_get(fd, key, &n);
		if (back == NULL) {
			CU_ASSERT_EQUAL(diary->stored[k], 0);
			continue;
		}
		n_present++;
		CU_ASSERT(is_value(back, n, k, &number));
		CU_ASSERT(number >= diary->stored[k] && number <= diary->tried[k]);
		free(back);
	}
	CU_ASSERT(n_present > N_KEYS);
	CU_ASSERT_EQUAL(tgt_cached_stat(fd, "curr_items"), n_present);
	tgt_held = tgt_cached_stat(fd, "objects"); /* exact, whatever the dead were doing */
	close(fd);
	munmap(diary, sizeof(*diary));
}

static void test_warm(void)
{
	int fd = tgt_connect_port(cached.port);
	char *back;
	size_t n;

	CU_ASSERT(tgt_cached_set(fd, "key", "value", 5));
	close(fd);
	CU_ASSERT_EQUAL(tgt_cached_stop(&cached), 0);
	CU_ASSERT_FATAL(tgt_cached_start(&cached, N_WORKERS));
	fd = tgt_connect_port(cached.port);
	back = tgt_cached_get(fd, "key", &n);
	CU_ASSERT(back != NULL && n == 5 && strcmp(back, "value") == 0);
	free(back);
	close(fd);
	tgt_held = 2;
}

/* pidfds of all workers; true when all of them have ended. */
static bool all_end(const int *pidfds)
{
	bool ended = true;

	for (int i = 0; i < N_WORKERS; i++) {
		struct pollfd p = {.fd = pidfds[i], .events = POLLIN};

		ended = poll(&p, 1, TGT_TIMEOUT_MS) == 1 && ended;
		close(pidfds[i]);
	}
	return ended;
}

static void open_pidfds(int *pidfds)
{
	pid_t workers[N_WORKERS];

	CU_ASSERT_FATAL(tgt_cached_workers(&cached, workers));
	for (int i = 0; i < N_WORKERS; i++) {
		pidfds[i] = (int)syscall(SYS_pidfd_open, workers[i], 0);
		CU_ASSERT(pidfds[i] >= 0);
	}
}

static void test_end(void)
{
	int pidfds[N_WORKERS];

	open_pidfds(pidfds);
	CU_ASSERT_EQUAL(tgt_cached_stop(&cached), 0);
	CU_ASSERT(all_end(pidfds));
	CU_ASSERT_FATAL(tgt_cached_start(&cached, N_WORKERS));
	open_pidfds(pidfds);
	kill(cached.pid, SIGKILL);
	CU_ASSERT_EQUAL(tgt_wait(cached.pid), 128 + SIGKILL);
	CU_ASSERT(all_end(pidfds));
	close(cached.log_fd);
	cached.pid = 0;
	tgt_held = 1;
}

/* With 48 MiB for 100 MiB of values: all are stored, what is used stays, and what came last is there. */
static void test_eviction(void)
{
	enum { N = 3000, SIZE = 35000 };
	int fds[N_WORKERS], n_recent = 0;
	pid_t workers[N_WORKERS];
	char *value = malloc(SIZE), key[32], *back;
	bool stored = true, hot = true;
	size_t n;

	CU_ASSERT_FATAL(tgt_cached_workers(&cached, workers));
	for (int i = 0; i < N_WORKERS; i++)
		fds[i] = connect_to(workers, i);
	CU_ASSERT(tgt_cached_set(fds[0], "hot", "x", 1));
	CU_ASSERT(tgt_cached_set(fds[0], "log", "x", 1));
	memset(value, 'v', SIZE);
	for (int i = 0; i < N; i++) {
		snprintf(key, sizeof(key), "key%d", i);
		stored = tgt_cached_set(fds[i % N_WORKERS], key, value,
					i % 10 == 0 ? SIZE : 1 + (size_t)i * 7919 % SIZE) &&
			 stored;
		back = i % 16 == 0 ? tgt_cached_get(fds[1], "hot", &n) : NULL;
		hot = (i % 16 != 0 || back != NULL) && hot;
		free(back);
		if (i % 16 == 0) /* needs room in the middle of a change */
			stored = tgt_send(fds[3], "append log 0 0 1\r\ny\r\n", 21, 0) &&
				 tgt_read_line(fds[3], key, sizeof(key)) &&
				 strcmp(key, "STORED") == 0 && stored;
	}
	CU_ASSERT(stored);
	CU_ASSERT(hot);
	CU_ASSERT(tgt_cached_stat(fds[2], "evictions") > 0);
	for (int i = N - 100; i < N; i++) {
		snprintf(key, sizeof(key), "key%d", i);
		back = tgt_cached_get(fds[i % N_WORKERS], key, &n);
		n_recent += back != NULL;
		free(back);
	}
	CU_ASSERT(n_recent >= 95);
	/* A value that needs much room at once finds it, among all that is small. */
	free(value);
	value = calloc(1, 1 << 20);
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "large%d", i);
		CU_ASSERT(tgt_cached_set(fds[i % N_WORKERS], key, value, 1 << 20));
	}
	tgt_held = tgt_cached_stat(fds[2], "objects");
	free(value);
	for (int i = 0; i < N_WORKERS; i++)
		close(fds[i]);
}

static void test_no_daemon(void)
{
	const char *const argv[] = {getenv("TGCACHED"), "-p", "0", NULL};
	const char *const wrong[] = {getenv("TGCACHED"), "-w", "0", NULL};
	const char *const taken[] = {getenv("TGCACHED"), "-p", "1", "-l", "256.1.1.1", NULL};
	char *output;

	CU_ASSERT_EQUAL(tgt_run_program(wrong, &output), 2);
	CU_ASSERT(output != NULL && strstr(output, "usage:") != NULL);
	free(output);
	CU_ASSERT_EQUAL(tgt_run_program(taken, &output), 1);
	CU_ASSERT(output != NULL && strstr(output, "cannot listen on 256.1.1.1 port 1") != NULL);
	free(output);
	setenv("TG_SOCKET", "/nonexistent/tgd.sock", 1);
	CU_ASSERT_EQUAL(tgt_run_program(argv, &output), 1);
	CU_ASSERT(output != NULL && strstr(output, "tgcached: ") != NULL &&
		  strstr(output, "/nonexistent/tgd.sock") != NULL);
	free(output);
	setenv("TG_SOCKET", tgt_d.socket, 1);
	tgt_held = 1;
}

static CU_TestInfo tests[] = {
	{"every worker serves what any of them stored", test_every_worker},
	{"killed workers lose nothing that was stored", test_killed_workers},
	{"the cache is warm after a restart", test_warm},
	{"SIGTERM ends all with status 0, and a killed parent takes the workers along", test_end},
	{"what cannot work is refused with a message", test_no_daemon},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo small_tests[] = {
	{"the least recently used make room at the limit", test_eviction},
	CU_TEST_INFO_NULL,
};

int main(void)
{
	CU_SuiteInfo suites[] = {
		{"workers", NULL, NULL, set_up, tear_down, tests},
		{"a small heap", NULL, NULL, set_up_small, tear_down, small_tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("tgcached_workers", suites);
}
