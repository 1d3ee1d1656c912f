/* run.h - runs a script again and again, killed at the first point, at the second, and so on to its end.
 *
 * Children are forked by a process that was itself forked before anything else happened (the nursery), so each is fresh:
 * no heap is mapped, no thread runs.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	TGT_UNATTACHED = 1,   /* set_up does not begin with tg_attach */
	TGT_COUNT_ERRORS = 2, /* TG_ON_ERROR=count */
	TGT_KEEP_ONLY = 4,    /* not under TG_RECLAIM */
	TGT_SWEPT = 8,        /* the daemon is given the time to find by itself what is free */
	TGT_FRESH = 16,       /* each run has a heap that nobody has used */
	TGT_OF_DAEMON = TGT_SWEPT | TGT_FRESH, /* these tell something new of the daemon alone */
};

struct tgt_script {
	const char *name;
	void (*observer)(void);  /* the test program's part, before the child is there */
	void (*set_up)(void);    /* the child's, not to be killed */
	void (*operation)(void); /* tgt_begin, calls, tgt_end */
	void (*meeting)(void);   /* the test program's, when the child calls tgt_meet */
	unsigned flags;
	size_t a, b; /* what the functions make of them: sizes, counts */
	/* At the first such point the child comes to its meeting, and goes on afterwards.  NULL: at none. */
	const char *pause_file, *pause_what;
};

/* Ends with one that has no name. */
extern const struct tgt_script tgt_memory_scripts[], tgt_process_scripts[], tgt_daemon_scripts[];
extern struct tgt_script tgt_share_scripts[];
void tgt_share_scripts_make(void);

/* Before anything else in main. */
bool tgt_nursery_start(void);

/* A child that runs the script as tgt_ledger says: its pid, or -errno.  And its end: wait status, or -errno.  `stopped`: a
 * stop is an end, too. */
int tgt_child_start(void);
int tgt_child_wait(int pid);

/* The daemon, and this process attached to it as the observer.  Ends the program if they cannot be had. */
void tgt_world_start(const char *const *args);
bool tgt_world_stop(void);
/* The same again, with another heap. */
void tgt_world_renew(void);
/* What the daemon has written. */
const char *tgt_world_log(void);

/* Does the script with every point in turn, for both policies; `point` not 0: only with that one.  Returns the number of
 * failures. */
unsigned tgt_run_script(const struct tgt_script *script, uint64_t point);

/* ---- stopped.c ---- */

/* What others do while the child is stopped, before it is killed. */
enum tgt_meanwhile {
	TGT_REUSE,    /* the observer harvests, and takes what is free for new objects */
	TGT_SWING_ON, /* the link that the child works on is swung again and again */
	TGT_LINK_ENDS, /* the link is emptied, the object that holds it is freed, and its memory used again */
	TGT_LINK_LOST, /* the same, but the link is not emptied: it goes with what it leads to */
	TGT_MEANWHILE_END,
};

/* As tgt_run_script under one policy, but the child is stopped at each point, and killed when others have gone on. */
unsigned tgt_run_stopped(const struct tgt_script *script, bool reclaim,
			 enum tgt_meanwhile meanwhile, uint64_t point);

/* One child is stopped at a point of `first`, a second one killed at a point of `second`, then the first one: all pairs. */
unsigned tgt_run_pair(const struct tgt_script *first, const struct tgt_script *second);

/* ---- daemons.c ---- */

/* For `per_site`: at those places alone at which nobody was killed so far. */
#define TGT_NEW UINT_MAX

/* The child does the script and is not killed; the daemon that serves it is: at each point that it passes until the heap is
 * empty again (`per_site` not 0: at the first so many times that it comes to a place of the source, and at the last). */
unsigned tgt_run_daemon(const struct tgt_script *script, bool reclaim, unsigned per_site,
			uint64_t point);

/* The daemon is killed at a point, and the next one, too: for each first point as above, the second ones likewise. */
unsigned tgt_run_daemon_twice(const struct tgt_script *script, bool reclaim, unsigned per_site,
			      unsigned per_site_next);

/* The child is killed at its point i, and the daemon that recovers it as above; each `step`th i from the first. */
unsigned tgt_run_recovery(const struct tgt_script *script, bool reclaim, unsigned step,
			  unsigned per_site);

/* A first child is stopped at a point, a second one at another, and the daemon that recovers the second one is killed as
 * above, while the first one is still stopped: all pairs of points. */
unsigned tgt_run_recovery_beside(const struct tgt_script *first, const struct tgt_script *second,
				 unsigned per_site);

/* Both, at points chosen by `random`. */
unsigned tgt_run_both_at_random(const struct tgt_script *script, bool reclaim, uint64_t *random);

/* No daemon ended but by our hand. */
bool tgt_daemons_are_well(void);

/* ---- what all files of runs need ---- */

enum tgt_outcome { TGT_ENDED, TGT_CUT, TGT_FAILED };

/* Prepares the ledger for a run, and does the observer's part. */
void tgt_run_prepare(const struct tgt_script *script, bool reclaim, uint64_t k, int signal);
/* Prepares it for a second child beside the first one. */
void tgt_run_second(const struct tgt_script *script, uint64_t k, int signal);
/* The run itself, and the oracle. */
enum tgt_outcome tgt_run_prepared(const struct tgt_script *script);
/* Bears the child and lets it meet, if it has a meeting; waits for its end, or stop: its wait status.  *ret_pid: the child.
 * -errno: there is none. */
int tgt_run_child(const struct tgt_script *script, int *ret_pid);
/* Was the child that has ended with this wait status cut, did it end by itself, or is something wrong? */
enum tgt_outcome tgt_run_judge(int status);
/* Says where the run failed, and begins with another heap. */
void tgt_run_failed(const struct tgt_script *script, const char *how, uint64_t k);

/* How many kills there were. */
extern uint64_t tgt_n_kills;
