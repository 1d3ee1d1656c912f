/* heap.h - the daemon's side of one heap: both memory files, and who holds what in them.
 *
 * Everything that changes the heap on behalf of clients goes through here; sockets, sessions and
 * messages are above. One thread.  Nothing here blocks but for the kernel clearing pages that it
 * backs. Functions that return int return 0 or a negative errno value, and leave outputs untouched
 * on failure; tgd_heap_why() then says in one sentence what was wrong and what to do.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/huge.h"
#include "shm/layout.h"
#include "shm/region.h"
#include "shm/sizeclass.h"

struct tgd_heap;

struct tgd_heap_options {
	const char *name;       /* 1 to 63 bytes */
	uint64_t reserve_bytes; /* TGS_RESERVE_MIN .. TGS_RESERVE_MAX; rounded up to 4 MiB */
	uint64_t limit_bytes;   /* 0: all of the reservation */
	uint64_t base;          /* address in every process; 0: choose */
};

/* Until told otherwise it is TGD_HUGE_NEVER. */
void tgd_heap_set_huge(struct tgd_heap *heap, enum tgd_huge_mode mode);

/* Makes a new, empty heap.  On failure `why` says in a sentence what was wrong. */
int tgd_heap_new(struct tgd_heap **ret, const struct tgd_heap_options *options, char *why,
		 size_t why_size);

/* Takes over the files of a heap whose daemon has died, and both descriptors, also on failure.
 * What that daemon left half done is finished or undone; who holds what, roots and limit are as
 * they were. `name` must be the heap's.  -EPROTO: these are no heap, one of another layout
 * version, or something in them cannot be what a daemon wrote: nothing was changed then.
 * -ENODATA: the daemon died before the heap was finished; nobody has used it, so make a new one.
 * -EADDRINUSE: the heap's address range is taken in this process; -ENOMEM; -errno of the system.
 * On failure `why` says it in a sentence. */
int tgd_heap_adopt(struct tgd_heap **ret, int map_fd, int heap_fd, const char *name, char *why,
		   size_t why_size);

/* Unmaps and closes; what clients have mapped stays theirs.  NULL is fine.  Returns NULL. */
struct tgd_heap *tgd_heap_free(struct tgd_heap *heap);

/* A sentence about the last call that failed; "" if none did.  Valid until the next call. */
const char *tgd_heap_why(const struct tgd_heap *heap);

/* The descriptors that an attached client gets.  They stay the heap's: do not close. */
int tgd_heap_map_fd_ro(const struct tgd_heap *heap);
int tgd_heap_heap_fd(const struct tgd_heap *heap);

/* The map as the daemon itself has it, for writing: for whoever keeps the files when the daemon
 * dies, and for no client. */
int tgd_heap_map_fd(const struct tgd_heap *heap);

/* The mapped heap: geometry, name, uuid (view->map), look-ups of shm/span.h. */
const struct tgs_heap *tgd_heap_view(const struct tgd_heap *heap);

/* ---- clients ---- */

/* Enters a process in the client table.  `flags`: TG_RECLAIM or 0, others -EINVAL.  `name` is cut
 * to 63 bytes. The id is never 0.  -EMFILE: the table is full; -ENOMEM. */
int tgd_heap_client_add(struct tgd_heap *heap, uint32_t pid, uint64_t start_time, uint32_t uid,
			uint32_t gid, uint32_t flags, const char *name, uint32_t *ret_client_id);

/* The process has ended, or it detached: what it held is settled by tgd_heap_work.  The id is
 * invalid from here on, but is still listed (dead) until all is settled.  -ENOENT: no such client,
 * or it has ended already. */
int tgd_heap_client_end(struct tgd_heap *heap, uint32_t client_id);

/* The same for one that says goodbye; it is not counted among the recovered. */
int tgd_heap_client_detach(struct tgd_heap *heap, uint32_t client_id);

/* A thread slot for a thread cache of this client.  -ENOENT, -EMFILE (all are in use), -ENOMEM. */
int tgd_heap_open_slot(struct tgd_heap *heap, uint32_t client_id, unsigned *ret_slot);

/* Gives a slot back.  Its spans go to central, or, if empty, are freed.  -EINVAL: not a slot of
 * this client. */
int tgd_heap_close_slot(struct tgd_heap *heap, uint32_t client_id, unsigned slot);

/* ---- spans ---- */

struct tgd_grant {
	uint64_t page; /* first page */
	uint32_t free; /* slots free in it, when it was looked at */
	bool zero;     /* its memory is known to be zero */
	uint8_t class; /* of one given besides; else 0 */
};

/* 1 to `count` spans of one class (2..67, or TGS_CLASS_TINY) for a slot; `ret` has room for
 * `count`. -ENOMEM: not one; the limit, the reservation or the machine's memory is used up.
 * -EINVAL: not a slot of this client, no such class, count 0. */
