/* swap.c - tg_link_get, tg_swap and their exact forms: a compare-and-swap of a pointer in the heap, with which ownership
 * moves.
 *
 * TG_GIVE: the object is published before the swap and, if the swap fails, is private again; so no other process ever
 * finds it through the link while it still is its maker's.  TG_RETIRE: the object is freed after the swap, which has taken
 * it out of everybody's reach: the free is put into the thread's buffer (in which a place was made before), and from then
 * on it is a free like others.  All of this lies between the note of the step and its end (shm/link.h), so wherever the
 * thread is killed, shm/settle.c does the rest, or undoes all.
 *
 * What the recoverer goes by is the link's word, so that must not become other memory before: an object in which a link of
 * somebody else is swung is published (it is shared, so this is only saying so), and frees of published objects in spans
 * with links first tell those who swing there (tgc_links_end).
 */
#include "client/tg.h"

#include <errno.h>

#include "client/cache.h"
#include "shm/link.h"
#include "shm/step.h"

/* A swap as the caller wants it. */
struct swap {
	_Atomic uint64_t *link;
	bool exact; /* `seen` counts, else what the link leads to */
	uint64_t seen;
	uint64_t expected, desired; /* refs */
	uint64_t what;              /* TGS_SWAP_* */
	struct tgs_object given, retired;
};

_Static_assert(TG_GIVE == TGS_SWAP_GIVE && TG_RETIRE == TGS_SWAP_RETIRE, "said twice");

static uint64_t ref_or_0(const void *p)
{
	return p ? tgs_ref_of(&tgc_heap, p) : 0;
}

static void *object_or_null(uint64_t ref)
{
	return ref ? tgc_heap.base + ref : NULL;
}

TG_API void *tg_link_get(const tg_link *link)
{
	return object_or_null(tgs_link_get(&tgc_heap, &link->word));
}

TG_API uint64_t tg_link_look(const tg_link *link, void **ret_object)
{
	uint64_t word = atomic_load_explicit(&link->word, memory_order_acquire);

	if (ret_object)
		*ret_object = object_or_null(tgs_link_target(&tgc_heap, word));
	return word;
}

static bool in_heap(const void *p, size_t bytes)
{
	uint64_t at = (uint64_t)((const uint8_t *)p - tgc_heap.data);

	return (const uint8_t *)p >= tgc_heap.data && at < tgc_heap.data_bytes &&
	       tgc_heap.data_bytes - at >= bytes;
}

static bool live(const void *p, struct tgs_object *ret)
{
	return tgs_object_find(&tgc_heap, p, ret) == TGS_FOUND && tgs_object_live(&tgc_heap, ret);
}

/* The object in which the link lies.  Only the first page of a large one has an entry in the page map, so the one that was
 * found last time is tried first: tables are swung in again and again. */
static bool find_container(struct tgc_cache *cache, uint64_t ref, struct tgs_object *ret)
{
	uint64_t page = (ref - tgc_heap.geometry.data_at) >> TGS_PAGE_SHIFT;

	if (tgs_span_at(&tgc_heap, cache->link_page, &ret->span) && ret->span.class == 0 &&
	    page - ret->span.page < ret->span.n_pages) {
		ret->index = 0;
		ret->unit = 0;
		ret->bit = 1;
		return true;
	}
	if (!tgs_object_around(&tgc_heap, ref, ret))
		return false;
	if (ret->span.class == 0)
		cache->link_page = ret->span.page;
	return true;
}

/* False with errno: it cannot be written about this object that it is published, or freed. */
static bool has_state(const struct tgs_object *object)
{
	int r = tgc_state_back(object);

	errno = -r;
	return r == 0;
}

/* The span of the object that holds the link is marked; if it is another thread's, the object is published.  False with
 * errno: that cannot be. */
static bool note_container(struct tgc_cache *cache, const struct swap *swap)
{
	_Atomic uint64_t *flags;
	struct tgs_object container;

	if (swap->what == 0 ||
	    !find_container(cache, tgs_ref_of(&tgc_heap, swap->link), &container))
		return true;
	flags = &tgc_heap.records[container.span.page].flags;
	if (!(atomic_load_explicit(flags, memory_order_relaxed) & TGS_RECORD_HAS_LINKS))
		atomic_fetch_or_explicit(flags, TGS_RECORD_HAS_LINKS, memory_order_relaxed);
	/* Who compares the whole word may have come too late: then another object may be there by now. */
	if (!swap->exact && container.span.owner != cache->slot_id) {
		if (!has_state(&container))
			return false;
		tgs_publish(&tgc_heap, &container);
	}
	return true;
}

void tgc_links_end(uint64_t page, const void *p, size_t bytes)
{
	if (atomic_load_explicit(&tgc_heap.records[page].flags, memory_order_relaxed) &
	    TGS_RECORD_HAS_LINKS)
		tgs_link_help_inside(&tgc_heap, tgs_ref_of(&tgc_heap, p), bytes);
}

static bool link_ok(const tg_link *link, const void *desired, unsigned flags)
{
	if (flags & ~(unsigned)(TG_GIVE | TG_RETIRE) || ((uintptr_t)link & 7) != 0) {
		errno = EINVAL;
		return false;
	}
	if (!in_heap(link, sizeof(*link)) || (desired && !in_heap(desired, 1))) {
		errno = EFAULT;
		return false;
	}
	return true;
}

