/* notify.c - the side of a service in sd_notify(3) and sd_listen_fds(3).
 *
 * Both are a few lines of text in a datagram and in the environment, kept stable by systemd so that
 * services need not link its library; the keeper then stays small.  The store holds the two memory
 * files under the names below: so a heap survives also that keeper and worker are killed at once,
 * and a restart of the service.
 */
#include "daemon/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/log.h"
#include "shm/base.h"

#define NAME_MAP     "tg-map"
#define NAME_HEAP    "tg-heap"
#define FIRST_LISTEN 3 /* where passed descriptors start, by definition */

/* One datagram, and with it a descriptor unless that is negative. */
static void notify(const char *text, int fd)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct iovec iov = {.iov_base = (char *)text, .iov_len = strlen(text)};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {.bytes = {0}};
	struct msghdr message = {.msg_name = &address, .msg_iov = &iov, .msg_iovlen = 1};
	TGS_CLOSE int sock = -1;

	if (path == NULL || (path[0] != '/' && path[0] != '@') ||
	    strlen(path) >= sizeof(address.sun_path))
		return;
	strcpy(address.sun_path, path);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	message.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (fd >= 0) {
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	}
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0 || sendmsg(sock, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		tgd_log(TGD_LOG_WARNING,
			"the service manager (NOTIFY_SOCKET=%s) cannot be told: %s", path,
			strerror(errno));
}

void tgd_notify_ready(pid_t pid)
{
	char text[64];

	snprintf(text, sizeof(text), "READY=1\nMAINPID=%d", (int)pid);
	notify(text, -1);
}

void tgd_notify_store(int map, int heap)
{
	notify("FDSTORE=1\nFDNAME=" NAME_MAP, map);
	notify("FDSTORE=1\nFDNAME=" NAME_HEAP, heap);
}

void tgd_notify_discard(void)
{
	notify("FDSTOREREMOVE=1\nFDNAME=" NAME_MAP, -1);
	notify("FDSTOREREMOVE=1\nFDNAME=" NAME_HEAP, -1);
}

/* The next of the names, which colons separate; *text goes on behind it. */
static bool next_is(const char **text, const char *name)
{
	size_t len = strcspn(*text, ":");
	bool same = len == strlen(name) && strncmp(*text, name, len) == 0;

	*text += len + ((*text)[len] == ':');
	return same;
}

/* A descriptor that is not one of the standard ones, with close-on-exec. */
static void take(int fd, int *place)
{
	if (*place >= 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		close(fd);
	else
		*place = fd;
}

int tgd_notify_take(int *ret_map, int *ret_heap)
{
	const char *pid = getenv("LISTEN_PID"), *n_text = getenv("LISTEN_FDS"),
		   *names = getenv("LISTEN_FDNAMES");
	int map = -1, heap = -1, fd;
	long n;

	if (pid == NULL || n_text == NULL || names == NULL || strtol(pid, NULL, 10) != getpid())
		return 0;
	n = strtol(n_text, NULL, 10);
	for (fd = FIRST_LISTEN; fd < FIRST_LISTEN + n && *names != '\0'; fd++) {
		const char *at = names;

		if (next_is(&names, NAME_MAP))
			take(fd, &map);
		else if (next_is(&at, NAME_HEAP))
			take(fd, &heap);
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	if (map < 0 || heap < 0) {
		tgs_close_fd(&map);
		tgs_close_fd(&heap);
		return 0;
	}
	*ret_map = map;
	*ret_heap = heap;
	return 1;
}
