/* worker.c - main of a worker, its arguments, and what it measures with.
 *
 * Nothing here allocates, so that what is measured starts from nothing.
 */
#include "bench/tgbench/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/tgbench/alloc.h"

static char **args;

static const struct {
	const char *name;
	void (*run)(void);
	bool attaches_itself;
} works[] = {
	{"calloc", tgb_work_calloc, false},   {"churn", tgb_work_churn, false},
	{"fresh", tgb_work_fresh, false},     {"growth", tgb_work_growth, false},
	{"larson", tgb_work_larson, false},   {"pair", tgb_work_pair, false},
	{"phases", tgb_work_phases, false},   {"prodcons", tgb_work_prodcons, false},
	{"realloc", tgb_work_realloc, false}, {"reuse", tgb_work_reuse, false},
	{"start", tgb_work_start, true},      {"tinymix", tgb_work_tinymix, false},
	{"twoproc", tgb_work_twoproc, false},
};

/* ---- arguments and answers ---- */

void tgb_die(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vdprintf(STDERR_FILENO, format, list);
	va_end(list);
	dprintf(STDERR_FILENO, "\n");
	_exit(EXIT_FAILURE);
}

const char *tgb_arg_text(const char *name, const char *fallback)
{
	size_t n = strlen(name);
	char **arg;

	for (arg = args; *arg != NULL; arg++) {
		if (strncmp(*arg, name, n) == 0 && (*arg)[n] == '=')
			return *arg + n + 1;
	}
	return fallback;
}

double tgb_arg(const char *name, double fallback)
{
	const char *text = tgb_arg_text(name, NULL);

	return text != NULL ? strtod(text, NULL) : fallback;
}

double tgb_seconds(void)
{
	return tgb_arg("seconds", 0.3);
}

void tgb_report(const char *key, double value)
{
	dprintf(STDOUT_FILENO, "%s %.9g\n", key, value);
}

/* ---- processes ---- */

void tgb_pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		tgb_die("CPU %d: %s", cpu, strerror(errno));
}

int tgb_fork(void (*run)(void *arg), void *arg)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		tgb_die("fork: %s", strerror(errno));
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILURE);
	run(arg);
	_exit(EXIT_SUCCESS);
}

void tgb_wait(int pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || status != 0)
		tgb_die("the other process failed (status %#x)", status);
}

/* ---- time ---- */

static double clock_ns(clockid_t clock)
{
	struct timespec t;

	if (clock_gettime(clock, &t) < 0)
		return 0;
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

double tgb_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

/* Processor time of the daemon's process that serves; 0 without one. */
static double daemon_ns(void)
{
	const char *pid = getenv("TGBENCH_DAEMON");
	clockid_t clock;

	if (pid == NULL || clock_getcpuclockid((pid_t)atoi(pid), &clock) != 0)
		return 0;
	return clock_ns(clock);
}

/* How long this thread could have run and had no CPU.  Waking up may take a while by itself, which is no other program's
 * doing: so much is allowed for each time that it slept. */
#define WAKING_NS 60000

static double kept_waiting_ns(void)
{
	char text[64];
	int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	struct rusage usage;
	const char *delay;

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	delay = strchr(text, ' ');
	getrusage(RUSAGE_THREAD, &usage);
	return delay == NULL ? 0 : strtod(delay, NULL) - (double)usage.ru_nvcsw * WAKING_NS;
}

/* Both at one moment: not with a pause in between. */
static double wall_and_kept_ns(double *ret_kept_ns)
{
	unsigned tries = 0;
	double wall;

	do {
		*ret_kept_ns = kept_waiting_ns();
		wall = tgb_now_ns();
	} while (kept_waiting_ns() > *ret_kept_ns && ++tries < 10);
	return wall;
}

void tgb_use_begin(struct tgb_use *use)
{
	use->messages = tgb_messages();
	use->daemon_ns = daemon_ns();
	use->cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	use->wall_ns = wall_and_kept_ns(&use->kept_ns);
}

void tgb_use_end(struct tgb_use *use)
{
	double kept;

	use->wall_ns = wall_and_kept_ns(&kept) - use->wall_ns;
	use->cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - use->cpu_ns;
	use->daemon_ns = daemon_ns() - use->daemon_ns;
	use->messages = tgb_messages() - use->messages;
	use->kept_ns = fmax(kept - use->kept_ns, 0);
	/* Only where the daemon has another CPU: the time that it takes from us does count. */
	if (tgb_arg("apart", 0) > 0) {
		use->kept_ns = fmin(use->kept_ns, fmax(use->wall_ns - use->cpu_ns, 0));
		use->wall_ns -= use->kept_ns;
	}
}

void tgb_use_report(const struct tgb_use *use, double n_ops)
{
	tgb_report("ns", use->wall_ns / n_ops);
	tgb_report("ops", n_ops);
	tgb_report("wall_s", use->wall_ns / 1e9);
	tgb_report("cpu_s", use->cpu_ns / 1e9);
	tgb_report("daemon_s", use->daemon_ns / 1e9);
	tgb_report("messages", use->messages);
	tgb_report("kept_s", use->kept_ns / 1e9);
}

double tgb_repeat(double seconds, void (*step)(void *arg), void *arg)
{
	double end = tgb_now_ns() + seconds * 1e9, n = 0;

	do {
		step(arg);
		n++;
	} while (tgb_now_ns() < end);
	return n;
}

void tgb_measure(void (*step)(void *arg), void *arg, double ops_per_step)
{
	struct tgb_use use;
	double n;

	tgb_repeat(tgb_seconds() / 4, step, arg);
	tgb_use_begin(&use);
	n = tgb_repeat(tgb_seconds(), step, arg);
	tgb_use_end(&use);
	tgb_use_report(&use, n * ops_per_step);
}

/* ---- tables ---- */

void *tgb_table(size_t bytes)
{
	void *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (table == MAP_FAILED)
		tgb_die("no memory for a table of %zu bytes", bytes);
	return table;
}

static uint32_t size_of(const char *distribution, double lo, double hi, double x)
{
	double size;

	if (strcmp(distribution, "exp") == 0)
		size = fmin(16 - 120 * log(1 - x), 1024);
	else if (strcmp(distribution, "log") == 0)
		size = lo * pow(hi / lo, x);
	else
		size = floor(lo + (hi - lo + 1) * x);
	return (uint32_t)fmin(size, hi);
}

const uint32_t *tgb_sizes(const char *distribution, double lo, double hi)
{
	uint32_t *sizes = tgb_table(TGB_SIZES * sizeof(*sizes));
	uint64_t state = 88172645463325252u;
	unsigned i;

	for (i = 0; i < TGB_SIZES; i++) {
		double x = (double)(tgb_random(&state) >> 11) / 9007199254740992.0;

		sizes[i] = size_of(distribution, lo, hi, x);
	}
	return sizes;
}

int main(int argc, char **argv)
{
	unsigned i;

	if (argc < 2)
		tgb_die("this is a part of tgbench, which starts it");
	args = argv + 2;
	tgb_pin((int)tgb_arg("cpu", -1));
	for (i = 0; i < sizeof(works) / sizeof(*works); i++) {
		if (strcmp(argv[1], works[i].name) != 0)
			continue;
		if (!works[i].attaches_itself)
			tgb_attach();
		works[i].run();
		return EXIT_SUCCESS;
	}
	if (strcmp(argv[1], "probe") != 0)
		tgb_die("no workload %s", argv[1]);
	tgb_report("ok", 1);
	return EXIT_SUCCESS;
}
