/* own.c - which pages are whose, as tg_free sees it: a table by address, of 32 bytes a page.
 *
 * The page map has the same, for all processes; but from its entry it is many steps to where an object's state lies.  This
 * table is the process's own, and says of each page of a span that one of its threads has taken in all that a free needs
 * to know.  An entry is written by the thread that takes the span in, before any of its objects is handed out, and cleared
 * by the same thread before the span goes back.  A forked child finds it wiped: then nothing is its own.
 */
#include "client/own.h"

#include "client/cache.h"

static struct tgc_own nobodys;
struct tgc_own *tgc_owns = &nobodys;
uint64_t tgc_owns_mask;

static size_t owns_bytes(uint64_t mask)
{
	return mask + sizeof(struct tgc_own);
}

bool tgc_owns_open(void)
{
	uint64_t mask = 0;
	struct tgc_own *at;

	while (mask + 1 < tgc_heap.geometry.n_pages)
		mask = 2 * mask + 1;
	mask *= sizeof(struct tgc_own);
	/* A forked child's has been wiped. */
	if (tgc_owns_mask == mask)
		return true;
	tgc_owns_close();
	at = tgc_wiped_alloc(owns_bytes(mask));
	if (!at)
		return false;
	tgc_owns = at;
	tgc_owns_mask = mask;
	return true;
}

void tgc_owns_close(void)
{
	struct tgc_own *old = tgc_owns;
	uint64_t mask = tgc_owns_mask;

	if (old == &nobodys)
		return;
	tgc_owns_mask = 0;
	tgc_owns = &nobodys;
	tgc_wiped_free(old, owns_bytes(mask));
}

static void own_pages(uint64_t page, unsigned class, const struct tgc_own *value)
{
	uint64_t i;

	for (i = 0; i < tgs_classes[class].n_pages; i++) {
		struct tgc_own *own = tgc_own_of(tgs_page_address(&tgc_heap, page + i));

		TGC_STORE(own->start, value->start);
		TGC_STORE(own->taken, value->taken);
		TGC_STORE(own->bin, value->bin);
		TGC_STORE(own->slot, value->slot);
		TGC_STORE(own->magic, value->magic);
		/* Last: whoever finds bytes finds what goes with them, and nothing from an earlier time. */
		__atomic_store_n(&own->bytes, value->bytes, __ATOMIC_RELEASE);
	}
}

void tgc_own(struct tgc_cache *cache, uint64_t page, unsigned class)
{
	const struct tgs_class *info = &tgs_classes[class];
	struct tgc_own own = {
		.start = (uintptr_t)tgs_page_address(&tgc_heap, page),
		.bytes = info->size * info->n_slots,
		.magic = (uint32_t)info->magic,
		.bin = (uint32_t)((uint8_t *)&cache->bins[class] - (uint8_t *)cache),
		.slot = cache->slot_id,
	};

	if (class == TGS_CLASS_TINY) {
		own.tiny = (uintptr_t)tgc_heap.data - 8 * (uint64_t)(uintptr_t)tgc_heap.tiny_taken;
		own.entry = &tgc_heap.page_map[page];
		own.bytes = 0;
		own.magic = TGC_OWN_TINY;
	} else
		own.taken = tgs_taken_bytes(&tgc_heap, info->kind, page);
	own_pages(page, class, &own);
}

void tgc_disown(uint64_t page, unsigned class)
{
	uint64_t i;

	for (i = 0; i < tgs_classes[class].n_pages; i++) {
		struct tgc_own *own = tgc_own_of(tgs_page_address(&tgc_heap, page + i));

		/* What is left says where state lies, which another thread may be about to look at. */
		TGC_STORE(own->bytes, 0);
		TGC_STORE(own->magic, 0);
		TGC_STORE(own->slot, 0);
	}
}
