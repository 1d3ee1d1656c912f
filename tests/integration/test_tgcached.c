/* test_tgcached - the protocol: what tgcached answers is written here, and it is what memcached answers.
 *
 * Where memcached is installed, each conversation is held with it, too, and the answers are compared; where it is not,
 * that part is left out and says so.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/cached.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define K10    "kkkkkkkkkk"
#define K50    K10 K10 K10 K10 K10
#define K250   K50 K50 K50 K50 K50
#define K251   K250 "k"
#define BAD    "CLIENT_ERROR bad command line format\r\n"
#define DELTA  "CLIENT_ERROR invalid numeric delta argument\r\n"
#define NUMBER "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
#define TIME   "CLIENT_ERROR invalid exptime argument\r\n"
#define USAGE  "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
#define SET_A  "set a 5 0 1\r\nx\r\n"
#define GET_A  "get a\r\n"
#define A_IS_X "VALUE a 5 1\r\nx\r\nEND\r\n"

/* Each begins with an empty cache. */
static const struct {
	const char *say, *answer;
} conversations[] = {
	{"get a\r\n", "END\r\n"},
	{SET_A GET_A, "STORED\r\n" A_IS_X},
	{"set a 5 0 1\nx\r\nget a\n", "STORED\r\n" A_IS_X},
	{"set  a  5  0  1  \r\nx\r\n  get   a  b \r\n", "STORED\r\n" A_IS_X},
	{"set a 5 0 0\r\n\r\nget a\r\n", "STORED\r\nVALUE a 5 0\r\n\r\nEND\r\n"},
	{"set a 0 0 4\r\n\r\n\r\n\r\nget a a\r\n",
	 "STORED\r\nVALUE a 0 4\r\n\r\n\r\n\r\nVALUE a 0 4\r\n\r\n\r\n\r\nEND\r\n"},
	{"set " K250 " 0 0 1\r\nx\r\nget " K250 "\r\n",
	 "STORED\r\nVALUE " K250 " 0 1\r\nx\r\nEND\r\n"},
	{"set a\x80\x01 0 0 1\r\nx\r\nget a\x80\x01\r\n",
	 "STORED\r\nVALUE a\x80\x01 0 1\r\nx\r\nEND\r\n"},
	{"set a 4294967295 0 1\r\nx\r\nget a\r\n",
	 "STORED\r\nVALUE a 4294967295 1\r\nx\r\nEND\r\n"},
	{"set a +7 +0 01\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 7 1\r\nx\r\nEND\r\n"},
	{"set a 5 0 1 noreply\r\nx\r\nget a\r\n", A_IS_X},
	{"set a 5 0 1 other\r\nx\r\nget a\r\n", "STORED\r\n" A_IS_X},
	/* values of the wrong length */
	{"set a 0 0 1\r\nxyz\r\n" GET_A, "CLIENT_ERROR bad data chunk\r\nERROR\r\nEND\r\n"},
	{"set a 0 0 1\r\nx\n\r\n", "CLIENT_ERROR bad data chunk\r\nERROR\r\n"},
	{SET_A "set a 0 0 1\r\nxy\r\n" GET_A,
	 "STORED\r\nCLIENT_ERROR bad data chunk\r\nERROR\r\n" A_IS_X},
	{"set a 0 0 1 noreply\r\nxx\r\n" GET_A, "ERROR\r\nEND\r\n"},
	{"set a 0 0 3\r\nx\r\n\r\n", "STORED\r\n"},
	/* bad lines */
	{"\r\n\na\r\nfoo\r\nGET a\r\nset\r\nset a 0 0\r\n\tget a\r\nget\ta\r\nget \r\ngets\r\n",
	 "ERROR\r\nERROR\r\nERROR\r\nERROR\r\nERROR\r\nERROR\r\nERROR\r\nERROR\r\nERROR\r\nERROR\r"
	 "\nERROR\r\n"},
	{"set a b 0 1\r\n", BAD},
	{"set a 0 b 1\r\n", BAD},
	{"set a 0 0 b\r\n", BAD},
	{"set a 0 0 -1\r\n", BAD},
	{"set a -1 0 1\r\n", BAD},
	{"set a 0x7 0 1\r\n", BAD},
	{"set a 0 0 2147483646\r\n", BAD},
	{"set a 0 99999999999999999999 1\r\n", BAD},
	{"set " K251 " 0 0 1\r\n", BAD},
	{"set " K251 " 0 0 1 noreply\r\n", ""},
	{"set a 0 0 1 2 3\r\n", "ERROR\r\n"},
	{"get " K251 "\r\n", BAD},
	{"gets " K251 "\r\n", BAD},
	{"gat 0 " K251 "\r\n", BAD},
	{"delete " K251 "\r\nincr " K251 " 1\r\ntouch " K251 " 1\r\n", BAD BAD BAD},
	{"get a b " K251 "\r\n", BAD},
	{"cas a 0 0 1 x\r\n", BAD},
	{"cas a 0 0 1\r\n", "ERROR\r\n"},
	{"GET / HTTP/1.0\r\n" GET_A, ""},
	{"quit\r\n" GET_A, ""},
	{SET_A "quit\r\n", "STORED\r\n"},
	/* add, replace, append, prepend, cas */
	{"add a 5 0 1\r\nx\r\nadd a 0 0 1\r\ny\r\n" GET_A, "STORED\r\nNOT_STORED\r\n" A_IS_X},
	{"replace a 0 0 1\r\ny\r\n" SET_A "replace a 6 0 1\r\ny\r\n" GET_A,
	 "NOT_STORED\r\nSTORED\r\nSTORED\r\nVALUE a 6 1\r\ny\r\nEND\r\n"},
	{"append a 0 0 1\r\ny\r\nprepend a 0 0 1\r\ny\r\n" GET_A,
	 "NOT_STORED\r\nNOT_STORED\r\nEND\r\n"},
	{SET_A "append a 9 -1 2\r\nyz\r\nprepend a 9 -1 2\r\nvw\r\nappend a 0 0 0\r\n\r\n" GET_A,
	 "STORED\r\nSTORED\r\nSTORED\r\nSTORED\r\nVALUE a 5 5\r\nvwxyz\r\nEND\r\n"},
	{"cas a 0 0 1 1\r\ny\r\n" SET_A "cas a 0 0 1 999999999\r\ny\r\n" GET_A,
	 "NOT_FOUND\r\nSTORED\r\nEXISTS\r\n" A_IS_X},
	{"cas a 0 0 1 1 noreply\r\ny\r\n" GET_A, "END\r\n"},
	/* delete */
	{SET_A "delete a\r\ndelete a\r\n" GET_A, "STORED\r\nDELETED\r\nNOT_FOUND\r\nEND\r\n"},
	{SET_A "delete a 0\r\ndelete a noreply\r\ndelete a 0 noreply\r\n", "STORED\r\nDELETED\r\n"},
	{SET_A "delete a 1\r\ndelete a 0 0\r\ndelete a 0 0 0\r\ndelete\r\n" GET_A,
	 "STORED\r\n" USAGE USAGE "ERROR\r\nERROR\r\n" A_IS_X},
	/* numbers */
	{"set n 0 0 2\r\n10\r\nincr n 1\r\ndecr n 2\r\nget n\r\n",
	 "STORED\r\n11\r\n9\r\nVALUE n 0 2\r\n9 \r\nEND\r\n"},
	{"set n 0 0 1\r\n9\r\nincr n 1\r\nget n\r\ndecr n 100\r\nget n\r\n",
	 "STORED\r\n10\r\nVALUE n 0 2\r\n10\r\nEND\r\n0\r\nVALUE n 0 2\r\n0 \r\nEND\r\n"},
	{"set n 3 0 20\r\n18446744073709551615\r\nincr n 2\r\nget n\r\n",
	 "STORED\r\n1\r\nVALUE n 3 20\r\n1                   \r\nEND\r\n"},
	{"set n 0 0 1\r\n5\r\nincr n 18446744073709551615\r\nincr n 18446744073709551616\r\n",
	 "STORED\r\n4\r\n" DELTA},
	{"set n 0 0 20\r\n18446744073709551616\r\nincr n 1\r\n", "STORED\r\n" NUMBER},
	{"set n 0 0 0\r\n\r\nincr n 1\r\nset n 0 0 3\r\n12x\r\ndecr n 1\r\nset n 0 0 "
	 "2\r\n-1\r\nincr n 1\r\n",
	 "STORED\r\n" NUMBER "STORED\r\n" NUMBER "STORED\r\n" NUMBER},
	{"set n 0 0 4\r\n12 x\r\nincr n 1\r\nget n\r\n",
	 "STORED\r\n13\r\nVALUE n 0 4\r\n13  \r\nEND\r\n"},
	{"set n 0 0 3\r\n +5\r\nincr n 1\r\nget n\r\n",
	 "STORED\r\n6\r\nVALUE n 0 3\r\n6  \r\nEND\r\n"},
	{"incr n 1\r\nincr n x\r\nincr n -1\r\nincr n\r\nincr n 1 2 3\r\nincr n noreply\r\n",
	 "NOT_FOUND\r\n" DELTA DELTA "ERROR\r\nERROR\r\n"},
	{"set n 0 0 1\r\n5\r\nincr n 1 noreply\r\ndecr n 2 other\r\n", "STORED\r\n4\r\n"},
	/* expiry and flushing */
	{"set a 0 -1 1\r\nx\r\n" GET_A "add a 5 0 1\r\nx\r\n" GET_A,
	 "STORED\r\nEND\r\nSTORED\r\n" A_IS_X},
	{"set a 0 1000000000 1\r\nx\r\n" GET_A, "STORED\r\nEND\r\n"},
	{"set a 5 2592000 1\r\nx\r\n" GET_A, "STORED\r\n" A_IS_X},
	{SET_A "touch a 100\r\n" GET_A "touch a -1\r\n" GET_A "touch a 0\r\n",
	 "STORED\r\nTOUCHED\r\n" A_IS_X "TOUCHED\r\nEND\r\nNOT_FOUND\r\n"},
	{"touch a x\r\ntouch a\r\ntouch a 0 noreply\r\ntouch a 0 other\r\n",
	 TIME "ERROR\r\nNOT_FOUND\r\n"},
	{SET_A "gat 100 a b\r\ngat -1 a\r\n" GET_A, "STORED\r\n" A_IS_X A_IS_X "END\r\n"},
	{"gat\r\ngat 0\r\ngat x a\r\ngats 0 a\r\n", "ERROR\r\nEND\r\n" TIME "END\r\n"},
	{SET_A
	 "append a 0 0 1\r\ny\r\ntouch a -1\r\nappend a 0 0 1\r\nz\r\nincr a 1\r\ndelete a\r\n",
	 "STORED\r\nSTORED\r\nTOUCHED\r\nNOT_STORED\r\nNOT_FOUND\r\nNOT_FOUND\r\n"},
	{SET_A "flush_all\r\n" GET_A SET_A "flush_all 0\r\n" GET_A SET_A "flush_all -1\r\n" GET_A,
	 "STORED\r\nOK\r\nEND\r\nSTORED\r\nOK\r\nEND\r\nSTORED\r\nOK\r\nEND\r\n"},
	{SET_A "flush_all noreply\r\n" GET_A, "STORED\r\nEND\r\n"},
	{SET_A "flush_all 1000\r\n" GET_A "flush_all 0 noreply\r\n" GET_A,
	 "STORED\r\nOK\r\n" A_IS_X "END\r\n"},
	{"flush_all x\r\nflush_all 0 0\r\nflush_all 0 0 0\r\n", TIME "OK\r\nERROR\r\n"},
	/* the rest */
	{"verbosity 1\r\nverbosity\r\nverbosity x\r\nverbosity noreply\r\nverbosity 0 1 2\r\n",
	 "OK\r\nERROR\r\n" BAD "ERROR\r\n"},
	{"stats foo\r\nreplacx\r\nshutdownx\r\n", "ERROR\r\nERROR\r\nERROR\r\n"},
};

