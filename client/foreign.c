/* foreign.c - freeing what another thread or process owns.
 *
 * The free is put into the thread's buffer, which lies in its slot in shared memory (for its recoverer), one place for
 * each remote word, so that neighbours become one swap (shm/remote.c), even if they are freed in no order.  It waits there
 * until another word needs the place or the thread has freed a megabyte more: the longer, the more go together, and the
 * less often the line with their state goes to and fro between the two threads.  All is applied before the thread asks the
 * daemon for memory, and when it trims or ends.  Big objects are not held back.  The word has memory before a place names
 * it (client/state.c).
 */
#include <errno.h>

#include "client/cache.h"
#include "shm/remote.h"

#define HOLD_BACK_MAX 2048u      /* bytes of an object that may wait in the buffer ... */
#define HELD_BYTES    (1u << 20) /* ... and of all: after so many it is emptied */

/* The places are in sets of four, a cache line, and a word may stand in any one of its set.  The words of one cache line of
 * state have the same set: what is applied together lies together. */
#define SET_SIZE 4u
#define SET_BITS 7u
_Static_assert(TGS_PENDING_FREES == SET_SIZE << SET_BITS, "all places are in sets");

static inline struct tgs_pending *set_of(const struct tgc_cache *cache, uint64_t word_ref)
{
	uint64_t hash = (word_ref >> 6) * UINT64_C(0x9e3779b97f4a7c15);

	return &cache->slot->pending[(hash >> (64 - SET_BITS)) * SET_SIZE];
}

static inline uint64_t word_in(const struct tgs_pending *pending)
{
	return atomic_load_explicit(&pending->word, memory_order_relaxed);
}

static inline uint32_t mask_in(const struct tgs_pending *pending)
{
	return atomic_load_explicit(&pending->mask, memory_order_relaxed);
}

static void apply(struct tgc_cache *cache, struct tgs_pending *pending)
{
	uint64_t ref = word_in(pending);
	uint32_t twice = tgs_pending_apply(&tgc_heap, cache->slot_id, pending);
	struct tgs_word_place place;
	struct tgs_span span;

	if (TGS_LIKELY(twice == 0))
		return;
	if (tgs_word_place(&tgc_heap, ref, &place) && tgs_span_at(&tgc_heap, place.page, &span))
		tgc_report_twice(place.page, span.class, place.unit,
				 (uint64_t)twice << 32 * place.half);
}

/* Makes a place of the set that word's: an empty one, or else the one that likely has most in it: most often frees go
 * upwards. */
static struct tgs_pending *take_place(struct tgc_cache *cache, struct tgs_pending *set,
				      uint64_t word_ref)
{
	_Atomic uint64_t *held = &cache->slot->held;
	uint64_t groups = atomic_load_explicit(held, memory_order_relaxed);
	struct tgs_pending *place = set;
	unsigned i;

	for (i = 1; i < SET_SIZE && mask_in(place) != 0; i++) {
		if (mask_in(&set[i]) == 0 || mask_in(&set[i]) > mask_in(place))
			place = &set[i];
	}
	if (mask_in(place) != 0)
		apply(cache, place);
	atomic_store_explicit(held,
			      groups | tgs_pending_group((unsigned)(set - cache->slot->pending)),
			      memory_order_relaxed);
	atomic_store_explicit(&place->word, word_ref, memory_order_relaxed);
	return place;
}

/* The word's place, with nothing of another word in it.  No word stands in two: a place that was applied keeps its word
 * until it is another's, or the group no longer counts as held. */
static inline struct tgs_pending *place_for(struct tgc_cache *cache, uint64_t word_ref)
{
	struct tgs_pending *set = set_of(cache, word_ref);
	unsigned i;

	for (i = 0; i < SET_SIZE; i++) {
		if (word_in(&set[i]) == word_ref)
			return &set[i];
	}
	return take_place(cache, set, word_ref);
}

static _Atomic uint64_t *word_of(const struct tgs_object *object)
{
	return tgs_remote_word(&tgc_heap, tgs_classes[object->span.class].kind, object->span.page,
			       object->unit, object->index / 32 % 2);
}

