/* handover.c - from one process to the next, over an exec: descriptors by number, the rest as text.
 *
 * Keeper and worker are the same program, but not always the same version of it: after an upgrade
 * an old one hands over to a new one, or, if that fails, the other way.  So what is handed over is
 * text in the environment, "name=value" separated by blanks, in which a reader finds what it knows
 * and skips what it does not.  Names once used keep their meaning.
 * All descriptors are closed by the exec but those that are handed over; whoever takes them makes
 * them so again.
 */
#include "daemon/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4
#endif

#define VARIABLE         "TGD_HANDOVER"
#define VARIABLE_SOCKET  "TGD_HANDOVER_SOCKET"
#define VARIABLE_NAME    "TGD_HANDOVER_NAME"
#define VARIABLE_FAILURE "TGD_HANDOVER_FAILURE"

#define N_FDS 6

static int *fd_at(struct tgd_handover *handover, unsigned i)
{
	int *const all[N_FDS] = {&handover->control, &handover->listener, &handover->lock,
				 &handover->map,     &handover->heap,     &handover->worker};

	return all[i];
}

static const char *const fd_names[N_FDS] = {"control", "listener", "lock", "map", "heap", "worker"};

void tgd_handover_init(struct tgd_handover *handover)
{
	unsigned i;

	*handover = (struct tgd_handover){.role = TGD_ROLE_FIRST};
	for (i = 0; i < N_FDS; i++)
		*fd_at(handover, i) = -1;
}

static void clear_environment(void)
{
	unsetenv(VARIABLE);
	unsetenv(VARIABLE_SOCKET);
	unsetenv(VARIABLE_NAME);
	unsetenv(VARIABLE_FAILURE);
}

/* ---- reading ---- */

/* The number behind " name=" in the text; false: it is not there. */
static bool find(const char *text, const char *name, int base, int64_t *ret)
{
	size_t len = strlen(name);
	const char *p = text;

	while ((p = strstr(p, name)) != NULL) {
		if ((p == text || p[-1] == ' ') && p[len] == '=') {
			*ret = strtoll(p + len + 1, NULL, base);
			return true;
		}
		p += len;
	}
	return false;
}

static int take_fds(struct tgd_handover *handover, const char *text)
{
	int64_t number;
	unsigned i;

	for (i = 0; i < N_FDS; i++) {
		if (!find(text, fd_names[i], 10, &number))
			continue;
		if (number <= STDERR_FILENO || number > INT32_MAX ||
		    fcntl((int)number, F_SETFD, FD_CLOEXEC) < 0)
			return -EINVAL;
		*fd_at(handover, i) = (int)number;
	}
	if (handover->control < 0 || handover->listener < 0 || handover->lock < 0 ||
	    (handover->map < 0) != (handover->heap < 0))
		return -EINVAL;
	return handover->role == TGD_ROLE_KEEPER && handover->worker < 0 ? -EINVAL : 0;
}

static int take(struct tgd_handover *handover, const char *text)
{
	const char *socket = getenv(VARIABLE_SOCKET), *name = getenv(VARIABLE_NAME),
		   *failure = getenv(VARIABLE_FAILURE);
	int64_t number;

	if (!find(text, "role", 10, &number) ||
	    (number != TGD_ROLE_KEEPER && number != TGD_ROLE_WORKER) || socket == NULL ||
	    strlen(socket) >= sizeof(handover->socket) || name == NULL ||
	    strlen(name) >= sizeof(handover->name))
		return -EINVAL;
	strcpy(handover->name, name);
	handover->role = (enum tgd_role)number;
	strcpy(handover->socket, socket);
	if (failure != NULL)
		snprintf(handover->failure, sizeof(handover->failure), "%s", failure);
	if (find(text, "keeper-pid", 10, &number))
		handover->keeper_pid = (pid_t)number;
	if (find(text, "worker-pid", 10, &number))
		handover->worker_pid = (pid_t)number;
	if (find(text, "restarts", 10, &number))
		handover->restarts = (uint64_t)number;
	if (find(text, "ready", 10, &number))
		handover->ready = number != 0;
	if (find(text, "mode", 8, &number))
		handover->mode = (mode_t)number;
	if (find(text, "gid", 10, &number))
		handover->gid = (gid_t)number;
	return take_fds(handover, text);
}

int tgd_handover_take(struct tgd_handover *ret, char *why, size_t why_size)
{
	const char *text = getenv(VARIABLE);
	int r = 0;

	tgd_handover_init(ret);
	if (text != NULL && take(ret, text) < 0) {
		snprintf(why, why_size,
			 "the environment has " VARIABLE
			 ", which tgd sets for itself alone, and it makes no sense; unset it");
		r = -EINVAL;
	}
	clear_environment();
	return r;
}

/* ---- writing ---- */

static int put(struct tgd_handover *handover)
{
	char text[512];
	size_t n;
	unsigned i;

	n = (size_t)snprintf(text, sizeof(text),
			     "role=%d keeper-pid=%d worker-pid=%d restarts=%" PRIu64
			     " ready=%d mode=%o gid=%u",
			     (int)handover->role, (int)handover->keeper_pid,
			     (int)handover->worker_pid, handover->restarts, handover->ready,
			     (unsigned)handover->mode, (unsigned)handover->gid);
	for (i = 0; i < N_FDS; i++) {
		if (*fd_at(handover, i) >= 0)
			n += (size_t)snprintf(text + n, sizeof(text) - n, " %s=%d", fd_names[i],
					      *fd_at(handover, i));
	}
	if (setenv(VARIABLE, text, 1) < 0 || setenv(VARIABLE_SOCKET, handover->socket, 1) < 0 ||
	    setenv(VARIABLE_NAME, handover->name, 1) < 0 ||
	    setenv(VARIABLE_FAILURE, handover->failure, 1) < 0)
		return -ENOMEM;
	return 0;
}

/* A number above those of the standard descriptors, open over an exec. */
static int keep_open(int *fd)
{
	if (*fd <= STDERR_FILENO) {
		*fd = fcntl(*fd, F_DUPFD, STDERR_FILENO + 1);
		return *fd < 0 ? -errno : 0;
	}
	return fcntl(*fd, F_SETFD, 0) < 0 ? -errno : 0;
}

int tgd_handover_exec(const struct tgd_handover *handover, int program, char **argv)
{
	struct tgd_handover given = *handover;
	unsigned i;
	int r;

	/* Whatever whoever started us left open is no business of the next. */
	(void)close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
	for (i = 0; i < N_FDS; i++) {
		if (*fd_at(&given, i) < 0)
			continue;
		r = keep_open(fd_at(&given, i));
		if (r < 0)
			return r;
	}
	r = put(&given);
	if (r < 0)
		return r;
	fexecve(program, argv, environ);
	r = -errno;
	/* We may go on, if we are a keeper that wanted to become a newer one. */
	(void)close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
	clear_environment();
	return r;
}

int tgd_handover_self(void)
{
	int fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}