int tgd_heap_get_spans(struct tgd_heap *heap, uint32_t client_id, unsigned slot, unsigned class,
		       unsigned count, struct tgd_grant *ret, unsigned *ret_n);

/* One span of each of these classes for a slot of this client, as far as there is memory without an effort.  Returns how
 * many; `ret` has room for all. */
unsigned tgd_heap_get_one_each(struct tgd_heap *heap, uint32_t client_id, unsigned slot,
			       const uint32_t *classes, size_t n, struct tgd_grant *ret);

/* The slot no longer uses these spans (large ones too).  -EINVAL: one of them is not that slot's,
 * or is named twice; none is taken back then. */
int tgd_heap_put_spans(struct tgd_heap *heap, uint32_t client_id, unsigned slot,
		       const uint64_t *pages, size_t n);

/* One span for a large object; its address is a multiple of align_pages pages (power of two; 0 =
 * 1). */
int tgd_heap_get_large(struct tgd_heap *heap, uint32_t client_id, unsigned slot, uint64_t n_pages,
		       uint64_t align_pages, struct tgd_grant *ret);

/* 1 to `count` spans for large objects of one length.  Only the first is worth an effort. */
int tgd_heap_get_larges(struct tgd_heap *heap, uint32_t client_id, unsigned slot, uint64_t n_pages,
			unsigned count, struct tgd_grant *ret, unsigned *ret_n);

/* Changes the length of a large span in place.  -ENOMEM: the pages behind it are not free, or as
 * get_large. -EINVAL: not a large span of that slot.  ret->zero: of the pages that were added, if
 * any. */
int tgd_heap_resize(struct tgd_heap *heap, uint32_t client_id, unsigned slot, uint64_t page,
		    uint64_t n_pages, struct tgd_grant *ret);

/* What the daemon thinks this slot holds: the first pages of up to `max` spans in `ret_pages`,
 * in the order of its list.  Slot 0: the client's slots themselves, without its closet.
 * `after`: 0, or *ret_next of the call before; *ret_next is 0 when there is no more.
 * *ret_total: how many there are in all.  Between the calls only the client itself changes the
 * list, by its requests.  -EINVAL: not a slot of this client, or the list does not have that
 * place any more, or max is 0; -ENOENT. */
int tgd_heap_holdings(struct tgd_heap *heap, uint32_t client_id, unsigned slot, uint64_t after,
		      uint64_t *ret_pages, unsigned max, unsigned *ret_n, uint64_t *ret_total,
		      uint64_t *ret_next);

/* Puts memory behind the published and remote words of dense or tiny spans, whoever holds them, and of up to
 * `ahead` (at most TGD_STATE_AHEAD_MAX) others near the last of them, if there is enough.  -EINVAL: one
 * of the pages starts no such span; nothing is done then.  -ENOMEM: the machine has no more; those
 * that have got it keep it. */
#define TGD_STATE_AHEAD_MAX 256u
int tgd_heap_back_state(struct tgd_heap *heap, const uint64_t *pages, size_t n, unsigned ahead);

/* ---- roots ---- */

/* Makes `name` lead to `ref`; 0 removes it.  `compare`: only if it leads to `expected` now (0: if
 * there is none), else -EAGAIN.  -EFAULT: no live object starts at ref; -ENOENT: nothing to remove;
 * -ENOSPC: the table is full; -EINVAL: empty name; -ENAMETOOLONG: over 127 bytes; -ENOMEM.  The object is
 * published with it. */
int tgd_heap_root_set(struct tgd_heap *heap, const char *name, uint64_t ref, bool compare,
		      uint64_t expected);

/* The same for one who does not know whether his request was served before: if the name leads to
 * `ref` already (0: if there is no such root), that is success, whatever `compare` and
 * `expected` say. */
int tgd_heap_root_set_again(struct tgd_heap *heap, const char *name, uint64_t ref, bool compare,
			    uint64_t expected);

/* ---- administration ---- */

/* -EBUSY: below what is in use; -EINVAL: 0, or above the reservation.  Pages in spans never exceed
 * the limit. */
int tgd_heap_set_limit(struct tgd_heap *heap, uint64_t bytes);

/* Sweeps central, gives every idle page back to the kernel, and tells the clients to give back what
 * they hoard. Returns the bytes given back. */
uint64_t tgd_heap_trim(struct tgd_heap *heap);

/* A bounded slice of background work: settling the dead, sweeping central, scavenging.  `now_ms`: a
 * monotonic clock. Returns the milliseconds until it wants to run again (0: at once, -1: there is
 * nothing to do).  Call it also after requests that change something: those never do its work
 * themselves. */
int tgd_heap_work(struct tgd_heap *heap, uint64_t now_ms);