enum { N_CONVERSATIONS = sizeof(conversations) / sizeof(*conversations) };

static struct tgt_cached cached;

static void set_up(void)
{
	tgt_set_up_daemon(NULL);
	CU_ASSERT_FATAL(tgt_cached_start(&cached, 2));
}

static void tear_down(void)
{
	CU_ASSERT_EQUAL(tgt_cached_stop(&cached), 0);
	tgt_held = tgt_check_number("objects");
	tgt_tear_down();
}

/* The whole of one conversation after "flush_all".  The caller's. */
static char *hold(int fd, const char *say, size_t piece)
{
	char *text, *answer;
	size_t n;

	if (asprintf(&text, "flush_all\r\n%s", say) < 0)
		abort();
	answer = tgt_converse(fd, text, strlen(text), piece, &n);
	free(text);
	if (answer != NULL && strncmp(answer, "OK\r\n", 4) == 0)
		memmove(answer, answer + 4, n + 1 - 4);
	return answer;
}

static void hold_all(size_t piece)
{
	for (int i = 0; i < N_CONVERSATIONS; i++) {
		char *answer = hold(tgt_connect_port(cached.port), conversations[i].say, piece);

		CU_ASSERT_PTR_NOT_NULL_FATAL(answer);
		if (strcmp(answer, conversations[i].answer) != 0)
			printf("said:     %s\nanswered: %s\nexpected: %s\n", conversations[i].say,
			       answer, conversations[i].answer);
		CU_ASSERT_STRING_EQUAL(answer, conversations[i].answer);
		free(answer);
	}
}

