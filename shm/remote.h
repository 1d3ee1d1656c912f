/* remote.h - freeing somebody else's object, detectably, and the harvest of such frees by the owner.
 *
 * A remote word holds 32 objects' bits and the tag of the step that wrote it last (shm/step.h).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/layout.h"
#include "shm/region.h"
#include "shm/span.h"
#include "shm/step.h"

/* Where the tag lies in this remote word. */
const struct tgs_tag_format *tgs_remote_format(const _Atomic uint64_t *word);

/* Sets `mask` in the remote word as a step of thread slot `self`, and tells the owner.  The step stays noted in the slot
 * until tgs_step_done.  Returns the bits that were set already: objects freed twice, left as they are. */
uint32_t tgs_remote_free(const struct tgs_heap *heap, unsigned self, _Atomic uint64_t *word,
			 uint32_t mask);

/* Applies one place of the slot's buffer of frees and empties it.  Frees whose object is gone, because its owner has freed
 * it meanwhile, are dropped: only a program that frees twice has such; found here, they do not hit what lies there next.
 * Returns the bits freed twice. */
uint32_t tgs_pending_apply(const struct tgs_heap *heap, unsigned self, struct tgs_pending *pending);

/* Which objects a remote word stands for.  False if `ref` is not the offset of a remote word. */
struct tgs_word_place {
	uint64_t page; /* first page of the span */
	unsigned kind, unit, half;
};
bool tgs_word_place(const struct tgs_heap *heap, uint64_t ref, struct tgs_word_place *ret);

/* Tells the owner of the span at `first_page`, as a hint, that it has something to harvest.  Whoever becomes owner
 * changes the page map, then a full fence, then harvests; so a free is seen by the harvest or its hint is. */
void tgs_remote_notify(const struct tgs_heap *heap, uint64_t first_page);

/* What a harvest found. */
struct tgs_harvest {
	uint32_t n_freed; /* objects that are free now */
	uint32_t n_twice; /* freed by others although the owner had freed them: errors */
	uint64_t twice;   /* those of the unit harvested last */
};

/* Harvests one unit: clears `taken` and `published` of what is set in `remote`, then those remote bits.  By the owner of
 * the span alone (a thread for its spans; the daemon for central's and for those of the dead).  Adds to *harvest and
 * returns the bits freed.  Killed anywhere inside, running it again completes it. */
uint64_t tgs_remote_harvest(const struct tgs_heap *heap, unsigned kind, uint64_t page,
			    unsigned unit, struct tgs_harvest *harvest);

/* All units of a span. */
void tgs_remote_harvest_span(const struct tgs_heap *heap, const struct tgs_span *span,
			     struct tgs_harvest *harvest);

/* For the recoverer of thread `self`: did the free that is noted for `word` take place? */
bool tgs_remote_took_place(const struct tgs_heap *heap, unsigned self, _Atomic uint64_t *word);

/* The remote word at that offset, if a span is there that has one, and memory for it: what lies in a slot is input.  */
bool tgs_remote_word_at(const struct tgs_heap *heap, uint64_t ref, _Atomic uint64_t **ret_word);

/* A place of the thread's buffer names this word: have its frees been applied, and the place only not been emptied yet?
 * To be asked after the place's mask was read.  Another object may stand there by now. */
bool tgs_pending_applied(const struct tgs_heap *heap, unsigned self, uint64_t ref);
