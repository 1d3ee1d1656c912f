/* table.c - shards, each with a robust mutex and chains of items.
 *
 * A worker may be killed at any instruction, also while it holds a shard.  The next one to lock it
 * is told (EOWNERDEAD), and has nothing to repair: an item enters and leaves a chain by one store,
 * so chains are whole even in the midst of a change, and values never change in place.  Such a kill
 * leaks at most the one object that was not yet linked, or no longer linked and not yet freed.
 *
 * The number of chains is fixed (2 MiB of heads): four items a chain with a million of them, and
 * nothing to move while others wait.  There is no list in the order of use: evicted is the least
 * recently used of SAMPLE items, of other ones each time.  Links are plain pointers: the heap has
 * the same address in every process.
 */
#include "cached.h"

#include <ctype.h>
#include <pthread.h>
#include <stdatomic.h>

#define ROOT         "tgcached"
#define MAGIC        0x3165686361636774 /* "tgcache1": changes with the layout of anything here */
#define N_SHARDS     256                /* with dozens of workers two seldom meet at one lock */
#define N_CHAINS     1024               /* in a shard */
#define SAMPLE       16
#define EVICT_BATCH  (64 * 1024) /* bytes: to ask for memory again costs a message to the daemon */
#define EVICT_ROUNDS 10

struct table {
	uint64_t magic; /* const once published */
	_Atomic int64_t
		flush_at_ms; /* W: any   R: any   what was stored before dies then; 0: none */
	_Alignas(64) _Atomic uint64_t
		stats[N_STATS]; /* W: any (add)   R: any   away from what all read */
	atomic_uint hand;       /* W: any (add)   R: any   where the next sample is taken */
	struct shard {
		_Alignas(64) pthread_mutex_t lock;
		struct item *chains[N_CHAINS]; /* under the lock */
	} shards[N_SHARDS];
};

_Atomic uint64_t *table_stats;

int64_t cached_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool cached_number(const char *s, uint64_t *ret_value)
{
	char *end;

	errno = 0;
	*ret_value = strtoull(s, &end, 10);
	if (errno || end == s || (*end && !isspace((unsigned char)*end)))
		return false;
	return (int64_t)*ret_value >= 0 || !memchr(s, '-', (size_t)(end - s));
}

/* FNV-1a, then mixed so that all bits depend on all of the key. */
static uint64_t hash_of(const char *key, size_t n)
{
	uint64_t h = 0xcbf29ce484222325;

	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)key[i]) * 0x100000001b3;
	h = (h ^ h >> 32) * 0xd6e8feb86659fd93;
	return h ^ h >> 32;
}

static size_t size_of(const struct item *it)
{
	return sizeof(*it) + it->n_key + it->n_value + 1;
}

static struct item **chain_of(struct shard *s, uint64_t hash)
{
	return &s->chains[hash / N_SHARDS % N_CHAINS];
}

/* NULL: `wait` is false, and another one has the lock (or we do). */
static struct shard *lock(struct table *t, uint64_t hash, bool wait)
{
	struct shard *s = &t->shards[hash % N_SHARDS];
	int r = wait ? pthread_mutex_lock(&s->lock) : pthread_mutex_trylock(&s->lock);

	if (r == EOWNERDEAD)
		r = pthread_mutex_consistent(&s->lock);
	if (r != 0 && r != EBUSY) {
		fprintf(stderr, "tgcached: cannot lock the table: %s\n", strerror(r));
		abort();
	}
	return r == 0 ? s : NULL;
}

/* Puts the item (NULL: none) in place of the one at the link (which may be none) and frees that. */
static void put(struct item **link, struct item *it)
{
	struct item *old = *link;

	if (it) {
		it->chain = old ? old->chain : NULL;
		it->stored_ms = it->used_ms = cached_now_ms();
		it->cas = ++table_stats[TOTAL_ITEMS];
		table_stats[CURR_ITEMS]++;
		table_stats[BYTES] += size_of(it);
	}
	/* The one store: after it the item is there, and all of it; before it the old one was. */
	__atomic_store_n(link, it ? it : old->chain, __ATOMIC_RELEASE);
	if (old) {
		table_stats[CURR_ITEMS]--;
		table_stats[BYTES] -= size_of(old);
		tg_free(old);
	}
}

static bool is_dead(struct table *t, const struct item *it, int64_t now)
{
	return (it->expires_ms != 0 && it->expires_ms <= now) ||
	       (t->flush_at_ms <= now && it->stored_ms < t->flush_at_ms);
}

void table_change(struct table *t, const char *key,
		  struct item *(*change)(void *arg, struct item *old), void *arg)
{
	size_t n = strlen(key);
	uint64_t hash = hash_of(key, n);
	struct shard *s = lock(t, hash, true);
	struct item **link = chain_of(s, hash), *it, *new;
	int64_t now = cached_now_ms();

