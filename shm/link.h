/* link.h - a pointer that lies in the heap and is swung as a detectable step (shm/step.h).
 *
 * A link's word: the offset of what it leads to, then the tag of the step that swung it last.  All zero leads nowhere.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/layout.h"
#include "shm/region.h"

/* What the link leads to: a ref, 0 for nothing. */
uint64_t tgs_link_get(const struct tgs_heap *heap, const _Atomic uint64_t *link);

/* If the link leads to `expected`, swings it to `desired` (refs), as a step of thread slot `self` with `flags` noted for
 * the recoverer.  The step stays noted until tgs_step_done: what the flags ask for is done before. */
bool tgs_link_swap(const struct tgs_heap *heap, unsigned self, _Atomic uint64_t *link,
		   uint64_t expected, uint64_t desired, uint64_t flags);
