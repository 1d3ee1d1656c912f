/* alloc.h - whom the workloads measure: the same source is compiled once for each of these.
 *
 * All calls are plain calls of functions that lie elsewhere (in a shared library, for the private allocators and for
 * libtg): nobody is inlined into the loop, and nobody's calls are folded (see local.mk: -fno-builtin-malloc).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#if defined(TGB_TOGETHER)

#include "client/tg.h"
#define TGB_MALLOC(size)          tg_malloc(size)
#define TGB_CALLOC(size)          tg_calloc(1, size)
#define TGB_REALLOC(object, size) tg_realloc(object, size)
#define TGB_FREE(object)          tg_free(object)

#elif defined(TGB_PEER)

/* A shared heap of others, behind peer.h. */
#include "bench/tgbench/peer.h"
#define TGB_MALLOC(size)          tgb_peer_malloc(size)
#define TGB_CALLOC(size)          ((void *)NULL)
#define TGB_REALLOC(object, size) ((void *)NULL)
#define TGB_FREE(object)          tgb_peer_free(object)

#else

#define TGB_MALLOC(size)          malloc(size)
#define TGB_CALLOC(size)          calloc(1, size)
#define TGB_REALLOC(object, size) realloc(object, size)
#define TGB_FREE(object)          free(object)

#endif

/* Makes the heap usable by this process; before anything else.  Nothing to do for a private allocator. */
void tgb_attach(void);
/* In a child after fork. */
void tgb_attach_child(void);

/* Requests to the daemon so far, by this process. */
double tgb_messages(void);

/* Memory that the children share with us, all zero.  On the shared heap of Together it is an object of it, and a child
 * finds it by its name. */
void *tgb_shared_new(const char *name, size_t bytes);
void *tgb_shared_find(const char *name, void *made);
