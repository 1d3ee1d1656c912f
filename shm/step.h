/* step.h - detectable steps: a thread changes a shared word, and if it is killed, others can tell whether it did.
 *
 * The word carries a tag: the thread's slot and the low bits of the number that it counts its steps by.
 *
 *   the thread    notes word and number in its slot (tgs_step_begin); swaps the word; clears the note (tgs_step_done)
 *   an overwriter raises the mark of the thread in the word's tag to that step's number (tgs_step_help), then overwrites
 *   the recoverer reads the word, then the mark: done if the word has the tag, or the mark has reached the number
 *
 * Used by shm/remote.c (frees of somebody else's objects) and shm/link.c (tg_swap).  docs/design.md tells why it holds.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/layout.h"
#include "shm/region.h"

/* Where in a word the tag lies: slot at slot_shift, TGS_SLOT_BITS wide, and above it the number's low seq_bits. */
struct tgs_tag_format {
	unsigned slot_shift;
	unsigned seq_bits;
	enum tgs_step_kind kind;
};

static inline uint64_t tgs_tag(const struct tgs_tag_format *format, unsigned slot, uint64_t seq)
{
	return (uint64_t)slot << format->slot_shift |
	       (seq & ((UINT64_C(1) << format->seq_bits) - 1))
		       << (format->slot_shift + TGS_SLOT_BITS);
}

static inline uint64_t tgs_tag_of(const struct tgs_tag_format *format, uint64_t value)
{
	return value >> format->slot_shift << (64 - TGS_SLOT_BITS - format->seq_bits) >>
	       (64 - TGS_SLOT_BITS - format->seq_bits) << format->slot_shift;
}

/* Notes a step on `word` in the slot of thread `self` and returns its number: one whose tag does not stand in the word. */
uint64_t tgs_step_begin(const struct tgs_heap *heap, unsigned self,
			const struct tgs_tag_format *format, _Atomic uint64_t *word, uint64_t arg,
			uint64_t old_ref, uint64_t new_ref);

/* Before `value`, read from `word`, is overwritten: tells the thread in its tag that its step took place, if that thread
 * may still be in doubt.  False: the word has changed meanwhile, start again. */
bool tgs_step_help(const struct tgs_heap *heap, const struct tgs_tag_format *format,
		   _Atomic uint64_t *word, uint64_t value);

/* The thread is past its step, and past all that is done only once for it. */
void tgs_step_done(struct tgs_slot *slot);

/* For the recoverer of thread `self`, which is dead: did the step noted for `word` take place? */
bool tgs_step_took_place(const struct tgs_heap *heap, unsigned self,
			 const struct tgs_tag_format *format, _Atomic uint64_t *word);

/* The same for a step on a word whose memory was given up since: whoever did that told the thread. */
static inline bool tgs_step_was_helped(const struct tgs_slot *slot)
{
	return atomic_load_explicit(&slot->mark, memory_order_acquire) >=
	       atomic_load_explicit(&slot->step.seq, memory_order_relaxed);
}
