/* test_attach - becoming a client and ceasing to be one, ten thousand times, and where the heap then lies.
 */
#include <CUnit/CUnit.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define CYCLES    10000u
#define PROCESSES 200u

static void set_up_daemon(void)
{
	tgt_set_up_daemon(NULL);
}

static unsigned count_maps(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned n = 0;
	int c;

	while (maps != NULL && (c = getc(maps)) != EOF)
		n += c == '\n';
	if (maps != NULL)
		fclose(maps);
	return n;
}

/* Bytes of addresses in use. */
static unsigned long long address_bytes(void)
{
	FILE *statm = fopen("/proc/self/statm", "re");
	unsigned long long pages = 0;

	if (statm != NULL && fscanf(statm, "%llu", &pages) != 1)
		pages = 0;
	if (statm != NULL)
		fclose(statm);
	return pages * 4096;
}

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (dir != NULL && readdir(dir) != NULL)
		n++;
	if (dir != NULL)
		closedir(dir);
	return n;
}

static void test_attaching_is_counted(void)
{
	void *p;

	CU_ASSERT_EQUAL(tg_detach(), -ENOTCONN);
	CU_ASSERT_EQUAL(tg_attach(NULL), 0);
	CU_ASSERT_EQUAL(tg_attach(NULL), 0);
	CU_ASSERT_EQUAL(tgt_status("clients"), 1);
	p = tg_malloc(10);
	CU_ASSERT_EQUAL(tg_detach(), 0);
	/* Still a client. */
	tg_free(p);
	p = tg_malloc(10);
	CU_ASSERT_PTR_NOT_NULL(p);
	tg_free(p);
	CU_ASSERT_EQUAL(tg_detach(), 0);
	CU_ASSERT_EQUAL(tg_detach(), -ENOTCONN);
	CU_ASSERT(tgt_wait_at_most("clients", 0));
}

static void free_something(void *arg)
{
	tg_free(arg);
}

static void test_calls_without_a_heap(void)
{
	struct tg_stats stats = {.size = sizeof(stats)};
	static tg_link link;
	char here[64], *output = NULL;

	errno = 0;
	CU_ASSERT_PTR_NULL(tg_malloc(10));
	CU_ASSERT_EQUAL(errno, ENOTCONN);
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_malloc(1));
	CU_ASSERT_EQUAL(errno, ENOTCONN);
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_malloc(100000));
	CU_ASSERT_EQUAL(errno, ENOTCONN);
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_calloc(10, 10));
	CU_ASSERT_EQUAL(errno, ENOTCONN);
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_aligned_alloc(64, 10));
	CU_ASSERT_EQUAL(errno, ENOTCONN);
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_realloc(NULL, 10));
	CU_ASSERT_EQUAL(errno, ENOTCONN);
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_root_get("r"));
	CU_ASSERT_EQUAL(errno, ENOTCONN);
	CU_ASSERT_EQUAL(tg_root_set("r", here), -ENOTCONN);
	CU_ASSERT_EQUAL(tg_root_cas("r", NULL, here), -ENOTCONN);
	errno = 0;
	CU_ASSERT_FALSE(tg_swap(&link, NULL, here, 0));
	CU_ASSERT_EQUAL(errno, ENOTCONN);
	CU_ASSERT_EQUAL(tg_publish(here), -EFAULT);
	CU_ASSERT_EQUAL(tg_usable_size(here), 0);
	CU_ASSERT_EQUAL(tg_to_ref(here), 0);
	CU_ASSERT_PTR_NULL(tg_from_ref(4096));
	CU_ASSERT_EQUAL(tg_stats(&stats), -ENOTCONN);
	CU_ASSERT_EQUAL(tg_trim(), -ENOTCONN);
	tg_free(NULL);
	CU_ASSERT_STRING_EQUAL(tg_version(), "0.1.0");
	CU_ASSERT_EQUAL(tgt_in_child_output(free_something, here, &output), 128 + SIGABRT);
	CU_ASSERT_PTR_NOT_NULL(strstr(output, "this process is not attached to a heap"));
	free(output);
}

/* One life of a client: it uses the heap a little. */
static bool cycle(unsigned i)
{
	void *small, *tiny, *large = NULL;

	if (!TGT_EXPECT(tg_attach(NULL) == 0))
		return false;
	small = tg_malloc(100);
	tiny = tg_malloc(7);
	TGT_EXPECT(small != NULL && tiny != NULL);
	if (i % 16 == 0) {
		large = tg_malloc(100000);
		TGT_EXPECT(large != NULL);
	}
	/* Half of it is left to the end of the client. */
	tg_free(small);
	tg_free(tiny);
	tg_free(large);
	return TGT_EXPECT(tg_detach() == 0);
}

