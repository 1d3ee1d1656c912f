/* demand.c - what a thread will need of the daemon beyond what it asks for now.
 *
 * To wait for the daemon costs a program more than a hundred allocations.  So a class that is needed again and again gets
 * more each time (a burst: a program that parses, or fills a table), and whoever waits for one class asks for others that
 * are nearly used up, too.  Both are parts of what the thread has, so that what comes in vain is little.
 */
#include "client/prefetch.h"

#define BURST_GAP        4u  /* with fewer needs of others in between a class is in a burst, ... */
#define BURST_OVER       16u /* ... which is over after so many; each asks for twice as much, ... */
#define BURST_LOG_MAX    8u
#define BURST_PART       8u   /* ... but no more than this part of what the thread has ... */
#define BURST_PAGES_MIN  8u   /* ... or so many pages, ... */
#define BURST_PAGES      64u  /* ... up to so many, ... */
#define BURST_PART_LARGE 128u /* ... or than this part */
#define ALSO_LEFT        4u   /* nearly used up: no more than this part of the span is left */
#define ALSO_PART        32u /* all those asked for besides are this part of what the thread has, ... */
#define ALSO_PAGES_MIN   8u  /* ... or so many pages */
#define ALONE_CLASS_MIN  45u /* 4,864 bytes: spans of up to 10 pages, ... */
#define ALONE_MAX        6u  /* ... which a class gets when more objects of it have lived, ... */
#define ALONE_AGAIN_MAX  64u /* ... or so many have come and gone: it costs more than a slot */

void tgc_demand_note(struct tgc_cache *cache, unsigned class)
{
	struct tgc_supply *supply = &cache->supply[class];
	uint16_t gap = (uint16_t)(cache->n_asks++ - supply->asked);

	if (gap >= BURST_OVER)
		supply->burst = 0;
	else if (gap < BURST_GAP && supply->burst < BURST_LOG_MAX)
		supply->burst++;
	supply->asked = cache->n_asks;
}

bool tgc_demand_lasts(const struct tgc_cache *cache, unsigned class)
{
	const struct tgc_supply *supply = &cache->supply[class];

	return supply->burst != 0 && (uint16_t)(cache->n_asks - supply->asked) < BURST_GAP;
}

uint64_t tgc_demand_burst(const struct tgc_cache *cache, unsigned class)
{
	uint64_t part = tgs_max(cache->n_pages / BURST_PART, BURST_PAGES_MIN);
	uint64_t pages = tgs_max(tgs_min(part, BURST_PAGES), cache->n_pages / BURST_PART_LARGE);

	return tgs_min(UINT64_C(1) << cache->supply[class].burst,
		       pages / tgs_classes[class].n_pages);
}

/* Is the class about to need a span?  Nearly all is taken of the last one that has room. */
static bool runs_out(struct tgc_cache *cache, unsigned class)
{
	const struct tgc_supply *supply = &cache->supply[class];
	const struct tgc_bin *bin = &cache->bins[class];
	unsigned free =
		(unsigned)__builtin_popcountll(bin->free) + (unsigned)(bin->top - bin->bottom);

	/* Of a span with one object each is "nearly used up". */
	return tgs_classes[class].n_slots > 1 && supply->batch != 0 && !supply->head &&
	       supply->current && supply->current->room == 0 &&
	       free <= tgs_classes[class].n_slots / ALSO_LEFT && !tgc_prefetch_asked(cache, class);
}

void tgc_demand_others(struct tgc_cache *cache, unsigned class, struct tgc_get_spans *get)
{
	uint64_t pages = tgs_max(cache->n_pages / ALSO_PART, ALSO_PAGES_MIN);
	unsigned other;

	for (other = 2; other < TGS_CLASSES_ALL; other += 1) {
		if (other == class || tgs_classes[other].n_pages > pages || !runs_out(cache, other))
			continue;
		pages -= tgs_classes[other].n_pages;
		tgc_get_spans_also(get, other);
	}
}

bool tgc_demand_alone(struct tgc_cache *cache, unsigned class)
{
	struct tgc_supply *supply = &cache->supply[class];

	if (!tgc_saved.is_malloc || class < ALONE_CLASS_MIN || class >= TGS_CLASSES ||
	    supply->n_spans != 0 || tgs_classes[class].n_slots == 1)
		return false;
	if (tgc_large_at_hand(cache, tgs_classes[class].size)) {
		if (supply->alone_again == ALONE_AGAIN_MAX)
			return false;
		supply->alone_again++;
		return true;
	}
	if (supply->alone == ALONE_MAX)
		return false;
	supply->alone++;
	return true;
}
