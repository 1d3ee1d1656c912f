/* ledger.c - calls of the heap, noted before and after.
 *
 * No point lies between the end of a call and the note that it is done, so a process that is killed at a point is killed
 * inside the call that its notes say is in hand, or outside of all.
 */
#include "tests/crash/ledger.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/crash/run.h"
#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/fixture.h"

struct tgt_ledger *tgt_ledger;
bool tgt_is_child;

bool tgt_ledger_make(void)
{
	void *p = mmap(NULL, sizeof(*tgt_ledger), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	tgt_ledger = p == MAP_FAILED ? NULL : p;
	return tgt_ledger != NULL;
}

void tgt_ledger_clear(void)
{
	memset(tgt_ledger->item, 0, sizeof(tgt_ledger->item));
	memset(&tgt_ledger->hand, 0, sizeof(tgt_ledger->hand));
	memset(&tgt_ledger->root, 0, sizeof(tgt_ledger->root));
	tgt_ledger->met = tgt_ledger->gone = 0;
	tgt_ledger->armed_once = tgt_ledger->finished = 0;
}

/* ---- patterns ---- */

static size_t skipped(const struct tgt_item *item)
{
	return item->has_link ? sizeof(tg_link) : 0;
}

static void fill(const struct tgt_item *item)
{
	size_t skip = skipped(item);

	tgt_fill_object((uint8_t *)item->p + skip, item->size - skip, item->seed);
}

bool tgt_item_intact(const struct tgt_item *item, const void *p, size_t size)
{
	size_t skip = skipped(item);

	return tgt_is_filled((const uint8_t *)p + skip, size - skip, item->seed);
}

/* ---- objects ---- */

static struct tgt_item *coming(unsigned i, size_t size)
{
	struct tgt_item *item = tgt_item(i);

	TGT_REQUIRE(i < TGT_ITEMS_MAX);
	TGT_REQUIRE(item->state == TGT_NONE || item->state == TGT_GONE);
	item->size = size;
	item->seed = atomic_fetch_add(&tgt_ledger->n_made, 1);
	item->observers = !tgt_is_child;
	item->has_link = false;
	item->published = TGT_PRIVATE;
	item->state = TGT_COMING;
	return item;
}

static struct tgt_item *here(struct tgt_item *item, void *p)
{
	TGT_REQUIRE(p != NULL);
	item->p = p;
	fill(item);
	item->state = TGT_HERE;
	return item;
}

struct tgt_item *tgt_do_malloc(unsigned i, size_t size)
{
	struct tgt_item *item = coming(i, size);

	return here(item, tg_malloc(size));
}

struct tgt_item *tgt_do_calloc(unsigned i, size_t size)
{
	struct tgt_item *item = coming(i, size);
	void *p = tg_calloc(1, size);

	TGT_REQUIRE(p != NULL && tgt_is_zero(p, size));
	return here(item, p);
}

struct tgt_item *tgt_do_aligned(unsigned i, size_t align, size_t size)
{
	struct tgt_item *item = coming(i, size);
	void *p = tg_aligned_alloc(align, size);

	TGT_REQUIRE((uintptr_t)p % align == 0);
	return here(item, p);
}

struct tgt_item *tgt_do_link(unsigned i, size_t size)
{
	struct tgt_item *item = coming(i, size);
	void *p;

	item->has_link = true;
	p = tg_malloc(size);
	TGT_REQUIRE(p != NULL);
	memset(p, 0, sizeof(tg_link));
	return here(item, p);
}

void tgt_do_malloc_fails(unsigned i, size_t size)
{
	struct tgt_item *item = coming(i, size);

	TGT_REQUIRE(tg_malloc(size) == NULL && errno == ENOMEM);
	item->state = TGT_NONE;
}

void tgt_do_free(struct tgt_item *item)
{
	TGT_REQUIRE(item->state == TGT_HERE && tgt_item_intact(item, item->p, item->size));
	item->state = TGT_GOING;
	tg_free(item->p);
	item->state = TGT_GONE;
}

void tgt_do_mallocs(unsigned first, unsigned n, size_t size)
{
	unsigned i;

	for (i = 0; i < n; i++)
		tgt_do_malloc(first + i, size);
}

void tgt_do_frees(unsigned first, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++)
		tgt_do_free(tgt_item(first + i));
}

void tgt_do_realloc(struct tgt_item *item, size_t size, bool in_place)
{
	size_t kept = size < item->size ? size : item->size;
	void *p;

	TGT_REQUIRE(item->state == TGT_HERE && tgt_item_intact(item, item->p, item->size));
	item->new_size = size;
	item->state = TGT_CHANGING;
	p = tg_realloc(item->p, size);
	TGT_REQUIRE(p != NULL && tgt_item_intact(item, p, kept));
	TGT_REQUIRE((p == item->p) == in_place);
	if (p != item->p) {
		item->published = TGT_PRIVATE;
		item->observers = !tgt_is_child;
	}
	item->size = size;
	here(item, p);
}

void tgt_do_publish(struct tgt_item *item)
{
	if (item->published == TGT_PRIVATE)
		item->published = TGT_MAYBE_PUBLISHED;
	TGT_REQUIRE(tg_publish(item->p) == 0);
	item->published = TGT_PUBLISHED;
}

