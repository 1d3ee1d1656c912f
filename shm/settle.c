/* settle.c - finish or undo what a dead thread had in flight, from what is noted in its slot.
 *
 * First the step: its word and its mark tell whether it took place.  A free that did is struck off the buffer; a swap that
 * did has its retired object put into the buffer (unless it stands there already), one that did not has the object that it
 * wanted to give made private again.  Then the note goes, and then the buffer is applied, as steps of the same slot.  So
 * whoever is killed in here leaves a state from which the next one does the same.  What lies in the slot was written by a
 * client: it is looked at before it is believed.
 */
#include "shm/settle.h"

#include "shm/base.h"
#include "shm/link.h"
#include "shm/remote.h"
#include "shm/span.h"
#include "shm/step.h"

/* The free that the thread had begun: if it took place, it must not be applied again. */
static void settle_free(const struct tgs_heap *heap, unsigned self, uint64_t ref)
{
	struct tgs_slot *slot = &heap->slots[self];
	struct tgs_word_place place;
	_Atomic uint64_t *word;
	unsigned i;

	/* If the span is gone, every free of its objects took place. */
	if (tgs_remote_word_at(heap, ref, &word)) {
		if (!tgs_remote_took_place(heap, self, word))
			return;
		if (tgs_word_place(heap, ref, &place))
			tgs_remote_notify(heap, place.page);
	}
	for (i = 0; i < TGS_PENDING_FREES; i++) {
		if (atomic_load_explicit(&slot->pending[i].word, memory_order_relaxed) == ref)
			atomic_store_explicit(&slot->pending[i].mask, 0, memory_order_release);
	}
}

/* The thread was freeing what its swap had taken out of the link: that is done when the free stands in its buffer.  The
 * thread made a place for it before the swap, but what lies in the slot is input: without one, the object stays. */
static void retire(const struct tgs_heap *heap, struct tgs_slot *slot, uint64_t ref)
{
	struct tgs_object object;
	_Atomic uint64_t *word;
	uint64_t word_ref;
	uint32_t bit, mask;
	unsigned i;

	if (ref >= heap->geometry.heap_bytes ||
	    tgs_object_find(heap, heap->base + ref, &object) != TGS_FOUND ||
	    !tgs_object_live(heap, &object) ||
	    !tgs_has_more(heap, tgs_classes[object.span.class].kind, object.span.page))
		return;
	/* As in every free: whoever swings a link in this object learns first whether he has. */
	if (atomic_load_explicit(&heap->records[object.span.page].flags, memory_order_relaxed) &
	    TGS_RECORD_HAS_LINKS)
		tgs_link_help_inside(heap, ref, tgs_object_size(heap, &object));
	word = tgs_remote_word(heap, tgs_classes[object.span.class].kind, object.span.page,
			       object.unit, object.index / 32 % 2);
	word_ref = tgs_ref_of(heap, word);
	bit = UINT32_C(1) << object.index % 32;
	for (i = 0; i < TGS_PENDING_FREES; i++) {
		mask = atomic_load_explicit(&slot->pending[i].mask, memory_order_acquire);
		if (mask != 0 && atomic_load_explicit(&slot->pending[i].word,
						      memory_order_relaxed) == word_ref) {
			atomic_store_explicit(&slot->pending[i].mask, mask | bit,
					      memory_order_release);
			return;
		}
	}
	for (i = 0; i < TGS_PENDING_FREES; i++) {
		if (atomic_load_explicit(&slot->pending[i].mask, memory_order_acquire) == 0) {
			atomic_fetch_or_explicit(&slot->held, tgs_pending_group(i),
						 memory_order_relaxed);
			atomic_store_explicit(&slot->pending[i].word, word_ref,
					      memory_order_relaxed);
			atomic_store_explicit(&slot->pending[i].mask, bit, memory_order_release);
			return;
		}
	}
}

/* The object did not get into the link: it is as private as it was. */
static void unpublish(const struct tgs_heap *heap, uint64_t ref)
{
	struct tgs_object object;

	if (ref < heap->geometry.heap_bytes &&
	    tgs_object_find(heap, heap->base + ref, &object) == TGS_FOUND &&
	    tgs_has_more(heap, tgs_classes[object.span.class].kind, object.span.page))
		tgs_unpublish(heap, &object);
}

/* The swap that the thread had begun: did the link swing? */
static void settle_swap(const struct tgs_heap *heap, unsigned self, uint64_t ref)
{
	struct tgs_slot *slot = &heap->slots[self];
	uint64_t what = atomic_load_explicit(&slot->step.arg, memory_order_relaxed);
	struct tgs_object container;
	bool swung;

	if (ref < heap->geometry.data_at || ref > heap->geometry.heap_bytes - sizeof(uint64_t))
		return;
	/* Where no span is any more, the link was freed, and the thread told before that. */
	if (tgs_object_around(heap, ref, &container))
		swung = tgs_link_took_place(heap, self, (_Atomic uint64_t *)(heap->base + ref));
	else
		swung = tgs_step_was_helped(slot);
	if (!swung && (what & TGS_SWAP_GIVE) && (what & TGS_SWAP_PRIVATE))
		unpublish(heap, atomic_load_explicit(&slot->step.new_ref, memory_order_relaxed));
	if (swung && (what & TGS_SWAP_RETIRE))
		retire(heap, slot, atomic_load_explicit(&slot->step.old_ref, memory_order_relaxed));
}

void tgs_settle_slot(const struct tgs_heap *heap, unsigned self)
{
	struct tgs_slot *slot = &heap->slots[self];
	uint64_t step = atomic_load_explicit(&slot->step.word, memory_order_acquire);
	unsigned i;

	if ((step & TGS_STEP_KIND_MASK) == TGS_STEP_FREE)
		settle_free(heap, self, step & ~TGS_STEP_KIND_MASK);
	else if ((step & TGS_STEP_KIND_MASK) == TGS_STEP_SWAP)
		settle_swap(heap, self, step & ~TGS_STEP_KIND_MASK);
	tgs_step_done(slot);
	for (i = 0; i < TGS_PENDING_FREES; i++) {
		_Atomic uint64_t *word;

		if (tgs_remote_word_at(
			    heap,
			    atomic_load_explicit(&slot->pending[i].word, memory_order_relaxed),
			    &word)) {
			(void)tgs_pending_apply(heap, self, &slot->pending[i]);
		} else {
			atomic_store_explicit(&slot->pending[i].mask, 0, memory_order_release);
		}
	}
	atomic_store_explicit(&slot->held, 0, memory_order_release);
	atomic_store_explicit(&slot->tiny_block, 0, memory_order_release);
	atomic_store_explicit(&slot->tiny_left, 0, memory_order_release);
}
