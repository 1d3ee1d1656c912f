/* child.h - forked processes for tests: other clients of the heap, with assertions that count.
 *
 * CUnit's assertions made in a forked child are lost.  A child uses TGT_EXPECT, which prints what failed and makes the
 * child end with status 1; the parent asserts that the status is 0:
 *
 *	static void other_side(void *arg)   { TGT_EXPECT(tg_attach(NULL) == 0); ... }
 *
 *	CU_ASSERT_EQUAL(tgt_in_child(other_side, &data), 0);
 *
 * A child dies with its parent.  No wait is longer than TGT_TIMEOUT_MS.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

typedef void tgt_child_fn(void *arg);

/* True if the condition holds; else prints it, and the child's (or the thread's) end will say so. */
#define TGT_EXPECT(condition) tgt_expect(!!(condition), #condition, __FILE__, __LINE__)

/* The same, but ends the child at once. */
#define TGT_REQUIRE(condition)              \
	do {                                \
		if (!TGT_EXPECT(condition)) \
			tgt_give_up();      \
	} while (0)

bool tgt_expect(bool holds, const char *condition, const char *file, int line);
void tgt_give_up(void) __attribute__((noreturn));

/* How many expectations of this process failed so far: for threads of the test program itself, which cannot use CUnit's
 * assertions either. */
int tgt_failed_expectations(void);

/* Forks a child that runs fn(arg) and ends with status 0, or 1 if an expectation failed.  -errno. */
pid_t tgt_fork(tgt_child_fn *fn, void *arg);

/* Waits for the end of a child: its exit status, 128 + signal, or -ETIMEDOUT; it is then killed. */
int tgt_wait(pid_t pid);

/* tgt_fork and tgt_wait. */
int tgt_in_child(tgt_child_fn *fn, void *arg);

/* The same, with what it writes to standard error: the caller's (free). */
int tgt_in_child_output(tgt_child_fn *fn, void *arg, char **ret_output);

/* A place where two processes meet: a byte through a pipe for each direction. */
struct tgt_meeting {
	int to_child[2], to_parent[2];
};

bool tgt_meeting_open(struct tgt_meeting *meeting);
void tgt_meeting_close(struct tgt_meeting *meeting);

/* Tell the other side to go on; wait until it does.  False: it has ended, or it did not in time. */
void tgt_tell_child(const struct tgt_meeting *meeting);
bool tgt_wait_child_said(const struct tgt_meeting *meeting);
void tgt_tell_parent(const struct tgt_meeting *meeting);
bool tgt_wait_parent_said(const struct tgt_meeting *meeting);

/* A monotonic clock, for deadlines. */
long long tgt_now_ms(void);

/* In a child of a test that runs as root: becomes the user nobody (65534), for good. */
bool tgt_drop_root(void);

/* What the process does, as /proc says: 'R', 'S', 'T', 'Z' ...; '?': there is none of that number. */
char tgt_state_of(pid_t pid);
