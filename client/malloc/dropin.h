/* dropin.h - what the files of libtgmalloc.so share.
 *
 * A pointer's address says whose it is: in the heap's range ours, else the C library's.  So the C
 * library's own allocator, by its __libc_ names, serves whatever cannot be served from the heap:
 * calls before the process can attach, calls made while this thread is inside libtg, and all
 * calls when there is no daemon.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "client/process.h"

/* Exported by the GNU C library for this very purpose. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *object, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *object);

/* start.c: after an allocation from the heap failed with errno: attaches if that was never
 * tried. */
enum tgc_next { TGC_NEXT_RETRY, TGC_NEXT_LIBC, TGC_NEXT_FAIL };
TGS_COLD enum tgc_next tgc_dropin_failed(void);

/* keep.c: the function of that name that would be called without us.  NULL if there is none. */
void *tgc_next_function(const char *name);

/* One line on standard error.  Allocates nothing. */
TGS_COLD void tgc_dropin_say(const char *what, const char *why);

/* fork.c: called once, under tgc_dropin_lock: before the process attaches, and after it has.
 * 0 or -errno. */
void tgc_fork_init(void);
int tgc_fork_ready(void);

/* Held while attaching and while forking. */
extern pthread_mutex_t tgc_dropin_lock;

/* In a forked child: one entry a page of the heap; not 0: the page is a private copy of what the
 * parent had there.  NULL in a process that has none. */
extern uint64_t *tgc_inherited;

/* Is p in a private copy? */
static inline bool tgc_is_inherited(const void *p)
{
	uint64_t at = (uint64_t)((const uint8_t *)p - tgc_heap.data);

	return tgc_inherited && at < tgc_heap.data_bytes &&
	       tgc_inherited[at >> TGS_PAGE_SHIFT] != 0;
}

/* Usable bytes of an inherited object; 0 if none starts there. */
size_t tgc_inherited_size(const void *p);

/* In a forked child: does p, in the heap and not inherited, lie in a span of another process? */
bool tgc_is_strange(const void *p);

static inline bool tgc_in_heap(const void *p)
{
	return (uint64_t)((const uint8_t *)p - tgc_heap.data) < tgc_heap.data_bytes;
}
