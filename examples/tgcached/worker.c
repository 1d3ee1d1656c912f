/* A worker: connections, and memcached's text protocol on them.
 *
 * One libevent loop and no threads.  Bytes come into `in`; step() takes one command or one value's data from it at a
 * time and puts the answer into `out`.  While much of that waits for a slow reader nothing is read or worked off, so
 * a connection costs bounded memory.  A value is gathered in private memory and enters the heap once it is complete.
 */
#include "worker.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <tg.h>

#include "table.h"

#define READ_SIZE (64 * 1024)
#define OUT_HIGH (1024 * 1024)  /* bytes of answers that may wait for the peer to read them */
#define LINE_MAX_PLAIN 2048     /* without its end, only a get may be longer */
#define LINE_MAX_GET (1024 * 1024)
#define COMMANDS_A_TURN 50      /* then the other connections have theirs */
#define MAX_WORDS 8

static const char bad_format[] = "CLIENT_ERROR bad command line format";
static const char bad_time[] = "CLIENT_ERROR invalid exptime argument";
static const char no_memory[] = "SERVER_ERROR out of memory storing object";

struct conn {
	int fd;
	struct event *readable, *writable;
	struct evbuffer *in, *out;
	bool noreply, closing, with_cas;
	size_t swallow;   /* bytes of a refused value still to come */
	size_t keys_done; /* where in its line an unfinished get goes on; 0: none */
	size_t want;      /* bytes of data to wait for, with their end; 0: a line is next, and what follows is unused */
	enum table_how how;
	uint64_t flags, cas;
	int64_t expires_ms;
	size_t n_key;
	char key[TABLE_KEY_MAX];
};

static struct {
	struct event_base *base;
	struct event *accepting;
	struct table *table;
	time_t started;
	int n_workers;
	uint64_t n_conns, n_commands, n_commands_before;
} worker;

static void reply(struct conn *c, const char *text)
{
	if (!c->noreply)
		evbuffer_add_printf(c->out, "%s\r\n", text);
}

static bool read_signed(const char *word, long long *ret_value)
{
	uint64_t value;
	bool minus = word[0] == '-';

	if (!table_number(word + minus, &value) || value > INT64_MAX)
		return false;
	*ret_value = minus ? -(long long)value : (long long)value;
	return true;
}

static void show(void *arg, struct item *it)
{
	struct conn *c = arg;

	evbuffer_add_printf(c->out, "VALUE %.*s %u %u", it->n_key, it->data, it->flags, it->n_value);
	if (c->with_cas)
		evbuffer_add_printf(c->out, " %" PRIu64, it->cas);
	evbuffer_add(c->out, "\r\n", 2);
	evbuffer_add(c->out, item_value(it), it->n_value);
	evbuffer_add(c->out, "\r\n", 2);
}

/* get, gets, gat, gats.  False: there is more to do when the peer has read some of the answer. */
static bool do_get(struct conn *c, const char *line, const char *rest)
{
	const char *key = rest + strspn(rest, " ");
	bool touch = rest[-1] == 't' ? rest[-2] == 'a' : rest[-3] == 'a';
	long long seconds;
	int64_t expires_ms = 0;

	c->with_cas = rest[-1] == 's';
	if (!*key) {
		reply(c, "ERROR");
		return true;
	}
	if (touch) {
		if (!read_signed(key, &seconds)) {
			reply(c, bad_time);
			return true;
		}
		expires_ms = table_expiry_ms(seconds);
		key += strcspn(key, " ");
	}
	for (const char *k = key + strspn(key, " "); *k && !c->keys_done; k += strspn(k, " ")) {
		size_t n = strcspn(k, " ");

		if (n > TABLE_KEY_MAX) {
			reply(c, bad_format);
			return true;
		}
		k += n;
	}
	for (key = c->keys_done ? line + c->keys_done : key; *(key += strspn(key, " ")); ) {
		size_t n = strcspn(key, " ");

		if (evbuffer_get_length(c->out) > OUT_HIGH) {
			c->keys_done = (size_t)(key - line);
			return false;
		}
		table_get(worker.table, key, n, touch ? &expires_ms : NULL, show, c);
		key += n;
	}
	c->keys_done = 0;
	reply(c, "END");
	return true;
}

