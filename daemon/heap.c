/* heap.c - makes and ends a heap; its clients, slots, roots, limit, and background work.
 *
 * The pieces know nothing of each other beyond what their headers say; this file puts them
 * together.  Spans are given and taken back in heap-spans.c, the limit and the background work are in
 * heap-work.c, tables for tgctl come from heap-info.c, the check is heap-check.c, and how a heap is made
 * of the files of a dead daemon is in takeover.c.
 */
#include "daemon/heap.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/heap-impl.h"
#include "shm/base.h"
#include "shm/remote.h"
#include "shm/settle.h"
#include "shm/span.h"

/* Where a heap may lie in every process: far from where the kernel puts programs, libraries, heaps
 * and stacks by itself.  ThreadSanitizer leaves programs only a few ranges; this is the one below
 * its own memory. */
#if defined(__SANITIZE_THREAD__)
#define BASE_FIRST UINT64_C(0x1000000000)
#define BASE_STEP  UINT64_C(0x0400000000)
#define BASE_END   UINT64_C(0x8000000000)
#else
#define BASE_FIRST UINT64_C(0x200000000000)
#define BASE_STEP  UINT64_C(0x010000000000)
#define BASE_END   UINT64_C(0x600000000000)
#endif

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

int tgd_heap_fail(struct tgd_heap *heap, int r, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(heap->why, sizeof(heap->why), format, args);
	va_end(args);
	return r;
}

const char *tgd_heap_why(const struct tgd_heap *heap)
{
	return heap->why;
}

/* ---- life ---- */

