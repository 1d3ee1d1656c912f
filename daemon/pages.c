/*
 * pages: the page heap's states, and the counts that go with them.
 *
 * The source is Go's mpagealloc; what differs is that the reservation is fixed and that all tables
 * read "all free, all scavenged" when they are zero, so that what is untouched costs nothing: the
 * summaries are stored XORed (pagesum.h), and the second bitmap says "backed" where Go's says
 * "scavenged". The search is in pagetree.c. Three things make the rest quick:
 *   hint      where a search begins; lowered by every release below it, raised when a search has
 *             proved that nothing is free up to there. For a packed heap that is at its end.
 *   counts    per chunk, so that ranges are counted without reading their bits
 *   idle      the chunks that have something for the scavenger
 *
 * Invariants:
 *   - used implies backed.
 *   - counts[c] are the numbers of such pages of chunk c; the totals are their sums, less the tail.
 *   - `idle` holds exactly the chunks with a free page that is backed.
 *   - No page below `hint` is free.
 *   - The tail, which is the pages of the last chunk past n_pages, is in use for ever.
 */
#include "daemon/pages.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "daemon/chunkset.h"
#include "daemon/pagebits.h"
#include "daemon/pagetree.h"

/*
 * How many runs an aligned search looks at before it settles for one that is long enough to hold
 * an aligned run wherever it begins. Bounds the time that a fragmented heap can cost the daemon.
 */
#define ALIGNED_TRIES 4096

/* How many pages of a chunk are in these states. */
struct counts {
	uint16_t used;
	uint16_t idle; /* free and backed */
};

struct tgd_pages {
	uint64_t n_pages;
	uint64_t hint; /* no page below it is free */
	uint64_t in_use;
	uint64_t free_backed;
	struct tgd_pagetree tree;
	struct tgd_chunkset idle;
	struct counts *counts; /* one a chunk */
	void *memory;          /* all of the tables */
	size_t memory_bytes;
};

/* The pieces of a range of pages, one a chunk: chunk, and first and n within it. */
struct walk {
	uint64_t at;
	uint64_t end;
	uint64_t chunk;
	unsigned first;
	unsigned n;
};

static struct walk walk_over(uint64_t first, uint64_t n)
{
	return (struct walk){.at = first, .end = first + n};
}

static bool walk_next(struct walk *walk)
{
	uint64_t left = walk->end - walk->at;

	if (!left)
		return false;
	walk->chunk = walk->at >> TGD_CHUNK_LOG;
	walk->first = (unsigned)(walk->at % TGD_CHUNK_PAGES);
	walk->n = TGD_CHUNK_PAGES - walk->first;
	if (walk->n > left)
		walk->n = (unsigned)left;
	walk->at += walk->n;
	return true;
}

/* The pages that the last chunk has and the heap has not. */
static void close_tail(struct tgd_pages *pages)
{
	unsigned n = (unsigned)(-pages->n_pages % TGD_CHUNK_PAGES);
	uint64_t last = pages->tree.n_chunks - 1;

	if (n == 0)
		return;
	tgd_pagebits_set(&pages->tree.chunks[last].used, TGD_CHUNK_PAGES - n, n);
	tgd_pagebits_set(&pages->tree.chunks[last].backed, TGD_CHUNK_PAGES - n, n);
	pages->counts[last].used = (uint16_t)n;
	tgd_pagetree_update(&pages->tree, pages->n_pages, n);
}

/*
 * A page heap over pages 0 .. n_pages - 1, all free and scavenged.
 * -EINVAL if n_pages is 0 or above TGD_PAGES_MAX, -ENOMEM if the tables find no room.
 */
