/* cached.c - starts tgcached, finds its workers in /proc, and talks to it over blocking sockets. */
#include "tests/support/cached.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/child.h"
#include "tests/support/daemon.h"

bool tgt_cached_start(struct tgt_cached *cached, int n_workers)
{
	const char *program = getenv("TGCACHED");
	char n_text[16], line[256];
	bool found = false;
	int fds[2];
	FILE *log;

	snprintf(n_text, sizeof(n_text), "%d", n_workers);
	if (program == NULL || pipe(fds) < 0)
		return false;
	fflush(NULL);
	cached->n_workers = n_workers;
	cached->pid = fork();
	if (cached->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fds[1], STDERR_FILENO);
		close(fds[0]);
		close(fds[1]);
		execl(program, program, "-p", "0", "-w", n_text, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	log = fdopen(fds[0], "r");
	while (!found && fgets(line, sizeof(line), log) != NULL) {
		char *port = strstr(line, " port ");

		found = port != NULL && sscanf(port, " port %d", &cached->port) == 1;
		if (!found)
			fputs(line, stderr);
	}
	cached->log_fd = dup(fds[0]);
	fclose(log);
	return found;
}

/* Whether a sanitizer found something in any of the processes, which have ended; it is then on standard error. */
static bool sanitizer_spoke(int log_fd)
{
	char line[512];
	bool found = false;
	FILE *log = fdopen(dup(log_fd), "r");

	while (log != NULL && fgets(line, sizeof(line), log) != NULL) {
		found = found || strstr(line, "Sanitizer") != NULL ||
			strstr(line, "runtime error") != NULL;
		if (found)
			fputs(line, stderr);
	}
	if (log != NULL)
		fclose(log);
	return found;
}

int tgt_cached_stop(struct tgt_cached *cached)
{
	pid_t pid = cached->pid;
	int status;

	cached->pid = 0;
	if (pid <= 0)
		return 0;
	kill(pid, SIGTERM);
	status = tgt_wait(pid);
	if (sanitizer_spoke(cached->log_fd))
		status = 99;
	close(cached->log_fd);
	return status;
}

static bool list_children(pid_t parent, pid_t *ret_pids, int n)
{
	char path[64];
	int found = 0, pid;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)parent, (int)parent);
	f = fopen(path, "r");
	if (f == NULL)
		return false;
	while (fscanf(f, "%d", &pid) == 1) {
		char state = tgt_state_of(pid);

		if (state != '?' && state != 'Z' && state != 'X' && found < n)
			ret_pids[found++] = pid;
	}
	fclose(f);
	return found == n;
}

bool tgt_cached_workers(const struct tgt_cached *cached, pid_t *ret_pids)
{
	const struct timespec pause = {.tv_nsec = 2000000};
	long long end = tgt_now_ms() + TGT_TIMEOUT_MS;

	while (!list_children(cached->pid, ret_pids, cached->n_workers)) {
		if (tgt_now_ms() > end)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

static int connected(int fd, const struct sockaddr *address, socklen_t size)
{
	const struct timeval limit = {.tv_sec = TGT_TIMEOUT_MS / 1000};

	if (fd < 0 || connect(fd, address, size) < 0) {
		int r = -errno;

		if (fd >= 0)
			close(fd);
		return r;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	return fd;
}

int tgt_connect_port(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int one = 1, fd;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = connected(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), (struct sockaddr *)&address,
		       sizeof(address));
	if (fd >= 0)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

int tgt_connect_path(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	return connected(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
			 (struct sockaddr *)&address, sizeof(address));
}

bool tgt_send(int fd, const void *bytes, size_t n, size_t piece)
{
	const char *p = bytes;

	while (n > 0) {
		ssize_t sent = send(fd, p, piece != 0 && piece < n ? piece : n, MSG_NOSIGNAL);

		if (sent <= 0)
			return false;
		p += sent;
		n -= (size_t)sent;
	}
	return true;
}

bool tgt_read_line(int fd, char *line, size_t size)
{
	size_t n = 0;

	while (n + 1 < size && recv(fd, line + n, 1, 0) == 1) {
		if (line[n++] != '\n')
			continue;
		n -= n > 1 && line[n - 2] == '\r' ? 2 : 1;
		line[n] = '\0';
		return true;
	}
	return false;
}

bool tgt_read_bytes(int fd, void *bytes, size_t n)
{
	return n == 0 || recv(fd, bytes, n, MSG_WAITALL) == (ssize_t)n;
}

char *tgt_converse(int fd, const void *bytes, size_t n, size_t piece, size_t *ret_size)
{
	size_t size = 0, room = 65536;
	char *answer = NULL;
	ssize_t got;

	if (fd < 0)
		return NULL;
	/* A server may end a hopeless conversation before it has heard all: no failure. */
	if (tgt_send(fd, bytes, n, piece))
		shutdown(fd, SHUT_WR);
	do {
		if (answer == NULL || size == room) {
			room *= 2;
			answer = realloc(answer, room + 1);
			if (answer == NULL)
				abort();
		}
		got = recv(fd, answer + size, room - size, 0);
		size += got > 0 ? (size_t)got : 0;
	} while (got > 0);
	got = got < 0 && errno != ECONNRESET ? -1 : 0;
	close(fd);
	if (got < 0) {
		free(answer);
		return NULL;
	}
	answer[size] = '\0';
	*ret_size = size;
	return answer;
}

bool tgt_cached_set(int fd, const char *key, const void *value, size_t n)
{
	char line[320];

	snprintf(line, sizeof(line), "set %s 0 0 %zu\r\n", key, n);
	return tgt_send(fd, line, strlen(line), 0) && tgt_send(fd, value, n, 0) &&
	       tgt_send(fd, "\r\n", 2, 0) && tgt_read_line(fd, line, sizeof(line)) &&
	       strcmp(line, "STORED") == 0;
}

char *tgt_cached_get(int fd, const char *key, size_t *ret_n)
{
	char line[320];
	char *value;
	size_t n;

	snprintf(line, sizeof(line), "get %s\r\n", key);
	if (!tgt_send(fd, line, strlen(line), 0) || !tgt_read_line(fd, line, sizeof(line)) ||
	    sscanf(line, "VALUE %*s %*u %zu", &n) != 1)
		return NULL;
	value = malloc(n + 2);
	if (value == NULL || !tgt_read_bytes(fd, value, n + 2) ||
	    memcmp(value + n, "\r\n", 2) != 0 || !tgt_read_line(fd, line, sizeof(line)) ||
	    strcmp(line, "END") != 0) {
		free(value);
		return NULL;
	}
	value[n] = '\0';
	*ret_n = n;
	return value;
}

long long tgt_cached_stat(int fd, const char *name)
{
	char line[320], found[64];
	long long number = -1, value;

	if (!tgt_send(fd, "stats\r\n", 7, 0))
		return -1;
	while (tgt_read_line(fd, line, sizeof(line)) && strcmp(line, "END") != 0) {
		if (sscanf(line, "STAT %63s %lld", found, &value) == 2 && strcmp(found, name) == 0)
			number = value;
	}
	return number;
}
