/* run-daemon.c - the daemon of one run: its directory, its start, its end, and what it said last.
 *
 * - Nothing is left behind: tgd gets SIGTERM from the kernel if tgctl dies in whatever way
 *   (PR_SET_PDEATHSIG).
 * - tgd is in a process group of its own: ctrl-C must not take the heap from under a command that
 *   handles it.
 * - tgd logs into a file in the directory, since its lines are no part of the command's output;
 *   should it not start, its last line is part of the error.
 * - tgd runs without LD_PRELOAD: it cannot live on the heap that it serves.
 */
#include "client/ctl/run-daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
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

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- the directory ---- */

int tgc_run_make_dir(struct tgc_run_stage *s)
{
	const char *tmp = getenv("TMPDIR");
	int n;

	if (tmp == NULL || *tmp != '/' || strlen(tmp) + sizeof("/tg-run-XXXXXX") > sizeof(s->dir))
		tmp = "/tmp";
	n = snprintf(s->dir, sizeof(s->dir), "%s/tg-run-XXXXXX", tmp);
	if (n < 0 || (size_t)n >= sizeof(s->dir) || mkdtemp(s->dir) == NULL) {
		n = errno;
		s->dir[0] = '\0';
		return tgc_run_fail(s, TGC_UNREACHABLE, -n, "cannot make a directory in %s: %s",
				    tmp, strerror(n));
	}
	snprintf(s->socket, sizeof(s->socket), "%s/sock", s->dir);
	snprintf(s->log, sizeof(s->log), "%s/log", s->dir);
	return TGC_OK;
}

/* Only files that tgd and we made are in it: no directories. */
void tgc_run_remove_dir(struct tgc_run_stage *s)
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
static void last_words(const struct tgc_run_stage *s, char *buf, size_t size)
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
__attribute__((noreturn)) static void exec_tgd(struct tgc_run_stage *s, pid_t parent)
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
	_exit(TGC_NOT_FOUND);
}

int tgc_run_start_tgd(struct tgc_run_stage *s)
{
	pid_t parent = getpid();
	int r;

	r = tgc_find_daemon(s->tgd_path, sizeof(s->tgd_path));
	if (r < 0)
		return tgc_run_fail(
			s, TGC_UNREACHABLE, r,
			"cannot find tgd: it is not next to tgctl, nor in PATH; say where it "
			"is with TGD=FILE in the environment");
	s->tgd = fork();
	if (s->tgd == 0)
		exec_tgd(s, parent);
	if (s->tgd < 0)
		return tgc_run_fail(s, TGC_UNREACHABLE, -errno, "cannot start tgd: %s",
				    strerror(errno));
	s->tgd_fd = pidfd_open(s->tgd, 0);
	if (s->tgd_fd < 0)
		return tgc_run_fail(s, TGC_UNREACHABLE, -errno, "cannot watch tgd: %s",
				    strerror(errno));
	return TGC_OK;
}

static void reap_tgd(struct tgc_run_stage *s)
{
	while (waitpid(s->tgd, &s->tgd_status, 0) < 0 && errno == EINTR)
		;
	s->tgd = 0;
}

int tgc_run_explain_end(struct tgc_run_stage *s, int status, bool wanted, const char *when)
{
	char words[512];

	last_words(s, words, sizeof(words));
	reap_tgd(s);
	/* The command may stop it itself: nothing is wrong then. */
	if (wanted && WIFEXITED(s->tgd_status) && WEXITSTATUS(s->tgd_status) == 0)
		return status;
	if (WIFSIGNALED(s->tgd_status))
		return tgc_run_fail(s, status, -ECHILD,
				    "tgd (%s) was ended by signal %d (%s) %s%s%s", s->tgd_path,
				    WTERMSIG(s->tgd_status), strsignal(WTERMSIG(s->tgd_status)),
				    when, *words == '\0' ? "" : "; its last words: ", words);
	return tgc_run_fail(s, status, -ECHILD, "tgd (%s) ended with status %d %s%s%s", s->tgd_path,
			    WEXITSTATUS(s->tgd_status), when,
			    *words == '\0' ? "" : "; its last words: ", words);
}

int tgc_run_wait_ready(struct tgc_run_stage *s)
{
	int64_t deadline = now_ms() + READY_MS;
	struct tgc_talk *talk = tgc_talk_new();
	int r, number, status = TGC_OK;
	bool ended, terminal;

	if (talk == NULL)
		return tgc_run_fail(s, TGC_UNREACHABLE, -ENOMEM, "out of memory");
	for (;;) {
		talk->timeout_ms = (int)(deadline - now_ms());
		if (talk->timeout_ms <= 0) {
			status = tgc_run_fail(s, TGC_UNREACHABLE, -ETIMEDOUT,
					      "tgd (%s) was not ready after %d s: %s", s->tgd_path,
					      READY_MS / 1000, talk->why);
			break;
		}
		r = tgc_talk_open(talk, s->socket);
		if (r == 0)
			break;
		number = tgc_run_wait_event(s, s->tgd_fd, RETRY_MS, &ended, &terminal);
		if (number != 0) {
			status = 128 + number; /* asked to end before anything began */
			break;
		}
		if (ended) {
			status = tgc_run_explain_end(s, TGC_UNREACHABLE, false,
						     "before it was ready");
			break;
		}
		/* Reset: it listened, and could not start. */
		if (r != -ENOENT && r != -ECONNREFUSED && r != -ECONNRESET) {
			status = tgc_run_fail(s, TGC_UNREACHABLE, r, "%s", talk->why);
			break;
		}
	}
	tgc_talk_free(talk);
	return status;
}

bool tgc_run_goes_on(struct tgc_run_stage *s)
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
static void stop_by_request(struct tgc_run_stage *s)
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

void tgc_run_stop_tgd(struct tgc_run_stage *s)
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
