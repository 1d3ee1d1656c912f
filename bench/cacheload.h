/* cacheload.h - what is asked of a cache server (cacheload.c) and the connections that ask it (cacheconn.c).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/histogram.h"

#define LOAD_KEY_LEN      15
#define LOAD_SIZE_MAX     (64 * 1024)
#define LOAD_PIPELINE_MAX 256
#define LOAD_CONNS_MAX    1000

struct load_options {
	const char *address, *port;
	unsigned n_conns, pipeline;
	unsigned n_keys;
	double zipf;   /* 0: all keys alike */
	unsigned gets; /* of 100 requests */
	unsigned min_size, max_size;
	double warmup_s, seconds;
	bool fill; /* sets each key once, and is then done */
};

struct load_result {
	uint64_t n_gets, n_sets, n_hits; /* since the end of the warm-up; a fill has none */
	double seconds;                  /* the same */
	struct bench_histogram latency;
};

/* Ends the program with a message. */
void load_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

uint64_t load_now_ns(void);

/* Called at the end of the warm-up, and when all is done. */
typedef void load_mark_fn(bool done);

/* Connects, and asks without pause for as long as it was told.  What the server answers is checked: each value must be
 * the one that belongs to the key. */
void load_run(const struct load_options *options, load_mark_fn *mark, struct load_result *ret);

/* The order in which keys are asked for: a long sequence made before, so that it costs nothing then (cachekeys.c). */
#define LOAD_DRAWS (1u << 20)
void load_draw_keys(uint32_t draws[LOAD_DRAWS], unsigned n_keys, double zipf);
uint64_t load_random(uint64_t *state);
