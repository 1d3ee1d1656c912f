/* run.c - the nursery, the world (daemon and observer), and the loop over all points of a script.
 */
#include "tests/crash/run.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/process.h"
#include "tests/crash/control.h"
#include "tests/crash/ledger.h"
#include "tests/crash/oracle.h"
#include "tests/support/child.h"
#include "tests/support/daemon.h"

/* A script that is still not through is in a loop. */
#define POINTS_MAX 20000u

/* More of a kind tell nothing new. */
#define FAILURES_MAX 3u

uint64_t tgt_n_kills;

static int nursery = -1;
static struct tgt_daemon daemon_;
static const char *const *daemon_args;

/* ---- the nursery ---- */

static void child_main(void)
{
	const struct tgt_script *script = tgt_ledger->script;
	struct tg_options options = {.size = sizeof(options), .name = "victim"};

	tgt_is_child = true;
	options.socket = tgt_ledger->socket;
	options.flags = tgt_ledger->reclaim ? TG_RECLAIM : 0;
	if (script->flags & TGT_COUNT_ERRORS)
		setenv("TG_ON_ERROR", "count", 1);
	if (!(script->flags & TGT_UNATTACHED))
		TGT_REQUIRE(tg_attach(&options) == 0);
	if (script->set_up != NULL)
		script->set_up();
	script->operation();
	_exit(tgt_failed_expectations() != 0);
}

static pid_t bear(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid != 0)
		return pid;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(126);
	child_main();
	_exit(126);
}

/* 0: bear a child.  Else wait for the end of that one. */
static void nurse(int fd)
{
	int32_t pid, answer;

	while (read(fd, &pid, sizeof(pid)) == sizeof(pid)) {
		if (pid == 0)
			answer = bear();
		else if (waitpid(pid, &answer, WUNTRACED) < 0)
			answer = -errno;
		if (write(fd, &answer, sizeof(answer)) != sizeof(answer))
			break;
	}
	_exit(0);
}

bool tgt_nursery_start(void)
{
	int ends[2];
	pid_t parent = getpid(), pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return false;
	pid = fork();
	if (pid == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
			_exit(126);
		close(ends[0]);
		nurse(ends[1]);
	}
	close(ends[1]);
	nursery = ends[0];
	return pid > 0;
}

static int receive(void)
{
	struct pollfd p = {.fd = nursery, .events = POLLIN};
	int32_t answer;

	if (poll(&p, 1, TGT_TIMEOUT_MS) != 1 ||
	    read(nursery, &answer, sizeof(answer)) != sizeof(answer))
		return -ETIMEDOUT;
	return answer;
}

static void request(int32_t what)
{
	if (write(nursery, &what, sizeof(what)) != sizeof(what))
		abort();
}

int tgt_child_start(void)
{
	fflush(NULL);
	request(0);
	return receive();
}

int tgt_child_wait(int pid)
{
	int status;

	request(pid);
	status = receive();
	if (status == -ETIMEDOUT) {
		printf("the child hangs\n");
		kill(pid, SIGKILL);
		status = receive();
	}
	return status;
}

/* ---- the world ---- */

void tgt_world_start(const char *const *args)
{
	struct tg_options options = {.size = sizeof(options), .name = "observer"};
	int r = tgt_daemon_start(&daemon_, args);

	daemon_args = args;
	if (r == 0) {
		snprintf(tgt_ledger->socket, sizeof(tgt_ledger->socket), "%s", daemon_.socket);
		options.socket = daemon_.socket;
		r = tg_attach(&options);
	}
	if (r < 0) {
		fprintf(stderr, "no world: %s %s\n", strerror(-r), tg_attach_error());
		exit(EXIT_FAILURE);
	}
	tgt_control->from = (uintptr_t)tgc_heap.base;
	tgt_control->to = (uintptr_t)tgc_heap.base + tgc_heap.geometry.heap_bytes;
	tgt_oracle_start();
}

bool tgt_world_stop(void)
{
	tgt_admin_close();
	return tg_detach() == 0 && tgt_daemon_stop(&daemon_) == 0;
}

const char *tgt_world_log(void)
{
	return tgt_daemon_log(&daemon_);
}

void tgt_world_renew(void)
{
	(void)tgt_world_stop();
	tgt_world_start(daemon_args);
}

/* ---- runs ---- */

