/* region.c - make, seal, check and map the two memory files.
 *
 * A memory file is sized once, sparse, and sealed against shrinking and growing before anybody else sees it, so no peer
 * can turn a mapped page into a SIGBUS by truncating it.  Holes can still be punched under these seals, which is how
 * memory goes back to the kernel.  The geometry is a function of the number of pages: a reader does not believe the one
 * in the header but computes its own and compares.
 */
#include "shm/region.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shm/base.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define REGION_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

_Static_assert(TGS_DENSE_8 - TGS_DENSE_2 + 1 == TGS_DENSE_KINDS, "an area for each dense kind");

void tgs_geometry_init(struct tgs_geometry *geometry, uint64_t n_pages)
{
	struct tgs_geometry *g = geometry;
	unsigned bits = 0, i;
	uint64_t at;

	memset(g, 0, sizeof(*g));
	g->n_pages = n_pages;

	g->roots_at = TGS_OS_PAGE;
	at = g->roots_at + TGS_ROOTS_MAX * sizeof(struct tgs_root);
	g->clients_at = tgs_round_up(at, TGS_OS_PAGE);
	at = g->clients_at + TGS_CLIENTS_MAX * sizeof(struct tgs_client);
	g->slots_at = tgs_round_up(at, TGS_OS_PAGE);
	at = g->slots_at + TGS_SLOTS_MAX * sizeof(struct tgs_slot_owner);
	g->page_map_at = tgs_round_up(at, TGS_OS_PAGE);
	g->map_bytes = tgs_round_up(g->page_map_at + n_pages * sizeof(uint64_t), TGS_OS_PAGE);

	g->threads_at = TGS_OS_PAGE;
	at = g->threads_at + TGS_SLOTS_MAX * sizeof(struct tgs_slot);
	g->dirty_at = tgs_round_up(at, TGS_OS_PAGE);
	at = g->dirty_at + tgs_round_up(n_pages, 64) / 8;
	g->records_at = tgs_round_up(at, TGS_OS_PAGE);
	at = g->records_at + n_pages * sizeof(struct tgs_record);
	g->dense_at = tgs_round_up(at, TGS_OS_PAGE);
	at = g->dense_at + n_pages * TGS_DENSE_UNITS * sizeof(struct tgs_unit);
	for (i = 0; i < TGS_DENSE_KINDS; i++) {
		g->dense_taken_at[i] = tgs_round_up(at, TGS_OS_PAGE);
		at = g->dense_taken_at[i] + n_pages * TGS_DENSE_BYTES(i);
	}
	g->tiny_taken_at = tgs_round_up(at, TGS_OS_PAGE);
	at = g->tiny_taken_at + n_pages * sizeof(struct tgs_tiny_taken);
	g->tiny_more_at = tgs_round_up(at, TGS_OS_PAGE);
	at = g->tiny_more_at + n_pages * sizeof(struct tgs_tiny_more);
	g->data_at = tgs_round_up(at, TGS_CHUNK_PAGES * TGS_PAGE_SIZE);
	g->heap_bytes = g->data_at + n_pages * TGS_PAGE_SIZE;

	while (bits < 64 && g->heap_bytes >> bits != 0)
		bits++;
	g->link_offset_bits = bits;
	g->link_seq_bits = 64 - TGS_SLOT_BITS - bits;
}

int tgs_region_create(const char *name, uint64_t bytes, int *ret_fd)
{
	TGS_CLOSE int fd = -1;

	fd = (int)syscall(SYS_memfd_create, name,
			  MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = (int)syscall(SYS_memfd_create, name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)bytes) < 0)
		return -errno;
	if (fcntl(fd, F_ADD_SEALS, REGION_SEALS | F_SEAL_SEAL) < 0)
		return -errno;

	*ret_fd = fd;
	fd = -1;
	return 0;
}

int tgs_region_reopen_read_only(int fd, int *ret_fd)
{
	char path[32];
	int copy;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	copy = open(path, O_RDONLY | O_CLOEXEC);
	if (copy < 0)
		return -errno;

	*ret_fd = copy;
	return 0;
}

