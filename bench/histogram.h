/* histogram.h - how long many calls took, in little memory: counts by time, each within 1.6 %.
 *
 * The bins of a power of two are 64 of equal width (below 64 ns: one a nanosecond).
 */
#pragma once

#include <stdint.h>

#define BENCH_BINS_LOG 6
#define BENCH_BINS     ((64 - BENCH_BINS_LOG + 1) << BENCH_BINS_LOG)

struct bench_histogram {
	uint64_t n, max_ns;
	uint64_t bins[BENCH_BINS];
};

/* All zero is empty. */
static inline void bench_histogram_add(struct bench_histogram *h, uint64_t ns)
{
	unsigned shift = 0;

	if (ns >= 1u << BENCH_BINS_LOG)
		shift = 63 - BENCH_BINS_LOG - (unsigned)__builtin_clzll(ns);
	h->bins[((uint64_t)shift << BENCH_BINS_LOG) + (ns >> shift)]++;
	h->n++;
	if (ns > h->max_ns)
		h->max_ns = ns;
}

/* The time in microseconds that the given part (0.5: half) of all did not exceed; 0 if there are none. */
static inline double bench_histogram_us(const struct bench_histogram *h, double part)
{
	uint64_t wanted = (uint64_t)((double)h->n * part), seen = 0, shift;
	unsigned i;

	for (i = 0; i < BENCH_BINS; i++) {
		seen += h->bins[i];
		if (seen > wanted)
			break;
	}
	if (i == BENCH_BINS)
		return (double)h->max_ns / 1e3;
	shift = i >> BENCH_BINS_LOG;
	if (shift > 0)
		shift--;
	return (double)((i - (shift << BENCH_BINS_LOG)) << shift) / 1e3;
}
