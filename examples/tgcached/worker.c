/* A worker: connections, and memcached's text protocol on them.
 *
 * One libevent loop and no threads.  Bytes come into `in`; step() takes one command or one value's data from it at a
 * time and puts the answer into `out`.  While much of that waits for a slow reader nothing more is read or done, so a
 * connection costs bounded memory.  A value is gathered in private memory and enters the heap once it is complete.
 */
#include "cached.h"

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

#define READ_SIZE (64 * 1024)
#define OUT_HIGH (1024 * 1024) /* bytes of answers that may wait for the peer to read them */
#define PLAIN_LINE_MAX 2048    /* while its end has not come; only a get may be longer */
#define GET_LINE_MAX (1024 * 1024)
#define COMMANDS_A_TURN 50     /* then the other connections have theirs */
#define MAX_WORDS 8

#define BAD_FORMAT "CLIENT_ERROR bad command line format"
#define BAD_TIME "CLIENT_ERROR invalid exptime argument"
#define NO_MEMORY "SERVER_ERROR out of memory storing object"

struct conn {
	struct event *readable, *writable;
	struct evbuffer *in, *out;
	bool noreply, closing, with_cas;
	size_t swallow;   /* bytes of a refused value still to come */
	size_t keys_done; /* where in its line an unfinished get goes on */
	char *words[MAX_WORDS];
	int n_words;
	size_t want;      /* bytes of a value and its end to wait for; what follows is how to store it */
	enum table_how how;
	uint64_t flags, cas;
	int64_t expires_ms;
	char key[TABLE_KEY_MAX];
	size_t n_key;
};

static struct event_base *base;
static struct event *accepting;
static struct table *table;
static time_t started;
static int threads;
static uint64_t n_conns, n_steps, n_steps_before;

static void reply(struct conn *c, const char *text)
{
	if (!c->noreply)
		evbuffer_add_printf(c->out, "%s\r\n", text);
}

static bool read_signed(const char *word, int64_t *ret_value)
{
	bool minus = word[0] == '-';
	uint64_t value;

	if (!cached_number(word + minus, &value) || value > INT64_MAX)
		return false;
	*ret_value = minus ? -(int64_t)value : (int64_t)value;
	return true;
}

/* Memcached's times: 0 for never, negative for at once, up to 30 days from now, more: in seconds since 1970. */
static bool read_expiry(const char *word, int64_t *ret_ms)
{
	int64_t s;

	if (!read_signed(word, &s))
		return false;
	if (s > 30 * 24 * 3600)
		s = s > time(NULL) ? s - time(NULL) : -1;
	*ret_ms = s == 0 ? 0 : s < 0 ? 1 : cached_now_ms() + (s < UINT32_MAX ? s : UINT32_MAX) * 1000;
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

/* get, gets, gat, gats: `rest` is what follows that word in the line.  False: the output is full; call again. */
static bool do_get(struct conn *c, const char *line, const char *rest, bool touch)
{
	const char *key = rest + strspn(rest, " ");
	int64_t expires_ms = 0;
	size_t n;

	c->with_cas = rest[-1] == 's';
	if (!*key || (touch && !read_expiry(key, &expires_ms))) {
		reply(c, *key ? BAD_TIME : "ERROR");
		return true;
	}
	if (touch)
		key += strcspn(key, " ");
	for (rest = key; *(rest += strspn(rest, " ")) && !c->keys_done; rest += n) {
		n = strcspn(rest, " ");
		if (n > TABLE_KEY_MAX) {
			reply(c, BAD_FORMAT);
			return true;
		}
	}
	for (key = c->keys_done ? line + c->keys_done : key; *(key += strspn(key, " ")); key += n) {
		n = strcspn(key, " ");
		c->keys_done = (size_t)(key - line);
		if (evbuffer_get_length(c->out) > OUT_HIGH)
			return false;
		table_get(table, key, n, touch ? &expires_ms : NULL, show, c);
	}
	c->keys_done = 0;
	reply(c, "END");
	return true;
}

static void do_store(struct conn *c)
{
	static const char *const names[] = { "set", "add", "replace", "cas", "append", "prepend" };
	int64_t length;

	for (c->how = TABLE_SET; strcmp(c->words[0], names[c->how]) != 0;)
		c->how++;
	if (!cached_number(c->words[2], &c->flags) || !read_expiry(c->words[3], &c->expires_ms) ||
	    !read_signed(c->words[4], &length) || length < 0 || length > INT32_MAX - 2 ||
	    (c->how == TABLE_CAS && !cached_number(c->words[5], &c->cas))) {
		reply(c, BAD_FORMAT);
		return;
	}
	c->n_key = strlen(c->words[1]);
	memcpy(c->key, c->words[1], c->n_key);
	if (length <= TABLE_VALUE_MAX) {
		c->want = (size_t)length + 2;
		return;
	}
	c->swallow = (size_t)length + 2;
	reply(c, "SERVER_ERROR object too large for cache");
	if (c->how == TABLE_SET) /* whoever wrote anew must not find the old value */
		table_delete(table, c->key, c->n_key);
}

/* The value of a store command is all there. */
static void store_value(struct conn *c)
{
	static const char *const answers[] = { "STORED", "NOT_STORED", "EXISTS", "NOT_FOUND", NO_MEMORY };
	struct item *it = item_new(table, c->key, c->n_key, c->want - 2);
	enum table_result r = TABLE_NO_MEMORY;
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
		return;
	}
	if (it)
		r = table_store(table, it, c->how, c->cas);
	else if (c->how == TABLE_SET)
		table_delete(table, c->key, c->n_key);
	reply(c, answers[r]);
}

