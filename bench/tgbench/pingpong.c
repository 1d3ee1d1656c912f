/* pingpong.c - how far apart two CPUs are: the time a cache line takes there and back.
 *
 * The host of a virtual machine moves CPUs about, and what two of them do together then takes 2 to 12 times as long.  So
 * it is measured before and after each run that uses two.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "bench/tgbench/tgbench.h"

#define GROUPS 100
#define PER    200

static struct {
	_Alignas(64) atomic_uint ping;
	_Alignas(64) atomic_uint pong;
	int cpu;
} line;

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static void await(atomic_uint *value, unsigned n)
{
	unsigned spins = 0;

	while (atomic_load_explicit(value, memory_order_acquire) != n) {
		if (++spins % 100000 == 0)
			sched_yield();
	}
}

static void *answer(void *arg)
{
	unsigned i;

	pin(line.cpu);
	for (i = 1; i <= GROUPS * PER; i++) {
		await(&line.ping, i);
		atomic_store_explicit(&line.pong, i, memory_order_release);
	}
	return arg;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

double tgb_pingpong_us(int cpu, int cpu2)
{
	double us[GROUPS];
	cpu_set_t before;
	pthread_t other;
	unsigned g, i, n = 0;

	sched_getaffinity(0, sizeof(before), &before);
	line.ping = line.pong = 0;
	line.cpu = cpu2;
	if (pthread_create(&other, NULL, answer, NULL) != 0)
		tgb_fail("no thread");
	pin(cpu);
	for (g = 0; g < GROUPS; g++) {
		double start = now_us();

		for (i = 0; i < PER; i++) {
			atomic_store_explicit(&line.ping, ++n, memory_order_release);
			await(&line.pong, n);
		}
		us[g] = (now_us() - start) / PER;
	}
	pthread_join(other, NULL);
	sched_setaffinity(0, sizeof(before), &before);
	qsort(us, GROUPS, sizeof(*us), by_value);
	return us[GROUPS / 2];
}
