/* process.h - what this process knows of the heap that it is attached to.
 *
 * Two kinds of memory.  `tgc_heap` and `tgc_saved` are ordinary: a forked child inherits the mapping and how it was made.
 * Everything else (`tgc_process`, the thread caches, the span records) lies in memory that the kernel wipes in a forked
 * child (MADV_WIPEONFORK): there it is all zero, which means "not attached, nothing cached, every lock free".  So a child
 * can never use what is its parent's, with or without fork handlers, and becomes a client of its own at its first call.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/tg.h"
#include "shm/base.h"
#include "shm/region.h"

struct tgc_cache;
struct tgc_owed;
struct tgc_span;
struct tgc_rpc;

struct tgc_process {
	_Atomic uint32_t attached; /* set last when attaching; what slow paths ask first */
	uint32_t client_id;
	pthread_mutex_t
		lock; /* attach and detach, the lists of caches; never held during an allocation */
	struct tgc_rpc *rpc;    /* the connection; has a lock of its own */
	struct tgc_span *spans; /* one private record a page, used at first pages of spans held */
	struct tgc_cache *_Atomic
		large; /* the slot that holds this process's large spans; set, and worked on, under large_lock */
	pthread_mutex_t large_lock;
	struct tgc_cache
		*idle; /* caches whose threads have ended, linked by next_idle; under lock */
	struct tgc_cache *_Atomic
		all; /* every cache, linked by next_all; added to under lock (release), read by all */
	uint64_t idle_pages;  /* in the empty spans of the idle ones; under lock */
	uint64_t idle_rounds; /* of giving back for the idle ones; under lock */
	_Atomic uint64_t
		trim_request; /* raised by tg_trim: caches whose trim_seen is lower give back at their next refill */
	_Atomic uint64_t errors;   /* double and invalid frees counted */
	pthread_mutex_t owed_lock; /* taken last */
	struct tgc_owed *_Atomic
		owed; /* frees of threads that could get no slot; changed under owed_lock.  client/state.c */
	_Atomic uint64_t n_owed; /* that many */
	uint32_t
		state_ahead; /* log2 of the spans (dense: groups) whose state was last asked for at once; under the connection's lock */
	uint32_t state_asked_ms; /* when; likewise */
};

/* How the process attached; a forked child attaches in the same way. */
struct tgc_saved {
	unsigned attach_count; /* tg_attach less tg_detach; under `lock` */
	unsigned flags;
	int timeout_ms;
	int socket_fd; /* -1: none; a child closes the inherited one */
	dev_t socket_dev; /* what the descriptor was when we opened it: it may be another file by now */
	ino_t socket_ino;
	bool count_errors; /* TG_ON_ERROR=count */
	bool is_malloc; /* libtg is the program's malloc: who attaches does so because he allocates */
	char socket[108];
	char heap[64];
	char name[64];
	uint8_t uuid[16]; /* of the heap that is mapped */
};

/* Where libtg is the process's malloc: what this thread allocates now is to be the C library's.  We are talking to the
 * daemon, or the thread has no use of the heap (client/malloc/). */
extern __thread bool tgc_use_libc;

extern TGS_HIDDEN struct tgs_heap
	tgc_heap; /* all zero while not attached: no pointer lies in it then */
extern struct tgc_saved tgc_saved;
extern struct tgc_process *tgc_process; /* never NULL once the library is in use */

/* What only libtgmalloc has, where libtg is the process's malloc (client/malloc/); elsewhere they are NULL.
 *
 * Asked before an object is freed that is in no span of this process.  True: it was not the heap's, or not for us to free,
 * and has been dealt with. */
TGS_HIDDEN bool tgc_malloc_frees(void *object) __attribute__((weak));
/* Asked before pages that the daemon has granted are used.  False: at some of their addresses a forked child has its copies of
 * its parent's objects. */
TGS_HIDDEN bool tgc_malloc_may_use(uint64_t page, uint64_t n_pages) __attribute__((weak));

/* May pages that the daemon has granted, or is to grant, be used?  False: they are held and left alone. */
static inline bool tgc_pages_usable(uint64_t page, uint64_t n_pages)
{
	return !tgc_malloc_may_use || tgc_malloc_may_use(page, n_pages);
}

/* Memory that a forked child finds wiped; zero to begin with.  NULL with errno. */
void *tgc_wiped_alloc(size_t bytes);
void tgc_wiped_free(void *p, size_t bytes);

/* The process record exists after this.  False with errno ENOMEM. */
bool tgc_process_init(void);

/* Is this process a client?  If it is a forked child of one, makes it one.  False with errno ENOTCONN (or why attaching
 * failed). */
bool tgc_enter(void);

/* attach.c */
int tgc_attach_locked(bool in_child);
const char *tgc_attach_why(void);

/* Gives the caches, spans and mapping up, without a word to the daemon.  Under lock. */
void tgc_process_clear(void);
