/* test_takeover_random: whatever clients did, a daemon may die after any of it, and the next one
 * has it all.
 *
 * Clients come, take, free, publish, give back and go at random; again and again the daemon dies,
 * also with dead clients half settled.  Each time what is counted before and after is the same, and
 * memory is that of the spans and no more.  At the end everything is freed, and then nothing is
 * left.  $TGT_SEED sets the seed, which is printed.
 */
#include <stdlib.h>

#include "tests/support/runner.h"
#include "tests/support/takeover.h"
#include "tests/support/taken.h"

enum { CLIENTS = 6, SLOTS = 3, SPANS = 40, DAEMONS = 150, STEPS = 60, SPARSE = 30 };

static struct player {
	uint32_t id; /* 0: none */
	unsigned n_slots;
	unsigned slot[SLOTS];
	unsigned n_spans[SLOTS];
	uint64_t span[SLOTS][SPANS];
} players[CLIENTS];

static uint64_t state;

static unsigned any(unsigned below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (unsigned)((state >> 11) % below);
}

static void start(void)
{
	const char *seed = getenv("TGT_SEED");

	state = seed ? strtoull(seed, NULL, 0) : 0x9e3779b97f4a7c15;
	printf("seed 0x%llx\n", (unsigned long long)state);
	state = state ? state : 1;
	memset(players, 0, sizeof(players));
	start_heap(256 * (uint64_t)MIB, 100 * MIB);
}

static bool has_room(uint64_t page, unsigned index)
{
	unsigned kind = kind_at(page);

	return !(tgs_taken_bits(view, kind, page, index / 64) >> index % 64 & 1);
}

/* The last object of such a span is only ever freed by way of a buffer, so that nobody else
 * frees it meanwhile. */
static bool is_for_buffers(const struct tgs_span *span, unsigned index)
{
	return span->class == SPARSE && index == span->n_slots - 1;
}

static void take_and_publish(uint64_t page)
{
	struct tgs_span span = span_at(page);
	unsigned n = any(5), index;

	while (n-- > 0) {
		index = any(span.n_slots);
		if (!has_room(page, index) || is_for_buffers(&span, index))
			continue;
		take_object(page, index);
		if (any(2))
			publish(page, index);
	}
}

static void get_some(struct player *player, unsigned i)
{
	unsigned classes[] = {2, 5, SPARSE, 49, 63, 67, TGS_CLASS_TINY}, n = 0, k;
	unsigned room = SPANS - player->n_spans[i];
	struct tgd_grant grant[4];

	if (room < 4)
		return;
	if (any(4) == 0) {
		grant[0] = get_large(player->id, player->slot[i], 1 + any(60));
		n = 1;
	} else if (any(4) == 0) {
		const uint32_t some[] = {classes[any(7)], classes[any(7)], classes[any(7)]};

		n = tgd_heap_get_one_each(heap, player->id, player->slot[i], some, 1 + any(3),
					  grant);
	} else {
		CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, player->id, player->slot[i],
						   classes[any(7)], 1 + any(4), grant, &n),
				0);
	}
	for (k = 0; k < n; k++) {
		player->span[i][player->n_spans[i]++] = grant[k].page;
		take_and_publish(grant[k].page);
	}
}

static void put_one(struct player *player, unsigned i)
{
	unsigned at;

	if (player->n_spans[i] == 0)
		return;
	at = any(player->n_spans[i]);
	CU_ASSERT_EQUAL(put_span(player->id, player->slot[i], player->span[i][at]), 0);
	player->span[i][at] = player->span[i][--player->n_spans[i]];
}

/* An object of a span that somebody holds, or that nobody does. */
static void free_one(struct player *player, unsigned i)
{
	struct tgs_span span;
	unsigned unit, kind, index;
	uint64_t live;

	if (!tgd_lease_from(&heap->lease, any((unsigned)heap->lease.end_page + 1), &span))
		return;
	kind = tgs_classes[span.class].kind;
	for (unit = 0; unit < tgs_span_units(span.n_slots); unit++) {
		live = tgs_taken_bits(view, kind, span.page, unit) &
		       ~tgs_remote_bits(view, kind, span.page, unit);
		if (live == 0)
			continue;
		index = unit * 64 + (unsigned)__builtin_ctzll(live);
		if (is_for_buffers(&span, index))
			return;
		remote_free(player->slot[i], span.page, index);
		return;
	}
}

