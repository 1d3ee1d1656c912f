/* cacheconn.c - connections to a cache server that ask without pause, and check every answer.
 *
 * A connection sends a batch of requests (one, unless pipelined), waits until all of them are answered, and sends the
 * next.  So the server is never idle, and no answer waits because we sent too much.  One thread, and as little work for
 * a request as can be: it must not be the load that is measured.
 */
#include "bench/cacheload.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_LEN 64 /* of our requests, and of the head of a value */
#define CONNECT_S    10
#define SILENCE_MS   10000
#define KEY_PREFIX   "user:"
#define REQUEST_MAX  (LINE_MAX_LEN + LOAD_SIZE_MAX + 2)
#define END          "END\r\n"
#define STORED       "STORED\r\n"

struct request {
	uint32_t key;
	bool get;
};

struct conn {
	int fd;
	bool writing; /* waits to be writable */
	uint64_t random, sent_ns;
	uint32_t draw; /* where it is in the sequence of keys, or (fill) the next key */
	unsigned n_asked, n_answered;
	struct request requests[LOAD_PIPELINE_MAX];
	size_t n_out, out_at, n_in, in_size, out_size;
	char *in, *out;
};

static const struct load_options *load;
static struct load_result *result;
static uint32_t draws[LOAD_DRAWS];
static char filler[LOAD_SIZE_MAX];
static int epoll_fd;
static unsigned n_busy;
static bool measuring, ending;

uint64_t load_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- what belongs to a key ---- */

static char *put_key(char *at, uint32_t key)
{
	int i;

	memcpy(at, KEY_PREFIX, 5);
	for (i = LOAD_KEY_LEN - 1; i >= 5; i--, key /= 10)
		at[i] = (char)('0' + key % 10);
	return at + LOAD_KEY_LEN;
}

static char *put_number(char *at, uint32_t n)
{
	char digits[10];
	int i = 0;

	do
		digits[i++] = (char)('0' + n % 10);
	while ((n /= 10) > 0);
	while (i > 0)
		*at++ = digits[--i];
	return at;
}

static uint32_t size_of(uint32_t key)
{
	uint64_t state = key;

	return load->min_size +
	       (uint32_t)(load_random(&state) % (load->max_size - load->min_size + 1));
}

/* ---- asking ---- */

static char *put_set(char *at, uint32_t key)
{
	uint32_t size = size_of(key);

	at = put_key((char *)mempcpy(at, "set ", 4), key);
	at = put_number((char *)mempcpy(at, " 0 0 ", 5), size);
	at = (char *)mempcpy(at, "\r\n", 2);
	memcpy(at, filler, size);
	put_key(at, key);
	return (char *)mempcpy(at + size, "\r\n", 2);
}

/* False: there is nothing left to ask for. */
static bool ask_one(struct conn *c)
{
	struct request *request = &c->requests[c->n_asked];
	char *at = c->out + c->n_out;

	if (load->fill) {
		if (c->draw >= load->n_keys)
			return false;
		*request = (struct request){.key = c->draw};
		c->draw += load->n_conns;
	} else {
		*request = (struct request){draws[c->draw++ % LOAD_DRAWS],
					    load_random(&c->random) % 100 < load->gets};
	}
	if (request->get)
		at = (char *)mempcpy(put_key((char *)mempcpy(at, "get ", 4), request->key), "\r\n",
				     2);
	else
		at = put_set(at, request->key);
	c->n_out = (size_t)(at - c->out);
	c->n_asked++;
	return true;
}

static void want(struct conn *c, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = c};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event) < 0)
		load_die("epoll_ctl: %m");
	c->writing = events & EPOLLOUT;
}

