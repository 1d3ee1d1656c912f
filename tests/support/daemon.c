/* daemon.c - starts and stops a real tgd, reads its log, asks tgctl.
 *
 * The log goes to a file, since a pipe that a test does not read would fill up; inotify says when
 * it has grown.  Ends of processes are waited for by pidfd, so every wait is for an event and has a
 * deadline.
 */
#include "tests/support/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARGS_MAX 64
#define GRACE_MS 5000 /* from SIGTERM to SIGKILL */

static const char *program(const char *variable, const char *fallback)
{
	const char *path = getenv(variable);

	return path != NULL && *path != '\0' ? path : fallback;
}

static long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static int ms_left(long long deadline)
{
	long long left = deadline - now_ms();

	return left > 0 ? (int)left : 0;
}

/* ---- processes ---- */

/* In the child: becomes the program, with these for standard output and error.  `group`: with all that it
 * starts it is a group of processes, as a daemon is; killed alone, the one that we started would be replaced. */
static void become(const char *const *argv, pid_t parent, int out, int err, unsigned n_files,
		   bool group)
{
	struct rlimit files = {.rlim_cur = n_files, .rlim_max = n_files};

	if (prctl(PR_SET_PDEATHSIG, group ? SIGTERM : SIGKILL) < 0 || getppid() != parent)
		_exit(126);
	if (group && setpgid(0, 0) < 0)
		_exit(126);
	if (n_files > 0 && setrlimit(RLIMIT_NOFILE, &files) < 0)
		_exit(126);
	if (dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
		_exit(126);
	execv(argv[0], (char *const *)argv);
	dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

static pid_t spawn(const char *const *argv, int out, int err, unsigned n_files, bool group)
{
	pid_t parent = getpid(), pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0)
		become(argv, parent, out, err, n_files, group);
	if (pid > 0 && group)
		setpgid(pid, pid);
	return pid < 0 ? -errno : pid;
}

/* Waits for the end of a child: its status, or -ETIMEDOUT, and then it still runs. */
static int wait_child(pid_t pid, long long deadline)
{
	struct pollfd p = {.events = POLLIN};
	int status, r;

	p.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (p.fd < 0)
		return -errno;
	do
		r = poll(&p, 1, ms_left(deadline));
	while (r < 0 && errno == EINTR);
	close(p.fd);
	if (r == 0)
		return -ETIMEDOUT;
	if (r < 0 || waitpid(pid, &status, 0) != pid)
		return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int kill_child(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -ETIMEDOUT;
}

/* In one call: none of them gets to act on the death of another. */
static void kill_group(pid_t group)
{
	kill(-group, SIGKILL);
}

/* The first one may have something to undo. */
static void end_group(pid_t group)
{
	int ended;

	kill(-group, SIGTERM);
	ended = wait_child(group, now_ms() + GRACE_MS);
	kill_group(group);
	if (ended < 0)
		kill_child(group);
}

/* Reads to the end of the file, or the deadline.  The caller's; NULL: out of memory. */
static char *read_all(int fd, long long deadline)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t size = 4096, n = 0;
	char *text = malloc(size);
	ssize_t got;

	while (text != NULL) {
		if (poll(&p, 1, ms_left(deadline)) <= 0)
			break;
		got = read(fd, text + n, size - n - 1);
		if (got <= 0)
			break;
		n += (size_t)got;
		if (n + 1 == size) {
			char *more = realloc(text, size *= 2);

			if (more == NULL)
				free(text);
			text = more;
		}
	}
	if (text != NULL)
		text[n] = '\0';
	return text;
}

/* Runs a program to its end; `err` < 0: its standard error goes where its output goes. */
static int run(const char *const *argv, int err, int timeout_ms, bool group, char **ret_output)
{
	long long deadline = now_ms() + timeout_ms;
	int ends[2], status;
	char *output;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid = spawn(argv, ends[1], err < 0 ? ends[1] : err, 0, group);
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return pid;
	}
	output = read_all(ends[0], deadline);
	close(ends[0]);
	status = wait_child(pid, deadline);
	if (status < 0 && group)
		end_group(pid);
	else if (status < 0)
		kill_child(pid);
	if (ret_output != NULL)
		*ret_output = output;
	else
		free(output);
	return status;
}

int tgt_run_program(const char *const *argv, char **ret_output)
{
	return run(argv, -1, TGT_TIMEOUT_MS, false, ret_output);
}

