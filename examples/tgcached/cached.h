/* cached.h - the parent (main.c) starts workers (worker.c), which serve from the table (table.c).
 *
 * The table lies in the shared heap.  Every worker reaches it through a root, and uses it while the
 * others do.  This file is all that the server knows of it.
 */
#pragma once

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tg.h>

#define CACHED_VERSION "0.2.0"
#define KEY_LEN_MAX    250
#define VALUE_LEN_MAX  (1024 * 1024)

/* What is counted, and (from CURR_ITEMS on) what is found by walking through the table. */
enum { TOTAL_ITEMS, GET_HITS, GET_MISSES, CMD_SET, EVICTIONS, CURR_ITEMS, BYTES, OBJECTS, N_STATS };

/* A key and its value.  Times are by cached_now_ms. */
struct item {
	uint64_t cas;                  /* the number of the store that made it */
	int64_t stored_ms, expires_ms; /* expires_ms 0: never */
	uint32_t flags, n_value;       /* flags: the user's own number */
	uint8_t n_key;
	char data[]; /* the key, the value, a zero byte */
};
#define item_value(it) ((it)->data + (it)->n_key)

/* A private item, with room for the value, in place of the one at *it, which is freed. */
struct item *item_new(struct item **it, const char *key, size_t n_key, size_t n_value,
		      uint32_t flags, int64_t expires_ms);

/* Gets a private copy of the key's item (NULL: none), valid until the table is used again.  What it
 * returns is copied to the item's place: the same, perhaps with another time to expire; a new one;
 * NULL: none.  Called again if another process was faster: then what it did before was in vain. */
typedef struct item *change_fn(void *arg, struct item *old);

struct table;
struct table *cached_attach(void); /* to the heap, and to the table in it; NULL: no, has said why */
/* Evicts others to make room.  False: no memory even so; nothing was changed. */
bool table_change(struct table *t, const char *key, change_fn *change, void *arg);
/* Empties it: now, or (delay_ms > 0) of what is in it then. */
void table_flush(struct table *t, int64_t delay_ms);
extern _Atomic uint64_t *table_counts; /* of what this process did, once attached */
void table_stats(const struct table *t, uint64_t ret_stats[N_STATS]);

int64_t cached_now_ms(void); /* since boot: the same in all processes, and nobody sets it back */
/* A number as memcached reads it: after it a blank and anything may come. */
bool cached_number(const char *s, uint64_t *ret_value);
/* When an item dies.  0: never; negative: at once; up to 30 days: from now; more: since 1970.  False: no number. */
bool cached_expiry(const char *word, int64_t *ret_ms);
int cached_worker(int listen_fd, int n_workers); /* until SIGTERM; returns the exit status */
