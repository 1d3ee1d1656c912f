/* scripts_daemon.c - scripts that make the daemon do what other scripts do not: spans that no client holds, the limit.
 */
#include "tests/crash/ledger.h"
#include "tests/crash/oracle.h"
#include "tests/crash/run.h"
#include "tests/support/child.h"

/* Two in a span. */
enum { PAIRS = 8, BIG = 4096, MIB = 1 << 20 };
/* So many spans of so many, whose words lie in one block that has no memory yet. */
enum { DENSE_SPANS = 3, IN_SPAN = 73, DENSE = 112 };

static void leave_pairs(void *unused)
{
	(void)unused;
	tgt_do_mallocs(0, 2 * PAIRS, BIG);
	tgt_do_mallocs(100, 64, 48);
}

/* A process has made them, and ended. */
static void orphans(void)
{
	TGT_EXPECT(tgt_in_child(leave_pairs, NULL) == 0);
	TGT_EXPECT(tgt_wait_clients(1));
}

/* Full spans that have got room, then those that have none. */
static void take_orphans(void)
{
	unsigned i;

	tgt_begin();
	for (i = 0; i < PAIRS; i++)
		tgt_do_free(tgt_item(2 * i));
	tgt_do_frees(100, 3);
	tgt_do_trim();
	tgt_do_mallocs(200, 2 * PAIRS, BIG);
	tgt_do_mallocs(300, 10, 48);
	tgt_end();
}

static void free_orphans(void)
{
	tgt_begin();
	tgt_do_frees(0, 2 * PAIRS);
	tgt_do_frees(100, 64);
	tgt_do_trim();
	tgt_end();
}

static void dense_spans(void)
{
	tgt_do_mallocs(0, DENSE_SPANS * IN_SPAN, DENSE);
}

static void free_in_each(void)
{
	unsigned i;

	tgt_begin();
	for (i = 0; i < DENSE_SPANS; i++)
		tgt_do_frees(i * IN_SPAN, 2);
	tgt_do_trim();
	tgt_end();
}

static void wait_for_limit(void)
{
	tgt_do_malloc(0, 100);
	tgt_begin();
	tgt_meet();
	tgt_do_malloc(1, 100000);
	tgt_end();
}

static void change_limit(void)
{
	tgt_admin(TGD__ADMIN__WHAT__LIMIT, 8 * MIB);
	tgt_admin(TGD__ADMIN__WHAT__LIMIT, 16 * MIB);
}

static void set_first_root(void)
{
	tgt_do_malloc(0, 100);
	tgt_begin();
	tgt_do_root_set("first", tgt_item(0));
	tgt_end();
}

const struct tgt_script tgt_daemon_scripts[] = {
	{"orphans, taken", .observer = orphans, .operation = take_orphans},
	{"orphans, swept", .observer = orphans, .operation = free_orphans, .flags = TGT_SWEPT},
	{"state of a group", .observer = dense_spans, .operation = free_in_each},
	/* Later ones take the place of one that is gone. */
	{"root, the heap's first", .operation = set_first_root, .flags = TGT_FRESH},
	{"limit", .operation = wait_for_limit, .meeting = change_limit},
	{.name = NULL},
};
