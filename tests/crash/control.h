/* control.h - at which point which process is to be killed, and which points were passed: shared by a crash test and the
 * programs that it kills.
 *
 * It lies in a memory file that $TG_CRASH_CONTROL names.  A program that is built with points.h maps it when it starts and
 * enters the list of its sites; without the variable, or while nobody takes aim, its points do nothing.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define TGT_CONTROL_VARIABLE "TG_CRASH_CONTROL"
#define TGT_SITES_MAX        1024u
#define TGT_TRACE_MAX        32768u

/* The daemon's program is told from others by its name; TGT_DAEMON is the worker. */
enum tgt_role { TGT_CLIENT, TGT_DAEMON, TGT_KEEPER, TGT_ROLES };

struct tgt_aim {
	_Atomic uint32_t armed; /* points count; set last */
	uint32_t pid;           /* of this process alone; 0: of any that has the role */
	uint32_t signal;        /* SIGKILL, or SIGSTOP */
	_Atomic int64_t left;   /* the signal comes at the point at which this becomes 0 */
	_Atomic int64_t next; /* 0: nothing more; else the signal comes again after so many more */
	_Atomic uint64_t n_passed;
	_Atomic uint32_t n_fired;
	_Atomic uint32_t fired; /* at this site, index + 1; 0: not yet */
	_Atomic uint32_t fired_pid;
	char pause_file[44],
		pause_what[16]; /* at the first such point tgt_pause is called; "": at none */
	_Atomic uint32_t paused;
};

struct tgt_site_info {
	char file[44];
	char what[16];
	uint32_t line;
	_Atomic uint64_t passed; /* while armed */
	_Atomic uint64_t fired;
};

struct tgt_control {
	/* So many times faster does a keeper's time run; 0: as keeper_clock.c has it. */
	_Atomic uint32_t keeper_faster;
	/* Points at other addresses are passed, but do not count.  0, 0: all count.  For clients. */
	uint64_t from, to;
	struct tgt_aim aim[TGT_ROLES];
	_Atomic uint32_t n_sites[TGT_ROLES];
	struct tgt_site_info site[TGT_ROLES][TGT_SITES_MAX];
	uint16_t trace[TGT_ROLES][TGT_TRACE_MAX]; /* sites of the points passed since tgt_arm */
};

enum tgt_role tgt_my_role(void);

/* NULL: this process has none. */
extern struct tgt_control *tgt_control;

/* Makes one, maps it, and sets the variable for programs that are started from now on.  False with errno. */
bool tgt_control_make(void);

/* From now on the `k`th point of that role (0: none; points are counted only) raises the signal. */
void tgt_arm(enum tgt_role role, uint32_t pid, uint64_t k, int signal);
void tgt_disarm(enum tgt_role role);

/* After tgt_arm: not the last one: the `k`th point after that one, of whichever process has the role by then, does it
 * again.  0: none, but they are counted. */
void tgt_arm_next(enum tgt_role role, uint64_t k);

/* After tgt_arm: at the first point of this file and kind `then` is called, in the process that is there. */
void tgt_pause_at(enum tgt_role role, const char *file, const char *what, void (*then)(void));

/* The site at which the signal was raised since tgt_arm; NULL: at none. */
const struct tgt_site_info *tgt_fired(enum tgt_role role);
