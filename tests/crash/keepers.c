/* keepers.c - a daemon of which every process is known, and a heap with a client.
 *
 * All its processes are in one group, and those that a kill leaves without a parent become children of this program: so it is
 * seen when the last one has ended.
 */
#include "tests/crash/keepers.h"

#include <CUnit/CUnit.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/fixture.h"
#include "tests/support/peer.h"

#define N_OBJECTS 50u

pid_t tgt_keepers_group;

static char dir[] = "/tmp/tg-crash-keeper.XXXXXX";
static char socket_path[64], log_path[64], notify_path[64];
static int manager = -1;
static struct tgt_peer peer = {.fd = -1};
static void *objects[N_OBJECTS];
static unsigned n_objects;

/* ---- the daemon ---- */

static void become_tgd(pid_t parent)
{
	const char *tgd = getenv("TGD");
	int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);

	if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 || getppid() != parent || setpgid(0, 0) < 0 ||
	    log < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
		_exit(126);
	execl(tgd, tgd, "--socket", socket_path, "--reserve", "256M", "--limit", "16M", NULL);
	_exit(127);
}

void tgt_keepers_spawn(void)
{
	pid_t parent = getpid();

	fflush(NULL);
	tgt_keepers_group = fork();
	if (tgt_keepers_group == 0)
		become_tgd(parent);
	CU_ASSERT_FATAL(tgt_keepers_group > 0);
	setpgid(tgt_keepers_group, tgt_keepers_group);
}

bool tgt_keepers_have_ended(void)
{
	pid_t pid;

	do
		pid = waitpid(-tgt_keepers_group, NULL, WNOHANG);
	while (pid > 0);
	return pid < 0 && errno == ECHILD;
}

/* What the manager was told. */
static void hear_nothing(void)
{
	char text[256];

	/* Descriptors that come with it are closed, as there is no room for them. */
	while (recv(manager, text, sizeof(text), MSG_DONTWAIT) >= 0)
		;
}

static bool is_alive(pid_t pid)
{
	return pid > 0 && kill(pid, 0) == 0;
}

void tgt_keepers_kill(void)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;

	/* Whoever was just being made may have missed the first signal. */
	while (!tgt_keepers_have_ended() && tgt_now_ms() < deadline) {
		kill(-tgt_keepers_group, SIGKILL);
		(void)poll(NULL, 0, 1);
	}
	CU_ASSERT(tgt_keepers_have_ended());
	hear_nothing();
	unlink(log_path);
}

bool tgt_keepers_said(const char *text)
{
	FILE *log = fopen(log_path, "re");
	char line[512];
	bool found = false;

	while (log != NULL && !found && fgets(line, sizeof(line), log) != NULL)
		found = strstr(line, text) != NULL;
	if (log != NULL)
		fclose(log);
	return found;
}

void tgt_keepers_show_log(void)
{
	FILE *log = fopen(log_path, "re");
	char line[512];

	while (log != NULL && fgets(line, sizeof(line), log) != NULL)
		fputs(line, stdout);
	if (log != NULL)
		fclose(log);
}

const Tgd__Reply *tgt_keepers_ask(Tgd__Admin__What what, const char *path)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Admin admin = TGD__ADMIN__INIT;
	const Tgd__Reply *reply;

	admin.what = what;
	admin.path = (char *)path;
	request.body_case = TGD__REQUEST__BODY_ADMIN;
	request.admin = &admin;
	if (peer.fd >= 0)
		tgt_peer_close(&peer);
	if (tgt_peer_connect(&peer, socket_path) < 0)
		return NULL;
	return tgt_peer_hello(&peer) == 0 && tgt_peer_ask(&peer, &request, &reply) == 0 ? reply
											: NULL;
}

bool tgt_keepers_await_stop(pid_t pid)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;

	while (tgt_state_of(pid) != 'T' && tgt_now_ms() < deadline)
		(void)poll(NULL, 0, 1);
	return tgt_state_of(pid) == 'T';
}

