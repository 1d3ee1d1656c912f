/* work-pair.h - the loop of the pairs, which two processes also do at once. */
#pragma once

#include <stddef.h>

struct tgb_pairs {
	size_t size;
	unsigned batch, times; /* so many batches are a step */
	void **objects;
};

void tgb_pairs_init(struct tgb_pairs *pairs, size_t size, unsigned batch);
void (*tgb_pairs_step(const struct tgb_pairs *pairs))(void *arg);
double tgb_pairs_per_step(const struct tgb_pairs *pairs);