static void do_store(struct conn *c, char **words, int n)
{
	static const char *const names[] = { "set", "add", "replace", "cas", "append", "prepend" };
	long long seconds, length;

	(void)n;
	for (c->how = TABLE_SET; strcmp(words[0], names[c->how]) != 0;)
		c->how++;
	c->n_key = strlen(words[1]);
	if (c->n_key > TABLE_KEY_MAX || !table_number(words[2], &c->flags) || !read_signed(words[3], &seconds) ||
	    !read_signed(words[4], &length) || length < 0 || length > INT32_MAX - 2 ||
	    (c->how == TABLE_CAS && !table_number(words[5], &c->cas))) {
		reply(c, bad_format);
		return;
	}
	memcpy(c->key, words[1], c->n_key);
	c->expires_ms = table_expiry_ms(seconds);
	if (length <= TABLE_VALUE_MAX) {
		c->want = (size_t)length + 2;
		return;
	}
	c->swallow = (size_t)length + 2;
	reply(c, "SERVER_ERROR object too large for cache");
	if (c->how == TABLE_SET) /* whoever wrote anew must not find the old value */
		table_delete(worker.table, c->key, c->n_key);
}

/* The data of a store command is all there. */
static void store_data(struct conn *c)
{
	static const char *const answers[] = { "STORED", "NOT_STORED", "EXISTS", "NOT_FOUND", no_memory };
	struct item *it = item_new(worker.table, c->key, c->n_key, c->want - 2);
	char end[2];

	if (it) {
		it->flags = (uint32_t)c->flags;
		it->expires_ms = c->expires_ms;
		evbuffer_remove(c->in, item_value(it), c->want - 2);
	} else {
		evbuffer_drain(c->in, c->want - 2);
	}
	evbuffer_remove(c->in, end, 2);
	c->want = 0;
	if (memcmp(end, "\r\n", 2) != 0) {
		tg_free(it);
		reply(c, "CLIENT_ERROR bad data chunk");
	} else if (it) {
		reply(c, answers[table_store(worker.table, it, c->how, c->cas)]);
	} else {
		reply(c, no_memory);
		if (c->how == TABLE_SET)
			table_delete(worker.table, c->key, c->n_key);
	}
}

static void do_count(struct conn *c, char **words, int n)
{
	uint64_t by, value;
	char text[24];
	enum table_result r;

	(void)n;
	if (strlen(words[1]) > TABLE_KEY_MAX) {
		reply(c, bad_format);
	} else if (!table_number(words[2], &by)) {
		reply(c, "CLIENT_ERROR invalid numeric delta argument");
	} else {
		r = table_count(worker.table, words[1], strlen(words[1]), words[0][0] == 'i', by, &value);
		snprintf(text, sizeof(text), "%" PRIu64, value);
		reply(c, r == TABLE_STORED ? text : r == TABLE_NOT_FOUND ? "NOT_FOUND" : r == TABLE_NO_MEMORY ?
			 "SERVER_ERROR out of memory" :
			 "CLIENT_ERROR cannot increment or decrement non-numeric value");
	}
}

static void do_delete(struct conn *c, char **words, int n)
{
	bool zero = n > 2 && strcmp(words[2], "0") == 0; /* an old client's "at once" */

	c->noreply &= n > 2;
	if (n > 2 && !(n == 3 && (zero || c->noreply)) && !(n == 4 && zero && c->noreply))
		reply(c, "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]");
	else if (strlen(words[1]) > TABLE_KEY_MAX)
		reply(c, bad_format);
	else
		reply(c, table_delete(worker.table, words[1], strlen(words[1])) ? "DELETED" : "NOT_FOUND");
}

static void do_touch(struct conn *c, char **words, int n)
{
	long long seconds;
	int64_t expires_ms;

	(void)n;
	if (strlen(words[1]) > TABLE_KEY_MAX) {
		reply(c, bad_format);
	} else if (!read_signed(words[2], &seconds)) {
		reply(c, bad_time);
	} else {
		expires_ms = table_expiry_ms(seconds);
		reply(c, table_get(worker.table, words[1], strlen(words[1]), &expires_ms, NULL, NULL) ?
			 "TOUCHED" : "NOT_FOUND");
	}
}

static void do_flush(struct conn *c, char **words, int n)
{
	long long seconds = 0;

	if (n > 1 + c->noreply && !read_signed(words[1], &seconds)) {
		reply(c, bad_time);
		return;
	}
	if (seconds > 0)
		seconds = table_expiry_ms(seconds) - table_expiry_ms(1) + 1000;
	table_flush(worker.table, seconds);
	reply(c, "OK");
}

static void do_verbosity(struct conn *c, char **words, int n)
{
	uint64_t level; /* taken and not used: there is nothing that a worker would say about a request */

	(void)n;
	reply(c, table_number(words[1], &level) ? "OK" : bad_format);
}

static void do_version(struct conn *c, char **words, int n)
{
	(void)words;
	(void)n;
	evbuffer_add_printf(c->out, "VERSION %s\r\n", CACHED_VERSION);
}

