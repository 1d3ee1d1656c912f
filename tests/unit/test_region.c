/* test_region - the two memory files: sealed, found whole, and refused when anything in them is not as it should be.
 */
#include "shm/region.h"

#include <CUnit/CUnit.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/region.h"
#include "tests/support/runner.h"

/* Mappings of memory files. */
static unsigned count_maps(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned n = 0;

	while (maps != NULL && fgets(line, sizeof(line), maps) != NULL)
		n += strstr(line, "memfd:") != NULL;
	if (maps != NULL)
		fclose(maps);
	return n;
}

static void test_a_file_keeps_its_length(void)
{
	struct stat st;
	int fd = -1;

	CU_ASSERT_EQUAL_FATAL(tgs_region_create("test", 1 << 20, &fd), 0);
	CU_ASSERT_EQUAL(fstat(fd, &st), 0);
	CU_ASSERT_EQUAL(st.st_size, 1 << 20);
	CU_ASSERT_EQUAL(st.st_blocks, 0);
	CU_ASSERT(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	CU_ASSERT_EQUAL(ftruncate(fd, 0), -1);
	CU_ASSERT_EQUAL(errno, EPERM);
	CU_ASSERT_EQUAL(ftruncate(fd, 2 << 20), -1);
	CU_ASSERT_EQUAL(errno, EPERM);
	/* Nor may anybody seal it against writing. */
	CU_ASSERT_EQUAL(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	CU_ASSERT_EQUAL(errno, EPERM);
	/* Memory comes and goes all the same. */
	CU_ASSERT_EQUAL(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 65536), 0);
	CU_ASSERT_EQUAL(fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, 65536), 0);
	CU_ASSERT_EQUAL(fstat(fd, &st), 0);
	CU_ASSERT_EQUAL(st.st_blocks, 0);
	close(fd);
}

static void test_a_read_only_descriptor(void)
{
	int fd = -1, copy = -1;
	void *p;

	CU_ASSERT_EQUAL_FATAL(tgs_region_create("test", 1 << 20, &fd), 0);
	CU_ASSERT_EQUAL_FATAL(tgs_region_reopen_read_only(fd, &copy), 0);
	CU_ASSERT_EQUAL(fcntl(copy, F_GETFL) & O_ACCMODE, O_RDONLY);
	CU_ASSERT_EQUAL(write(copy, "x", 1), -1);
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, copy, 0);
	CU_ASSERT_PTR_EQUAL(p, MAP_FAILED);
	CU_ASSERT_EQUAL(errno, EACCES);
	p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, copy, 0);
	CU_ASSERT_PTR_NOT_EQUAL_FATAL(p, MAP_FAILED);
	CU_ASSERT_EQUAL(mprotect(p, 4096, PROT_READ | PROT_WRITE), -1);
	CU_ASSERT_EQUAL(errno, EACCES);
	/* It is the same file. */
	CU_ASSERT_EQUAL(pwrite(fd, "y", 1, 0), 1);
	CU_ASSERT_EQUAL(*(volatile char *)p, 'y');
	munmap(p, 4096);
	close(copy);
	close(fd);
}

static void test_two_views_of_one_heap(void)
{
	struct tgs_heap other;
	char why[256];
	int ro = -1;

	CU_ASSERT_EQUAL_FATAL(tgs_region_reopen_read_only(tgt_region.map_fd, &ro), 0);
	CU_ASSERT_EQUAL_FATAL(
		tgs_region_map(&other, ro, tgt_region.heap_fd, false, true, why, sizeof(why)), 0);
	CU_ASSERT_PTR_NOT_EQUAL(other.base, tgt_heap->base);
	CU_ASSERT_EQUAL(other.data - other.base, tgt_heap->data - tgt_heap->base);
	CU_ASSERT_EQUAL(other.data_bytes, TGT_REGION_PAGES * UINT64_C(8192));
	CU_ASSERT_STRING_EQUAL(other.map->name, "test");
	CU_ASSERT_EQUAL(other.map->reserve_bytes, TGT_REGION_PAGES * UINT64_C(8192));
	/* What one writes, the other one reads. */
	tgt_heap->data[12345] = 99;
	CU_ASSERT_EQUAL(other.data[12345], 99);
	tgt_put_span(7, 5, 3, 0);
	CU_ASSERT_EQUAL(other.page_map[7], tgt_heap->page_map[7]);
	tgt_heap->slots[9].mark = 1234;
	CU_ASSERT_EQUAL(other.slots[9].mark, 1234);
	tgs_region_unmap(&other);
	CU_ASSERT_PTR_NULL(other.base);
	CU_ASSERT_EQUAL(other.data_bytes, 0);
	close(ro);
}

static void test_the_address(void)
{
	struct tgs_heap other;
	uintptr_t base = tgt_heap->map->base;
	char why[256] = "", text[64];
	unsigned before = count_maps();

	CU_ASSERT_EQUAL(before, 2);
	/* Taken by ourselves, if that is where we got it. */
	if ((uintptr_t)tgt_heap->base == base) {
		CU_ASSERT_EQUAL(tgs_region_map(&other, tgt_region.map_fd, tgt_region.heap_fd, false,
					       false, why, sizeof(why)),
				-EADDRINUSE);
		snprintf(text, sizeof(text), "cannot map the heap at 0x%llx",
			 (unsigned long long)base);
		CU_ASSERT_PTR_NOT_NULL(strstr(why, text));
		CU_ASSERT_EQUAL(count_maps(), before);
	}
	tgs_region_unmap(tgt_heap);
	CU_ASSERT_EQUAL_FATAL(tgs_region_map(tgt_heap, tgt_region.map_fd, tgt_region.heap_fd, true,
					     false, why, sizeof(why)),
			      0);
	CU_ASSERT_EQUAL((uintptr_t)tgt_heap->base, base);
}

