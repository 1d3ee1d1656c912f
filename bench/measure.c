/* measure.c - tg-measure: how long a program takes, and how much memory it and its children do at the most.
 *
 * Wall time is that from its start to its end.  Memory is looked at every 2 ms: the sum over all its processes of what is
 * resident, as the kernel counts it (/proc/PID/status: counters, nothing is walked, so that the program hardly notices).
 * What a short peak between two looks may have hidden is made good by the largest process's own peak (ru_maxrss).
 *
 * A program on the shared heap (--tgd) is charged with its private and file pages, and with all memory of the daemon's
 * memory files, in the program's own mapping or not: objects, state records, page map, and what the daemon has backed in
 * advance.  That is what a private allocator's retained pages are.  What the daemon needs for itself is told apart, as
 * it is paid once for all programs.
 *
 * A server (--load) is started first; once the command --ready succeeds, the command --load is run, and timed instead.
 * Both are for sh, and without the preloaded library.
 *
 * usage: tg-measure [--preload FILE] [--tgd PID]... [--stdin FILE] [--stdout FILE] [--ready COMMAND --load COMMAND]
 *                   [--] COMMAND [ARG...]
 *
 * Prints seconds, processor seconds of the program, peak bytes, bytes of the daemon; a failure of the program is ours.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MS   2
#define READY_S   20
#define PIDS_MAX  256
#define FILES_MAX 16
#define TGDS_MAX  4

static const char *preload, *input, *output, *ready, *load_command;
static pid_t tgds[TGDS_MAX];
static int files[FILES_MAX]; /* the daemon's memory files */
static unsigned n_tgds, n_files;
static uint64_t peak_bytes, daemon_bytes;
static pid_t server;