int tgt_run_long_program(const char *const *argv, int timeout_ms, char **ret_output)
{
	return run(argv, -1, timeout_ms, true, ret_output);
}

/* ---- the daemon ---- */

const char *tgt_daemon_log(struct tgt_daemon *d)
{
	int fd = open(d->log_path, O_RDONLY | O_CLOEXEC);

	free(d->log);
	d->log = fd < 0 ? NULL : read_all(fd, now_ms() + TGT_TIMEOUT_MS);
	if (fd >= 0)
		close(fd);
	return d->log != NULL ? d->log : "";
}

static void show_log(struct tgt_daemon *d)
{
	fprintf(stderr, "---- log of tgd (pid %d):\n%s----\n", (int)d->pid, tgt_daemon_log(d));
}

/* Waits for the text, or the end of the process.  0, -ECHILD, -ETIMEDOUT. */
static int wait_log(struct tgt_daemon *d, const char *text)
{
	long long deadline = now_ms() + TGT_TIMEOUT_MS;
	int changes = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), r = -ETIMEDOUT;
	int process = (int)syscall(SYS_pidfd_open, d->pid, 0);
	struct pollfd p[2] = {{.fd = changes, .events = POLLIN}, {.fd = process, .events = POLLIN}};
	char events[4096];

	if (changes < 0 || process < 0 || inotify_add_watch(changes, d->log_path, IN_MODIFY) < 0)
		r = -errno;
	while (r == -ETIMEDOUT) {
		bool ended = (p[1].revents & POLLIN) != 0;

		if (strstr(tgt_daemon_log(d), text) != NULL)
			r = 0;
		else if (ended)
			r = -ECHILD;
		else if (poll(p, 2, ms_left(deadline)) == 0)
			break;
		while (read(changes, events, sizeof(events)) > 0)
			;
	}
	if (changes >= 0)
		close(changes);
	if (process >= 0)
		close(process);
	return r;
}

bool tgt_daemon_wait_log(struct tgt_daemon *d, const char *text)
{
	return wait_log(d, text) == 0;
}

static int make_dir(struct tgt_daemon *d)
{
	const char *tmp = getenv("TMPDIR");

	*d = (struct tgt_daemon){.pid = 0};
	/* A socket's path is short. */
	if (tmp == NULL || *tmp != '/' || strlen(tmp) > 40)
		tmp = "/tmp";
	snprintf(d->dir, sizeof(d->dir), "%s/tgd-test.XXXXXX", tmp);
	if (mkdtemp(d->dir) == NULL) {
		d->dir[0] = '\0';
		return -errno;
	}
	/* For tests that drop their privileges. */
	chmod(d->dir, 0755);
	snprintf(d->socket, sizeof(d->socket), "%s/s", d->dir);
	snprintf(d->log_path, sizeof(d->log_path), "%s/log", d->dir);
	return 0;
}

/* Removes the directory and the files in it.  1 if there was more than the log. */
static int remove_dir(struct tgt_daemon *d)
{
	DIR *dir = opendir(d->dir);
	const struct dirent *entry;
	int more = 0;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (strncmp(entry->d_name, "s", 1) == 0) {
			fprintf(stderr, "tgd left %s/%s behind\n", d->dir, entry->d_name);
			more = 1;
		}
		unlinkat(dirfd(dir), entry->d_name, 0);
	}
	if (dir != NULL)
		closedir(dir);
	rmdir(d->dir);
	return more;
}

static int clean_up(struct tgt_daemon *d)
{
	int more = d->dir[0] != '\0' ? remove_dir(d) : 0;

	free(d->log);
	*d = (struct tgt_daemon){.pid = 0};
	return more;
}

