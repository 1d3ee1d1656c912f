/* table.c - the items: an array of links, each to a bucket that never changes.
 *
 * A bucket is one object with all items whose keys fall there, one on average.  To change anything
 * is to make another bucket, in private, and to swing the link to it by one tg_swap_seen, which at
 * once makes it the heap's (TG_GIVE) and frees the old one (TG_RETIRE).  There is no lock to die
 * with and nothing to repair: killed anywhere, a worker leaves the old bucket or the new one, and no
 * memory besides.  One that is stopped holds nothing that another one could wait for.
 *
 * The price: another worker may free a bucket while we look at it.  The memory stays mapped, so to
 * read it does no harm, but what we read may mean nothing.  So all here look at a bucket like this:
 * read the link, copy from the bucket, read the link again.  Is it unchanged?  Then the bucket was
 * not freed before, and the copy is good.  Else start again, and believe nothing, not even the size.
 * README.md tells why the same address is not enough, and what is.
 */
#include "cached.h"

#include <ctype.h>
#include <stddef.h>
#include <unistd.h>

#define ROOT         "tgcached"
#define MAGIC        0x3265686361636774  /* "tgcache2": changes with the layout of anything here */
#define N_SLOTS      (256 * 1024)        /* 4 MiB; a power of two */
#define N_COUNTERS   64                  /* so that hardly two workers wait for one cache line */
#define BUCKET_MAX   (4 * VALUE_LEN_MAX) /* beyond it a new item drives all others out */
#define SAMPLE       16
#define EVICT_BATCH  (64 * 1024) /* bytes: to ask for memory again costs a message to the daemon */
#define EVICT_ROUNDS 10

/* Const once a link leads to it. */
struct bucket {
	uint64_t number;        /* no other bucket ever has it */
	uint32_t size, n_items; /* bytes, with this header */
	struct item items[];    /* the newest first; each is 8-aligned */
};

struct table {
	uint64_t magic;              /* const once published */
	_Atomic int64_t flushed_ms;  /* W: any (rises)   R: any   what was stored before is dead */
	_Atomic int64_t flush_at_ms; /* W: any   R: any   the same, from then on; 0: never */
	struct {
		_Alignas(64) _Atomic uint64_t last_number, stats[CURR_ITEMS];
	} counters[N_COUNTERS]; /* W: any (add), mostly one   R: any */
	struct slot {
		tg_link link;             /* to a bucket; null: no items */
		_Atomic uint32_t used_ms; /* W: any   R: any   when it last was, low bits */
	} slots[N_SLOTS];
};

static const struct bucket empty = {.size = sizeof(empty)}; /* stands for none */
static unsigned counter, hand; /* which one is ours; where the next sample is taken */
_Atomic uint64_t *table_counts;

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