struct tgs_pending *tgc_foreign_reserve(struct tgc_cache *cache, const struct tgs_object *object)
{
	return place_for(cache, tgs_ref_of(&tgc_heap, word_of(object)));
}

/* So many bytes more have been freed.  What was applied meanwhile is not taken off: then it is emptied sooner. */
static inline void count_held(struct tgc_cache *cache, uint32_t bytes)
{
	cache->held_bytes += bytes;
	if (TGS_UNLIKELY(cache->held_bytes > HELD_BYTES))
		tgc_foreign_flush(cache);
}

/* An object of a span of this process: whoever frees it again is to see that.  False: one has, a moment ago. */
static inline bool set_going(const void *p, tgs_taken *taken)
{
	unsigned byte;

	if (TGC_LOAD(tgc_own_of(p)->slot) == 0)
		return true;
	byte = atomic_load_explicit(taken, memory_order_relaxed);
	if (TGS_UNLIKELY(!tgs_taken_stays(byte)))
		return false;
	atomic_store_explicit(taken, (uint8_t)(byte | TGS_GOING), memory_order_release);
	return true;
}

/* The span around `at`, with this entry, is the one of its class that is freed into.  False: its objects have no size here (large
 * and tiny ones), are big and not held back, or are ours; or its words have no memory yet; or `at` is behind its last slot. */
static bool turn_to(struct tgc_cache *cache, struct tgc_target *target, uint64_t at, uint64_t entry)
{
	uint64_t page = (at >> TGS_PAGE_SHIFT) - tgs_entry_delta(entry);
	const struct tgs_class *info = &tgs_classes[tgs_entry_class(entry)];

	if (info->size - 2 > HOLD_BACK_MAX - 2 ||
	    (entry & TGS_ENTRY_OWNER_MASK) == cache->owner_bits ||
	    (tgs_is_dense(info->kind) && !(entry & TGS_ENTRY_MORE)))
		return false;
	*target = (struct tgc_target){
		.entry = entry & ~TGS_ENTRY_DELTA_MASK,
		.start = page << TGS_PAGE_SHIFT,
		.bytes = (uint32_t)info->n_slots * info->size,
		.magic = (uint32_t)info->magic,
		.size = info->size,
		.word = UINT64_MAX,
		.pending = cache->slot->pending,
		.record = &tgc_heap.records[page],
		.taken = tgs_taken_bytes(&tgc_heap, info->kind, page),
	};
	return at - target->start < target->bytes;
}

static inline bool is_in(const struct tgc_target *target, uint64_t at, uint64_t entry)
{
	return (entry & ~TGS_ENTRY_DELTA_MASK) == target->entry &&
	       at - target->start < target->bytes;
}

/* Its word is not that of the class's last free, or not even its span is. */
static __attribute__((noinline)) void free_in_next_word(struct tgc_cache *cache, void *p,
							uint64_t entry)
{
	struct tgc_target *target = &cache->targets[tgs_entry_class(entry)];
	uint64_t at = (uint64_t)((uint8_t *)p - tgc_heap.data);
	uint32_t index;

	if (!is_in(target, at, entry) && !turn_to(cache, target, at, entry)) {
		tgc_foreign_free(p);
		return;
	}
	index = (uint32_t)((at - target->start) * target->magic >> 32);
	target->first = index & ~31u;
	target->word = tgs_ref_of(
		&tgc_heap,
		tgs_remote_word(&tgc_heap, tgs_classes[tgs_entry_class(entry)].kind,
				target->start >> TGS_PAGE_SHIFT, index / 64, index / 32 % 2));
	target->pending = place_for(cache, target->word);
	tgc_foreign_free_small(cache, p, entry);
}

