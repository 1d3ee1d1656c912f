/* tgcached's own interface: the parent starts workers, a worker serves connections from the table.
 *
 * The table is one hash table in the shared heap.  Every worker reaches it through the root "tgcached" and calls it
 * while the others do.  No call waits for the network, and none hands out an item that another worker could free: what
 * is found is shown to a callback under a lock.  This file is all that the server knows of the table.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#define TABLE_KEY_MAX 250
#define TABLE_VALUE_MAX (1024 * 1024)

struct table;

/* One key and its value, which never changes: a new value is a new item.  Const once stored, but for the first three
 * and expires_ms: those change under the lock. */
struct item {
	struct item *chain;      /* the next one with the same bucket */
	TAILQ_ENTRY(item) use;   /* neighbours in the order of use */
	uint64_t hash, cas;      /* cas: the number of the store that made it */
	int64_t stored_ms, expires_ms; /* ms since boot; expires_ms 0: never */
	uint32_t flags, n_value; /* flags: the user's own number */
	uint8_t n_key;
	char data[];             /* the key, the value, a zero byte */
};

enum table_how { TABLE_SET, TABLE_ADD, TABLE_REPLACE, TABLE_CAS, TABLE_APPEND, TABLE_PREPEND };
enum table_result { TABLE_STORED, TABLE_NOT_STORED, TABLE_EXISTS, TABLE_NOT_FOUND, TABLE_NO_MEMORY, TABLE_NO_NUMBER };
enum { TABLE_ITEMS, TABLE_BYTES, TABLE_TOTAL, TABLE_GETS, TABLE_HITS, TABLE_SETS, TABLE_EVICTIONS, TABLE_N_STATS };

/* The table; made if there is none.  NULL: errno (EPROTO: the root leads to something else, or to another version). */
struct table *table_open(void);

/* A private item with room for the value at item_value(); ends in table_store or tg_free.  Evicts others to make room.
 * NULL: no memory even so. */
struct item *item_new(struct table *t, const char *key, size_t n_key, size_t n_value);
static inline char *item_value(struct item *it)
{
	return it->data + it->n_key;
}

/* Stores the item, or frees it and says why not.  `cas` counts for TABLE_CAS. */
enum table_result table_store(struct table *t, struct item *it, enum table_how how, uint64_t cas);
/* Adds to (wraps at 2^64) or subtracts from (stops at 0) a value that is a decimal number. */
enum table_result table_count(struct table *t, const char *key, size_t n, bool up, uint64_t by, uint64_t *ret_value);
/* Shows the item to `show` (NULL: nobody), which must not call the table.  First sets the expiry if there is one. */
bool table_get(struct table *t, const char *key, size_t n, const int64_t *expires_ms,
	       void (*show)(void *arg, struct item *it), void *arg);
bool table_delete(struct table *t, const char *key, size_t n);
/* Empties the table: now, or (delay_ms > 0) of what is in it then. */
void table_flush(struct table *t, int64_t delay_ms);
void table_stats(struct table *t, bool reset, uint64_t ret_stats[TABLE_N_STATS]);

int64_t cached_now_ms(void); /* since boot: the same in all processes, and nobody sets it back */
/* A number as memcached reads it: blanks may stand before it, and a blank and anything after it. */
bool cached_number(const char *s, uint64_t *ret_value);
/* What a worker process does until SIGTERM; returns its exit status. */
int cached_worker(int listen_fd, int n_workers);