static bool look(struct tgt_keepers *d)
{
	const Tgd__Reply *reply = tgt_keepers_ask(TGD__ADMIN__WHAT__STATUS, "");

	if (reply == NULL || reply->body_case != TGD__REPLY__BODY_STATUS)
		return false;
	d->worker = (pid_t)reply->status->pid;
	d->keeper = (pid_t)reply->status->keeper_pid;
	d->upgrade_failed = reply->status->upgrade_failure[0] != '\0';
	return true;
}

enum tgt_fate tgt_keepers_settle(struct tgt_keepers *d, pid_t old)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;

	while (tgt_now_ms() < deadline) {
		if (tgt_keepers_have_ended())
			return TGT_ALL_ENDED;
		if (look(d) && d->worker != old && is_alive(d->worker) && is_alive(d->keeper))
			return TGT_SERVED;
		(void)poll(NULL, 0, 1);
	}
	return TGT_STUCK;
}

/* ---- the heap ---- */

static size_t size_of(unsigned i)
{
	return 1 + i * 977 % 40000;
}

bool tgt_keepers_enter(void)
{
	const struct tg_options options = {
		.size = sizeof(options), .socket = socket_path, .timeout_ms = TGT_TIMEOUT_MS};

	if (tg_attach(&options) != 0)
		return false;
	for (n_objects = 0; n_objects < N_OBJECTS; n_objects++) {
		objects[n_objects] = tg_malloc(size_of(n_objects));
		if (objects[n_objects] == NULL)
			return false;
		tgt_fill_object(objects[n_objects], size_of(n_objects), n_objects);
	}
	return true;
}

void tgt_keepers_leave(void)
{
	if (n_objects != 0)
		(void)tg_detach();
	n_objects = 0;
}

bool tgt_keepers_objects_are_whole(void)
{
	unsigned i;

	for (i = 0; i < n_objects; i++) {
		if (!tgt_is_filled(objects[i], size_of(i), i))
			return false;
	}
	return true;
}

/* The client goes on, and the daemon counts what is there. */
static bool heap_is_whole(void)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;
	void *p = tg_malloc(100000);
	const Tgd__Reply *reply;
	bool well = p != NULL && tgt_keepers_objects_are_whole();

	tg_free(p);
	/* Who retires hangs up; the next one answers. */
	do
		reply = tgt_keepers_ask(TGD__ADMIN__WHAT__CHECK, "");
	while (reply == NULL && !tgt_keepers_have_ended() && tgt_now_ms() < deadline);
	return well && tg_trim() == 0 && reply != NULL &&
	       reply->body_case == TGD__REPLY__BODY_CHECK && reply->check->ok &&
	       reply->check->objects == n_objects;
}

bool tgt_keepers_go_on(struct tgt_keepers *d)
{
	pid_t worker = d->worker;

	if (n_objects == 0 && !tgt_keepers_enter())
		return false;
	if (!heap_is_whole())
		return false;
	kill(worker, SIGKILL);
	return tgt_keepers_settle(d, worker) == TGT_SERVED && heap_is_whole();
}

/* ---- all of it ---- */

int tgt_keepers_set_up(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (mkdtemp(dir) == NULL || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		return 1;
	snprintf(socket_path, sizeof(socket_path), "%s/s", dir);
	snprintf(log_path, sizeof(log_path), "%s/log", dir);
	snprintf(notify_path, sizeof(notify_path), "%s/notify", dir);
	strcpy(address.sun_path, notify_path);
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return setenv("NOTIFY_SOCKET", notify_path, 1) < 0 ||
	       bind(manager, (struct sockaddr *)&address, sizeof(address)) < 0;
}

int tgt_keepers_clean_up(void)
{
	char lock[80];

	if (peer.fd >= 0)
		tgt_peer_close(&peer);
	close(manager);
	snprintf(lock, sizeof(lock), "%s.lock", socket_path);
	unlink(lock);
	unlink(socket_path);
	unlink(notify_path);
	unlink(log_path);
	return rmdir(dir);
}
