/* mixed.h - threads that make calls of every kind, write down what they hold, and pass objects on to each other.
 *
 * No call is a point at which a thread can be cancelled: it says when it is inside one.  What all of them hold is in their
 * hands and on the shelf, so when they are gone the number of objects is exact.
 */
#pragma once

#include <CUnit/CUnit.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/message.h"

#define N_HELD 16

struct caller {
	pthread_t thread;
	uint64_t random;
	_Atomic bool inside; /* a call of the library */
	void *held[N_HELD];
	bool after; /* it is past its first destructor */
};

static _Atomic(void *) shelf[32]; /* where threads take what others have made */
static tg_link *link_of_all;

static inline size_t some_size(uint64_t *random)
{
	static const size_t sizes[] = {1, 12, 16, 24, 100, 1000, 9000, 32768, 40000, 300000};

	return sizes[tgt_random(random) % 10];
}

static inline void pass_on(struct caller *caller, void **held)
{
	void *old = atomic_exchange(&shelf[tgt_random(&caller->random) % 32], *held);

	*held = old;
}

static inline void swing(void)
{
	void *old = tg_link_get(link_of_all), *node = tg_malloc(64);

	TGT_EXPECT(node != NULL);
	if (!tg_swap(link_of_all, old, node, TG_GIVE | TG_RETIRE))
		tg_free(node);
}

/* A call of any kind; many of them ask the daemon. */
static inline void call(struct caller *caller)
{
	uint64_t *random = &caller->random;
	void **held = &caller->held[tgt_random(random) % N_HELD], *p;
	struct tg_stats stats = {.size = sizeof(stats)};

	switch (tgt_random(random) % 12) {
	case 0:
		p = tg_realloc(*held, some_size(random));
		TGT_EXPECT(p != NULL);
		*held = p;
		break;
	case 1:
		pass_on(caller, held);
		break;
	case 2:
		TGT_EXPECT(tg_root_set("root", link_of_all) == 0);
		break;
	case 3:
		TGT_EXPECT(tg_trim() == 0);
		break;
	case 4:
		TGT_EXPECT(tg_stats(&stats) == 0);
		break;
	case 5:
		swing();
		break;
	case 6:
		TGT_EXPECT(tg_root_get("no such root") == NULL && errno == ENOENT);
		break;
	default:
		errno = 4711;
		tg_free(*held);
		TGT_EXPECT(errno == 4711);
		*held = NULL;
		*held = tg_malloc(some_size(random));
		TGT_EXPECT(*held != NULL && errno == 4711);
	}
}

static inline void was_cancelled(void *arg)
{
	struct caller *caller = arg;

	TGT_EXPECT(!atomic_load(&caller->inside));
}

static inline void *call_until_cancelled(void *arg)
{
	struct caller *caller = arg;
	int state, type;

	pthread_cleanup_push(was_cancelled, caller);
	for (;;) {
		atomic_store(&caller->inside, true);
		call(caller);
		atomic_store(&caller->inside, false);
		/* Both are as they were. */
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
		pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &type);
		TGT_EXPECT(state == PTHREAD_CANCEL_ENABLE && type == PTHREAD_CANCEL_DEFERRED);
		pthread_testcancel();
	}
	pthread_cleanup_pop(0);
	return NULL;
}

static inline void *call_for_a_while(void *arg)
{
	struct caller *caller = arg;
	unsigned i;

	for (i = 0; i < 100; i++)
		call(caller);
	return NULL;
}

/* Waits for the thread's end; a lock that was left behind shows here. */
static inline void join(pthread_t thread, void *expected)
{
	struct timespec deadline;
	void *result = NULL;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += TGT_TIMEOUT_MS / 1000;
	if (pthread_timedjoin_np(thread, &result, &deadline) != 0) {
		printf("a thread does not end\n");
		abort();
	}
	CU_ASSERT(result == expected);
}

static inline void drop_all(struct caller *caller)
{
	unsigned i;

	for (i = 0; i < N_HELD; i++) {
		tg_free(caller->held[i]);
		caller->held[i] = NULL;
	}
}

static inline void prepare(void)
{
	link_of_all = tg_calloc(1, sizeof(*link_of_all));
	CU_ASSERT_PTR_NOT_NULL_FATAL(link_of_all);
}

static inline void clear_shelf(void)
{
	unsigned i;

	for (i = 0; i < 32; i++)
		tg_free(atomic_exchange(&shelf[i], NULL));
}

static inline void clear(void)
{
	clear_shelf();
	(void)tg_swap(link_of_all, tg_link_get(link_of_all), NULL, TG_RETIRE);
	(void)tg_root_set("root", NULL);
	tg_free(link_of_all);
}

static inline void some_time(uint64_t *random, unsigned us_max)
{
	struct timespec time = {.tv_nsec = (long)(tgt_random(random) % us_max) * 1000};

	nanosleep(&time, NULL);
}

#define N_CALLERS 6

/* Threads that come and go share their caches.  Not one each: a thread that trims, or ends, has those of others in its
 * hands for a while, and who begins meanwhile opens one more.  Far below the number of threads that have been. */
#define N_CACHES_MAX (4 * (N_CALLERS + 1))
