/* worker.c - connections, and memcached's text protocol on them.
 *
 * One libevent loop and no threads.  step() takes one command or one value at a time from the input
 * and answers it.  While many answers wait for a slow reader nothing more is read or done, so a
 * connection costs bounded memory.  A value enters the heap only when all of it has come.
 */
#include "cached.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE    (64 * 1024)
#define OUT_HIGH     (1024 * 1024) /* bytes of answers that may wait */
#define LINE_LEN_MAX 2048          /* while its end has not come; only a get may be longer */
#define GET_LEN_MAX  (1024 * 1024)
#define MANY         GET_LEN_MAX        /* words of a line */
#define FEW          8                  /* words that need no memory of their own */
#define HEAD_MAX     (KEY_LEN_MAX + 80) /* of a value, with all ends of lines */

#define BAD_FORMAT "CLIENT_ERROR bad command line format"
#define BAD_TIME   "CLIENT_ERROR invalid exptime argument"
#define NO_MEMORY  "SERVER_ERROR out of memory storing object"

struct conn {
	struct event *readable, *writable;
	struct evbuffer *in, *out;
	bool ended, closing, noreply;   /* no more will come; is to be done; no answer is wanted */
	char *line, **words, *few[FEW]; /* the command at hand; NULL: none */
	int n_words, next_key;          /* next_key: where an unfinished get goes on; 0: none */
	const struct command *command;
	size_t value_len, refused; /* bytes, with the end, to wait for, and to throw away */
	uint64_t flags, number;    /* number: of cas, or to count by */
	int64_t expires_ms;
	struct item *item, *made; /* to be stored: what has come, what was made of it */
	struct item *found;       /* by a get */
	const char *answer;       /* of a change */
	char digits[24];          /* the same, if it is a number */
};

static struct event_base *base;
static struct event *accepting;
static struct table *table;
static time_t started;
static int threads, n_conns;
static uint64_t n_steps, n_steps_before;

static struct item *get_item(void *arg, struct item *old)
{
	struct conn *c = arg;

	c->found = old;
	if (old && c->words[0][1] == 'a') /* gat, gats */
		old->expires_ms = c->expires_ms;
	return old;
}

static char *put_number(char *at, uint64_t n)
{
	char digits[20];
	int i = 0;

	do
		digits[i++] = (char)('0' + n % 10);
	while (n /= 10);
	for (*at++ = ' '; i > 0;)
		*at++ = digits[--i];
	return at;
}

/* Most of what a worker does is this, so no printf. */
static void show_item(struct conn *c, const char *key)
{
	const struct item *it = table_change(table, key, get_item, c) ? c->found : NULL;
	struct evbuffer_iovec room;
	char *at;

	table_counts[it ? GET_HITS : GET_MISSES]++;
	if (!it)
		return;
	evbuffer_reserve_space(c->out, HEAD_MAX + it->n_value, &room, 1);
	at = mempcpy(mempcpy(room.iov_base, "VALUE ", 6), it->data, it->n_key);
	at = put_number(put_number(at, it->flags), it->n_value);
	if (c->words[0][3] == 's') /* gets, gats */
		at = put_number(at, it->cas);
	at = mempcpy(at, "\r\n", 2);
	at = mempcpy(mempcpy(at, item_value(it), it->n_value), "\r\n", 2);
	room.iov_len = (size_t)(at - (char *)room.iov_base);
	evbuffer_commit_space(c->out, &room, 1);
}

/* NULL: the output is full; to be called again. */
static const char *do_get(struct conn *c)
{
	int first = c->words[0][1] == 'a' ? 2 : 1;

	if (c->next_key == 0 && first == 2 && !cached_expiry(c->words[1], &c->expires_ms))
		return BAD_TIME;
	for (int i = first; c->next_key == 0 && i < c->n_words; i++) {
		if (strlen(c->words[i]) > KEY_LEN_MAX)
			return BAD_FORMAT;
	}
	for (c->next_key += c->next_key ? 0 : first; c->next_key < c->n_words; c->next_key++) {
		if (evbuffer_get_length(c->out) > OUT_HIGH)
			return NULL;
		show_item(c, c->words[c->next_key]);
	}
	c->next_key = 0;
	return "END";
}

static struct item *delete_item(void *arg, struct item *old)
{
	struct conn *c = arg;
	bool zero = c->n_words > 2 && strcmp(c->words[2], "0") == 0; /* old clients: "at once" */