static void buffer_one(struct player *player, unsigned i)
{
	struct tgs_pending *place = &view->slots[player->slot[i]].pending[any(3)];
	struct tgs_span span;

	if (player->n_spans[i] == 0)
		return;
	if (place->mask != 0) {
		CU_ASSERT_EQUAL(tgs_pending_apply(view, player->slot[i], place), 0);
		return;
	}
	span = span_at(player->span[i][any(player->n_spans[i])]);
	if (span.class != SPARSE || !has_room(span.page, span.n_slots - 1))
		return;
	take_object(span.page, span.n_slots - 1);
	if (any(2))
		publish(span.page, span.n_slots - 1);
	(void)buffer_free(player->slot[i], (unsigned)(place - view->slots[player->slot[i]].pending),
			  span.page, span.n_slots - 1);
}

static void resize_one(struct player *player, unsigned i)
{
	struct tgd_grant grant;
	uint64_t page;

	if (player->n_spans[i] == 0)
		return;
	page = player->span[i][any(player->n_spans[i])];
	if (span_at(page).class == 0)
		(void)tgd_heap_resize(heap, player->id, player->slot[i], page, 1 + any(80), &grant);
}

static void come(struct player *player)
{
	player->id = add_client(any(2) ? RECLAIM : 0);
	player->n_slots = 0;
}

static void open_one(struct player *player)
{
	if (player->n_slots == SLOTS)
		return;
	player->n_spans[player->n_slots] = 0;
	player->slot[player->n_slots++] = open_slot(player->id);
}

static void close_one(struct player *player)
{
	if (player->n_slots == 0)
		return;
	player->n_slots--;
	CU_ASSERT_EQUAL(tgd_heap_close_slot(heap, player->id, player->slot[player->n_slots]), 0);
}

static void go(struct player *player)
{
	int r = any(3) == 0 ? tgd_heap_client_detach(heap, player->id)
			    : tgd_heap_client_end(heap, player->id);

	CU_ASSERT_EQUAL(r, 0);
	player->id = 0;
	player->n_slots = 0;
}

static void root_one(struct player *player)
{
	char name[16];
	uint64_t page;
	int r;

	snprintf(name, sizeof(name), "root %u", any(40));
	if (player->n_spans[0] == 0 || any(3) == 0) {
		r = tgd_heap_root_set(heap, name, 0, false, 0);
		CU_ASSERT(r == 0 || r == -ENOENT);
		return;
	}
	page = player->span[0][any(player->n_spans[0])];
	if (!has_room(page, 0))
		CU_ASSERT(tgd_heap_root_set(heap, name, ref_of(page, 0), false, 0) <= 0);
}

static void step(void)
{
	struct player *player = &players[any(CLIENTS)];
	unsigned i, what = any(100);

	if (player->id == 0) {
		come(player);
		return;
	}
	if (player->n_slots == 0 || what < 4) {
		open_one(player);
		return;
	}
	i = any(player->n_slots);
	if (what < 40)
		get_some(player, i);
	else if (what < 58)
		put_one(player, i);
	else if (what < 75)
		free_one(player, i);
	else if (what < 80)
		buffer_one(player, i);
	else if (what < 86)
		resize_one(player, i);
	else if (what < 90)
		root_one(player);
	else if (what < 93)
		close_one(player);
	else if (what < 95)
		go(player);
	else if (what < 99)
		work(1);
	else
		(void)tgd_heap_trim(heap);
}