int tgd_pages_new(struct tgd_pages **ret, uint64_t n_pages)
{
	uint64_t n_chunks = (n_pages + TGD_CHUNK_PAGES - 1) >> TGD_CHUNK_LOG;
	size_t tree_bytes, idle_bytes;
	struct tgd_pages *pages;

	if (n_pages == 0 || n_pages > TGD_PAGES_MAX)
		return -EINVAL;
	pages = calloc(1, sizeof(*pages));
	if (!pages)
		return -ENOMEM;
	pages->n_pages = n_pages;
	tree_bytes = tgd_pagetree_size(&pages->tree, n_chunks);
	idle_bytes = tgd_chunkset_bytes(n_chunks);
	pages->memory_bytes = tree_bytes + idle_bytes + n_chunks * sizeof(struct counts);
	pages->memory = mmap(NULL, pages->memory_bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pages->memory == MAP_FAILED) {
		free(pages);
		return -ENOMEM;
	}
	/* One touched word must not cost 2 MiB. A kernel without huge pages refuses; fine. */
	(void)madvise(pages->memory, pages->memory_bytes, MADV_NOHUGEPAGE);

	tgd_pagetree_init(&pages->tree, pages->memory);
	tgd_chunkset_init(&pages->idle, n_chunks, (char *)pages->memory + tree_bytes);
	pages->counts = (void *)((char *)pages->memory + tree_bytes + idle_bytes);
	close_tail(pages);
	*ret = pages;
	return 0;
}

/* Takes NULL, returns NULL. */
struct tgd_pages *tgd_pages_free(struct tgd_pages *pages)
{
	if (pages) {
		munmap(pages->memory, pages->memory_bytes);
		free(pages);
	}
	return NULL;
}

/*
 * The lowest aligned run. Each search either ends at an aligned page or proves that nothing before
 * the next aligned page will do, so the next one starts there: if that page is free for long
 * enough, it is what the search finds.
 */
static uint64_t find_aligned(const struct tgd_pages *pages, uint64_t n, uint64_t align)
{
	uint64_t from = pages->hint, low;

	for (unsigned tries = 1;; tries++) {
		uint64_t first = tgd_pagetree_find(&pages->tree, from, n, &low);

		if (first == TGD_PAGETREE_NONE || !(first & (align - 1)))
			return first;
		from = (first | (align - 1)) + 1;
		if (tries == ALIGNED_TRIES && align <= pages->n_pages) {
			first = tgd_pagetree_find(&pages->tree, from, n + align - 1, &low);
			if (first != TGD_PAGETREE_NONE)
				return (first + align - 1) & ~(align - 1);
		}
	}
}

/* Free -> in use. Returns how many of the pages were scavenged. */
static uint64_t mark_used(struct tgd_pages *pages, uint64_t first, uint64_t n)
{
	struct walk walk = walk_over(first, n);
	uint64_t backed = 0;

	while (walk_next(&walk)) {
		struct tgd_chunk *chunk = &pages->tree.chunks[walk.chunk];
		struct counts *counts = &pages->counts[walk.chunk];
		unsigned idle = tgd_pagebits_count(&chunk->backed, walk.first, walk.n);

		tgd_pagebits_set(&chunk->used, walk.first, walk.n);
		tgd_pagebits_set(&chunk->backed, walk.first, walk.n);
		counts->used = (uint16_t)(counts->used + walk.n);
		counts->idle = (uint16_t)(counts->idle - idle);
		if (idle && !counts->idle)
			tgd_chunkset_remove(&pages->idle, walk.chunk);
		backed += idle;
	}
	pages->in_use += n;
	pages->free_backed -= backed;
	tgd_pagetree_update(&pages->tree, first, n);
	if (pages->hint >= first && pages->hint < first + n)
		pages->hint = first + n;
	return n - backed;
}

/*
 * Takes the lowest run of n free pages whose first is a multiple of align_pages, a power of two.
 * (In a heap with thousands of runs that are long enough but badly placed, an aligned run may come
 * from further up.) The pages that were scavenged are for the caller to back; how many there are is
 * in ret_scavenged. -ENOMEM if there is no such run, -EINVAL for a bad n or alignment.
 */
