/* run.c - a private daemon for one command: start tgd on a socket that nobody else has, run the
 * command on it, end with the command's status.
 *
 *	make a directory -> start tgd -> wait until it answers -> start the command -> wait for it
 *	                                          -> stop tgd -> remove the directory
 *
 * Signals are blocked and read from a descriptor, so every wait is one poll and no handler races
 * with it.  Those that someone sent to tgctl are passed on; those that the terminal sent went to
 * the command already, which is in the same process group.  The daemon is client/ctl/run-daemon.c's.
 */
#include "client/ctl/run.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/ctl/ctl.h"
#include "client/ctl/find.h"
#include "client/ctl/run-daemon.h"
#include "shm/base.h"

int tgc_run_fail(struct tgc_run_stage *s, int status, int error, const char *format, ...)
{
	va_list args;

	if (s->run->error == 0) {
		s->run->error = error;
		va_start(args, format);
		vsnprintf(s->run->why, sizeof(s->run->why), format, args);
		va_end(args);
	}
	return status;
}

/* ---- signals ---- */

static int catch_signals(struct tgc_run_stage *s)
{
	sigset_t caught;

	sigemptyset(&caught);
	sigaddset(&caught, SIGINT);
	sigaddset(&caught, SIGTERM);
	sigaddset(&caught, SIGHUP);
	sigaddset(&caught, SIGQUIT);
	/* If it were ignored, as some parents leave it, the kernel would drop the status of our
	 * children. */
	signal(SIGCHLD, SIG_DFL);
	sigprocmask(SIG_BLOCK, &caught, &s->old_mask);
	s->signals = signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signals < 0)
		return tgc_run_fail(s, TGC_UNREACHABLE, -errno, "cannot wait for signals: %s",
				    strerror(errno));
	return TGC_OK;
}

int tgc_run_wait_event(struct tgc_run_stage *s, int pidfd, int ms, bool *ret_ended,
		       bool *ret_from_terminal)
{
	struct pollfd fds[] = {{.fd = pidfd, .events = POLLIN},
			       {.fd = s->signals, .events = POLLIN}};
	struct signalfd_siginfo info;

	*ret_ended = false;
	if (poll(fds, TGS_ARRAY_LEN(fds), ms) <= 0)
		return 0;
	*ret_ended = fds[0].revents != 0;
	if (fds[1].revents == 0 || read(s->signals, &info, sizeof(info)) != sizeof(info))
		return 0;
	*ret_from_terminal = info.ssi_code == SI_KERNEL;
	return (int)info.ssi_signo;
}

/* ---- the command ---- */

static int find_preload(struct tgc_run_stage *s)
{
	int r = tgc_find_preload(s->preload_path, sizeof(s->preload_path));

	if (r < 0)
		return tgc_run_fail(
			s, TGC_UNREACHABLE, r,
			"cannot find libtgmalloc.so; say where it is with TG_PRELOAD_LIB=FILE "
			"in the environment");
	if (strpbrk(s->preload_path, " :") != NULL)
		return tgc_run_fail(
			s, TGC_UNREACHABLE, -EINVAL,
			"%s cannot be preloaded: LD_PRELOAD takes no path with a blank or a "
			"colon in it",
			s->preload_path);
	return TGC_OK;
}

/* Ours comes first, so that its malloc is the one that counts. */
static int set_preload(const char *ours)
{
	const char *others = getenv("LD_PRELOAD");
	TGS_FREE char *both = NULL;

	if (others == NULL || *others == '\0')
		return setenv("LD_PRELOAD", ours, 1);
	if (asprintf(&both, "%s:%s", ours, others) < 0) {
		both = NULL;
		return -1;
	}
	return setenv("LD_PRELOAD", both, 1);
}

/* In the child: becomes the command, or sends the reason why not through the pipe. */
__attribute__((noreturn)) static void exec_command(struct tgc_run_stage *s, int report)
{
	int error = 0;

	sigprocmask(SIG_SETMASK, &s->old_mask, NULL);
	unsetenv("TG_HEAP"); /* would name a heap of another daemon */
	if (setenv("TG_SOCKET", s->socket, 1) == 0 &&
	    (!s->run->preload || set_preload(s->preload_path) == 0))
		execvp(s->run->command[0], s->run->command);
	error = errno;
	if (write(report, &error, sizeof(error)) != sizeof(error))
		_exit(TGC_CANNOT_RUN);
	_exit(TGC_NOT_FOUND);
}

