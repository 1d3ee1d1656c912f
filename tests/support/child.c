/* child.c - forks children, waits for them with a deadline, and carries their failed expectations home as exit status.
 */
#include "tests/support/child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/daemon.h"

static _Atomic int failed;

long long tgt_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

bool tgt_expect(bool holds, const char *condition, const char *file, int line)
{
	if (!holds) {
		dprintf(STDERR_FILENO, "%s:%d: pid %d expected %s (errno %d)\n", file, line,
			(int)getpid(), condition, errno);
		atomic_fetch_add(&failed, 1);
	}
	return holds;
}

int tgt_failed_expectations(void)
{
	return atomic_load(&failed);
}

void tgt_give_up(void)
{
	_exit(1);
}

pid_t tgt_fork(tgt_child_fn *fn, void *arg)
{
	pid_t parent = getpid(), pid;

	fflush(NULL);
	pid = fork();
	if (pid != 0)
		return pid < 0 ? -errno : pid;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(126);
	atomic_store(&failed, 0);
	fn(arg);
	fflush(NULL);
	_exit(tgt_failed_expectations() != 0);
}

static bool poll_fd(int fd, long long deadline)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int r;

	do {
		long long left = deadline - tgt_now_ms();

		r = poll(&p, 1, left > 0 ? (int)left : 0);
	} while (r < 0 && errno == EINTR);
	return r > 0;
}

int tgt_wait(pid_t pid)
{
	int fd, status;
	bool ended;

	if (pid <= 0)
		return -ECHILD;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return -errno;
	ended = poll_fd(fd, tgt_now_ms() + TGT_TIMEOUT_MS);
	close(fd);
	if (!ended)
		kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) != pid)
		return -errno;
	if (!ended)
		return -ETIMEDOUT;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int tgt_in_child(tgt_child_fn *fn, void *arg)
{
	return tgt_wait(tgt_fork(fn, arg));
}

struct redirected {
	tgt_child_fn *fn;
	void *arg;
	int fd;
};

static void run_redirected(void *arg)
{
	struct redirected *redirected = arg;

	if (dup2(redirected->fd, STDERR_FILENO) < 0)
		_exit(126);
	redirected->fn(redirected->arg);
}

int tgt_in_child_output(tgt_child_fn *fn, void *arg, char **ret_output)
{
	/* A file and not a pipe, which a child that writes much would fill. */
	struct redirected redirected = {fn, arg, memfd_create("output", MFD_CLOEXEC)};
	int status;
	off_t n;

	if (redirected.fd < 0)
		return -errno;
	status = tgt_in_child(run_redirected, &redirected);
	n = lseek(redirected.fd, 0, SEEK_END);
	*ret_output = calloc(1, n > 0 ? (size_t)n + 1 : 1);
	if (*ret_output == NULL || (n > 0 && pread(redirected.fd, *ret_output, (size_t)n, 0) != n))
		status = -EIO;
	close(redirected.fd);
	return status;
}

/* ---- meetings ---- */

bool tgt_meeting_open(struct tgt_meeting *meeting)
{
	if (pipe2(meeting->to_child, O_CLOEXEC) < 0)
		return false;
	if (pipe2(meeting->to_parent, O_CLOEXEC) == 0)
		return true;
	close(meeting->to_child[0]);
	close(meeting->to_child[1]);
	return false;
}

void tgt_meeting_close(struct tgt_meeting *meeting)
{
	close(meeting->to_child[0]);
	close(meeting->to_child[1]);
	close(meeting->to_parent[0]);
	close(meeting->to_parent[1]);
}

static void tell(int fd)
{
	char byte = 1;

	TGT_EXPECT(write(fd, &byte, 1) == 1);
}

static bool wait_said(int fd)
{
	char byte = 0;

	return poll_fd(fd, tgt_now_ms() + TGT_TIMEOUT_MS) && read(fd, &byte, 1) == 1 && byte == 1;
}

void tgt_tell_child(const struct tgt_meeting *meeting)
{
	tell(meeting->to_child[1]);
}

bool tgt_wait_child_said(const struct tgt_meeting *meeting)
{
	return wait_said(meeting->to_parent[0]);
}

void tgt_tell_parent(const struct tgt_meeting *meeting)
{
	tell(meeting->to_parent[1]);
}

bool tgt_wait_parent_said(const struct tgt_meeting *meeting)
{
	return wait_said(meeting->to_child[0]);
}

bool tgt_drop_root(void)
{
	if (geteuid() != 0)
		return true;
	return setgroups(0, NULL) == 0 && setresgid(65534, 65534, 65534) == 0 &&
	       setresuid(65534, 65534, 65534) == 0;
}

char tgt_state_of(pid_t pid)
{
	char path[32], text[256] = "";
	const char *end;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (file == NULL)
		return '?';
	end = fgets(text, sizeof(text), file) != NULL ? strrchr(text, ')') : NULL;
	fclose(file);
	return end != NULL && end[1] == ' ' ? end[2] : '?';
}
