/* stress.h - many threads of many processes allocate, fill, hand over, check and free; everything adds up at the end.
 *
 * Each thread keeps a table of objects.  At every turn it picks a place in it: allocates if it is empty, else checks the
 * object's pattern and frees it, resizes it, or hands it to a thread of another process, which checks and frees it.
 * Sizes are distributed by their logarithm.  An object's pattern is made from the number of its maker and a count, so an
 * object that overlaps another one, or one that was handed out twice, does not look as it should.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tgt_stress_plan {
	unsigned n_processes, n_threads; /* of each process; together at most 64 */
	uint64_t n_operations;           /* of all threads together */
	uint64_t seed;
	size_t size_max; /* a power of two */
	size_t live_max; /* bytes that a thread may hold */
};

/* Lies in the heap; every thread of every process works on it. */
struct tgt_stress;

/* The caller's to tg_free.  NULL: the heap has no room for it. */
struct tgt_stress *tgt_stress_new(const struct tgt_stress_plan *plan);

/* What one process does: runs its threads to their end.  True if all was well; else the reason is on standard error. */
bool tgt_stress_run(struct tgt_stress *stress, unsigned process);

struct tgt_stress_totals {
	uint64_t operations, allocations, frees;
	uint64_t frees_elsewhere; /* by another process than the one that allocated */
	uint64_t live;            /* allocated and not freed */
};

struct tgt_stress_totals tgt_stress_totals(const struct tgt_stress *stress);