static void test_answers(void)
{
	hold_all(0);
}

static void test_split(void)
{
	hold_all(1);
	hold_all(7);
}

/* 0: not installed. */
static pid_t start_memcached(const char *path)
{
	const struct timespec pause = {.tv_nsec = 2000000};
	long long end = tgt_now_ms() + TGT_TIMEOUT_MS;
	pid_t pid = fork();
	int fd, status;

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execlp("memcached", "memcached", "-u", "root", "-s", path, (char *)NULL);
		_exit(127);
	}
	while ((fd = tgt_connect_path(path)) < 0 && tgt_now_ms() < end && kill(pid, 0) == 0) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return 0;
		nanosleep(&pause, NULL);
	}
	CU_ASSERT_FATAL(fd >= 0);
	close(fd);
	return pid;
}

static void test_memcached(void)
{
	char path[128];
	pid_t pid;

	snprintf(path, sizeof(path), "%s/memcached", tgt_d.dir);
	pid = start_memcached(path);
	if (pid == 0) {
		printf("(memcached is not installed: not compared) ");
		CU_ASSERT_EQUAL(pid, 0);
		return;
	}
	for (int i = 0; i < N_CONVERSATIONS; i++) {
		char *answer = hold(tgt_connect_path(path), conversations[i].say, 0);

		CU_ASSERT_PTR_NOT_NULL_FATAL(answer);
		if (strcmp(answer, conversations[i].answer) != 0)
			printf("said:      %s\nmemcached: %s\nwe:        %s\n",
			       conversations[i].say, answer, conversations[i].answer);
		CU_ASSERT_STRING_EQUAL(answer, conversations[i].answer);
		free(answer);
	}
	kill(pid, SIGTERM);
	tgt_wait(pid);
	unlink(path);
}