static void send_out(struct conn *c)
{
	ssize_t n = send(c->fd, c->out + c->out_at, c->n_out - c->out_at, MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		load_die("the server cannot be sent to: %m");
	c->out_at += n > 0 ? (size_t)n : 0;
	if (c->writing != (c->out_at < c->n_out))
		want(c, c->out_at < c->n_out ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void ask(struct conn *c)
{
	c->n_asked = c->n_answered = 0;
	c->n_out = c->out_at = 0;
	while (!ending && c->n_asked < load->pipeline && ask_one(c))
		;
	if (c->n_asked == 0) {
		n_busy--;
		return;
	}
	c->sent_ns = load_now_ns();
	send_out(c);
}

/* ---- answers ---- */

static void wrong(const struct conn *c, const char *at)
{
	size_t n = (size_t)(c->in + c->n_in - at);

	load_die("an answer is not what it should be: \"%.*s\"", (int)(n < 200 ? n : 200), at);
}

/* The length of the answer to a get; 0: it is not all there. */
static size_t value_at(const struct conn *c, const char *at, size_t n, uint32_t key)
{
	uint32_t size = size_of(key);
	char expected[LINE_MAX_LEN];
	size_t n_head, n_all;

	n_head = (size_t)((char *)mempcpy(
				  put_number((char *)mempcpy(
						     put_key((char *)mempcpy(expected, "VALUE ", 6),
							     key),
						     " 0 ", 3),
					     size),
				  "\r\n", 2) -
			  expected);
	n_all = n_head + size + 2 + strlen(END);
	if (n < n_all)
		return 0;
	put_key(expected + n_head, key);
	if (memcmp(at, expected, n_head + LOAD_KEY_LEN) != 0 ||
	    memcmp(at + n_all - strlen("\r\n" END), "\r\n" END, strlen("\r\n" END)) != 0)
		wrong(c, at);
	return n_all;
}

/* The same for any request. */
static size_t answer_at(const struct conn *c, const char *at, size_t n,
			const struct request *request, bool *ret_hit)
{
	const char *line = request->get ? END : STORED;

	*ret_hit = false;
	if (n < strlen(line))
		return 0;
	if (memcmp(at, line, strlen(line)) == 0)
		return strlen(line);
	if (!request->get || at[0] != 'V')
		wrong(c, at);
	*ret_hit = true;
	return value_at(c, at, n, request->key);
}

static void note(const struct request *request, bool hit, uint64_t ns)
{
	result->n_gets += request->get;
	result->n_sets += !request->get;
	result->n_hits += hit;
	bench_histogram_add(&result->latency, ns);
}

static void take_answers(struct conn *c)
{
	uint64_t ns = load_now_ns() - c->sent_ns;
	size_t at = 0, n;
	bool hit;

	while (c->n_answered < c->n_asked) {
		const struct request *request = &c->requests[c->n_answered];

		n = answer_at(c, c->in + at, c->n_in - at, request, &hit);
		if (n == 0)
			break;
		at += n;
		c->n_answered++;
		if (measuring)
			note(request, hit, ns);
	}
	memmove(c->in, c->in + at, c->n_in - at);
	c->n_in -= at;
	if (c->n_answered < c->n_asked)
		return;
	if (c->n_in > 0)
		wrong(c, c->in);
	ask(c);
}

static void receive(struct conn *c)
{
	ssize_t n = recv(c->fd, c->in + c->n_in, c->in_size - c->n_in, 0);

	if (n == 0)
		load_die("the server has closed a connection");
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		load_die("the server cannot be heard: %m");
	if (n > 0) {
		c->n_in += (size_t)n;
		take_answers(c);
	}
}

/* ---- connections ---- */

static int try_connect(const struct addrinfo *to)
{
	int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0)
		load_die("socket: %m");
	if (connect(fd, to->ai_addr, to->ai_addrlen) == 0) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		return fd;
	}
	close(fd);
	return -1;
}

/* The server may just have been started. */
static int connect_to(const char *address, const char *port)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	const struct timespec rest = {.tv_nsec = 20000000};
	uint64_t deadline = load_now_ns() + CONNECT_S * UINT64_C(1000000000);
	struct addrinfo *to;
	int fd, r = getaddrinfo(address, port, &hints, &to);

	if (r != 0)
		load_die("%s port %s: %s", address, port, gai_strerror(r));
	while ((fd = try_connect(to)) < 0) {
		if (load_now_ns() > deadline)
			load_die("nobody answers at %s port %s: %m", address, port);
		nanosleep(&rest, NULL);
	}
	freeaddrinfo(to);
	return fd;
}

/* A server that hands out connections as they come shall have had the time to. */
static void make_sure_it_serves(int fd)
{
	static const char question[] = "version\r\n";
	char answer[256];

	if (send(fd, question, strlen(question), MSG_NOSIGNAL) < 0 ||
	    recv(fd, answer, sizeof(answer), 0) <= 0 || strncmp(answer, "VERSION", 7) != 0)
		load_die("what answers is no cache server");
}

static void open_conn(struct conn *c, unsigned i)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
	const struct timeval silence = {.tv_sec = SILENCE_MS / 1000};

	c->fd = connect_to(load->address, load->port);
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof(silence));
	make_sure_it_serves(c->fd);
	c->random = i;
	c->draw = load->fill ? i : i * (LOAD_DRAWS / load->n_conns);
	c->in_size = c->out_size = load->pipeline * (size_t)(load->max_size + 2 * LINE_MAX_LEN);
	c->in = malloc(c->in_size);
	c->out = malloc(c->out_size);
	if (c->in == NULL || c->out == NULL)
		load_die("out of memory");
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
		load_die("epoll_ctl: %m");
}

static void close_conn(struct conn *c)
{
	close(c->fd);
	free(c->in);
	free(c->out);
}

/* ---- the run ---- */

static void serve_events(void)
{
	struct epoll_event events[64];
	int i, n = epoll_wait(epoll_fd, events, 64, SILENCE_MS);

	if (n < 0 && errno != EINTR)
		load_die("epoll_wait: %m");
	if (n == 0)
		load_die("the server has been silent for %d s", SILENCE_MS / 1000);
	for (i = 0; i < n; i++) {
		struct conn *c = events[i].data.ptr;

		if (events[i].events & EPOLLOUT)
			send_out(c);
		if (events[i].events & ~(uint32_t)EPOLLOUT)
			receive(c);
	}
}

static void until_done(load_mark_fn *mark)
{
	uint64_t begin = load_now_ns(), warm = begin + (uint64_t)(load->warmup_s * 1e9);
	uint64_t end = warm + (uint64_t)(load->seconds * 1e9), now = begin;

	while (n_busy > 0 && (load->fill || now < end)) {
		if (!measuring && (load->fill || now >= warm)) {
			measuring = true;
			mark(false);
			begin = load_now_ns();
		}
		serve_events();
		now = load_now_ns();
	}
	result->seconds = (double)(now - begin) / 1e9;
	measuring = false;
	mark(true);
	for (ending = true; n_busy > 0;)
		serve_events();
}

void load_run(const struct load_options *options, load_mark_fn *mark, struct load_result *ret)
{
	struct conn *conns = calloc(options->n_conns, sizeof(*conns));
	unsigned i;

	load = options;
	result = ret;
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (conns == NULL || epoll_fd < 0)
		load_die("out of memory");
	load_draw_keys(draws, load->n_keys, load->zipf);
	memset(filler, 'x', sizeof(filler));
	for (i = 0; i < load->n_conns; i++)
		open_conn(&conns[i], i);
	n_busy = load->n_conns;
	for (i = 0; i < load->n_conns; i++)
		ask(&conns[i]);
	until_done(mark);
	for (i = 0; i < load->n_conns; i++)
		close_conn(&conns[i]);
	free(conns);
	close(epoll_fd);
}
