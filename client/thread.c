/* thread.c - a thread's cache from its first call to its end.
 *
 * When a thread ends, its cache is kept, slot and partly used spans and all, for the next thread that comes: no slot is
 * opened and closed with each, and objects stay in spans that their own process holds.  What is empty is kept, too, if
 * all such caches together have not much: the next thread would ask for it again.  Else it is given back.
 */
#include <errno.h>
#include <pthread.h>

#include "client/cache.h"
#include "client/prefetch.h"
#include "client/rpc.h"

/* So much may the caches of threads that have ended keep empty, together. */
#define IDLE_PAGES_MAX 256u

static pthread_key_t thread_key;
static pthread_once_t thread_key_once = PTHREAD_ONCE_INIT;
static int thread_key_error;
static __thread bool ended;

/* A cache that is new, or that a fork has wiped, is not in the process's list. */
static void list_cache(struct tgc_cache *cache)
{
	if (cache->in_all)
		return;
	pthread_mutex_lock(&tgc_process->lock);
	cache->in_all = true;
	cache->next_all = atomic_load_explicit(&tgc_process->all, memory_order_relaxed);
	atomic_store_explicit(&tgc_process->all, cache, memory_order_release);
	pthread_mutex_unlock(&tgc_process->lock);
}

static void push_idle(struct tgc_cache *cache)
{
	pthread_mutex_lock(&tgc_process->lock);
	cache->next_idle = tgc_process->idle;
	tgc_process->idle = cache;
	tgc_process->idle_pages += cache->empty_pages;
	pthread_mutex_unlock(&tgc_process->lock);
}

/* May one more cache keep what it has empty?  Two threads that end at once may both be told so. */
static bool may_keep(const struct tgc_cache *cache)
{
	uint64_t kept;

	pthread_mutex_lock(&tgc_process->lock);
	kept = tgc_process->idle_pages;
	pthread_mutex_unlock(&tgc_process->lock);
	return kept + cache->empty_pages <= IDLE_PAGES_MAX;
}

/* What others wait for, or would have to come for. */
static void settle(struct tgc_cache *cache)
{
	tgc_foreign_flush(cache);
	tgc_cache_drain(cache);
	tgc_prefetch_settle(cache);
	tgc_large_unload(cache);
}

static void park(struct tgc_cache *cache)
{
	unsigned class;

	tgc_cache = tgc_no_cache();
	if (!tgc_process)
		return;
	if (cache->slot_id != 0) {
		/* A thread that takes a cache over begins with what is in spans.  What is in other threads' spans is
		 * theirs again. */
		tgc_tiny_unload(cache);
		for (class = 1; class < TGS_CLASSES_ALL; class += 1)
			tgc_bin_unload(cache, class);
		settle(cache);
		if (!may_keep(cache))
			tgc_return_all(cache);
	}
	list_cache(cache);
	push_idle(cache);
}

/* The thread ends.  In a forked child, or after tg_detach, the cache may have lost its slot: then there is nothing to do
 * but to keep the memory. */
static void thread_ends(void *arg)
{
	ended = true;
	park(arg);
}

void tgc_cache_return_late(void)
{
	struct tgc_cache *cache = tgc_cache;

	if (TGS_LIKELY(!ended) || cache == tgc_no_cache())
		return;
	(void)pthread_setspecific(thread_key, NULL);
	park(cache);
}

static void make_thread_key(void)
{
	thread_key_error = pthread_key_create(&thread_key, thread_ends);
}

static void take_slot(struct tgc_cache *cache, uint32_t slot_id)
{
	cache->slot = &tgc_heap.slots[slot_id];
	cache->pressure_seen =
		atomic_load_explicit(&tgc_heap.map->trim_epoch, memory_order_relaxed);
	cache->trim_seen = atomic_load_explicit(&tgc_process->trim_request, memory_order_relaxed);
	cache->agreed = tgc_rpc_reconnects();
	tgc_bins_init(cache);
	cache->owner_bits = (uint64_t)slot_id << TGS_ENTRY_OWNER_SHIFT;
	cache->slot_id = slot_id;
}

/* The slot is the cache's before another thread can ask for one: whoever looks for slots that nobody knows of, with the
 * connection in his hands, knows all. */
static int open_slot(struct tgc_cache *cache, bool of_thread)
{
	Tgd__OpenSlot body = TGD__OPEN_SLOT__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	const Tgd__Reply *reply;
	uint64_t before;
	uint32_t first;
	int r;

	request.body_case = TGD__REQUEST__BODY_OPEN_SLOT;
	request.open_slot = &body;
	tgc_rpc_begin();
	first = of_thread ? tgc_first_slot() : 0;
	if (first != 0) {
		take_slot(cache, first);
		tgc_first_take(cache);
		tgc_rpc_end();
		return 0;
	}
	before = tgc_rpc_reconnects();
	r = tgc_rpc_call(&request, TGD__REPLY__BODY_SLOT, &reply);
	if (r == 0 && (reply->slot->slot <= TGS_SLOT_CENTRAL || reply->slot->slot >= TGS_SLOTS_MAX))
		r = -EPROTO;
	if (r == 0)
		take_slot(cache, reply->slot->slot);
	if (tgc_rpc_reconnects() != before || tgc_first_lost())
		tgc_agree_slots();
	tgc_rpc_end();
	return r;
}

/* `bare`: only one without a slot, and so without anything of a thread that has ended. */
static struct tgc_cache *pop_idle(bool bare)
{
	struct tgc_cache *cache;

	pthread_mutex_lock(&tgc_process->lock);
	cache = tgc_process->idle;
	if (cache && bare && cache->slot_id != 0)
		cache = NULL;
	if (cache) {
		tgc_process->idle = cache->next_idle;
		tgc_process->idle_pages -= cache->empty_pages;
		cache->next_idle = NULL;
	}
	pthread_mutex_unlock(&tgc_process->lock);
	return cache;
}

struct tgc_cache *tgc_cache_open(struct tgc_cache *reuse, bool of_thread)
{
	struct tgc_cache *cache = reuse ? reuse : pop_idle(true);
	int r;

	if (!cache)
		cache = tgc_wiped_alloc(sizeof(*cache));
	if (!cache)
		return NULL;
	list_cache(cache);
	if (cache->slot_id != 0)
		return cache;
	r = open_slot(cache, of_thread);
	if (r < 0) {
		if (cache != tgc_cache)
			push_idle(cache);
		errno = tgc_alloc_errno(r);
		return NULL;
	}
	return cache;
}

struct tgc_cache *tgc_cache_get(void)
{
	struct tgc_cache *cache = tgc_cache;
	bool fresh;

	if (TGS_LIKELY(cache->slot_id != 0))
		return cache;
	if (!tgc_enter())
		return NULL;
	pthread_once(&thread_key_once, make_thread_key);
	if (thread_key_error != 0) {
		errno = ENOMEM;
		return NULL;
	}
	/* A cache of this thread that was wiped (fork) or emptied (detach) is used again. */
	fresh = cache == tgc_no_cache();
	cache = tgc_cache_open(fresh ? pop_idle(false) : cache, true);
	if (!cache)
		return NULL;
	tgc_cache = cache;
	if (fresh)
		(void)pthread_setspecific(thread_key, cache);
	return cache;
}

void tgc_cache_give_back(struct tgc_cache *cache)
{
	settle(cache);
	tgc_return_all(cache);
}