/* Every way on from here is a jump: nothing has to be kept for later, and that is what makes it quick. */
void tgc_foreign_free_small(struct tgc_cache *cache, void *p, uint64_t entry)
{
	struct tgc_target *target = &cache->targets[tgs_entry_class(entry)];
	uint64_t at = (uint64_t)((uint8_t *)p - tgc_heap.data);
	uint64_t product = (at - target->start) * target->magic;
	uint32_t index = (uint32_t)(product >> 32), first = target->first, mask, bit;
	struct tgs_pending *pending = target->pending;
	const _Atomic uint64_t *remote;
	tgs_taken *taken;

	if (TGS_UNLIKELY(!is_in(target, at, entry) || index - first >= 32 ||
			 word_in(pending) != target->word)) {
		free_in_next_word(cache, p, entry);
		return;
	}
	remote = (const _Atomic uint64_t *)(tgc_heap.base + target->word);
	taken = target->taken + index;
	mask = mask_in(pending);
	bit = UINT32_C(1) << index % 32;
	if (TGS_UNLIKELY((uint32_t)product >= target->magic ||
			 (atomic_load_explicit(&target->record->flags, memory_order_relaxed) &
			  TGS_RECORD_HAS_LINKS) ||
			 !tgs_taken_stays(atomic_load_explicit(taken, memory_order_acquire)) ||
			 ((tgs_remote_objects(atomic_load_explicit(remote, memory_order_acquire),
					      first / 32 % 2) |
			   mask) &
			  bit) ||
			 !set_going(p, taken))) {
		tgc_foreign_free(p);
		return;
	}
	atomic_store_explicit(&pending->mask, mask | bit, memory_order_release);
	tgc_count(&cache->foreign_frees, 1);
	count_held(cache, target->size);
}

void tgc_foreign_note(struct tgs_pending *pending, const struct tgs_object *object)
{
	atomic_store_explicit(&pending->mask, mask_in(pending) | UINT32_C(1) << object->index % 32,
			      memory_order_release);
}

/* Big objects are not held back. */
void tgc_foreign_noted(struct tgc_cache *cache, struct tgs_pending *pending,
		       const struct tgs_object *object)
{
	uint32_t size = tgs_classes[object->span.class].size;

	tgc_count(&cache->foreign_frees, 1);
	if (object->span.class == 0 || size > HOLD_BACK_MAX)
		apply(cache, pending);
	else
		count_held(cache, size);
}

/* Buffers the free of an object, once there is memory for its word; else it is owed. */
static void note_or_owe(struct tgc_cache *cache, const struct tgs_object *object, void *p)
{
	struct tgs_pending *pending;

	if (TGS_UNLIKELY(!tgs_has_more(&tgc_heap, tgs_classes[object->span.class].kind,
				       object->span.page)) &&
	    !tgc_state_or_owe(cache, object, p))
		return;
	pending = tgc_foreign_reserve(cache, object);
	if (TGS_UNLIKELY(mask_in(pending) >> object->index % 32 & 1)) {
		tgc_report(TGC_DOUBLE_FREE, p);
		return;
	}
	tgc_links_end(object->span.page, p, tgs_object_size(&tgc_heap, object));
	tgc_foreign_note(pending, object);
	tgc_foreign_noted(cache, pending, object);
}

static bool is_small(const struct tgs_object *object)
{
	return object->span.class != 0 && object->span.class != TGS_CLASS_TINY;
}

/* False: its byte says that the free of it has begun already, which nothing else may. */
static bool begin_free(const struct tgs_object *object, void *p)
{
	return !is_small(object) || set_going(p, tgs_taken_of(&tgc_heap, object));
}

static void hold_back(struct tgc_cache *cache, const struct tgs_object *object, void *p)
{
	if (TGS_UNLIKELY(!begin_free(object, p)))
		tgc_report(TGC_DOUBLE_FREE, p);
	else
		note_or_owe(cache, object, p);
}

/* The same for a thread that can get no slot, as the daemon does not answer: the process owes it. */
static void leave(const struct tgs_object *object, void *p)
{
	if (!tgs_object_live(&tgc_heap, object) || !begin_free(object, p))
		tgc_report(TGC_DOUBLE_FREE, p);
	else
		tgc_owed_leave(p);
}