static void do_count(struct conn *c)
{
	uint64_t by, value = 0;
	char text[24];
	enum table_result r;

	if (!cached_number(c->words[2], &by)) {
		reply(c, "CLIENT_ERROR invalid numeric delta argument");
		return;
	}
	r = table_count(table, c->words[1], strlen(c->words[1]), c->words[0][0] == 'i', by, &value);
	snprintf(text, sizeof(text), "%" PRIu64, value);
	reply(c, r == TABLE_STORED ? text : r == TABLE_NOT_FOUND ? "NOT_FOUND" : r == TABLE_NO_MEMORY ? NO_MEMORY :
	      "CLIENT_ERROR cannot increment or decrement non-numeric value");
}

static void do_delete(struct conn *c)
{
	int n = c->n_words;
	bool zero = n > 2 && strcmp(c->words[2], "0") == 0; /* old clients say "at once" */

	c->noreply &= n > 2;
	if (n > 2 && !(n == 3 && (zero || c->noreply)) && !(n == 4 && zero && c->noreply))
		reply(c, BAD_FORMAT ".  Usage: delete <key> [noreply]");
	else
		reply(c, table_delete(table, c->words[1], strlen(c->words[1])) ? "DELETED" : "NOT_FOUND");
}

static void do_touch(struct conn *c)
{
	int64_t expires_ms;

	if (!read_expiry(c->words[2], &expires_ms))
		reply(c, BAD_TIME);
	else if (table_get(table, c->words[1], strlen(c->words[1]), &expires_ms, NULL, NULL))
		reply(c, "TOUCHED");
	else
		reply(c, "NOT_FOUND");
}

static void do_flush(struct conn *c)
{
	int64_t at_ms = 0;

	if (c->n_words > 1 + c->noreply && !read_expiry(c->words[1], &at_ms)) {
		reply(c, BAD_TIME);
		return;
	}
	table_flush(table, at_ms - cached_now_ms());
	reply(c, "OK");
}

static void do_verbosity(struct conn *c)
{
	uint64_t level; /* not used: a worker has nothing to say about a request */

	reply(c, cached_number(c->words[1], &level) ? "OK" : BAD_FORMAT);
}

static void do_version(struct conn *c)
{
	evbuffer_add_printf(c->out, "VERSION %s\r\n", tg_version());
}

static void do_quit(struct conn *c)
{
	c->closing = true;
}

