/* borrow.c - a class that has run dry takes a slot of a somewhat larger class, where such lie about.
 *
 * How many objects of a class live goes up and down by itself, by about the square root of their number, and each class would
 * need spans for the highest rise of its own.  Together they rise far less.  So before the daemon is asked for one more span, a
 * slot of a class up to half as large again is used, of one that has more of them free than three quarters of that root: it
 * will not soon need them.  (Of large slots each that was freed a moment ago: they are few and much memory, and that class may
 * borrow in its turn.)  The object lies in a span of that class then and, freed, is a free slot of it; nobody else need know.
 * While a class just grows, which is to say that nothing of it is freed, it gets spans.
 *
 * To come here for one object costs more than to have a slot at hand: a class may borrow some times what it has room for, and
 * then gets one more span.
 */
#include "client/cache.h"

#define TIMES      32u
#define LARGE_SIZE 8192u /* above; where slots are lent freely, a heap that grows takes more */

/* Free slots, as far as they are quickly counted.  What a class has just got because it grows it will need itself. */
static uint64_t n_free(const struct tgc_cache *cache, unsigned class)
{
	const struct tgc_bin *bin = &cache->bins[class];
	uint64_t n_empty = tgc_demand_lasts(cache, class) ? 0 : cache->supply[class].n_empty;

	return (uint64_t)(bin->top - bin->bottom) + (unsigned)__builtin_popcountll(bin->free) +
	       n_empty * tgs_classes[class].n_slots;
}

static bool can_lend(struct tgc_cache *cache, unsigned class)
{
	const struct tgc_bin *bin = &cache->bins[class];
	uint64_t n = n_free(cache, class);
	uint64_t room = (uint64_t)cache->supply[class].n_spans * tgs_classes[class].n_slots;

	if (bin->top != bin->bottom && tgs_classes[class].size > LARGE_SIZE)
		return true;
	return 16 * n * n > 9 * room && (bin->top != bin->bottom || tgc_bin_next(cache, class));
}

/* The first hint since spans were asked for lies at the bottom. */
void tgc_borrow_reset(struct tgc_cache *cache, unsigned class)
{
	cache->supply[class].borrowed = 0;
	cache->bins[class].bottom[1].p = NULL;
}

static bool has_freed(const struct tgc_cache *cache, unsigned class)
{
	return cache->bins[class].bottom[1].p != NULL;
}

unsigned tgc_borrow(struct tgc_cache *cache, unsigned class)
{
	struct tgc_supply *supply = &cache->supply[class];
	uint32_t size = tgs_classes[class].size;
	unsigned from;

	if (class >= TGS_CLASSES || !has_freed(cache, class) ||
	    supply->borrowed >= (TIMES * supply->n_spans + 1) * tgs_classes[class].n_slots)
		return 0;
	for (from = class + 1; from < TGS_CLASSES && 2 * tgs_classes[from].size <= 3 * size;
	     from += 1) {
		/* Slots of 24 bytes are not aligned as others are. */
		if (tgs_classes[from].size % 16 == 0 && can_lend(cache, from)) {
			supply->borrowed++;
			return from;
		}
	}
	return 0;
}
