/* prefetch.h - a batch of spans asked for ahead of need, so that the thread does not wait for the daemon. */
#pragma once

#include <stdbool.h>

#include "client/cache.h"
#include "client/rpc.h"

/* Room for a GetSpans request. */
struct tgc_get_spans {
	Tgd__GetSpans body;
	Tgd__Request request;
};
Tgd__Request *tgc_get_spans(struct tgc_get_spans *get, uint32_t slot, unsigned class,
			    unsigned count);

/* Has the cache asked for spans of the class that it has not taken yet? */
bool tgc_prefetch_asked(struct tgc_cache *cache, unsigned class);

/* If not: asks for some and goes on.  Does nothing if there is no connection. */
void tgc_prefetch_ask(struct tgc_cache *cache, unsigned class, unsigned count);

/* Takes what was asked for, waiting for it if need be.  False: nothing was, for this class, or it was refused. */
bool tgc_prefetch_take(struct tgc_cache *cache, unsigned class);

/* Takes it whatever its class, so that nothing is outstanding. */
void tgc_prefetch_settle(struct tgc_cache *cache);

/* first.c: a span of each of the usual classes, for the calling thread. */
void tgc_first_spans(void);

/* The thread is about to ask for the first span of a class.  After some times it gets one of each that it has none of. */
void tgc_first_of_class(struct tgc_cache *cache);
