/* test_crash_stopped.c - a client is stopped inside its step; others reuse what it works on; it is killed: nothing is lost,
 * nothing freed twice.
 *
 *	tests/crash/test_crash_stopped                                all
 *	tests/crash/test_crash_stopped --script NAME [--point K]      one script
 */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <string.h>

#include "tests/crash/ledger.h"
#include "tests/crash/main.h"
#include "tests/crash/oracle.h"
#include "tests/crash/run.h"
#include "tests/support/child.h"

/* ---- who comes second ---- */

enum { LINK, OLD, NEW, OTHER, NEIGHBOUR, SECOND = 50 };

static void make_second(void)
{
	tgt_do_malloc(SECOND, 300);
}

static struct tgt_item *target(void)
{
	const void *p = tg_link_get(tgt_item(LINK)->p);
	unsigned i;

	for (i = 0; p != NULL && i < TGT_ITEMS_MAX; i++) {
		if (tgt_item(i)->state == TGT_HERE && tgt_item(i)->p == p)
			return tgt_item(i);
	}
	return NULL;
}

static void second_swaps(void)
{
	struct tgt_item *now = target();

	tgt_begin();
	TGT_REQUIRE(tgt_do_swap(tgt_item(LINK), now, tgt_item(SECOND), TG_GIVE | TG_RETIRE));
	tgt_end();
}

/* The object that holds the link goes, by a process that has not made it. */
static void second_frees_link(void)
{
	struct tgt_item *now = target();

	tgt_begin();
	TGT_REQUIRE(tgt_do_swap(tgt_item(LINK), now, NULL, TG_RETIRE));
	tgt_do_free(tgt_item(LINK));
	tgt_do_trim();
	tgt_end();
}

/* Neighbours, in the same words that the first one frees in. */
static void ten_foreign(void)
{
	tgt_do_mallocs(0, 10, tgt_ledger->script->a);
}

static void first_frees(void)
{
	tgt_begin();
	tgt_do_frees(0, 2);
	tgt_do_trim();
	tgt_do_frees(2, 2);
	tgt_do_trim();
	tgt_end();
}

static void second_frees(void)
{
	tgt_begin();
	tgt_do_frees(5, 2);
	tgt_do_trim();
	tgt_do_frees(7, 1);
	tgt_do_trim();
	tgt_end();
}

static const struct tgt_script swap_second = {"second swap", .set_up = make_second,
					      .operation = second_swaps};
static const struct tgt_script free_link_second = {"second frees the link",
						   .operation = second_frees_link};
static const struct tgt_script free_second = {"second frees", .operation = second_frees};

static const struct tgt_script free_first = {"first frees", .observer = ten_foreign,
					     .operation = first_frees, .a = 48};
static const struct tgt_script free_first_tiny = {"first frees, tiny", .observer = ten_foreign,
						  .operation = first_frees, .a = 8};

static const struct tgt_script *share(const char *name)
{
	const struct tgt_script *script = tgt_script_named(name);

	CU_ASSERT_PTR_NOT_NULL_FATAL(script);
	return script;
}

static void two_who_swap(void)
{
	CU_ASSERT_EQUAL(
		tgt_run_pair(share("swap, in, foreign dense, give and retire"), &swap_second), 0);
	CU_ASSERT_EQUAL(tgt_run_pair(share("swap, in, own dense, give and retire"), &swap_second),
			0);
	CU_ASSERT_EQUAL(tgt_run_pair(share("swap, in, foreign none, give"), &swap_second), 0);
	CU_ASSERT_EQUAL(tgt_run_pair(share("swap, in, foreign large, retire"), &swap_second), 0);
	CU_ASSERT_EQUAL(tgt_run_pair(share("swap, again and again"), &swap_second), 0);
}

static void one_who_swaps_and_one_who_frees_the_link(void)
{
	CU_ASSERT_EQUAL(
		tgt_run_pair(share("swap, in, foreign dense, give and retire"), &free_link_second),
		0);
	CU_ASSERT_EQUAL(
		tgt_run_pair(share("swap, in, all own dense, give and retire"), &free_link_second),
		0);
	CU_ASSERT_EQUAL(tgt_run_pair(share("swap, out, foreign dense, retire"), &free_link_second),
			0);
}

static void two_who_free_neighbours(void)
{
	CU_ASSERT_EQUAL(tgt_run_pair(&free_first, &free_second), 0);
	CU_ASSERT_EQUAL(tgt_run_pair(&free_first_tiny, &free_second), 0);
}

/* ---- one that is stopped ---- */

static void run_stopped(const struct tgt_script *script)
{
	unsigned meanwhile, last = script->observer != NULL && tgt_is_swap(script)
					   ? TGT_MEANWHILE_END
					   : TGT_SWING_ON;

	for (meanwhile = 0; meanwhile < last; meanwhile++) {
		CU_ASSERT_EQUAL(tgt_run_stopped(script, false, meanwhile, tgt_only_point), 0);
		if (!(script->flags & TGT_KEEP_ONLY))
			CU_ASSERT_EQUAL(tgt_run_stopped(script, true, meanwhile, tgt_only_point),
					0);
	}
}

/* Those with a meeting wait for somebody while they should be stopped, and those that fork are not stopped themselves. */
static bool wanted(const struct tgt_script *script)
{
	return script->meeting == NULL && !(script->flags & TGT_OF_DAEMON) &&
	       strncmp(script->name, "fork", 4) != 0 && strncmp(script->name, "double", 6) != 0;
}

int main(int argc, char **argv)
{
	static const CU_TestInfo more[] = {
		{"two who swap", two_who_swap},
		{"one who swaps, one who frees the link", one_who_swaps_and_one_who_frees_the_link},
		{"two who free neighbours", two_who_free_neighbours},
		CU_TEST_INFO_NULL,
	};

	return tgt_crash_main(argc, argv, "crash_stopped", wanted, run_stopped, more);
}