/* ---- what is refused ---- */

static void map_fails(int map_fd, int heap_fd, const char *text)
{
	struct tgs_heap heap = {0};
	char why[256] = "";
	unsigned before = count_maps();

	CU_ASSERT_EQUAL(tgs_region_map(&heap, map_fd, heap_fd, false, true, why, sizeof(why)),
			-EPROTO);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, text));
	if (strstr(why, text) == NULL)
		printf("\"%s\" is not in \"%s\"\n", text, why);
	CU_ASSERT_EQUAL(count_maps(), before);
	CU_ASSERT_PTR_NULL(heap.base);
}

static void header_fails(size_t at, const void *bytes, size_t n, const char *text)
{
	uint8_t saved[sizeof(struct tgs_map_header)];

	CU_ASSERT_EQUAL(pread(tgt_region.map_fd, saved, n, (off_t)at), (ssize_t)n);
	CU_ASSERT_EQUAL(pwrite(tgt_region.map_fd, bytes, n, (off_t)at), (ssize_t)n);
	map_fails(tgt_region.map_fd, tgt_region.heap_fd, text);
	CU_ASSERT_EQUAL(pwrite(tgt_region.map_fd, saved, n, (off_t)at), (ssize_t)n);
}

static void number_fails(size_t at, uint64_t value, const char *text)
{
	header_fails(at, &value, sizeof(value), text);
}

static void test_damaged_headers(void)
{
	uint32_t version = TGS_LAYOUT_VERSION + 1, n = 1;
	uint64_t magic = 0;

	number_fails(offsetof(struct tgs_map_header, magic), 0, "not one of a heap");
	header_fails(offsetof(struct tgs_map_header, layout_version), &version, sizeof(version),
		     "layout version 9");
	header_fails(offsetof(struct tgs_map_header, header_bytes), &n, sizeof(n),
		     "layout version");
	number_fails(offsetof(struct tgs_map_header, geometry.n_pages), 0, "header is damaged");
	number_fails(offsetof(struct tgs_map_header, geometry.n_pages), UINT64_MAX,
		     "header is damaged");
	number_fails(offsetof(struct tgs_map_header, geometry.n_pages), TGT_REGION_PAGES + 1,
		     "header is damaged");
	number_fails(offsetof(struct tgs_map_header, reserve_bytes), 8192, "header is damaged");
	number_fails(offsetof(struct tgs_map_header, geometry.dense_at), 0,
		     "geometry is not that of 4096 pages");
	number_fails(offsetof(struct tgs_map_header, geometry.data_at), UINT64_MAX,
		     "geometry is not that of 4096 pages");
	header_fails(offsetof(struct tgs_map_header, geometry.link_seq_bits), &n, sizeof(n),
		     "geometry");
	header_fails(offsetof(struct tgs_map_header, uuid), "another uuid....", 16,
		     "does not belong to the map");
	CU_ASSERT_EQUAL(pwrite(tgt_region.heap_fd, &magic, sizeof(magic), 0), sizeof(magic));
	map_fails(tgt_region.map_fd, tgt_region.heap_fd, "does not belong to the map");
}

static void test_files_that_are_others(void)
{
	struct tgs_geometry g;
	int longer = -1, unsealed = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING),
	    empty = -1;

	tgs_geometry_init(&g, TGT_REGION_PAGES);
	/* The two in the wrong order. */
	map_fails(tgt_region.heap_fd, tgt_region.map_fd, "not one of a heap");
	CU_ASSERT_EQUAL_FATAL(tgs_region_create("longer", g.heap_bytes + 8192, &longer), 0);
	map_fails(tgt_region.map_fd, longer, "the heap file has ");
	CU_ASSERT_EQUAL_FATAL(tgs_region_create("empty", 0, &empty), 0);
	map_fails(empty, tgt_region.heap_fd, "not one of a heap");
	map_fails(tgt_region.map_fd, empty, "the heap file has 0 bytes");
	/* One that a peer could cut off under us. */
	CU_ASSERT_EQUAL_FATAL(ftruncate(unsealed, (off_t)g.heap_bytes), 0);
	map_fails(tgt_region.map_fd, unsealed, "the heap file is not sealed");
	close(longer);
	close(empty);
	close(unsealed);
}

static void test_names(void)
{
	uint8_t uuid[16] = {1};
	char name[80];

	memset(name, 'n', sizeof(name));
	name[64] = '\0';
	CU_ASSERT_EQUAL(tgs_region_format(tgt_region.map_fd, tgt_region.heap_fd, name, uuid, 0, 1),
			-ENAMETOOLONG);
	name[63] = '\0';
	CU_ASSERT_EQUAL(tgs_region_format(tgt_region.map_fd, tgt_region.heap_fd, name, uuid, 4096,
					  TGT_REGION_PAGES),
			0);
	CU_ASSERT_STRING_EQUAL(tgt_heap->map->name, name);
	CU_ASSERT_EQUAL(tgt_heap->map->base, 4096);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"A memory file keeps its length and can have holes", test_a_file_keeps_its_length},
		{"A read-only descriptor cannot be written through", test_a_read_only_descriptor},
		{"Two views show the same heap", test_two_views_of_one_heap},
		{"A heap is mapped at its address, or not at all", test_the_address},
		{"A damaged header is refused", test_damaged_headers},
		{"Files of another heap, length or without seals are refused",
		 test_files_that_are_others},
		{"A heap's name has at most 63 bytes", test_names},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"region", NULL, NULL, tgt_region_set_up, tgt_region_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("region", suites);
}
