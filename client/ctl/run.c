/* run.c - a private daemon for one command: start tgd on a socket that nobody else has, run the
 * command on it, end with the command's status.
 *
 *	make a directory -> start tgd -> wait until it answers -> start the command -> wait for it
 *	                                          -> stop tgd -> remove the directory
 *
 * - Nothing is left behind: tgd gets SIGTERM from the kernel if tgctl dies in whatever way
 *   (PR_SET_PDEATHSIG).
 * - Signals are blocked and read from a descriptor, so every wait is one poll and no handler
 *   races with it.  Those that someone sent to tgctl are passed on; those that the terminal sent
 *   went to the command already, which is in the same process group.  tgd is in a group of its
 *   own: ctrl-C must not take the heap from under a command that handles it.
 * - tgd logs into a file in the directory, since its lines are no part of the command's output;
 *   should it not start, its last line is part of the error.
 * - tgd runs without LD_PRELOAD: it cannot live on the heap that it serves.
 */
#include "client/ctl/run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl/ctl.h"
#include "client/ctl/find.h"
#include "shm/base.h"

#define READY_MS 10000 /* how long tgd may take to start */
#define STOP_MS  5000  /* and to stop, before it is killed */
#define RETRY_MS 5 /* between two attempts to connect: tgd has no way to tell us when it listens */

#define CANNOT_RUN 126 /* as the shell has it */
#define NOT_FOUND  127

/* One run.  A descriptor is -1, a pid or a path is empty while there is none. */
struct stage {
	struct tgc_run *run;
	char tgd_path[4096];
	char preload_path[4096];
	char dir[TGP_SOCKET_PATH_SIZE - 8]; /* with "/sock" it is a socket's path */
	char socket[TGP_SOCKET_PATH_SIZE];
	char log[TGP_SOCKET_PATH_SIZE];
	sigset_t old_mask;
	int signals; /* signalfd */
	pid_t tgd;
	int tgd_fd;     /* pidfd, as command_fd */
	int tgd_status; /* of waitpid, once it has ended */
	bool replaced;  /* the keeper that we started died, and the daemon has another */
	pid_t command;
	int command_fd;
};

/* Notes what went wrong.  Only the first thing counts: the others follow from it. */
__attribute__((format(printf, 4, 5))) static int fail(struct stage *s, int status, int error,
						      const char *format, ...)
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

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- signals ---- */

static int catch_signals(struct stage *s)
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
		return fail(s, TGC_UNREACHABLE, -errno, "cannot wait for signals: %s",
			    strerror(errno));
	return TGC_OK;
}

/* Waits for a child's end (pidfd) or a signal, at most `ms` (-1: for ever).  Number of the
 * signal; 0: none. */
static int wait_event(struct stage *s, int pidfd, int ms, bool *ret_ended, bool *ret_from_terminal)
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

/* ---- the directory ---- */

static int make_dir(struct stage *s)
{
	const char *tmp = getenv("TMPDIR");
	int n;

	if (tmp == NULL || *tmp != '/' || strlen(tmp) + sizeof("/tg-run-XXXXXX") > sizeof(s->dir))
		tmp = "/tmp";
	n = snprintf(s->dir, sizeof(s->dir), "%s/tg-run-XXXXXX", tmp);
	if (n < 0 || (size_t)n >= sizeof(s->dir) || mkdtemp(s->dir) == NULL) {
		n = errno;
		s->dir[0] = '\0';
		return fail(s, TGC_UNREACHABLE, -n, "cannot make a directory in %s: %s", tmp,
			    strerror(n));
	}
	snprintf(s->socket, sizeof(s->socket), "%s/sock", s->dir);
	snprintf(s->log, sizeof(s->log), "%s/log", s->dir);
	return TGC_OK;
}

/* Only files that tgd and we made are in it: no directories. */
static void remove_dir(struct stage *s)
{
	struct dirent *entry;
	DIR *dir;

	if (s->dir[0] == '\0')
		return;
	dir = opendir(s->dir);
	while (dir != NULL && (entry = readdir(dir)) != NULL)
		(void)unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir != NULL)
		closedir(dir);
	(void)rmdir(s->dir);
}

