/* notify.h - what the service manager (systemd) is told, and what it keeps for us. */
#pragma once

#include <sys/types.h>

/* All do nothing if no service manager wants to know. */

/* It may send clients now; `pid` is the process to watch. */
void tgd_notify_ready(pid_t pid);

/* Hands copies of the memory files to the descriptor store, from which the next start gets them. */
void tgd_notify_store(int map, int heap);

/* Takes them out of there again: this heap is not wanted any more. */
void tgd_notify_discard(void);

/* The memory files that the store has kept from an earlier run: the caller's.  0: there are none;
 * 1: here they are.  For the process that the service manager started. */
int tgd_notify_take(int *ret_map, int *ret_heap);
