/* test_crash_daemon.c - the daemon is killed at its points, alone, after and together with a client; nobody loses anything.
 *
 *	tests/crash/test_crash_daemon                             all
 *	tests/crash/test_crash_daemon --script NAME [--point K]   one script; with K, the daemon at that point alone
 *
 * TG_CRASH_SEED, TG_CRASH_PAIRS: of the pairs chosen at random.  TG_CRASH_ALL=1: every point (of those that one
 * place has many of, the first ones), not only every place.
 */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/control.h"
#include "tests/crash/cover.h"
#include "tests/crash/ledger.h"
#include "tests/crash/main.h"
#include "tests/crash/oracle.h"
#include "tests/crash/run.h"
#include "tests/support/child.h"

#define PAIRS 200u
/* What comes to one place more often than this in one run clears words, one after the other. */
#define ALL_TIMES 64u

static unsigned long number(const char *variable, unsigned long otherwise)
{
	const char *text = getenv(variable);

	return text != NULL && *text != '\0' ? strtoul(text, NULL, 0) : otherwise;
}

/* How often at one place of the source. */
static unsigned per_site(void)
{
	return number("TG_CRASH_ALL", 0) ? ALL_TIMES : 1;
}

/* Those that make the daemon do different things; the others would only do them again. */
static bool wanted(const struct tgt_script *script)
{
	static const char *const names[] = {
		"malloc, first, tiny",
		"malloc, first, dense",
		"malloc, many spans",
		"malloc, large in vain",
		"aligned, large",
		"free, foreign dense, flushed",
		"free, foreign tiny",
		"harvest by trim, sparse",
		"realloc, large grows",
		"realloc, large shrinks",
		"large, kept and given back",
		"spans given back",
		"trim",
		"pressure",
		"publish, tiny",
		"root, first",
		"root, tiny",
		"root, again",
		"root, compared",
		"root, removed",
		"swap, in, foreign dense, give and retire",
		"swap, in, own large, give and retire",
		"attach",
		"attach, as malloc",
		"detach",
		"detach, attach again",
		"thread",
		"fork, go on in the child",
		"connection lost",
		"orphans, taken",
		"orphans, swept",
		"root, the heap's first",
		"limit",
	};
	unsigned i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(names[i], script->name) == 0)
			return true;
	}
	return number("TG_CRASH_ALL", 0) != 0;
}

static void run(const struct tgt_script *script)
{
	unsigned often = script->flags & TGT_OF_DAEMON ? TGT_NEW : per_site();

	CU_ASSERT_EQUAL(tgt_run_daemon(script, false, often, tgt_only_point), 0);
	if (!(script->flags & TGT_KEEP_ONLY))
		CU_ASSERT_EQUAL(tgt_run_daemon(script, true, often, tgt_only_point), 0);
	CU_ASSERT(tgt_daemons_are_well());
}

static const struct tgt_script *named(const char *name)
{
	const struct tgt_script *script = tgt_script_named(name);

	CU_ASSERT_PTR_NOT_NULL_FATAL(script);
	return script;
}

/* The first daemon dies at every place, the second one where none has died yet; for some it dies at every place, too. */
static void the_next_daemon_is_killed_too(void)
{
	static const char *const names[] = {
		"malloc, many spans",
		"realloc, large grows",
		"realloc, large shrinks",
		"root, first",
		"root, again",
		"root, removed",
		"detach",
		"trim",
		"swap, in, foreign dense, give and retire",
		"attach",
		"attach, as malloc",
		"connection lost",
	};
	unsigned i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		CU_ASSERT_EQUAL(tgt_run_daemon_twice(named(names[i]), i % 2, per_site(), TGT_NEW),
				0);
	CU_ASSERT_EQUAL(tgt_run_daemon_twice(named("malloc, first, dense"), true, per_site(), 1),
			0);
	CU_ASSERT_EQUAL(tgt_run_daemon_twice(named("root, the heap's first"), false, 1, TGT_NEW),
			0);
	/* The observer hears of both deaths while it gives back all it has. */
	CU_ASSERT_EQUAL(tgt_run_daemon_twice(named("connection lost"), true, 1, 1), 0);
	CU_ASSERT(tgt_daemons_are_well());
}

static void the_recoverer_is_killed(void)
{
	static const char *const names[] = {
		"free, foreign dense, flushed",
		"swap, in, foreign dense, give and retire",
		"swap, in, foreign like the link, give and retire",
		"swap, in, own dense, give and retire",
		"free, own published dense",
		"double free, by owner and another",
	};
	unsigned step = number("TG_CRASH_ALL", 0) ? 1 : 5, i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		CU_ASSERT_EQUAL(tgt_run_recovery(named(names[i]), i % 2, step, per_site()), 0);
		CU_ASSERT_EQUAL(tgt_run_recovery(named(names[i]), false, 1, TGT_NEW), 0);
	}
	CU_ASSERT(tgt_daemons_are_well());
}

/* ---- a link in an object that is retired out of another link ---- */

enum { INNER = 0, OLD = 1, NEW = 2, OUTER = 5 };

static void link_in_link(void)
{
	tgt_do_publish(tgt_do_link(OUTER, 64));
	tgt_do_link(INNER, 64);
	tgt_do_malloc(OLD, 100);
	TGT_EXPECT(tgt_do_swap(tgt_item(INNER), NULL, tgt_item(OLD), TG_GIVE));
	TGT_EXPECT(tgt_do_swap(tgt_item(OUTER), NULL, tgt_item(INNER), TG_GIVE));
}

static void make_new(void)
{
	tgt_do_malloc(NEW, 100);
}

