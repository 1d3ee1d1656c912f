/* test_roots: names that lead to objects, as the daemon writes them and as a client reads them in
 * the map. */
#include <string.h>

#include "tests/support/heap.h"
#include "tests/support/runner.h"

static uint32_t client;
static unsigned slot;
static uint64_t first, second; /* refs of live objects */

static void two_objects(void)
{
	uint64_t page;

	start_heap(64 * MIB, 0);
	client = add_client(0);
	slot = open_slot(client);
	page = get_span(client, slot, 10).page;
	take_objects(page, 3);
	first = ref_of(page, 0);
	second = ref_of(page, 2);
}

/* What a client does, by the rules in layout.h: 0 if there is no such root. */
static uint64_t look_up(const char *name)
{
	uint64_t i;

	for (i = 0; i < view->map->n_roots; i++) {
		const struct tgs_root *root = &view->roots[i];
		uint32_t generation = root->generation;
		uint64_t ref;

		if (generation % 2 != 0 || strncmp(root->name, name, sizeof(root->name)) != 0)
			continue;
		ref = root->ref;
		if (ref != 0 && root->generation == generation)
			return ref;
	}
	return 0;
}

static int set(const char *name, uint64_t ref)
{
	return tgd_heap_root_set(heap, name, ref, false, 0);
}

static int swap(const char *name, uint64_t expected, uint64_t ref)
{
	return tgd_heap_root_set(heap, name, ref, true, expected);
}

static void a_root_is_set_changed_and_removed(void)
{
	CU_ASSERT_EQUAL(look_up("table"), 0);
	CU_ASSERT_EQUAL(set("table", first), 0);
	CU_ASSERT_EQUAL(look_up("table"), first);
	CU_ASSERT_EQUAL(set("table", second), 0);
	CU_ASSERT_EQUAL(look_up("table"), second);
	CU_ASSERT_EQUAL(status().roots, 1);
	CU_ASSERT_EQUAL(set("table", 0), 0);
	CU_ASSERT_EQUAL(look_up("table"), 0);
	CU_ASSERT_EQUAL(status().roots, 0);
	CU_ASSERT_EQUAL(set("table", 0), -ENOENT);
	CU_ASSERT(strstr(tgd_heap_why(heap), "table") != NULL);
}

static void compare_and_set_does_only_what_was_expected(void)
{
	CU_ASSERT_EQUAL(swap("x", first, second), -EAGAIN);
	CU_ASSERT_EQUAL(swap("x", 0, first), 0);
	CU_ASSERT_EQUAL(swap("x", 0, second), -EAGAIN);
	CU_ASSERT_EQUAL(look_up("x"), first);
	CU_ASSERT_EQUAL(swap("x", first, second), 0);
	CU_ASSERT_EQUAL(swap("x", first, 0), -EAGAIN);
	CU_ASSERT_EQUAL(swap("x", second, 0), 0);
	CU_ASSERT_EQUAL(look_up("x"), 0);
	/* There is none, as expected, and there shall be none. */
	CU_ASSERT_EQUAL(swap("x", 0, 0), 0);
	CU_ASSERT_EQUAL(status().roots, 0);
}

static void names_have_1_to_127_bytes(void)
{
	char name[129];

	memset(name, 'a', 128);
	name[128] = '\0';
	CU_ASSERT_EQUAL(set("", first), -EINVAL);
	CU_ASSERT_EQUAL(set(name, first), -ENAMETOOLONG);
	name[127] = '\0';
	CU_ASSERT_EQUAL(set(name, first), 0);
	CU_ASSERT_EQUAL(look_up(name), first);
	name[126] = '\0';
	CU_ASSERT_EQUAL(look_up(name), 0);
	CU_ASSERT_EQUAL(set(name, second), 0);
	name[126] = 'a';
	CU_ASSERT_EQUAL(look_up(name), first);
}

