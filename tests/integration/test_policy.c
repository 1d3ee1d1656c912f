/* test_policy - what becomes of a client's objects when it ends: they stay (keep), or those do that it published (reclaim).
 *
 * Crashes in the middle of an operation are another matter; here the client is at rest, or ends by itself.
 */
#include <CUnit/CUnit.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

static const size_t sizes[] = {1, 7, 15, 16, 100, 512, 4096, 32768, 50000, 1 << 20};
#define N_SIZES (sizeof(sizes) / sizeof(*sizes))

enum how { EXIT, DETACH, KILLED };

struct story {
	struct tgt_meeting meeting;
	unsigned flags;
	enum how how;
	void **objects; /* in the heap: what the child made, 4 of each size */
	tg_link *link;
};

static void attach_as(unsigned flags)
{
	struct tg_options options = {
		.size = sizeof(options), .flags = flags, .name = "storyteller"};

	/* What a fork inherits is the parent's way of attaching. */
	TGT_REQUIRE(tg_detach() == 0);
	TGT_REQUIRE(tg_attach(&options) == 0);
}

/* Of each size: one that stays private, one published, and one freed. */
static void live_and_end(void *arg)
{
	struct story *story = arg;
	char root[32] = "root of the child";
	unsigned i;

	attach_as(story->flags);
	for (i = 0; i < N_SIZES; i++) {
		void **made = &story->objects[4 * i];

		made[0] = tg_malloc(sizes[i]);
		made[1] = tg_malloc(sizes[i]);
		made[2] = tg_malloc(sizes[i]);
		TGT_REQUIRE(made[0] != NULL && made[1] != NULL && made[2] != NULL);
		tgt_fill_object(made[0], sizes[i], i);
		tgt_fill_object(made[1], sizes[i], i + 100);
		tg_free(made[2]);
		switch (i % 3) {
		case 0:
			TGT_EXPECT(tg_publish(made[1]) == 0);
			break;
		case 1:
			root[0] = (char)('a' + i);
			TGT_EXPECT(tg_root_set(root, made[1]) == 0);
			break;
		case 2:
			TGT_EXPECT(tg_swap(&story->link[i], NULL, made[1], TG_GIVE));
			break;
		}
	}
	if (story->how == DETACH)
		TGT_EXPECT(tg_detach() == 0);
	tgt_tell_parent(&story->meeting);
	if (story->how != EXIT)
		TGT_REQUIRE(tgt_wait_parent_said(&story->meeting));
}

static void end_of_child(unsigned flags, enum how how)
{
	struct story story = {.flags = flags, .how = how};
	unsigned kept = flags & TG_RECLAIM ? N_SIZES : 2 * N_SIZES, i;
	pid_t pid;

	story.objects = tg_calloc(4 * N_SIZES, sizeof(void *));
	story.link = tg_calloc(N_SIZES, sizeof(*story.link));
	CU_ASSERT_FATAL(tgt_meeting_open(&story.meeting));
	pid = tgt_fork(live_and_end, &story);
	CU_ASSERT_FATAL(tgt_wait_child_said(&story.meeting));
	if (how == KILLED) {
		tgt_check(2 + 2 * N_SIZES);
		kill(pid, SIGKILL);
		CU_ASSERT_EQUAL(tgt_wait(pid), 128 + SIGKILL);
	}
	if (how == EXIT)
		CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	/* Who detaches is settled like the dead, but is not one of them. */
	CU_ASSERT(tgt_wait_at_most("clients", 1));
	CU_ASSERT(tgt_wait_at_least("recovered_clients", how != DETACH));
	CU_ASSERT_EQUAL(tgt_status("recovered_clients"), how != DETACH);
	tgt_check(2 + kept);
	if (how == DETACH) {
		tgt_tell_child(&story.meeting);
		CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	}
	/* What is left is as it was, and can be freed by whoever finds it. */
	for (i = 0; i < N_SIZES; i++) {
		void **made = &story.objects[4 * i];

		CU_ASSERT(tg_usable_size(made[1]) >= sizes[i]);
		CU_ASSERT(tgt_is_filled(made[1], sizes[i], i + 100));
		tg_free(made[1]);
		if (flags & TG_RECLAIM) {
			CU_ASSERT_EQUAL(tg_usable_size(made[0]), 0);
		} else {
			CU_ASSERT(tgt_is_filled(made[0], sizes[i], i));
			tg_free(made[0]);
		}
	}
	tg_free(story.objects);
	tg_free(story.link);
	tgt_check(0);
	tgt_meeting_close(&story.meeting);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	/* What no client held was freed into: the daemon finds it by itself. */
	CU_ASSERT(tgt_wait_at_most("span_bytes", 0));
}

static void test_keep_at_exit(void)
{
	end_of_child(0, EXIT);
}

static void test_keep_at_detach(void)
{
	end_of_child(0, DETACH);
}

static void test_keep_when_killed(void)
{
	end_of_child(0, KILLED);
}

static void test_reclaim_at_exit(void)
{
	end_of_child(TG_RECLAIM, EXIT);
}

static void test_reclaim_at_detach(void)
{
	end_of_child(TG_RECLAIM, DETACH);
}

static void test_reclaim_when_killed(void)
{
	end_of_child(TG_RECLAIM, KILLED);
}

/* ---- objects that others are freeing when their owner ends ---- */

#define MANY 200