int tgt_daemon_start_limited(struct tgt_daemon *d, const char *const *extra_args, unsigned n_files)
{
	const char *argv[ARGS_MAX] = {program("TGD", "daemon/tgd"), "--socket"};
	unsigned n = 3;
	int log, r;

	r = make_dir(d);
	if (r < 0)
		return r;
	argv[2] = d->socket;
	while (extra_args != NULL && *extra_args != NULL && n + 1 < ARGS_MAX)
		argv[n++] = *extra_args++;
	log = open(d->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	r = log < 0 ? -errno : spawn(argv, log, log, n_files, true);
	if (log >= 0)
		close(log);
	if (r < 0) {
		clean_up(d);
		return r;
	}
	d->pid = r;
	r = wait_log(d, "ready");
	if (r < 0) {
		show_log(d);
		kill_group(d->pid);
		kill_child(d->pid);
		clean_up(d);
	}
	return r;
}

int tgt_daemon_start(struct tgt_daemon *d, const char *const *extra_args)
{
	return tgt_daemon_start_limited(d, extra_args, 0);
}

int tgt_daemon_wait(struct tgt_daemon *d)
{
	int status = wait_child(d->pid, now_ms() + TGT_TIMEOUT_MS);

	if (status < 0) {
		kill_group(d->pid);
		status = kill_child(d->pid);
	}
	if (status != 0)
		show_log(d);
	d->pid = 0;
	return status;
}

bool tgt_has_ended(pid_t pid)
{
	struct pollfd p = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
	bool ended;

	if (p.fd < 0)
		return errno == ESRCH;
	/* Nobody may have waited for it yet. */
	ended = poll(&p, 1, TGT_TIMEOUT_MS) == 1;
	close(p.fd);
	return ended;
}

/* Each of its processes holds the lock: we get it when the last one has ended, which may not be the one that we started. */
static void wait_unlocked(const struct tgt_daemon *d)
{
	long long deadline = now_ms() + TGT_TIMEOUT_MS;
	char path[sizeof(d->socket) + 8];
	int fd;

	snprintf(path, sizeof(path), "%s.lock", d->socket);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	while (flock(fd, LOCK_EX | LOCK_NB) < 0 && now_ms() < deadline)
		poll(NULL, 0, 1);
	close(fd);
}

void tgt_daemon_kill(struct tgt_daemon *d)
{
	kill_group(d->pid);
	(void)wait_child(d->pid, now_ms() + TGT_TIMEOUT_MS);
	wait_unlocked(d);
	d->pid = 0;
}

int tgt_daemon_stop(struct tgt_daemon *d)
{
	int status = 0;

	if (d->pid > 0) {
		kill(d->pid, SIGTERM);
		status = tgt_daemon_wait(d);
	}
	if (clean_up(d) != 0 && status == 0)
		status = -ENOTEMPTY;
	return status;
}

/* ---- tgctl ---- */

json_t *tgt_tgctl(struct tgt_daemon *d, const char *const *args, int *ret_status)
{
	const char *argv[ARGS_MAX] = {program("TGCTL", "client/ctl/tgctl"), "--socket", d->socket,
				      "--json"};
	json_t *answer = NULL;
	char *output = NULL;
	unsigned n = 4;
	int status;

	while (*args != NULL && n + 1 < ARGS_MAX)
		argv[n++] = *args++;
	status = run(argv, STDERR_FILENO, TGT_TIMEOUT_MS, false, &output);
	if (output != NULL && *output != '\0')
		answer = json_loads(output, 0, NULL);
	free(output);
	if (ret_status != NULL)
		*ret_status = status < 0 ? -1 : status;
	return answer;
}

long long tgt_json_int(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);

	return json_is_integer(value) ? json_integer_value(value) : -1;
}

pid_t tgt_daemon_worker(struct tgt_daemon *d, pid_t *ret_keeper)
{
	static const char *const args[] = {"status", NULL};
	json_t *answer = tgt_tgctl(d, args, NULL);
	pid_t pid = (pid_t)tgt_json_int(answer, "pid");

	if (ret_keeper != NULL)
		*ret_keeper = (pid_t)tgt_json_int(answer, "keeper_pid");
	json_decref(answer);
	return pid;
}

pid_t tgt_daemon_next_worker(struct tgt_daemon *d, pid_t worker)
{
	long long deadline = now_ms() + TGT_TIMEOUT_MS;
	pid_t pid;

	/* Whoever asks waits for the daemon, not for time to pass. */
	do
		pid = tgt_daemon_worker(d, NULL);
	while ((pid == worker || pid < 0) && now_ms() < deadline);
	return pid == worker ? -1 : pid;
}

pid_t tgt_daemon_next_keeper(struct tgt_daemon *d, pid_t keeper)
{
	long long deadline = now_ms() + TGT_TIMEOUT_MS;
	pid_t pid, worker;

	do
		worker = tgt_daemon_worker(d, &pid);
	while ((worker < 0 || pid == keeper || pid <= 0) && now_ms() < deadline);
	return pid == keeper || pid <= 0 ? -1 : pid;
}