static int start_command(struct tgc_run_stage *s)
{
	int ends[2], error = 0;
	ssize_t n;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return tgc_run_fail(s, TGC_CANNOT_RUN, -errno, "cannot make a pipe: %s",
				    strerror(errno));
	s->command = fork();
	if (s->command == 0)
		exec_command(s, ends[1]);
	error = errno;
	close(ends[1]);
	if (s->command < 0) {
		close(ends[0]);
		return tgc_run_fail(s, TGC_CANNOT_RUN, -error, "cannot fork: %s", strerror(error));
	}
	/* The pipe closes with the exec; what comes before is the reason why there was none. */
	while ((n = read(ends[0], &error, sizeof(error))) < 0 && errno == EINTR)
		;
	close(ends[0]);
	if (n == sizeof(error)) {
		(void)waitpid(s->command, NULL, 0);
		s->command = 0;
		if (error == ENOENT)
			return tgc_run_fail(s, TGC_NOT_FOUND, -error,
					    "%s: command not found, or what it needs to run is not",
					    s->run->command[0]);
		return tgc_run_fail(s, TGC_CANNOT_RUN, -error, "cannot run %s: %s",
				    s->run->command[0], strerror(error));
	}
	s->command_fd = pidfd_open(s->command, 0);
	if (s->command_fd < 0)
		return tgc_run_fail(s, TGC_CANNOT_RUN, -errno, "cannot watch the command: %s",
				    strerror(errno));
	return TGC_OK;
}

/* Waits for the command's end and passes signals on.  Its exit status. */
static int wait_command(struct tgc_run_stage *s)
{
	bool ended = false, from_terminal;
	int number, status;

	while (!ended) {
		number = tgc_run_wait_event(s, s->command_fd, -1, &ended, &from_terminal);
		if (number != 0 && !ended && !from_terminal)
			(void)kill(s->command, number);
	}
	while (waitpid(s->command, &status, 0) < 0)
		if (errno != EINTR)
			return tgc_run_fail(s, TGC_CANNOT_RUN, -errno, "lost the command: %s",
					    strerror(errno));
	s->command = 0;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void kill_command(struct tgc_run_stage *s)
{
	if (s->command <= 0)
		return;
	(void)kill(s->command, SIGKILL);
	(void)waitpid(s->command, NULL, 0);
}

/* ---- all of it ---- */

/* Changes the signal mask and SIGCHLD's action for its time.  Single-threaded programs only. */
int tgc_run(struct tgc_run *run)
{
	struct tgc_run_stage s = {.run = run, .signals = -1, .tgd_fd = -1, .command_fd = -1};
	struct pollfd p = {.events = POLLIN};
	int status;

	run->error = 0;
	run->why[0] = '\0';
	status = catch_signals(&s);
	if (status == TGC_OK && run->preload)
		status = find_preload(&s);
	if (status == TGC_OK)
		status = tgc_run_make_dir(&s);
	if (status == TGC_OK)
		status = tgc_run_start_tgd(&s);
	if (status == TGC_OK)
		status = tgc_run_wait_ready(&s);
	if (status == TGC_OK)
		status = start_command(&s);
	if (status == TGC_OK && s.command > 0) {
		status = wait_command(&s);
		p.fd = s.tgd_fd;
		s.replaced = poll(&p, 1, 0) > 0 && tgc_run_goes_on(&s);
		if (s.tgd > 0 && poll(&p, 1, 0) > 0)
			(void)tgc_run_explain_end(&s, status, true, "while the command ran");
	}
	kill_command(&s);
	tgc_run_stop_tgd(&s);
	tgc_run_remove_dir(&s);
	if (s.command_fd >= 0)
		close(s.command_fd);
	if (s.tgd_fd >= 0)
		close(s.tgd_fd);
	if (s.signals >= 0)
		close(s.signals);
	sigprocmask(SIG_SETMASK, &s.old_mask, NULL);
	return status;
}