void tgt_do_trim(void)
{
	TGT_REQUIRE(tg_trim() == 0);
}

/* ---- roots and links ---- */

static void *pointer(const struct tgt_item *item)
{
	return item != NULL ? item->p : NULL;
}

/* A root publishes what it leads to, in the same instant. */
static void root_in_hand(const char *name, struct tgt_item *item)
{
	struct tgt_root *root = &tgt_ledger->root;

	TGT_REQUIRE(root->name[0] == '\0' || strcmp(root->name, name) == 0);
	snprintf(root->name, sizeof(root->name), "%s", name);
	root->next = item;
	root->busy = 1;
}

static void root_is_set(int r)
{
	struct tgt_root *root = &tgt_ledger->root;

	TGT_REQUIRE(r == 0);
	root->is = root->next;
	if (root->is != NULL)
		root->is->published = TGT_PUBLISHED;
	root->busy = 0;
}

void tgt_do_root_set(const char *name, struct tgt_item *item)
{
	root_in_hand(name, item);
	root_is_set(tg_root_set(name, pointer(item)));
}

void tgt_do_root_cas(const char *name, struct tgt_item *expected, struct tgt_item *item)
{
	root_in_hand(name, item);
	root_is_set(tg_root_cas(name, pointer(expected), pointer(item)));
}

/* Who made the object that is retired freed it; what is given is the heap's. */
static void swung(struct tgt_item *old, struct tgt_item *new, unsigned flags)
{
	if ((flags & TG_GIVE) && new != NULL)
		new->published = TGT_PUBLISHED;
	if ((flags & TG_RETIRE) && old != NULL)
		old->state = TGT_GONE;
}

static void take_in_hand(struct tgt_item *link, struct tgt_item *old, struct tgt_item *new,
			 unsigned flags)
{
	struct tgt_hand *hand = &tgt_ledger->hand;

	TGT_REQUIRE(link->state == TGT_HERE && link->has_link);
	hand->link = link;
	hand->old = old;
	hand->new = new;
	hand->others = NULL;
	hand->flags = flags;
	/* The swap publishes what the link lies in, if it is another's. */
	if (link->observers == tgt_is_child && link->published == TGT_PRIVATE && flags != 0)
		link->published = TGT_MAYBE_PUBLISHED;
	hand->busy = 1;
}

static bool put_down(bool did)
{
	struct tgt_hand *hand = &tgt_ledger->hand;

	if (did)
		swung(hand->old, hand->new, hand->flags);
	hand->busy = 0;
	return did;
}

bool tgt_do_swap(struct tgt_item *link, struct tgt_item *old, struct tgt_item *new, unsigned flags)
{
	take_in_hand(link, old, new, flags);
	return put_down(tg_swap(link->p, pointer(old), pointer(new), flags));
}

bool tgt_do_swap_seen(struct tgt_item *link, struct tgt_item *old, struct tgt_item *new,
		      unsigned flags)
{
	void *target;
	uint64_t seen = tg_link_look(link->p, &target);

	TGT_REQUIRE(target == pointer(old));
	take_in_hand(link, old, new, flags);
	return put_down(tg_swap_seen(link->p, seen, pointer(new), flags));
}

bool tgt_do_others_swap(struct tgt_item *link, struct tgt_item *old, struct tgt_item *new,
			unsigned flags)
{
	bool did = tg_swap(link->p, pointer(old), pointer(new), flags);

	if (did) {
		swung(old, new, flags);
		tgt_ledger->hand.others = new;
	}
	return did;
}

/* ---- the child's part of a run ---- */

void tgt_arm_daemon(void)
{
	if (tgt_ledger->daemon_k == TGT_NO_POINT)
		return;
	tgt_arm(TGT_DAEMON, 0, tgt_ledger->daemon_k, SIGKILL);
	if (tgt_ledger->daemon_next != TGT_NO_POINT)
		tgt_arm_next(TGT_DAEMON, tgt_ledger->daemon_next);
}

void tgt_begin(void)
{
	const struct tgt_script *script = tgt_ledger->script;

	tgt_ledger->armed_once = 1;
	tgt_arm_daemon();
	tgt_arm(TGT_CLIENT, (uint32_t)getpid(), tgt_ledger->k, tgt_ledger->signal);
	if (script->pause_file != NULL)
		tgt_pause_at(TGT_CLIENT, script->pause_file, script->pause_what, tgt_meet);
}

void tgt_end(void)
{
	tgt_disarm(TGT_CLIENT);
	tgt_ledger->finished = 1;
}

void tgt_meet(void)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;
	uint32_t n = atomic_fetch_add(&tgt_ledger->met, 1) + 1;
	struct timespec wait = {.tv_sec = 1};

	syscall(SYS_futex, &tgt_ledger->met, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	while (atomic_load(&tgt_ledger->gone) < n) {
		TGT_REQUIRE(tgt_now_ms() < deadline);
		syscall(SYS_futex, &tgt_ledger->gone, FUTEX_WAIT, n - 1, &wait, NULL, 0);
	}
}
