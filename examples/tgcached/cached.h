/* tgcached's own interface: the parent (main.c) starts workers (worker.c), which serve items from the table (table.c).
 *
 * The table lies in the shared heap.  Every worker reaches the same one through a root and calls it while the others
 * do.  No call waits for the network, and none hands out an item that another worker could free: what is found is
 * shown to a callback under a lock.  Answers are those of memcached's protocol.
 */
#pragma once

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include <tg.h>

#define KEY_LEN_MAX 250
#define VALUE_LEN_MAX (1024 * 1024)
#define NO_MEMORY "SERVER_ERROR out of memory storing object"

struct table;

/* One key and its value, which never changes: a new value is a new item.  Const once stored, but for `chain`, `use`
 * and `expires_ms`, which change under the lock. */
struct item {
	struct item *chain;      /* the next one with the same bucket */
	TAILQ_ENTRY(item) use;   /* neighbours in the order of use */
	uint64_t hash, cas;      /* cas: the number of the store that made it */
	int64_t stored_ms;
	int64_t expires_ms;      /* by cached_now_ms; 0: never */
	uint32_t flags, n_value; /* flags: the user's own number */
	uint8_t n_key;
	char data[];             /* the key, the value, a zero byte */
};

enum how { HOW_SET, HOW_ADD, HOW_REPLACE, HOW_CAS, HOW_APPEND, HOW_PREPEND };
enum { STAT_ITEMS, STAT_BYTES, STAT_TOTAL, STAT_GETS, STAT_HITS, STAT_SETS, STAT_EVICTIONS, N_STATS };

/* The table; made if there is none.  NULL: errno (EPROTO: the root leads to something else or another version's). */
struct table *table_open(void);
/* A private item with room for the value at item_value(); ends in table_store or tg_free.  Evicts others to make room.
 * NULL: no memory even so. */
struct item *item_new(struct table *t, const char *key, size_t n_key, size_t n_value, uint32_t flags, int64_t expires_ms);
static inline char *item_value(struct item *it)
{
	return it->data + it->n_key;
}
/* Stores the item or frees it.  Returns the answer.  `cas` counts for HOW_CAS. */
const char *table_store(struct table *t, struct item *it, enum how how, uint64_t cas);
/* Adds to (wraps at 2^64) or subtracts from (stops at 0) a value that is a decimal number.  NULL, or the answer. */
const char *table_count(struct table *t, const char *key, bool up, uint64_t by, uint64_t *ret_value);
/* Shows the item to `show` (NULL: nobody), which must not call the table.  First sets the expiry if there is one. */
bool table_get(struct table *t, const char *key, const int64_t *expires_ms, void (*show)(void *, struct item *), void *arg);
bool table_delete(struct table *t, const char *key);
/* Empties the table: now, or (delay_ms > 0) of what is in it then. */
void table_flush(struct table *t, int64_t delay_ms);
void table_stats(struct table *t, uint64_t ret_stats[N_STATS]);

int64_t cached_now_ms(void); /* since boot: the same in all processes, and nobody sets it back */
/* A number as memcached reads it: blanks may stand before it, and a blank and anything after it. */
bool cached_number(const char *s, uint64_t *ret_value);
struct table *cached_attach(void); /* NULL: said why */
int cached_worker(int listen_fd, int n_workers); /* serves until SIGTERM; returns the exit status */
