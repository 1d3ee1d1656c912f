/*
 * sizeclass: from the size of a request to its class, and from an offset in a span to its slot.
 *
 * The classes are the Go runtime's: class 0 stands for large objects (one span each), 1..67 for
 * small ones up to 32 KiB. tools/mksizeclasses.c computes the tables at build time. The data is
 * visible here because the two functions below are on the path of every malloc and free.
 *
 *   - Class 1 (8 bytes, 1024 slots) is in the tables as it is in Go's, but no span of it is ever
 *     granted: requests below 16 bytes go to tiny spans. So the most slots of a dense span are 512.
 *   - Class TGS_CLASS_TINY is ours: its "objects" are the single bytes of one page; a set bit says
 *     that an object starts at that byte. Tiny objects share 16-byte blocks.
 *   - A slot is naturally aligned to 16, except in classes 1 (8 bytes) and 3 (24 bytes).
 *   - An offset in the unused tail of a span gives n_slots, which is no slot: the caller checks.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base.h"

#define TGS_CLASSES     68 /* 0 large, 1..67 small */
#define TGS_CLASS_TINY  68 /* spans of single bytes, grouped in 16-byte blocks */
#define TGS_CLASSES_ALL 69
#define TGS_SMALL_MAX   32768 /* the largest request that has a class of its own */
#define TGS_FINE_MAX    1024  /* the largest request whose class is looked up in steps of 8 bytes */
#define TGS_TINY_MAX    15    /* the largest request that goes to a tiny span */

/* How many units of 64 objects the state of a span has at most: 1; 2, 4 or 8 ("dense"); 128. */
enum tgs_kind { TGS_SPARSE, TGS_DENSE_2, TGS_DENSE_4, TGS_DENSE_8, TGS_TINY, TGS_KINDS };

static inline bool tgs_is_dense(unsigned kind)
{
	return kind - TGS_DENSE_2 <= TGS_DENSE_8 - TGS_DENSE_2;
}

/* The shape of a span of one class; const data. */
struct tgs_class {
	uint32_t size;    /* bytes of a slot; 0 in class 0 */
	uint16_t n_slots; /* 1 in class 0 */
	uint8_t n_pages;  /* pages of a span; 0 in class 0, where each span has its own */
	uint8_t kind;     /* enum tgs_kind */
	uint64_t magic;   /* ceil(2^32 / size); 0 in class 0, so that its only slot is 0 */
};

extern TGS_HIDDEN const struct tgs_class tgs_classes[TGS_CLASSES_ALL];
extern TGS_HIDDEN const uint8_t tgs_class_table_a[129]; /* by ceil(size / 8), up to 1024 bytes */
extern TGS_HIDDEN const uint8_t tgs_class_table_b[249]; /* by ceil((size - 1024) / 128), above */

/*
 * The smallest class whose slots hold size bytes, for 1..TGS_SMALL_MAX; the caller has checked the
 * range. Go looks up sizes from 1017 on in the second table; both have 1024.
 */
static inline unsigned tgs_size_to_class(size_t size)
{
	if (__builtin_expect(size <= TGS_FINE_MAX, 1))
		return tgs_class_table_a[(size + 7) >> 3];
	return tgs_class_table_b[(size - 1024 + 127) >> 7];
}

/*
 * The slot that holds the byte at this offset of a span: offset / size without a division.
 * Exact for offsets up to the length of a span of the class, and 0 throughout a large span.
 */
static inline uint32_t tgs_slot_index(unsigned class, uint64_t offset_in_span)
{
	return (uint32_t)((offset_in_span * tgs_classes[class].magic) >> 32);
}