static bool range_is_free(uint64_t base, uint64_t bytes)
{
	void *wanted = (void *)(uintptr_t)base;
	void *p = mmap(wanted, bytes, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (p == MAP_FAILED)
		return false;
	munmap(p, bytes);
	return p == wanted;
}

static int choose_base(uint64_t bytes, uint64_t *ret, char *why, size_t why_size)
{
	uint64_t base;

	for (base = BASE_FIRST; base < BASE_END && bytes <= BASE_END - base; base += BASE_STEP) {
		if (range_is_free(base, bytes)) {
			*ret = base;
			return 0;
		}
	}
	snprintf(why, why_size,
		 "no free address range of %llu bytes for the heap; choose a smaller --reserve",
		 (unsigned long long)bytes);
	return -EADDRINUSE;
}

static int check_options(const struct tgd_heap_options *options, char *why, size_t why_size)
{
	size_t len = options->name ? strlen(options->name) : 0;

	if (len == 0 || len >= TGS_HEAP_NAME_SIZE) {
		snprintf(why, why_size, "the heap's name must have 1 to %u bytes",
			 TGS_HEAP_NAME_SIZE - 1);
		return -EINVAL;
	}
	if (options->reserve_bytes < TGS_RESERVE_MIN || options->reserve_bytes > TGS_RESERVE_MAX) {
		snprintf(why, why_size, "the reservation must be between %llu MiB and %llu TiB",
			 (unsigned long long)(TGS_RESERVE_MIN >> 20),
			 (unsigned long long)(TGS_RESERVE_MAX >> 40));
		return -EINVAL;
	}
	if (options->limit_bytes > options->reserve_bytes) {
		snprintf(why, why_size,
			 "the limit of %llu bytes is above the reservation of %llu bytes",
			 (unsigned long long)options->limit_bytes,
			 (unsigned long long)options->reserve_bytes);
		return -EINVAL;
	}
	if (options->limit_bytes != 0 && options->limit_bytes < TGS_PAGE_SIZE) {
		snprintf(why, why_size, "the limit must be at least a page of %u bytes",
			 TGS_PAGE_SIZE);
		return -EINVAL;
	}
	if (options->base % (TGS_CHUNK_PAGES * TGS_PAGE_SIZE) != 0) {
		snprintf(why, why_size, "the base address must be a multiple of 4 MiB");
		return -EINVAL;
	}
	return 0;
}

static int make_files(struct tgd_heap *heap, const struct tgd_heap_options *options,
		      uint64_t n_pages, char *why, size_t why_size)
{
	struct tgs_geometry geometry;
	uint64_t base = options->base;
	uint8_t uuid[16];
	int r;

	tgs_geometry_init(&geometry, n_pages);
	if (base == 0) {
		r = choose_base(geometry.heap_bytes, &base, why, why_size);
		if (r < 0)
			return r;
	}
	if (getrandom(uuid, sizeof(uuid), 0) != sizeof(uuid))
		return -EIO;
	r = tgs_region_create("tg-map", geometry.map_bytes, &heap->map_fd);
	if (r == 0)
		r = tgs_region_create("tg-heap", geometry.heap_bytes, &heap->heap_fd);
	if (r == 0)
		r = tgs_region_format(heap->map_fd, heap->heap_fd, options->name, uuid, base,
				      n_pages);
	/* Nobody gets more out of a descriptor that we pass than it was opened for. */
	if (r == 0 && (fchmod(heap->map_fd, 0400) < 0 || fchmod(heap->heap_fd, 0600) < 0))
		r = -errno;
	return r;
}

struct tgd_heap *tgd_heap_alloc(int map_fd, int heap_fd)
{
	struct tgd_heap *heap = calloc(1, sizeof(*heap));

	if (!heap)
		return NULL;
	heap->map_fd = map_fd;
	heap->heap_fd = heap_fd;
	heap->map_fd_ro = -1;
	return heap;
}

int tgd_heap_open(struct tgd_heap *heap, char *why, size_t why_size)
{
	int r;

	r = tgs_region_map(&heap->view, heap->map_fd, heap->heap_fd, true, false, why, why_size);
	if (r == 0)
		r = tgs_region_reopen_read_only(heap->map_fd, &heap->map_fd_ro);
	if (r == 0)
		r = tgd_pages_new(&heap->pages, heap->view.geometry.n_pages);
	if (r == 0)
		r = tgd_backing_init(&heap->backing, &heap->view, heap->map_fd, heap->heap_fd);
	if (r == 0)
		r = tgd_lease_init(&heap->lease, &heap->view, heap->pages, &heap->backing);
	if (r < 0)
		return r;

	tgd_central_init(&heap->central, &heap->view, &heap->lease, &heap->holders);
	tgd_reclaim_init(&heap->reclaim, &heap->central, &heap->holders);
	tgd_scavenge_init(&heap->scavenge, heap->pages, &heap->backing);
	tgd_roots_init(&heap->roots, &heap->view, &heap->backing);
	return 0;
}

static int build(struct tgd_heap *heap, const struct tgd_heap_options *options, char *why,
		 size_t why_size)
{
	uint64_t bytes = tgs_round_up(options->reserve_bytes, TGS_CHUNK_PAGES * TGS_PAGE_SIZE);
	uint64_t limit = options->limit_bytes ? options->limit_bytes : bytes;
	struct tgs_map_header *header;
	int r;

	r = make_files(heap, options, bytes / TGS_PAGE_SIZE, why, why_size);
	if (r == 0)
		r = tgd_heap_open(heap, why, why_size);
	if (r == 0)
		r = tgd_backing_map(&heap->backing, 0, TGS_OS_PAGE);
	if (r == 0)
		r = tgd_backing_state(&heap->backing, 0, TGS_OS_PAGE);
	if (r == 0)
		r = tgd_holders_init(&heap->holders, &heap->view, &heap->backing);
	if (r < 0)
		return r;

	heap->limit_pages = limit / TGS_PAGE_SIZE;
	header = (struct tgs_map_header *)(uintptr_t)heap->view.map;
	atomic_store_explicit(&header->limit_bytes, limit, memory_order_relaxed);
	/* The last: a heap whose epoch is 0 was never finished. */
	atomic_store_explicit(&header->daemon_epoch, 1, memory_order_release);
	return 0;
}

int tgd_heap_new(struct tgd_heap **ret, const struct tgd_heap_options *options, char *why,
		 size_t why_size)
{
	struct tgd_heap *heap;
	int r;

	why[0] = '\0';
	r = check_options(options, why, why_size);
	if (r < 0)
		return r;
	heap = tgd_heap_alloc(-1, -1);
	if (!heap)
		return -ENOMEM;
	r = build(heap, options, why, why_size);
	if (r < 0) {
		if (why[0] == '\0')
			snprintf(why, why_size, "cannot make the heap: %s", strerror(-r));
		tgd_heap_free(heap);
		return r;
	}
	*ret = heap;
	return 0;
}

struct tgd_heap *tgd_heap_free(struct tgd_heap *heap)
{
	if (!heap)
		return NULL;
	tgd_lease_done(&heap->lease);
	tgd_backing_done(&heap->backing);
	heap->pages = tgd_pages_free(heap->pages);
	tgs_region_unmap(&heap->view);
	tgs_close_fd(&heap->map_fd_ro);
	tgs_close_fd(&heap->map_fd);
	tgs_close_fd(&heap->heap_fd);
	free(heap);
	return NULL;
}

int tgd_heap_map_fd_ro(const struct tgd_heap *heap)
{
	return heap->map_fd_ro;
}

int tgd_heap_heap_fd(const struct tgd_heap *heap)
{
	return heap->heap_fd;
}

int tgd_heap_map_fd(const struct tgd_heap *heap)
{
	return heap->map_fd;
}

const struct tgs_heap *tgd_heap_view(const struct tgd_heap *heap)
{
	return &heap->view;
}

/* ---- clients and slots ---- */

int tgd_heap_find_client(struct tgd_heap *heap, uint32_t client_id, uint32_t *ret)
{
	int r = tgd_holders_find(&heap->holders, client_id, ret);

	return r < 0 ? tgd_heap_fail(heap, r, "there is no client %u, or it has ended", client_id)
		     : 0;
}

int tgd_heap_find_slot(struct tgd_heap *heap, uint32_t client_id, unsigned slot, uint32_t *ret)
{
	uint32_t index;
	int r = tgd_heap_find_client(heap, client_id, &index);

	if (r < 0)
		return r;
	if (slot >= TGS_SLOTS_MAX || tgd_holders_client_of(&heap->holders, slot) != index ||
	    slot == heap->holders.table[index].closet)
		return tgd_heap_fail(heap, -EINVAL, "slot %u is not one of client %u", slot,
				     client_id);
	*ret = index;
	return 0;
}

int tgd_heap_client_add(struct tgd_heap *heap, uint32_t pid, uint64_t start_time, uint32_t uid,
			uint32_t gid, uint32_t flags, const char *name, uint32_t *ret_client_id)
{
	struct tgd_holder_new what = {.pid = pid,
				      .start_time = start_time,
				      .uid = uid,
				      .gid = gid,
				      .flags = flags,
				      .name = name ? name : ""};
	int r;

	if (flags & ~TGD_HOLDER_RECLAIM)
		return tgd_heap_fail(heap, -EINVAL, "unknown flags 0x%x of a client", flags);
	r = tgd_holders_add(&heap->holders, &what, ret_client_id);
	if (r == -EMFILE)
		return tgd_heap_fail(heap, r, "the heap has as many clients or threads as it can");
	if (r < 0)
		return tgd_heap_fail(heap, r, "no memory for another client");
	return 0;
}

static int client_end(struct tgd_heap *heap, uint32_t client_id, uint32_t flag)
{
	uint32_t index;
	int r = tgd_heap_find_client(heap, client_id, &index);

	if (r < 0)
		return r;
	tgd_holders_end(&heap->holders, index, flag);
	tgd_reclaim_add(&heap->reclaim, index);
	return 0;
}

int tgd_heap_client_end(struct tgd_heap *heap, uint32_t client_id)
{
	return client_end(heap, client_id, 0);
}

int tgd_heap_client_detach(struct tgd_heap *heap, uint32_t client_id)
{
	return client_end(heap, client_id, TGS_CLIENT_DETACHED);
}

int tgd_heap_open_slot(struct tgd_heap *heap, uint32_t client_id, unsigned *ret_slot)
{
	uint32_t index;
	int r = tgd_heap_find_client(heap, client_id, &index);

	if (r < 0)
		return r;
	r = tgd_holders_open_slot(&heap->holders, index, ret_slot);
	if (r == -EMFILE)
		return tgd_heap_fail(heap, r, "all %u thread slots are in use", TGS_SLOTS_MAX);
	if (r < 0)
		return tgd_heap_fail(heap, r, "no memory for another thread slot");
	return 0;
}

int tgd_heap_close_slot(struct tgd_heap *heap, uint32_t client_id, unsigned slot)
{
	struct tgs_span span;
	uint32_t index;
	int r = tgd_heap_find_slot(heap, client_id, slot, &index);

	if (r < 0)
		return r;
	/* Nothing to do for a well-behaved client; another one loses no frees either. */
	tgs_settle_slot(&heap->view, slot);
	while (tgd_lease_at(&heap->lease, tgd_list_head(&heap->lease.slot[slot]), &span))
		tgd_central_put(&heap->central, &span, heap->holders.table[index].closet);
	tgd_holders_close_slot(&heap->holders, slot);
	return 0;
}

/* ---- roots ---- */

static bool object_is_live(const struct tgd_heap *heap, uint64_t ref)
{
	struct tgs_object object;
	uint64_t at = ref - heap->view.geometry.data_at;

	/* Only where the page map was written does looking touch no hole. */
	if (ref < heap->view.geometry.data_at || at >> TGS_PAGE_SHIFT >= heap->lease.end_page ||
	    !tgd_backing_has_page(&heap->backing, at >> TGS_PAGE_SHIFT))
		return false;
	return tgs_object_find(&heap->view, heap->view.base + ref, &object) == TGS_FOUND &&
	       tgs_object_live(&heap->view, &object);
}

static int root_result(struct tgd_heap *heap, const char *name, int r)
{
	switch (r) {
	case 0:
		return 0;
	case -EINVAL:
		return tgd_heap_fail(heap, r, "a root's name must not be empty");
	case -ENAMETOOLONG:
		return tgd_heap_fail(heap, r, "a root's name has at most %u bytes",
				     TGS_ROOT_NAME_SIZE - 1);
	case -EAGAIN:
		return tgd_heap_fail(heap, r, "root \"%s\" leads elsewhere", name);
	case -ENOENT:
		return tgd_heap_fail(heap, r, "there is no root \"%s\"", name);
	case -ENOSPC:
		return tgd_heap_fail(heap, r, "all %u roots are in use; remove some",
				     TGS_ROOTS_MAX);
	default:
		return tgd_heap_fail(heap, r, "no memory for another root");
	}
}

/* What a root leads to is the heap's. */
static void publish(const struct tgd_heap *heap, uint64_t ref)
{
	struct tgs_object object;

	if (tgs_object_find(&heap->view, heap->view.base + ref, &object) == TGS_FOUND &&
	    tgs_has_more(&heap->view, tgs_classes[object.span.class].kind, object.span.page))
		tgs_publish(&heap->view, &object);
}

/* Before anything is changed: the published word of the object has memory.  0, or noted. */
static int back_for_root(struct tgd_heap *heap, uint64_t ref)
{
	uint64_t page = (ref - heap->view.geometry.data_at) >> TGS_PAGE_SHIFT;
	struct tgs_span span;

	if (!tgd_lease_at(&heap->lease, page, &span) ||
	    tgs_has_more(&heap->view, tgs_classes[span.class].kind, page))
		return 0;
	return tgd_heap_back_state(heap, &page, 1, 0);
}

/* Root and published bit are one change: who asked for it may be killed at any time, and so may we. */
int tgd_heap_root_set(struct tgd_heap *heap, const char *name, uint64_t ref, bool compare,
		      uint64_t expected)
{
	struct tgs_map_header *header = (struct tgs_map_header *)(uintptr_t)heap->view.map;
	int r;

	if (ref != 0 && !object_is_live(heap, ref))
		return tgd_heap_fail(heap, -EFAULT, "no live object starts at ref 0x%llx",
				     (unsigned long long)ref);
	if (ref != 0) {
		r = back_for_root(heap, ref);
		if (r < 0)
			return r;
	}
	atomic_store_explicit(&header->rooting, ref, memory_order_relaxed);
	r = tgd_roots_set(&heap->roots, name, ref, compare, expected);
	if (r == 0 && ref != 0)
		publish(heap, ref);
	atomic_store_explicit(&header->rooting, 0, memory_order_relaxed);
	return root_result(heap, name, r);
}

void tgd_heap_finish_root(struct tgd_heap *heap)
{
	struct tgs_map_header *header = (struct tgs_map_header *)(uintptr_t)heap->view.map;
	uint64_t ref = atomic_load_explicit(&header->rooting, memory_order_relaxed), i;

	for (i = 0; ref != 0 && (i = tgd_roots_from(&heap->roots, i)) < heap->roots.n_used; i++) {
		if (atomic_load_explicit(&tgd_roots_entry(&heap->roots, i)->ref,
					 memory_order_relaxed) == ref &&
		    object_is_live(heap, ref))
			publish(heap, ref);
	}
	atomic_store_explicit(&header->rooting, 0, memory_order_relaxed);
}

int tgd_heap_root_set_again(struct tgd_heap *heap, const char *name, uint64_t ref, bool compare,
			    uint64_t expected)
{
	if (name[0] != '\0' && tgd_roots_get(&heap->roots, name) == ref)
		return 0;
	return tgd_heap_root_set(heap, name, ref, compare, expected);
}
