/* keeper.c - holds the socket, the lock and the two memory files, and starts the worker that serves.
 *
 * The keeper does next to nothing, so that there is next to nothing that can go wrong with it: it
 * waits for signals, for messages of its worker, and for the worker's end, which a pidfd tells also
 * to a keeper that is not its parent.  A worker that ends in good order says so before; then all
 * ends.  Any other end is followed by the next worker, which gets the same descriptors.  Should the
 * keeper die, its worker starts a new one (kept.c); so the heap is lost only if both die before
 * either has seen it.
 *
 * An upgrade is a worker that is asked to retire and is followed by one from another program.  If
 * that one ends, or is not ready in time, the old program is started again; if it is ready, the
 * keeper executes the new program in its own place, too.
 */
#include "daemon/keeper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/control.h"
#include "daemon/listen.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/peer.h"
#include "shm/base.h"

#define QUICK_MS     1000 /* a worker that dies sooner may be one that always will */
#define WAIT_STEP_MS 50   /* so the next waits longer each time */
#define WAIT_MAX_MS  1000
#define END_MS       10000 /* after which a worker that does not end is killed */
#define TRY_MS       30000 /* after which a new program that is not ready is given up */

/* How the present worker said that it would end. */
enum last_word { NOTHING, ENDED, RETIRED, REFUSED };