/* The connections are those of this worker; the limit is the heap's, which tgctl status tells. */
static void do_stats(struct conn *c)
{
	static const char *const names[] = { "curr_items", "bytes", "total_items", "cmd_get", "get_hits", "cmd_set",
					     "evictions" };
	bool reset = c->n_words > 1 && strcmp(c->words[1], "reset") == 0;
	uint64_t s[TABLE_N_STATS];

	if (c->n_words > 1 && !reset) {
		reply(c, "ERROR");
		return;
	}
	table_stats(table, reset, s);
	if (reset) {
		reply(c, "RESET");
		return;
	}
	evbuffer_add_printf(c->out, "STAT pid %d\r\nSTAT uptime %" PRId64 "\r\nSTAT time %" PRId64 "\r\n"
			    "STAT version %s\r\nSTAT curr_connections %" PRIu64 "\r\nSTAT threads %d\r\n",
			    (int)getpid(), (int64_t)(time(NULL) - started), (int64_t)time(NULL), tg_version(), n_conns,
			    threads);
	for (int i = 0; i < TABLE_N_STATS; i++)
		evbuffer_add_printf(c->out, "STAT %s %" PRIu64 "\r\n", names[i], s[i]);
	evbuffer_add_printf(c->out, "STAT get_misses %" PRIu64 "\r\nSTAT limit_maxbytes 0\r\nEND\r\n",
			    s[TABLE_GETS] - s[TABLE_HITS]);
}

/* The commands but the gets, with how many words each has. */
static const struct command {
	const char *name;
	int min, max;
	bool on_key; /* the second word is a key */
	void (*run)(struct conn *c);
} commands[] = {
	{ "set", 5, 6, true, do_store },      { "add", 5, 6, true, do_store },
	{ "replace", 5, 6, true, do_store },  { "append", 5, 6, true, do_store },
	{ "prepend", 5, 6, true, do_store },  { "cas", 6, 7, true, do_store },
	{ "incr", 3, 4, true, do_count },     { "decr", 3, 4, true, do_count },
	{ "delete", 2, 4, true, do_delete },  { "touch", 3, 4, true, do_touch },
	{ "flush_all", 1, 3, false, do_flush }, { "verbosity", 2, 3, false, do_verbosity },
	{ "version", 1, 99, false, do_version }, { "quit", 1, 99, false, do_quit },
	{ "stats", 1, 99, false, do_stats },  { NULL, 0, 0, false, NULL },
};

/* Works off one line, which ends in a zero byte.  False: not done yet, see do_get. */
static bool do_line(struct conn *c, char *line)
{
	char *word = line + strspn(line, " ");
	size_t n = strcspn(word, " ");
	const struct command *command = commands;
	char *last = "";

	c->noreply = false;
	if ((n == 3 || (n == 4 && word[3] == 's')) && (strncmp(word, "get", 3) == 0 || strncmp(word, "gat", 3) == 0))
		return do_get(c, line, word + n, word[1] == 'a');
	for (c->n_words = 0; *word; word += strspn(word, " ")) {
		last = word;
		if (c->n_words++ < MAX_WORDS)
			c->words[c->n_words - 1] = word;
		word += strcspn(word, " ");
		if (*word)
			*word++ = '\0';
	}
	while (command->name && c->n_words && strcmp(c->words[0], command->name) != 0)
		command++;
	if (!c->n_words || c->n_words < command->min || c->n_words > command->max) {
		c->closing = strncmp(last, "HTTP/", 5) == 0; /* what a browser sends must not be taken for commands */
		reply(c, "ERROR");
		return true;
	}
	c->noreply = command->max < 99 && strcmp(last, "noreply") == 0;
	if (command->on_key && strlen(c->words[1]) > TABLE_KEY_MAX)
		reply(c, BAD_FORMAT);
	else
		command->run(c);
	return true;
}

