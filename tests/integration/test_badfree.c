/* test_badfree - double and invalid frees are seen, told, and do no harm.
 *
 * In the default mode they abort: those tests fork a child and read what it says.  With TG_ON_ERROR=count they are
 * counted: then the heap must stay exact.
 */
#include <CUnit/CUnit.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client/process.h"
#include "client/tg.h"
#include "shm/sizeclass.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define ABORTED (128 + 6)

static const size_t kinds[] = {1, 7, 15, 16, 24, 500, 512, 20000, 32768, 50000, 1 << 20};
#define N_KINDS (sizeof(kinds) / sizeof(*kinds))

static void count_errors(void)
{
	setenv("TG_ON_ERROR", "count", 1);
	tgt_set_up();
	unsetenv("TG_ON_ERROR");
}

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

static void errors_are(uint64_t n)
{
	CU_ASSERT_EQUAL(tgt_stats().errors, n);
}

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

static void *free_twice(void *object)
{
	tg_free(object);
	tg_free(object);
	return NULL;
}

/* ---- at the same time ---- */

static struct {
	pthread_barrier_t barrier;
	unsigned rounds;
	void *object;
	void *made[2];
} race;

/* Two threads, which meet at the barrier with the one that starts them. */
static void start_race(pthread_t *threads, void *(*run)(void *))
{
	unsigned i;

	race.rounds = tgt_scaled(2000);
	CU_ASSERT_EQUAL_FATAL(pthread_barrier_init(&race.barrier, NULL, 3), 0);
	for (i = 0; i < 2; i++)
		CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, run, &race.made[i]), 0);
}

static void end_race(pthread_t *threads)
{
	unsigned i;

	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&race.barrier);
}

static void *race_to_free(void *unused)
{
	unsigned i;

	(void)unused;
	/* Of its own, so that it has hints. */
	tg_free(tg_malloc(100000));
	for (i = 0; i < race.rounds; i++) {
		pthread_barrier_wait(&race.barrier);
		tg_free(race.object);
		pthread_barrier_wait(&race.barrier);
	}
	return NULL;
}

/* A small object, and one of that size is made after it. */
static void *race_to_free_small(void *arg)
{
	void **made = arg;
	unsigned i;

	tg_free(tg_malloc(64));
	for (i = 0; i < race.rounds; i++) {
		pthread_barrier_wait(&race.barrier);
		tg_free(race.object);
		pthread_barrier_wait(&race.barrier);
		/* One after the other. */
		if (made == race.made + 1)
			pthread_barrier_wait(&race.barrier);
		*made = tg_malloc(64);
		if (made == race.made)
			pthread_barrier_wait(&race.barrier);
		pthread_barrier_wait(&race.barrier);
		tg_free(*made);
		pthread_barrier_wait(&race.barrier);
	}
	return NULL;
}

/* It may show only when the second one would use the slot again or, if it had no room to keep it at hand and buffered its
 * free, when the buffer is emptied: at the latest when it ends. */
static void test_what_two_threads_free_at_once_is_handed_out_once(void)
{
	pthread_t threads[2];
	unsigned i;

	start_race(threads, race_to_free_small);
	for (i = 0; i < race.rounds; i++) {
		race.object = tg_malloc(64);
		pthread_barrier_wait(&race.barrier);
		pthread_barrier_wait(&race.barrier);
		pthread_barrier_wait(&race.barrier);
		pthread_barrier_wait(&race.barrier);
		CU_ASSERT_PTR_NOT_EQUAL(race.made[0], race.made[1]);
		CU_ASSERT_TRUE(tgt_stats().errors <= i + 1);
		pthread_barrier_wait(&race.barrier);
	}
	end_race(threads);
	tgt_check(0);
	errors_are(race.rounds);
}

static void test_of_two_threads_that_free_at_once_one_is_told(void)
{
	pthread_t threads[2];
	unsigned i;

	start_race(threads, race_to_free);
	for (i = 0; i < race.rounds; i++) {
		/* Every other one takes the long way. */
		race.object = tg_malloc(100000);
		if (i % 2 == 1)
			CU_ASSERT_EQUAL(tg_publish(race.object), 0);
		pthread_barrier_wait(&race.barrier);
		pthread_barrier_wait(&race.barrier);
	}
	end_race(threads);
	errors_are(race.rounds);
	tgt_check(0);
}

