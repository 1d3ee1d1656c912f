/* test_tiny - objects of 1 to 15 bytes lie where the rules of the seed text put them.
 *
 * The rules once more, as a model of a dozen lines: the offset in the current block is aligned by the size of the
 * request; if the object fits it lies there; else it opens a new block, and of the two blocks the one with more room is
 * current from then on.  A block is used again when all of its objects are gone.
 */
#include <CUnit/CUnit.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/message.h"
#include "tests/support/runner.h"

#define N_OBJECTS 4096
#define N_BLOCKS  65536u /* of the model's table; a power of two */

static unsigned align_of(size_t size)
{
	return size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1;
}

/* ---- the model ---- */

static struct {
	uintptr_t block; /* the current one; 0: none */
	unsigned offset;
	struct {
		uintptr_t block;
		unsigned live;
	} blocks[N_BLOCKS];
} model;

static unsigned *live_in(uintptr_t block)
{
	unsigned i = (unsigned)(block / 16 * 2654435761u) & (N_BLOCKS - 1);

	while (model.blocks[i].block != block && model.blocks[i].block != 0)
		i = (i + 1) & (N_BLOCKS - 1);
	model.blocks[i].block = block;
	return &model.blocks[i].live;
}

static void forget(void)
{
	memset(&model, 0, sizeof(model));
}

/* Is `p` where the rules put an object of this size? */
static bool model_alloc(const void *p, size_t size)
{
	uintptr_t at = (uintptr_t)p, block = at & ~(uintptr_t)15;
	unsigned align = align_of(size), offset = (model.offset + align - 1) & ~(align - 1);

	if (model.block != 0 && offset + size <= 16) {
		model.offset = offset + (unsigned)size;
		++*live_in(model.block);
		return at == model.block + offset;
	}
	/* A new block: its first byte, and nothing lives in it. */
	if (at != block || block == model.block || (*live_in(block))++ != 0)
		return false;
	if (model.block == 0 || size < model.offset) {
		model.block = block;
		model.offset = (unsigned)size;
	}
	return true;
}

static void model_free(const void *p)
{
	uintptr_t block = (uintptr_t)p & ~(uintptr_t)15;

	if (--*live_in(block) == 0 && block == model.block)
		model.offset = 0;
}

/* ---- tests ---- */

/* No block is current after this. */
static void fresh(void)
{
	CU_ASSERT_EQUAL(tg_trim(), 0);
	forget();
}

static void test_a_fresh_thread_starts_at_offset_0(void)
{
	size_t size;

	for (size = 1; size < 16; size++) {
		void *p;

		fresh();
		p = tg_malloc(size);
		CU_ASSERT_PTR_NOT_NULL_FATAL(p);
		CU_ASSERT_EQUAL((uintptr_t)p % 16, 0);
		tg_free(p);
	}
}

static void test_every_pair_of_sizes(void)
{
	size_t a, b, c;

	for (a = 1; a < 16; a++) {
		for (b = 1; b < 16; b++) {
			for (c = 1; c < 16; c += 3) {
				uint8_t *p, *q, *r;

				fresh();
				p = tg_malloc(a);
				q = tg_malloc(b);
				r = tg_malloc(c);
				CU_ASSERT(model_alloc(p, a));
				CU_ASSERT(model_alloc(q, b));
				CU_ASSERT(model_alloc(r, c));
				CU_ASSERT(p + a <= q || q + b <= p);
				CU_ASSERT_EQUAL((uintptr_t)q % align_of(b), 0);
				tg_free(p);
				tg_free(q);
				tg_free(r);
			}
		}
	}
}

/* Go's TestTinyAlloc asks for two of 16 in one 8-byte piece; by the seed's rule all 16 fill one block. */
static void test_sixteen_bytes_share_a_block(void)
{
	uint8_t *objects[16];
	unsigned i;

	fresh();
	for (i = 0; i < 16; i++) {
		objects[i] = tg_malloc(1);
		CU_ASSERT_PTR_EQUAL(objects[i], objects[0] + i);
	}
	tgt_check(16);
	for (i = 0; i < 16; i++)
		tg_free(objects[i]);
}

/* Go's issue 37262: after 4 bytes, 12 bytes must take an atomic store of 64 bits. */
static void test_twelve_bytes_take_an_atomic_store(void)
{
	_Atomic uint64_t *p;
	void *four;

	fresh();
	four = tg_malloc(4);
	p = tg_malloc(12);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	CU_ASSERT_EQUAL((uintptr_t)p % 8, 0);
	atomic_store(p, UINT64_MAX);
	CU_ASSERT_EQUAL(atomic_load(p), UINT64_MAX);
	tg_free(four);
	tg_free(p);
}