/* Does the next thing in the input.  False: it is not complete yet, or the output is full. */
static bool step(struct conn *c)
{
	size_t n = evbuffer_get_length(c->in);
	struct evbuffer_ptr end;
	char *line;
	bool done;

	n_steps++;
	if (c->swallow) {
		n = n < c->swallow ? n : c->swallow;
		evbuffer_drain(c->in, n);
		c->swallow -= n;
		return c->swallow == 0;
	}
	if (c->want && n < c->want)
		return false;
	if (c->want) {
		store_value(c);
		return true;
	}
	end = evbuffer_search(c->in, "\n", 1, NULL);
	if (end.pos < 0) {
		if (n > PLAIN_LINE_MAX) {
			line = (char *)evbuffer_pullup(c->in, PLAIN_LINE_MAX);
			line += strspn(line, " ");
			c->closing = n > GET_LINE_MAX || (strncmp(line, "get ", 4) && strncmp(line, "gets ", 5));
		}
		return false;
	}
	line = (char *)evbuffer_pullup(c->in, end.pos + 1);
	line[end.pos - (end.pos > 1 && line[end.pos - 1] == '\r')] = '\0';
	done = do_line(c, line);
	line[end.pos] = '\n';
	if (done)
		evbuffer_drain(c->in, (size_t)end.pos + 1);
	return done;
}

static bool receive(struct conn *c, int fd)
{
	struct evbuffer_iovec room;
	ssize_t n;

	if (evbuffer_reserve_space(c->in, READ_SIZE, &room, 1) < 1)
		return false;
	n = recv(fd, room.iov_base, room.iov_len, 0);
	room.iov_len = n > 0 ? (size_t)n : 0;
	evbuffer_commit_space(c->in, &room, 1);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	int turns = 0;

	c->closing = (what & EV_READ) && !receive(c, fd);
	while (turns < COMMANDS_A_TURN && !c->closing && evbuffer_get_length(c->out) <= OUT_HIGH && step(c))
		turns++;
	if (evbuffer_get_length(c->out) && evbuffer_write(c->out, fd) < 0 && errno != EAGAIN && errno != EINTR)
		c->closing = true;
	if (c->closing) {
		event_free(c->readable);
		event_free(c->writable);
		evbuffer_free(c->in);
		evbuffer_free(c->out);
		free(c);
		close(fd);
		n_conns--;
		return;
	}
	if (evbuffer_get_length(c->out))
		event_add(c->writable, NULL);
	else if (turns == COMMANDS_A_TURN || c->keys_done)
		event_active(c->writable, EV_WRITE, 0); /* go on when the others have had their turn */
	if (evbuffer_get_length(c->out) > OUT_HIGH)
		event_del(c->readable);
	else
		event_add(c->readable, NULL);
}

static void on_accept(evutil_socket_t listen_fd, short what, void *arg)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct conn *c = fd < 0 ? NULL : calloc(1, sizeof(*c));
	int one = 1;

	(void)what, (void)arg;
	if (!c) {
		if (fd >= 0)
			close(fd);
		else if (errno != EAGAIN && errno != ECONNABORTED) /* EAGAIN: another worker was faster */
			event_del(accepting); /* out of descriptors: on_second tries again, else this would spin */
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->in = evbuffer_new();
	c->out = evbuffer_new();
	c->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_ready, c);
	c->writable = event_new(base, fd, EV_WRITE, on_ready, c);
	event_add(c->readable, NULL);
	n_conns++;
}

/* Once a second, and at a signal to stop. */
static void on_second(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)arg;
	if (what & EV_SIGNAL)
		event_base_loopbreak(base);
	event_add(accepting, NULL);
	if (n_steps == n_steps_before)
		tg_trim(); /* idle: what we only cache may help a busy worker */
	n_steps_before = n_steps;
}

int cached_worker(int listen_fd, int n_workers)
{
	struct tg_options options = { .size = sizeof(options), .name = "tgcached" };
	int r = tg_attach(&options);

	table = r < 0 ? NULL : table_open();
	if (!table) {
		fprintf(stderr, "tgcached: worker cannot use the shared heap: %s\n", strerror(r < 0 ? -r : errno));
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	started = time(NULL);
	threads = n_workers;
	base = event_base_new();
	event_add(evsignal_new(base, SIGTERM, on_second, NULL), NULL);
	event_add(evsignal_new(base, SIGINT, on_second, NULL), NULL);
	event_add(event_new(base, -1, EV_PERSIST, on_second, NULL), &(struct timeval){ .tv_sec = 1 });
	accepting = event_new(base, listen_fd, EV_READ | EV_PERSIST, on_accept, NULL);
	event_add(accepting, NULL);
	event_base_dispatch(base);
	tg_detach();
	return 0;
}