	while ((it = *link) && (it->hash != hash || it->n_key != n || memcmp(it->data, key, n)))
		link = &it->chain;
	if (it && is_dead(t, it, now)) {
		put(link, NULL);
		while ((it = *link))
			link = &it->chain;
	}
	if (it)
		it->used_ms = now;
	new = change(arg, it);
	if (new != it)
		put(link, new);
	pthread_mutex_unlock(&s->lock);
}

/* Frees the least recently used item of a sample; its size.  0: there was none.  Waits for no lock,
 * as its caller may hold one: busy shards are left alone. */
static size_t evict_one(struct table *t)
{
	struct item *oldest = NULL, **link;
	int64_t used_ms = 0;
	uint64_t hash = 0;
	size_t seen = 0, size = 1; /* more than 0 also if another one was faster */
	struct shard *s;

	for (int i = 0; i < N_SHARDS && seen < SAMPLE; i++) {
		unsigned hand = t->hand++;

		s = lock(t, hand, false);
		for (unsigned j = 0; s && j < N_CHAINS && seen < SAMPLE; j++) {
			struct item *it = s->chains[(hand / N_SHARDS * SAMPLE + j) % N_CHAINS];

			for (; it; it = it->chain, seen++) {
				if (!oldest || it->used_ms < used_ms) {
					oldest = it;
					used_ms = it->used_ms;
					hash = it->hash;
				}
			}
		}
		if (s)
			pthread_mutex_unlock(&s->lock);
	}
	s = oldest ? lock(t, hash, false) : NULL;
	if (!s)
		return seen;
	for (link = chain_of(s, hash); *link && *link != oldest;)
		link = &(*link)->chain;
	if (*link) {
		size = size_of(*link);
		put(link, NULL);
		table_stats[EVICTIONS]++;
	}
	pthread_mutex_unlock(&s->lock);
	return size;
}

struct item *item_new(struct table *t, const char *key, size_t n_key, size_t n_value,
		      uint32_t flags, int64_t expires_ms)
{
	size_t size = sizeof(struct item) + n_key + n_value + 1,
	       batch = size > EVICT_BATCH ? size : EVICT_BATCH;
	struct item *it = tg_malloc(size);

	/* What is evicted may lie scattered, so each round takes twice as much. */
	for (int i = 0; !it && errno != ENOTCONN && i < EVICT_ROUNDS; i++, batch *= 2) {
		for (size_t freed = 0, n = 1; n != 0 && freed < batch; freed += n)
			n = evict_one(t);
		tg_trim(); /* hands over what lies in other workers' spans, gives empty ones back */
		it = tg_malloc(size);
	}
	if (!it)
		return NULL;
	*it = (struct item){.hash = hash_of(key, n_key), .expires_ms = expires_ms, .flags = flags};
	it->n_value = (uint32_t)n_value;
	it->n_key = (uint8_t)n_key;
	memcpy(it->data, key, n_key);
	item_value(it)[n_value] = '\0'; /* ends a number */
	return it;
}

void table_flush(struct table *t, int64_t delay_ms)
{
	int64_t now = cached_now_ms();

	for (size_t i = 0; i < N_SHARDS * N_CHAINS; i++) {
		struct shard *s = lock(t, i / N_CHAINS, true);

		for (struct item **link = &s->chains[i % N_CHAINS]; *link;) {
			if (delay_ms <= 0 ||
			    is_dead(t, *link, now)) /* since when is forgotten below */
				put(link, NULL);
			else
				link = &(*link)->chain;
		}
		pthread_mutex_unlock(&s->lock);
	}
	t->flush_at_ms = delay_ms <= 0 ? 0 : now + delay_ms;
}

struct table *cached_attach(void)
{
	struct tg_options options = {.size = sizeof(options), .name = "tgcached"};
	pthread_mutexattr_t attr;
	struct table *t;

	if (tg_attach(&options) < 0) {
		fprintf(stderr, "tgcached: %s\n", tg_attach_error());
		return NULL;
	}
	t = tg_root_get(ROOT);
	if (!t && errno == ENOENT && (t = tg_calloc(1, sizeof(*t)))) {
		t->magic = MAGIC;
		pthread_mutexattr_init(&attr);
		pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
		pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
		for (size_t i = 0; i < N_SHARDS; i++)
			pthread_mutex_init(&t->shards[i].lock, &attr);
		if (tg_root_cas(ROOT, NULL, t) < 0) { /* another one was faster: take the other's */
			tg_free(t);
			t = tg_root_get(ROOT);
		}
	}
	errno = t ? EEXIST : errno;
	if (!t || tg_usable_size(t) < sizeof(*t) || t->magic != MAGIC) {
		fprintf(stderr, "tgcached: no table of ours at the root \"%s\": %s\n", ROOT,
			strerror(errno));
		return NULL;
	}
	table_stats = t->stats;
	return t;
}
