/* run.h - a private daemon for one command. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct tgc_run {
	bool preload;         /* the command's malloc is the shared heap */
	uint64_t limit;       /* bytes; 0: the daemon's default */
	char *const *command; /* its words, then NULL */

	/* results */
	int error; /* negative errno: the run itself went wrong, and `why` says how */
	char why[1536];
};

/* Runs the command to its end.  Returns the exit status: the command's, 128+N if signal N ended
 * it, 127 and 126 if it cannot be run, TGC_UNREACHABLE if there is no daemon for it. */
int tgc_run(struct tgc_run *run);
