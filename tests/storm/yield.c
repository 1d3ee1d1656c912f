/* yield.c - the same storm, but a thread gives its processor away at one of sixteen points at which its state is half
 * changed.
 *
 * The library is compiled with tests/crash/points.h, so each store, atomic operation and message comes here first.  With
 * two threads a processor and some microseconds a turn, a kill seldom finds a thread between two stores; when threads lose
 * their processor just there, most kills do, and so do other threads.
 */
#include <sched.h>

#include "tests/crash/points.h"

void tgt_point(const struct tgt_site *site, const volatile void *address)
{
	static __thread uint64_t random;

	(void)site;
	(void)address;
	if (random == 0)
		random = (uint64_t)(uintptr_t)&random | 1;
	random ^= random << 13;
	random ^= random >> 7;
	random ^= random << 17;
	if ((random >> 32) % 16 == 0)
		sched_yield();
}
