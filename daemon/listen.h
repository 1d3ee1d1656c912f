/* listen.h - the daemon's place in the file system: its socket, and the lock that says whose it
 * is. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "daemon/peer.h"
#include "proto/path.h"

struct tgd_listener {
	char path[TGP_SOCKET_PATH_SIZE];
	char lock_path[TGP_SOCKET_PATH_SIZE + 8];
	int lock_fd; /* -1: not held */
};

/* Takes the lock, removes a socket that was left behind, and listens.  `access` gives mode and
 * group of the socket. *ret_fd is the caller's.  -EADDRINUSE: another daemon serves the path; or
 * what the kernel says; with a sentence. */
int tgd_listen(struct tgd_listener *listener, const char *path, const struct tgd_access *access,
	       int *ret_fd, char *why, size_t why_size);

/* Goes on with the lock, and the files at this path, that another process of the daemon has made. */
void tgd_listen_resume(struct tgd_listener *listener, const char *path, int lock_fd);

/* Makes this process the one that lock and socket name. */
void tgd_listen_sign(const struct tgd_listener *listener, int fd);

/* Removes socket and lock file, if they still are ours, and closes the lock. */
void tgd_listen_done(struct tgd_listener *listener);