static void foreign_free(void *p)
{
	struct tgs_object object;
	struct tgc_cache *cache;
	enum tgs_find found;

	if (!tgc_enter()) {
		tgc_report(TGC_NOT_ATTACHED, p);
		return;
	}
	found = tgs_object_find(&tgc_heap, p, &object);
	if (TGS_UNLIKELY(found != TGS_FOUND)) {
		tgc_report(TGC_INVALID_FREE, p);
		return;
	}
	if (tgc_process->large && object.span.owner == tgc_process->large->slot_id) {
		if (!tgc_large_free(p, object.span.page))
			tgc_report(TGC_DOUBLE_FREE, p);
		return;
	}
	cache = tgc_cache_get();
	if (!cache) {
		leave(&object, p);
		return;
	}
	if (object.span.owner == cache->slot_id && tgc_owns_it(cache, p))
		tgc_free_own(cache, &object, p);
	else if (TGS_UNLIKELY(!tgs_object_live(&tgc_heap, &object)))
		tgc_report(TGC_DOUBLE_FREE, p);
	else
		hold_back(cache, &object, p);
	tgc_cache_return_late();
}

/* A free leaves errno alone, also where it finds no daemon, or reports an error. */
void tgc_foreign_free(void *p)
{
	int saved_errno = errno;

	foreign_free(p);
	errno = saved_errno;
}

/* If we die in here it is free, in one way or the other. */
void tgc_foreign_unhold(struct tgc_cache *cache, void *p, tgs_taken *taken)
{
	struct tgs_object object;

	if (tgs_object_find(&tgc_heap, p, &object) != TGS_FOUND)
		return;
	atomic_store_explicit(taken, TGS_TAKEN | TGS_GOING, memory_order_release);
	note_or_owe(cache, &object, p);
}

/* Applies the places of one group. */
static void flush_group(struct tgc_cache *cache, unsigned group)
{
	struct tgs_pending *pending = &cache->slot->pending[group * TGS_PENDING_GROUP];
	unsigned i;

	for (i = 0; i < TGS_PENDING_GROUP; i++) {
		if (mask_in(&pending[i]) != 0)
			apply(cache, &pending[i]);
		atomic_store_explicit(&pending[i].word, 0, memory_order_relaxed);
	}
}

void tgc_foreign_flush(struct tgc_cache *cache)
{
	uint64_t held;

	cache->held_bytes = 0;
	if (TGS_UNLIKELY(atomic_load_explicit(&tgc_process->owed, memory_order_relaxed) != NULL))
		tgc_owed_take_over(cache);
	if (TGS_UNLIKELY(cache->owed != NULL))
		tgc_owed_pay(cache);
	held = atomic_load_explicit(&cache->slot->held, memory_order_relaxed);
	for (; held != 0; held &= held - 1)
		flush_group(cache, (unsigned)__builtin_ctzll(held));
	atomic_store_explicit(&cache->slot->held, 0, memory_order_release);
}

/* Has its byte been told already that it was freed, when that was to be owed? */
static bool is_going(const struct tgs_object *object, const void *p)
{
	if (!is_small(object) || TGC_LOAD(tgc_own_of(p)->slot) == 0)
		return false;
	return (atomic_load_explicit(tgs_taken_of(&tgc_heap, object), memory_order_relaxed) &
		TGS_GOING) != 0;
}

void tgc_foreign_pay(struct tgc_cache *cache, void *p)
{
	struct tgs_object object;

	if (tgs_object_find(&tgc_heap, p, &object) != TGS_FOUND)
		tgc_report(TGC_DOUBLE_FREE, p);
	else if (is_going(&object, p))
		note_or_owe(cache, &object, p);
	else if (!tgs_object_live(&tgc_heap, &object))
		tgc_report(TGC_DOUBLE_FREE, p);
	else if (tgc_owns_it(cache, p))
		tgc_free_own(cache, &object, p);
	else
		hold_back(cache, &object, p);
}

uint64_t tgc_foreign_pending(const struct tgc_cache *cache)
{
	uint64_t n = atomic_load_explicit(&cache->n_owed, memory_order_relaxed);
	unsigned i;

	for (i = 0; i < TGS_PENDING_FREES; i++)
		n += (uint64_t)__builtin_popcount(mask_in(&cache->slot->pending[i]));
	return n;
}
