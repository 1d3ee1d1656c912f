/* test_malloc.c - programs that know nothing of Together, with libtgmalloc.so preloaded: malloc
 * and its family, C++ operators, fork, threads, a heap that is full, and a daemon that is not
 * there or goes.
 *
 * The programs are malloc_user, fork_user, fork_threads and new_user; each test runs one story of theirs.  When
 * all its processes have ended, the heap must be sound and hold nothing.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/daemon.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

static const char *of_environment(const char *name)
{
	const char *value = getenv(name);

	return value ? value : "";
}

/* Runs a program of the build tree, preloaded.  Its status; *ret_output is the caller's. */
static int run_user(const char *program, const char *story, char **ret_output)
{
	char path[512], preload[512];
	const char *argv[] = {"/usr/bin/env", preload, path, story, NULL};

	snprintf(path, sizeof(path), "%s/%s", of_environment("TG_BUILDDIR"), program);
	snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", of_environment("TGMALLOC"));
	return tgt_run_program(argv, ret_output);
}

/* One story that ends well, and says nothing. */
static void tell(const char *program, const char *story)
{
	char *output = NULL;
	int status = run_user(program, story, &output);

	CU_ASSERT_EQUAL(status, 0);
	CU_ASSERT_STRING_EQUAL(output, "");
	if (status != 0 || (output && *output != '\0'))
		printf("%s %s: status %d\n%s\n", program, story, status, output);
	free(output);
	CU_ASSERT(tgt_wait_at_most("clients", 0));
	CU_ASSERT(tgt_status("recovered_clients") > 0);
}

#define MALLOC_USER  "tests/integration/malloc_user"
#define FORK_USER    "tests/integration/fork_user"
#define FORK_THREADS "tests/integration/fork_threads"

static void set_up(void)
{
	tgt_set_up_daemon(NULL);
}

/* A program that makes next to nothing: more than it can have used is what came at the start. */
static void first_spans(void)
{
	tell(MALLOC_USER, "on-heap");
	CU_ASSERT_EQUAL(tgt_status("peak_span_bytes"), 18 * 8192);
	/* Attach, a slot, all spans: nothing else was asked for. */
	CU_ASSERT_EQUAL(tgt_status("messages"), 3);
}

/* All up to 4 KiB, once it shows that the program needs more than the usual ones. */
static void other_spans(void)
{
	tell(MALLOC_USER, "few-classes");
	CU_ASSERT(tgt_status("peak_span_bytes") < 24 * 8192);
	tell(MALLOC_USER, "many-classes");
	CU_ASSERT(tgt_status("peak_span_bytes") > 40 * 8192);
}

/* Spans of their classes would be 116 pages. */
static void first_of_few_slots(void)
{
	tell(MALLOC_USER, "few-slots");
	CU_ASSERT(tgt_status("peak_span_bytes") < (18 + 80) * 8192);
}

/* 17 usual ones, one of its own, and then one of its class. */
static void one_at_a_time(void)
{
	tell(MALLOC_USER, "few-slots-again");
	CU_ASSERT(tgt_status("peak_span_bytes") < (18 + 20) * 8192);
}

static void set_up_small(void)
{
	static const char *const args[] = {"--limit", "64M", NULL};

	tgt_set_up_daemon(args);
}

/* ---- malloc ---- */

static void sizes(void)
{
	tell(MALLOC_USER, "sizes");
}

static void calloc_clears(void)
{
	tell(MALLOC_USER, "calloc");
}

static void realloc_keeps(void)
{
	tell(MALLOC_USER, "realloc");
}

static void aligned(void)
{
	tell(MALLOC_USER, "aligned");
}

static void errors(void)
{
	tell(MALLOC_USER, "errors");
}

static void errno_stays(void)
{
	tell(MALLOC_USER, "errno");
}

static void threads(void)
{
	tell(MALLOC_USER, "threads");
}

static void cancelled(void)
{
	tell(MALLOC_USER, "cancelled");
}

static void double_free(void)
{
	char *output = NULL;

	CU_ASSERT_EQUAL(run_user(MALLOC_USER, "double-free", &output), 128 + SIGABRT);
	CU_ASSERT_PTR_NOT_NULL(strstr(output, "double free of 0x"));
	CU_ASSERT_PTR_NOT_NULL(strstr(output, "class 9 (112 bytes)"));
	free(output);
	CU_ASSERT(tgt_wait_at_most("clients", 0));
}

