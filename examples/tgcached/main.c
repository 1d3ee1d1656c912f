/* tgcached: a cache server of several processes that speaks memcached's text protocol.
 *
 * This is the parent.  It binds the port, forks the workers, which all accept on the one socket, and starts a new one
 * for each that dies.  It holds no data: the items are in the shared heap, so a new worker finds all of them.  When the
 * parent dies the workers end, too; the items stay as long as the daemon of the heap does.
 */
#include "cached.h"

#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_WORKERS 1024
#define SHORT_LIFE_MS 1000 /* a worker that ends sooner is started again with a delay, each time twice as long */
#define FIRST_DELAY_MS 100
#define LAST_DELAY_MS 5000
#define STOP_TICKS 50 /* of 100 ms, that a worker may take to end before it is killed */

static struct {
	pid_t pid; /* 0: not running */
	int64_t started_ms, start_at_ms, delay_ms;
} workers[MAX_WORKERS];
static int n_workers;

static void start_worker(int i, int listen_fd, const sigset_t *signals)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != parent) /* it died before the line above */
			_exit(0);
		sigprocmask(SIG_UNBLOCK, signals, NULL);
		exit(cached_worker(listen_fd, n_workers));
	}
	if (pid < 0)
		perror("tgcached: cannot fork");
	workers[i].pid = pid > 0 ? pid : 0;
	workers[i].started_ms = cached_now_ms();
	workers[i].start_at_ms = workers[i].started_ms + LAST_DELAY_MS; /* counts after a failed fork */
}

static void note_end(int i, int status)
{
	int64_t now = cached_now_ms(), delay = workers[i].delay_ms * 2;

	delay = now - workers[i].started_ms >= SHORT_LIFE_MS ? 0 : delay == 0 ? FIRST_DELAY_MS : delay;
	workers[i].delay_ms = delay < LAST_DELAY_MS ? delay : LAST_DELAY_MS;
	workers[i].start_at_ms = now + workers[i].delay_ms;
	fprintf(stderr, "tgcached: worker %d ended by %s %d\n", (int)workers[i].pid,
		WIFSIGNALED(status) ? "signal" : "exit with status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	workers[i].pid = 0;
}

/* Runs until a signal to stop; then ends the workers. */
static void supervise(int listen_fd)
{
	int ticks = -1; /* since that signal */
	int n_running, n_waiting, status;
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	do {
		struct timespec tick = { .tv_nsec = 100000000 };

		n_running = n_waiting = 0;
		for (int i = 0; i < n_workers; i++) {
			if (workers[i].pid && waitpid(workers[i].pid, &status, WNOHANG) == workers[i].pid)
				note_end(i, status);
			if (!workers[i].pid && ticks < 0 && workers[i].start_at_ms <= cached_now_ms())
				start_worker(i, listen_fd, &signals);
			if (workers[i].pid && (ticks == 0 || ticks == STOP_TICKS))
				kill(workers[i].pid, ticks == 0 ? SIGTERM : SIGKILL);
			n_running += workers[i].pid != 0;
			n_waiting += workers[i].pid == 0;
		}
		if (n_waiting == 0 && ticks < 0)
			tick.tv_sec = 3600;
		status = sigtimedwait(&signals, NULL, &tick);
		if (ticks >= 0)
			ticks += status < 0; /* the time is over, and no signal has come */
		else if (status == SIGTERM || status == SIGINT)
			ticks = 0;
	} while (n_running > 0 || ticks < 0);
}

static int listen_on(const char *address, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *info;
	int r = getaddrinfo(address, port, &hints, &info);
	struct sockaddr_storage bound;
	socklen_t n_bound = sizeof(bound);
	int fd, one = 1;

	if (r != 0) {
		fprintf(stderr, "tgcached: %s port %s: %s\n", address, port, gai_strerror(r));
		exit(1);
	}
	fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, 1024) < 0) {
		fprintf(stderr, "tgcached: cannot listen on %s port %s: %s\n", address, port, strerror(errno));
		exit(1);
	}
	freeaddrinfo(info);
	getsockname(fd, (struct sockaddr *)&bound, &n_bound); /* tells which port, if 0 was asked for */
	fprintf(stderr, "tgcached: %d workers listen on %s port %d\n", n_workers, address,
		ntohs(((struct sockaddr_in *)&bound)->sin_port)); /* at the same place for IPv6 */
	return fd;
}

int main(int argc, char **argv)
{
	const char *port = "11211", *address = "127.0.0.1";
	int option;

	n_workers = (int)sysconf(_SC_NPROCESSORS_ONLN);
	while ((option = getopt(argc, argv, "p:l:w:")) != -1) {
		if (option == 'p')
			port = optarg;
		else if (option == 'l')
			address = optarg;
		else
			n_workers = option == 'w' ? atoi(optarg) : 0;
	}
	if (optind != argc || n_workers < 1 || n_workers > MAX_WORKERS) {
		fprintf(stderr, "usage: tgcached [-p PORT] [-l ADDRESS] [-w WORKERS]\n"
			"WORKERS is 1 to %d.  The heap is that of TG_SOCKET.\n", MAX_WORKERS);
		return 2;
	}
	if (!cached_attach()) /* only to see that the workers will be able to */
		return 1;
	tg_detach();
	supervise(listen_on(address, port));
	return 0;
}
