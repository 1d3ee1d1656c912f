/* base.h - the few helpers that every folder uses: rounding, limits, ownership by cleanup attribute, crash points.  100
 * lines at most. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define TGS_LIKELY(x)    __builtin_expect(!!(x), 1)
#define TGS_UNLIKELY(x)  __builtin_expect(!!(x), 0)
#define TGS_COLD         __attribute__((cold, noinline))
#define TGS_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Data of the library that its code reaches without a look into the table of addresses. */
#define TGS_HIDDEN __attribute__((visibility("hidden")))

#define tgs_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* `unit` is a power of two.  Wraps to 0 near UINT64_MAX: check the range first. */
static inline uint64_t tgs_round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) & ~(unit - 1);
}

static inline uint64_t tgs_round_down(uint64_t n, uint64_t unit)
{
	return n & ~(unit - 1);
}

static inline uint64_t tgs_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t tgs_max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline int tgs_is_power_of_two(uint64_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

static inline void tgs_close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void tgs_free_ptr(void *ptr)
{
	free(*(void **)ptr);
}

/* What only the current function holds is let go when it returns. */
#define TGS_CLOSE __attribute__((cleanup(tgs_close_fd)))
#define TGS_FREE  __attribute__((cleanup(tgs_free_ptr)))

/* Marks a plain store to shared memory: a place where the process may be killed with half of its change done.  The crash
 * tests (tests/crash) make something of it, and of each atomic operation; elsewhere it is nothing. */
#ifndef TGS_POINT
#define TGS_POINT() ((void)0)
#endif
