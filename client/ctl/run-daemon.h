/* run-daemon.h - one run of `tgctl run`, and the daemon of its own that it has. */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#include "client/ctl/run.h"
#include "proto/path.h"

/* Exit statuses, as the shell has them. */
enum { TGC_CANNOT_RUN = 126, TGC_NOT_FOUND = 127 };

/* One run.  A descriptor is -1, a pid or a path is empty while there is none. */
struct tgc_run_stage {
	struct tgc_run *run;
	char tgd_path[4096];
	char preload_path[4096];
	char dir[TGP_SOCKET_PATH_SIZE - 8]; /* with "/sock" it is a socket's path */
	char socket[TGP_SOCKET_PATH_SIZE];
	char log[TGP_SOCKET_PATH_SIZE];
	sigset_t old_mask;
	int signals; /* signalfd */
	pid_t tgd;
	int tgd_fd;     /* pidfd, as command_fd */
	int tgd_status; /* of waitpid, once it has ended */
	bool replaced;  /* the keeper that we started died, and the daemon has another */
	pid_t command;
	int command_fd;
};

/* ---- run.c ---- */

/* Notes what went wrong.  Only the first thing counts: the others follow from it.  Returns `status`. */
int tgc_run_fail(struct tgc_run_stage *s, int status, int error, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* Waits for a child's end (pidfd) or a signal, at most `ms` (-1: for ever).  Number of the signal; 0: none. */
int tgc_run_wait_event(struct tgc_run_stage *s, int pidfd, int ms, bool *ret_ended,
		       bool *ret_from_terminal);

/* ---- run-daemon.c: each returns TGC_OK, or the status that tgctl is to end with ---- */

int tgc_run_make_dir(struct tgc_run_stage *s);
int tgc_run_start_tgd(struct tgc_run_stage *s);
/* Returns once tgd answers. */
int tgc_run_wait_ready(struct tgc_run_stage *s);

/* The keeper that we started has ended.  Does the daemon still serve, as it does when only that one was killed? */
bool tgc_run_goes_on(struct tgc_run_stage *s);
/* tgd has ended before we told it to: reaps it and says so, unless someone may have stopped it in good order.  Returns
 * `status`. */
int tgc_run_explain_end(struct tgc_run_stage *s, int status, bool wanted, const char *when);

/* Also where there is none. */
void tgc_run_stop_tgd(struct tgc_run_stage *s);
void tgc_run_remove_dir(struct tgc_run_stage *s);