static void test_ten_thousand_cycles(void)
{
	unsigned n = tgt_scaled(CYCLES), i, maps, fds;
	unsigned long long bytes;

	for (i = 0; i < 10 && cycle(i); i++)
		;
	maps = count_maps();
	fds = count_fds();
	bytes = address_bytes();
	for (i = 0; i < n && cycle(i); i++)
		;
	CU_ASSERT_EQUAL(i, n);
	/* A leak would show n times; the C library or a sanitizer may map some of its own. */
	CU_ASSERT(count_maps() <= maps + 16);
	CU_ASSERT_EQUAL(count_fds(), fds);
	/* Neighbours in memory are one mapping, however many there are. */
	CU_ASSERT(tgt_has_sanitizer() || address_bytes() <= bytes + (32u << 20));
	CU_ASSERT(tgt_wait_at_most("clients", 0));
	CU_ASSERT(tgt_wait_at_most("slots", 0));
	CU_ASSERT(tgt_wait_at_most("span_bytes", 0));
	/* Each said goodbye: none had to be recovered. */
	CU_ASSERT_EQUAL(tgt_status("recovered_clients"), 0);
}

static void many_cycles(void *arg)
{
	unsigned i, n = *(unsigned *)arg;

	for (i = 0; i < n && cycle(i); i++)
		;
	/* Every other one leaves without saying so. */
	if (getpid() % 2 == 0)
		TGT_EXPECT(tg_attach(NULL) == 0);
}

static void test_two_hundred_processes(void)
{
	static pid_t pids[PROCESSES];
	unsigned n = tgt_scaled(CYCLES / PROCESSES), i, died;

	for (i = 0; i < PROCESSES; i++) {
		pids[i] = tgt_fork(many_cycles, &n);
		CU_ASSERT_FATAL(pids[i] > 0);
	}
	for (i = 0; i < PROCESSES; i++)
		CU_ASSERT_EQUAL(tgt_wait(pids[i]), 0);
	/* Those with an even pid, of which the kernel gives out about half; each once. */
	for (i = 0, died = 0; i < PROCESSES; i++)
		died += pids[i] % 2 == 0;
	CU_ASSERT(tgt_wait_at_least("recovered_clients", died));
	CU_ASSERT_EQUAL(tgt_status("recovered_clients"), died);
	CU_ASSERT(tgt_wait_at_most("clients", 0));
	CU_ASSERT(tgt_wait_at_most("slots", 0));
	CU_ASSERT(tgt_wait_at_most("span_bytes", 0));
}

/* ---- where it lies ---- */

/* Objects are aligned as asked for, or there are none: the daemon cares for the heap's usual address. */
static void alignment_elsewhere(void)
{
	size_t align;
	unsigned i;

	for (align = 1; align <= (size_t)1 << 30; align *= 2) {
		for (i = 0; i < 3; i++) {
			void *p = tg_aligned_alloc(align, 100000), *q;

			q = tg_aligned_alloc(align, 1);
			TGT_EXPECT(((uintptr_t)p & (align - 1)) == 0);
			TGT_EXPECT(((uintptr_t)q & (align - 1)) == 0);
			TGT_EXPECT(align > 4 << 20 || (p != NULL && q != NULL));
			tg_free(p);
			tg_free(q);
		}
	}
}

/* Attaches where another mapping is in the way; shares a ref and no pointer. */
static void attach_elsewhere(void *arg)
{
	struct tg_options options = {.size = sizeof(options)};
	tg_ref ref = *(tg_ref *)arg;
	uint8_t *base = (uint8_t *)tg_from_ref(ref) - ref, *obstacle;
	uint64_t *p;

	TGT_REQUIRE(tg_detach() == 0);
	obstacle = mmap(base + (1 << 20), 4096, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	TGT_REQUIRE(obstacle == base + (1 << 20));
	TGT_EXPECT(tg_attach(&options) == -EADDRINUSE);
	TGT_EXPECT(strstr(tg_attach_error(), "cannot map the heap at 0x") != NULL);
	TGT_EXPECT(strstr(tg_attach_error(), "TG_ANY_ADDRESS") != NULL);
	TGT_EXPECT(tg_malloc(10) == NULL && errno == ENOTCONN);

	options.flags = TG_ANY_ADDRESS;
	TGT_REQUIRE(tg_attach(&options) == 0);
	p = tg_from_ref(ref);
	TGT_REQUIRE(p != NULL);
	TGT_EXPECT((uint8_t *)p != base + ref);
	TGT_EXPECT(*p == 4711);
	tg_free(p);
	/* Everything works there, as long as no pointer is shared. */
	p = tg_root_get("the other");
	TGT_REQUIRE(p != NULL);
	TGT_EXPECT(*p == 4712);
	p = tg_calloc(1, sizeof(*p));
	TGT_REQUIRE(p != NULL);
	*p = 4713;
	TGT_EXPECT(tg_root_set("the third", p) == 0);
	alignment_elsewhere();
}

static void test_another_address(void)
{
	uint64_t *p, *q;
	tg_ref ref;

	CU_ASSERT_EQUAL(tg_attach(NULL), 0);
	p = tg_malloc(sizeof(*p));
	q = tg_malloc(sizeof(*q));
	*p = 4711;
	*q = 4712;
	ref = tg_to_ref(p);
	CU_ASSERT_EQUAL(tg_root_set("the other", q), 0);
	CU_ASSERT_EQUAL(tgt_in_child(attach_elsewhere, &ref), 0);
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	tgt_check(2);
	p = tg_root_get("the third");
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	CU_ASSERT_EQUAL(*p, 4713);
	tg_free(p);
	tg_free(q);
	CU_ASSERT_EQUAL(tg_detach(), 0);
}

/* As any program might look: what it can reach of the two files, it can write only where it should. */
static void look_at_mappings(void *arg)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned n_maps = 0, n_heaps = 0;
	char line[512];

	(void)arg;
	TGT_REQUIRE(maps != NULL);
	while (fgets(line, sizeof(line), maps) != NULL) {
		unsigned long long from, to;
		char perms[5];

		if (sscanf(line, "%llx-%llx %4s", &from, &to, perms) != 3)
			continue;
		if (strstr(line, "memfd:tg-map") != NULL) {
			n_maps++;
			TGT_EXPECT(strcmp(perms, "r--s") == 0);
			TGT_EXPECT(mprotect((void *)(uintptr_t)from, to - from,
					    PROT_READ | PROT_WRITE) < 0 &&
				   errno == EACCES);
		}
		if (strstr(line, "memfd:tg-heap") != NULL) {
			n_heaps++;
			TGT_EXPECT(strcmp(perms, "rw-s") == 0);
		}
	}
	fclose(maps);
	TGT_EXPECT(n_maps == 1);
	TGT_EXPECT(n_heaps == 1);
}

