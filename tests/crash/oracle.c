/* oracle.c - compares what is in the heap with the ledger, then empties the heap and sees that nothing is left.
 */
#include "tests/crash/oracle.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/process.h"
#include "shm/span.h"
#include "tests/crash/ledger.h"
#include "tests/crash/run.h"
#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/fixture.h"
#include "tests/support/peer.h"

#define FOUND_MAX 4096u

/* What the ledger lets be at an address. */
struct place {
	void *p;
	struct tgt_item *item;
	bool must, found;
};

static struct place places[TGT_ITEMS_MAX];
static unsigned n_places;

/* All that is live. */
static void *live[FOUND_MAX];
static unsigned n_live;

/* Live, and in no place: the object that a call in hand made. */
static void *extra;
static unsigned n_extras;

unsigned tgt_n_wrong;
static uint64_t slots_at_start;
static struct tgt_peer peer = {.fd = -1};

void tgt_wrong(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	tgt_n_wrong++;
}

/* ---- the daemon ---- */

void tgt_admin_close(void)
{
	if (peer.fd >= 0)
		tgt_peer_close(&peer);
}

static const Tgd__Reply *ask(Tgd__Admin__What what, uint64_t value)
{
	const Tgd__Reply *reply;

	if (peer.fd < 0) {
		if (tgt_peer_connect(&peer, tgt_ledger->socket) < 0)
			return NULL;
		if (tgt_peer_hello(&peer) < 0) {
			tgt_admin_close();
			return NULL;
		}
	}
	if (tgt_peer_admin(&peer, what, value, &reply) == 0)
		return reply;
	tgt_admin_close();
	return NULL;
}

const Tgd__Reply *tgt_admin(Tgd__Admin__What what, uint64_t value)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;
	const Tgd__Reply *reply;

	do
		reply = ask(what, value);
	while (reply == NULL && tgt_now_ms() < deadline);
	if (reply == NULL || reply->error != 0) {
		tgt_wrong("the daemon refuses admin request %d: %s", (int)what,
			  reply != NULL ? reply->message : "no answer");
		return NULL;
	}
	return reply;
}

bool tgt_wait_clients(unsigned n)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;
	const Tgd__Reply *reply;

	do {
		reply = tgt_admin(TGD__ADMIN__WHAT__CLIENTS, 0);
		if (reply == NULL)
			return false;
		if (reply->clients->n_clients == n)
			return true;
	} while (tgt_now_ms() < deadline);
	tgt_wrong("a dead client is not recovered");
	return false;
}

/* What was freed in spans of nobody is found by the daemon in its own time. */
static void wait_swept(void)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;
	const Tgd__Reply *reply;

	do
		reply = tgt_admin(TGD__ADMIN__WHAT__STATUS, 0);
	while (reply != NULL && reply->status->orphan_spans != 0 && tgt_now_ms() < deadline &&
	       poll(NULL, 0, 1) == 0);
	if (reply != NULL && reply->status->orphan_spans != 0)
		tgt_wrong("the daemon does not find that its spans are empty");
}

void tgt_oracle_start(void)
{
	/* The slots that the test program itself uses: its thread's, and that of its large objects. */
	tg_free(tg_malloc(100));
	tg_free(tg_malloc(100000));
	tg_trim();
	slots_at_start = tgt_admin(TGD__ADMIN__WHAT__STATUS, 0)->status->slots;
}

/* ---- what should be ---- */

void tgt_hand_is_cut(void)
{
	struct tgt_hand *hand = &tgt_ledger->hand;
	void *target, *old, *new;

	if (hand->busy == 0)
		return;
	hand->busy = 0;
	target = tg_link_get(hand->link->p);
	old = hand->old != NULL ? hand->old->p : NULL;
	new = hand->new != NULL ? hand->new->p : NULL;
	if (target != old && target != new && (hand->others == NULL || target != hand->others->p))
		tgt_wrong("the link leads to %p, neither %p nor %p", target, old, new);
	if (target != new || old == new)
		return;
	if ((hand->flags & TG_GIVE) && hand->new != NULL)
		hand->new->published = TGT_PUBLISHED;
	if ((hand->flags & TG_RETIRE) && hand->old != NULL)
		hand->old->state = TGT_GONE;
}

