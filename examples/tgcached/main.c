/* tgcached: a cache server of several processes that speaks memcached's text protocol.
 *
 * This is the parent.  It binds the port, forks the workers, which all accept on the one socket, and starts a new one
 * for each that dies.  It holds nothing itself: the items are in the shared heap, so a new worker serves all of them.
 * If the parent dies the workers end, too; the items stay as long as the daemon of the heap does.
 */
#include "worker.h"

#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <tg.h>

#include "table.h"

#define MAX_WORKERS 1024
#define SHORT_LIFE_MS 1000 /* a worker that ends sooner is started again only after a while, each time twice as long */
#define FIRST_DELAY_MS 100
#define LAST_DELAY_MS 5000
#define STOP_MS 5000       /* how long a worker may take to end before it is killed */

static struct {
	pid_t pid; /* 0: not running */
	int64_t started_ms, start_at_ms, delay_ms;
} workers[MAX_WORKERS];

static int n_workers;

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void start_worker(int i, int listen_fd, const sigset_t *signals)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != parent) /* it died before the line above */
			_exit(0);
		sigprocmask(SIG_UNBLOCK, signals, NULL);
		exit(worker_run(listen_fd, n_workers));
	}
	if (pid < 0)
		perror("tgcached: cannot fork");
	workers[i].pid = pid > 0 ? pid : 0;
	workers[i].started_ms = now_ms();
	workers[i].start_at_ms = now_ms() + LAST_DELAY_MS; /* for a failed fork; else set when the worker ends */
}

/* Notes which workers have ended.  Returns how many still run. */
static int reap(bool stopping)
{
	int n_running = 0;
	int status;

	for (int i = 0; i < n_workers; i++) {
		int64_t now = now_ms();
		bool ended = workers[i].pid && waitpid(workers[i].pid, &status, WNOHANG) == workers[i].pid;

		n_running += workers[i].pid && !ended;
		if (!ended)
			continue;
		if (now - workers[i].started_ms >= SHORT_LIFE_MS)
			workers[i].delay_ms = 0;
		else if (workers[i].delay_ms == 0)
			workers[i].delay_ms = FIRST_DELAY_MS;
		else if ((workers[i].delay_ms *= 2) > LAST_DELAY_MS)
			workers[i].delay_ms = LAST_DELAY_MS;
		workers[i].start_at_ms = now + workers[i].delay_ms;
		if (!stopping)
			fprintf(stderr, "tgcached: worker %d ended by %s %d; the next one starts in %lld ms\n",
				(int)workers[i].pid, WIFSIGNALED(status) ? "signal" : "exit with status",
				WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
				(long long)workers[i].delay_ms);
		workers[i].pid = 0;
	}
	return n_running;
}

static void wait_signal(const sigset_t *signals, int64_t ms, bool *ret_stop)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
	int sig = sigtimedwait(signals, NULL, &t);

	*ret_stop |= sig == SIGTERM || sig == SIGINT;
}

static void run(int listen_fd)
{
	sigset_t signals;
	bool stop = false;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	while (!stop) {
		int64_t wait_ms = 60000;

		for (int i = 0; i < n_workers; i++) {
			int64_t left = workers[i].start_at_ms - now_ms();

			if (!workers[i].pid && left <= 0)
				start_worker(i, listen_fd, &signals);
			else if (!workers[i].pid && left < wait_ms)
				wait_ms = left;
		}
		wait_signal(&signals, wait_ms, &stop);
		reap(stop);
	}
	for (int64_t end = now_ms() + STOP_MS, sent = 0; reap(true) > 0; wait_signal(&signals, 100, &stop)) {
		int sig = now_ms() < end ? SIGTERM : SIGKILL;

		for (int i = 0; i < n_workers && sent != sig; i++) {
			if (workers[i].pid)
				kill(workers[i].pid, sig);
		}
		sent = sig;
	}
}

/* Exits with a message when it cannot. */
static int listen_on(const char *address, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	struct addrinfo *info;
	char shown_host[64], shown_port[16];
	int r = getaddrinfo(address, port, &hints, &info);
	int fd, one = 1;

	if (r != 0) {
		fprintf(stderr, "tgcached: %s port %s: %s\n", address, port, gai_strerror(r));
		exit(1);
	}
	fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, 1024) < 0) {
		fprintf(stderr, "tgcached: cannot listen on %s port %s: %s\n", address, port, strerror(errno));
		exit(1);
	}
	getsockname(fd, info->ai_addr, &info->ai_addrlen); /* for port 0: which one it is */
	getnameinfo(info->ai_addr, info->ai_addrlen, shown_host, sizeof(shown_host), shown_port, sizeof(shown_port),
		    NI_NUMERICHOST | NI_NUMERICSERV);
	freeaddrinfo(info);
	fprintf(stderr, "tgcached: listening on %s port %s with %d workers\n", shown_host, shown_port, n_workers);
	return fd;
}

int main(int argc, char **argv)
{
	const char *port = "11211", *address = "127.0.0.1";
	struct tg_options options = { .size = sizeof(options), .name = "tgcached" };
	int option, r, fd;

	n_workers = (int)sysconf(_SC_NPROCESSORS_ONLN);
	while ((option = getopt(argc, argv, "p:l:w:h")) != -1) {
		if (option == 'p')
			port = optarg;
		else if (option == 'l')
			address = optarg;
		else if (option == 'w')
			n_workers = atoi(optarg);
		else
			optind = argc + 1;
	}
	if (optind != argc || n_workers < 1 || n_workers > MAX_WORKERS) {
		fprintf(stderr, "usage: tgcached [-p PORT] [-l ADDRESS] [-w WORKERS]   (1 to %d workers; the heap: "
			"TG_SOCKET)\n", MAX_WORKERS);
		return 2;
	}
	r = tg_attach(&options); /* only to see that the workers will be able to */
	if (r < 0) {
		fprintf(stderr, "tgcached: cannot attach to the shared heap: %s; is tgd running, and TG_SOCKET set to its "
			"socket?\n", strerror(-r));
		return 1;
	}
	if (!table_open()) {
		fprintf(stderr, "tgcached: no table in the heap: %s\n",
			errno == EPROTO ? "the root \"tgcached\" leads to something else" : strerror(errno));
		return 1;
	}
	tg_detach();
	fd = listen_on(address, port);
	run(fd);
	return 0;
}
