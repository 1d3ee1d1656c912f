/* tiny.c - objects of 1 to 15 bytes share blocks of 16 bytes, by the rules of Go's tiny allocator as the project's seed
 * text states them, with explicit frees added.
 *
 * The offset in the current block is aligned by the size of the request, and if the object fits it lies there; else a new
 * block is taken, and of the two the one with more room stays current.  Go never frees a tiny object by itself; here
 * every byte of a tiny span has a taken bit that says whether a live object starts there.  So a double free shows, and a
 * block is free again when its 16 bits are clear and it is nobody's current block.  Parts of a block are not reused
 * before all of it is free.
 */
#include <string.h>

#include "client/cache.h"

/* A block as the page map and the taken bits name it. */
static uint64_t block_page(const uint8_t *block)
{
	return (uint64_t)(block - tgc_heap.data) >> TGS_PAGE_SHIFT;
}

static unsigned block_index(const uint8_t *block)
{
	return (unsigned)((uint64_t)(block - tgc_heap.data) % TGS_PAGE_SIZE / 16);
}

/* Which of the four 16-bit parts of a word are zero. */
static uint64_t zero_parts(uint64_t word)
{
	const uint64_t low = UINT64_C(0x7fff7fff7fff7fff);
	/* The highest bit of each part is set if the part is not zero: no part carries into the next. */
	uint64_t used = ((word & low) + low) | word;

	/* Side by side. */
	return ((~used & ~low) >> 15) * UINT64_C(0x1000200040008000) >> 60;
}

uint64_t tgc_tiny_free_blocks(const struct tgc_cache *cache, uint64_t page, unsigned group)
{
	const uint8_t *current = cache->tiny.end ? cache->tiny.end - 16 : NULL;
	uint64_t free_blocks = 0;
	unsigned i;

	for (i = 0; i < 16; i++)
		free_blocks |= zero_parts(atomic_load_explicit(
				       &tgc_heap.tiny_taken[page].taken[group * 16 + i],
				       memory_order_relaxed))
			       << 4 * i;
	if (current && block_page(current) == page && block_index(current) / 64 == group)
		free_blocks &= ~(UINT64_C(1) << block_index(current) % 64);
	return free_blocks;
}

/* The block has no object any more. */
static void block_freed(struct tgc_cache *cache, uint8_t *block)
{
	if (!tgc_tiny_restart(cache, block))
		tgc_span_freed(cache, tgc_span_record(block_page(block)), block_index(block) / 64,
			       1);
}

void tgc_tiny_free(struct tgc_cache *cache, void *p, struct tgs_pending *noted)
{
	uint64_t at = (uint64_t)((uint8_t *)p - tgc_heap.data), page = at / TGS_PAGE_SIZE;
	unsigned offset = (unsigned)(at % TGS_PAGE_SIZE);
	unsigned unit = offset / 64, shift = offset % 64 & ~15u;
	uint64_t bit = UINT64_C(1) << offset % 64;
	_Atomic uint64_t *word = &tgc_heap.tiny_taken[page].taken[unit];
	uint64_t taken = atomic_load_explicit(word, memory_order_relaxed);
	uint64_t remote = tgs_remote_bits(&tgc_heap, TGS_TINY, page, unit);

	if (TGS_UNLIKELY(!(taken & bit) || (remote & bit))) {
		tgc_report(TGC_DOUBLE_FREE, p);
		return;
	}
	if (TGS_UNLIKELY(tgs_published_bits(&tgc_heap, TGS_TINY, page, unit) & bit)) {
		tgc_links_end(page, p, 16 - offset % 16);
		atomic_fetch_and_explicit(tgs_published_word(&tgc_heap, TGS_TINY, page, unit), ~bit,
					  memory_order_relaxed);
	}
	atomic_store_explicit(word, taken & ~bit, memory_order_relaxed);
	if (noted)
		tgc_foreign_strike(noted, offset);
	if (((taken & ~bit) >> shift & 0xffff) == 0)
		block_freed(cache, tgs_page_address(&tgc_heap, page) + (offset & ~15u));
}

void tgc_tiny_harvested(struct tgc_cache *cache, uint64_t page, unsigned unit, uint64_t freed)
{
	uint8_t *block = tgs_page_address(&tgc_heap, page) + unit * 64;
	unsigned k;

	for (k = 0; k < 4; k++, block += 16) {
		if ((freed >> 16 * k & 0xffff) != 0 && TGC_LOAD(*tgc_tiny_bits_of(block)) == 0)
			block_freed(cache, block);
	}
}

void tgc_tiny_unload(struct tgc_cache *cache)
{
	struct tgc_tiny old = cache->tiny;

	if (!old.end)
		return;
	atomic_store_explicit(&cache->slot->tiny_block, 0, memory_order_release);
	cache->tiny = (struct tgc_tiny){0};
	if (TGC_LOAD(*old.bits) == 0)
		block_freed(cache, old.end - 16);
}
