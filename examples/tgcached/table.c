/* The table: shards, each with a robust mutex, chained buckets and a list in the order of use.
 *
 * A worker may be killed at any instruction, also while it holds a shard.  The next one to lock that shard is told
 * (EOWNERDEAD) and repairs it: an item enters and leaves a chain by one store, so the chains are whole even in the
 * midst of a change, and the list and the counts are made anew from them.  Lost is the order of use in that shard.
 * As values never change in place, nobody sees half of one.  A kill can leak the one object that the worker had
 * allocated and not yet linked, or unlinked and not yet freed.
 *
 * The number of chains is fixed (2 MiB of heads): four items a chain with a million of them, and nothing to move while
 * others wait.  Pointers are stored as they are: the heap has the same address in every process.
 */
#include "cached.h"

#include <ctype.h>
#include <pthread.h>
#include <stdatomic.h>

#define ROOT "tgcached"
#define MAGIC 0x3165686361636774 /* "tgcache1": changes with the layout of anything here */
#define N_SHARDS 256             /* with dozens of workers two seldom meet at one lock */
#define N_CHAINS 1024            /* in a shard */
#define CHAIN_MAX 1000000        /* items: a longer chain runs in a circle */
#define EVICT_BATCH (64 * 1024)  /* bytes: asking for memory again costs a message to the daemon */
#define EVICT_ROUNDS 10

/* All under the lock. */
struct shard {
	_Alignas(64) pthread_mutex_t lock;
	uint64_t cas; /* of the last store */
	uint64_t stats[N_STATS];
	TAILQ_HEAD(use, item) use; /* last used first */
	struct item *chains[N_CHAINS];
};

struct table {
	uint64_t magic;              /* const once published */
	_Atomic int64_t flush_at_ms; /* W: any   R: any   what was stored before it is dead from then on; 0: none */
	atomic_uint hand;            /* W: any   R: any   the shard that evicts next */
	struct shard shards[N_SHARDS];
};

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