static void test_another_threads_double_free_is_counted(void)
{
	pthread_t thread;
	unsigned i;

	for (i = 0; i < N_KINDS; i++) {
		void *p = tg_malloc(kinds[i]);

		CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, free_twice, p), 0);
		pthread_join(thread, NULL);
		errors_are(2 * i + 1);
		tgt_check(0);
		/* And once more by the owner, whether or not it has heard of it. */
		tg_free(p);
		errors_are(2 * i + 2);
		tgt_check(0);
	}
}

/* ---- what one thread keeps at hand of another's ---- */

struct keeper {
	pthread_barrier_t met;
	size_t size;
	void *object;
	bool at_hand; /* it was free for this thread, and for nobody else */
};

static void *keep_at_hand(void *arg)
{
	struct keeper *keeper = arg;
	void *p = keeper->object;

	/* It has a cache, then. */
	tg_free(tg_malloc(keeper->size));
	tg_free(p);
	pthread_barrier_wait(&keeper->met);
	/* Now the owner frees it, too. */
	pthread_barrier_wait(&keeper->met);
	keeper->object = tg_malloc(keeper->size);
	keeper->at_hand = keeper->object == p;
	return NULL;
}

static void test_the_owner_frees_what_a_thread_keeps_at_hand(void)
{
	static const size_t sizes[] = {16, 64, 500, 1024};
	struct keeper keeper;
	pthread_t thread;
	unsigned i, k;

	CU_ASSERT_EQUAL_FATAL(pthread_barrier_init(&keeper.met, NULL, 2), 0);
	for (i = 0; i < TGS_ARRAY_LEN(sizes); i++) {
		void *freed, *others[600];

		keeper.size = sizes[i];
		freed = keeper.object = tg_malloc(sizes[i]);
		CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, keep_at_hand, &keeper), 0);
		pthread_barrier_wait(&keeper.met);
		tgt_check(0);
		tg_free(freed);
		errors_are(i + 1);
		/* Not even if it looks for all that is free. */
		for (k = 0; k < TGS_ARRAY_LEN(others); k++) {
			others[k] = tg_malloc(sizes[i]);
			CU_ASSERT_PTR_NOT_EQUAL(others[k], freed);
		}
		pthread_barrier_wait(&keeper.met);
		pthread_join(thread, NULL);
		CU_ASSERT_TRUE(keeper.at_hand);
		for (k = 0; k < TGS_ARRAY_LEN(others); k++)
			tg_free(others[k]);
		tgt_check(1);
		tg_free(keeper.object);
		errors_are(i + 1);
		tgt_check(0);
	}
	pthread_barrier_destroy(&keeper.met);
}

struct thief {
	struct tgt_meeting meeting;
	void *object;
};

/* Frees the object and keeps the free in its buffer until it is told. */
static void keep_a_free(void *arg)
{
	struct thief *thief = arg;

	tg_free(thief->object);
	TGT_EXPECT(tgt_stats().pending_frees == 1);
	tgt_tell_parent(&thief->meeting);
	TGT_REQUIRE(tgt_wait_parent_said(&thief->meeting));
	TGT_EXPECT(tg_trim() == 0);
	TGT_EXPECT(tgt_stats().pending_frees == 0);
	TGT_EXPECT(tgt_stats().errors == 1);
}

static void free_it_first(void *arg)
{
	struct thief *thief = arg;

	tg_free(thief->object);
	TGT_EXPECT(tg_trim() == 0);
	TGT_EXPECT(tgt_stats().errors == 0);
}

/* Both other processes find the object live; the one that comes second with its swap finds out. */
static void test_two_processes_free_one_object(void)
{
	static const size_t held_back[] = {1, 15, 16, 500, 2048};
	unsigned i;

	for (i = 0; i < 5; i++) {
		struct thief thief = {.object = tg_malloc(held_back[i])};
		char *output = NULL;
		pid_t pid;

		CU_ASSERT_FATAL(tgt_meeting_open(&thief.meeting));
		pid = tgt_fork(keep_a_free, &thief);
		CU_ASSERT(tgt_wait_child_said(&thief.meeting));
		tgt_check(0);
		CU_ASSERT_EQUAL(tgt_in_child_output(free_it_first, &thief, &output), 0);
		CU_ASSERT_STRING_EQUAL(output, "");
		free(output);
		tgt_check(0);
		tgt_tell_child(&thief.meeting);
		CU_ASSERT_EQUAL(tgt_wait(pid), 0);
		tgt_check(0);
		tgt_meeting_close(&thief.meeting);
		errors_are(0);
	}
}