static void test_the_roomier_block_stays_current(void)
{
	uint8_t *five, *fourteen, *two, *twelve, *three;

	fresh();
	five = tg_malloc(5);
	/* Does not fit behind the five; the rest of its block is smaller. */
	fourteen = tg_malloc(14);
	two = tg_malloc(2);
	CU_ASSERT_PTR_EQUAL(two, five + 6);
	/* Nor does this; but its block has no more room than what is left of the first: 16 - 8. */
	twelve = tg_malloc(12);
	CU_ASSERT_EQUAL((uintptr_t)twelve % 16, 0);
	three = tg_malloc(3);
	CU_ASSERT_PTR_EQUAL(three, five + 8);
	tg_free(five);
	tg_free(fourteen);
	tg_free(two);
	tg_free(twelve);
	tg_free(three);
}

struct object {
	void *p;
	size_t size;
	uint64_t seed;
};

static struct object objects[N_OBJECTS];

static void end_object(struct object *o, bool modelled)
{
	CU_ASSERT(tgt_is_filled(o->p, o->size, o->seed));
	if (modelled)
		model_free(o->p);
	tg_free(o->p);
	o->p = NULL;
}

/* Objects come and go at random, `n_live` of them at most. */
static void random_life(unsigned n_live, unsigned n, uint64_t seed)
{
	uint64_t random = seed;
	unsigned i;

	fresh();
	for (i = 0; i < n; i++) {
		struct object *o = &objects[tgt_random(&random) % n_live];

		if (o->p != NULL) {
			end_object(o, true);
			continue;
		}
		o->size = 1 + tgt_random(&random) % 15;
		o->seed = tgt_random(&random);
		o->p = tg_malloc(o->size);
		CU_ASSERT_PTR_NOT_NULL_FATAL(o->p);
		CU_ASSERT(model_alloc(o->p, o->size));
		CU_ASSERT(tg_usable_size(o->p) >= o->size);
		CU_ASSERT((uintptr_t)o->p % 16 + tg_usable_size(o->p) <= 16);
		tgt_fill_object(o->p, o->size, o->seed);
	}
	for (i = 0; i < n_live; i++) {
		if (objects[i].p != NULL)
			end_object(&objects[i], true);
	}
}

static void test_random_lives_follow_the_model(void)
{
	unsigned n = tgt_scaled(100000);

	random_life(8, n, 1);
	random_life(100, n, 2);
	random_life(N_OBJECTS, n, 3);
}

static int by_address(const void *a, const void *b)
{
	const struct object *left = a, *right = b;

	return left->p < right->p ? -1 : left->p > right->p;
}

/* All of what usable_size says may be used. */
static void test_usable_bytes_do_not_reach_the_next_object(void)
{
	uint64_t random = 4;
	unsigned i;

	for (i = 0; i < N_OBJECTS; i++) {
		objects[i].size = 1 + tgt_random(&random) % 15;
		objects[i].p = tg_malloc(objects[i].size);
		CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i].p);
	}
	qsort(objects, N_OBJECTS, sizeof(*objects), by_address);
	for (i = 0; i < N_OBJECTS; i++) {
		size_t usable = tg_usable_size(objects[i].p);

		CU_ASSERT(usable >= objects[i].size);
		if (i + 1 < N_OBJECTS)
			CU_ASSERT((uint8_t *)objects[i].p + usable <= (uint8_t *)objects[i + 1].p);
		objects[i].size = usable;
		tgt_fill_object(objects[i].p, usable, i);
	}
	tgt_check(N_OBJECTS);
	for (i = 0; i < N_OBJECTS; i++) {
		objects[i].seed = i;
		end_object(&objects[i], false);
	}
}

static void test_realloc_in_the_room_it_has(void)
{
	size_t from, to;

	for (from = 1; from < 16; from++) {
		for (to = 1; to < 16; to++) {
			uint8_t *p, *q;

			fresh();
			p = tg_malloc(from);
			CU_ASSERT_PTR_NOT_NULL_FATAL(p);
			tgt_fill_object(p, from, 5);
			q = tg_realloc(p, to);
			CU_ASSERT_PTR_NOT_NULL_FATAL(q);
			if (to <= from)
				CU_ASSERT_PTR_EQUAL(q, p);
			CU_ASSERT(tgt_is_filled(q, from < to ? from : to, 5));
			CU_ASSERT_EQUAL((uintptr_t)q % align_of(to < from ? to : from), 0);
			tgt_check(1);
			tg_free(q);
		}
	}
}