static void only_live_objects_get_a_root(void)
{
	uint64_t bad[] = {first + 1,
			  first + 3 * 128,
			  1,
			  8,
			  view->geometry.data_at - 8,
			  view->geometry.data_at + 5000 * PAGE,
			  view->geometry.heap_bytes,
			  view->geometry.heap_bytes + 100 * (uint64_t)PAGE,
			  UINT64_MAX};
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CU_ASSERT_EQUAL(set("x", bad[i]), -EFAULT);
	CU_ASSERT_EQUAL(look_up("x"), 0);
}

static void the_place_of_a_removed_root_is_used_again(void)
{
	char name[16];
	unsigned i;

	for (i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "root-%u", i);
		CU_ASSERT_EQUAL(set(name, first), 0);
		CU_ASSERT_EQUAL(set(name, 0), 0);
	}
	CU_ASSERT_EQUAL(view->map->n_roots, 1);
	CU_ASSERT_EQUAL(view->roots[0].generation % 2, 0);
	CU_ASSERT_EQUAL(set("root-5", first), 0);
	CU_ASSERT_EQUAL(look_up("root-5"), first);
	CU_ASSERT_EQUAL(look_up("root-999"), 0);
}

static void a_full_table_refuses_and_says_so(void)
{
	char name[16];
	unsigned i;

	for (i = 0; i < TGS_ROOTS_MAX; i++) {
		snprintf(name, sizeof(name), "%u", i);
		CU_ASSERT_EQUAL(set(name, first), 0);
	}
	CU_ASSERT_EQUAL(set("one more", first), -ENOSPC);
	CU_ASSERT_EQUAL(look_up("4095"), first);
	CU_ASSERT_EQUAL(set("77", 0), 0);
	CU_ASSERT_EQUAL(set("one more", first), 0);
	CU_ASSERT_EQUAL(status().roots, TGS_ROOTS_MAX);
}

static void roots_are_listed_with_the_size_of_their_object(void)
{
	uint64_t large = get_large(client, slot, 5).page;
	struct tgd_root_info info;

	take_object(large, 0);
	CU_ASSERT_EQUAL(set("small", first), 0);
	CU_ASSERT_EQUAL(set("removed", second), 0);
	CU_ASSERT_EQUAL(set("large", ref_of(large, 0)), 0);
	CU_ASSERT_EQUAL(set("removed", 0), 0);
	CU_ASSERT(tgd_heap_root_from(heap, 0, &info));
	CU_ASSERT_STRING_EQUAL(info.name, "small");
	CU_ASSERT_EQUAL(info.size, tgs_classes[10].size);
	CU_ASSERT_EQUAL(info.ref, first);
	CU_ASSERT(tgd_heap_root_from(heap, info.index + 1, &info));
	CU_ASSERT_STRING_EQUAL(info.name, "large");
	CU_ASSERT_EQUAL(info.size, 5 * PAGE);
	CU_ASSERT_FALSE(tgd_heap_root_from(heap, info.index + 1, &info));
	/* The object goes, the root stays, and says so. */
	drop_object(large, 0);
	CU_ASSERT_EQUAL(put_span(client, slot, large), 0);
	(void)tgd_heap_trim(heap);
	CU_ASSERT(tgd_heap_root_from(heap, 1, &info));
	CU_ASSERT_EQUAL(info.size, 0);
}

static CU_TestInfo roots[] = {
	{"a root is set, changed and removed", a_root_is_set_changed_and_removed},
	{"compare and set does only what was expected",
	 compare_and_set_does_only_what_was_expected},
	{"names have 1 to 127 bytes", names_have_1_to_127_bytes},
	{"only live objects get a root", only_live_objects_get_a_root},
	{"the place of a removed root is used again", the_place_of_a_removed_root_is_used_again},
	{"a full table refuses and says so", a_full_table_refuses_and_says_so},
	{"roots are listed with the size of their object",
	 roots_are_listed_with_the_size_of_their_object},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"roots", NULL, NULL, two_objects, end_heap, roots},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("roots", suites);
}