static void make_many(void *arg)
{
	struct story *story = arg;
	unsigned i;

	attach_as(TG_RECLAIM);
	for (i = 0; i < MANY; i++) {
		story->objects[i] = tg_malloc(100);
		TGT_REQUIRE(story->objects[i] != NULL);
	}
	tgt_tell_parent(&story->meeting);
	TGT_REQUIRE(tgt_wait_parent_said(&story->meeting));
}

static void test_frees_still_buffered_when_the_owner_is_reclaimed(void)
{
	struct story story = {0};
	unsigned i;
	pid_t pid;

	story.objects = tg_calloc(MANY, sizeof(void *));
	CU_ASSERT_FATAL(tgt_meeting_open(&story.meeting));
	pid = tgt_fork(make_many, &story);
	CU_ASSERT_FATAL(tgt_wait_child_said(&story.meeting));
	tgt_check(1 + MANY);
	for (i = 0; i < MANY; i += 2)
		tg_free(story.objects[i]);
	CU_ASSERT(tgt_stats().pending_frees > 0);
	tgt_check(1 + MANY / 2);
	tgt_tell_child(&story.meeting);
	CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	CU_ASSERT(tgt_wait_at_least("recovered_clients", 1));
	tgt_check(1);
	/* The frees come late, for objects that died by their owner's end: each of them counts once. */
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_stats().pending_frees, 0);
	tgt_check(1);
	tg_free(story.objects);
	tgt_meeting_close(&story.meeting);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT(tgt_wait_at_most("span_bytes", 0));
}

static void free_and_end(void *arg)
{
	struct story *story = arg;
	unsigned i;

	attach_as(story->flags);
	for (i = 0; i < MANY; i++)
		tg_free(story->objects[i]);
	TGT_EXPECT(tgt_stats().pending_frees > 0);
	/* Without a word: the frees are in its slot, and settled from there. */
	kill(getpid(), SIGKILL);
}

static void frees_of_the_dead(unsigned flags)
{
	struct story story = {.flags = flags};
	unsigned i;

	story.objects = tg_calloc(MANY, sizeof(void *));
	for (i = 0; i < MANY; i++)
		story.objects[i] = tg_malloc(1 + 5 * i);
	tgt_check(1 + MANY);
	CU_ASSERT_EQUAL(tgt_in_child(free_and_end, &story), 128 + SIGKILL);
	CU_ASSERT(tgt_wait_at_least("recovered_clients", 1));
	tgt_check(1);
	CU_ASSERT_EQUAL(tgt_check_number("pending_frees"), 0);
	tg_free(story.objects);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

static void test_frees_of_a_client_that_is_killed(void)
{
	frees_of_the_dead(0);
}

static void test_frees_of_a_client_that_is_killed_and_reclaimed(void)
{
	frees_of_the_dead(TG_RECLAIM);
}

/* ---- a process that detaches, itself ---- */

static void test_objects_stay_over_a_detach(void)
{
	static tg_ref refs[N_SIZES];
	unsigned i;

	for (i = 0; i < N_SIZES; i++) {
		void *p = tg_malloc(sizes[i]);

		CU_ASSERT_PTR_NOT_NULL_FATAL(p);
		tgt_fill_object(p, sizes[i], i);
		refs[i] = tg_to_ref(p);
	}
	CU_ASSERT_EQUAL(tg_detach(), 0);
	tgt_check(N_SIZES);
	CU_ASSERT_EQUAL(tg_attach(NULL), 0);
	for (i = 0; i < N_SIZES; i++) {
		CU_ASSERT(tgt_is_filled(tg_from_ref(refs[i]), sizes[i], i));
		tg_free(tg_from_ref(refs[i]));
	}
}

static void test_policies_in_the_list_of_clients(void)
{
	const char *const args[] = {"clients", NULL};
	struct tg_options options = {
		.size = sizeof(options), .flags = TG_RECLAIM, .name = "somebody"};
	json_t *answer, *client;

	CU_ASSERT_EQUAL(tg_detach(), 0);
	CU_ASSERT_EQUAL(tg_attach(&options), 0);
	answer = tgt_tgctl(&tgt_d, args, NULL);
	client = json_array_get(json_object_get(answer, "clients"), 0);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(client, "policy")), "reclaim");
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(client, "name")), "somebody");
	CU_ASSERT_EQUAL(tgt_json_int(client, "pid"), getpid());
	json_decref(answer);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"keep: all objects stay when a client exits", test_keep_at_exit},
		{"keep: all objects stay when a client detaches", test_keep_at_detach},
		{"keep: all objects stay when a client is killed", test_keep_when_killed},
		{"reclaim: what is published stays when a client exits", test_reclaim_at_exit},
		{"reclaim: what is published stays when a client detaches", test_reclaim_at_detach},
		{"reclaim: what is published stays when a client is killed",
		 test_reclaim_when_killed},
		{"reclaim: frees that others hold back count once",
		 test_frees_still_buffered_when_the_owner_is_reclaimed},
		{"keep: the frees that a killed client held back are applied",
		 test_frees_of_a_client_that_is_killed},
		{"reclaim: the frees that a killed client held back are applied",
		 test_frees_of_a_client_that_is_killed_and_reclaimed},
		{"Objects are still there when their process attaches again",
		 test_objects_stay_over_a_detach},
		{"tgctl shows name and policy of a client", test_policies_in_the_list_of_clients},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"policy", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("policy", suites);
}
