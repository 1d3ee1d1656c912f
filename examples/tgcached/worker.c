/* A worker: connections, and memcached's text protocol on them.
 *
 * One libevent loop and no threads.  Bytes come into `in`; step() takes one command or one value from it at a time and
 * puts the answer into `out`.  While much of that waits for a slow reader nothing more is read or done, so a connection
 * costs bounded memory.  A value is gathered in private memory and enters the heap once it is complete.
 */
#include "cached.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE (64 * 1024)
#define OUT_HIGH (1024 * 1024) /* bytes of answers that may wait for the peer to read them */
#define PLAIN_LINE_MAX 2048    /* while its end has not come; only a get may be longer */
#define GET_LINE_MAX (1024 * 1024)
#define COMMANDS_A_TURN 50     /* then the other connections have theirs */
#define ANY 1000000            /* words */

#define BAD_FORMAT "CLIENT_ERROR bad command line format"
#define BAD_TIME "CLIENT_ERROR invalid exptime argument"

struct conn {
	struct event *readable, *writable;
	struct evbuffer *in, *out;
	char *line, **words;   /* of the command at hand; NULL: none */
	int n_words, next_key; /* next_key: where an unfinished get goes on; 0: none */
	bool noreply, closing;
	size_t swallow;        /* bytes of a refused value still to come */
	size_t want;           /* bytes of a value and its end to wait for: of `line`, as these three say */
	uint64_t flags, cas;
	int64_t expires_ms;
	const struct command *command;
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
	if (c->words[0][3] == 's')
		evbuffer_add_printf(c->out, " %" PRIu64, it->cas);
	evbuffer_add(c->out, "\r\n", 2);
	evbuffer_add(c->out, item_value(it), it->n_value);
	evbuffer_add(c->out, "\r\n", 2);
}

/* get, gets, gat, gats.  Leaves next_key set when the output is full: then it is called again. */
static void do_get(struct conn *c)
{
	bool touch = c->words[0][1] == 'a';

	if (c->next_key == 0 && touch && !read_expiry(c->words[1], &c->expires_ms)) {
		reply(c, BAD_TIME);
		return;
	}
	for (int i = 1 + touch; i < c->n_words && c->next_key == 0; i++) {
		if (strlen(c->words[i]) > KEY_LEN_MAX) {
			reply(c, BAD_FORMAT);
			return;
		}
	}
	for (int i = c->next_key ? c->next_key : 1 + touch; i < c->n_words; i++) {
		c->next_key = i;
		if (evbuffer_get_length(c->out) > OUT_HIGH)
			return;
		table_get(table, c->words[i], touch ? &c->expires_ms : NULL, show, c);
	}
	c->next_key = 0;
	reply(c, "END");
}

static void do_store(struct conn *c);

static void refuse_value(struct conn *c, const char *answer)
{
	if (c->words[0][0] == 's') /* whoever wrote anew must not find the old value */
		table_delete(table, c->words[1]);
	reply(c, answer);
}

static void do_count(struct conn *c)
{
	uint64_t by, value = 0;
	const char *answer = "CLIENT_ERROR invalid numeric delta argument";
	char text[24];

	if (cached_number(c->words[2], &by))
		answer = table_count(table, c->words[1], c->words[0][0] == 'i', by, &value);
	snprintf(text, sizeof(text), "%" PRIu64, value);
	reply(c, answer ? answer : text);
}

static void do_delete(struct conn *c)
{
	bool zero = c->n_words > 2 && strcmp(c->words[2], "0") == 0; /* old clients say "at once" */

	c->noreply &= c->n_words > 2;
	if (c->n_words != 2 + zero + c->noreply)
		reply(c, BAD_FORMAT ".  Usage: delete <key> [noreply]");
	else
		reply(c, table_delete(table, c->words[1]) ? "DELETED" : "NOT_FOUND");
}

