/* bench.h - the processes of a measurement: a daemon with a heap of a given size, and clients that hold so much. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/support/child.h"
#include "tests/support/daemon.h"

struct bench {
	struct tgt_daemon daemon;
	bool attached; /* this process, to see the map */
};

/* What a client holds before it is killed. */
struct bench_holder {
	uint64_t n_objects;
	uint32_t size; /* of each */
	bool reclaim;
	pid_t pid;
	struct tgt_meeting meeting;
};

struct bench_recovery {
	double exit_ms;    /* from the kill until the kernel says that the process has ended */
	double settled_ms; /* from the kill until the daemon has settled it */
};

#define BENCH_CALLS_MAX (1u << 18)

/* How long calls took. */
struct bench_stall {
	uint64_t n;
	double p50_us, p99_us, p999_us, max_us;
};

/* Every function ends the program with a message if something cannot be done: a measurement goes on from nothing. */
void bench_die(const char *what) __attribute__((noreturn));

double bench_now_ms(void);

void bench_start(struct bench *b, uint64_t reserve_gib);
void bench_stop(struct bench *b);

/* Starts the client and waits until it has allocated.  Before bench_watch. */
void bench_hold(struct bench_holder *holder);
/* Lets it end by itself. */
void bench_release(struct bench_holder *holder);

/* Attaches this process, for bench_recover. */
void bench_watch(struct bench *b);

/* Kills the client and waits until it is settled.  What is watched is the daemon's client table in the map, which costs
 * the daemon nothing: it is looked at every 20 microseconds. */
struct bench_recovery bench_recover(struct bench_holder *holder);

/* Kills the process that serves and waits until the next one answers: milliseconds.  Negative: there is no keeper. */
double bench_restart(const struct bench *b);

/* What a survivor does again and again while a client is recovered. */
enum bench_work {
	BENCH_MALLOC,   /* tg_malloc of objects that need a span each */
	BENCH_REQUESTS, /* asks the daemon for eight spans, and gives them back */
};

void bench_survive(struct bench *b, struct bench_holder *holder, enum bench_work work,
		   struct bench_stall *ret_before, struct bench_stall *ret_during);
