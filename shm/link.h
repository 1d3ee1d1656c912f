/* link.h - a pointer that lies in the heap and is swung as a detectable step (shm/step.h).
 *
 * A link's word: the offset of what it leads to, then the tag of the step that swung it last.  All zero leads nowhere.
 *
 *   tgs_link_begin   notes the step in the thread's slot; what must precede the swing is done after this
 *   tgs_link_swing   changes the link, or finds that it leads elsewhere
 *   (the caller)     does what must follow, or undoes what preceded
 *   tgs_step_done    clears the note
 *
 * A thread that is killed anywhere in between is finished or undone by shm/settle.c.  The evidence is the link's word, so
 * whoever frees the object in which a link lies first tells all threads whose step is in it (tgs_link_help_inside): after
 * that the memory may be used for anything.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/layout.h"
#include "shm/region.h"

/* What the link leads to: a ref, 0 for nothing.  And what a word read from it leads to. */
uint64_t tgs_link_get(const struct tgs_heap *heap, const _Atomic uint64_t *link);
uint64_t tgs_link_target(const struct tgs_heap *heap, uint64_t word);

/* Notes the step in slot `self` and returns its number.  `what`: TGS_SWAP_*; refs of what is replaced and what comes. */
uint64_t tgs_link_begin(const struct tgs_heap *heap, unsigned self, _Atomic uint64_t *link,
			uint64_t what, uint64_t expected, uint64_t desired);

/* Swings the link if it leads to `expected`. */
bool tgs_link_swing(const struct tgs_heap *heap, unsigned self, uint64_t seq,
		    _Atomic uint64_t *link, uint64_t expected, uint64_t desired);

/* Swings the link if its word still is `seen`: nobody has swung it since that was read, not even there and back. */
bool tgs_link_swing_seen(const struct tgs_heap *heap, unsigned self, uint64_t seq,
			 _Atomic uint64_t *link, uint64_t seen, uint64_t desired);

/* Begin and swing in one, for what needs nothing in between.  The note stays until tgs_step_done. */
bool tgs_link_swap(const struct tgs_heap *heap, unsigned self, _Atomic uint64_t *link,
		   uint64_t expected, uint64_t desired, uint64_t what);

/* Before the memory [ref, ref + bytes) is freed: tells each thread with a step in it whether that step took place.  Takes
 * time in the number of thread slots in use. */
void tgs_link_help_inside(const struct tgs_heap *heap, uint64_t ref, uint64_t bytes);

/* Is somebody in the midst of giving away an object in [ref, ref + bytes), which is private again if that fails?  Asked
 * after its published bit was seen; if not, and the bit still stands, it is there to stay. */
bool tgs_link_gives_inside(const struct tgs_heap *heap, uint64_t ref, uint64_t bytes);

/* For the recoverer of thread `self`: did the swap that is noted for `link` take place? */
bool tgs_link_took_place(const struct tgs_heap *heap, unsigned self, _Atomic uint64_t *link);
