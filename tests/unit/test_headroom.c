/* test_headroom: how much memory is left, read from files that look like the kernel's. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/headroom.h"
#include "tests/support/runner.h"

#define MIB (UINT64_C(1) << 20)

static char dir[] = "/tmp/tg-headroom-XXXXXX";
static char meminfo[PATH_MAX], self_cgroup[PATH_MAX], cgroup_root[PATH_MAX];
static struct tgd_headroom headroom;

static void write_file(const char *name, const char *text)
{
	char path[PATH_MAX];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(file);
	CU_ASSERT(fputs(text, file) >= 0);
	CU_ASSERT_EQUAL(fclose(file), 0);
}

static void make_dir(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	CU_ASSERT(mkdir(path, 0700) == 0 || errno == EEXIST);
}

static void remove_all(void)
{
	static const char *const names[] = {"meminfo",
					    "self",
					    "cg/a/b/memory.max",
					    "cg/a/b/memory.high",
					    "cg/a/b/memory.current",
					    "cg/a/b/memory.stat",
					    "cg/a/memory.max",
					    "cg/a/memory.current",
					    "cg/a/b",
					    "cg/a",
					    "cg",
					    ""};
	char path[PATH_MAX];
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		(void)remove(path);
	}
}

/* 4 GiB, of which 1 GiB is available; a process in cgroup /a/b, without limits. */
static void a_machine(void)
{
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	make_dir("cg");
	make_dir("cg/a");
	make_dir("cg/a/b");
	write_file("meminfo", "MemTotal:        4194304 kB\nMemFree:            1024 kB\n"
			      "MemAvailable:    1048576 kB\n");
	write_file("self", "12:cpu:/elsewhere\n0::/a/b\n");
	snprintf(meminfo, sizeof(meminfo), "%s/meminfo", dir);
	snprintf(self_cgroup, sizeof(self_cgroup), "%s/self", dir);
	snprintf(cgroup_root, sizeof(cgroup_root), "%s/cg", dir);
	tgd_headroom_init(&headroom);
	headroom.meminfo = meminfo;
	headroom.self_cgroup = self_cgroup;
	headroom.cgroup_root = cgroup_root;
}

/* 2 % of 4 GiB. */
static const uint64_t machine_reserve = UINT64_C(4194304) * 1024 / 50;

static void the_machine_keeps_a_reserve(void)
{
	CU_ASSERT_EQUAL(tgd_headroom_read(&headroom), 1024 * MIB - machine_reserve);
	write_file("meminfo", "MemTotal: 524288 kB\nMemAvailable: 131072 kB\n");
	CU_ASSERT_EQUAL(tgd_headroom_read(&headroom), 64 * MIB);
	write_file("meminfo", "MemTotal: 524288 kB\nMemAvailable: 1024 kB\n");
	CU_ASSERT_EQUAL(tgd_headroom_read(&headroom), 0);
}

static void the_lowest_limit_on_the_way_to_the_root_counts(void)
{
	write_file("cg/a/b/memory.max", "max\n");
	write_file("cg/a/b/memory.high", "524288000\n");
	write_file("cg/a/b/memory.current", "104857600\n");
	CU_ASSERT_EQUAL(tgd_headroom_read(&headroom), 400 * MIB);
	write_file("cg/a/b/memory.max", "209715200\n");
	CU_ASSERT_EQUAL(tgd_headroom_read(&headroom), 100 * MIB);
	write_file("cg/a/memory.max", "209715200\n");
	write_file("cg/a/memory.current", "199229440\n");
	CU_ASSERT_EQUAL(tgd_headroom_read(&headroom), 10 * MIB);
	write_file("cg/a/memory.current", "299229440\n");
	CU_ASSERT_EQUAL(tgd_headroom_read(&headroom), 0);
}

static void page_cache_that_can_be_dropped_is_no_use_of_memory(void)
{
	write_file("cg/a/b/memory.max", "209715200\n");
	write_file("cg/a/b/memory.current", "209715200\n");
	write_file("cg/a/b/memory.stat",
		   "anon 1\nfile 2\ninactive_file 10485760\nactive_file 20971520\n");
	CU_ASSERT_EQUAL(tgd_headroom_read(&headroom), 20 * MIB);
}