	c->noreply &= c->n_words > 2;
	c->answer = old ? "DELETED" : "NOT_FOUND";
	if (c->n_words == 2 + zero + c->noreply)
		return NULL;
	c->answer = BAD_FORMAT ".  Usage: delete <key> [noreply]";
	return old;
}

static struct item *touch_item(void *arg, struct item *old)
{
	struct conn *c = arg;

	c->answer = !cached_expiry(c->words[2], &c->expires_ms) ? BAD_TIME
		    : old                                       ? "TOUCHED"
								: "NOT_FOUND";
	if (c->answer[0] == 'T')
		old->expires_ms = c->expires_ms;
	return old;
}

static struct item *count_item(void *arg, struct item *old)
{
	struct conn *c = arg;
	bool ok = cached_number(c->words[2], &c->number);
	struct item *it;
	uint64_t v;
	size_t n;

	c->answer = "CLIENT_ERROR cannot increment or decrement non-numeric value";
	if (!ok || !old)
		c->answer = !ok ? "CLIENT_ERROR invalid numeric delta argument" : "NOT_FOUND";
	if (!ok || !old || !cached_number(item_value(old), &v))
		return old;
	v = c->words[0][0] == 'i' ? v + c->number : v > c->number ? v - c->number : 0;
	n = (size_t)snprintf(c->digits, sizeof(c->digits), "%" PRIu64, v);
	it = item_new(&c->made, old->data, old->n_key, n > old->n_value ? n : old->n_value,
		      old->flags, old->expires_ms);
	memcpy(memset(item_value(it), ' ', it->n_value), c->digits, n); /* never gets shorter */
	c->answer = c->digits;
	return it;
}

enum how { SET, ADD, REPLACE, CAS, APPEND, PREPEND };

struct command {
	const char *name;
	int min, max;                       /* words */
	change_fn *change;                  /* of the key; or: */
	const char *(*run)(struct conn *c); /* its answer; NULL: none, or not yet */
	enum how how;
};

static struct item *store_item(void *arg, struct item *old)
{
	struct conn *c = arg;
	enum how how = c->command->how;
	struct item *it = c->item, *first = how == APPEND ? old : it,
		    *second = how == APPEND ? it : old;

	if (!it) /* refused: nobody must then find the value from before */
		return how == SET ? NULL : old;
	c->answer = how != CAS ? "NOT_STORED" : old ? "EXISTS" : "NOT_FOUND";
	if ((how == ADD && old) || (how > ADD && !old) || (how == CAS && old->cas != c->number) ||
	    (how > CAS && old->n_value + it->n_value > VALUE_LEN_MAX))
		return old;
	c->answer = "STORED";
	if (how <= CAS)
		return it;
	it = item_new(&c->made, old->data, old->n_key, old->n_value + it->n_value, old->flags,
		      old->expires_ms);
	memcpy(mempcpy(item_value(it), item_value(first), first->n_value), item_value(second),
	       second->n_value);
	return it;
}

static void refuse(struct conn *c)
{
	free(c->item);
	c->item = NULL;
	table_change(table, c->words[1], store_item, c);
}

/* The line; NULL: the value is to come. */
static const char *do_store(struct conn *c)
{
	char **w = c->words;
	uint64_t n;

	if (!cached_number(w[2], &c->flags) || !cached_expiry(w[3], &c->expires_ms) ||
	    !cached_number(w[4], &n) || n > INT32_MAX - 2 ||
	    (c->command->how == CAS && !cached_number(w[5], &c->number)))
		return BAD_FORMAT;
	if (n <= VALUE_LEN_MAX) {
		c->value_len = n + 2;
		return NULL;
	}
	c->refused = n + 2;
	refuse(c);
	return "SERVER_ERROR object too large for cache";
}

/* The same, once the value is all there. */
static const char *store_value(struct conn *c)
{
	size_t n = c->value_len - 2;
	const char *key = c->words[1];
	char end[2];

	table_counts[CMD_SET]++;
	c->value_len = 0;
	item_new(&c->item, key, strlen(key), n, (uint32_t)c->flags, c->expires_ms);
	evbuffer_remove(c->in, item_value(c->item), n);
	evbuffer_remove(c->in, end, 2);
	if (memcmp(end, "\r\n", 2) != 0)
		return "CLIENT_ERROR bad data chunk";
	if (table_change(table, key, store_item, c))
		return c->answer;
	refuse(c);
	return NO_MEMORY;
}

