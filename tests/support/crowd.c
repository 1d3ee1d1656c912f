/* crowd.c - see crowd.h.
 */
#include "tests/support/crowd.h"

#include <CUnit/CUnit.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/support/fixture.h"
#include "tests/support/message.h"

#define FILL_MAX 512u

static const size_t sizes[] = {1,   3,    8,    15,   16,    24,    40,    100,    200,
			       500, 1000, 3000, 8192, 20000, 32768, 33000, 70000,  200000,
			       9,   12,   64,   64,   128,   128,   256,   1 << 20};
#define N_SIZES (sizeof(sizes) / sizeof(*sizes))

static const char *const names[TGT_N_WHAT] = {
	"allocate and free", "realloc", "free the stopped one's objects", "swing links",
	"use roots",         "trim",    "start and end a thread"};

struct tgt_crowd *tgt_crowd;

/* ---- objects ---- */

static void *object_of(uint64_t word)
{
	return (void *)(uintptr_t)(word & ((UINT64_C(1) << 48) - 1));
}

static size_t size_of(uint64_t word)
{
	return sizes[word >> 48 & 63];
}

static size_t filled_part(size_t size)
{
	return size < FILL_MAX ? size : FILL_MAX;
}

static uint64_t choose(uint64_t *random)
{
	return tgt_random(random) % N_SIZES << 48 | tgt_random(random) << 54;
}

uint64_t tgt_crowd_make(uint64_t *random)
{
	uint64_t word = choose(random);
	void *p = tg_malloc(size_of(word));

	TGT_REQUIRE(p != NULL);
	word |= (uintptr_t)p;
	tgt_fill_object(p, filled_part(size_of(word)), word);
	return word;
}

bool tgt_crowd_is_whole(uint64_t word)
{
	return tgt_is_filled(object_of(word), filled_part(size_of(word)), word);
}

void tgt_crowd_drop(uint64_t word)
{
	if (word == 0)
		return;
	TGT_EXPECT(tgt_crowd_is_whole(word));
	tg_free(object_of(word));
}

static _Atomic uint64_t *some_hand(struct tgt_hands *hands, uint64_t *random)
{
	return &hands->held[tgt_random(random) % TGT_HELD];
}

static unsigned count_held(struct tgt_hands *hands)
{
	unsigned i, n = 0;

	for (i = 0; i < TGT_HELD; i++)
		n += atomic_load(&hands->held[i]) != 0;
	return n;
}

void tgt_crowd_drop_all(struct tgt_hands *hands)
{
	unsigned i;

	for (i = 0; i < TGT_HELD; i++)
		tgt_crowd_drop(atomic_exchange(&hands->held[i], 0));
}

/* ---- operations ---- */

static void resize(_Atomic uint64_t *hand, uint64_t *random)
{
	uint64_t old = atomic_exchange(hand, 0), word = choose(random);
	size_t both;
	void *p;

	if (old == 0)
		return;
	both = size_of(old) < size_of(word) ? size_of(old) : size_of(word);
	p = tg_realloc(object_of(old), size_of(word));
	TGT_REQUIRE(p != NULL);
	TGT_EXPECT(tgt_is_filled(p, filled_part(both) & ~(size_t)7, old));
	word |= (uintptr_t)p;
	tgt_fill_object(p, filled_part(size_of(word)), word);
	atomic_store(hand, word);
}

static void swing(uint64_t *random)
{
	tg_link *link = &tgt_crowd->links[tgt_random(random) % TGT_LINKS];
	uint64_t *node = NULL, seed = tgt_random(random);
	void *old;

	if (tgt_random(random) % 4 != 0) {
		size_t size = 16 + tgt_random(random) % (tgt_random(random) % 8 ? 200 : 40000);

		node = tg_malloc(size);
		TGT_REQUIRE(node != NULL);
		node[0] = filled_part(size);
		node[1] = seed;
		tgt_fill_object(node + 2, node[0] - 16, seed);
	}
	old = tg_link_get(link);
	if ((old != NULL || node != NULL) && !tg_swap(link, old, node, TG_GIVE | TG_RETIRE))
		tg_free(node);
}

static void use_roots(uint64_t *random)
{
	char name[16];

	snprintf(name, sizeof(name), "root %u", (unsigned)tgt_random(random) % 4);
	TGT_EXPECT(tg_root_set(name, tgt_crowd->links) == 0);
	TGT_EXPECT(tg_root_get(name) == tgt_crowd->links);
}

static void *short_life(void *arg)
{
	struct tgt_hands *hands = arg;
	uint64_t random = (uintptr_t)&random ^ atomic_load(&hands->held[0]);
	unsigned i;

	for (i = 0; i < 5; i++)
		tgt_crowd_do(TGT_REPLACE, hands, NULL, &random);
	return NULL;
}