static void test_cas(void)
{
	int fd = tgt_connect_port(cached.port);
	char line[256];
	unsigned long long number = 0, next = 0;

	CU_ASSERT(tgt_cached_set(fd, "a", "x", 1));
	CU_ASSERT(tgt_send(fd, "gets a\r\n", 8, 0) && tgt_read_line(fd, line, sizeof(line)));
	CU_ASSERT_EQUAL(sscanf(line, "VALUE a 0 1 %llu", &number), 1);
	CU_ASSERT(tgt_read_line(fd, line, sizeof(line)) && tgt_read_line(fd, line, sizeof(line)));
	snprintf(line, sizeof(line), "cas a 0 0 1 %llu\r\ny\r\ncas a 0 0 1 %llu\r\nz\r\n", number,
		 number);
	CU_ASSERT(tgt_send(fd, line, strlen(line), 0));
	CU_ASSERT(tgt_read_line(fd, line, sizeof(line)) && strcmp(line, "STORED") == 0);
	CU_ASSERT(tgt_read_line(fd, line, sizeof(line)) && strcmp(line, "EXISTS") == 0);
	CU_ASSERT(tgt_send(fd, "gats 0 a\r\n", 10, 0) && tgt_read_line(fd, line, sizeof(line)));
	CU_ASSERT_EQUAL(sscanf(line, "VALUE a 0 1 %llu", &next), 1);
	CU_ASSERT_NOT_EQUAL(next, number);
	CU_ASSERT(tgt_read_line(fd, line, sizeof(line)) && strcmp(line, "y") == 0);
	close(fd);
}

