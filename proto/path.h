/* path.h - where the daemon's socket is: one rule for tgd, libtg and tgctl. */
#pragma once

#include <stddef.h>

/* Bytes that hold any path of a Unix socket, with its end: sizeof(((struct sockaddr_un
 * *)0)->sun_path). */
#define TGP_SOCKET_PATH_SIZE 108

/* `given` if it is not NULL, else $TG_SOCKET, else the default.  0; -ENAMETOOLONG; -EINVAL: it
 * is empty. */
int tgp_socket_path(const char *given, char *buf, size_t size);