void tgt_crowd_do(enum tgt_what what, struct tgt_hands *hands, struct tgt_hands *others,
		  uint64_t *random)
{
	_Atomic uint64_t *hand = some_hand(hands, random);
	pthread_t thread;

	switch (what) {
	case TGT_REPLACE:
		tgt_crowd_drop(atomic_exchange(hand, 0));
		atomic_store(hand, tgt_crowd_make(random));
		break;
	case TGT_RESIZE:
		resize(hand, random);
		break;
	case TGT_TAKE:
		tgt_crowd_drop(atomic_exchange(some_hand(others, random), 0));
		break;
	case TGT_SWAP:
		swing(random);
		break;
	case TGT_ROOT:
		use_roots(random);
		break;
	case TGT_TRIM:
		TGT_EXPECT(tg_trim() == 0);
		break;
	default:
		TGT_REQUIRE(pthread_create(&thread, NULL, short_life, hands) == 0);
		pthread_join(thread, NULL);
	}
}

/* ---- the survivors ---- */

/* Each command is done and answered; the last one is to end. */
static void survive(void *arg)
{
	struct tgt_survivor *survivor = arg;
	unsigned i, n;
	int what;

	while (tgt_wait_parent_said(&survivor->meeting)) {
		what = atomic_load(&tgt_crowd->command);
		if (what == TGT_N_WHAT)
			break;
		n = what == TGT_TRIM || what == TGT_THREAD ? 2 : what == TGT_ROOT ? 5 : 60;
		for (i = 0; i < n; i++)
			tgt_crowd_do((enum tgt_what)what, survivor->hands,
				     &tgt_crowd->hands[tgt_random(&survivor->random) % TGT_VICTIMS],
				     &survivor->random);
		tgt_tell_parent(&survivor->meeting);
	}
	tgt_crowd_drop_all(survivor->hands);
}

void tgt_survivors_start(struct tgt_survivor *survivors, uint64_t *random)
{
	unsigned i;

	for (i = 0; i < TGT_SURVIVORS; i++) {
		survivors[i].random = tgt_random(random);
		survivors[i].hands = &tgt_crowd->hands[TGT_VICTIMS + i];
		CU_ASSERT_FATAL(tgt_meeting_open(&survivors[i].meeting));
		survivors[i].pid = tgt_fork(survive, &survivors[i]);
	}
}

/* Both at the same time, one kind after the other: nobody is blocked. */
void tgt_survivors_go_on(struct tgt_survivor *survivors)
{
	unsigned i;
	int what;
	bool ok;

	for (what = 0; what < TGT_N_WHAT; what++) {
		atomic_store(&tgt_crowd->command, what);
		for (i = 0; i < TGT_SURVIVORS; i++)
			tgt_tell_child(&survivors[i].meeting);
		for (i = 0; i < TGT_SURVIVORS; i++) {
			ok = tgt_wait_child_said(&survivors[i].meeting);
			CU_ASSERT(ok);
			if (!ok)
				printf("survivor %u did not come to an end: %s\n", i, names[what]);
		}
	}
}

void tgt_survivors_end(struct tgt_survivor *survivors)
{
	unsigned i;

	atomic_store(&tgt_crowd->command, TGT_N_WHAT);
	for (i = 0; i < TGT_SURVIVORS; i++)
		tgt_tell_child(&survivors[i].meeting);
	for (i = 0; i < TGT_SURVIVORS; i++) {
		CU_ASSERT_EQUAL(tgt_wait(survivors[i].pid), 0);
		tgt_meeting_close(&survivors[i].meeting);
	}
}

/* ---- the whole ---- */

void tgt_crowd_init(unsigned flags)
{
	void *p = mmap(NULL, sizeof(*tgt_crowd), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);

	CU_ASSERT_FATAL(p != MAP_FAILED);
	tgt_crowd = p;
	tgt_crowd->flags = flags;
	tgt_crowd->links = tg_calloc(TGT_LINKS, sizeof(*tgt_crowd->links));
	CU_ASSERT_PTR_NOT_NULL_FATAL(tgt_crowd->links);
	CU_ASSERT_EQUAL(tg_publish(tgt_crowd->links), 0);
}

static unsigned count_nodes(void)
{
	unsigned i, n = 0;

	for (i = 0; i < TGT_LINKS; i++) {
		const uint64_t *node = tg_link_get(&tgt_crowd->links[i]);

		if (node == NULL)
			continue;
		n++;
		CU_ASSERT(node[0] <= FILL_MAX && tgt_is_filled(node + 2, node[0] - 16, node[1]));
	}
	return n;
}

long long tgt_crowd_count(void)
{
	long long n = 1 + count_nodes();
	unsigned i;

	for (i = 0; i < TGT_VICTIMS + TGT_SURVIVORS; i++)
		n += count_held(&tgt_crowd->hands[i]);
	return n;
}

void tgt_crowd_done(void)
{
	char name[16];
	unsigned i;

	(void)count_nodes();
	for (i = 0; i < TGT_LINKS; i++)
		(void)tg_swap(&tgt_crowd->links[i], tg_link_get(&tgt_crowd->links[i]), NULL,
			      TG_RETIRE);
	for (i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "root %u", i);
		(void)tg_root_set(name, NULL);
	}
	tg_free(tgt_crowd->links);
	munmap(tgt_crowd, sizeof(*tgt_crowd));
	tgt_crowd = NULL;
}