static void test_a_block_is_reused_only_when_empty(void)
{
	uint8_t *block[4], *other[512], *p;
	unsigned i, round;

	fresh();
	for (i = 0; i < 4; i++)
		block[i] = tg_malloc(4);
	CU_ASSERT_PTR_EQUAL(block[3], block[0] + 12);
	for (i = 0; i < 3; i++)
		tg_free(block[i]);
	/* The fourth is left, so nothing else comes to lie there. */
	for (round = 0; round < 4; round++) {
		for (i = 0; i < 512; i++) {
			other[i] = tg_malloc(4);
			CU_ASSERT(other[i] + 4 <= block[0] || other[i] >= block[0] + 16);
		}
		for (i = 0; i < 512; i++)
			tg_free(other[i]);
	}
	/* Now it is free, and comes again before a new page is needed. */
	tg_free(block[3]);
	p = NULL;
	for (i = 0; i < 512 && p == NULL; i++) {
		other[i] = tg_malloc(15);
		if (other[i] == block[0])
			p = other[i];
	}
	CU_ASSERT_PTR_EQUAL(p, block[0]);
	while (i > 0)
		tg_free(other[--i]);
}

static void free_every_other(void *arg)
{
	unsigned i, first = *(unsigned *)arg;

	for (i = first; i < N_OBJECTS; i += 2) {
		TGT_EXPECT(tgt_is_filled(objects[i].p, objects[i].size, objects[i].seed));
		tg_free(objects[i].p);
	}
}

/* Blocks whose objects are freed partly here and partly there. */
static void test_other_processes_free_tiny_objects(void)
{
	uint64_t random = 6;
	unsigned round, i, first = 0;
	struct tg_stats before = {0};

	for (round = 0; round < 10; round++) {
		for (i = 0; i < N_OBJECTS; i++) {
			objects[i].size = 1 + tgt_random(&random) % 15;
			objects[i].p = tg_malloc(objects[i].size);
			objects[i].seed = tgt_random(&random);
			CU_ASSERT_PTR_NOT_NULL_FATAL(objects[i].p);
			tgt_fill_object(objects[i].p, objects[i].size, objects[i].seed);
		}
		tgt_check(N_OBJECTS);
		CU_ASSERT_EQUAL(tgt_in_child(free_every_other, &first), 0);
		tgt_check(N_OBJECTS / 2);
		for (i = !first; i < N_OBJECTS; i += 2)
			end_object(&objects[i], false);
		tgt_check(0);
		first = !first;
		CU_ASSERT(tgt_wait_at_least("recovered_clients", round + 1));
		if (round == 4)
			before = tgt_stats();
	}
	/* Nothing is lost between owner and others: it takes no more room than it did. */
	CU_ASSERT(tgt_stats().spans <= before.spans + 4);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	CU_ASSERT_EQUAL(tgt_status("span_bytes"), 0);
}

static void *one_byte(void *arg)
{
	*(void **)arg = tg_malloc(1);
	return NULL;
}

static void test_threads_have_blocks_of_their_own(void)
{
	uint8_t *mine = tg_malloc(1), *theirs = NULL, *next;
	pthread_t thread;

	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, one_byte, &theirs), 0);
	pthread_join(thread, NULL);
	CU_ASSERT_PTR_NOT_NULL(theirs);
	CU_ASSERT_NOT_EQUAL((uintptr_t)mine / 8192, (uintptr_t)theirs / 8192);
	next = tg_malloc(1);
	CU_ASSERT_PTR_EQUAL(next, mine + 1);
	tg_free(mine);
	tg_free(theirs);
	tg_free(next);
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"The first object of a thread lies at the start of a block",
		 test_a_fresh_thread_starts_at_offset_0},
		{"All pairs of sizes are packed by the seed's rule", test_every_pair_of_sizes},
		{"Sixteen objects of one byte share a block", test_sixteen_bytes_share_a_block},
		{"Twelve bytes behind four take an atomic store of 64 bits",
		 test_twelve_bytes_take_an_atomic_store},
		{"Of two blocks the one with more room stays current",
		 test_the_roomier_block_stays_current},
		{"Random lives of objects follow the model", test_random_lives_follow_the_model},
		{"The usable bytes of an object do not reach the next one",
		 test_usable_bytes_do_not_reach_the_next_object},
		{"realloc stays in the room that an object has", test_realloc_in_the_room_it_has},
		{"A block is reused when it is empty, and not before",
		 test_a_block_is_reused_only_when_empty},
		{"Other processes free tiny objects", test_other_processes_free_tiny_objects},
		{"Threads have blocks of their own", test_threads_have_blocks_of_their_own},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"tiny", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("tiny", suites);
}
