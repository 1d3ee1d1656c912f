/* process.c - the process's record and the memory that a forked child finds wiped.
 */
#include "client/process.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "client/cache.h"
#include "client/rpc.h"

__thread bool tgc_use_libc;
struct tgs_heap tgc_heap;
struct tgc_saved tgc_saved = {.socket_fd = -1};
struct tgc_process *tgc_process;

void *tgc_wiped_alloc(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		errno = ENOMEM;
		return NULL;
	}
	if (madvise(p, bytes, MADV_WIPEONFORK) < 0) {
		munmap(p, bytes);
		errno = ENOMEM;
		return NULL;
	}
	return p;
}

void tgc_wiped_free(void *p, size_t bytes)
{
	if (p)
		munmap(p, bytes);
}

bool tgc_process_init(void)
{
	struct tgc_process *none = NULL, *made;

	if (tgc_process)
		return true;
	/* No lock, which a fork in another thread could leave locked: of two threads the second lets go of its record. */
	made = tgc_wiped_alloc(sizeof(*made));
	if (made && !__atomic_compare_exchange_n(&tgc_process, &none, made, false, __ATOMIC_ACQ_REL,
						 __ATOMIC_ACQUIRE))
		tgc_wiped_free(made, sizeof(*made));
	return tgc_process != NULL;
}

bool tgc_enter(void)
{
	int r = 0, cancel_state, saved_errno;
	bool was = tgc_use_libc;

	if (TGS_LIKELY(tgc_process &&
		       atomic_load_explicit(&tgc_process->attached, memory_order_acquire)))
		return true;
	if (!tgc_process || tgc_saved.attach_count == 0) {
		errno = ENOTCONN;
		return false;
	}
	/* A forked child of a client: its record has been wiped. */
	saved_errno = errno;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	pthread_mutex_lock(&tgc_process->lock);
	tgc_use_libc = true;
	if (!atomic_load_explicit(&tgc_process->attached, memory_order_relaxed))
		r = tgc_attach_locked(true);
	tgc_use_libc = was;
	pthread_mutex_unlock(&tgc_process->lock);
	pthread_setcancelstate(cancel_state, NULL);
	if (r < 0) {
		errno = r == -ENOMEM ? ENOMEM : ENOTCONN;
		return false;
	}
	errno = saved_errno;
	return true;
}

void tgc_process_clear(void)
{
	struct tgc_cache *cache;

	atomic_store_explicit(&tgc_process->attached, 0, memory_order_release);
	atomic_store_explicit(&tgc_process->errors, 0, memory_order_relaxed);
	tgc_process->idle_pages = 0;
	/* As if they were of any cache. */
	if (tgc_process->all && tgc_process->owed)
		tgc_owed_take_over(tgc_process->all);
	/* A thread may still have its cache at hand: it stays, empty, and is the thread's again at its next call. */
	for (cache = tgc_process->all; cache; cache = cache->next_all) {
		struct tgc_cache *next_all = cache->next_all, *next_idle = cache->next_idle;

		tgc_owed_forget(cache);
		/* Zero, at the price of the pages that were used. */
		if (madvise(cache, sizeof(*cache), MADV_DONTNEED) < 0)
			memset(cache, 0, sizeof(*cache));
		cache->in_all = true;
		cache->next_all = next_all;
		cache->next_idle = next_idle;
	}
	if (tgc_process->large) {
		/* No thread has this one at hand. */
		tgc_process->large->next_idle = tgc_process->idle;
		tgc_process->idle = tgc_process->large;
		tgc_process->large = NULL;
	}
	tgc_wiped_free(tgc_process->spans, tgc_heap.geometry.n_pages * sizeof(struct tgc_span));
	tgc_process->spans = NULL;
	tgc_owns_close();
	tgs_region_unmap(&tgc_heap);
}
