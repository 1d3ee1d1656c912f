/* backing-impl.h - what the files of the backing share: arrays of bits, where the state of pages
 * lies, punching; for them alone, and for heap-check.c, which looks at all state that there is. */
#pragma once

#include "daemon/backing.h"
#include "shm/base.h"
#include "shm/layout.h"
#include "shm/sizeclass.h"

static inline bool tgd_bits_get(const uint64_t *bits, uint64_t i)
{
	return bits[i / 64] >> i % 64 & 1;
}

static inline void tgd_bits_put(uint64_t *bits, uint64_t first, uint64_t n, bool value)
{
	uint64_t i = first, end = first + n;

	while (i < end) {
		uint64_t in_word = tgs_min(64 - i % 64, end - i);
		uint64_t mask = UINT64_MAX >> (64 - in_word) << i % 64;

		if (value)
			bits[i / 64] |= mask;
		else
			bits[i / 64] &= ~mask;
		i += in_word;
	}
}

/* How many bits from `first` on, before `end`, are like the first one. */
static inline uint64_t tgd_bits_run(const uint64_t *bits, uint64_t first, uint64_t end)
{
	uint64_t flip = tgd_bits_get(bits, first) ? UINT64_MAX : 0;
	uint64_t i = first;

	while (i < end) {
		uint64_t differs = (bits[i / 64] ^ flip) >> i % 64;

		if (differs != 0) {
			i += (uint64_t)__builtin_ctzll(differs);
			break;
		}
		i = (i / 64 + 1) * 64;
	}
	return tgs_min(i, end) - first;
}

static inline bool tgd_bits_have_blocks(const uint64_t *bits, uint64_t at, uint64_t bytes)
{
	uint64_t first = at / TGS_OS_PAGE;
	uint64_t end = (at + bytes - 1) / TGS_OS_PAGE + 1;

	return tgd_bits_get(bits, first) && tgd_bits_run(bits, first, end) == end - first;
}

/* A part of the heap file in which each page has `stride` bytes of state; none shares a block with
 * another. */
struct tgd_area {
	uint64_t at, stride;
};

enum {
	TGD_AREA_RECORDS,
	TGD_AREA_DENSE,
	TGD_AREA_DENSE_TAKEN, /* TGS_DENSE_KINDS of them */
	TGD_AREA_TINY_TAKEN = TGD_AREA_DENSE_TAKEN + TGS_DENSE_KINDS,
	TGD_AREA_TINY_MORE,
	TGD_AREAS
};

/* Has a span of that kind state in that area?  `more`: see tgs_has_more. */
static inline bool tgd_area_is_of(unsigned area, unsigned kind, bool more)
{
	switch (area) {
	case TGD_AREA_RECORDS:
		return true;
	case TGD_AREA_DENSE:
		return tgs_is_dense(kind) && more;
	case TGD_AREA_TINY_TAKEN:
		return kind == TGS_TINY;
	case TGD_AREA_TINY_MORE:
		return kind == TGS_TINY && more;
	default:
		return kind - TGS_DENSE_2 == area - TGD_AREA_DENSE_TAKEN;
	}
}

static inline void tgd_areas_of(const struct tgs_geometry *g, struct tgd_area ret[TGD_AREAS])
{
	unsigned i;

	ret[TGD_AREA_RECORDS] = (struct tgd_area){g->records_at, sizeof(struct tgs_record)};
	ret[TGD_AREA_DENSE] =
		(struct tgd_area){g->dense_at, TGS_DENSE_UNITS * sizeof(struct tgs_unit)};
	for (i = 0; i < TGS_DENSE_KINDS; i++)
		ret[TGD_AREA_DENSE_TAKEN + i] =
			(struct tgd_area){g->dense_taken_at[i], TGS_DENSE_BYTES(i)};
	ret[TGD_AREA_TINY_TAKEN] =
		(struct tgd_area){g->tiny_taken_at, sizeof(struct tgs_tiny_taken)};
	ret[TGD_AREA_TINY_MORE] = (struct tgd_area){g->tiny_more_at, sizeof(struct tgs_tiny_more)};
}

/* The block behind the last one in which pages below `page` have state. */
static inline uint64_t tgd_area_block_end(const struct tgd_area *area, uint64_t page)
{
	return (area->at + page * area->stride + TGS_OS_PAGE - 1) / TGS_OS_PAGE;
}

/* fallocate's hole punching, tried again when a signal interrupts it.  -errno. */
int tgd_backing_punch_file(int fd, uint64_t at, uint64_t bytes);

/* In the map's header. */
void tgd_backing_count_scavenged(const struct tgd_backing *backing, uint64_t bytes);