static const char *do_flush(struct conn *c)
{
	int64_t at_ms = 0;

	if (c->n_words > 1 + c->noreply && !cached_expiry(c->words[1], &at_ms))
		return BAD_TIME;
	table_flush(table, at_ms - cached_now_ms());
	return "OK";
}

/* The connections are those of this worker; the limit is the heap's: see tgctl status. */
static const char *do_stats(struct conn *c)
{
	static const char *const names[] = {"total_items", "get_hits",   "get_misses", "cmd_set",
					    "evictions",   "curr_items", "bytes",      "objects"};
	uint64_t stats[N_STATS];

	evbuffer_add_printf(
		c->out,
		"STAT pid %d\r\nSTAT uptime %d\r\nSTAT time %lld\r\nSTAT version " CACHED_VERSION
		"\r\nSTAT threads %d\r\nSTAT curr_connections %d\r\nSTAT limit_maxbytes 0\r\n",
		(int)getpid(), (int)(time(NULL) - started), (long long)time(NULL), threads,
		n_conns);
	table_stats(table, stats);
	for (int i = 0; i < N_STATS; i++)
		evbuffer_add_printf(c->out, "STAT %s %" PRIu64 "\r\n", names[i], stats[i]);
	evbuffer_add_printf(c->out, "STAT cmd_get %" PRIu64 "\r\n",
			    stats[GET_HITS] + stats[GET_MISSES]);
	return "END";
}

/* verbosity (taken, but a worker has nothing to say about a request), version, quit */
static const char *do_other(struct conn *c)
{
	if (strcmp(c->words[0], "verbosity") == 0)
		return cached_number(c->words[1], &c->number) ? "OK" : BAD_FORMAT;
	c->closing = c->words[0][0] == 'q';
	return c->closing ? NULL : "VERSION " CACHED_VERSION;
}

/* In those with a largest number of words the last one may be "noreply", and the second is a key
 * (or a level, which may not be longer). */
static const struct command commands[] = {
	{"get", 2, MANY, NULL, do_get, 0},          {"gets", 2, MANY, NULL, do_get, 0},
	{"gat", 2, MANY, NULL, do_get, 0},          {"gats", 2, MANY, NULL, do_get, 0},
	{"set", 5, 6, NULL, do_store, SET},         {"add", 5, 6, NULL, do_store, ADD},
	{"replace", 5, 6, NULL, do_store, REPLACE}, {"append", 5, 6, NULL, do_store, APPEND},
	{"prepend", 5, 6, NULL, do_store, PREPEND}, {"cas", 6, 7, NULL, do_store, CAS},
	{"incr", 3, 4, count_item, NULL, 0},        {"decr", 3, 4, count_item, NULL, 0},
	{"delete", 2, 4, delete_item, NULL, 0},     {"touch", 3, 4, touch_item, NULL, 0},
	{"flush_all", 1, 3, NULL, do_flush, 0},     {"verbosity", 2, 3, NULL, do_other, 0},
	{"version", 1, MANY, NULL, do_other, 0},    {"quit", 1, MANY, NULL, do_other, 0},
	{"stats", 1, 1, NULL, do_stats, 0},         {NULL, 1, 0, NULL, NULL, 0}};

static void split_line(struct conn *c)
{
	size_t room = 1;
	char *at, *end;

	for (at = c->line; (at = strchr(at, ' ')); at++)
		room++;
	c->words = room <= FEW ? c->few : malloc(room * sizeof(char *));
	c->n_words = 0;
	for (at = c->line; at; at = end) {
		end = strchr(at, ' ');
		if (end)
			*end++ = '\0';
		if (*at)
			c->words[c->n_words++] = at;
	}
}

static const char *do_line(struct conn *c)
{
	const struct command *command = commands;
	const char *last;

	split_line(c);
	last = c->n_words > 0 ? c->words[c->n_words - 1] : "";
	while (c->n_words > 0 && command->name && strcmp(c->words[0], command->name) != 0)
		command++;
	c->command = command;
	c->noreply = command->max > 0 && command->max < MANY && strcmp(last, "noreply") == 0;
	if (c->n_words < command->min || c->n_words > command->max) {
		c->closing = c->noreply = strncmp(last, "HTTP/", 5) == 0; /* a stray browser */
		return "ERROR";
	}
	if (command->min > 1 && command->max < MANY && strlen(c->words[1]) > KEY_LEN_MAX)
		return BAD_FORMAT;
	if (command->run)
		return command->run(c);
	return table_change(table, c->words[1], command->change, c) ? c->answer : NO_MEMORY;
}

