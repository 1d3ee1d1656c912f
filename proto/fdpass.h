/* fdpass.h - bytes and open descriptors through a Unix stream socket. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#define TGP_FDS_MAX 2 /* descriptors in one message */

/* One sendmsg; the descriptors ride with the first byte.  Bytes sent, or -errno. */
ssize_t tgp_send_fds(int sock, const void *bytes, size_t n, const int *fds, size_t n_fds);

/* One recvmsg.  Bytes received (0: the peer closed), or -errno. */
ssize_t tgp_recv_fds(int sock, void *buf, size_t size, int *fds, size_t max_fds, size_t *ret_n_fds);