bool cached_expiry(const char *word, int64_t *ret_ms)
{
	bool past = word[0] == '-';
	uint64_t s, now = (uint64_t)time(NULL);

	if (!cached_number(word + past, &s) || s > INT64_MAX)
		return false;
	past = (past && s) || (s > 30 * 24 * 3600 && s <= now);
	s -= s > 30 * 24 * 3600 && !past ? now : 0;
	*ret_ms = past; /* 1 is long ago */
	if (!past && s)
		*ret_ms = cached_now_ms() + (int64_t)(s < UINT32_MAX ? s : UINT32_MAX) * 1000;
	return true;
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

struct item *item_new(struct item **it, const char *key, size_t n_key, size_t n_value,
		      uint32_t flags, int64_t expires_ms)
{
	free(*it);
	*it = calloc(1, sizeof(**it) + n_key + n_value + 1);
	**it = (struct item){.expires_ms = expires_ms, .flags = flags};
	(*it)->n_value = (uint32_t)n_value;
	(*it)->n_key = (uint8_t)n_key;
	memcpy((*it)->data, key, n_key);
	return *it;
}

/* In a bucket; NULL: 0. */
static size_t size_of(const struct item *it)
{
	return it ? (offsetof(struct item, data) + it->n_key + it->n_value + 1 + 7) / 8 * 8 : 0;
}

static struct item *next(const struct item *it)
{
	return (struct item *)((char *)it + size_of(it));
}

/* What a link said, the bucket there, and a copy of its head. */
struct look {
	uint64_t word;
	const struct bucket *there;
	struct bucket head;
};

/* Whether all that was read of the bucket so far is true.  The link comes first: if it was swung
 * away and back, a new bucket is there, and by then has its own number. */
static bool unchanged(const struct slot *slot, const struct look *look)
{
	atomic_thread_fence(memory_order_acquire); /* after what was read */
	return tg_link_look(&slot->link, NULL) == look->word &&
	       look->there->number == look->head.number;
}

static void look_at(const struct slot *slot, struct look *ret)
{
	void *there;

	do {
		ret->word = tg_link_look(&slot->link, &there);
		ret->there = there ? there : &empty;
		ret->head = *ret->there;
	} while (!unchanged(slot, ret));
}

/* A private copy of the bucket, valid until the next call. */
static struct bucket *copy_of(const struct slot *slot, struct look *ret_look)
{
	static struct bucket *copy;
	static size_t room;

	do {
		look_at(slot, ret_look);
		if (ret_look->head.size > room) {
			room = 2 * (size_t)ret_look->head.size;
			free(copy);
			copy = malloc(room);
		}
		memcpy(copy, ret_look->there, ret_look->head.size);
	} while (!unchanged(slot, ret_look));
	return copy;
}

/* Empties the least recently used of a sample of slots, but not `except`; how many bytes that were.
 * 0: there was nothing.  1 also if another one was faster. */
static size_t evict_one(struct table *t, const struct slot *except)
{
	struct slot *oldest = NULL;
	uint32_t now = (uint32_t)cached_now_ms();
	struct look look;

	for (size_t i = 0, seen = 0; i < N_SLOTS && seen < SAMPLE; i++) {
		struct slot *slot = &t->slots[hand++ % N_SLOTS];

		if (slot == except || !tg_link_get(&slot->link))
			continue;
		seen++;
		if (!oldest || (int32_t)(now - slot->used_ms) > (int32_t)(now - oldest->used_ms))
			oldest = slot;
	}
	if (!oldest)
		return 0;
	look_at(oldest, &look);
	if (!tg_swap_seen(&oldest->link, look.word, NULL, TG_RETIRE))
		return errno == 0;
	table_counts[EVICTIONS] += look.head.n_items;
	return look.head.size;
}

static struct bucket *new_bucket(struct table *t, const struct slot *slot, size_t size)
{
	size_t batch = size > EVICT_BATCH ? size : EVICT_BATCH;
	struct bucket *b = tg_malloc(size);

	/* What is evicted may lie scattered, so each round takes twice as much. */
	for (int i = 0; !b && errno != ENOTCONN && i < EVICT_ROUNDS; i++, batch *= 2) {
		for (size_t freed = 0, n = 1; n != 0 && freed < batch; freed += n)
			n = evict_one(t, slot);
		tg_trim(); /* hands over what lies in other workers' spans, gives empty ones back */
		b = tg_malloc(size);
	}
	if (b) {
		b->number = ++t->counters[counter].last_number * N_COUNTERS + counter;
		b->size = (uint32_t)size;
		b->n_items = 0;
	}
	return b;
}

/* Adds an item at the end; the end after it. */
static struct item *add(struct bucket *b, struct item *end, const struct item *it)
{
	b->n_items++;
	return next(memcpy(end, it, size_of(it)));
}

static bool is_dead(struct table *t, const struct item *it, int64_t now)
{
	return (it->expires_ms != 0 && it->expires_ms <= now) || it->stored_ms < t->flushed_ms ||
	       (t->flush_at_ms <= now && it->stored_ms < t->flush_at_ms);
}

static struct item *find(struct bucket *b, const char *key)
{
	struct item *it = b->items;

	for (uint32_t i = 0; i < b->n_items; i++, it = next(it)) {
		if (it->n_key == strlen(key) && memcmp(it->data, key, it->n_key) == 0)
			return it;
	}
	return NULL;
}

/* One try.  False with errno: it cannot be done; with 0: another one was faster. */
static bool try_change(struct table *t, struct slot *slot, const char *key, change_fn *change,
		       void *arg)
{
	struct look look;
	struct bucket *copy = copy_of(slot, &look), *b = NULL;
	struct item *it = copy->items, *found = find(copy, key), *old, *put, *end;
	size_t others = copy->size - size_of(found);
	int64_t now = cached_now_ms(), expires_ms;
	int error;

	old = found && !is_dead(t, found, now) ? found : NULL;
	expires_ms = old ? old->expires_ms : 0;
	put = change(arg, old);
	if ((old || put) && slot->used_ms != (uint32_t)now)
		slot->used_ms = (uint32_t)now;
	if (put == old && (old ? old->expires_ms == expires_ms : !found))
		return true; /* but what is found dead goes */
	if (others + size_of(put) > BUCKET_MAX) {
		others = sizeof(*b);
		copy->n_items = 0;
	}
	if (others + size_of(put) > sizeof(*b))
		b = new_bucket(t, slot, others + size_of(put));
	if (put && !b)
		return false;
	if (put && put != old) {
		put->cas = b->number;
		put->stored_ms = now;
	}
	if (b) { /* else all go, as to remove something must need no memory */
		end = put ? add(b, b->items, put) : b->items;
		for (uint32_t i = 0; i < copy->n_items; i++, it = next(it))
			end = it != found ? add(b, end, it) : end;
	}
	if (tg_swap_seen(&slot->link, look.word, b, TG_GIVE | TG_RETIRE)) {
		table_counts[TOTAL_ITEMS] += put && put != old;
		return true;
	}
	error = errno;
	tg_free(b);
	errno = error;
	return false;
}

bool table_change(struct table *t, const char *key, change_fn *change, void *arg)
{
	struct slot *slot = &t->slots[hash_of(key, strlen(key)) % N_SLOTS];

	while (!try_change(t, slot, key, change, arg)) {
		if (errno != 0)
			return false;
	}
	return true;
}

void table_flush(struct table *t, int64_t delay_ms)
{
	int64_t now = cached_now_ms(), flush_at = t->flush_at_ms, flushed = t->flushed_ms;
	struct look look;

	/* What is dead by now stays so. */
	while (delay_ms > 0 && flush_at <= now && flushed < flush_at &&
	       !atomic_compare_exchange_weak(&t->flushed_ms, &flushed, flush_at))
		;
	for (size_t i = 0; delay_ms <= 0 && i < N_SLOTS; i++) {
		do
			look_at(&t->slots[i], &look);
		while (look.there != &empty &&
		       !tg_swap_seen(&t->slots[i].link, look.word, NULL, TG_RETIRE) && errno == 0);
	}
	t->flush_at_ms = delay_ms > 0 ? now + delay_ms : 0;
}

void table_stats(const struct table *t, uint64_t ret_stats[N_STATS])
{
	struct look look;

	memset(ret_stats, 0, N_STATS * sizeof(*ret_stats));
	for (int i = 0; i < N_COUNTERS * CURR_ITEMS; i++)
		ret_stats[i % CURR_ITEMS] += t->counters[i / CURR_ITEMS].stats[i % CURR_ITEMS];
	for (size_t i = 0; i < N_SLOTS; i++) {
		look_at(&t->slots[i], &look);
		ret_stats[CURR_ITEMS] += look.head.n_items;
		ret_stats[BYTES] += look.there == &empty ? 0 : look.head.size;
		ret_stats[OBJECTS] += look.there != &empty;
	}
	ret_stats[OBJECTS]++; /* the table */
}

struct table *cached_attach(void)
{
	/* RECLAIM: what a killed worker had made and not yet given to the table goes with it. */
	struct tg_options options = {
		.size = sizeof(options), .name = "tgcached", .flags = TG_RECLAIM};
	struct table *t;

	if (tg_attach(&options) < 0) {
		fprintf(stderr, "tgcached: %s\n", tg_attach_error());
		return NULL;
	}
	t = tg_root_get(ROOT);
	if (!t && errno == ENOENT && (t = tg_calloc(1, sizeof(*t)))) {
		t->magic = MAGIC;
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
	counter = (unsigned)getpid() % N_COUNTERS;
	hand = counter * (N_SLOTS / N_COUNTERS);
	table_counts = t->counters[counter].stats;
	return t;
}