static void root_in_hand(void)
{
	struct tgt_root *root = &tgt_ledger->root;
	void *target, *is, *next;

	if (root->name[0] == '\0')
		return;
	target = tg_root_get(root->name);
	is = root->is != NULL ? root->is->p : NULL;
	next = root->next != NULL ? root->next->p : NULL;
	if (target != is && (root->busy == 0 || target != next))
		tgt_wrong("root %s leads to %p, neither to %p nor %p", root->name, target, is,
			  next);
	if (target == next && root->next != NULL)
		root->next->published = TGT_PUBLISHED;
}

/* Does the item outlive its maker: 0 no, 1 perhaps, 2 yes. */
static unsigned outlives(const struct tgt_item *item)
{
	if (item->observers || !tgt_ledger->reclaim)
		return 2;
	return item->published == TGT_PUBLISHED ? 2 : item->published == TGT_MAYBE_PUBLISHED;
}

static int by_address(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return (x->p > y->p) - (x->p < y->p);
}

/* What was being freed is gone if another object lies there. */
static void drop_replaced(void)
{
	unsigned i, n = 0;

	for (i = 0; i < n_places; i++) {
		if (n > 0 && places[n - 1].p == places[i].p) {
			if (places[i].item->state == TGT_HERE)
				places[n - 1] = places[i];
		} else {
			places[n++] = places[i];
		}
	}
	n_places = n;
}

/* Returns how many objects may be there that are in no place. */
static unsigned expect(void)
{
	unsigned i, extras = 0;

	n_places = 0;
	for (i = 0; i < TGT_ITEMS_MAX; i++) {
		struct tgt_item *item = tgt_item(i);
		unsigned state = item->state;

		if (state == TGT_NONE || state == TGT_GONE)
			continue;
		if (state == TGT_COMING || state == TGT_CHANGING)
			extras += !tgt_ledger->reclaim;
		if (state == TGT_COMING || outlives(item) == 0)
			continue;
		places[n_places++] = (struct place){
			.p = item->p,
			.item = item,
			.must = outlives(item) == 2 && state == TGT_HERE,
		};
	}
	qsort(places, n_places, sizeof(places[0]), by_address);
	drop_replaced();
	return extras;
}

/* ---- what is ---- */

static void found(const struct tgs_object *object, void *p)
{
	struct place key = {.p = p};
	struct place *place = bsearch(&key, places, n_places, sizeof(places[0]), by_address);
	uint64_t published = tgs_published_bits(&tgc_heap, tgs_classes[object->span.class].kind,
						object->span.page, object->unit);

	if (n_live < FOUND_MAX)
		live[n_live++] = p;
	if (place == NULL) {
		extra = p;
		n_extras++;
		return;
	}
	place->found = true;
	if (place->item->state != TGT_HERE || place->item->published == TGT_MAYBE_PUBLISHED)
		return;
	if (((published & object->bit) != 0) != (place->item->published == TGT_PUBLISHED))
		tgt_wrong("object %p (item %u) is %spublished", p,
			  (unsigned)(place->item - tgt_item(0)),
			  place->item->published == TGT_PUBLISHED ? "not " : "");
}

static void walk_span(const struct tgs_span *span)
{
	struct tgs_object object = {.span = *span};
	uint32_t size = span->class == TGS_CLASS_TINY ? 1 : tgs_classes[span->class].size;
	uint32_t i;

	for (i = 0; i < span->n_slots; i++) {
		object.index = i;
		object.unit = i / 64;
		object.bit = UINT64_C(1) << (i % 64);
		if (tgs_object_live(&tgc_heap, &object))
			found(&object, tgs_page_address(&tgc_heap, span->page) + (size_t)i * size);
	}
}

static void walk(void)
{
	struct tgs_span span;
	uint64_t page;

	n_live = n_extras = 0;
	extra = NULL;
	for (page = 0; page < tgc_heap.geometry.n_pages; page++) {
		if (atomic_load(&tgc_heap.page_map[page]) == 0 ||
		    !tgs_span_at(&tgc_heap, page, &span) || span.page != page)
			continue;
		walk_span(&span);
		page += span.n_pages - 1;
	}
}

