/* work-pair.c - allocate a batch, free it in the same order: malloc, and calloc.
 */
#include "bench/tgbench/alloc.h"
#include "bench/tgbench/work-pair.h"
#include "bench/tgbench/worker.h"

/* One step takes some 20 microseconds or more. */
#define OPS_PER_STEP 4000

void tgb_pairs_init(struct tgb_pairs *pairs, size_t size, unsigned batch)
{
	pairs->size = size;
	pairs->batch = batch;
	pairs->times = batch < OPS_PER_STEP ? OPS_PER_STEP / batch : 1;
	pairs->objects = tgb_table(batch * sizeof(void *));
}

static inline __attribute__((always_inline)) void batches(const struct tgb_pairs *pairs, bool words,
							  bool zeroed)
{
	void **objects = pairs->objects;
	unsigned batch = pairs->batch, i, t;
	size_t size = pairs->size;

	for (t = 0; t < pairs->times; t++) {
		for (i = 0; i < batch; i++) {
			objects[i] = zeroed ? TGB_CALLOC(size) : TGB_MALLOC(size);
			tgb_write(objects[i], words, i);
		}
		for (i = 0; i < batch; i++)
			TGB_FREE(objects[i]);
	}
}

static void step_bytes(void *arg)
{
	batches(arg, false, false);
}

static void step_words(void *arg)
{
	batches(arg, true, false);
}

static void step_zeroed(void *arg)
{
	batches(arg, true, true);
}

void (*tgb_pairs_step(const struct tgb_pairs *pairs))(void *arg)
{
	return pairs->size < sizeof(uint64_t) ? step_bytes : step_words;
}

double tgb_pairs_per_step(const struct tgb_pairs *pairs)
{
	return (double)pairs->batch * pairs->times;
}

void tgb_work_pair(void)
{
	struct tgb_pairs pairs;

	tgb_pairs_init(&pairs, (size_t)tgb_arg("size", 64), (unsigned)tgb_arg("batch", 100));
	tgb_measure(tgb_pairs_step(&pairs), &pairs, tgb_pairs_per_step(&pairs));
}

void tgb_work_calloc(void)
{
	struct tgb_pairs pairs;

	tgb_pairs_init(&pairs, (size_t)tgb_arg("size", 64), (unsigned)tgb_arg("batch", 100));
	if (pairs.size * pairs.batch > 1 << 20)
		pairs.times = 1;
	tgb_measure(step_zeroed, &pairs, tgb_pairs_per_step(&pairs));
}