#define SHELF 200

struct shelf {
	size_t size;
	uint8_t *objects[SHELF];
};

/* Each object once, and with each something that is none: behind the last slot of its page, inside of it, itself again. */
static void free_with_what_is_none(void *arg)
{
	const struct shelf *shelf = arg;
	const struct tgs_class *class = &tgs_classes[tgs_size_to_class(shelf->size)];
	unsigned i;

	for (i = 0; i < SHELF; i++) {
		uint8_t *p = shelf->objects[i];
		uint8_t *page = p - (uintptr_t)p % TGS_PAGE_SIZE;

		tg_free(page + class->n_slots * class->size);
		tg_free(p + 1);
		tg_free(p);
		tg_free(p);
		TGT_EXPECT(tgt_stats().errors == 3 * (i + 1));
	}
	TGT_EXPECT(tgt_stats().foreign_frees == SHELF);
	TGT_EXPECT(tg_trim() == 0);
	TGT_EXPECT(tgt_stats().errors == 3 * SHELF);
}

static void test_what_is_none_of_anothers_objects_is_counted(void)
{
	/* Spans of one page, with some bytes behind the last slot. */
	static const size_t sizes[] = {48, 80, 112, 240};
	struct shelf shelf;
	unsigned i, k;

	for (i = 0; i < TGS_ARRAY_LEN(sizes); i++) {
		const struct tgs_class *class = &tgs_classes[tgs_size_to_class(sizes[i])];

		CU_ASSERT_FATAL(class->n_pages == 1 &&
				class->n_slots * class->size < TGS_PAGE_SIZE);
		shelf.size = sizes[i];
		for (k = 0; k < SHELF; k++)
			shelf.objects[k] = tg_malloc(sizes[i]);
		CU_ASSERT_EQUAL(tgt_in_child(free_with_what_is_none, &shelf), 0);
		tgt_check(0);
		errors_are(0);
	}
}

static void free_and_trim(void *arg)
{
	struct thief *thief = arg;

	tg_free(thief->object);
	tgt_tell_parent(&thief->meeting);
	TGT_REQUIRE(tgt_wait_parent_said(&thief->meeting));
	TGT_EXPECT(tg_trim() == 0);
	TGT_EXPECT(tgt_stats().errors == 1);
}

/* The owner frees it while another one's free waits in a buffer: that one is told when it is applied. */
static void test_the_owner_frees_what_another_is_freeing(void)
{
	struct thief thief = {.object = tg_malloc(500)};
	pid_t pid;

	CU_ASSERT_FATAL(tgt_meeting_open(&thief.meeting));
	pid = tgt_fork(free_and_trim, &thief);
	CU_ASSERT(tgt_wait_child_said(&thief.meeting));
	tg_free(thief.object);
	errors_are(0);
	tgt_tell_child(&thief.meeting);
	CU_ASSERT_EQUAL(tgt_wait(pid), 0);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	errors_are(0);
	tgt_check(0);
	tgt_meeting_close(&thief.meeting);
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
		{"Of two threads that free a large object at once one is told",
		 test_of_two_threads_that_free_at_once_one_is_told},
		{"What two threads free at once is handed out once",
		 test_what_two_threads_free_at_once_is_handed_out_once},
		{"A double free on another thread is counted, also with one of the owner",
		 test_another_threads_double_free_is_counted},
		{"An owner that frees what another thread keeps at hand is told",
		 test_the_owner_frees_what_a_thread_keeps_at_hand},
		{"Of two processes that free one object the second is told",
		 test_two_processes_free_one_object},
		{"What is none of another process's objects is counted, and its objects are freed",
		 test_what_is_none_of_anothers_objects_is_counted},
		{"An owner that frees what another process is freeing is told",
		 test_the_owner_frees_what_another_is_freeing},
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
