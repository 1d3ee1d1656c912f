/* stopped.c - a child is stopped at a point; the others go on, use its memory again, swing its links; then it is killed.
 *
 * What a stopped thread was about to do, it will never do: so what of its call is done is known as soon as it stops.  That
 * must still be true when it is recovered, whatever has happened to the words that its step was about.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tests/crash/control.h"
#include "tests/crash/ledger.h"
#include "tests/crash/oracle.h"
#include "tests/crash/run.h"
#include "tests/support/child.h"

#define POINTS_MAX   2000u
#define FAILURES_MAX 3u

/* Items of the test program's own. */
enum { FIRST_OWN = 800 };

static unsigned n_own;

static struct tgt_item *own(size_t size)
{
	return tgt_do_malloc(FIRST_OWN + n_own++, size);
}

/* Objects of the sizes of those that the child has freed or is freeing: they take the same slots. */
static void reuse(void)
{
	unsigned i;

	tgt_do_trim();
	for (i = 0; i < FIRST_OWN; i++) {
		const struct tgt_item *item = tgt_item(i);

		if ((item->state == TGT_GONE || item->state == TGT_GOING) && n_own < 100)
			own(item->size);
	}
}

static struct tgt_item *item_at(const void *p)
{
	unsigned i;

	for (i = 0; p != NULL && i < TGT_ITEMS_MAX; i++) {
		if (tgt_item(i)->state == TGT_HERE && tgt_item(i)->p == p)
			return tgt_item(i);
	}
	return NULL;
}

static void swing_on(struct tgt_item *link)
{
	struct tgt_item *target = item_at(tg_link_get(link->p)), *next;
	unsigned i;

	for (i = 0; i < 3; i++) {
		next = own(100);
		TGT_EXPECT(tgt_do_others_swap(link, target, next, TG_GIVE | TG_RETIRE));
		target = next;
	}
	reuse();
}

/* What comes to lie there has the link's last word in the same place, and then something else. */
static void end_link(struct tgt_item *link, bool emptied)
{
	uint64_t word = atomic_load((_Atomic uint64_t *)link->p);
	struct tgt_item *target = item_at(tg_link_get(link->p)), *other;
	unsigned i;

	if (emptied)
		TGT_EXPECT(tgt_do_others_swap(link, target, NULL, TG_RETIRE));
	tgt_do_free(link);
	tgt_do_trim();
	for (i = 0; i < 4; i++) {
		other = tgt_do_link(FIRST_OWN + n_own++, link->size);
		memcpy(other->p, &word, i % 2 == 0 ? sizeof(word) : 0);
	}
}

static void go_on(enum tgt_meanwhile meanwhile)
{
	struct tgt_item *link = tgt_ledger->hand.link;

	n_own = 0;
	tgt_hand_is_cut();
	if (meanwhile == TGT_REUSE)
		reuse();
	else if (link != NULL && link->state == TGT_HERE && meanwhile == TGT_SWING_ON)
		swing_on(link);
	else if (link != NULL && link->state == TGT_HERE)
		end_link(link, meanwhile == TGT_LINK_ENDS);
}

static enum tgt_outcome run(const struct tgt_script *script, bool reclaim,
			    enum tgt_meanwhile meanwhile, uint64_t k)
{
	enum tgt_outcome outcome;
	int pid;

	tgt_run_prepare(script, reclaim, k, SIGSTOP);
	outcome = tgt_run_judge(tgt_run_child(script, &pid));
	if (outcome == TGT_CUT) {
		go_on(meanwhile);
		kill(pid, SIGKILL);
		(void)tgt_child_wait(pid);
		tgt_n_kills++;
	}
	return outcome != TGT_FAILED && tgt_oracle() ? outcome : TGT_FAILED;
}

unsigned tgt_run_stopped(const struct tgt_script *script, bool reclaim,
			 enum tgt_meanwhile meanwhile, uint64_t point)
{
	static const char *const names[] = {"memory reused", "link swung on", "link ended",
					    "link lost"};
	uint64_t first = point != 0 ? point : 1, last = point != 0 ? point : POINTS_MAX, k;
	enum tgt_outcome outcome = TGT_CUT;
	char how[64];
	unsigned n = 0;

	snprintf(how, sizeof(how), "policy %s, %s", reclaim ? "reclaim" : "keep", names[meanwhile]);
	for (k = first; k <= last && outcome != TGT_ENDED && n < FAILURES_MAX; k++) {
		outcome = run(script, reclaim, meanwhile, k);
		if (outcome == TGT_FAILED) {
			tgt_run_failed(script, how, k);
			n++;
		}
	}
	return n;
}

/* ---- two at once ---- */

/* The second child, killed at point k while the first one is stopped. */
static enum tgt_outcome run_second(const struct tgt_script *second, uint64_t k)
{
	enum tgt_outcome outcome;
	int pid;

	tgt_run_second(second, k, SIGKILL);
	outcome = tgt_run_judge(tgt_run_child(second, &pid));
	tgt_n_kills += outcome == TGT_CUT;
	tgt_hand_is_cut();
	/* It is recovered while the first one is still there. */
	return outcome != TGT_FAILED && tgt_wait_clients(2) ? outcome : TGT_FAILED;
}

/* *ret_first: of the first child. */
static enum tgt_outcome run_both(const struct tgt_script *first, const struct tgt_script *second,
				 uint64_t j, uint64_t k, enum tgt_outcome *ret_first)
{
	enum tgt_outcome outcome = TGT_ENDED;
	int pid;

	tgt_run_prepare(first, false, j, SIGSTOP);
	*ret_first = tgt_run_judge(tgt_run_child(first, &pid));
	if (*ret_first == TGT_CUT) {
		tgt_hand_is_cut();
		outcome = run_second(second, k);
		kill(pid, SIGKILL);
		(void)tgt_child_wait(pid);
		tgt_n_kills++;
	}
	return *ret_first != TGT_FAILED && outcome != TGT_FAILED && tgt_oracle() ? outcome
										 : TGT_FAILED;
}

unsigned tgt_run_pair(const struct tgt_script *first, const struct tgt_script *second)
{
	enum tgt_outcome one = TGT_CUT, two;
	unsigned n = 0;
	uint64_t j, k;
	char how[96];

	for (j = 1; j <= POINTS_MAX && one == TGT_CUT && n < FAILURES_MAX; j++) {
		for (k = 1, two = TGT_CUT; k <= POINTS_MAX && two == TGT_CUT; k++) {
			two = run_both(first, second, j, k, &one);
			if (two == TGT_FAILED) {
				snprintf(how, sizeof(how), "%s stopped at point %llu", first->name,
					 (unsigned long long)j);
				tgt_run_failed(second, how, k);
				n++;
			}
		}
	}
	return n;
}
