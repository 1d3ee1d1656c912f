/* run.c - runs one workload on one allocator: a worker process, with a daemon and a heap of its own where it is Together.
 *
 * The worker leads a process group, so that all that it has forked can be ended with it.  What it prints is read through
 * a pipe; it has a deadline; and whatever becomes of it becomes of this run alone.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/tgbench/tgbench.h"
#include "tests/support/daemon.h"

#define ARGS_MAX 24

/* Other programs may have the CPU for this part of the time. */
#define DISTURBED 0.03

struct worker {
	const char *program, *preload, *setting;
	char *argv[ARGS_MAX];
	char socket[100], daemon[32];
	double deadline_s;
	int cpu; /* of all its threads from the start; -1: it pins itself */
	/* what came of it */
	char output[4096], errors[4096];
	bool hung;
	int status;
};

/* ---- the worker process ---- */

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void become(const struct worker *w, pid_t parent, int out, int err)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent || setpgid(0, 0) < 0 ||
	    dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
		_exit(126);
	if (w->cpu >= 0)
		pin(w->cpu);
	unsetenv("TG_HEAP");
	unsetenv("TG_ON_ERROR");
	if (w->setting != NULL)
		putenv((char *)w->setting);
	if (w->socket[0] != '\0') {
		setenv("TG_SOCKET", w->socket, 1);
		setenv("TGBENCH_DAEMON", w->daemon, 1);
	}
	if (w->preload != NULL)
		setenv("LD_PRELOAD", w->preload, 1);
	execv(w->program, w->argv);
	dprintf(STDERR_FILENO, "%s: %s\n", w->program, strerror(errno));
	_exit(127);
}

static bool read_more(int fd, char *text, size_t size)
{
	size_t n = strlen(text);
	char rest[256];
	ssize_t got;

	if (n + 1 < size)
		got = read(fd, text + n, size - n - 1);
	else
		got = read(fd, rest, sizeof(rest));
	if (got > 0 && n + 1 < size)
		text[n + (size_t)got] = '\0';
	return got > 0;
}

/* Until both are closed, or the deadline. */
static bool collect(struct worker *w, int out, int err)
{
	double end = tgb_now_s() + w->deadline_s;
	struct pollfd fds[2] = {{.fd = out, .events = POLLIN}, {.fd = err, .events = POLLIN}};

	while (fds[0].fd >= 0 || fds[1].fd >= 0) {
		double left = end - tgb_now_s();

		if (left <= 0 || poll(fds, 2, (int)(left * 1000) + 1) == 0)
			return false;
		if (fds[0].revents != 0 && !read_more(out, w->output, sizeof(w->output)))
			fds[0].fd = -1;
		if (fds[1].revents != 0 && !read_more(err, w->errors, sizeof(w->errors)))
			fds[1].fd = -1;
	}
	return true;
}

static void run_worker(struct worker *w)
{
	pid_t parent = getpid(), pid;
	int out[2], err[2];

	w->output[0] = w->errors[0] = '\0';
	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
		tgb_fail("pipe: %s", strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		tgb_fail("fork: %s", strerror(errno));
	if (pid == 0)
		become(w, parent, out[1], err[1]);
	setpgid(pid, pid);
	close(out[1]);
	close(err[1]);
	w->hung = !collect(w, out[0], err[0]);
	if (w->hung)
		kill(-pid, SIGKILL);
	waitpid(pid, &w->status, 0);
	kill(-pid, SIGKILL); /* what it has left behind */
	close(out[0]);
	close(err[0]);
}

/* ---- its daemon ---- */

/* The daemon is to have another CPU than the worker: it inherits ours while it is started. */
static void pin_to_others(const struct tgb_bench *b, const struct tgb_cell *cell,
			  cpu_set_t *ret_before)
{
	cpu_set_t set;

	sched_getaffinity(0, sizeof(*ret_before), ret_before);
	set = *ret_before;
	if (!cell->two_cores && CPU_COUNT(&set) > 1) {
		CPU_CLR(b->cpu, &set);
		sched_setaffinity(0, sizeof(set), &set);
	}
}

static int start_daemon(const struct tgb_bench *b, const struct tgb_cell *cell,
			struct tgt_daemon *d, struct worker *w)
{
	static const char *const args[] = {"--reserve", "64G", "--limit", "12G", NULL};
	cpu_set_t before;
	int r;

	pin_to_others(b, cell, &before);
	memset(d, 0, sizeof(*d));
	r = tgt_daemon_start(d, args);
	sched_setaffinity(0, sizeof(before), &before);
	if (r < 0)
		return r;
	strcpy(w->socket, d->socket);
	snprintf(w->daemon, sizeof(w->daemon), "%d", (int)tgt_daemon_worker(d, NULL));
	return 0;
}

/* ---- arguments and answers ---- */

static void add_arg(struct worker *w, unsigned *n, const char *text)
{
	if (*n + 1 == ARGS_MAX)
		tgb_fail("too many arguments for a worker");
	w->argv[*n] = strdup(text);
	if (w->argv[(*n)++] == NULL)
		tgb_fail("out of memory");
}

static void add_number(struct worker *w, unsigned *n, const char *name, double value)
{
	char text[64];

	snprintf(text, sizeof(text), "%s=%.6g", name, value);
	add_arg(w, n, text);
}

/* How much of the memory of a full run. */
static double scale(const struct tgb_bench *b)
{
	return b->quick ? 0.1 : 1;
}

static void make_args(const struct tgb_bench *b, const struct tgb_cell *cell, struct worker *w)
{
	char text[256], *word, *rest = NULL;
	unsigned n = 0;

	add_arg(w, &n, w->program);
	snprintf(text, sizeof(text), "%s", cell->args);
	for (word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
		add_arg(w, &n, word);
	add_number(w, &n, "seconds", b->seconds);
	add_number(w, &n, "scale", scale(b));
	/* Single-core work on the last CPU, work for two on the first two. */
	add_number(w, &n, "cpu", cell->two_cores ? 0 : b->cpu);
	add_number(w, &n, "cpu2", b->cpu2);
	add_number(w, &n, "apart", !cell->two_cores && b->n_cpus > 1);
}

static void free_args(struct worker *w)
{
	char **arg;

	for (arg = w->argv; *arg != NULL; arg++)
		free(*arg);
}

static bool value_of(const struct worker *w, const char *key, double *ret_value)
{
	const char *line = w->output;
	size_t n = strlen(key);
	bool found = false;

	/* The last one counts. */
	for (; line != NULL; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, n) == 0 && line[n] == ' ') {
			*ret_value = strtod(line + n, NULL);
			found = true;
		}
	}
	return found;
}