/* A megabyte is stored; one byte more is refused, swallowed, and the old value is gone. */
static void test_large(void)
{
	const size_t mib = 1 << 20;
	char *value = malloc(mib + 1), *back;
	int fd = tgt_connect_port(cached.port);
	size_t n = 0;

	memset(value, 'v', mib + 1);
	value[mib / 2] = '\n';
	CU_ASSERT(tgt_cached_set(fd, "large", value, mib));
	back = tgt_cached_get(fd, "large", &n);
	CU_ASSERT(back != NULL && n == mib && memcmp(back, value, mib) == 0);
	free(back);
	CU_ASSERT_FALSE(tgt_cached_set(fd, "large", value, mib + 1));
	CU_ASSERT_PTR_NULL(tgt_cached_get(fd, "large", &n));
	CU_ASSERT(tgt_cached_set(fd, "small", "s", 1)); /* the conversation goes on */
	free(value);
	close(fd);
}

static void test_many_keys_in_a_get(void)
{
	enum { N = 40, SIZE = 300000 };
	char *value = malloc(SIZE), *line = malloc(N * 8 + 16), *p = line, answer[64];
	int fd = tgt_connect_port(cached.port), got = 0;

	for (int i = 0; i < N; i++) {
		snprintf(answer, sizeof(answer), "m%d", i);
		memset(value, 'a' + i % 26, SIZE);
		CU_ASSERT(tgt_cached_set(fd, answer, value, SIZE));
	}
	p += sprintf(p, "get");
	for (int i = 0; i < N; i++)
		p += sprintf(p, " m%d", i);
	p += sprintf(p, "\r\n");
	CU_ASSERT(tgt_send(fd, line, (size_t)(p - line),
			   0)); /* 12 MB of answer to a peer that reads slowly */
	while (tgt_read_line(fd, answer, sizeof(answer)) && strcmp(answer, "END") != 0) {
		bool ok = tgt_read_bytes(fd, value, SIZE) && value[0] == 'a' + got % 26 &&
			  value[SIZE - 1] == value[0];

		CU_ASSERT_FATAL(ok);
		CU_ASSERT_FATAL(tgt_read_line(fd, answer, sizeof(answer)));
		got++;
	}
	CU_ASSERT_EQUAL(got, N);
	free(value);
	free(line);
	close(fd);
}

/* Only a get may be long; another line without end ends the conversation. */
static void test_endless_line(void)
{
	char *text = malloc(100000), *answer;
	size_t n = 1;

	memset(text, 'x', 100000);
	answer = tgt_converse(tgt_connect_port(cached.port), text, 100000, 0, &n);
	CU_ASSERT(answer != NULL && n == 0);
	free(answer);
	memcpy(text, "get ", 4);
	for (int i = 4; i < 100000; i += 10)
		text[i] = ' ';
	memcpy(text + 99998, "\r\n", 2);
	answer = tgt_converse(tgt_connect_port(cached.port), text, 100000, 0, &n);
	CU_ASSERT(answer != NULL && strcmp(answer, "END\r\n") == 0);
	free(answer);
	free(text);
}

