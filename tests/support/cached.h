/* cached.h - a tgcached on a port of its own, and conversations with it or with memcached.
 *
 * The heap is that of $TG_SOCKET, which the fixtures set.  No wait is longer than TGT_TIMEOUT_MS.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct tgt_cached {
	pid_t pid; /* 0: none runs */
	int port;
	int n_workers;
	int log_fd; /* what it says; held open, as a closed pipe would kill it */
};

/* Starts $TGCACHED and waits until it listens.  False: it did not. */
bool tgt_cached_start(struct tgt_cached *cached, int n_workers);

/* SIGTERM and wait: the exit status, 128 + signal, -ETIMEDOUT; 99 if a sanitizer found something in it or in a worker.
 * 0 if none runs. */
int tgt_cached_stop(struct tgt_cached *cached);

/* Waits until all workers run, and gives their process numbers.  False: they did not. */
bool tgt_cached_workers(const struct tgt_cached *cached, pid_t *ret_pids);

/* A connection, whose reads end after TGT_TIMEOUT_MS; -errno.  To a port of 127.0.0.1, or to a Unix socket. */
int tgt_connect_port(int port);
int tgt_connect_path(const char *path);

/* Sends the bytes, `piece` at a time (0: all at once).  False: the connection has failed. */
bool tgt_send(int fd, const void *bytes, size_t n, size_t piece);

/* Reads a line, without its end, or exactly n bytes.  False: the connection has ended. */
bool tgt_read_line(int fd, char *line, size_t size);
bool tgt_read_bytes(int fd, void *bytes, size_t n);

/* Says it, ends its own side, reads until the end of the other's, and closes: the answer, the caller's (free), with a
 * zero byte after it; NULL if the connection failed. */
char *tgt_converse(int fd, const void *bytes, size_t n, size_t piece, size_t *ret_size);

/* Stores a key, and reads one (as a string, the caller's), on a connection.  False, NULL: not stored, not there. */
bool tgt_cached_set(int fd, const char *key, const void *value, size_t n);
char *tgt_cached_get(int fd, const char *key, size_t *ret_n);

/* A number of "stats"; -1 if it is not there. */
long long tgt_cached_stat(int fd, const char *name);
