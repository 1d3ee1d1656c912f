/* work-start.c - how long it takes until the first object is there: in a new process, and in a child after fork.
 *
 * first_us: around attaching and the first malloc.  exec_us: a program that does that, frees, and ends, from before its
 * start (posix_spawn) to after its end.  fork_us: from before fork until the child has its first object.
 */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/tgbench/alloc.h"
#include "bench/tgbench/worker.h"

#define TIMES 40

extern char **environ;

static double figures[3][TIMES];

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void report_median(const char *key, double *values, unsigned n)
{
	qsort(values, n, sizeof(*values), by_value);
	tgb_report(key, values[n / 2] / 1e3);
}

static void first_object(void)
{
	void *object = TGB_MALLOC(64);

	if (object == NULL)
		tgb_die("out of memory");
	tgb_write(object, true, 1);
	TGB_FREE(object);
}

/* The program that is started. */
static void trivial(void)
{
	double start = tgb_now_ns();
	int to = (int)tgb_arg("trivial", -1);

	tgb_attach();
	first_object();
	start = tgb_now_ns() - start;
	if (write(to, &start, sizeof(start)) != sizeof(start))
		tgb_die("nobody listens");
	close(to);
}

static void start_one(int ends[2], unsigned i)
{
	char path[4096], arg[32];
	char *const argv[] = {path, (char *)"start", arg, NULL};
	double start;
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	int status;
	pid_t pid;

	path[n > 0 ? n : 0] = '\0';
	snprintf(arg, sizeof(arg), "trivial=%d", ends[1]);
	start = tgb_now_ns();
	if (posix_spawn(&pid, path, NULL, NULL, argv, environ) != 0 ||
	    waitpid(pid, &status, 0) != pid || status != 0)
		tgb_die("the program failed");
	figures[0][i] = tgb_now_ns() - start;
	if (read(ends[0], &figures[1][i], sizeof(double)) != sizeof(double))
		tgb_die("the program said nothing");
}

struct born {
	double start, done;
};

static void child(void *arg)
{
	struct born *born = arg;

	tgb_attach_child();
	first_object();
	born->done = tgb_now_ns();
}

static void fork_one(struct born *born, unsigned i)
{
	int pid;

	born->start = tgb_now_ns();
	pid = tgb_fork(child, born);
	tgb_wait(pid);
	figures[2][i] = born->done - born->start;
}

void tgb_work_start(void)
{
	unsigned i, n = tgb_arg("scale", 1) < 1 ? TIMES / 4 : TIMES;
	struct born *born;
	int ends[2];

	if (tgb_arg("trivial", -1) >= 0) {
		trivial();
		return;
	}
	if (pipe(ends) < 0)
		tgb_die("no pipe");
	for (i = 0; i < n; i++)
		start_one(ends, i);
	tgb_attach();
	first_object();
	born = tgb_shared_new("born", sizeof(*born));
	for (i = 0; i < n; i++)
		fork_one(born, i);
	report_median("exec_us", figures[0], n);
	report_median("first_us", figures[1], n);
	report_median("fork_us", figures[2], n);
}