/* ---- and whether they agree ---- */

/* An object in the hands of tg_realloc that is not where it was is where it was to go, with its bytes. */
static void judge_changing(const struct place *place)
{
	const struct tgt_item *item = place->item;
	size_t kept = item->size < item->new_size ? item->size : item->new_size;

	if (tgt_ledger->reclaim)
		return;
	if (n_extras != 1 || !tgt_item_intact(item, extra, kept))
		tgt_wrong("the object %p that was to be %zu bytes is lost", item->p,
			  item->new_size);
}

static void judge_place(const struct place *place)
{
	const struct tgt_item *item = place->item;
	size_t size = item->size;

	if (item->state == TGT_CHANGING && item->new_size < size)
		size = item->new_size;
	if (!place->found && place->must)
		tgt_wrong("object %p of %zu bytes (item %u) is lost", place->p, item->size,
			  (unsigned)(item - tgt_item(0)));
	else if (place->found && !tgt_item_intact(item, place->p, size))
		tgt_wrong("object %p of %zu bytes (item %u) has other bytes", place->p, item->size,
			  (unsigned)(item - tgt_item(0)));
	else if (!place->found && item->state == TGT_CHANGING)
		judge_changing(place);
}

static void judge_check(uint64_t objects)
{
	const Tgd__Reply *reply = tgt_admin(TGD__ADMIN__WHAT__CHECK, 0);
	size_t i;

	if (reply == NULL)
		return;
	for (i = 0; i < reply->check->n_errors; i++)
		tgt_wrong("check: %s", reply->check->errors[i]);
	if (!reply->check->ok)
		tgt_wrong("check is not ok");
	if (reply->check->objects != objects)
		tgt_wrong("check counts %llu objects; there are %llu",
			  (unsigned long long)reply->check->objects, (unsigned long long)objects);
}

/* Everything goes: what is left then was leaked. */
static void empty(void)
{
	const Tgd__Reply *reply;
	unsigned i;

	if (tgt_ledger->root.name[0] != '\0' && tg_root_get(tgt_ledger->root.name) != NULL &&
	    tg_root_set(tgt_ledger->root.name, NULL) != 0)
		tgt_wrong("root %s cannot be removed", tgt_ledger->root.name);
	for (i = 0; i < n_live; i++)
		tg_free(live[i]);
	tg_trim();
	tgt_admin(TGD__ADMIN__WHAT__TRIM, 0);
	judge_check(0);
	reply = tgt_admin(TGD__ADMIN__WHAT__STATUS, 0);
	if (reply == NULL)
		return;
	if (reply->status->spans != 0 || reply->status->span_bytes != 0)
		tgt_wrong("%llu spans are left of an empty heap",
			  (unsigned long long)reply->status->spans);
	if (reply->status->idle_bytes != 0)
		tgt_wrong("%llu bytes of free pages were not given back",
			  (unsigned long long)reply->status->idle_bytes);
	if (reply->status->slots != slots_at_start)
		tgt_wrong("%llu thread slots are in use, not %llu",
			  (unsigned long long)reply->status->slots,
			  (unsigned long long)slots_at_start);
	if (reply->status->roots != 0)
		tgt_wrong("a root is left");
}

bool tgt_oracle(void)
{
	static int failed_before;
	unsigned before = tgt_n_wrong, extras_max, i;

	if (tgt_failed_expectations() != failed_before)
		tgt_wrong("what the observer expects is not so");
	failed_before = tgt_failed_expectations();
	if (!tgt_wait_clients(1))
		return false;
	if (tgt_ledger->script->flags & TGT_SWEPT)
		wait_swept();
	tgt_hand_is_cut();
	root_in_hand();
	extras_max = expect();
	walk();
	if (n_extras > extras_max)
		tgt_wrong("%u objects too many (at most %u can be in hand)", n_extras, extras_max);
	for (i = 0; i < n_places; i++)
		judge_place(&places[i]);
	judge_check(n_live);
	if (tgt_n_wrong == before)
		empty();
	return tgt_n_wrong == before;
}