static void forget(struct conn *c)
{
	if (c->words != c->few)
		free(c->words);
	free(c->line);
	free(c->item);
	free(c->made);
	c->words = NULL;
	c->line = NULL;
	c->item = c->made = NULL;
}

/* Does the next thing in the input.  False: it is not all there yet, or the output is full. */
static bool step(struct conn *c)
{
	size_t n = evbuffer_get_length(c->in);
	char start[3] = "";
	const char *answer;

	if (c->refused) {
		n = n < c->refused ? n : c->refused;
		evbuffer_drain(c->in, n);
		c->refused -= n;
		return c->refused == 0;
	}
	if (c->value_len > n)
		return false;
	n_steps++;
	if (c->value_len) {
		answer = store_value(c);
	} else if (c->next_key) {
		answer = do_get(c);
	} else if ((c->line = evbuffer_readln(c->in, NULL, EVBUFFER_EOL_CRLF)) != NULL) {
		answer = do_line(c);
	} else {
		evbuffer_copyout(c->in, start, sizeof(start));
		c->closing = n > (memcmp(start, "get", 3) ? LINE_LEN_MAX : GET_LEN_MAX);
		return false;
	}
	if (answer && !c->noreply) {
		evbuffer_add(c->out, answer, strlen(answer));
		evbuffer_add(c->out, "\r\n", 2);
	}
	if (c->value_len || c->next_key)
		return c->value_len;
	forget(c);
	return true;
}

/* False: the connection has failed. */
static bool receive(struct conn *c, int fd)
{
	static char bytes[READ_SIZE]; /* so that little is kept for what mostly is little */
	ssize_t n = recv(fd, bytes, sizeof(bytes), 0);

	c->ended = n == 0;
	if (n > 0)
		evbuffer_add(c->in, bytes, (size_t)n);
	return n >= 0 || errno == EAGAIN || errno == EINTR;
}

/* False: the connection has failed. */
static bool transmit(struct conn *c, int fd)
{
	struct evbuffer_iovec piece;
	ssize_t n = 1;

	while (n > 0 && evbuffer_get_length(c->out)) {
		evbuffer_peek(c->out, -1, NULL, &piece, 1);
		n = send(fd, piece.iov_base, piece.iov_len, 0);
		evbuffer_drain(c->out, n > 0 ? (size_t)n : 0);
	}
	return n >= 0 || errno == EAGAIN || errno == EINTR;
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	bool ok = !(what & EV_READ) || receive(c, fd), more = true;
	size_t waiting;

	while (ok && !c->closing && more && evbuffer_get_length(c->out) <= OUT_HIGH)
		more = step(c);
	ok = ok && transmit(c, fd);
	waiting = evbuffer_get_length(c->out);
	more |= c->next_key != 0;
	if (!ok || (waiting == 0 && (c->closing || (c->ended && !more)))) {
		event_free(c->readable);
		event_free(c->writable);
		evbuffer_free(c->in);
		evbuffer_free(c->out);
		forget(c);
		free(c);
		close(fd);
		n_conns--;
		return;
	}
	if (waiting)
		event_add(c->writable, NULL);
	else if (more)
		event_active(c->writable, EV_WRITE, 0); /* when the others have had their turn */
	if (waiting > OUT_HIGH || c->closing || c->ended)
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
		if (errno != EAGAIN && errno != ECONNABORTED) /* EAGAIN: another was faster */
			event_del(accepting); /* out of descriptors: on_second tries again */
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

/* Each second, and at a signal to stop. */
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
	table = cached_attach();
	if (!table)
		return 1;
	signal(SIGPIPE, SIG_IGN);
	started = time(NULL);
	threads = n_workers;
	base = event_base_new();
	event_add(evsignal_new(base, SIGTERM, on_second, NULL), NULL);
	event_add(evsignal_new(base, SIGINT, on_second, NULL), NULL);
	event_add(event_new(base, -1, EV_PERSIST, on_second, NULL), &(struct timeval){.tv_sec = 1});
	accepting = event_new(base, listen_fd, EV_READ | EV_PERSIST, on_accept, NULL);
	event_add(accepting, NULL);
	event_base_dispatch(base);
	tg_detach();
	return 0;
}