/* The last line that tgd logged, "" if there is none. */
static void last_words(const struct stage *s, char *buf, size_t size)
{
	TGS_CLOSE int fd = -1;
	char *line;
	ssize_t n;

	buf[0] = '\0';
	fd = open(s->log, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (lseek(fd, -(off_t)(size - 1), SEEK_END) < 0)
		(void)lseek(fd, 0, SEEK_SET);
	n = read(fd, buf, size - 1);
	if (n < 0)
		n = 0;
	while (n > 0 && buf[n - 1] == '\n')
		n--;
	buf[n] = '\0';
	line = strrchr(buf, '\n');
	if (line != NULL)
		memmove(buf, line + 1, strlen(line + 1) + 1);
}

/* ---- tgd ---- */

/* In the child: becomes tgd, or ends; then the log says why. */
__attribute__((noreturn)) static void exec_tgd(struct stage *s, pid_t parent)
{
	char limit[24];
	const char *words[] = {s->tgd_path, "--socket", s->socket, "--heap",
			       "run",       "--limit",  limit,     NULL};
	int log, null;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1); /* tgctl was killed before we asked to be told */
	setpgid(0, 0);
	sigprocmask(SIG_SETMASK, &s->old_mask, NULL);
	unsetenv("LD_PRELOAD");
	log = open(s->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	null = open("/dev/null", O_RDONLY);
	if (log < 0 || null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
		_exit(1);
	if (log > 2)
		close(log);
	if (null > 2)
		close(null);
	snprintf(limit, sizeof(limit), "%" PRIu64, s->run->limit);
	if (s->run->limit == 0)
		words[5] = NULL;
	execvp(s->tgd_path, (char **)words);
	dprintf(2, "cannot run %s: %s\n", s->tgd_path, strerror(errno));
	_exit(NOT_FOUND);
}

static int start_tgd(struct stage *s)
{
	pid_t parent = getpid();
	int r;

	r = tgc_find_daemon(s->tgd_path, sizeof(s->tgd_path));
	if (r < 0)
		return fail(s, TGC_UNREACHABLE, r,
			    "cannot find tgd: it is not next to tgctl, nor in PATH; say where it "
			    "is with TGD=FILE in the environment");
	s->tgd = fork();
	if (s->tgd == 0)
		exec_tgd(s, parent);
	if (s->tgd < 0)
		return fail(s, TGC_UNREACHABLE, -errno, "cannot start tgd: %s", strerror(errno));
	s->tgd_fd = pidfd_open(s->tgd, 0);
	if (s->tgd_fd < 0)
		return fail(s, TGC_UNREACHABLE, -errno, "cannot watch tgd: %s", strerror(errno));
	return TGC_OK;
}

static void reap_tgd(struct stage *s)
{
	while (waitpid(s->tgd, &s->tgd_status, 0) < 0 && errno == EINTR)
		;
	s->tgd = 0;
}

/* tgd has ended before we told it to: reaps it and says so, unless someone may have stopped it
 * in good order.  Returns `status`. */
static int explain_end(struct stage *s, int status, bool wanted, const char *when)
{
	char words[512];

	last_words(s, words, sizeof(words));
	reap_tgd(s);
	/* The command may stop it itself: nothing is wrong then. */
	if (wanted && WIFEXITED(s->tgd_status) && WEXITSTATUS(s->tgd_status) == 0)
		return status;
	if (WIFSIGNALED(s->tgd_status))
		return fail(s, status, -ECHILD, "tgd (%s) was ended by signal %d (%s) %s%s%s",
			    s->tgd_path, WTERMSIG(s->tgd_status),
			    strsignal(WTERMSIG(s->tgd_status)), when,
			    *words == '\0' ? "" : "; its last words: ", words);
	return fail(s, status, -ECHILD, "tgd (%s) ended with status %d %s%s%s", s->tgd_path,
		    WEXITSTATUS(s->tgd_status), when,
		    *words == '\0' ? "" : "; its last words: ", words);
}

/* Returns once tgd answers. */
static int wait_ready(struct stage *s)
{
	int64_t deadline = now_ms() + READY_MS;
	struct tgc_talk *talk = tgc_talk_new();
	int r, number, status = TGC_OK;
	bool ended, terminal;

	if (talk == NULL)
		return fail(s, TGC_UNREACHABLE, -ENOMEM, "out of memory");
	for (;;) {
		talk->timeout_ms = (int)(deadline - now_ms());
		if (talk->timeout_ms <= 0) {
			status = fail(s, TGC_UNREACHABLE, -ETIMEDOUT,
				      "tgd (%s) was not ready after %d s: %s", s->tgd_path,
				      READY_MS / 1000, talk->why);
			break;
		}
		r = tgc_talk_open(talk, s->socket);
		if (r == 0)
			break;
		number = wait_event(s, s->tgd_fd, RETRY_MS, &ended, &terminal);
		if (number != 0) {
			status = 128 + number; /* asked to end before anything began */
			break;
		}
		if (ended) {
			status = explain_end(s, TGC_UNREACHABLE, false, "before it was ready");
			break;
		}
		/* Reset: it listened, and could not start. */
		if (r != -ENOENT && r != -ECONNREFUSED && r != -ECONNRESET) {
			status = fail(s, TGC_UNREACHABLE, r, "%s", talk->why);
			break;
		}
	}
	tgc_talk_free(talk);
	return status;
}

/* The keeper that we started has ended.  Does the daemon still serve, as it does when only that one was
 * killed? */
static bool goes_on(struct stage *s)
{
	struct tgc_talk *talk = tgc_talk_new();
	bool serves = talk != NULL && tgc_talk_open(talk, s->socket) == 0;

	tgc_talk_free(talk);
	if (!serves)
		return false;
	reap_tgd(s);
	return true;
}

/* Nothing is left to tell, if it does not work: the daemon has ended. */
static void stop_by_request(struct stage *s)
{
	struct tgc_talk *talk = tgc_talk_new();
	Tgd__Admin ask = TGD__ADMIN__INIT;
	const Tgd__Reply *reply;

	ask.what = TGD__ADMIN__WHAT__STOP;
	if (talk != NULL && tgc_talk_open(talk, s->socket) == 0 &&
	    tgc_talk_ask(talk, &ask, 0, &reply) == 0)
		(void)tgc_talk_wait_end(talk);
	tgc_talk_free(talk);
}

static void stop_tgd(struct stage *s)
{
	struct pollfd p = {.fd = s->tgd_fd, .events = POLLIN};

	if (s->replaced)
		stop_by_request(s);
	if (s->tgd <= 0)
		return;
	(void)kill(s->tgd, SIGTERM);
	if (s->tgd_fd < 0 || poll(&p, 1, STOP_MS) == 0)
		(void)kill(s->tgd, SIGKILL);
	reap_tgd(s);
}

/* ---- the command ---- */

static int find_preload(struct stage *s)
{
	int r = tgc_find_preload(s->preload_path, sizeof(s->preload_path));

	if (r < 0)
		return fail(s, TGC_UNREACHABLE, r,
			    "cannot find libtgmalloc.so; say where it is with TG_PRELOAD_LIB=FILE "
			    "in the environment");
	if (strpbrk(s->preload_path, " :") != NULL)
		return fail(s, TGC_UNREACHABLE, -EINVAL,
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
__attribute__((noreturn)) static void exec_command(struct stage *s, int report)
{
	int error = 0;

	sigprocmask(SIG_SETMASK, &s->old_mask, NULL);
	unsetenv("TG_HEAP"); /* would name a heap of another daemon */
	if (setenv("TG_SOCKET", s->socket, 1) == 0 &&
	    (!s->run->preload || set_preload(s->preload_path) == 0))
		execvp(s->run->command[0], s->run->command);
	error = errno;
	if (write(report, &error, sizeof(error)) != sizeof(error))
		_exit(CANNOT_RUN);
	_exit(NOT_FOUND);
}

static int start_command(struct stage *s)
{
	int ends[2], error = 0;
	ssize_t n;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return fail(s, CANNOT_RUN, -errno, "cannot make a pipe: %s", strerror(errno));
	s->command = fork();
	if (s->command == 0)
		exec_command(s, ends[1]);
	error = errno;
	close(ends[1]);
	if (s->command < 0) {
		close(ends[0]);
		return fail(s, CANNOT_RUN, -error, "cannot fork: %s", strerror(error));
	}
	/* The pipe closes with the exec; what comes before is the reason why there was none. */
	while ((n = read(ends[0], &error, sizeof(error))) < 0 && errno == EINTR)
		;
	close(ends[0]);
	if (n == sizeof(error)) {
		(void)waitpid(s->command, NULL, 0);
		s->command = 0;
		if (error == ENOENT)
			return fail(s, NOT_FOUND, -error,
				    "%s: command not found, or what it needs to run is not",
				    s->run->command[0]);
		return fail(s, CANNOT_RUN, -error, "cannot run %s: %s", s->run->command[0],
			    strerror(error));
	}
	s->command_fd = pidfd_open(s->command, 0);
	if (s->command_fd < 0)
		return fail(s, CANNOT_RUN, -errno, "cannot watch the command: %s", strerror(errno));
	return TGC_OK;
}

/* Waits for the command's end and passes signals on.  Its exit status. */
static int wait_command(struct stage *s)
{
	bool ended = false, from_terminal;
	int number, status;

	while (!ended) {
		number = wait_event(s, s->command_fd, -1, &ended, &from_terminal);
		if (number != 0 && !ended && !from_terminal)
			(void)kill(s->command, number);
	}
	while (waitpid(s->command, &status, 0) < 0)
		if (errno != EINTR)
			return fail(s, CANNOT_RUN, -errno, "lost the command: %s", strerror(errno));
	s->command = 0;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void kill_command(struct stage *s)
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
	struct stage s = {.run = run, .signals = -1, .tgd_fd = -1, .command_fd = -1};
	struct pollfd p = {.events = POLLIN};
	int status;

	run->error = 0;
	run->why[0] = '\0';
	status = catch_signals(&s);
	if (status == TGC_OK && run->preload)
		status = find_preload(&s);
	if (status == TGC_OK)
		status = make_dir(&s);
	if (status == TGC_OK)
		status = start_tgd(&s);
	if (status == TGC_OK)
		status = wait_ready(&s);
	if (status == TGC_OK)
		status = start_command(&s);
	if (status == TGC_OK && s.command > 0) {
		status = wait_command(&s);
		p.fd = s.tgd_fd;
		s.replaced = poll(&p, 1, 0) > 0 && goes_on(&s);
		if (s.tgd > 0 && poll(&p, 1, 0) > 0)
			(void)explain_end(&s, status, true, "while the command ran");
	}
	kill_command(&s);
	stop_tgd(&s);
	remove_dir(&s);
	if (s.command_fd >= 0)
		close(s.command_fd);
	if (s.tgd_fd >= 0)
		close(s.tgd_fd);
	if (s.signals >= 0)
		close(s.signals);
	sigprocmask(SIG_SETMASK, &s.old_mask, NULL);
	return status;
}
