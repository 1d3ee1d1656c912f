/* keeper_clock.c - the keeper's time runs faster, so that a worker killed after some milliseconds is none that died at once.
 *
 * A keeper makes workers that die soon after their start wait.  Here they are killed as soon as they have served.  The
 * linker puts this in the place of clock_gettime for what is our own code (--wrap).
 */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "tests/crash/control.h"

#define FASTER 500

int __real_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	int r = __real_clock_gettime(clock, ret);
	uint64_t ns, faster;

	if (r < 0 || clock != CLOCK_MONOTONIC || tgt_my_role() != TGT_KEEPER)
		return r;
	faster = tgt_control != NULL ? atomic_load(&tgt_control->keeper_faster) : 0;
	ns = ((uint64_t)ret->tv_sec * 1000000000 + (uint64_t)ret->tv_nsec) *
	     (faster != 0 ? faster : FASTER);
	ret->tv_sec = (time_t)(ns / 1000000000);
	ret->tv_nsec = (long)(ns % 1000000000);
	return 0;
}
