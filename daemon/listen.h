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

/* Removes the socket and gives up the lock. */
void tgd_listen_done(struct tgd_listener *listener);
