/* kept.c - the worker's link to its keeper.
 *
 * The worker has a copy of all that the keeper has.  When the link closes, the keeper is dead, and
 * the worker makes a new one: two forks, so that it is nobody's child as the keeper is not its
 * parent, then this program again with the descriptors.  Nothing else of the worker gets there:
 * connections and pidfds end with the exec.  A keeper that dies as soon as it is made is followed by
 * the next after a while, a longer one each time.
 */
#include "daemon/kept.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/context.h"
#include "daemon/control.h"
#include "daemon/log.h"
#include "shm/base.h"

#define QUICK_MS     1000
#define WAIT_STEP_MS 50u
#define WAIT_MAX_MS  1000u

static void shut(int *fd)
{
	tgs_close_fd(fd);
	*fd = -1;
}

/* ---- a new keeper ---- */

/* In the child's child. */
__attribute__((noreturn)) static void become_keeper(struct tgd_kept *kept, int control, int self)
{
	struct tgd_handover given = kept->have;

	given.role = TGD_ROLE_KEEPER;
	given.control = control;
	given.worker = self;
	tgd_log(TGD_LOG_ERROR, "the new keeper cannot be executed: %s",
		strerror(-tgd_handover_exec(&given, kept->program, kept->argv)));
	_exit(1);
}

static int fork_keeper(struct tgd_kept *kept, int control, int self)
{
	pid_t child = fork();
	int status;

	if (child < 0)
		return -errno;
	if (child == 0) {
		child = fork();
		if (child == 0)
			become_keeper(kept, control, self);
		_exit(child < 0 ? 1 : 0);
	}
	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EAGAIN;
}

static void listen_to_keeper(struct tgd_kept *kept);

static int make_keeper(struct tgd_kept *kept)
{
	TGS_CLOSE int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	int ends[2], r;

	if (self < 0)
		return -errno;
	r = tgd_control_pair(ends);
	if (r < 0)
		return r;
	kept->have.worker_pid = getpid();
	r = fork_keeper(kept, ends[1], self);
	close(ends[1]);
	if (r < 0) {
		close(ends[0]);
		return r;
	}
	kept->made_at = tgd_now_ms();
	kept->have.control = ends[0];
	listen_to_keeper(kept);
	return 0;
}

static void wait_for_next(struct tgd_kept *kept)
{
	struct timeval tv;

	kept->wait_ms = (unsigned)tgs_min(kept->wait_ms + WAIT_STEP_MS, WAIT_MAX_MS);
	tv = (struct timeval){.tv_sec = kept->wait_ms / 1000,
			      .tv_usec = kept->wait_ms % 1000 * 1000};
	evtimer_add(kept->again, &tv);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	struct tgd_kept *kept = arg;
	int r;

	(void)fd;
	(void)what;
	if (kept->leaving)
		return;
	r = make_keeper(kept);
	if (r == 0)
		return;
	tgd_log(TGD_LOG_ERROR, "no new keeper can be started: %s", strerror(-r));
	wait_for_next(kept);
}

static void on_keeper_gone(struct tgd_kept *kept)
{
	event_free(kept->heard);
	kept->heard = NULL;
	shut(&kept->have.control);
	if (kept->leaving)
		return;
	tgd_log(TGD_LOG_WARNING, "the keeper (process %d) has died; a new one is started",
		(int)kept->have.keeper_pid);
	/* The new one knows of no other program. */
	if (kept->retiring)
		snprintf(kept->have.failure, sizeof(kept->have.failure),
			 "the keeper died before it had started the new program; the old one "
			 "serves again");
	kept->have.keeper_pid = 0;
	if (kept->made_at != 0 && tgd_now_ms() - kept->made_at < QUICK_MS) {
		wait_for_next(kept);
		return;
	}
	kept->wait_ms = 0;
	on_again(-1, 0, kept);
}

/* ---- what the keeper says ---- */

static void on_control(evutil_socket_t fd, short what, void *arg)
{
	struct tgd_control_message message;
	struct tgd_kept *kept = arg;
	int r;

	(void)what;
	while ((r = tgd_control_receive(fd, &message)) > 0) {
		while (message.n_fds > 0)
			close(message.fds[--message.n_fds]);
		if (strcmp(message.word, "keeper") == 0)
			kept->have.keeper_pid = (pid_t)strtol(message.text, NULL, 10);
		else if (strcmp(message.word, "retire") == 0) {
			kept->retiring = true;
			kept->retire(kept->arg);
		}
	}
	if (r != -EAGAIN)
		on_keeper_gone(kept);
}

static void listen_to_keeper(struct tgd_kept *kept)
{
	kept->heard =
		event_new(kept->base, kept->have.control, EV_READ | EV_PERSIST, on_control, kept);
	if (kept->heard != NULL && event_add(kept->heard, NULL) == 0)
		return;
	/* Without a word from us the keeper still sees when we die. */
	tgd_log(TGD_LOG_ERROR, "the keeper cannot be listened to: out of memory");
}

/* ---- what it is told ---- */

static int tell(struct tgd_kept *kept, const char *word, const char *text, const int *fds,
		size_t n_fds)
{
	if (kept->have.control < 0)
		return -ENOTCONN;
	return tgd_control_send(kept->have.control, word, text, fds, n_fds);
}

int tgd_kept_files(struct tgd_kept *kept, int map, int heap, bool tell_it)
{
	int fds[] = {map, heap};

	kept->have.map = fcntl(map, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	kept->have.heap = fcntl(heap, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (kept->have.map < 0 || kept->have.heap < 0)
		return -errno;
	if (tell_it)
		(void)tell(kept, "files", "", fds, TGS_ARRAY_LEN(fds));
	return 0;
}

void tgd_kept_ready(struct tgd_kept *kept)
{
	kept->have.ready = true;
	(void)tell(kept, "ready", PACKAGE_VERSION, NULL, 0);
}

void tgd_kept_leave(struct tgd_kept *kept, const char *word, const char *text)
{
	kept->leaving = true;
	(void)tell(kept, word, text, NULL, 0);
}

int tgd_kept_retire(struct tgd_kept *kept)
{
	int r = tell(kept, "retired", "", NULL, 0);

	kept->leaving = r == 0;
	return r;
}

int tgd_kept_upgrade(struct tgd_kept *kept, int program, const char *path)
{
	return tell(kept, "upgrade", path, &program, 1);
}

/* ---- life ---- */

int tgd_kept_init(struct tgd_kept *kept, const struct tgd_handover *handover, char **argv,
		  struct event_base *base, void (*retire)(void *arg), void *arg)
{
	*kept = (struct tgd_kept){.have = *handover,
				  .argv = argv,
				  .base = base,
				  .retire = retire,
				  .arg = arg,
				  .program = -1};
	/* Ours once we know them as the heap has them. */
	kept->have.map = kept->have.heap = -1;
	kept->program = tgd_handover_self();
	if (kept->program < 0)
		return kept->program;
	kept->again = evtimer_new(base, on_again, kept);
	if (kept->again == NULL)
		return -ENOMEM;
	listen_to_keeper(kept);
	return kept->heard == NULL ? -ENOMEM : 0;
}

void tgd_kept_done(struct tgd_kept *kept)
{
	if (kept->heard != NULL)
		event_free(kept->heard);
	if (kept->again != NULL)
		event_free(kept->again);
	shut(&kept->have.control);
	shut(&kept->have.map);
	shut(&kept->have.heap);
	shut(&kept->program);
}