static uint64_t hash_of(const char *key, size_t n)
{
	uint64_t h = 0xcbf29ce484222325; /* FNV-1a, then mixed so that all bits depend on all of the key */

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

static void count_in(struct shard *s, struct item *it)
{
	TAILQ_INSERT_HEAD(&s->use, it, use);
	s->stats[STAT_ITEMS]++;
	s->stats[STAT_BYTES] += size_of(it);
}

/* Puts the item where `link` leads, in place of the one that may be there, which is freed.  NULL: only takes that out.
 * The chain changes by one store, after the item is complete and before the old one is freed. */
static void put(struct shard *s, struct item **link, struct item *it)
{
	struct item *old = *link;

	if (it) {
		it->cas = ++s->cas;
		it->stored_ms = cached_now_ms();
		it->chain = old ? old->chain : NULL;
		s->stats[STAT_TOTAL]++;
	}
	__atomic_store_n(link, it ? it : old->chain, __ATOMIC_RELEASE);
	if (old) {
		TAILQ_REMOVE(&s->use, old, use);
		s->stats[STAT_ITEMS]--;
		s->stats[STAT_BYTES] -= size_of(old);
		tg_free(old);
	}
	if (it)
		count_in(s, it);
}

/* Makes list and counts from the chains.  Cuts a chain that leads out of the heap, to an item of another one or round
 * in a circle: no kill does that, but the heap is open to other programs. */
static void repair(struct shard *s)
{
	TAILQ_INIT(&s->use);
	s->stats[STAT_ITEMS] = s->stats[STAT_BYTES] = 0;
	for (size_t i = 0, n = 0; i < N_CHAINS; i++, n = 0) {
		struct item **link = &s->chains[i];

		for (; *link && tg_to_ref(*link) && chain_of(s, (*link)->hash) == &s->chains[i] && n < CHAIN_MAX; n++) {
			count_in(s, *link);
			link = &(*link)->chain;
		}
		if (*link)
			fprintf(stderr, "tgcached: a chain of the table is damaged, its items are lost\n");
		*link = NULL;
	}
}

/* NULL: `wait` is false, and another one has the lock (or we do). */
static struct shard *lock(struct table *t, uint64_t hash, bool wait)
{
	struct shard *s = &t->shards[hash % N_SHARDS];
	int r = wait ? pthread_mutex_lock(&s->lock) : pthread_mutex_trylock(&s->lock);

	if (r == EOWNERDEAD) {
		repair(s);
		r = pthread_mutex_consistent(&s->lock); /* if we die before it, the next one starts again */
	}
	if (r != 0 && r != EBUSY) {
		fprintf(stderr, "tgcached: cannot lock the table: %s\n", strerror(r));
		abort();
	}
	return r == 0 ? s : NULL;
}

static bool dead(struct table *t, const struct item *it, int64_t now)
{
	int64_t flush_at = atomic_load_explicit(&t->flush_at_ms, memory_order_relaxed);

	return (it->expires_ms != 0 && it->expires_ms <= now) || (flush_at <= now && it->stored_ms < flush_at);
}

/* Locks the key's shard.  Returns the link to its item, or a link to NULL, where one may be put. */
static struct item **find(struct table *t, const char *key, size_t n, struct shard **ret_shard)
{
	uint64_t hash = hash_of(key, n);
	struct shard *s = *ret_shard = lock(t, hash, true);
	struct item **link = chain_of(s, hash);

	while (*link && ((*link)->hash != hash || (*link)->n_key != n || memcmp((*link)->data, key, n) != 0))
		link = &(*link)->chain;
	if (*link && dead(t, *link, cached_now_ms())) {
		put(s, link, NULL);
		while (*link)
			link = &(*link)->chain;
	}
	return link;
}

/* Frees the least recently used item of the shard whose turn it is: nearly the oldest of all.  0: nothing to free. */
static size_t evict_one(struct table *t)
{
	size_t size = 0;

	for (int i = 0; i < N_SHARDS && size == 0; i++) {
		struct shard *s = lock(t, atomic_fetch_add(&t->hand, 1), false); /* no wait: our caller may hold one */
		struct item *victim = s ? TAILQ_LAST(&s->use, use) : NULL;

		if (victim) {
			struct item **link = chain_of(s, victim->hash);

			while (*link != victim)
				link = &(*link)->chain;
			size = size_of(victim);
			put(s, link, NULL);
			s->stats[STAT_EVICTIONS]++;
		}
		if (s)
			pthread_mutex_unlock(&s->lock);
	}
	return size;
}

struct item *item_new(struct table *t, const char *key, size_t n_key, size_t n_value, uint32_t flags, int64_t expires_ms)
{
	struct item model = { .hash = hash_of(key, n_key), .expires_ms = expires_ms, .flags = flags,
			      .n_value = (uint32_t)n_value, .n_key = (uint8_t)n_key };
	size_t size = size_of(&model), batch = size > EVICT_BATCH ? size : EVICT_BATCH;
	struct item *it = tg_malloc(size);

	/* What is evicted may lie scattered, so each round takes twice as much as the one before. */
	for (int i = 0; !it && (errno == ENOMEM || errno == EDQUOT) && i < EVICT_ROUNDS; i++, batch *= 2) {
		for (size_t freed = 0, n = 1; n != 0 && freed < batch; freed += n)
			n = evict_one(t);
		tg_trim(); /* hands over what lies in the spans of other workers, and gives back our own empty ones */
		it = tg_malloc(size);
	}
	if (!it)
		return NULL;
	*it = model;
	memcpy(it->data, key, n_key);
	item_value(it)[n_value] = '\0'; /* ends a number */
	return it;
}

const char *table_store(struct table *t, struct item *it, enum how how, uint64_t cas)
{
	struct shard *s;
	struct item **link = find(t, it->data, it->n_key, &s);
	struct item *old = *link, *first = how == HOW_APPEND ? old : it, *second = how == HOW_APPEND ? it : old, *new = it;
	const char *answer = "STORED";

	if (how == HOW_CAS && (!old || old->cas != cas)) {
		answer = old ? "EXISTS" : "NOT_FOUND";
	} else if ((how == HOW_ADD && old) || (how > HOW_CAS && old && old->n_value + it->n_value > VALUE_LEN_MAX) ||
		   (how != HOW_ADD && how != HOW_SET && !old)) {
		answer = "NOT_STORED";
	} else if (how == HOW_APPEND || how == HOW_PREPEND) {
		new = item_new(t, it->data, it->n_key, old->n_value + it->n_value, old->flags, old->expires_ms);
		if (!new)
			answer = NO_MEMORY;
		else
			memcpy(mempcpy(item_value(new), item_value(first), first->n_value), item_value(second),
			       second->n_value);
	}
	s->stats[STAT_SETS]++;
	if (strcmp(answer, "STORED") == 0)
		put(s, link, new);
	else
		new = NULL;
	pthread_mutex_unlock(&s->lock);
	if (new != it)
		tg_free(it);
	return answer;
}

const char *table_count(struct table *t, const char *key, bool up, uint64_t by, uint64_t *ret_value)
{
	struct shard *s;
	struct item **link = find(t, key, strlen(key), &s), *old = *link, *it;
	const char *answer = old ? "CLIENT_ERROR cannot increment or decrement non-numeric value" : "NOT_FOUND";
	char digits[24];
	size_t n;

	if (old && cached_number(item_value(old), ret_value)) {
		*ret_value = up ? *ret_value + by : *ret_value > by ? *ret_value - by : 0;
		n = (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, *ret_value);
		it = item_new(t, old->data, old->n_key, n > old->n_value ? n : old->n_value, old->flags, old->expires_ms);
		answer = it ? NULL : NO_MEMORY;
		if (it) { /* never shorter than before: memcached pads with blanks, and clients know it */
			memset(item_value(it), ' ', it->n_value);
			memcpy(item_value(it), digits, n);
			put(s, link, it);
		}
	}
	pthread_mutex_unlock(&s->lock);
	return answer;
}

bool table_get(struct table *t, const char *key, const int64_t *expires_ms, void (*show)(void *, struct item *), void *arg)
{
	struct shard *s;
	struct item *it = *find(t, key, strlen(key), &s);

	if (it && expires_ms)
		it->expires_ms = *expires_ms;
	if (it && it != TAILQ_FIRST(&s->use)) {
		TAILQ_REMOVE(&s->use, it, use);
		TAILQ_INSERT_HEAD(&s->use, it, use);
	}
	s->stats[STAT_GETS] += show != NULL;
	s->stats[STAT_HITS] += show && it;
	if (show && it)
		show(arg, it);
	pthread_mutex_unlock(&s->lock);
	return it;
}

bool table_delete(struct table *t, const char *key)
{
	struct shard *s;
	struct item **link = find(t, key, strlen(key), &s);
	bool found = *link;

	if (found)
		put(s, link, NULL);
	pthread_mutex_unlock(&s->lock);
	return found;
}

void table_flush(struct table *t, int64_t delay_ms)
{
	int64_t now = cached_now_ms();

	for (size_t i = 0; i < N_SHARDS * N_CHAINS; i++) {
		struct shard *s = lock(t, i / N_CHAINS, true);

		for (struct item **link = &s->chains[i % N_CHAINS]; *link;) {
			if (delay_ms <= 0 || dead(t, *link, now)) /* below we forget since when it is dead */
				put(s, link, NULL);
			else
				link = &(*link)->chain;
		}
		pthread_mutex_unlock(&s->lock);
	}
	atomic_store(&t->flush_at_ms, delay_ms <= 0 ? 0 : now + delay_ms);
}

void table_stats(struct table *t, uint64_t ret_stats[N_STATS])
{
	memset(ret_stats, 0, N_STATS * sizeof(*ret_stats));
	for (size_t i = 0; i < N_SHARDS * N_STATS; i++) {
		struct shard *s = lock(t, i / N_STATS, true);

		ret_stats[i % N_STATS] += s->stats[i % N_STATS];
		pthread_mutex_unlock(&s->lock);
	}
}

struct table *table_open(void)
{
	struct table *t = tg_root_get(ROOT);
	pthread_mutexattr_t attr;
	int r;

	if (t && (tg_usable_size(t) < sizeof(*t) || t->magic != MAGIC)) {
		errno = EPROTO;
		return NULL;
	}
	if (t || errno != ENOENT || !(t = tg_calloc(1, sizeof(*t))))
		return t;
	t->magic = MAGIC;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	for (size_t i = 0; i < N_SHARDS; i++) {
		TAILQ_INIT(&t->shards[i].use);
		pthread_mutex_init(&t->shards[i].lock, &attr);
	}
	r = tg_root_cas(ROOT, NULL, t);
	if (r == 0)
		return t;
	tg_free(t);
	errno = -r;
	return r == -EAGAIN ? table_open() : NULL; /* another one was faster: take the other's */
}
