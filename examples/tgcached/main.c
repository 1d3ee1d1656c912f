/* main.c - the parent of tgcached, a cache server that speaks memcached's text protocol.
 *
 * It binds the port, forks the workers, which all accept on the one socket, and starts a new one
 * for each that dies.  It holds no data: the items are in the shared heap, so a new worker finds
 * all of them.  When the parent dies the workers end, too; the items stay as long as tgd does.
 */
#include "cached.h"

#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_WORKERS   1024
#define SHORT_LIFE_MS 1000 /* who ends sooner is started again later, or it would be all we do */
#define DELAY_MS      2000
#define STOP_S        5

static struct {
	pid_t pid; /* 0: not running */
	int64_t started_ms, start_at_ms;
} workers[MAX_WORKERS];

static void start_worker(int i, int n, int listen_fd, const sigset_t *signals)
{
	pid_t parent = getpid(), pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent) /* it died before the line above */
			_exit(0);
		sigprocmask(SIG_UNBLOCK, signals, NULL);
		exit(cached_worker(listen_fd, n));
	}
	workers[i].pid = pid > 0 ? pid : 0;
	workers[i].started_ms = cached_now_ms();
	workers[i].start_at_ms = workers[i].started_ms + DELAY_MS; /* if there was no fork */
}

static void note_end(int i, int status)
{
	int64_t now = cached_now_ms();
	bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL; /* by somebody else */

	workers[i].start_at_ms = now;
	if (now - workers[i].started_ms < SHORT_LIFE_MS && !killed)
		workers[i].start_at_ms += DELAY_MS;
	fprintf(stderr, "tgcached: worker %d ended by %s %d\n", (int)workers[i].pid,
		WIFSIGNALED(status) ? "signal" : "exit with status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	workers[i].pid = 0;
}

static void supervise(int n, int listen_fd)
{
	struct timespec tick = {.tv_nsec = 100 * 1000 * 1000};
	sigset_t signals;
	int sig, status;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	do {
		tick.tv_sec = 3600; /* a signal ends it sooner */
		for (int i = 0; i < n; i++) {
			if (workers[i].pid && waitpid(workers[i].pid, &status, WNOHANG) > 0)
				note_end(i, status);
			if (!workers[i].pid && workers[i].start_at_ms <= cached_now_ms())
				start_worker(i, n, listen_fd, &signals);
			if (!workers[i].pid)
				tick.tv_sec = 0;
		}
		sig = sigtimedwait(&signals, NULL, &tick);
	} while (sig != SIGTERM && sig != SIGINT);
	for (int i = 0; i < n; i++) {
		if (workers[i].pid)
			kill(workers[i].pid, SIGTERM);
	}
	alarm(STOP_S); /* ends us, and by that (PR_SET_PDEATHSIG) a worker that has not ended */
	while (wait(NULL) > 0)
		;
}

/* The socket; exits with a message if there is none. */
static int listen_on(const char *address, const char *port, int n_workers)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *info;
	struct sockaddr_in6 bound; /* large enough, and the port lies at the same place in all */
	socklen_t n = sizeof(bound);
	int fd = -1, one = 1, r = getaddrinfo(address, port, &hints, &info);

	if (r == 0)
		fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (r != 0 || bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, 1024) < 0) {
		fprintf(stderr, "tgcached: cannot listen on %s port %s: %s\n", address, port,
			r != 0 ? gai_strerror(r) : strerror(errno));
		exit(1);
	}
	freeaddrinfo(info);
	getsockname(fd, (struct sockaddr *)&bound, &n); /* which port it is, if 0 was asked for */
	fprintf(stderr, "tgcached: %d workers on %s port %d\n", n_workers, address,
		ntohs(bound.sin6_port));
	return fd;
}

int main(int argc, char **argv)
{
	const char *port = "11211", *address = "127.0.0.1";
	int option, n_workers = (int)sysconf(_SC_NPROCESSORS_ONLN);

	while ((option = getopt(argc, argv, "p:l:w:")) != -1) {
		if (option == 'p')
			port = optarg;
		else if (option == 'l')
			address = optarg;
		else
			n_workers = option == 'w' ? atoi(optarg) : 0;
	}
	if (optind != argc || n_workers < 1 || n_workers > MAX_WORKERS) {
		fputs("usage: tgcached [-p PORT] [-l ADDRESS] [-w WORKERS]; the heap is that of "
		      "TG_SOCKET\n",
		      stderr);
		return 2;
	}
	if (!cached_attach()) /* only to see that the workers will be able to */
		return 1;
	tg_detach();
	supervise(n_workers, listen_on(address, port, n_workers));
	return 0;
}