static void swap_inner(void)
{
	tgt_begin();
	TGT_REQUIRE(
		tgt_do_swap(tgt_item(INNER), tgt_item(OLD), tgt_item(NEW), TG_GIVE | TG_RETIRE));
	tgt_end();
}

static void retire_inner(void)
{
	tgt_begin();
	TGT_REQUIRE(tgt_do_swap(tgt_item(OUTER), tgt_item(INNER), NULL, TG_RETIRE));
	tgt_end();
}

static void the_recoverer_ends_another_link(void)
{
	static const struct tgt_script first = {"swaps in an object", .observer = link_in_link,
						.set_up = make_new, .operation = swap_inner},
				       second = {"retires that object", .operation = retire_inner};

	CU_ASSERT_EQUAL(tgt_run_recovery_beside(&first, &second, TGT_NEW), 0);
	CU_ASSERT(tgt_daemons_are_well());
}

/* ---- two that free neighbours: bits of one word ---- */

/* Of sizes whose words always have memory, so nobody asks the daemon for it. */
enum { NEIGHBOURS = 0, WARM = 2 };

static void two_neighbours(void)
{
	tgt_do_mallocs(NEIGHBOURS, 2, 1000);
	tgt_do_mallocs(WARM, 2, 4096);
}

/* With its first call the child gets its thread slot from the daemon; how often it looks for the answer, each time at a
 * point, is chance.  The operation must have no such point, or each run has others.  A big object is freed at once, so
 * nothing of this waits in the buffer. */
static void get_slot(void)
{
	tgt_do_free(tgt_item(WARM + (unsigned)tgt_ledger->script->a));
}

static void free_one_of_them(void)
{
	tgt_begin();
	tgt_do_free(tgt_item(NEIGHBOURS + (unsigned)tgt_ledger->script->a));
	tgt_do_trim();
	tgt_end();
}

/* The first one lives, and is stopped between its swap and the end of its step.  Who then frees for the second one swaps the
 * same word, and must raise the first one's mark before: no point of a step is left out. */
static void the_recoverer_helps_one_that_lives(void)
{
	static const struct tgt_script first = {"frees an object", .observer = two_neighbours,
						.set_up = get_slot, .operation = free_one_of_them,
						.a = 0},
				       second = {"frees its neighbour", .set_up = get_slot,
						 .operation = free_one_of_them, .a = 1};
	static const char *const steps[] = {"shm/step.c", NULL};
	static const struct tgt_uncovered none[] = {{NULL, NULL, NULL}};

	/* Where nothing else was before they are neighbours. */
	tgt_world_renew();
	CU_ASSERT_EQUAL(tgt_run_recovery_beside(&first, &second, TGT_NEW), 0);
	CU_ASSERT_EQUAL(tgt_cover(TGT_DAEMON, steps, none), 0);
	CU_ASSERT(tgt_daemons_are_well());
}

static void client_and_daemon_are_killed(void)
{
	unsigned long pairs = number("TG_CRASH_PAIRS", PAIRS), i, seed;
	uint64_t random = seed = number("TG_CRASH_SEED", 1);
	unsigned n = 0;

	for (i = 0; i < pairs && n < 3; i++)
		n += tgt_run_both_at_random(tgt_script_at_random(&random), i % 2, &random);
	CU_ASSERT_EQUAL(n, 0);
	printf("seed %lu ...", seed);
	CU_ASSERT(tgt_daemons_are_well());
}

/* Points that no script comes to, each with its reason. */
static const struct tgt_uncovered uncovered[] = {
	{"daemon/keeper.c", "", "the keeper's, who lives here: test_crash_keeper"},
	{"daemon/kept.c", "", "the same"},
	{"daemon/handover.c", "", "the same"},
	{"daemon/listen.c", "", "the same"},
	{"daemon/notify.c", "", "the same"},
	{"daemon/heap.c", "->limit_bytes, limit", "the first daemon's: test_crash_keeper"},
	{"daemon/heap.c", "->daemon_epoch, 1,", "the same"},
	{"daemon/holders.c", "[TGS_SLOT_CENTRAL].in_use, 1", "the same"},
	{"daemon/central.c", "hints[word] =", "our clients give back empty spans only"},
	{"shm/link.c", "compare_exchange_strong", "the daemon swings no link"},
	/* What a daemon leaves that was killed while it cleared a span's state: tests/unit/test_takeover_half makes it by hand. */
	{"daemon/backing-find.c", "words[i], 0", "takeover of state half cleared"},
	{NULL, NULL, NULL},
};

static void every_point_was_passed(void)
{
	static const char *const files[] = {"daemon/", "shm/", NULL};

	CU_ASSERT_EQUAL(tgt_cover(TGT_DAEMON, files, uncovered), 0);
}

int main(int argc, char **argv)
{
	static const CU_TestInfo more[] = {
		{"the next daemon is killed, too", the_next_daemon_is_killed_too},
		{"the recoverer is killed", the_recoverer_is_killed},
		{"the recoverer ends another's link", the_recoverer_ends_another_link},
		{"the recoverer helps one that lives", the_recoverer_helps_one_that_lives},
		{"client and daemon are killed", client_and_daemon_are_killed},
		{"every point was passed", every_point_was_passed},
		CU_TEST_INFO_NULL,
	};
	const char *build = getenv("TG_BUILDDIR");
	char tgd[1024];

	snprintf(tgd, sizeof(tgd), "%s/tests/crash/tgd-crash", build != NULL ? build : ".");
	setenv("TGD", tgd, 1);
	return tgt_crash_main(argc, argv, "crash_daemon", wanted, run, more);
}
