/* peer-apr.c - APR's relocatable memory management (apr_rmm) in anonymous shared memory, under a process mutex of APR's
 * default kind, as a server with several processes has to use it.
 */
#include "bench/tgbench/peer.h"

#include <apr_general.h>
#include <apr_proc_mutex.h>
#include <apr_rmm.h>
#include <apr_shm.h>

static apr_pool_t *pool;
static apr_proc_mutex_t *mutex;
static apr_anylock_t lock;
static apr_rmm_t *heap;

const char *tgb_peer_open(size_t bytes)
{
	apr_shm_t *segment;

	if (apr_initialize() != APR_SUCCESS || apr_pool_create(&pool, NULL) != APR_SUCCESS)
		return "APR does not start";
	if (apr_shm_create(&segment, bytes, NULL, pool) != APR_SUCCESS)
		return "no shared memory";
	if (apr_proc_mutex_create(&mutex, NULL, APR_LOCK_DEFAULT, pool) != APR_SUCCESS)
		return "no process mutex";
	lock.type = apr_anylock_procmutex;
	lock.lock.pm = mutex;
	if (apr_rmm_init(&heap, &lock, apr_shm_baseaddr_get(segment), apr_shm_size_get(segment),
			 pool) != APR_SUCCESS)
		return "no apr_rmm in it";
	return NULL;
}

void tgb_peer_open_child(void)
{
	apr_proc_mutex_child_init(&mutex, NULL, pool);
}

/* Offset 0 is none. */
void *tgb_peer_malloc(size_t size)
{
	apr_rmm_off_t at = apr_rmm_malloc(heap, size);

	return at != 0 ? apr_rmm_addr_get(heap, at) : NULL;
}

void tgb_peer_free(void *object)
{
	if (object != NULL)
		apr_rmm_free(heap, apr_rmm_offset_get(heap, object));
}
