/* settle.h - what is done for a thread whose process has ended: nothing that it began is left half done. */
#pragma once

#include "shm/region.h"

/* Completes or undoes the step in flight (a free: done once, no more; a swap: all that goes with it, or nothing of it),
 * applies the pending frees, unpins the tiny block.  By the daemon, for a slot whose thread runs no more.  May be run again
 * from any point. */
void tgs_settle_slot(const struct tgs_heap *heap, unsigned slot);
