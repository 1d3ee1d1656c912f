/* tg.h - one heap shared by many processes.
 *
 * A process attaches to the heap that the daemon `tgd` owns and from then on allocates and frees in it.
 * A pointer made in one attached process is valid in every other one, and any of them may free it.
 *
 * Errors: malloc-like calls return NULL and set errno: ENOMEM (the heap's limit or the machine's memory is
 * reached, or the size is absurd), EDQUOT (this client's quota is), ENOTCONN (not attached, or the daemon did not
 * answer within the timeout).  Other calls return 0 or a negative errno value, unless they say otherwise.
 *
 * Threads: every call may be made by any thread at any time, but for tg_attach and tg_detach, which must not
 * run while another thread uses the heap.  No call is async-signal-safe, as with malloc.
 *
 * fork: both sides may go on.  The child becomes a client of its own at its first call.  The objects stay shared.
 */
#ifndef TG_H
#define TG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
/* C++ has no _Atomic; a link is only touched through tg_link_get and tg_swap, and has the same layout. */
#define TG_ATOMIC_WORD uint64_t
extern "C" {
#else
#define TG_ATOMIC_WORD _Atomic uint64_t
#endif

/* Calls lead to the library without the detour through the program's linkage table, where the compiler can do that: a tenth
 * of the time of a malloc and free. */
#if defined(__GNUC__) && defined(__has_attribute)
#if __has_attribute(noplt)
#define TG_NO_PLT __attribute__((noplt))
#endif
#endif
#ifndef TG_NO_PLT
#define TG_NO_PLT
#endif

#if defined(__GNUC__)
#define TG_API         __attribute__((visibility("default"))) TG_NO_PLT
#define TG_MALLOC_LIKE __attribute__((malloc, warn_unused_result))
#else
#define TG_API
#define TG_MALLOC_LIKE
#endif

#define TG_VERSION_MAJOR 0
#define TG_VERSION_MINOR 1

/* A position-independent handle of an object: its offset into the heap.  0 is null. */
typedef uint64_t tg_ref;

/* How to attach.  All zero is the default; so is passing NULL. */
struct tg_options {
	size_t size; /* sizeof(struct tg_options): lets the struct grow later */
	const char
		*socket; /* path of the daemon's socket; NULL: $TG_SOCKET, else the default path */
	const char
		*heap; /* name of the heap; NULL: $TG_HEAP, else whatever heap the daemon serves */
	const char *name; /* how this client is shown by tgctl; NULL: the program's name */
	unsigned flags;   /* TG_RECLAIM ... */
	int timeout_ms;   /* how long a call may wait for the daemon; 0: 5000 */
};

enum {
	TG_RECLAIM =
		1, /* when this client ends, free what it owned and had not published (default: keep) */
	TG_AUTOSTART = 2, /* start a private tgd when none listens on the socket */
	TG_ANY_ADDRESS =
		4, /* attach even if the heap's usual address is taken; then share refs, not pointers */
};

/* Attaches the process.  Attaching again is counted and does nothing else.
 * -ENOENT, -ECONNREFUSED: no daemon; -EACCES: not allowed; -EADDRINUSE: the heap's address range is taken here;
 * -EPROTO: the daemon speaks another version; -ETIMEDOUT; -EINVAL: bad options; -ENAMETOOLONG. */
TG_API int tg_attach(const struct tg_options *options);

/* What was wrong when the last tg_attach of this process failed, as a sentence; "" if none did. */
TG_API const char *tg_attach_error(void);

/* Undoes one tg_attach; the last one detaches: all that this process only cached goes back to the daemon.
 * The pointers into the heap become invalid here; the objects stay (under TG_RECLAIM: the published ones).
 * -ENOTCONN: not attached. */
TG_API int tg_detach(void);

/* malloc, calloc and realloc on the shared heap.  Objects of 16 bytes and more are aligned to 16, but for 17..24
 * bytes, which are aligned to 8; smaller ones: 8 bytes and more to 8, 4..7 to 4, 2..3 to 2.
 * tg_malloc(0) returns a unique pointer that must be freed.  tg_realloc(p, 0) frees p and returns NULL. */
TG_API void *tg_malloc(size_t size) TG_MALLOC_LIKE;
TG_API void *tg_calloc(size_t n, size_t size) TG_MALLOC_LIKE;
TG_API void *tg_realloc(void *object, size_t size) __attribute__((warn_unused_result));

/* `align` must be a power of two (else NULL with EINVAL); `size` need not be a multiple of it.  More than 4 MiB are for who has
 * the heap at its usual address: elsewhere (TG_ANY_ADDRESS) NULL with ENOMEM. */
TG_API void *tg_aligned_alloc(size_t align, size_t size) TG_MALLOC_LIKE;

/* Frees an object, whoever allocated it.  NULL is fine.  A pointer at which no live object starts is reported on
 * stderr with address, class and owner; then abort, or, with TG_ON_ERROR=count, counted (tg_stats) and ignored.
 * It never fails, and leaves errno alone.  Where the machine has no memory to note that an object of 1 to 15 bytes of
 * another thread's is free, it is freed later: when this thread next needs the daemon, trims, or ends; and where this is the
 * thread's first call and the daemon does not answer, when any thread does. */
TG_API void tg_free(void *object);

/* Bytes that may be used at the object: at least what was asked for.  0 for NULL. */
TG_API size_t tg_usable_size(const void *object);

/* Pointer <-> ref.  NULL <-> 0.  0 or NULL with errno EFAULT for what does not lie in the heap. */
TG_API tg_ref tg_to_ref(const void *object);
TG_API void *tg_from_ref(tg_ref ref);

/* Marks the object as the heap's: it outlives this process also under TG_RECLAIM.  -EFAULT: no live object there.  Of an object
 * of 1 to 15 bytes, the first time among its neighbours: -ENOMEM (the machine has no memory to note it), -ENOTCONN. */
TG_API int tg_publish(const void *object);

/* A link is a pointer that lies in the heap and is swung atomically.  All zero is null. */
typedef struct {
	TG_ATOMIC_WORD word; /* payload and tag; only for tg_link_get and tg_swap */
} tg_link;

TG_API void *tg_link_get(const tg_link *link);

enum {
	TG_GIVE = 1,   /* `desired` becomes the heap's (published) at the instant of the swap */
	TG_RETIRE = 2, /* `expected` is freed at the instant of the swap */
};

/* The object that holds the link becomes published if another thread allocated it.  It must not be freed while a living
 * thread may still swing links in it, and its links stay as they are until it is freed: a thread that was killed inside a
 * swap is recovered by what the link says.
 * If the link leads to `expected`, makes it lead to `desired`; says whether it did.  False with errno EINVAL (unknown
 * flags), EFAULT (link, or an object to give or retire, is not in the heap or not live), ENOTCONN, ENOMEM (the machine has no
 * memory to note what becomes of an object of 1 to 15 bytes); false with errno 0 when the link leads elsewhere. */
TG_API bool tg_swap(tg_link *link, const void *expected, void *desired, unsigned flags);

/* The same for structures in which an object that was retired may come back at the same address: tg_link_look returns the
 * link's word, which no two swings leave equal (until one thread has made some thousands in between), and what it leads
 * to; tg_swap_seen swaps only if the word still is that one.  Who reads an object that others may retire copies what it
 * needs, then looks at the link again: the copy is good if the word is the same.  (Memory of the heap stays mapped; what
 * is read of a freed object means nothing, but harms nobody.)  It does not publish the object that holds the link:
 * publish that before others can find it.
 * Freed memory keeps its bytes for a while, so who retires an object in which others may still try to swing links first
 * swings each of these links to a mark; then a late tg_swap_seen fails.  And such links have been swung at least once, not
 * just stored or zero, before others find them: a word without a tag may stand in the memory's next use as well. */
TG_API uint64_t tg_link_look(const tg_link *link, void **ret_object);
TG_API bool tg_swap_seen(tg_link *link, uint64_t seen, void *desired, unsigned flags);

/* Roots: names that lead to objects.  A name has 1 to 127 bytes.
 * tg_root_set publishes the object; NULL removes the root.  -ENAMETOOLONG, -EINVAL (empty name), -EFAULT (no live
 * object there), -ENOSPC (root table full), -ENOMEM, -ENOENT (nothing to remove), -ENOTCONN.
 * tg_root_get: NULL with errno ENOENT when there is no such root.  Asks nobody: it is a look-up in shared memory.
 * tg_root_cas: as tg_root_set, if the root leads to `expected` (NULL: if there is none); else -EAGAIN. */
TG_API int tg_root_set(const char *name, const void *object);
TG_API void *tg_root_get(const char *name);
TG_API int tg_root_cas(const char *name, const void *expected, const void *desired);

/* Counts of this process since it attached, and of its caches now.  Taken without stopping other threads: exact when
 * they are at rest. */
struct tg_stats {
	size_t size;            /* in: sizeof(struct tg_stats); out: the bytes filled in */
	uint64_t messages;      /* requests sent to the daemon */
	uint64_t spans;         /* spans held */
	uint64_t span_bytes;    /* bytes of pages in them, large objects included */
	uint64_t cached_bytes;  /* of these: bytes in spans that hold no object */
	uint64_t threads;       /* thread caches, those without a thread included */
	uint64_t foreign_frees; /* objects freed that another thread or process owned */
	uint64_t
		pending_frees; /* of these: buffered, not yet applied; and frees that wait for memory */
	uint64_t errors;       /* double and invalid frees seen (TG_ON_ERROR=count) */
	uint64_t reconnects; /* times the connection to the daemon was made again */
};
TG_API int tg_stats(struct tg_stats *stats);

/* Gives back what this process only caches: empty spans, cached large spans, frees not yet applied.  Other threads of
 * the process do their part at their next allocation that needs a new span. */
TG_API int tg_trim(void);

/* Version of the library, as "0.1.0". */
TG_API const char *tg_version(void);

#ifdef __cplusplus
}
#endif
#endif