struct keeper {
	const struct tgd_config *config;
	struct tgd_handover have; /* `worker` is the pidfd; -1: none runs */
	struct tgd_listener files;
	int program, next_program; /* open files; -1: none */
	char next_path[TGD_CONTROL_TEXT];
	int signals;
	enum last_word last_word;
	char last_text[TGD_CONTROL_TEXT];
	bool trying;         /* the worker is of next_program, and not ready yet */
	bool served;         /* a worker was ready, at some time */
	bool stopping;       /* a signal said so */
	unsigned n_quick;    /* workers in a row that died soon */
	uint64_t started_at; /* the present worker, ms */
	uint64_t start_at;   /* the next one */
	uint64_t kill_at;    /* 0: never */
	bool done;
	int status;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void shut(int *fd)
{
	tgs_close_fd(fd);
	*fd = -1;
}

static void finish(struct keeper *k, int status)
{
	k->done = true;
	k->status = status;
}

/* ---- the worker starts ---- */

/* In the child. */
__attribute__((noreturn)) static void become_worker(struct keeper *k, int control)
{
	struct tgd_handover given = k->have;
	int program = k->next_program >= 0 ? k->next_program : k->program;

	given.role = TGD_ROLE_WORKER;
	given.control = control;
	given.worker = -1;
	given.worker_pid = getpid();
	/* The signals stay blocked until the worker can handle them. */
	tgd_log(TGD_LOG_ERROR, "the worker cannot be started: %s",
		strerror(-tgd_handover_exec(&given, program, k->config->argv)));
	_exit(1);
}

static int start_worker(struct keeper *k)
{
	int ends[2], r;
	pid_t pid;

	r = tgd_control_pair(ends);
	if (r < 0)
		return r;
	k->trying = k->next_program >= 0;
	k->have.keeper_pid = getpid();
	pid = fork();
	if (pid == 0)
		become_worker(k, ends[1]);
	r = -errno;
	close(ends[1]);
	if (pid > 0) {
		k->have.worker = (int)syscall(SYS_pidfd_open, pid, 0);
		r = -errno;
		if (k->have.worker < 0) {
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
		}
	}
	if (pid < 0 || k->have.worker < 0) {
		close(ends[0]);
		return r;
	}
	k->have.worker_pid = pid;
	k->have.control = ends[0];
	k->have.ready = false;
	k->last_word = NOTHING;
	k->started_at = now_ms();
	k->kill_at = k->trying ? k->started_at + TRY_MS : 0;
	return 0;
}

static void try_start(struct keeper *k)
{
	int r = start_worker(k);

	if (r == 0)
		return;
	tgd_log(TGD_LOG_ERROR, "no worker can be started: %s", strerror(-r));
	if (!k->served)
		finish(k, 1);
	k->start_at = now_ms() + WAIT_MAX_MS;
}

/* ---- the worker ends ---- */

/* How it died, as far as its parent is told. */
static void describe_end(const struct keeper *k, char *text, size_t size)
{
	siginfo_t info = {.si_pid = 0};

	if (waitid(P_PIDFD, (id_t)k->have.worker, &info, WEXITED) < 0)
		snprintf(text, size, "ended (its status is not known here)");
	else if (info.si_code == CLD_EXITED)
		snprintf(text, size, "ended with status %d", info.si_status);
	else
		snprintf(text, size, "was ended by signal %d (%s)%s", info.si_status,
			 strsignal(info.si_status),
			 info.si_code == CLD_DUMPED ? ", core dumped" : "");
}

static void give_up_program(struct keeper *k, const char *how)
{
	int len = snprintf(k->have.failure, sizeof(k->have.failure),
			   "%s %s before it was ready; the old program serves again", k->next_path,
			   k->last_word == REFUSED ? k->last_text : how);

	if (len < 0 || (size_t)len >= sizeof(k->have.failure))
		snprintf(k->have.failure, sizeof(k->have.failure),
			 "the new program %s before it was ready; the old one serves again", how);
	tgd_log(TGD_LOG_ERROR, "the upgrade failed: %s", k->have.failure);
	shut(&k->next_program);
	k->trying = false;
}

/* It died without a word: the next one follows, later and later if they die at once. */
static void replace_dead(struct keeper *k, const char *how)
{
	uint64_t now = now_ms();
	unsigned wait = 0;

	k->n_quick = now - k->started_at < QUICK_MS ? k->n_quick + 1 : 0;
	if (k->n_quick > 1)
		wait = (unsigned)tgs_min((uint64_t)(k->n_quick - 1) * WAIT_STEP_MS, WAIT_MAX_MS);
	k->start_at = now + wait;
	tgd_log(TGD_LOG_WARNING, "worker %d %s; the next one starts %s", (int)k->have.worker_pid,
		how, wait > 0 ? "in a moment, as this one was soon dead" : "now");
}

static void on_worker_end(struct keeper *k)
{
	char how[128];

	describe_end(k, how, sizeof(how));
	shut(&k->have.worker);
	shut(&k->have.control);
	k->kill_at = 0;
	k->have.restarts += k->have.ready;
	k->start_at = 0;
	if (k->last_word == ENDED) {
		if (strcmp(k->last_text, "request") == 0)
			tgd_notify_discard();
		finish(k, 0);
	} else if (k->stopping) {
		tgd_log(TGD_LOG_ERROR, "worker %d %s when it was to end", (int)k->have.worker_pid,
			how);
		finish(k, 1);
	} else if (k->trying) {
		give_up_program(k, how);
	} else if (k->last_word == REFUSED) {
		tgd_log(TGD_LOG_ERROR, "the heap is given up: %s", k->last_text);
		finish(k, 1);
	} else if (!k->served) {
		/* It has said why. */
		finish(k, 1);
	} else if (k->last_word != RETIRED) {
		replace_dead(k, how);
	}
}

/* ---- what the worker says ---- */

static void become_new_program(struct keeper *k)
{
	struct tgd_handover given = k->have;
	int r;

	given.role = TGD_ROLE_KEEPER;
	r = tgd_handover_exec(&given, k->program, k->config->argv);
	tgd_log(TGD_LOG_WARNING,
		"the keeper stays of the old program: the new one cannot be "
		"executed: %s",
		strerror(-r));
}

static void on_ready(struct keeper *k, const char *version)
{
	k->have.ready = k->served = true;
	k->kill_at = 0;
	tgd_notify_ready(getpid());
	if (!k->trying)
		return;
	k->trying = false;
	k->have.failure[0] = '\0';
	shut(&k->program);
	k->program = k->next_program;
	k->next_program = -1;
	tgd_log(TGD_LOG_NOTICE, "upgraded: worker %d is tgd %s from %s", (int)k->have.worker_pid,
		version, k->next_path);
	become_new_program(k);
}

static void on_files(struct keeper *k, struct tgd_control_message *message)
{
	if (message->n_fds != 2 || k->have.map >= 0)
		return;
	k->have.map = message->fds[0];
	k->have.heap = message->fds[1];
	message->n_fds = 0;
	tgd_notify_store(k->have.map, k->have.heap);
}

static void on_upgrade(struct keeper *k, struct tgd_control_message *message)
{
	if (message->n_fds != 1 || k->stopping)
		return;
	shut(&k->next_program);
	k->next_program = message->fds[0];
	message->n_fds = 0;
	snprintf(k->next_path, sizeof(k->next_path), "%s", message->text);
	k->have.failure[0] = '\0';
	tgd_log(TGD_LOG_NOTICE, "upgrade to %s: worker %d is asked to retire", k->next_path,
		(int)k->have.worker_pid);
	(void)tgd_control_send(k->have.control, "retire", "", NULL, 0);
	k->kill_at = now_ms() + END_MS;
}

static void on_message(struct keeper *k, struct tgd_control_message *message)
{
	static const struct {
		const char *word;
		enum last_word value;
	} ends[] = {{"ended", ENDED}, {"retired", RETIRED}, {"refused", REFUSED}};
	size_t i;

	if (strcmp(message->word, "files") == 0)
		on_files(k, message);
	else if (strcmp(message->word, "upgrade") == 0)
		on_upgrade(k, message);
	else if (strcmp(message->word, "ready") == 0)
		on_ready(k, message->text);
	for (i = 0; i < TGS_ARRAY_LEN(ends); i++) {
		if (strcmp(message->word, ends[i].word) != 0)
			continue;
		k->last_word = ends[i].value;
		snprintf(k->last_text, sizeof(k->last_text), "%s", message->text);
	}
	while (message->n_fds > 0)
		close(message->fds[--message->n_fds]);
}

/* All that it has said so far.  False: it has closed its end, which its death does. */
static bool read_control(struct keeper *k)
{
	struct tgd_control_message message;
	int r;

	while ((r = tgd_control_receive(k->have.control, &message)) > 0)
		on_message(k, &message);
	return r == -EAGAIN;
}

/* ---- signals ---- */

static void on_signal(struct keeper *k, int number)
{
	bool stop = number != SIGHUP && !k->stopping;
	int worker = k->have.worker;

	/* A stopped one would hear nothing.  It is woken first: one that is about to end must not be woken from another's stop
	 * (a leak checker's waits for it without an end). */
	if (worker >= 0 && stop)
		(void)tgd_peer_signal(worker, SIGCONT);
	if (worker >= 0)
		(void)tgd_peer_signal(worker, number);
	if (!stop)
		return;
	k->stopping = true;
	if (worker < 0)
		finish(k, 0);
	else
		k->kill_at = now_ms() + END_MS;
}

static int catch_signals(void)
{
	sigset_t caught;

	sigemptyset(&caught);
	sigaddset(&caught, SIGTERM);
	sigaddset(&caught, SIGINT);
	sigaddset(&caught, SIGHUP);
	signal(SIGCHLD, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &caught, NULL);
	return signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* ---- all of it ---- */

static int poll_ms(const struct keeper *k)
{
	uint64_t at = k->have.worker < 0 ? k->start_at : k->kill_at, now = now_ms();

	if (k->have.worker >= 0 && k->kill_at == 0)
		return -1;
	return at > now ? (int)tgs_min(at - now, 60000) : 0;
}

static void turn(struct keeper *k)
{
	struct pollfd p[] = {{.fd = k->signals, .events = POLLIN},
			     {.fd = k->have.worker, .events = POLLIN},
			     {.fd = k->have.control, .events = POLLIN}};
	struct signalfd_siginfo info;

	if (poll(p, TGS_ARRAY_LEN(p), poll_ms(k)) < 0)
		return;
	if (p[0].revents != 0 && read(k->signals, &info, sizeof(info)) == sizeof(info))
		on_signal(k, (int)info.ssi_signo);
	/* First what it said, then that it died. */
	if (p[1].revents != 0 || p[2].revents != 0) {
		if (!read_control(k))
			shut(&k->have.control);
		if (p[1].revents != 0)
			on_worker_end(k);
	}
	if (k->have.worker >= 0 && k->kill_at != 0 && now_ms() >= k->kill_at) {
		tgd_log(TGD_LOG_WARNING, "worker %d does not %s in time and is killed",
			(int)k->have.worker_pid, k->trying ? "start" : "end");
		(void)tgd_peer_signal(k->have.worker, SIGKILL);
		k->kill_at = 0;
	}
	if (!k->done && k->have.worker < 0 && now_ms() >= k->start_at)
		try_start(k);
}

/* The socket, as the configuration wants it. */
static int make_files(struct keeper *k)
{
	const struct tgd_config *config = k->config;
	struct tgd_access access = {
		.mode = config->mode,
		.uid = geteuid(),
		.gid = config->group != (gid_t)-1 ? config->group : getegid(),
	};
	char why[512] = "";

	if (tgd_listen(&k->files, config->socket, &access, &k->have.listener, why, sizeof(why)) <
	    0) {
		tgd_log(TGD_LOG_ERROR, "cannot start: %s", why);
		return -1;
	}
	k->have.lock = k->files.lock_fd;
	k->have.mode = access.mode;
	k->have.gid = access.gid;
	snprintf(k->have.socket, sizeof(k->have.socket), "%s", config->socket);
	snprintf(k->have.name, sizeof(k->have.name), "%s", config->heap);
	if (tgd_notify_take(&k->have.map, &k->have.heap) > 0)
		tgd_log(TGD_LOG_INFO, "the service manager has kept a heap for us");
	return 0;
}

static int set_up(struct keeper *k)
{
	char pid[16];

	k->program = tgd_handover_self();
	k->signals = catch_signals();
	if (k->program < 0 || k->signals < 0) {
		tgd_log(TGD_LOG_ERROR, "cannot start: this program's file, or signals, cannot be "
				       "used; is /proc mounted?");
		return -1;
	}
	if (k->have.role == TGD_ROLE_FIRST)
		return make_files(k);
	k->served = k->have.ready;
	k->started_at = now_ms();
	tgd_listen_resume(&k->files, k->have.socket, k->have.lock);
	tgd_listen_sign(&k->files, k->have.listener);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	(void)tgd_control_send(k->have.control, "keeper", pid, NULL, 0);
	if (k->served)
		tgd_notify_ready(getpid());
	return 0;
}

int tgd_keeper_run(const struct tgd_config *config, const struct tgd_handover *handover)
{
	struct keeper k = {.config = config,
			   .have = *handover,
			   .files = {.lock_fd = -1},
			   .program = -1,
			   .next_program = -1,
			   .signals = -1};

	prctl(PR_SET_NAME, "tgd-keeper");
	k.status = set_up(&k) < 0;
	k.done = k.status != 0;
	while (!k.done)
		turn(&k);
	tgd_listen_done(&k.files);
	shut(&k.have.listener);
	shut(&k.have.map);
	shut(&k.have.heap);
	shut(&k.program);
	shut(&k.next_program);
	shut(&k.signals);
	return k.status;
}
