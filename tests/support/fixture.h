/* fixture.h - what most integration tests share: a tgd, this process attached to it, and a heap that is exact at the end.
 *
 *	CU_SuiteInfo suites[] = {
 *		{"alloc", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
 *
 * After every test the tear-down asks `tgctl --json check`: it must be ok, and count exactly `tgt_held` objects (0 unless
 * the test says that it leaves some).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/tg.h"
#include "tests/support/daemon.h"

extern struct tgt_daemon tgt_d;

/* Objects that the test leaves behind; set to 0 before each test. */
extern long long tgt_held;

/* Starts the daemon, sets TG_SOCKET, and attaches.  Ends the program if that cannot be done. */
void tgt_set_up(void);

/* The same with arguments for tgd (NULL at the end), and options for tg_attach (NULL: none). */
void tgt_set_up_with(const char *const *args, const struct tg_options *options);

/* As tgt_set_up, under one policy or the other; calls of the library may take 20 s. */
void tgt_set_up_keep(void);
void tgt_set_up_reclaim(void);
/* Which of the two it was. */
extern bool tgt_reclaims;

/* Only the daemon; for tests that attach by themselves, or not at all. */
void tgt_set_up_daemon(const char *const *args);

/* Checks the heap, detaches if attached, checks it again, stops the daemon. */
void tgt_tear_down(void);

/* Asserts that the heap is sound and holds exactly so many objects. */
void tgt_check(long long objects);

/* This process and the daemon give back what they only keep: no block of tiny objects is current, and no idle page has memory,
 * nor its state. */
void tgt_fresh_memory(void);

/* A number of `tgctl --json status`, or of `check`; -1 if it cannot be had. */
long long tgt_status(const char *name);
long long tgt_check_number(const char *name);

/* Asks for a number of `status` until it is at most (at least) that.  False: it was not so in time. */
bool tgt_wait_at_most(const char *name, long long n);
bool tgt_wait_at_least(const char *name, long long n);

/* tg_stats, of this process. */
struct tg_stats tgt_stats(void);

/* This build has a sanitizer in it. */
bool tgt_has_sanitizer(void);

/* How much a test may do: `n`, or less under a sanitizer, where all is slower. */
unsigned tgt_scaled(unsigned n);

/* Fills an object with a pattern of its own, and says whether it is still there. */
void tgt_fill_object(void *object, size_t size, uint64_t seed);
bool tgt_is_filled(const void *object, size_t size, uint64_t seed);

/* All bytes are zero. */
bool tgt_is_zero(const void *object, size_t size);
