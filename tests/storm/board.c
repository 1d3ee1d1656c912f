/* board.c - the memory that all processes of the storm share: books, bits, times, and what went wrong.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/storm/storm.h"

struct storm_board *storm_board;

bool storm_board_open(uint64_t seed, bool all_reclaim)
{
	void *p = mmap(NULL, sizeof(*storm_board), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return false;
	storm_board = p;
	storm_board->seed = seed;
	storm_board->all_reclaim = all_reclaim;
	return true;
}

void storm_board_close(void)
{
	munmap(storm_board, sizeof(*storm_board));
	storm_board = NULL;
}

bool storm_reclaims(unsigned client)
{
	return storm_board->all_reclaim || client % 2 != 0;
}

void storm_fail(const char *format, ...)
{
	char text[512];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	/* In one piece, as others write there, too; and not without end. */
	if (n > 0 && atomic_fetch_add(&storm_board->failures, 1) < 100)
		dprintf(STDERR_FILENO, "storm, pid %d: %s\n", (int)getpid(), text);
}

bool storm_mark(_Atomic uint64_t bits[][STORM_NUMBERS / 64], struct storm_name name)
{
	uint64_t bit = UINT64_C(1) << name.number % 64;

	return atomic_fetch_or(&bits[name.seat][name.number / 64], bit) & bit;
}

bool storm_marked(_Atomic uint64_t bits[][STORM_NUMBERS / 64], struct storm_name name)
{
	return atomic_load(&bits[name.seat][name.number / 64]) >> name.number % 64 & 1;
}

/* ---- times ---- */

uint64_t storm_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static unsigned step_of(uint64_t ns)
{
	unsigned top;

	if (ns < 8)
		return (unsigned)ns;
	top = 63 - (unsigned)__builtin_clzll(ns);
	return top * 8 + (unsigned)(ns >> (top - 3) & 7);
}

/* The longest time in a step. */
static uint64_t end_of_step(unsigned step)
{
	if (step < 24)
		return step;
	return ((UINT64_C(8) + step % 8 + 1) << (step / 8 - 3)) - 1;
}

void storm_time(struct storm_book *book, enum storm_call call, uint64_t since_ns)
{
	struct storm_times *times = &book->times[call];
	uint64_t ns = storm_now_ns() - since_ns;

	times->n++;
	times->step[step_of(ns)]++;
	if (ns > times->max_ns)
		times->max_ns = ns;
}

static uint64_t quantile(const struct storm_times *times, double q)
{
	uint64_t left = (uint64_t)((double)times->n * q);
	unsigned i;

	for (i = 0; i < STORM_STEPS; i++) {
		if (times->step[i] > left)
			return end_of_step(i);
		left -= times->step[i];
	}
	return times->max_ns;
}

static void print_call(const char *name, enum storm_call call)
{
	struct storm_times all = {0};
	unsigned seat, i;

	for (seat = 0; seat < STORM_SEATS; seat++) {
		const struct storm_times *times = &storm_board->books[seat].times[call];

		all.n += times->n;
		all.max_ns = times->max_ns > all.max_ns ? times->max_ns : all.max_ns;
		for (i = 0; i < STORM_STEPS; i++)
			all.step[i] += times->step[i];
	}
	printf("    %-12s %10llu %12.1f %12.1f %12.1f\n", name, (unsigned long long)all.n,
	       (double)quantile(&all, 0.5) / 1000, (double)quantile(&all, 0.99) / 1000,
	       (double)all.max_ns / 1000);
}

void storm_print_times(void)
{
	static const char *const names[STORM_CALLS] = {
		"malloc", "realloc", "free",     "free others'", "large",
		"swap",   "publish", "root set", "attach",       "detach",
	};
	unsigned i;

	printf("    %-12s %10s %12s %12s %12s\n", "call", "n", "p50 us", "p99 us", "max us");
	for (i = 0; i < STORM_CALLS; i++)
		print_call(names[i], i);
}
