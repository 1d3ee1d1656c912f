/* prefetch.h - a batch of spans asked for ahead of need, so that the thread does not wait for the daemon. */
#pragma once

#include <stdbool.h>

#include "client/cache.h"
#include "client/rpc.h"

/* Room for a GetSpans request. */
struct tgc_get_spans {
	Tgd__GetSpans body;
	Tgd__Request request;
	uint32_t also[TGS_CLASSES_ALL]; /* each once, at most */
};
Tgd__Request *tgc_get_spans(struct tgc_get_spans *get, uint32_t slot, unsigned class,
			    unsigned count);
/* And, if it can be had without effort, one of that class. */
void tgc_get_spans_also(struct tgc_get_spans *get, unsigned class);

/* Takes in what came, between begin and end.  0 if there is at least one of `class`, else -EADDRINUSE (those may not be used)
 * or -EPROTO. */
int tgc_take_spans(struct tgc_cache *cache, unsigned class, const Tgd__SpansReply *reply);

/* Has the cache asked for spans of the class that it has not taken yet? */
bool tgc_prefetch_asked(struct tgc_cache *cache, unsigned class);

/* If not: asks for some and goes on.  Does nothing if there is no connection. */
void tgc_prefetch_ask(struct tgc_cache *cache, unsigned class, unsigned count);

/* Takes what was asked for, waiting for it if need be.  False: nothing was, for this class, or it was refused. */
bool tgc_prefetch_take(struct tgc_cache *cache, unsigned class);

/* Takes it whatever its class, so that nothing is outstanding. */
void tgc_prefetch_settle(struct tgc_cache *cache);

/* first.c */

/* Posts the requests for a slot and for a span of each of the usual classes, between Attach and its being sent.  0 or
 * -errno. */
int tgc_first_post(void);
/* The slot that has come so, waiting for it if need be.  It is the caller's then; 0: none.  Between begin and end. */
uint32_t tgc_first_slot(void);
/* Was the answer lost, so that there may be one that we do not know of?  What has come is forgotten. */
bool tgc_first_lost(void);
/* The spans that came with it, for the cache that has that slot now.  Likewise. */
void tgc_first_take(struct tgc_cache *cache);

/* The thread is about to ask for the first span of this class.  After some times it gets one of each that it has none of. */
void tgc_first_of_class(struct tgc_cache *cache, unsigned needed);
