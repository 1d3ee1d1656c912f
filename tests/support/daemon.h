/* daemon.h - a real tgd on a socket of its own, for tests.
 *
 * 	static struct tgt_daemon d;
 *
 * 	static void set_up(void)     { CU_ASSERT_EQUAL_FATAL(tgt_daemon_start(&d, NULL), 0); }
 * 	static void tear_down(void)  { CU_ASSERT_EQUAL(tgt_daemon_stop(&d), 0); }
 *
 * Which programs: $TGD and $TGCTL, which the Makefile sets.  Nothing here waits for longer than
 * TGT_TIMEOUT_MS, and a daemon dies with the test program that started it.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define TGT_TIMEOUT_MS 30000

struct tgt_daemon {
	pid_t pid;         /* the keeper, as started; 0: none runs */
	char dir[64];      /* its own; removed by stop, with what is left in it */
	char socket[80];   /* in dir; for tg_options.socket or $TG_SOCKET */
	char log_path[80]; /* in dir */
	char *log;         /* what it has written so far, as of the last tgt_daemon_log */
};

/* Starts tgd with --socket and the extra arguments (NULL at the end; NULL: none), and waits until
 * it is ready.  0, or -errno: -ECHILD if it ended instead, -ETIMEDOUT; what it wrote is then on
 * standard error. */
int tgt_daemon_start(struct tgt_daemon *d, const char *const *extra_args);

/* The same with at most `n_files` open files (0: as many as the test itself). */
int tgt_daemon_start_limited(struct tgt_daemon *d, const char *const *extra_args, unsigned n_files);

/* The process that serves now, and its keeper: *ret_keeper may be NULL, and is 0 if there is none.
 * -1: it cannot be asked. */
pid_t tgt_daemon_worker(struct tgt_daemon *d, pid_t *ret_keeper);

/* Asks until another worker than that one serves: its pid, -1 if there is none in time. */
pid_t tgt_daemon_next_worker(struct tgt_daemon *d, pid_t worker);

/* The same for keepers. */
pid_t tgt_daemon_next_keeper(struct tgt_daemon *d, pid_t keeper);

/* Has a process ended that is not a child of ours, or does it in time? */
bool tgt_has_ended(pid_t pid);

/* SIGKILL for keeper and worker at once, which the heap does not survive, and waits. */
void tgt_daemon_kill(struct tgt_daemon *d);

/* SIGTERM, waits, and removes the directory.  The exit status (128 + signal if one killed it);
 * -errno: -ETIMEDOUT if it had to be killed, -ENOTEMPTY if it left its socket or lock behind.
 * Unless 0, its log is on standard error.  If none runs: 0. */
int tgt_daemon_stop(struct tgt_daemon *d);

/* Waits for the end of a daemon that something else ends; status as above.  Directory and log stay
 * until stop. */
int tgt_daemon_wait(struct tgt_daemon *d);

/* All that it has written to its log so far.  Valid until the next call. */
const char *tgt_daemon_log(struct tgt_daemon *d);

/* Waits until the text is in the log.  False: it did not come in time. */
bool tgt_daemon_wait_log(struct tgt_daemon *d, const char *text);

/* Runs tgctl --json with these arguments (NULL at the end) and reads its answer: the caller's
 * (json_decref), or NULL if it printed none.  *ret_status (may be NULL): its exit status, -1 if it
 * could not be run. */
json_t *tgt_tgctl(struct tgt_daemon *d, const char *const *args, int *ret_status);

/* A number in a JSON object, -1 if there is none of that name. */
long long tgt_json_int(const json_t *object, const char *name);

/* Runs a program (argv[0] is its path) with standard output and error collected: its exit status,
 * 128 + signal, or -errno.  *ret_output is the caller's (free); may be NULL. */
int tgt_run_program(const char *const *argv, char **ret_output);

/* The same for one that may take longer and starts others: if it does not end in time, SIGTERM ends it with all of them,
 * and then SIGKILL what is left. */
int tgt_run_long_program(const char *const *argv, int timeout_ms, char **ret_output);