/* The last line that it wrote to standard error. */
static void note_error(struct tgb_run *run, struct worker *w)
{
	char *end = w->errors + strlen(w->errors), *line;

	while (end > w->errors && isspace((unsigned char)end[-1]))
		*--end = '\0';
	line = strrchr(w->errors, '\n');
	snprintf(run->error, sizeof(run->error), "%s", line != NULL ? line + 1 : w->errors);
}

static void judge(const struct tgb_cell *cell, struct worker *w, struct tgb_run *run)
{
	unsigned i;

	run->outcome = w->hung                       ? TGB_HUNG
		       : WIFSIGNALED(w->status)      ? TGB_CRASHED
		       : WEXITSTATUS(w->status) != 0 ? TGB_FAILED
						     : TGB_OK;
	for (i = 0; cell->metrics[i].key != NULL && run->outcome == TGB_OK; i++) {
		if (!value_of(w, cell->metrics[i].key, &run->values[i]))
			run->values[i] = -1; /* this allocator has no such figure */
	}
	value_of(w, "ops", &run->n_ops);
	value_of(w, "wall_s", &run->wall_s);
	value_of(w, "cpu_s", &run->cpu_s);
	value_of(w, "daemon_s", &run->daemon_s);
	value_of(w, "messages", &run->messages);
	value_of(w, "kept_s", &run->kept_s);
	run->disturbed = run->kept_s > DISTURBED * run->wall_s;
	if (run->outcome == TGB_OK)
		return;
	note_error(run, w);
	if (run->outcome == TGB_CRASHED && run->error[0] == '\0')
		snprintf(run->error, sizeof(run->error), "%s", strsignal(WTERMSIG(w->status)));
	if (run->outcome == TGB_HUNG)
		snprintf(run->error, sizeof(run->error), "no end after %.0f s", w->deadline_s);
}

/* What the cell will need, and what allocators need besides. */
static size_t bytes_ready(const struct tgb_bench *b, const struct tgb_cell *cell)
{
	return (size_t)(cell->fresh_bytes * scale(b) * 1.1);
}

void tgb_run_cell(struct tgb_bench *b, const struct tgb_cell *cell, const struct tgb_allocator *a,
		  struct tgb_run *ret_run)
{
	bool has_daemon = a->kind == TGB_SELF || a->kind == TGB_PRELOAD;
	struct worker w = {.program = a->worker,
			   .preload = a->preload,
			   .setting = a->setting,
			   .deadline_s = cell->deadline_s + 10 * b->seconds,
			   .cpu = a->kind == TGB_GO ? b->cpu : -1};
	static struct tgt_daemon d;
	double before = b->ping_us;

	memset(ret_run, 0, sizeof(*ret_run));
	if (has_daemon && start_daemon(b, cell, &d, &w) < 0) {
		ret_run->outcome = TGB_FAILED;
		strcpy(ret_run->error, "tgd cannot be started");
		return;
	}
	make_args(b, cell, &w);
	/* The figure after one run is that before the next. */
	if (cell->two_cores && before == 0)
		before = tgb_pingpong_us(0, b->cpu2);
	if (cell->fresh_bytes > 0)
		ret_run->ready_s = tgb_ready_take(bytes_ready(b, cell));
	tgb_ready_give();
	run_worker(&w);
	b->ping_us = cell->two_cores ? tgb_pingpong_us(0, b->cpu2) : 0;
	judge(cell, &w, ret_run);
	ret_run->far = b->ping_us >= TGB_NEAR_US;
	ret_run->moved = cell->two_cores && (before >= TGB_NEAR_US) != ret_run->far;
	free_args(&w);
	if (has_daemon && tgt_daemon_stop(&d) != 0 && ret_run->outcome == TGB_OK) {
		ret_run->outcome = TGB_FAILED;
		strcpy(ret_run->error, "tgd did not end well");
	}
	/* For the next run, before a host takes it. */
	if (cell->fresh_bytes > 0)
		(void)tgb_ready_take(bytes_ready(b, cell));
}

const char *tgb_run_probe(const struct tgb_allocator *a)
{
	struct worker w = {.program = a->worker,
			   .preload = a->kind == TGB_PRELOAD ? NULL : a->preload,
			   .argv = {(char *)a->worker, (char *)"probe", NULL},
			   .deadline_s = 20,
			   .cpu = -1};

	run_worker(&w);
	if (a->kind == TGB_PRELOAD && access(a->preload, R_OK) < 0)
		return "libtgmalloc.so is not built";
	if (w.hung || w.status != 0)
		return "its worker does not start";
	/* The loader says so, and goes on without it. */
	if (strstr(w.errors, "cannot be preloaded") != NULL)
		return "its library is not here";
	return NULL;
}
