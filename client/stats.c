/* stats.c - what this process holds and has done, and giving back what it only caches.
 */
#include "client/tg.h"

#include <errno.h>
#include <string.h>

#include "client/cache.h"
#include "client/rpc.h"

/* Counts one cache.  Its thread may be at work: what is read may be off by what it does meanwhile, no more. */
static void count_cache(const struct tgc_cache *cache, struct tg_stats *stats)
{
	if (cache->slot_id == 0)
		return;
	stats->threads++;
	stats->spans += cache->n_spans;
	stats->span_bytes += cache->n_pages * TGS_PAGE_SIZE;
	stats->foreign_frees += atomic_load_explicit(&cache->foreign_frees, memory_order_relaxed);
	stats->pending_frees += tgc_foreign_pending(cache);
	stats->cached_bytes += (cache->empty_pages + tgc_large_hinted_pages(cache)) * TGS_PAGE_SIZE;
}

TG_API int tg_stats(struct tg_stats *stats)
{
	struct tg_stats all = {.size = sizeof(all)};
	struct tgc_cache *cache;

	if (!stats || stats->size < sizeof(size_t))
		return -EINVAL;
	if (!tgc_enter())
		return -errno;
	pthread_mutex_lock(&tgc_process->lock);
	for (cache = tgc_process->all; cache; cache = cache->next_all) {
		if (cache == tgc_process->large) {
			all.spans += cache->n_spans;
			all.span_bytes += cache->n_pages * TGS_PAGE_SIZE;
			all.cached_bytes += cache->empty_pages * TGS_PAGE_SIZE;
		} else {
			count_cache(cache, &all);
		}
	}
	pthread_mutex_unlock(&tgc_process->lock);
	all.pending_frees += tgc_process->n_owed;
	all.messages = tgc_rpc_messages();
	all.reconnects = tgc_rpc_reconnects();
	all.errors = atomic_load_explicit(&tgc_process->errors, memory_order_relaxed);
	if (stats->size < all.size)
		all.size = stats->size;
	memcpy(stats, &all, all.size);
	return 0;
}

/* Takes a cache of a thread that has ended out of the list, if it was not looked at in this round yet. */
static struct tgc_cache *take_idle(uint64_t round)
{
	struct tgc_cache **where = &tgc_process->idle, *cache;

	while (*where && (*where)->idle_round >= round)
		where = &(*where)->next_idle;
	cache = *where;
	if (cache) {
		*where = cache->next_idle;
		tgc_process->idle_pages -= cache->empty_pages;
		cache->idle_round = round;
	}
	return cache;
}

/* The caches of threads that have ended: nobody else works on one that is out of the list.  One at a time: a thread that
 * begins meanwhile must find the others, or it would open one more. */
void tgc_idle_give_back(void)
{
	struct tgc_cache *cache;
	uint64_t round;

	pthread_mutex_lock(&tgc_process->lock);
	round = ++tgc_process->idle_rounds;
	while ((cache = take_idle(round))) {
		pthread_mutex_unlock(&tgc_process->lock);
		if (cache->slot_id != 0)
			tgc_cache_give_back(cache);
		pthread_mutex_lock(&tgc_process->lock);
		cache->next_idle = tgc_process->idle;
		tgc_process->idle = cache;
		tgc_process->idle_pages += cache->empty_pages;
	}
	pthread_mutex_unlock(&tgc_process->lock);
}

TG_API int tg_trim(void)
{
	struct tgc_cache *cache;

	if (!tgc_enter())
		return -errno;
	atomic_fetch_add_explicit(&tgc_process->trim_request, 1, memory_order_relaxed);
	cache = tgc_cache;
	if (cache->slot_id != 0) {
		tgc_cache_give_back(cache);
		cache->trim_seen =
			atomic_load_explicit(&tgc_process->trim_request, memory_order_relaxed);
	}
	tgc_idle_give_back();
	tgc_large_trim();
	return 0;
}
