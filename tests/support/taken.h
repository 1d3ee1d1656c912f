/* taken.h - what a test does to the bytes and bits that say of a span's slots whether they are taken. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "shm/span.h"

/* As the owner's malloc does. */
static inline void tgt_set_taken(const struct tgs_heap *heap, unsigned kind, uint64_t page,
				 unsigned index)
{
	if (kind == TGS_TINY)
		atomic_fetch_or(&heap->tiny_taken[page].taken[index / 64], UINT64_C(1)
										   << index % 64);
	else
		atomic_store(&tgs_taken_bytes(heap, kind, page)[index], TGS_TAKEN);
}

/* Just these of a unit are. */
static inline void tgt_make_taken(const struct tgs_heap *heap, unsigned kind, uint64_t page,
				  unsigned unit, uint64_t bits)
{
	(void)tgs_taken_clear(heap, kind, page, unit, ~bits);
	for (; bits != 0; bits &= bits - 1)
		tgt_set_taken(heap, kind, page, unit * 64 + (unsigned)__builtin_ctzll(bits));
}
