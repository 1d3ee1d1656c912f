/* worker.h - what the workloads have in common: their arguments, the clock, what is counted, and random numbers.
 *
 * A worker is one process that runs one workload on one allocator, and prints its figures as lines "key value".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The workloads; a family a file. */
void tgb_work_pair(void);
void tgb_work_calloc(void);
void tgb_work_churn(void);
void tgb_work_phases(void);
void tgb_work_larson(void);
void tgb_work_prodcons(void);
void tgb_work_twoproc(void);
void tgb_work_reuse(void);
void tgb_work_fresh(void);
void tgb_work_growth(void);
void tgb_work_realloc(void);
void tgb_work_tinymix(void);
void tgb_work_start(void);

/* An argument "name=value". */
double tgb_arg(const char *name, double fallback);
const char *tgb_arg_text(const char *name, const char *fallback);
/* How long the timed part is to take. */
double tgb_seconds(void);

void tgb_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void tgb_report(const char *key, double value);
double tgb_now_ns(void);
void tgb_pin(int cpu);

/* Memory for tables of the workload itself, which no allocator gives; all of its pages are there. */
void *tgb_table(size_t bytes);

/* Forks; the child runs it and ends.  Waits for it, and dies if it did not end well. */
int tgb_fork(void (*run)(void *arg), void *arg);
void tgb_wait(int pid);

/* What was used between two points; the figures of several processes can be added. */
struct tgb_use {
	double wall_ns, cpu_ns, daemon_ns, messages;
	double kept_ns; /* it could have run, but other programs did */
};
void tgb_use_begin(struct tgb_use *use);
void tgb_use_end(struct tgb_use *use);
/* Wall time for each operation, messages, and processor time of the daemon. */
void tgb_use_report(const struct tgb_use *use, double n_ops);

/* Does it again and again for so long: how often.  A step should take much longer than looking at the clock. */
double tgb_repeat(double seconds, void (*step)(void *arg), void *arg);
/* The same, timed and reported, after a quarter of the time unmeasured. */
void tgb_measure(void (*step)(void *arg), void *arg, double ops_per_step);

/* Bytes that the heap takes now: see docs/benchmarks.md. */
double tgb_memory(void);

static inline uint64_t tgb_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

/* Between two looks at what another one writes. */
static inline void tgb_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* 0 .. n - 1 */
static inline uint32_t tgb_below(uint64_t *state, uint32_t n)
{
	return (uint32_t)(((tgb_random(state) >> 32) * n) >> 32);
}

/* Sizes of a distribution, repeated after so many: "exp" 16 + exponential(120), at most 1 KiB; "log" log-uniform from
 * lo to hi; "even" uniform from lo to hi. */
#define TGB_SIZES (1u << 16)
const uint32_t *tgb_sizes(const char *distribution, double lo, double hi);

/* One word of the object, or one byte where there is no word. */
static inline __attribute__((always_inline)) void tgb_write(void *object, bool words, unsigned i)
{
	if (words)
		*(volatile uint64_t *)object = i;
	else
		*(volatile uint8_t *)object = (uint8_t)i;
}

/* A byte in every page of the object. */
static inline void tgb_touch(void *object, size_t size)
{
	size_t i;

	for (i = 0; i < size; i += 4096)
		((volatile uint8_t *)object)[i] = 1;
	((volatile uint8_t *)object)[size - 1] = 1;
}
