/* load.h - a process that allocates, checks and frees without a pause, while a test does something to the daemon. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct tgt_load_board;

struct tgt_load {
	pid_t pid;
	struct tgt_load_board *board; /* shared with it */
};

/* Starts it, attached to $TG_SOCKET by itself, and waits until it is at work.  False: it is not. */
bool tgt_load_start(struct tgt_load *load);

/* Waits until it has done some more rounds, each of which asks the daemon for something.  False: it did not in time. */
bool tgt_load_goes_on(const struct tgt_load *load);

/* Has it end, with nothing left in the heap.  Its status: 0 if no call failed and no object changed. */
int tgt_load_stop(struct tgt_load *load);