static int write_all(int fd, const void *bytes, size_t n, uint64_t at)
{
	const char *next = bytes;

	while (n > 0) {
		ssize_t done = pwrite(fd, next, n, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		next += done;
		at += (uint64_t)done;
		n -= (size_t)done;
	}
	return 0;
}

int tgs_region_format(int map_fd, int heap_fd, const char *name, const uint8_t uuid[16],
		      uint64_t base, uint64_t n_pages)
{
	struct tgs_heap_header heap_header = {.magic = TGS_HEAP_MAGIC};
	struct tgs_map_header header = {
		.layout_version = TGS_LAYOUT_VERSION,
		.header_bytes = sizeof(header),
		.base = base,
		.reserve_bytes = n_pages * TGS_PAGE_SIZE,
	};
	uint64_t magic = TGS_MAP_MAGIC;
	int r;

	if (strlen(name) >= sizeof(header.name))
		return -ENAMETOOLONG;
	memcpy(header.name, name, strlen(name));
	memcpy(header.uuid, uuid, sizeof(header.uuid));
	memcpy(heap_header.uuid, uuid, sizeof(heap_header.uuid));
	tgs_geometry_init(&header.geometry, n_pages);

	r = write_all(heap_fd, &heap_header, sizeof(heap_header), 0);
	if (r < 0)
		return r;
	r = write_all(map_fd, &header, sizeof(header), 0);
	if (r < 0)
		return r;
	/* The magic last: a map that has it has all of its header. */
	return write_all(map_fd, &magic, sizeof(magic), offsetof(struct tgs_map_header, magic));
}

static int read_header(int fd, void *header, size_t n)
{
	ssize_t done;

	do
		done = pread(fd, header, n, 0);
	while (done < 0 && errno == EINTR);
	if (done < 0)
		return -errno;
	return (size_t)done == n ? 0 : -EPROTO;
}

static int check_file(int fd, const char *what, uint64_t bytes, char *why, size_t why_size)
{
	struct stat st;
	int seals;

	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size != bytes) {
		snprintf(why, why_size,
			 "the %s file has %llu bytes and not the %llu that its header calls for",
			 what, (unsigned long long)st.st_size, (unsigned long long)bytes);
		return -EPROTO;
	}
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & REGION_SEALS) != REGION_SEALS) {
		snprintf(why, why_size, "the %s file is not sealed against shrinking and growing",
			 what);
		return -EPROTO;
	}
	return 0;
}

/* Reads and believes nothing but what it can recompute. */
static int check_headers(int map_fd, int heap_fd, struct tgs_map_header *header,
			 struct tgs_geometry *geometry, char *why, size_t why_size)
{
	struct tgs_heap_header heap_header;
	int r;

	r = read_header(map_fd, header, sizeof(*header));
	if (r < 0 || header->magic != TGS_MAP_MAGIC) {
		snprintf(why, why_size, "the map file is not one of a heap");
		return -EPROTO;
	}
	if (header->layout_version != TGS_LAYOUT_VERSION ||
	    header->header_bytes != sizeof(*header)) {
		snprintf(why, why_size,
			 "the heap has layout version %u, this program reads version %u",
			 header->layout_version, TGS_LAYOUT_VERSION);
		return -EPROTO;
	}
	if (header->geometry.n_pages == 0 ||
	    header->geometry.n_pages > TGS_RESERVE_MAX / TGS_PAGE_SIZE ||
	    header->reserve_bytes != header->geometry.n_pages * TGS_PAGE_SIZE) {
		snprintf(why, why_size, "the map's header is damaged: %llu pages for %llu bytes",
			 (unsigned long long)header->geometry.n_pages,
			 (unsigned long long)header->reserve_bytes);
		return -EPROTO;
	}
	tgs_geometry_init(geometry, header->geometry.n_pages);
	if (memcmp(geometry, &header->geometry, sizeof(*geometry)) != 0) {
		snprintf(why, why_size,
			 "the map's header is damaged: its geometry is not that of %llu pages",
			 (unsigned long long)geometry->n_pages);
		return -EPROTO;
	}
	r = check_file(map_fd, "map", geometry->map_bytes, why, why_size);
	if (r < 0)
		return r;
	r = check_file(heap_fd, "heap", geometry->heap_bytes, why, why_size);
	if (r < 0)
		return r;
	r = read_header(heap_fd, &heap_header, sizeof(heap_header));
	if (r < 0 || heap_header.magic != TGS_HEAP_MAGIC ||
	    memcmp(heap_header.uuid, header->uuid, sizeof(header->uuid)) != 0) {
		snprintf(why, why_size, "the heap file does not belong to the map");
		return -EPROTO;
	}
	return 0;
}

/* Where there is room, at a multiple of what the pages are aligned to in the file: objects keep their alignment up to
 * 4 MiB. */