static void do_touch(struct conn *c)
{
	if (!read_expiry(c->words[2], &c->expires_ms))
		reply(c, BAD_TIME);
	else
		reply(c, table_get(table, c->words[1], &c->expires_ms, NULL, NULL) ? "TOUCHED" : "NOT_FOUND");
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

/* verbosity (taken, but a worker has nothing to say about a request), version, quit */
static void do_other(struct conn *c)
{
	uint64_t level;

	if (strcmp(c->words[0], "verbosity") == 0)
		reply(c, cached_number(c->words[1], &level) ? "OK" : BAD_FORMAT);
	else if (strcmp(c->words[0], "version") == 0)
		evbuffer_add_printf(c->out, "VERSION %s\r\n", tg_version());
	else
		c->closing = true;
}

/* The connections are those of this worker; the limit is the heap's, which tgctl status tells. */
static void do_stats(struct conn *c)
{
	static const char *const names[] = { "curr_items", "bytes", "total_items", "cmd_get", "get_hits", "cmd_set",
					     "evictions" };
	uint64_t s[N_STATS];

	table_stats(table, s);
	evbuffer_add_printf(c->out, "STAT pid %d\r\nSTAT uptime %" PRId64 "\r\nSTAT time %" PRId64 "\r\n"
			    "STAT version %s\r\nSTAT curr_connections %" PRIu64 "\r\nSTAT threads %d\r\n",
			    (int)getpid(), (int64_t)(time(NULL) - started), (int64_t)time(NULL), tg_version(), n_conns,
			    threads);
	for (int i = 0; i < N_STATS; i++)
		evbuffer_add_printf(c->out, "STAT %s %" PRIu64 "\r\n", names[i], s[i]);
	evbuffer_add_printf(c->out, "STAT get_misses %" PRIu64 "\r\nSTAT limit_maxbytes 0\r\nEND\r\n",
			    s[STAT_GETS] - s[STAT_HITS]);
}

static const struct command {
	const char *name;
	int min, max; /* words */
	bool noreply; /* can be the last of them */
	bool key;     /* the second one is a key */
	void (*run)(struct conn *c);
	enum how how;
} commands[] = {
	{ "get", 2, ANY, false, false, do_get },       { "gets", 2, ANY, false, false, do_get },
	{ "gat", 2, ANY, false, false, do_get },       { "gats", 2, ANY, false, false, do_get },
	{ "set", 5, 6, true, true, do_store, HOW_SET }, { "add", 5, 6, true, true, do_store, HOW_ADD },
	{ "replace", 5, 6, true, true, do_store, HOW_REPLACE }, { "cas", 6, 7, true, true, do_store, HOW_CAS },
	{ "append", 5, 6, true, true, do_store, HOW_APPEND }, { "prepend", 5, 6, true, true, do_store, HOW_PREPEND },
	{ "incr", 3, 4, true, true, do_count },        { "decr", 3, 4, true, true, do_count },
	{ "delete", 2, 4, true, true, do_delete },     { "touch", 3, 4, true, true, do_touch },
	{ "flush_all", 1, 3, true, false, do_flush },  { "verbosity", 2, 3, true, false, do_other },
	{ "version", 1, ANY, false, false, do_other }, { "quit", 1, ANY, false, false, do_other },
	{ "stats", 1, 1, false, false, do_stats },     { NULL },
};

static void do_store(struct conn *c)
{
	char **w = c->words;
	int64_t length;

	if (!cached_number(w[2], &c->flags) || !read_expiry(w[3], &c->expires_ms) || !read_signed(w[4], &length) ||
	    length < 0 || length > INT32_MAX - 2 || (c->command->how == HOW_CAS && !cached_number(w[5], &c->cas))) {
		reply(c, BAD_FORMAT);
	} else if (length <= VALUE_LEN_MAX) {
		c->want = (size_t)length + 2;
	} else {
		c->swallow = (size_t)length + 2;
		refuse_value(c, "SERVER_ERROR object too large for cache");
	}
}

/* The value of a store command is all there. */
static void store_value(struct conn *c)
{
	size_t n = c->want - 2;
	struct item *it = item_new(table, c->words[1], strlen(c->words[1]), n, (uint32_t)c->flags, c->expires_ms);
	char end[2];

	if (it)
		evbuffer_remove(c->in, item_value(it), n);
	else
		evbuffer_drain(c->in, n);
	evbuffer_remove(c->in, end, 2);
	c->want = 0;
	if (memcmp(end, "\r\n", 2) != 0) {
		tg_free(it);
		reply(c, "CLIENT_ERROR bad data chunk");
	} else if (it) {
		reply(c, table_store(table, it, c->command->how, c->cas));
	} else {
		refuse_value(c, NO_MEMORY);
	}
}

static void do_line(struct conn *c)
{
	const struct command *command = commands;
	char *save, *last = "";

	c->n_words = 0;
	c->words = malloc((strlen(c->line) / 2 + 2) * sizeof(char *));
	for (char *w = strtok_r(c->line, " ", &save); w; w = strtok_r(NULL, " ", &save))
		last = c->words[c->n_words++] = w;
	while (c->n_words > 0 && command->name && strcmp(c->words[0], command->name) != 0)
		command++;
	c->command = command;
	c->noreply = command->noreply && strcmp(last, "noreply") == 0;
	if (c->n_words < command->min || c->n_words > command->max || c->n_words == 0) {
		c->closing = strncmp(last, "HTTP/", 5) == 0; /* what a browser sends must not be taken for commands */
		c->noreply = c->closing;
		reply(c, "ERROR");
	} else if (command->key && strlen(c->words[1]) > KEY_LEN_MAX) {
		reply(c, BAD_FORMAT);
	} else {
		command->run(c);
	}
}

/* Does the next thing in the input.  False: it is not complete yet, or the output is full. */
static bool step(struct conn *c)
{
	size_t n = evbuffer_get_length(c->in);
	char *start;

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
	} else if (c->next_key) {
		do_get(c);
	} else if ((c->line = evbuffer_readln(c->in, NULL, EVBUFFER_EOL_CRLF)) != NULL) {
		do_line(c);
	} else {
		start = n > PLAIN_LINE_MAX ? (char *)evbuffer_pullup(c->in, PLAIN_LINE_MAX) : NULL;
		start += start ? strspn(start, " ") : 0;
		c->closing = start && (n > GET_LINE_MAX || (strncmp(start, "get ", 4) && strncmp(start, "gets ", 5)));
		return false;
	}
	if (c->want || c->next_key)
		return c->want;
	free(c->words);
	free(c->line);
	c->words = NULL;
	c->line = NULL;
	return true;
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

static void conn_free(struct conn *c, int fd)
{
	event_free(c->readable);
	event_free(c->writable);
	evbuffer_free(c->in);
	evbuffer_free(c->out);
	free(c->words);
	free(c->line);
	free(c);
	close(fd);
	n_conns--;
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
		conn_free(c, fd);
		return;
	}
	if (evbuffer_get_length(c->out))
		event_add(c->writable, NULL);
	else if (turns == COMMANDS_A_TURN || c->next_key)
		event_active(c->writable, EV_WRITE, 0); /* go on when the others have had their turn */
	if (evbuffer_get_length(c->out) > OUT_HIGH)
		event_del(c->readable);
	else
		event_add(c->readable, NULL);
}

static void on_accept(evutil_socket_t listen_fd, short what, void *arg)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
	struct conn *c;

	(void)what, (void)arg;
	if (fd < 0) {
		if (errno != EAGAIN && errno != ECONNABORTED) /* EAGAIN: another worker was faster */
			event_del(accepting); /* out of descriptors: on_second tries again, else this would spin */
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c = calloc(1, sizeof(*c));
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

struct table *cached_attach(void)
{
	struct tg_options options = { .size = sizeof(options), .name = "tgcached" };
	int r = tg_attach(&options);
	struct table *t = r < 0 ? NULL : table_open();

	if (r < 0)
		fprintf(stderr, "tgcached: cannot attach to the shared heap: %s; is tgd running, and is TG_SOCKET the path "
			"of its socket?\n", strerror(-r));
	else if (!t)
		fprintf(stderr, "tgcached: no table: %s\n", errno == EPROTO ?
			"the root \"tgcached\" leads to something else or to another version's" : strerror(errno));
	return t;
}

int cached_worker(int listen_fd, int n_workers)
{
	table = cached_attach();
	if (!table)
		return 1;
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