int tgd_pages_alloc(struct tgd_pages *pages, uint64_t n, uint64_t align_pages, uint64_t *ret_first,
		    uint64_t *ret_scavenged)
{
	uint64_t first, low;

	if (n == 0 || align_pages == 0 || align_pages & (align_pages - 1))
		return -EINVAL;
	if (n > pages->n_pages)
		return -ENOMEM;
	if (align_pages == 1) {
		first = tgd_pagetree_find(&pages->tree, pages->hint, n, &low);
		/* What a search for one page finds is the first free page; for more, not so. */
		pages->hint = n == 1 && first != TGD_PAGETREE_NONE ? first : low;
	} else {
		first = find_aligned(pages, n, align_pages);
	}
	if (first == TGD_PAGETREE_NONE)
		return -ENOMEM;
	*ret_scavenged = mark_used(pages, first, n);
	*ret_first = first;
	return 0;
}

/* Where the lowest run of n free pages is that begins at `from` or above; TGD_PAGES_NONE: nowhere. */
uint64_t tgd_pages_find(const struct tgd_pages *pages, uint64_t from, uint64_t n)
{
	uint64_t low;

	if (from < pages->hint)
		from = pages->hint;
	return tgd_pagetree_find(&pages->tree, from, n, &low);
}

_Static_assert(TGD_PAGES_NONE == TGD_PAGETREE_NONE, "what a search finds is passed on");

static bool is_free(const struct tgd_pages *pages, uint64_t first, uint64_t n)
{
	struct walk walk = walk_over(first, n);

	while (walk_next(&walk))
		if (pages->counts[walk.chunk].used &&
		    tgd_pagebits_count(&pages->tree.chunks[walk.chunk].used, walk.first, walk.n))
			return false;
	return true;
}

static bool in_range(const struct tgd_pages *pages, uint64_t first, uint64_t n)
{
	return n > 0 && n <= pages->n_pages && first <= pages->n_pages - n;
}

/*
 * Takes exactly these pages: to grow a run in place, or to tell a new heap what is in use already.
 * (To tell it of a free page that is backed: take it, and release it as backed.)
 * -EBUSY if any of them is in use, -EINVAL if they are not all pages of this heap.
 */
int tgd_pages_alloc_at(struct tgd_pages *pages, uint64_t first, uint64_t n, uint64_t *ret_scavenged)
{
	if (!in_range(pages, first, n))
		return -EINVAL;
	if (!is_free(pages, first, n))
		return -EBUSY;
	*ret_scavenged = mark_used(pages, first, n);
	return 0;
}

/*
 * In use -> free; all of the pages must be in use. They need not be what one alloc took: parts of
 * runs and neighbouring runs go back as they come. With `scavenged`, no memory stands behind any of
 * them; else it must stand behind all of them, or whoever is granted them next meets SIGBUS.
 */
void tgd_pages_release(struct tgd_pages *pages, uint64_t first, uint64_t n, bool scavenged)
{
	struct walk walk = walk_over(first, n);

	assert(in_range(pages, first, n));
	while (walk_next(&walk)) {
		struct tgd_chunk *chunk = &pages->tree.chunks[walk.chunk];
		struct counts *counts = &pages->counts[walk.chunk];

		assert(tgd_pagebits_count(&chunk->used, walk.first, walk.n) == walk.n);
		tgd_pagebits_clear(&chunk->used, walk.first, walk.n);
		counts->used = (uint16_t)(counts->used - walk.n);
		if (scavenged) {
			tgd_pagebits_clear(&chunk->backed, walk.first, walk.n);
		} else {
			counts->idle = (uint16_t)(counts->idle + walk.n);
			tgd_chunkset_add(&pages->idle, walk.chunk);
		}
	}
	pages->in_use -= n;
	if (!scavenged)
		pages->free_backed += n;
	tgd_pagetree_update(&pages->tree, first, n);
	if (first < pages->hint)
		pages->hint = first;
}

