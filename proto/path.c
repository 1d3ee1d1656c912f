/* path.c - where the daemon's socket is: one rule for tgd, libtg and tgctl.
 *
 * The first of these that there is:
 * - what the caller was given (an option);
 * - $TG_SOCKET;
 * - $XDG_RUNTIME_DIR/tgd.sock, the place for a user's own sockets;
 * - /run/tgd.sock for root;
 * - /tmp/tgd-UID.sock.
 * An environment variable that is empty counts as unset, and none is believed in a setuid program.
 * No malloc: libtgmalloc asks from inside malloc.
 */
#include "proto/path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

_Static_assert(TGP_SOCKET_PATH_SIZE == sizeof(((struct sockaddr_un *)0)->sun_path),
	       "a path that fits the buffer fits the address");

static const char *env(const char *name)
{
	const char *value = secure_getenv(name);

	return value != NULL && *value != '\0' ? value : NULL;
}

/* Writes the path with its end to buf.  -ENAMETOOLONG: longer than buf, or than a socket's
 * address can be (107 bytes); -EINVAL: `given` is the empty string.  buf may be written to on
 * failure.  Reads the environment, so no thread may change that meanwhile. */
int tgp_socket_path(const char *given, char *buf, size_t size)
{
	const char *path = given != NULL ? given : env("TG_SOCKET");
	const char *dir = path == NULL ? env("XDG_RUNTIME_DIR") : NULL;
	int n;

	if (path != NULL && *path == '\0')
		return -EINVAL;
	if (path != NULL)
		n = snprintf(buf, size, "%s", path);
	else if (dir != NULL)
		n = snprintf(buf, size, "%s/tgd.sock", dir);
	else if (geteuid() == 0)
		n = snprintf(buf, size, "/run/tgd.sock");
	else
		n = snprintf(buf, size, "/tmp/tgd-%u.sock", (unsigned)geteuid());
	if (n < 0 || (size_t)n >= size || (size_t)n >= TGP_SOCKET_PATH_SIZE)
		return -ENAMETOOLONG;
	return 0;
}