static void die(const char *format, ...)
{
	va_list args;

	fputs("tg-measure: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	if (server > 0)
		kill(server, SIGKILL);
	exit(EXIT_FAILURE);
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- memory ---- */

static size_t read_proc(pid_t pid, const char *name, char *text, size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, text, size - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n > 0 ? (size_t)n : 0;
}

static uint64_t field(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at == NULL ? 0 : strtoull(at + strlen(name), NULL, 10) * 1024;
}

/* A process that has just ended has none. */
static uint64_t resident_of(pid_t pid, bool on_heap)
{
	char text[4096];

	if (read_proc(pid, "status", text, sizeof(text)) == 0)
		return 0;
	return field(text, "\nRssAnon:") + field(text, "\nRssFile:") +
	       (on_heap ? 0 : field(text, "\nRssShmem:"));
}

/* Adds the children of all those that are in the list. */
static unsigned find_family(pid_t pids[PIDS_MAX])
{
	unsigned n = 1, i;

	for (i = 0; i < n; i++) {
		char name[64], text[4096], *at = text, *end;

		snprintf(name, sizeof(name), "task/%d/children", (int)pids[i]);
		read_proc(pids[i], name, text, sizeof(text));
		for (; n < PIDS_MAX; n++, at = end) {
			pids[n] = (pid_t)strtol(at, &end, 10);
			if (end == at)
				break;
		}
	}
	return n;
}

static uint64_t bytes_of_files(void)
{
	struct stat st;
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; i < n_files; i++)
		sum += fstat(files[i], &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
	return sum;
}

static void look(pid_t pid)
{
	pid_t pids[PIDS_MAX] = {pid};
	uint64_t sum = bytes_of_files();
	unsigned i, n = find_family(pids);

	for (i = 0; i < n; i++)
		sum += resident_of(pids[i], n_tgds > 0);
	if (sum > peak_bytes)
		peak_bytes = sum;
}

static bool is_known(const struct stat *st)
{
	struct stat other;
	unsigned i;

	for (i = 0; i < n_files; i++) {
		if (fstat(files[i], &other) == 0 && other.st_ino == st->st_ino &&
		    other.st_dev == st->st_dev)
			return true;
	}
	return false;
}

/* O_PATH: to ask for their size is all we want. */
static void add_file(int dir, const char *name)
{
	char target[64];
	ssize_t n = readlinkat(dir, name, target, sizeof(target) - 1);
	struct stat st;
	int fd;

	target[n > 0 ? n : 0] = '\0';
	if (strncmp(target, "/memfd:", 7) != 0)
		return;
	fd = openat(dir, name, O_PATH | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		die("the daemon's memory file cannot be opened: %m");
	if (is_known(&st)) {
		close(fd);
		return;
	}
	if (n_files == FILES_MAX)
		die("the daemon has more than %d memory files", FILES_MAX);
	files[n_files++] = fd;
}

static void find_files(pid_t tgd)
{
	const struct dirent *entry;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)tgd);
	dir = opendir(path);
	if (dir == NULL)
		die("%s: %m", path);
	while ((entry = readdir(dir)) != NULL)
		add_file(dirfd(dir), entry->d_name);
	closedir(dir);
}

static void look_at_daemon(void)
{
	char text[4096];
	unsigned i;

	for (i = 0; i < n_tgds; i++) {
		read_proc(tgds[i], "status", text, sizeof(text));
		daemon_bytes += field(text, "\nRssAnon:");
	}
}

/* ---- processes ---- */

static void redirect(const char *path, int flags, int to)
{
	int fd = open(path, flags | O_CLOEXEC, 0666);

	if (fd < 0 || dup2(fd, to) < 0) {
		fprintf(stderr, "tg-measure: %s: %m\n", path);
		_exit(126);
	}
}

/* The child, in which this is 0, ends with us. */
static pid_t fork_tied(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		die("fork: %m");
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(126);
	return 0;
}

static pid_t start(char *const *argv)
{
	pid_t pid = fork_tied();

	if (pid > 0)
		return pid;
	redirect(input != NULL ? input : "/dev/null", O_RDONLY, STDIN_FILENO);
	redirect(output != NULL ? output : "/dev/null", O_WRONLY | O_CREAT | O_TRUNC,
		 STDOUT_FILENO);
	if (preload != NULL)
		setenv("LD_PRELOAD", preload, 1);
	execvp(argv[0], argv);
	fprintf(stderr, "tg-measure: %s: %m\n", argv[0]);
	_exit(127);
}

static void expect_success(int status, const char *name)
{
	if (WIFSIGNALED(status))
		die("%s was killed by signal %d", name, WTERMSIG(status));
	if (WEXITSTATUS(status) != 0)
		die("%s ended with status %d", name, WEXITSTATUS(status));
}

/* Until `pid` has ended, looks at the memory of `of`. */
static void watch(pid_t pid, pid_t of)
{
	struct pollfd ended = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
	int r;

	if (ended.fd < 0)
		die("pidfd_open: %m");
	while ((r = poll(&ended, 1, LOOK_MS)) == 0 || (r < 0 && errno == EINTR))
		look(of);
	close(ended.fd);
}

static int wait_for(pid_t pid, struct rusage *usage)
{
	int status;

	while (wait4(pid, &status, 0, usage) < 0) {
		if (errno != EINTR)
			die("wait4: %m");
	}
	return status;
}

static pid_t start_shell(const char *command)
{
	pid_t pid = fork_tied();

	if (pid > 0)
		return pid;
	redirect("/dev/null", O_WRONLY, STDOUT_FILENO);
	execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	_exit(127);
}

static void await_ready(void)
{
	double deadline = now_s() + READY_S;

	while (wait_for(start_shell(ready), NULL) != 0) {
		if (now_s() > deadline || waitpid(server, NULL, WNOHANG) != 0)
			die("the server does not get ready");
		poll(NULL, 0, 20);
	}
}

/* ---- what is measured ---- */

static double measure_program(char *const *argv, struct rusage *ret_usage)
{
	double begin = now_s(), seconds;
	pid_t pid = start(argv);

	server = pid;
	watch(pid, pid);
	seconds = now_s() - begin;
	server = 0;
	expect_success(wait_for(pid, ret_usage), argv[0]);
	return seconds;
}

static double measure_server(char *const *argv, struct rusage *ret_usage)
{
	double begin, seconds;
	pid_t pid;

	server = start(argv);
	await_ready();
	begin = now_s();
	pid = start_shell(load_command);
	watch(pid, server);
	seconds = now_s() - begin;
	expect_success(wait_for(pid, NULL), "the load");
	look(server);
	kill(server, SIGTERM);
	(void)wait_for(server, ret_usage);
	server = 0;
	return seconds;
}

static double cpu_of(const struct rusage *usage)
{
	return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) +
	       (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e6;
}

static void usage_error(void)
{
	fputs("usage: tg-measure [--preload FILE] [--tgd PID]... [--stdin FILE] [--stdout FILE]\n"
	      "                  [--ready COMMAND --load COMMAND] [--] COMMAND [ARG...]\n",
	      stderr);
	exit(2);
}

static void set(int option, const char *value)
{
	switch (option) {
	case 'p':
		preload = value;
		break;
	case 't':
		if (n_tgds == TGDS_MAX || atoi(value) <= 0)
			usage_error();
		tgds[n_tgds] = (pid_t)atoi(value);
		find_files(tgds[n_tgds++]);
		break;
	case 'i':
		input = value;
		break;
	case 'o':
		output = value;
		break;
	case 'r':
		ready = value;
		break;
	case 'l':
		load_command = value;
		break;
	default:
		usage_error();
	}
}

int main(int argc, char **argv)
{
	static const struct option names[] = {
		{"load", required_argument, NULL, 'l'},
		{"preload", required_argument, NULL, 'p'},
		{"ready", required_argument, NULL, 'r'},
		{"stdin", required_argument, NULL, 'i'},
		{"stdout", required_argument, NULL, 'o'},
		{"tgd", required_argument, NULL, 't'},
		{NULL, 0, NULL, 0},
	};
	struct rusage usage = {0};
	double seconds;
	int option;

	while ((option = getopt_long(argc, argv, "+", names, NULL)) >= 0)
		set(option, optarg);
	if (optind == argc || (ready == NULL) != (load_command == NULL))
		usage_error();
	seconds = load_command != NULL ? measure_server(argv + optind, &usage)
				       : measure_program(argv + optind, &usage);
	look_at_daemon();
	if (peak_bytes < (uint64_t)usage.ru_maxrss * 1024)
		peak_bytes = (uint64_t)usage.ru_maxrss * 1024;
	printf("%.4f %.4f %llu %llu\n", seconds, cpu_of(&usage), (unsigned long long)peak_bytes,
	       (unsigned long long)daemon_bytes);
	return 0;
}