struct tgd_heap_status {
	uint64_t base;
	uint64_t reserve_bytes;
	uint64_t limit_bytes;
	uint64_t span_bytes; /* pages in spans */
	uint64_t peak_span_bytes;
	uint64_t free_bytes;      /* limit less pages in spans */
	uint64_t resident_bytes;  /* what both memory files take of the machine's memory */
	uint64_t idle_bytes;      /* free pages that still have memory */
	uint64_t scavenged_bytes; /* given back to the kernel, since the files were made */
	uint64_t huge_bytes;      /* in huge pages that this daemon made */
	enum tgd_huge_mode huge;
	bool huge_refused; /* this kernel makes none on request */
	uint64_t largest_free_run_bytes;
	uint64_t clients;           /* live; dead ones that are being settled not counted */
	uint64_t dead_clients;      /* being settled */
	uint64_t recovered_clients; /* settled since the files were made */
	uint64_t slots;             /* in use */
	uint64_t spans;
	uint64_t orphan_spans; /* that no client holds */
	uint64_t roots;
	uint64_t refused; /* requests refused for want of memory */
};

void tgd_heap_status(const struct tgd_heap *heap, struct tgd_heap_status *ret);

struct tgd_client_info {
	uint32_t id;
	uint32_t pid;
	uint64_t start_time;
	uint32_t uid;
	uint32_t gid;
	uint32_t flags;
	bool dead;        /* ended; what it held is being settled */
	uint32_t threads; /* slots */
	uint64_t spans;
	uint64_t span_bytes;
	char name[TGS_HEAP_NAME_SIZE];
};

/* -ENOENT: no such client, or it has ended. */
int tgd_heap_client_get(const struct tgd_heap *heap, uint32_t client_id,
			struct tgd_client_info *ret);

/* The client that is listed after that id (0: the first), live or dead.  False: there is none. */
bool tgd_heap_client_after(const struct tgd_heap *heap, uint32_t client_id,
			   struct tgd_client_info *ret);

struct tgd_class_info {
	uint32_t class;
	uint32_t size; /* bytes of a slot; 0 large, 1 tiny */
	uint64_t spans;
	uint64_t orphans; /* of these: in central */
	uint64_t objects; /* live */
	uint64_t slots;   /* room for so many */
	uint64_t span_bytes;
	uint64_t object_bytes;
};

/* Fills all TGS_CLASSES_ALL entries.  Looks at every span. */
void tgd_heap_classes(const struct tgd_heap *heap, struct tgd_class_info *ret);

struct tgd_span_info {
	uint64_t page;
	uint64_t n_pages;
	uint32_t class;
	uint32_t slot;      /* TGS_SLOT_CENTRAL: no client's */
	uint32_t client_id; /* 0: none */
	uint32_t objects;   /* live */
	uint32_t slots;
	uint32_t remote; /* freed by others, not yet harvested */
};

/* The first span at this page or above.  False: there is none. */
bool tgd_heap_span_from(const struct tgd_heap *heap, uint64_t page, struct tgd_span_info *ret);

struct tgd_map_cell {
	uint32_t used;     /* pages in spans */
	uint32_t idle;     /* free pages that have memory */
	uint32_t returned; /* free pages without */
	uint32_t class;    /* the class that has most of the used pages; 0: large */
};

/* Cuts the part of the heap that was ever in use into at most `n_cells` cells of equal length (the
 * last may be shorter). Returns how many were filled: 0 if nothing was ever in use. */
unsigned tgd_heap_map(const struct tgd_heap *heap, unsigned n_cells, struct tgd_map_cell *ret,
		      uint64_t *ret_n_pages, uint64_t *ret_pages_per_cell);

struct tgd_root_info {
	uint64_t index;
	uint64_t ref;
	uint64_t size; /* usable bytes of the object; 0: no live object is there any more */
	char name[TGS_ROOT_NAME_SIZE];
};

/* The first root at this index of the table or above.  False: there is none. */
bool tgd_heap_root_from(const struct tgd_heap *heap, uint64_t index, struct tgd_root_info *ret);

#define TGD_CHECK_ERRORS     64u
#define TGD_CHECK_ERROR_SIZE 192u

struct tgd_check {
	bool ok;
	unsigned n_errors;    /* listed */
	uint64_t more_errors; /* found beyond those listed */
	uint64_t objects;     /* live: taken, and neither freed nor about to be */
	uint64_t object_bytes;
	uint64_t published;
	uint64_t spans;
	uint64_t orphan_spans;
	uint64_t pending_frees; /* freed by a thread, still in its buffer; not among the live */
	char error[TGD_CHECK_ERRORS][TGD_CHECK_ERROR_SIZE];
};

/* Walks everything.  Exact when no operation is in flight. */
void tgd_heap_check(const struct tgd_heap *heap, struct tgd_check *ret);