/* The child comes to its meeting, if it is not killed before. */
static void meet(const struct tgt_script *script)
{
	struct timespec wait = {.tv_nsec = 1000000};
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;

	/* Where the meeting is at a point, the child may be killed before it. */
	while (atomic_load(&tgt_ledger->met) == 0 && tgt_fired(TGT_CLIENT) == NULL &&
	       tgt_now_ms() < deadline)
		syscall(SYS_futex, &tgt_ledger->met, FUTEX_WAIT, 0, &wait, NULL, 0);
	if (atomic_load(&tgt_ledger->met) == 0)
		return;
	script->meeting();
	atomic_store(&tgt_ledger->gone, 1);
	syscall(SYS_futex, &tgt_ledger->gone, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void tgt_run_prepare(const struct tgt_script *script, bool reclaim, uint64_t k, int signal)
{
	if (script->flags & TGT_FRESH)
		tgt_world_renew();
	tgt_ledger_clear();
	tgt_control->aim[TGT_CLIENT].fired = tgt_control->aim[TGT_DAEMON].fired = 0;
	tgt_ledger->script = script;
	tgt_ledger->reclaim = reclaim;
	tgt_ledger->k = k;
	tgt_ledger->daemon_k = tgt_ledger->daemon_next = TGT_NO_POINT;
	tgt_ledger->signal = signal;
	if (script->observer != NULL)
		script->observer();
}

void tgt_run_second(const struct tgt_script *script, uint64_t k, int signal)
{
	tgt_control->aim[TGT_CLIENT].fired = 0;
	tgt_ledger->script = script;
	tgt_ledger->k = k;
	tgt_ledger->signal = signal;
	tgt_ledger->armed_once = tgt_ledger->finished = 0;
}

enum tgt_outcome tgt_run_judge(int status)
{
	bool cut = tgt_fired(TGT_CLIENT) != NULL;
	bool ended = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	bool stopped = WIFSTOPPED(status);

	tgt_disarm(TGT_CLIENT);
	/* The child of a child that was cut ends by itself. */
	if (tgt_ledger->armed_once && cut != (tgt_ledger->finished != 0) &&
	    (ended || (cut && (killed || stopped))))
		return cut ? TGT_CUT : TGT_ENDED;
	tgt_wrong("the child ends with wait status 0x%x (points %s, %s)", status,
		  tgt_ledger->armed_once ? "counted" : "never counted",
		  tgt_ledger->finished ? "finished" : "not finished");
	return TGT_FAILED;
}

void tgt_run_failed(const struct tgt_script *script, const char *how, uint64_t k)
{
	enum tgt_role role;

	tgt_disarm(TGT_CLIENT);
	tgt_disarm(TGT_DAEMON);
	printf("  in script %s, %s, point %llu\n", script->name, how, (unsigned long long)k);
	for (role = 0; role < TGT_ROLES; role++) {
		const struct tgt_site_info *at = tgt_fired(role);

		if (at != NULL)
			printf("  %s killed at %s:%u (%s)\n",
			       role == TGT_CLIENT ? "client" : "daemon", at->file, at->line,
			       at->what);
	}
	/* What was wrong stays wrong. */
	tgt_world_renew();
}

int tgt_run_child(const struct tgt_script *script, int *ret_pid)
{
	int pid = tgt_child_start();

	*ret_pid = pid;
	if (pid < 0) {
		tgt_wrong("no child: %s", strerror(-pid));
		return pid;
	}
	if (script->meeting != NULL)
		meet(script);
	return tgt_child_wait(pid);
}

enum tgt_outcome tgt_run_prepared(const struct tgt_script *script)
{
	enum tgt_outcome outcome;
	int pid;

	outcome = tgt_run_judge(tgt_run_child(script, &pid));
	tgt_n_kills += outcome == TGT_CUT;
	return outcome != TGT_FAILED && tgt_oracle() ? outcome : TGT_FAILED;
}

static enum tgt_outcome run(const struct tgt_script *script, bool reclaim, uint64_t k)
{
	tgt_run_prepare(script, reclaim, k, SIGKILL);
	return tgt_run_prepared(script);
}

/* All points under one policy: the number of failures. */
static unsigned run_policy(const struct tgt_script *script, bool reclaim, uint64_t point)
{
	uint64_t first = point != 0 ? point : 1, last = point != 0 ? point : POINTS_MAX, k;
	enum tgt_outcome outcome = TGT_CUT;
	unsigned n = 0;

	for (k = first; k <= last && outcome != TGT_ENDED && n < FAILURES_MAX; k++) {
		outcome = run(script, reclaim, k);
		if (outcome == TGT_FAILED) {
			tgt_run_failed(script, reclaim ? "policy reclaim" : "policy keep", k);
			n++;
			if (tgt_ledger->finished)
				break;
		}
	}
	if (k > POINTS_MAX) {
		tgt_wrong("script %s has no end", script->name);
		n++;
	}
	return n;
}

unsigned tgt_run_script(const struct tgt_script *script, uint64_t point)
{
	unsigned n = run_policy(script, false, point);

	if (!(script->flags & TGT_KEEP_ONLY))
		n += run_policy(script, true, point);
	return n;
}