static void test_the_map_is_read_only(void)
{
	CU_ASSERT_EQUAL(tg_attach(NULL), 0);
	CU_ASSERT_EQUAL(tgt_in_child(look_at_mappings, NULL), 0);
	CU_ASSERT_EQUAL(tg_detach(), 0);
}

static void touch_the_map(void *arg)
{
	(void)arg;
	/* The first byte of the map file's mapping; found as above. */
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long long from = 0;
	char line[512];

	TGT_REQUIRE(maps != NULL);
	while (fgets(line, sizeof(line), maps) != NULL && strstr(line, "memfd:tg-map") == NULL)
		;
	fclose(maps);
	TGT_REQUIRE(sscanf(line, "%llx", &from) == 1);
	signal(SIGSEGV, SIG_DFL);
	*(volatile char *)(uintptr_t)from = 1;
}

static void test_a_write_to_the_map_is_fatal(void)
{
	CU_ASSERT_EQUAL(tg_attach(NULL), 0);
	CU_ASSERT_EQUAL(tgt_in_child(touch_the_map, NULL), 128 + SIGSEGV);
	CU_ASSERT_EQUAL(tg_detach(), 0);
}

/* ---- a daemon of one's own ---- */

static void start_and_use(void *arg)
{
	struct tg_options options = {.size = sizeof(options), .socket = arg, .flags = TG_AUTOSTART};
	void *p;

	TGT_REQUIRE(tg_attach(&options) == 0);
	p = tg_malloc(100);
	TGT_EXPECT(p != NULL);
	tg_free(p);
	TGT_EXPECT(tg_detach() == 0);
}

static void test_autostart(void)
{
	struct tgt_daemon started = {.pid = 0};
	const char *const status[] = {"status", NULL}, *const stop[] = {"stop", NULL};
	struct tg_options options = {.size = sizeof(options), .socket = started.socket};
	json_t *answer;
	pid_t pids[4];
	unsigned i;

	snprintf(started.socket, sizeof(started.socket), "%s/auto", tgt_d.dir);
	CU_ASSERT_EQUAL(tg_attach(&options), -ENOENT);
	/* All at once: one of them starts it, the others find it. */
	for (i = 0; i < 4; i++)
		pids[i] = tgt_fork(start_and_use, started.socket);
	for (i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(tgt_wait(pids[i]), 0);
	answer = tgt_tgctl(&started, status, NULL);
	CU_ASSERT(tgt_json_int(answer, "pid") > 1);
	CU_ASSERT(tgt_json_int(answer, "recovered_clients") <= 4);
	json_decref(answer);
	json_decref(tgt_tgctl(&started, stop, NULL));
	CU_ASSERT_EQUAL(tg_attach(&options), -ENOENT);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"Attaching is counted, and so is detaching", test_attaching_is_counted},
		{"Without a heap every call says so", test_calls_without_a_heap},
		{"Ten thousand times attached and detached leaves nothing",
		 test_ten_thousand_cycles},
		{"Two hundred processes come and go at once", test_two_hundred_processes},
		{"At another address refs are shared", test_another_address},
		{"The map is mapped read-only and cannot be made writable",
		 test_the_map_is_read_only},
		{"A write to the map ends the writer", test_a_write_to_the_map_is_fatal},
		{"TG_AUTOSTART starts one daemon for all who want one", test_autostart},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"attach", NULL, NULL, set_up_daemon, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("attach", suites);
}