static void what_cannot_be_read_does_not_limit(void)
{
	uint64_t all = 1024 * MIB - machine_reserve;

	write_file("cg/a/b/memory.max", "garbage\n");
	CU_ASSERT_EQUAL(tgd_headroom_read(&headroom), all);
	write_file("self", "5:memory:/version/1\n");
	CU_ASSERT_EQUAL(tgd_headroom_read(&headroom), all);
	write_file("self", "");
	CU_ASSERT_EQUAL(tgd_headroom_read(&headroom), all);
	write_file("meminfo", "nothing\n");
	CU_ASSERT(tgd_headroom_read(&headroom) > UINT64_MAX / 2048);
	headroom.meminfo = "/nonexistent";
	CU_ASSERT_EQUAL(tgd_headroom_read(&headroom), UINT64_MAX);
}

static void takes_are_counted_down_and_given_back(void)
{
	uint64_t all = 1024 * MIB - machine_reserve;

	CU_ASSERT(tgd_headroom_take(&headroom, 100 * MIB));
	CU_ASSERT(headroom.left == all - 100 * MIB);
	tgd_headroom_give(&headroom, 40 * MIB);
	CU_ASSERT(headroom.left == all - 60 * MIB);
	CU_ASSERT_FALSE(tgd_headroom_take(&headroom, 2048 * MIB));
	/* A refusal comes after a fresh reading only: the machine may have more by now. */
	write_file("meminfo", "MemTotal: 4194304 kB\nMemAvailable: 4194304 kB\n");
	CU_ASSERT(tgd_headroom_take(&headroom, 2048 * MIB));
}

static void a_margin_is_kept_for_what_is_urgent(void)
{
	const uint64_t margin = TGD_HEADROOM_MARGIN;

	write_file("cg/a/b/memory.max", "209715200\n");
	write_file("cg/a/b/memory.current", "104857600\n");
	CU_ASSERT_EQUAL(tgd_headroom_read(&headroom), 100 * MIB);
	CU_ASSERT_FALSE(tgd_headroom_take(&headroom, 100 * MIB - margin + 1));
	CU_ASSERT(tgd_headroom_take(&headroom, 100 * MIB - margin));
	/* The kernel's figures follow. */
	write_file("cg/a/b/memory.current", "205520896\n");
	CU_ASSERT_EQUAL(tgd_headroom_read(&headroom), margin);
	CU_ASSERT_FALSE(tgd_headroom_take(&headroom, 1));
	headroom.urgent = true;
	CU_ASSERT(tgd_headroom_take(&headroom, margin));
	CU_ASSERT_EQUAL(headroom.left, 0);
	write_file("cg/a/b/memory.current", "209715200\n");
	CU_ASSERT_FALSE(tgd_headroom_take(&headroom, 1));
}

static void the_real_machine_can_be_read(void)
{
	struct tgd_headroom real;

	tgd_headroom_init(&real);
	CU_ASSERT(tgd_headroom_read(&real) > 0);
	CU_ASSERT(tgd_headroom_take(&real, 4096));
}

static CU_TestInfo tests[] = {
	{"the machine keeps a reserve", the_machine_keeps_a_reserve},
	{"the lowest limit on the way to the root counts",
	 the_lowest_limit_on_the_way_to_the_root_counts},
	{"page cache that can be dropped is no use of memory",
	 page_cache_that_can_be_dropped_is_no_use_of_memory},
	{"what cannot be read does not limit", what_cannot_be_read_does_not_limit},
	{"takes are counted down and given back", takes_are_counted_down_and_given_back},
	{"a margin is kept for what is urgent", a_margin_is_kept_for_what_is_urgent},
	{"the real machine can be read", the_real_machine_can_be_read},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"headroom", NULL, NULL, a_machine, remove_all, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("headroom", suites);
}