static CU_TestInfo malloc_tests[] = {
	{"objects of every size lie in the heap, are aligned to 16 bytes and may be written in "
	 "full",
	 sizes},
	{"calloc clears memory that was used before", calloc_clears},
	{"realloc keeps what fits, from every size to every other", realloc_keeps},
	{"posix_memalign, aligned_alloc, memalign, valloc and pvalloc align", aligned},
	{"absurd sizes are ENOMEM in every function", errors},
	{"malloc and free that succeed leave errno alone", errno_stays},
	{"a program starts with a span of each usual class", first_spans},
	{"one that needs others gets a span of each", other_spans},
	{"one that needs large small ones does not get a whole span for each", first_of_few_slots},
	{"nor one that has one of them at a time", one_at_a_time},
	{"480 threads that come and go leave no more caches than ran at once", threads},
	{"threads cancelled inside malloc leave no lock behind", cancelled},
	{"a double free is named and aborts", double_free},
	CU_TEST_INFO_NULL,
};

/* ---- fork ---- */

static void fork_private(void)
{
	tell(FORK_USER, "private");
}

static void fork_inherited(void)
{
	tell(FORK_USER, "inherited");
}

static void fork_generations(void)
{
	tell(FORK_USER, "generations");
}

static void fork_outlives(void)
{
	tell(FORK_USER, "outlives-parent");
}

static void fork_threads(void)
{
	tell(FORK_THREADS, "among-threads");
}

static void fork_by_threads(void)
{
	tell(FORK_THREADS, "by-many-threads");
}

static void fork_stack(void)
{
	tell(FORK_THREADS, "stack-in-heap");
}

static void fork_descriptors(void)
{
	tell(FORK_THREADS, "no-descriptors");
}

static void fork_library(void)
{
	tell(FORK_THREADS, "leaves-threads-alone");
}

static void fork_executes(void)
{
	tell(FORK_USER, "executes");
}

static CU_TestInfo fork_tests[] = {
	{"neither side of a fork sees what the other does to its objects", fork_private},
	{"a child frees, resizes and replaces what it inherited", fork_inherited},
	{"each of four generations has its own copy", fork_generations},
	{"a child keeps what it inherited when its parent's memory is given to it anew",
	 fork_outlives},
	{"objects under a lock that a fork handler takes are whole in the child", fork_threads},
	{"four threads fork at the same time", fork_by_threads},
	{"a fork on a stack that lies in the heap", fork_stack},
	{"a fork with all descriptors closed, and with all in use", fork_descriptors},
	{"fork leaves files and thread-specific values of the parent's threads alone",
	 fork_library},
	{"a program executed by a process with children runs on the heap, too", fork_executes},
	CU_TEST_INFO_NULL,
};

/* ---- a heap with a limit ---- */

static void full(void)
{
	tell(MALLOC_USER, "full");
}

static void operators(void)
{
	char source[512], program[128];
	const char *compile[] = {"/usr/bin/env", "g++",   "-std=c++17", "-O1",
				 "-o",           program, source,       NULL};
	const char *preload[] = {"/usr/bin/env", source, program, NULL};
	const char *version[] = {"/usr/bin/env", "g++", "--version", NULL};
	char *output = NULL;
	int status;

	status = tgt_run_program(version, &output);
	free(output);
	if (status == 127) {
		printf("no g++ here: not run\n");
		CU_PASS("no g++");
		return;
	}
	snprintf(program, sizeof(program), "%s/new_user", tgt_d.dir);
	snprintf(source, sizeof(source), "%s/tests/integration/new_user.cc",
		 of_environment("TG_SRCDIR"));
	CU_ASSERT_EQUAL_FATAL(tgt_run_program(compile, NULL), 0);
	snprintf(source, sizeof(source), "LD_PRELOAD=%s", of_environment("TGMALLOC"));
	status = tgt_run_program(preload, &output);
	CU_ASSERT_EQUAL(status, 0);
	if (status != 0)
		printf("status %d\n%s\n", status, output);
	free(output);
	CU_ASSERT(tgt_wait_at_most("clients", 0));
}

static CU_TestInfo limit_tests[] = {
	{"a full heap is NULL and ENOMEM, and can be used again when it is not", full},
	{"C++ new and delete in all forms, with bad_alloc and the new handler", operators},
	CU_TEST_INFO_NULL,
};

/* ---- without a daemon ---- */

static char directory[64];

static void set_up_nothing(void)
{
	char path[128];

	snprintf(directory, sizeof(directory), "/tmp/tg-test-malloc-XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/sock", directory);
	setenv("TG_SOCKET", path, 1);
}