static void do_quit(struct conn *c, char **words, int n)
{
	(void)words;
	(void)n;
	c->closing = true;
}

static void do_stats(struct conn *c, char **words, int n)
{
	uint64_t s[TABLE_N_STATS];
	bool reset = n > 1 && strcmp(words[1], "reset") == 0;

	if (n > 1 && !reset) {
		reply(c, "ERROR");
		return;
	}
	table_stats(worker.table, reset, s);
	if (reset) {
		reply(c, "RESET");
		return;
	}
	/* The connections are those of this worker, and the limit is the heap's: see tgctl status. */
	evbuffer_add_printf(c->out, "STAT pid %d\r\nSTAT uptime %lld\r\nSTAT time %lld\r\nSTAT version %s\r\n"
		"STAT pointer_size %d\r\nSTAT curr_connections %" PRIu64 "\r\n", (int)getpid(),
		(long long)(time(NULL) - worker.started), (long long)time(NULL), CACHED_VERSION,
		(int)sizeof(void *) * 8, worker.n_conns);
	evbuffer_add_printf(c->out, "STAT cmd_get %" PRIu64 "\r\nSTAT cmd_set %" PRIu64 "\r\nSTAT get_hits %" PRIu64
		"\r\nSTAT get_misses %" PRIu64 "\r\nSTAT limit_maxbytes 0\r\nSTAT threads %d\r\nSTAT bytes %" PRIu64
		"\r\nSTAT curr_items %" PRIu64 "\r\nSTAT total_items %" PRIu64 "\r\nSTAT evictions %" PRIu64 "\r\nEND\r\n",
		s[TABLE_GETS], s[TABLE_SETS], s[TABLE_HITS], s[TABLE_GETS] - s[TABLE_HITS], worker.n_workers,
		s[TABLE_BYTES], s[TABLE_ITEMS], s[TABLE_TOTAL_ITEMS], s[TABLE_EVICTIONS]);
}

/* The commands but the gets, with how many words they may have. */
static const struct {
	const char *name;
	int min, max;
	bool noreply; /* the last word may be "noreply" */
	void (*run)(struct conn *c, char **words, int n);
} commands[] = {
	{ "set", 5, 6, true, do_store },       { "add", 5, 6, true, do_store },
	{ "replace", 5, 6, true, do_store },   { "append", 5, 6, true, do_store },
	{ "prepend", 5, 6, true, do_store },   { "cas", 6, 7, true, do_store },
	{ "incr", 3, 4, true, do_count },      { "decr", 3, 4, true, do_count },
	{ "delete", 2, 4, true, do_delete },   { "touch", 3, 4, true, do_touch },
	{ "flush_all", 1, 3, true, do_flush }, { "verbosity", 2, 3, true, do_verbosity },
	{ "version", 1, 99, false, do_version }, { "quit", 1, 99, false, do_quit },
	{ "stats", 1, 99, false, do_stats },
};

/* Works off one line, which ends in a zero byte.  False: not done yet, see do_get. */
static bool do_line(struct conn *c, char *line)
{
	char *words[MAX_WORDS], *word = line + strspn(line, " ");
	size_t n_first = strcspn(word, " ");
	int n = 0;

	c->noreply = false;
	if (word[0] == 'g' && (n_first == 3 || n_first == 4) && (word[1] == 'e' || word[1] == 'a') && word[2] == 't' &&
	    (n_first == 3 || word[3] == 's'))
		return do_get(c, line, word + n_first);
	for (; *word; word += strspn(word, " ")) {
		words[n < MAX_WORDS ? n : MAX_WORDS - 1] = word;
		n++;
		word += strcspn(word, " ");
		if (*word)
			*word++ = '\0';
	}
	for (size_t i = 0; n > 0 && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(words[0], commands[i].name) != 0 || n < commands[i].min || n > commands[i].max)
			continue;
		c->noreply = commands[i].noreply && n > 1 && strcmp(words[n - 1], "noreply") == 0;
		commands[i].run(c, words, n);
		return true;
	}
	if (n > 0 && n <= MAX_WORDS && strncmp(words[n - 1], "HTTP/", 5) == 0)
		c->closing = true; /* a browser's request must not be taken for commands */
	else
		reply(c, "ERROR");
	return true;
}

