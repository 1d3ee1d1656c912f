/* kept.h - the worker's side of keeper and worker: says how it is, hears what it is to do, and makes
 * a new keeper when its own has died. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/handover.h"

struct event;
struct event_base;

struct tgd_kept {
	struct tgd_handover have; /* what the next keeper gets; descriptors are ours */
	char **argv;
	struct event_base *base;
	struct event *heard; /* NULL: no keeper */
	struct event *again; /* when one that died at once is followed by the next */
	void (*retire)(void *arg);
	void *arg;
	int program;
	uint64_t made_at; /* the last keeper that we made, ms */
	unsigned wait_ms;
	bool retiring; /* the keeper has asked for it */
	bool leaving;  /* we end ourselves: a keeper that ends now is not missed */
};

/* Goes on with what was handed over.  `retire` is called from the loop when the keeper asks for it.
 * -errno. */
int tgd_kept_init(struct tgd_kept *kept, const struct tgd_handover *handover, char **argv,
		  struct event_base *base, void (*retire)(void *arg), void *arg);

/* Closes what it has. */
void tgd_kept_done(struct tgd_kept *kept);

/* The memory files, for the keeper: copies of them.  `tell`: it does not have them yet.  -errno. */
int tgd_kept_files(struct tgd_kept *kept, int map, int heap, bool tell);

/* We serve. */
void tgd_kept_ready(struct tgd_kept *kept);

/* The last word, of those in control.h. */
void tgd_kept_leave(struct tgd_kept *kept, const char *word, const char *text);

/* The last word of one that has retired, if there is somebody to hear it: else the heap would end with us.  -errno: not yet, as
 * the next keeper is still to be made. */
int tgd_kept_retire(struct tgd_kept *kept);

/* Asks to be replaced by this program, an open file that stays the caller's.  -ENOTCONN: there is
 * no keeper right now. */
int tgd_kept_upgrade(struct tgd_kept *kept, int program, const char *path);
