/* test_full - a heap that is full refuses, harms nobody, and is usable again as soon as something is freed.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/message.h"
#include "tests/support/runner.h"

#define MIB         ((size_t)1 << 20)
#define LIMIT       (16 * MIB)
#define MAX_OBJECTS (LIMIT / 8)

static void **objects;

static void set_up(void)
{
	const char *const args[] = {"--limit", "16M", NULL};

	tgt_set_up_with(args, NULL);
	objects = calloc(MAX_OBJECTS, sizeof(*objects));
}

static void tear_down(void)
{
	tgt_tear_down();
	free(objects);
}

/* Takes objects of a size until there are no more; returns how many. */
static unsigned fill_up(size_t size)
{
	unsigned n = 0;

	errno = 0;
	while (n < MAX_OBJECTS && (objects[n] = tg_malloc(size)) != NULL) {
		tgt_fill_object(objects[n], size < 64 ? size : 64, n);
		n++;
	}
	CU_ASSERT(n < MAX_OBJECTS);
	CU_ASSERT_EQUAL(errno, ENOMEM);
	return n;
}

static void empty(unsigned n, size_t size)
{
	while (n-- > 0) {
		CU_ASSERT(tgt_is_filled(objects[n], size < 64 ? size : 64, n));
		tg_free(objects[n]);
	}
}

static void test_full_and_usable_again(void)
{
	static const size_t sizes[] = {9, 16, 100, 1000, 5000, 32768, 100000, 1 << 20, 5 << 20};
	unsigned i, n, again;

	for (i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		size_t size = sizes[i];

		n = fill_up(size);
		/* All of the limit could be used, up to what a class wastes. */
		CU_ASSERT(n * (size < 16 ? 16 : size) >= LIMIT * 7 / 10 || size > 4 * MIB);
		CU_ASSERT(tgt_status("span_bytes") <= (long long)LIMIT);
		CU_ASSERT_PTR_NULL(tg_calloc(1, 6 * MIB));
		CU_ASSERT_EQUAL(errno, ENOMEM);
		tgt_check(n);
		empty(n, size);
		tgt_check(0);
		/* The next round needs the memory in another class: what this one hoards has to go back by itself. */
	}
	for (again = 0; again < 3; again++) {
		n = fill_up(1000);
		CU_ASSERT(n >= LIMIT / 1024 * 7 / 10);
		empty(n, 1000);
	}
	CU_ASSERT(tgt_status("refused") > 0);
}

static void test_one_free_makes_room_for_one(void)
{
	unsigned n = fill_up(MIB), i;

	CU_ASSERT(n >= 15);
	for (i = 0; i < n; i++) {
		tg_free(objects[i]);
		objects[i] = tg_malloc(MIB);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i]);
		tgt_fill_object(objects[i], 64, i);
		CU_ASSERT_PTR_NULL(tg_malloc(MIB));
	}
	empty(n, MIB);
}

static void test_realloc_and_others_in_a_full_heap(void)
{
	unsigned n = fill_up(100000);
	void *p;

	errno = 0;
	CU_ASSERT_PTR_NULL(tg_realloc(objects[0], 900000));
	CU_ASSERT_EQUAL(errno, ENOMEM);
	errno = 0;
	CU_ASSERT_PTR_NULL(tg_aligned_alloc(1 << 20, 1 << 20));
	CU_ASSERT_EQUAL(errno, ENOMEM);
	/* To shrink is no request for memory. */
	p = tg_realloc(objects[0], 50000);
	CU_ASSERT_PTR_NOT_NULL(p);
	CU_ASSERT(tgt_is_filled(p, 64, 0));
	objects[0] = p;
	CU_ASSERT_EQUAL(tg_root_set("still", objects[1]), 0);
	CU_ASSERT_PTR_EQUAL(tg_root_get("still"), objects[1]);
	empty(n, 100000);
}

/* ---- several processes ---- */

struct sharing {
	struct tgt_meeting meeting;
	void *gift;
};

static void live_beside_it(void *arg)
{
	struct sharing *sharing = arg;
	void *p = tg_malloc(100), *q;

	TGT_REQUIRE(p != NULL);
	tgt_tell_parent(&sharing->meeting);
	TGT_REQUIRE(tgt_wait_parent_said(&sharing->meeting));
	/* The heap is full now: what this process has in hand still works, and frees do. */
	q = tg_malloc(100);
	TGT_EXPECT(q != NULL);
	tg_free(q);
	errno = 0;
	TGT_EXPECT(tg_malloc(MIB) == NULL && errno == ENOMEM);
	tg_free(sharing->gift);
	tg_free(p);
	TGT_EXPECT(tg_trim() == 0);
}

static void test_other_clients_go_on(void)
{
	struct sharing sharing;
	unsigned n;
	pid_t pid;

	CU_ASSERT_FATAL(tgt_meeting_open(&sharing.meeting));
	sharing.gift = tg_malloc(MIB);
	pid = tgt_fork(live_beside_it, &sharing);
	CU_ASSERT(tgt_wait_child_said(&sharing.meeting));
	n = fill_up(MIB / 4);
	tgt_tell_child(&sharing.meeting);
	CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	/* What the other one freed is its owner's to use. */
	objects[n] = tg_malloc(MIB);
	CU_ASSERT_PTR_NOT_NULL(objects[n]);
	tg_free(objects[n]);
	empty(n, MIB / 4);
	tgt_meeting_close(&sharing.meeting);
}