static void *map_anywhere(int fd, uint64_t bytes)
{
	const uint64_t unit = TGS_CHUNK_PAGES * TGS_PAGE_SIZE;
	uint8_t *room = mmap(NULL, bytes + unit, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *start;
	void *p;

	if (room == MAP_FAILED)
		return MAP_FAILED;
	start = (uint8_t *)(uintptr_t)tgs_round_up((uintptr_t)room, unit);
	p = mmap(start, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd,
		 0);
	if (p == MAP_FAILED) {
		munmap(room, bytes + unit);
		return MAP_FAILED;
	}
	if (start > room)
		munmap(room, (size_t)(start - room));
	munmap(start + bytes, unit - (size_t)(start - room));
	return p;
}

static int map_heap_file(int fd, uint64_t base, uint64_t bytes, bool any_address, void **ret,
			 char *why, size_t why_size)
{
	void *wanted = (void *)(uintptr_t)base;
	void *p;

	p = mmap(wanted, bytes, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, fd, 0);
	if (p != MAP_FAILED && p != wanted) {
		/* A kernel before 4.17 takes the flag for a hint. */
		munmap(p, bytes);
		p = MAP_FAILED;
		errno = EEXIST;
	}
	if (p == MAP_FAILED && any_address)
		p = map_anywhere(fd, bytes);
	if (p == MAP_FAILED) {
		int r = errno == EEXIST ? -EADDRINUSE : -errno;

		snprintf(why, why_size,
			 "cannot map the heap at %p to %p: %s; see /proc/self/maps, or attach with "
			 "TG_ANY_ADDRESS and share refs",
			 wanted, (void *)(uintptr_t)(base + bytes), strerror(errno));
		return r;
	}
	/* A core dump of every worker that holds the whole heap helps nobody. */
	(void)madvise(p, bytes, MADV_DONTDUMP);
	*ret = p;
	return 0;
}

int tgs_region_map(struct tgs_heap *heap, int map_fd, int heap_fd, bool writable_map,
		   bool any_address, char *why, size_t why_size)
{
	struct tgs_map_header header;
	struct tgs_geometry g;
	uint8_t *map;
	void *base = NULL;
	int r;

	why[0] = '\0';
	r = check_headers(map_fd, heap_fd, &header, &g, why, why_size);
	if (r < 0)
		return r;
	map = mmap(NULL, g.map_bytes, writable_map ? PROT_READ | PROT_WRITE : PROT_READ,
		   MAP_SHARED | MAP_NORESERVE, map_fd, 0);
	if (map == MAP_FAILED) {
		r = -errno;
		snprintf(why, why_size, "cannot map the map file: %s", strerror(errno));
		return r;
	}
	r = map_heap_file(heap_fd, header.base, g.heap_bytes, any_address, &base, why, why_size);
	if (r < 0) {
		munmap(map, g.map_bytes);
		return r;
	}

	*heap = (struct tgs_heap){
		.base = base,
		.data = (uint8_t *)base + g.data_at,
		.data_bytes = g.n_pages * TGS_PAGE_SIZE,
		.page_map = (const _Atomic uint64_t *)(map + g.page_map_at),
		.slots = (struct tgs_slot *)((uint8_t *)base + g.threads_at),
		.records = (struct tgs_record *)((uint8_t *)base + g.records_at),
		.dense = (struct tgs_unit *)((uint8_t *)base + g.dense_at),
		.taken = {(tgs_taken *)base + g.records_at + offsetof(struct tgs_record, taken),
			  (tgs_taken *)base + g.dense_taken_at[0],
			  (tgs_taken *)base + g.dense_taken_at[1],
			  (tgs_taken *)base + g.dense_taken_at[2]},
		.tiny_taken = (struct tgs_tiny_taken *)((uint8_t *)base + g.tiny_taken_at),
		.tiny_more = (struct tgs_tiny_more *)((uint8_t *)base + g.tiny_more_at),
		.dirty = (_Atomic uint64_t *)((uint8_t *)base + g.dirty_at),
		.map = (const struct tgs_map_header *)map,
		.roots = (const struct tgs_root *)(map + g.roots_at),
		.slot_owners = (const struct tgs_slot_owner *)(map + g.slots_at),
		.geometry = g,
	};
	return 0;
}

void tgs_region_unmap(struct tgs_heap *heap)
{
	if (heap->base)
		munmap(heap->base, heap->geometry.heap_bytes);
	if (heap->map)
		munmap((void *)(uintptr_t)heap->map, heap->geometry.map_bytes);
	memset(heap, 0, sizeof(*heap));
}
