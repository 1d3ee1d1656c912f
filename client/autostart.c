/* autostart.c - start a tgd as tmux starts its server: when the first client wants one.
 *
 * A shell starts it in the background and ends at once, so the daemon is nobody's child and the client has none to wait
 * for.  It runs in a session of its own, without our descriptors, and without LD_PRELOAD: it must not run on the heap
 * that it is about to make.
 */
#include "client/autostart.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/process.h"

#define IDLE_EXIT_SECONDS "10"
#define ENV_MAX           4096

extern char **environ;

/* The environment less LD_PRELOAD. */
static void copy_environment(char **ret)
{
	size_t n = 0;
	char **p;

	for (p = environ; *p && n < ENV_MAX - 1; p++) {
		if (strncmp(*p, "LD_PRELOAD=", strlen("LD_PRELOAD=")) != 0)
			ret[n++] = *p;
	}
	ret[n] = NULL;
}

int tgc_autostart(char *why, size_t why_size)
{
	static char script[] = "command -v \"$1\" >/dev/null || exit 127; "
			       "setsid \"$@\" </dev/null >/dev/null 2>&1 &";
	const char *program = secure_getenv("TGD");
	char idle[] = IDLE_EXIT_SECONDS;
	char *args[] = {"sh",
			"-c",
			script,
			"sh",
			(char *)(program ? program : "tgd"),
			"--socket",
			tgc_saved.socket,
			"--idle-exit",
			idle,
			tgc_saved.heap[0] ? "--heap" : NULL,
			tgc_saved.heap,
			NULL};
	char *environment[ENV_MAX];
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	pid_t pid;
	int r, status;

	copy_environment(environment);
	r = posix_spawnattr_init(&attributes);
	if (r != 0)
		return -r;
	(void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
	r = posix_spawn_file_actions_init(&actions);
	if (r == 0) {
		/* It outlives us: it must not keep our sockets and pipes open. */
		r = posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
		if (r == 0)
			r = posix_spawn(&pid, "/bin/sh", &actions, &attributes, args, environment);
		(void)posix_spawn_file_actions_destroy(&actions);
	}
	(void)posix_spawnattr_destroy(&attributes);
	if (r != 0) {
		snprintf(why, why_size, "cannot start tgd: %s", strerror(r));
		return -r;
	}
	while (waitpid(pid, &status, 0) < 0) {
		/* ECHILD: the program ignores SIGCHLD, and the shell has ended. */
		if (errno != EINTR)
			return 0;
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		snprintf(why, why_size,
			 "cannot start tgd: %s is not in the PATH; install it, or set TGD to its "
			 "path",
			 args[4]);
		return -ENOENT;
	}
	return 0;
}