static void hoard(void *arg)
{
	struct sharing *sharing = arg;
	unsigned i;
	void *p;

	/* So that its end is seen. */
	close(sharing->meeting.to_child[1]);
	for (i = 0; i < 1000; i++) {
		objects[i] = tg_malloc(10000);
		TGT_REQUIRE(objects[i] != NULL);
	}
	for (i = 0; i < 1000; i++)
		tg_free(objects[i]);
	tgt_tell_parent(&sharing->meeting);
	while (tgt_wait_parent_said(&sharing->meeting)) {
		/* A little life, by which it hears what the daemon asks for. */
		for (i = 0; i < 100; i++) {
			p = tg_malloc(1 + i * 7);
			TGT_EXPECT(p != NULL);
			tg_free(p);
		}
		tgt_tell_parent(&sharing->meeting);
	}
}

/* What one process hoards, another one gets when it needs it. */
static void test_pressure_reaches_other_processes(void)
{
	struct sharing sharing;
	void *p = NULL;
	unsigned i;
	pid_t pid;

	CU_ASSERT_FATAL(tgt_meeting_open(&sharing.meeting));
	pid = tgt_fork(hoard, &sharing);
	CU_ASSERT(tgt_wait_child_said(&sharing.meeting));
	for (i = 0; i < 1000 && p == NULL; i++) {
		p = tg_malloc(15 * MIB);
		tgt_tell_child(&sharing.meeting);
		CU_ASSERT_FATAL(tgt_wait_child_said(&sharing.meeting));
	}
	CU_ASSERT_PTR_NOT_NULL(p);
	tg_free(p);
	close(sharing.meeting.to_child[1]);
	sharing.meeting.to_child[1] = -1;
	CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	tgt_meeting_close(&sharing.meeting);
}

static void grab(void *arg)
{
	uint64_t random = (uint64_t)(uintptr_t)arg + 1;
	void *held[300] = {NULL};
	unsigned i, refused = 0, n = tgt_scaled(30000);

	for (i = 0; i < n; i++) {
		void **p = &held[tgt_random(&random) % 300];
		size_t size = (size_t)1 << tgt_random(&random) % 20;

		tg_free(*p);
		*p = tg_malloc(size);
		if (*p != NULL) {
			memset(*p, 0x11, size < 100 ? size : 100);
		} else {
			TGT_EXPECT(errno == ENOMEM);
			refused++;
		}
	}
	TGT_EXPECT(refused > 0);
	for (i = 0; i < 300; i++)
		tg_free(held[i]);
}

static void test_processes_fight_for_the_last_page(void)
{
	pid_t pids[4];
	unsigned i;

	for (i = 0; i < 4; i++)
		pids[i] = tgt_fork(grab, (void *)(uintptr_t)i);
	for (i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(tgt_wait(pids[i]), 0);
	CU_ASSERT(tgt_wait_at_most("span_bytes", 0));
}

/* ---- the limit changes ---- */

static int set_limit(const char *text)
{
	const char *const args[] = {"limit", text, NULL};
	int status;

	json_decref(tgt_tgctl(&tgt_d, args, &status));
	return status;
}

static void test_the_limit_is_lowered_and_raised(void)
{
	unsigned n, more;

	for (n = 0; n < 8; n++) {
		objects[n] = tg_malloc(MIB);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[n]);
		tgt_fill_object(objects[n], 64, n);
	}
	/* Below what is in use: refused, and nothing changes. */
	CU_ASSERT_EQUAL(set_limit("4M"), 1);
	CU_ASSERT_EQUAL(tgt_status("limit_bytes"), 16 << 20);
	CU_ASSERT_EQUAL(set_limit("8M"), 0);
	CU_ASSERT_EQUAL(tgt_status("limit_bytes"), 8 << 20);
	CU_ASSERT_PTR_NULL(tg_malloc(MIB));
	CU_ASSERT_EQUAL(set_limit("32M"), 0);
	for (more = n; more < 31; more++) {
		objects[more] = tg_malloc(MIB);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[more]);
		tgt_fill_object(objects[more], 64, more);
	}
	CU_ASSERT_EQUAL(set_limit("0"), 1);
	CU_ASSERT_EQUAL(set_limit("100T"), 1);
	CU_ASSERT_EQUAL(set_limit("much"), 2);
	CU_ASSERT_EQUAL(tgt_status("limit_bytes"), 32 << 20);
	empty(more, MIB);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(set_limit("1M"), 0);
	CU_ASSERT_PTR_NULL(tg_malloc(2 * MIB));
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"A full heap refuses, and is usable again for objects of any size",
		 test_full_and_usable_again},
		{"One free makes room for one object", test_one_free_makes_room_for_one},
		{"Nothing is lost by what a full heap refuses",
		 test_realloc_and_others_in_a_full_heap},
		{"Other clients go on in a full heap", test_other_clients_go_on},
		{"What one process hoards goes to another one that needs it",
		 test_pressure_reaches_other_processes},
		{"Processes fight for the last page and all ends well",
		 test_processes_fight_for_the_last_page},
		{"The limit is lowered, not below what is in use, and raised",
		 test_the_limit_is_lowered_and_raised},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"full", NULL, NULL, set_up, tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("full", suites);
}