static bool comes_true(int fd, const char *key)
{
	const struct timespec pause = {.tv_nsec = 20000000};
	long long end = tgt_now_ms() + TGT_TIMEOUT_MS;
	char *value;
	size_t n;

	while ((value = tgt_cached_get(fd, key, &n)) != NULL && tgt_now_ms() < end) {
		free(value);
		nanosleep(&pause, NULL);
	}
	free(value);
	return value == NULL;
}

static void test_expiry(void)
{
	int fd = tgt_connect_port(cached.port);
	char line[128];

	CU_ASSERT(tgt_cached_set(fd, "stays", "x", 1));
	snprintf(line, sizeof(line), "set a 0 1 1\r\nx\r\nset b 0 %lld 1\r\nx\r\n",
		 (long long)time(NULL) + 2);
	CU_ASSERT(tgt_send(fd, line, strlen(line), 0));
	CU_ASSERT(tgt_read_line(fd, line, sizeof(line)) && strcmp(line, "STORED") == 0);
	CU_ASSERT(tgt_read_line(fd, line, sizeof(line)) && strcmp(line, "STORED") == 0);
	CU_ASSERT(comes_true(fd, "a"));
	CU_ASSERT(comes_true(fd, "b"));
	CU_ASSERT_FALSE(tgt_cached_stat(fd, "curr_items") < 1);
	CU_ASSERT(tgt_send(fd, "flush_all 1\r\n", 13, 0) && tgt_read_line(fd, line, sizeof(line)));
	CU_ASSERT(comes_true(fd, "stays"));
	CU_ASSERT(tgt_cached_set(fd, "new", "x", 1));
	CU_ASSERT_FALSE(tgt_cached_stat(fd, "curr_items") != 1);
	close(fd);
}

static void test_stats(void)
{
	static const char *const names[] = {
		"pid",     "uptime",    "time",        "curr_connections", "threads",
		"bytes",   "cmd_get",   "cmd_set",     "get_hits",         "get_misses",
		"version", "evictions", "total_items", "curr_items",       "limit_maxbytes"};
	int fd = tgt_connect_port(cached.port);
	size_t n;

	CU_ASSERT(tgt_cached_set(fd, "a", "x", 1) && tgt_cached_set(fd, "a", "y", 1));
	free(tgt_cached_get(fd, "a", &n));
	CU_ASSERT_PTR_NULL(tgt_cached_get(fd, "b", &n));
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (tgt_cached_stat(fd, names[i]) < 0)
			printf("no number: %s\n", names[i]);
		CU_ASSERT(tgt_cached_stat(fd, names[i]) >= 0);
	}
	CU_ASSERT_EQUAL(tgt_cached_stat(fd, "curr_items"), 1);
	CU_ASSERT_EQUAL(tgt_cached_stat(fd, "total_items"), 2);
	CU_ASSERT_EQUAL(tgt_cached_stat(fd, "cmd_set"), 2);
	CU_ASSERT_EQUAL(tgt_cached_stat(fd, "cmd_get"), 2);
	CU_ASSERT_EQUAL(tgt_cached_stat(fd, "get_hits"), 1);
	CU_ASSERT_EQUAL(tgt_cached_stat(fd, "get_misses"), 1);
	CU_ASSERT_EQUAL(tgt_cached_stat(fd, "threads"), 2);
	CU_ASSERT_EQUAL(tgt_cached_stat(fd, "evictions"), 0);
	CU_ASSERT(tgt_cached_stat(fd, "curr_connections") >= 1);
	close(fd);
}

static CU_TestInfo tests[] = {
	{"every line gets the answer that is written here", test_answers},
	{"the same when it comes in pieces of one byte and of seven", test_split},
	{"memcached gives the same answers", test_memcached},
	{"cas stores once for one number", test_cas},
	{"1 MiB is stored and read back, and one byte more refused", test_large},
	{"a get of many large values comes whole", test_many_keys_in_a_get},
	{"a line without end ends the conversation, unless it is a get", test_endless_line},
	{"items expire, and a flush with delay comes", test_expiry},
	{"stats count", test_stats},
	CU_TEST_INFO_NULL,
};

int main(void)
{
	CU_SuiteInfo suites[] = {
		{"tgcached", NULL, NULL, set_up, tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("tgcached", suites);
}
