/* cached.h - the parent (main.c) starts workers (worker.c), which serve from the table (table.c).
 *
 * The table lies in the shared heap.  Every worker reaches it through a root, and uses it while the
 * others do.  This file is all that the server knows of it.
 */
#pragma once

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tg.h>

#define CACHED_VERSION "0.1.0"
#define KEY_LEN_MAX    250
#define VALUE_LEN_MAX  (1024 * 1024)

/* Counted by all workers together; one that is killed in between leaves a count off by one. */
enum { TOTAL_ITEMS, CURR_ITEMS, BYTES, GET_HITS, GET_MISSES, CMD_SET, EVICTIONS, N_STATS };

/* A key and its value, which never changes: a new value is a new item.  Const once stored, but for
 * chain, used_ms and expires_ms, which are under the lock.  Times are by cached_now_ms. */
struct item {
	struct item *chain;                     /* the next one with the same bucket */
	uint64_t hash, cas;                     /* cas: the number of the store that made it */
	int64_t stored_ms, used_ms, expires_ms; /* expires_ms 0: never */
	uint32_t flags, n_value;                /* flags: the user's own number */
	uint8_t n_key;
	char data[]; /* the key, the value, a zero byte */
};
#define item_value(it) ((it)->data + (it)->n_key)

struct table;
extern _Atomic uint64_t *table_stats; /* N_STATS of them, once attached */
struct table *cached_attach(void); /* to the heap, and to the table in it; NULL: no, has said why */
/* Empties it: now, or (delay_ms > 0) of what is in it then. */
void table_flush(struct table *t, int64_t delay_ms);

/* A private item with room for the value.  Evicts others to make room; NULL: no memory even so. */
struct item *item_new(struct table *t, const char *key, size_t n_key, size_t n_value,
		      uint32_t flags, int64_t expires_ms);

/* Calls `change` with the item of the key (NULL: none), under a lock: it must be quick, and call
 * none of these but item_new.  What it returns takes the item's place: the same, NULL, a new one. */
void table_change(struct table *t, const char *key,
		  struct item *(*change)(void *arg, struct item *old), void *arg);

int64_t cached_now_ms(void); /* since boot: the same in all processes, and nobody sets it back */
/* A number as memcached reads it: after it a blank and anything may come. */
bool cached_number(const char *s, uint64_t *ret_value);
int cached_worker(int listen_fd, int n_workers); /* until SIGTERM; returns the exit status */