/* Does the link still say what the caller has seen? */
static bool still(const struct swap *swap)
{
	uint64_t word = atomic_load_explicit(swap->link, memory_order_acquire);

	return swap->exact ? word == swap->seen
			   : tgs_link_target(&tgc_heap, word) == swap->expected;
}

/* Looks the objects up that are to change hands.  False with errno: they cannot, or the link leads elsewhere. */
static bool prepare(struct swap *swap)
{
	errno = 0;
	if ((swap->what & TGS_SWAP_GIVE) && swap->desired == 0)
		swap->what &= ~TGS_SWAP_GIVE;
	if ((swap->what & TGS_SWAP_RETIRE) && swap->expected == 0)
		swap->what &= ~TGS_SWAP_RETIRE;
	if ((swap->what & TGS_SWAP_GIVE) && !live(object_or_null(swap->desired), &swap->given)) {
		errno = EFAULT;
		return false;
	}
	if (!still(swap))
		return false;
	if ((swap->what & TGS_SWAP_RETIRE) &&
	    !live(object_or_null(swap->expected), &swap->retired)) {
		/* Retired by somebody else since: then the link has changed. */
		if (still(swap))
			errno = EFAULT;
		return false;
	}
	if ((swap->what & TGS_SWAP_GIVE) &&
	    !(tgs_published_bits(&tgc_heap, tgs_classes[swap->given.span.class].kind,
				 swap->given.span.page, swap->given.unit) &
	      swap->given.bit))
		swap->what |= TGS_SWAP_PRIVATE;
	/* What the step writes about them, and a recoverer after it, has memory before it begins. */
	if ((swap->what & TGS_SWAP_GIVE) && !has_state(&swap->given))
		return false;
	if ((swap->what & TGS_SWAP_RETIRE) && !has_state(&swap->retired)) {
		/* As above, and even its span has ended since. */
		if (errno == EFAULT && !still(swap))
			errno = 0;
		return false;
	}
	return true;
}

/* The retired object is free for all others from the moment that its free stands in the buffer; then the step is over. */
static void retire(struct tgc_cache *cache, const struct swap *swap, struct tgs_pending *pending)
{
	const struct tgs_object *object = &swap->retired;

	tgc_links_end(object->span.page, object_or_null(swap->expected),
		      tgs_object_size(&tgc_heap, object));
	tgc_foreign_note(pending, object);
	tgs_step_done(cache->slot);
	if (tgc_owns_it(cache, object_or_null(swap->expected)))
		tgc_free_noted(cache, object, pending);
	else
		tgc_foreign_noted(cache, pending, object);
}

static bool swap_noted(struct tgc_cache *cache, struct swap *swap)
{
	struct tgs_pending *pending = NULL;
	unsigned self = cache->slot_id;
	uint64_t seq;
	bool swung;

	if (swap->what & TGS_SWAP_RETIRE)
		pending = tgc_foreign_reserve(cache, &swap->retired);
	seq = tgs_link_begin(&tgc_heap, self, swap->link, swap->what, swap->expected,
			     swap->desired);
	if (swap->what & TGS_SWAP_GIVE)
		tgs_publish(&tgc_heap, &swap->given);
	swung = swap->exact ? tgs_link_swing_seen(&tgc_heap, self, seq, swap->link, swap->seen,
						  swap->desired)
			    : tgs_link_swing(&tgc_heap, self, seq, swap->link, swap->expected,
					     swap->desired);
	if (!swung && (swap->what & TGS_SWAP_PRIVATE))
		tgs_unpublish(&tgc_heap, &swap->given);
	if (swung && pending)
		retire(cache, swap, pending);
	else
		tgs_step_done(cache->slot);
	return swung;
}

static bool swap_or_not(struct swap *swap)
{
	struct tgc_cache *cache = tgc_cache_get();
	bool ready, swung;
	int error;

	if (!cache)
		return false;
	ready = prepare(swap) && note_container(cache, swap);
	error = ready ? 0 : errno;
	swung = ready && swap_noted(cache, swap);
	tgc_cache_return_late();
	errno = error;
	return swung;
}

TG_API bool tg_swap(tg_link *link, const void *expected, void *desired, unsigned flags)
{
	struct swap swap;

	if (!tgc_enter() || !link_ok(link, desired, flags))
		return false;
	if (expected && !in_heap(expected, 1)) {
		errno = EFAULT;
		return false;
	}
	swap = (struct swap){.link = &link->word,
			     .expected = ref_or_0(expected),
			     .desired = ref_or_0(desired),
			     .what = flags};
	return swap_or_not(&swap);
}

TG_API bool tg_swap_seen(tg_link *link, uint64_t seen, void *desired, unsigned flags)
{
	struct swap swap;

	if (!tgc_enter() || !link_ok(link, desired, flags))
		return false;
	swap = (struct swap){.link = &link->word,
			     .exact = true,
			     .seen = seen,
			     .expected = tgs_link_target(&tgc_heap, seen),
			     .desired = ref_or_0(desired),
			     .what = flags};
	return swap_or_not(&swap);
}
