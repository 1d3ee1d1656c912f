/* keepers.h - a daemon of which every process is known, and a heap with one client, this program. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "proto/msg.h"

/* Who serves, as he says himself. */
struct tgt_keepers {
	pid_t worker, keeper;
	bool upgrade_failed;
};

/* The group of all processes of the daemon: the number of the keeper that was started. */
extern pid_t tgt_keepers_group;

/* A directory, and a service manager who is told things and does nothing: once, before and after all.  0, or 1. */
int tgt_keepers_set_up(void);
int tgt_keepers_clean_up(void);

/* Starts a daemon, whatever an earlier one has left behind; does not wait for it. */
void tgt_keepers_spawn(void);
/* No process of it is left. */
bool tgt_keepers_have_ended(void);
/* Ends all of them; the next log begins. */
void tgt_keepers_kill(void);

/* Is it in the log? */
bool tgt_keepers_said(const char *text);
void tgt_keepers_show_log(void);

/* The answer to an admin request, valid until the next; NULL: nobody serves. */
const Tgd__Reply *tgt_keepers_ask(Tgd__Admin__What what, const char *path);

/* One of its processes is about to stop: false, if it does not in time. */
bool tgt_keepers_await_stop(pid_t pid);

enum tgt_fate { TGT_SERVED, TGT_ALL_ENDED, TGT_STUCK };

/* Waits until somebody serves who is not `old` and has a keeper that lives, or all have ended. */
enum tgt_fate tgt_keepers_settle(struct tgt_keepers *d, pid_t old);

/* This program attaches and makes objects, or detaches. */
bool tgt_keepers_enter(void);
void tgt_keepers_leave(void);
/* Of those: each is there with all its bytes. */
bool tgt_keepers_objects_are_whole(void);

/* What there is of a daemon does all that one must, and above all its keeper has what the next worker needs: the one that
 * serves is killed.  A client that is not there enters first. */
bool tgt_keepers_go_on(struct tgt_keepers *d);