static void tear_down_nothing(void)
{
	const char *argv[] = {"/bin/rm", "-rf", directory, NULL};

	CU_ASSERT_EQUAL(tgt_run_program(argv, NULL), 0);
	unsetenv("TG_SOCKET");
}

static int count_lines(const char *text)
{
	int n = 0;

	for (; *text != '\0'; text++)
		n += *text == '\n';
	return n;
}

static void no_daemon(void)
{
	char *tgd = strdup(of_environment("TGD"));
	char *output = NULL;

	setenv("TGD", "/nonexistent/tgd", 1);
	CU_ASSERT_EQUAL(run_user(MALLOC_USER, "not-on-heap", &output), 0);
	setenv("TGD", tgd, 1);
	CU_ASSERT_PTR_NOT_NULL(strstr(output, "together: libtgmalloc: malloc_user (pid "));
	CU_ASSERT_PTR_NOT_NULL(strstr(output, "goes on with the C library's malloc"));
	CU_ASSERT_PTR_NOT_NULL(strstr(output, "/nonexistent/tgd"));
	CU_ASSERT_EQUAL(count_lines(output), 1);
	free(output);
	free(tgd);
}

static void starts_one(void)
{
	struct tgt_daemon d = {0};
	const char *stop[] = {"stop", NULL};
	char *output = NULL;
	int status = -1;

	CU_ASSERT_EQUAL(run_user(MALLOC_USER, "on-heap", &output), 0);
	CU_ASSERT_STRING_EQUAL(output, "");
	free(output);
	snprintf(d.socket, sizeof(d.socket), "%s", getenv("TG_SOCKET"));
	json_decref(tgt_tgctl(&d, stop, &status));
	CU_ASSERT_EQUAL(status, 0);
}

/* A program that has been told "go" by itself when it had objects, ends well although tgd is
 * killed then. */
static void daemon_dies(void)
{
	char path[512], preload[512], line[64] = "";
	int to[2], from[2], status = -1;
	FILE *out;
	pid_t pid;

	tgt_set_up_daemon(NULL);
	snprintf(path, sizeof(path), "%s/%s", of_environment("TG_BUILDDIR"), MALLOC_USER);
	snprintf(preload, sizeof(preload), "%s", of_environment("TGMALLOC"));
	CU_ASSERT_EQUAL_FATAL(pipe(to) + pipe(from), 0);
	pid = fork();
	if (pid == 0) {
		setenv("LD_PRELOAD", preload, 1);
		setenv("TGD", "/nonexistent/tgd", 1);
		if (dup2(to[0], 0) < 0 || dup2(from[1], 1) < 0 || dup2(from[1], 2) < 0)
			_exit(126);
		close(to[0]);
		close(to[1]);
		close(from[0]);
		close(from[1]);
		execl(path, path, "daemon-dies", NULL);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	out = fdopen(from[0], "r");
	CU_ASSERT_PTR_NOT_NULL_FATAL(out);
	CU_ASSERT_PTR_NOT_NULL(fgets(line, sizeof(line), out));
	CU_ASSERT_STRING_EQUAL(line, "go\n");
	tgt_daemon_kill(&tgt_d);
	close(to[1]);
	CU_ASSERT_PTR_NOT_NULL(fgets(line, sizeof(line), out));
	CU_ASSERT_PTR_NOT_NULL(strstr(line, "together: libtgmalloc: malloc_user"));
	while (fgets(line, sizeof(line), out))
		;
	fclose(out);
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_EQUAL(status, 0);
	(void)tgt_daemon_stop(&tgt_d);
}

static CU_TestInfo daemon_tests[] = {
	{"without a daemon the program runs on the C library's malloc and says so in one line",
	 no_daemon},
	{"a daemon is started if none listens", starts_one},
	{"a program survives its daemon", daemon_dies},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"malloc", NULL, NULL, set_up, tgt_tear_down, malloc_tests},
	{"malloc after fork", NULL, NULL, set_up, tgt_tear_down, fork_tests},
	{"malloc within a limit", NULL, NULL, set_up_small, tgt_tear_down, limit_tests},
	{"malloc without a daemon", NULL, NULL, set_up_nothing, tear_down_nothing, daemon_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	if (*of_environment("TG_SANITIZER") != '\0') {
		printf("a library with a sanitizer in it cannot be preloaded: not run\n");
		return 77;
	}
	return tgt_run("malloc", suites);
}
