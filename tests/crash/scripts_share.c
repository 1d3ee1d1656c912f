/* scripts_share.c - scripts of what makes objects the heap's: publish, tg_swap with all that it can be asked, roots.
 *
 * The scripts of tg_swap are made: for each kind of object that is taken out of the link, and each set of flags.
 */
#include <stdio.h>
#include <unistd.h>

#include "shm/base.h"
#include "tests/crash/ledger.h"
#include "tests/crash/run.h"
#include "tests/support/child.h"

enum { LINK, OLD, NEW, OTHER, NEIGHBOUR };

#define SEEN 0x10u /* with tg_swap_seen */

static size_t a(void)
{
	return tgt_ledger->script->a;
}

static unsigned flags(void)
{
	return (unsigned)tgt_ledger->script->b & ~SEEN;
}

static bool swap(struct tgt_item *link, struct tgt_item *old, struct tgt_item *new, unsigned what)
{
	return tgt_ledger->script->b & SEEN ? tgt_do_swap_seen(link, old, new, what)
					    : tgt_do_swap(link, old, new, what);
}

/* ---- publish ---- */

static void one_own(void)
{
	tgt_do_malloc(0, a());
}

static void publish(void)
{
	tgt_begin();
	tgt_do_publish(tgt_item(0));
	tgt_do_publish(tgt_item(0));
	tgt_end();
}

/* ---- swap ---- */

static void make_link(void)
{
	tgt_do_publish(tgt_do_link(LINK, 64));
}

static void make_old(void)
{
	if (a() == 0)
		return;
	tgt_do_malloc(OLD, a());
	tgt_do_malloc(NEIGHBOUR, a());
	TGT_REQUIRE(tgt_do_swap(tgt_item(LINK), NULL, tgt_item(OLD), TG_GIVE));
}

static void link_and_old(void)
{
	make_link();
	make_old();
}

static void make_new(void)
{
	tgt_do_malloc(NEW, 200);
}

/* The link is foreign, the old object the child's own. */
static void own_old(void)
{
	make_old();
	make_new();
}

static void own_all(void)
{
	link_and_old();
	make_new();
}

static struct tgt_item *old(void)
{
	return a() != 0 ? tgt_item(OLD) : NULL;
}

static void replace(void)
{
	tgt_begin();
	TGT_REQUIRE(swap(tgt_item(LINK), old(), tgt_item(NEW), flags()));
	tgt_end();
}

static void take_out(void)
{
	tgt_begin();
	TGT_REQUIRE(swap(tgt_item(LINK), old(), NULL, flags()));
	tgt_end();
}

/* Swings, and swings again, as one thread does all day; then frees follow. */
static void replace_often(void)
{
	unsigned i;

	tgt_begin();
	TGT_REQUIRE(tgt_do_swap(tgt_item(LINK), old(), tgt_item(NEW), flags()));
	for (i = 0; i < 6; i++) {
		tgt_do_malloc(10 + i, 100);
		TGT_REQUIRE(tgt_do_swap(tgt_item(LINK), i == 0 ? tgt_item(NEW) : tgt_item(9 + i),
					tgt_item(10 + i), flags()));
	}
	tgt_do_free(tgt_item(NEIGHBOUR));
	tgt_do_trim();
	tgt_end();
}

static void replace_other(void)
{
	tgt_begin();
	TGT_REQUIRE(!tgt_do_swap(tgt_item(LINK), tgt_item(NEIGHBOUR), tgt_item(NEW), flags()));
	tgt_end();
}

/* Others swing the link while the child is about to. */
static void swing_before(void)
{
	tgt_do_malloc(OTHER, 300);
	TGT_REQUIRE(tgt_do_others_swap(tgt_item(LINK), old(), tgt_item(OTHER), TG_GIVE));
}

/* There and back: tg_swap cannot tell and tg_swap_seen can. */
static void swing_there_and_back(void)
{
	tgt_do_malloc(OTHER, 300);
	TGT_REQUIRE(tgt_do_others_swap(tgt_item(LINK), old(), tgt_item(OTHER), TG_GIVE));
	TGT_REQUIRE(tgt_do_others_swap(tgt_item(LINK), tgt_item(OTHER), old(), 0));
}

static void replace_in_vain(void)
{
	tgt_begin();
	TGT_REQUIRE(!swap(tgt_item(LINK), old(), tgt_item(NEW), flags()));
	tgt_end();
}

/* ---- what holds a link ends ---- */

static void free_link(void)
{
	tgt_begin();
	TGT_REQUIRE(tgt_do_swap(tgt_item(LINK), old(), NULL, flags()));
	tgt_do_free(tgt_item(LINK));
	tgt_do_trim();
	tgt_end();
}

/* ---- roots ---- */

static void root_and_two(void)
{
	tgt_do_malloc(0, a());
	tgt_do_root_set("root", tgt_item(0));
	tgt_do_malloc(1, a());
}

/* Of a name of its own in each run: an entry that had it would keep it. */
static void root_set_first(void)
{
	char name[32];

	snprintf(name, sizeof(name), "root of %d", (int)getpid());
	tgt_begin();
	tgt_do_root_set(name, tgt_item(0));
	tgt_end();
}

