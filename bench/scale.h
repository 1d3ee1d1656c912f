/* scale.h - the parts of tg-scale: each prints a table and adds the same to the JSON result.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "bench/bench.h"

struct scale {
	bool quick, as_json;
	unsigned rounds;
	json_t *result;
};

#define SCALE_ROUNDS_MAX 99
#define SCALE_LOOK_US    25 /* how long libtg looks for an answer before it sleeps (client/wire.c) */

/* Page heaps of different size, on their own (scale-pages.c). */
void scale_pages(struct scale *scale);
/* A daemon with many clients (scale-clients.c). */
void scale_clients(struct scale *scale);
/* Requests for spans without pause (scale-requests.c). */
void scale_requests(struct scale *scale);

/* A line of a table; nothing if JSON is wanted. */
void scale_say(const struct scale *scale, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* A new list of that name in the result. */
json_t *scale_table(struct scale *scale, const char *name);
void scale_add(json_t *table, json_t *row);

/* Sorts them. */
double scale_median(double *values, unsigned n);
/* Of a process, in /proc/PID/status: bytes; 0 if there is none. */
uint64_t scale_memory_of(pid_t pid, const char *field);
/* Processor time that it has used so far. */
double scale_cpu_s(pid_t pid);
