/* cachekeys.c - which keys are asked for: all alike, or few of them often (Zipf).
 *
 * Zipf's draws are those of Gray et al., "Quickly generating billion-record synthetic databases", which YCSB uses, too:
 * the k-th most popular of n keys is asked for in proportion to 1 / k^theta.
 */
#include <math.h>

#include "bench/cacheload.h"

uint64_t load_random(uint64_t *state)
{
	uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static double random_part(uint64_t *state)
{
	return (double)(load_random(state) >> 11) / 9007199254740992.0;
}

static double zeta(unsigned n, double theta)
{
	double sum = 0;
	unsigned i;

	for (i = 1; i <= n; i++)
		sum += 1 / pow(i, theta);
	return sum;
}

/* Popular keys must not be neighbours, so ranks are shuffled: any number without a factor of n's does. */
static uint32_t key_of_rank(uint64_t rank, unsigned n_keys)
{
	return (uint32_t)(rank * UINT64_C(2654435761) % n_keys);
}

void load_draw_keys(uint32_t draws[LOAD_DRAWS], unsigned n_keys, double theta)
{
	double zeta_n = theta > 0 ? zeta(n_keys, theta) : 0, alpha = 1 / (1 - theta), eta;
	uint64_t state = 1;
	unsigned i;

	eta = (1 - pow(2.0 / n_keys, 1 - theta)) / (1 - zeta(2, theta) / zeta_n);
	for (i = 0; i < LOAD_DRAWS; i++) {
		double u = random_part(&state), uz = u * zeta_n;
		uint64_t rank;

		if (theta <= 0)
			rank = (uint64_t)(u * n_keys);
		else if (uz < 1)
			rank = 0;
		else if (uz < 1 + pow(0.5, theta))
			rank = 1;
		else
			rank = (uint64_t)(n_keys * pow(eta * u - eta + 1, alpha));
		draws[i] = key_of_rank(rank < n_keys ? rank : n_keys - 1, n_keys);
	}
}
