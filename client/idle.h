/* idle.h - large spans that the process keeps for its next large objects.  All but the lock itself under the large lock. */
#pragma once

#include <stdint.h>

#include "client/cache.h"

/* large.c: the large cache, made if need be.  NULL with errno: no lock was taken. */
struct tgc_cache *tgc_large_lock(void);
void tgc_large_unlock(void);

/* A span that holds nothing is kept; or what that makes too much goes back. */
void tgc_idle_add(struct tgc_cache *large, struct tgc_span *span);
void tgc_idle_remove(struct tgc_cache *large, struct tgc_span *span);

/* So much longer than an object may its span be. */
uint64_t tgc_idle_waste(uint64_t n_pages);

/* The number of the list for spans of this length. */
unsigned tgc_idle_list(uint64_t n_pages);

/* One that has room for n_pages and does not waste more than that, of those of its length the one freed last; NULL. */
struct tgc_span *tgc_idle_find(const struct tgc_cache *large, uint64_t n_pages,
			       uint64_t align_pages);

/* Gives back the ones freed longest ago until the rest has no more than so many pages. */
void tgc_idle_shrink(struct tgc_cache *large, uint64_t pages_max);

/* Gives back what is more than may be kept. */
void tgc_idle_settle(struct tgc_cache *large);

/* So much may lie idle, hints included, when none fits an object of n_pages, which is to come from the daemon: the size of
 * that object, an eighth of what is in use, or half a megabyte. */
uint64_t tgc_idle_most(uint64_t in_use, uint64_t n_pages);

/* large-get.c: a span from the daemon; more that come with it are idle ones.  0 or -errno.  Under the lock. */
int tgc_large_get(struct tgc_cache *large, uint64_t n_pages, uint64_t align_pages,
		  struct tgc_span **ret);
