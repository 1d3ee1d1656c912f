/* test_badfree - double and invalid frees are seen, told, and do no harm.
 *
 * In the default mode they abort: those tests fork a child and read what it says.  With TG_ON_ERROR=count they are
 * counted: then the heap must stay exact.  Where others free, too, is test_badfree_others.
 */
#include <CUnit/CUnit.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client/process.h"
#include "client/tg.h"
#include "shm/sizeclass.h"
#include "tests/support/badfree.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define ABORTED (128 + 6)

/* ---- aborting ---- */

struct culprit {
	uint8_t *object;
	ptrdiff_t at; /* what is freed, from the object on */
	size_t size;  /* allocated by the child itself, if there is no object */
	bool twice;
};

static void no_core(void)
{
	struct rlimit none = {0, 0};

	setrlimit(RLIMIT_CORE, &none);
}

static void offend(void *arg)
{
	struct culprit *culprit = arg;
	uint8_t *p = culprit->object;

	no_core();
	if (p == NULL) {
		p = tg_malloc(culprit->size);
		dprintf(2, "allocated %p\n", (void *)p);
	}
	if (culprit->twice)
		tg_free(p);
	tg_free(p + culprit->at);
}

/* The child aborts, and says these words. */
static void aborts_with(struct culprit *culprit, const char *const *words)
{
	char *output = NULL;

	CU_ASSERT_EQUAL(tgt_in_child_output(offend, culprit, &output), ABORTED);
	CU_ASSERT_PTR_NOT_NULL_FATAL(output);
	for (; *words != NULL; words++) {
		if (strstr(output, *words) == NULL)
			printf("\"%s\" is not in:\n%s", *words, output);
		CU_ASSERT_PTR_NOT_NULL(strstr(output, *words));
	}
	free(output);
}

/* "class 13 (192 bytes)", as the message names it. */
static const char *class_text(size_t size, char *text, size_t n)
{
	unsigned class;

	if (size > TGS_SMALL_MAX) {
		snprintf(text, n, "large object");
	} else if (size < 16) {
		snprintf(text, n, "class 68 (tiny)");
	} else {
		class = tgs_size_to_class(size);
		snprintf(text, n, "class %u (%u bytes)", class, tgs_classes[class].size);
	}
	return text;
}

static void test_own_double_free_aborts(void)
{
	unsigned i;

	for (i = 0; i < N_KINDS; i++) {
		struct culprit culprit = {.size = kinds[i], .twice = true};
		char class[64];
		const char *const words[] = {"together: pid ",
					     "double free of 0x",
					     class_text(kinds[i], class, sizeof(class)),
					     "owned by thread slot ",
					     "test_badfree",
					     "aborting (TG_ON_ERROR=count goes on)",
					     NULL};

		aborts_with(&culprit, words);
	}
}

static void test_foreign_double_free_aborts(void)
{
	unsigned i;

	for (i = 0; i < N_KINDS; i++) {
		struct culprit culprit = {.object = tg_malloc(kinds[i]), .twice = true};
		char class[64], address[64], owner[64];
		const char *const words[] = {address, class_text(kinds[i], class, sizeof(class)),
					     owner, NULL};

		CU_ASSERT_PTR_NOT_NULL_FATAL(culprit.object);
		snprintf(address, sizeof(address), "double free of %p", (void *)culprit.object);
		snprintf(owner, sizeof(owner), " of pid %d (", (int)getpid());
		aborts_with(&culprit, words);
		/* The first of the two frees was in order. */
		tgt_check(0);
	}
}

static void test_invalid_free_aborts(void)
{
	char on_stack[64], address[64], class[64];
	uint8_t *small = tg_malloc(512), *large = tg_malloc(100000);
	struct culprit culprits[] = {
		{.object = (uint8_t *)on_stack},   {.object = small, .at = 8},
		{.object = large, .at = 16},       {.object = large, .at = 8192},
		{.object = large, .at = 50 << 20},
	};
	const char *whys[] = {
		"does not lie in the heap, which is at 0x",
		"no object starts there",
		"no object starts there",
		"is free, or inside a large object",
		"is free, or inside a large object",
	};
	const char *classes[] = {"", class_text(512, class, sizeof(class)),
				 "large object of 13 pages", "page ", "page "};
	unsigned i;

	for (i = 0; i < 5; i++) {
		const char *const words[] = {address, whys[i], classes[i], NULL};

		snprintf(address, sizeof(address), "invalid free of %p",
			 (void *)(culprits[i].object + culprits[i].at));
		aborts_with(&culprits[i], words);
	}
	tgt_check(2);
	tg_free(small);
	tg_free(large);
}

/* ---- counting ---- */

static void test_own_double_frees_are_counted(void)
{
	unsigned i, k;

	for (i = 0; i < N_KINDS; i++) {
		void *p = tg_malloc(kinds[i]), *other = tg_malloc(kinds[i]);

		tg_free(p);
		for (k = 0; k < 3; k++)
			tg_free(p);
		errors_are(3 * i + 3);
		/* Counted, and nothing else: the next two objects are two. */
		p = tg_malloc(kinds[i]);
		CU_ASSERT_PTR_NOT_EQUAL(p, other);
		tgt_check(2);
		tg_free(p);
		tg_free(other);
		tgt_check(0);
	}
}