/* Does the next thing that the input has.  False: that is not complete yet, or the output is full. */
static bool step(struct conn *c)
{
	size_t n = evbuffer_get_length(c->in);
	struct evbuffer_ptr end;
	char *line;
	bool done;

	if (c->swallow) {
		n = n < c->swallow ? n : c->swallow;
		evbuffer_drain(c->in, n);
		c->swallow -= n;
		return c->swallow == 0;
	}
	if (c->want) {
		if (n < c->want)
			return false;
		store_data(c);
		return true;
	}
	end = evbuffer_search(c->in, "\n", 1, NULL);
	if (end.pos < 0) {
		if (n > LINE_MAX_PLAIN) {
			line = (char *)evbuffer_pullup(c->in, LINE_MAX_PLAIN);
			line += strspn(line, " ");
			c->closing = n > LINE_MAX_GET || (strncmp(line, "get ", 4) && strncmp(line, "gets ", 5));
		}
		return false;
	}
	line = (char *)evbuffer_pullup(c->in, end.pos + 1);
	line[end.pos - (end.pos > 1 && line[end.pos - 1] == '\r')] = '\0';
	done = do_line(c, line);
	line[end.pos] = '\n';
	if (done)
		evbuffer_drain(c->in, (size_t)end.pos + 1);
	worker.n_commands++;
	return done;
}

static void conn_free(struct conn *c)
{
	event_free(c->readable);
	event_free(c->writable);
	evbuffer_free(c->in);
	evbuffer_free(c->out);
	close(c->fd);
	free(c);
	worker.n_conns--;
}

static bool receive(struct conn *c)
{
	struct evbuffer_iovec room;
	ssize_t n;

	if (evbuffer_reserve_space(c->in, READ_SIZE, &room, 1) < 1)
		return false;
	n = recv(c->fd, room.iov_base, room.iov_len, 0);
	room.iov_len = n > 0 ? (size_t)n : 0;
	evbuffer_commit_space(c->in, &room, 1);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	int turns = 0;

	if ((what & EV_READ) && !receive(c)) {
		conn_free(c);
		return;
	}
	while (turns < COMMANDS_A_TURN && !c->closing && evbuffer_get_length(c->out) <= OUT_HIGH && step(c))
		turns++;
	if (evbuffer_get_length(c->out) && evbuffer_write(c->out, fd) < 0 && errno != EAGAIN && errno != EINTR)
		c->closing = true;
	if (c->closing) {
		conn_free(c);
		return;
	}
	if (evbuffer_get_length(c->out))
		event_add(c->writable, NULL);
	else if (turns == COMMANDS_A_TURN || c->keys_done)
		event_active(c->writable, EV_WRITE, 0); /* go on when the others had their turn */
	if (evbuffer_get_length(c->out) > OUT_HIGH)
		event_del(c->readable);
	else
		event_add(c->readable, NULL);
}

static void on_accept(evutil_socket_t listen_fd, short what, void *arg)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int one = 1;
	struct conn *c;

	(void)what;
	(void)arg;
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			event_del(worker.accepting); /* on_second tries again: else this would spin */
		return;                              /* otherwise: another worker was faster */
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c = calloc(1, sizeof(*c));
	c->fd = fd;
	c->in = evbuffer_new();
	c->out = evbuffer_new();
	c->readable = event_new(worker.base, fd, EV_READ | EV_PERSIST, on_ready, c);
	c->writable = event_new(worker.base, fd, EV_WRITE, on_ready, c);
	event_add(c->readable, NULL);
	worker.n_conns++;
}

static void on_second(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	event_add(worker.accepting, NULL);
	if (worker.n_commands == worker.n_commands_before)
		tg_trim(); /* idle: what we only cache may help a busy worker */
	worker.n_commands_before = worker.n_commands;
}

static void on_stop(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	event_base_loopbreak(worker.base);
}

int worker_run(int listen_fd, int n_workers)
{
	struct tg_options options = { .size = sizeof(options), .name = "tgcached" };
	struct timeval second = { .tv_sec = 1 };
	int r = tg_attach(&options);

	if (r < 0) {
		fprintf(stderr, "tgcached: worker cannot attach to the shared heap: %s\n", strerror(-r));
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	worker.table = table_open();
	worker.base = event_base_new();
	if (!worker.table || !worker.base) {
		fprintf(stderr, "tgcached: worker cannot start: %s\n", strerror(errno));
		return 1;
	}
	worker.started = time(NULL);
	worker.n_workers = n_workers;
	event_add(evsignal_new(worker.base, SIGTERM, on_stop, NULL), NULL);
	event_add(evsignal_new(worker.base, SIGINT, on_stop, NULL), NULL);
	event_add(event_new(worker.base, -1, EV_PERSIST, on_second, NULL), &second);
	worker.accepting = event_new(worker.base, listen_fd, EV_READ | EV_PERSIST, on_accept, NULL);
	event_add(worker.accepting, NULL);
	event_base_dispatch(worker.base);
	tg_detach();
	return 0;
}