/* What the players hold is what the daemon thinks. */
static void agree(const struct player *player)
{
	uint64_t page, total, next;
	unsigned i, k, n;

	for (i = 0; i < player->n_slots; i++) {
		CU_ASSERT_EQUAL(tgd_heap_holdings(heap, player->id, player->slot[i], 0, &page, 1,
						  &n, &total, &next),
				0);
		CU_ASSERT_EQUAL(total, player->n_spans[i]);
		for (k = 0; k < player->n_spans[i]; k++)
			CU_ASSERT_EQUAL(owner_of(player->span[i][k]), player->slot[i]);
	}
}

static void next_daemon(void)
{
	struct tgd_check checked_before, checked_after;
	struct tgd_heap_status before, after;
	unsigned i;

	/* Central's spans are harvested at a takeover; done before, too, what is counted is the
	 * same. */
	tgd_central_sweep_all(&heap->central);
	checked_before = checked();
	before = status();
	take_over();
	checked_after = checked();
	after = status();
	CU_ASSERT_EQUAL(after.spans, before.spans);
	CU_ASSERT_EQUAL(after.span_bytes, before.span_bytes);
	CU_ASSERT_EQUAL(after.orphan_spans, before.orphan_spans);
	CU_ASSERT_EQUAL(after.clients, before.clients);
	CU_ASSERT_EQUAL(after.dead_clients, before.dead_clients);
	CU_ASSERT_EQUAL(after.recovered_clients, before.recovered_clients);
	CU_ASSERT_EQUAL(after.slots, before.slots);
	CU_ASSERT_EQUAL(after.roots, before.roots);
	CU_ASSERT_EQUAL(after.limit_bytes, before.limit_bytes);
	CU_ASSERT_EQUAL(after.idle_bytes, 0);
	CU_ASSERT(after.resident_bytes <= before.resident_bytes);
	CU_ASSERT_EQUAL(checked_after.objects, checked_before.objects);
	CU_ASSERT_EQUAL(checked_after.object_bytes, checked_before.object_bytes);
	CU_ASSERT_EQUAL(checked_after.published, checked_before.published);
	for (i = 0; i < CLIENTS; i++) {
		if (players[i].id != 0)
			agree(&players[i]);
	}
}

static void free_all(void)
{
	struct tgs_span span;
	uint64_t page = 0;
	unsigned i, unit, kind;

	for (i = 0; i < CLIENTS; i++) {
		if (players[i].id != 0)
			go(&players[i]);
	}
	work(10000);
	for (; tgd_lease_from(&heap->lease, page, &span); page = span.page + span.n_pages) {
		CU_ASSERT_EQUAL(span.owner, TGS_SLOT_CENTRAL);
		kind = tgs_classes[span.class].kind;
		for (unit = 0; unit < tgs_span_units(span.n_slots); unit++) {
			*tgs_published_word(view, kind, span.page, unit) = 0;
			tgt_make_taken(view, kind, span.page, unit, 0);
		}
	}
}

static void whenever_a_daemon_dies_the_next_one_has_it_all(void)
{
	unsigned daemons, steps;
	uint64_t base;

	for (daemons = 0; daemons < DAEMONS; daemons++) {
		for (steps = 1 + any(STEPS); steps > 0; steps--)
			step();
		next_daemon();
	}
	CU_ASSERT_EQUAL(header()->daemon_epoch, DAEMONS + 1);
	free_all();
	take_over();
	CU_ASSERT_EQUAL(status().span_bytes, 0);
	CU_ASSERT_EQUAL(status().spans, 0);
	CU_ASSERT_EQUAL(status().clients, 0);
	CU_ASSERT_EQUAL(status().dead_clients, 0);
	CU_ASSERT_EQUAL(status().slots, 0);
	/* Nothing but the tables, once more: what ended at the takeover was idle. */
	take_over();
	base = status().resident_bytes;
	CU_ASSERT_EQUAL(status().idle_bytes, 0);
	CU_ASSERT(base < 2 * MIB);
}

static CU_TestInfo tests[] = {
	{"whenever a daemon dies, the next one has it all",
	 whenever_a_daemon_dies_the_next_one_has_it_all},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"random", NULL, NULL, start, end_heap, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("takeover_random", suites);
}