/* More than there is room for hints: the rest gathers unit by unit. */
static void test_double_frees_among_many_are_counted(void)
{
	static const size_t sizes[] = {8, 64, 1024};
	static uint8_t *objects[2000];
	unsigned i, k, n = TGS_ARRAY_LEN(objects);

	for (k = 0; k < TGS_ARRAY_LEN(sizes); k++) {
		for (i = 0; i < n; i++)
			objects[i] = tg_malloc(sizes[k]);
		for (i = 0; i < n; i++)
			tg_free(objects[i]);
		tg_free(objects[0]);
		tg_free(objects[n / 2]);
		tg_free(objects[n - 1]);
		errors_are(3 * k + 3);
		tgt_check(0);
		/* No slot is there twice, and none was lost. */
		for (i = 0; i < n; i++) {
			objects[i] = tg_malloc(sizes[k]);
			*objects[i] = (uint8_t)i;
		}
		tgt_check(n);
		for (i = 0; i < n; i++) {
			CU_ASSERT_EQUAL_FATAL(*objects[i], (uint8_t)i);
			tg_free(objects[i]);
		}
		tgt_check(0);
	}
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

static void test_invalid_frees_are_counted(void)
{
	char on_stack[64];
	static char elsewhere[64];
	uint8_t *small = tg_malloc(4096), *tiny = tg_malloc(15), *large = tg_malloc(100000);

	memset(small, 0, 4096);
	tg_free(on_stack);
	tg_free(elsewhere);
	tg_free(small + 1);
	tg_free(small + 16);
	tg_free(small + 4095);
	tg_free(tiny + 1);
	tg_free(tiny + 8);
	tg_free(large + 1);
	tg_free(large + 8192);
	tg_free(large + (60 << 20));
	errors_are(10);
	tgt_check(3);
	tg_free(small);
	tg_free(tiny);
	tg_free(large);
	errors_are(10);
}

/* Addresses of nothing, with the low bits of our objects', by which tg_free finds what it knows of a page. */
static void test_frees_beside_the_heap_are_counted(void)
{
	static const size_t sizes[] = {8, 64, 1024};
	uint64_t far = TGS_PAGE_SIZE;
	unsigned i, k;

	while (far < tgc_heap.data_bytes)
		far *= 2;
	for (i = 0; i < TGS_ARRAY_LEN(sizes); i++) {
		uintptr_t p = (uintptr_t)tg_malloc(sizes[i]);

		for (k = 0; k < 3; k++) {
			tg_free((void *)(p + (far << k)));
			tg_free((void *)(p - (far << k)));
		}
		errors_are(6 * (i + 1));
		tgt_check(1);
		tg_free((void *)p);
		tgt_check(0);
	}
}

static void test_stale_pointers_are_counted(void)
{
	void *p = tg_malloc(64), *q = tg_malloc(100000), *r;

	tg_free(p);
	CU_ASSERT_EQUAL(tg_realloc(p, 128), NULL);
	tg_free(q);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	/* Not only the objects, also their spans are gone. */
	tg_free(p);
	tg_free(q);
	CU_ASSERT_EQUAL(tg_usable_size(p), 0);
	CU_ASSERT_NOT_EQUAL(tg_publish(q), 0);
	errors_are(3);
	r = tg_malloc(16);
	CU_ASSERT_PTR_NOT_NULL(r);
	tg_free(r);
}

static void test_the_wrong_word_for_on_error(void)
{
	setenv("TG_ON_ERROR", "ignore", 1);
	CU_ASSERT_EQUAL(tg_detach(), 0);
	CU_ASSERT_NOT_EQUAL(tg_attach(NULL), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(tg_attach_error(), "TG_ON_ERROR"));
	CU_ASSERT_PTR_NOT_NULL(strstr(tg_attach_error(), "ignore"));
	unsetenv("TG_ON_ERROR");
	CU_ASSERT_EQUAL(tg_attach(NULL), 0);
}

int main(void)
{
	CU_TestInfo aborting[] = {
		{"A double free aborts, naming address, class and owner",
		 test_own_double_free_aborts},
		{"A double free of another process's object aborts too",
		 test_foreign_double_free_aborts},
		{"A free of what is no object aborts and says what is there",
		 test_invalid_free_aborts},
		CU_TEST_INFO_NULL,
	};
	CU_TestInfo counting[] = {
		{"Double frees are counted and change nothing", test_own_double_frees_are_counted},
		{"Double frees among many are counted, and lose nothing",
		 test_double_frees_among_many_are_counted},
		{"Frees of what is no object are counted and change nothing",
		 test_invalid_frees_are_counted},
		{"Frees of addresses like those of objects, beside the heap, are counted",
		 test_frees_beside_the_heap_are_counted},
		{"Pointers to objects long gone are seen as such", test_stale_pointers_are_counted},
		{"TG_ON_ERROR can be abort or count and nothing else",
		 test_the_wrong_word_for_on_error},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"aborting", NULL, NULL, tgt_set_up, tgt_tear_down, aborting},
		{"counting", NULL, NULL, count_errors, tgt_tear_down, counting},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("badfree", suites);
}