/*
 * Gives back a run that was just taken, after backing it failed half way: the first n_backed pages
 * got their memory, the others are scavenged. Some of those may have had memory from before, and
 * which is no longer known: the caller must have punched a hole over all of them first. That is no
 * loss, since memory is what is short.
 */
void tgd_pages_undo_alloc(struct tgd_pages *pages, uint64_t first, uint64_t n, uint64_t n_backed)
{
	assert(n_backed <= n);
	if (n_backed > 0)
		tgd_pages_release(pages, first, n_backed, false);
	if (n_backed < n)
		tgd_pages_release(pages, first + n_backed, n - n_backed, true);
}

/*
 * For the scavenger: takes the upper end, at most max_pages, of the highest run of free backed
 * pages. It counts as in use, so that nobody can be granted it while a hole is punched there; then
 * comes tgd_pages_release(.., true), or (.., false) if punching failed. Returns the number of
 * pages, 0 if there are none.
 */
uint64_t tgd_pages_take_scavengable(struct tgd_pages *pages, uint64_t max_pages,
				    uint64_t *ret_first)
{
	uint64_t c = tgd_chunkset_highest(&pages->idle), first, end;
	const struct tgd_chunk *chunk;
	unsigned bit;

	if (c == TGD_CHUNKSET_NONE || max_pages == 0)
		return 0;
	chunk = &pages->tree.chunks[c];
	bit = tgd_pagebits_last_idle(&chunk->used, &chunk->backed, TGD_CHUNK_PAGES - 1, true);
	assert(bit != TGD_PAGEBITS_NONE);
	end = first = (c << TGD_CHUNK_LOG) + bit + 1;

	/* Down to the last page that is not idle, in this chunk or one below. */
	do {
		c = (first - 1) >> TGD_CHUNK_LOG;
		chunk = &pages->tree.chunks[c];
		bit = tgd_pagebits_last_idle(&chunk->used, &chunk->backed,
					     (unsigned)((first - 1) % TGD_CHUNK_PAGES), false);
		first = (c << TGD_CHUNK_LOG) + (bit == TGD_PAGEBITS_NONE ? 0 : bit + 1);
	} while (bit == TGD_PAGEBITS_NONE && first > 0 && end - first < max_pages);

	if (end - first > max_pages)
		first = end - max_pages;
	mark_used(pages, first, end - first);
	*ret_first = first;
	return end - first;
}

uint64_t tgd_pages_total(const struct tgd_pages *pages)
{
	return pages->n_pages;
}

/* With what the scavenger has in its hands. */
uint64_t tgd_pages_in_use(const struct tgd_pages *pages)
{
	return pages->in_use;
}

uint64_t tgd_pages_free_backed(const struct tgd_pages *pages)
{
	return pages->free_backed;
}

/* The most pages that one tgd_pages_alloc() could take now. */
uint64_t tgd_pages_largest_run(const struct tgd_pages *pages)
{
	return tgd_pagetree_longest(&pages->tree);
}

/* How many pages of the range are in which state; what lies past the heap is in none. */
void tgd_pages_count(const struct tgd_pages *pages, uint64_t first, uint64_t n,
		     struct tgd_pages_count *ret)
{
	struct walk walk;

	*ret = (struct tgd_pages_count){0};
	if (first >= pages->n_pages)
		return;
	if (n > pages->n_pages - first)
		n = pages->n_pages - first;
	walk = walk_over(first, n);
	while (walk_next(&walk)) {
		const struct tgd_chunk *chunk = &pages->tree.chunks[walk.chunk];
		unsigned used = pages->counts[walk.chunk].used;
		unsigned idle = pages->counts[walk.chunk].idle;

		if (walk.n < TGD_CHUNK_PAGES) {
			used = tgd_pagebits_count(&chunk->used, walk.first, walk.n);
			idle = tgd_pagebits_count_idle(&chunk->used, &chunk->backed, walk.first,
						       walk.n);
		}
		ret->in_use += used;
		ret->backed_free += idle;
		ret->scavenged_free += walk.n - used - idle;
	}
}
