/* step.c - detectable steps: note, help, and the recoverer's question.
 *
 * The tag has only the low bits of the step's number, so a helper takes the whole number from the thread's note, and only
 * if the note names this very word and the number is the same before and after it was read.  It then reads the word again: a thread never notes a step whose low bits stand in
 * the word at that time, so a word that has them afterwards got them by that step.  If the note is about anything else,
 * the thread has gone past the step and needs no help.  Marks only rise, whoever is late.
 */
#include "shm/step.h"

#include "shm/span.h"

uint64_t tgs_step_begin(const struct tgs_heap *heap, unsigned self,
			const struct tgs_tag_format *format, _Atomic uint64_t *word, uint64_t arg,
			uint64_t old_ref, uint64_t new_ref)
{
	struct tgs_step *step = &heap->slots[self].step;
	uint64_t seq = atomic_load_explicit(&step->seq, memory_order_relaxed) + 1;
	uint64_t value = atomic_load_explicit(word, memory_order_acquire);

	if (tgs_tag_of(format, value) == tgs_tag(format, self, seq))
		seq++;
	atomic_store_explicit(&step->seq, seq, memory_order_relaxed);
	atomic_store_explicit(&step->arg, arg, memory_order_relaxed);
	atomic_store_explicit(&step->old_ref, old_ref, memory_order_relaxed);
	atomic_store_explicit(&step->new_ref, new_ref, memory_order_relaxed);
	atomic_store_explicit(&step->word, tgs_ref_of(heap, word) | format->kind,
			      memory_order_release);
	return seq;
}

static void raise_mark(struct tgs_slot *slot, uint64_t seq)
{
	uint64_t mark = atomic_load_explicit(&slot->mark, memory_order_relaxed);

	while (mark < seq &&
	       !atomic_compare_exchange_weak_explicit(&slot->mark, &mark, seq, memory_order_acq_rel,
						      memory_order_relaxed))
		;
}

bool tgs_step_help(const struct tgs_heap *heap, const struct tgs_tag_format *format,
		   _Atomic uint64_t *word, uint64_t value)
{
	uint64_t tag = tgs_tag_of(format, value);
	unsigned slot_id = (unsigned)(value >> format->slot_shift) & (TGS_SLOTS_MAX - 1);
	struct tgs_slot *slot = &heap->slots[slot_id];
	uint64_t seq;

	/* Slots 0 and 1 take no steps.  A tag is input where clients can write it: a slot never opened has no memory. */
	if (slot_id <= TGS_SLOT_CENTRAL ||
	    atomic_load_explicit(&heap->slot_owners[slot_id].client, memory_order_acquire) == 0)
		return true;
	seq = atomic_load_explicit(&slot->step.seq, memory_order_acquire);
	if (atomic_load_explicit(&slot->step.word, memory_order_acquire) !=
	    (tgs_ref_of(heap, word) | format->kind))
		return true;
	/* Number and note are of one step, and it is this word's: else start again. */
	if (atomic_load_explicit(&slot->step.seq, memory_order_acquire) != seq ||
	    atomic_load_explicit(word, memory_order_seq_cst) != value)
		return false;
	if (tag == tgs_tag(format, slot_id, seq))
		raise_mark(slot, seq);
	return true;
}

void tgs_step_done(struct tgs_slot *slot)
{
	atomic_store_explicit(&slot->step.word, 0, memory_order_release);
}

bool tgs_step_took_place(const struct tgs_heap *heap, unsigned self,
			 const struct tgs_tag_format *format, _Atomic uint64_t *word)
{
	struct tgs_slot *slot = &heap->slots[self];
	uint64_t seq = atomic_load_explicit(&slot->step.seq, memory_order_relaxed);
	/* In this order: help that comes in between is then seen. */
	uint64_t value = atomic_load_explicit(word, memory_order_seq_cst);
	uint64_t mark = atomic_load_explicit(&slot->mark, memory_order_seq_cst);

	return mark >= seq || tgs_tag_of(format, value) == tgs_tag(format, self, seq);
}