static void root_set_again(void)
{
	tgt_begin();
	tgt_do_root_set("root", tgt_item(1));
	tgt_end();
}

static void root_cas(void)
{
	tgt_begin();
	tgt_do_root_cas("root", tgt_item(0), tgt_item(1));
	tgt_end();
}

static void root_remove(void)
{
	tgt_begin();
	TGT_REQUIRE(tg_root_get("root") == tgt_item(0)->p);
	tgt_do_root_set("root", NULL);
	tgt_do_free(tgt_item(0));
	tgt_end();
}

/* Room for the made ones. */
struct tgt_script tgt_share_scripts[128] = {
	{"publish, tiny", .set_up = one_own, .operation = publish, .a = 8},
	{"publish, dense", .set_up = one_own, .operation = publish, .a = 48},
	{"publish, sparse", .set_up = one_own, .operation = publish, .a = 1000},
	{"publish, large", .set_up = one_own, .operation = publish, .a = 40000},
	{"root, first", .set_up = one_own, .operation = root_set_first, .a = 100},
	{"root, tiny", .set_up = one_own, .operation = root_set_first, .a = 8},
	{"root, again", .set_up = root_and_two, .operation = root_set_again, .a = 100},
	{"root, compared", .set_up = root_and_two, .operation = root_cas, .a = 100},
	{"root, removed", .set_up = root_and_two, .operation = root_remove, .a = 100},
	{"swap, again and again", .observer = link_and_old, .set_up = make_new,
	 .operation = replace_often, .a = 100, .b = TG_GIVE | TG_RETIRE},
	{"swap, own, again and again", .set_up = own_all, .operation = replace_often, .a = 100,
	 .b = TG_GIVE | TG_RETIRE},
	{"swap, refused", .observer = link_and_old, .set_up = make_new, .operation = replace_other,
	 .a = 100, .b = TG_GIVE | TG_RETIRE},
	{"swap, lost to another", .observer = link_and_old, .set_up = make_new,
	 .operation = replace_in_vain, .meeting = swing_before, .a = 100, .b = TG_GIVE | TG_RETIRE,
	 .pause_file = "shm/link.c", .pause_what = "compare-exchange"},
	{"swap, seen and lost", .observer = link_and_old, .set_up = make_new,
	 .operation = replace_in_vain, .meeting = swing_there_and_back, .a = 100,
	 .b = TG_GIVE | TG_RETIRE | SEEN, .pause_file = "shm/link.c",
	 .pause_what = "compare-exchange"},
	{"swap, there and back meanwhile", .observer = link_and_old, .set_up = make_new,
	 .operation = replace, .meeting = swing_there_and_back, .a = 100, .b = TG_GIVE | TG_RETIRE,
	 .pause_file = "shm/link.c", .pause_what = "compare-exchange"},
	{"swap, then free the link", .set_up = own_all, .operation = free_link, .a = 100,
	 .b = TG_RETIRE},
	{"swap, then free a foreign link", .observer = link_and_old, .set_up = make_new,
	 .operation = free_link, .a = 100, .b = TG_RETIRE},
};

static const struct {
	const char *name;
	size_t size;
} kinds[] = {
	{"none", 0},   {"tiny", 8},   {"like the link", 64},
	{"dense", 48}, {"big", 4096}, {"large", 40000},
};

static const char *const flag_names[] = {"plain", "give", "retire", "give and retire"};

static void add_swap(unsigned *n, const char *whose, unsigned kind, unsigned what,
		     const struct tgt_script *like)
{
	static char names[TGS_ARRAY_LEN(tgt_share_scripts)][64];

	snprintf(names[*n], sizeof(names[*n]), "swap, %s, %s %s, %s",
		 like->operation == take_out ? "out" : "in", whose, kinds[kind].name,
		 flag_names[what & 3]);
	tgt_share_scripts[*n] = *like;
	tgt_share_scripts[*n].name = names[*n];
	tgt_share_scripts[*n].a = kinds[kind].size;
	tgt_share_scripts[*n].b = what;
	*n += 1;
}

void tgt_share_scripts_make(void)
{
	static const struct tgt_script foreign = {.observer = link_and_old,
						  .set_up = make_new,
						  .operation = replace},
				       own = {.observer = make_link,
					      .set_up = own_old,
					      .operation = replace},
				       mine = {.set_up = own_all, .operation = replace},
				       out = {.observer = link_and_old, .operation = take_out};
	unsigned n = 0, kind, what;

	while (tgt_share_scripts[n].name != NULL)
		n++;
	for (kind = 0; kind < TGS_ARRAY_LEN(kinds); kind++) {
		for (what = 0; what < 4; what++)
			add_swap(&n, "foreign", kind, what, &foreign);
		if (kind == 0)
			continue;
		add_swap(&n, "own", kind, TG_GIVE | TG_RETIRE, &own);
		add_swap(&n, "all own", kind, TG_GIVE | TG_RETIRE, &mine);
		add_swap(&n, "seen foreign", kind, TG_GIVE | TG_RETIRE | SEEN, &foreign);
		add_swap(&n, "foreign", kind, TG_RETIRE, &out);
	}
}
