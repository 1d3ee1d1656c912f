/* scale-pages.c - page heaps from 1 GiB to 16 TiB: what it costs to find a run of free pages, and to free one.
 *
 * The daemon's page heap alone, no memory behind it.  Spans of 1 to 16 pages are freed at random places and as many are
 * looked for, in turns of a thousand, so that the clock costs nothing.  Two heaps:
 *
 *	packed      20,000 spans at the low end, all above is free: a heap far larger than what is in it
 *	scattered   every page but the last 16th is taken, the spans lie all over the heap, and so do the holes that they
 *	            leave: the longest search there is
 *
 * Each is made in a process of its own, whose growth is the memory of the tables.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/scale.h"
#include "daemon/pages.h"
#include "shm/base.h"

#define PAGE      8192
#define SPANS_MAX 20000 /* fewer in a heap of which they would be too large a part */
#define SPAN_MAX  16
#define TURN      1000
#define AT_ONCE   (UINT64_C(1) << 20) /* pages taken by one call while the heap is filled */

struct run {
	uint64_t first, n;
};

/* Shared with the child that measures. */
struct figures {
	bool scattered;
	uint64_t n_pages;
	unsigned n_turns;
	double new_us, find_ns, free_ns;
	uint64_t new_bytes, bytes;
};

static struct tgd_pages *heap;
static struct run *spans;
static unsigned n_spans;
static uint64_t seed;

static uint64_t below(uint64_t n)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (seed >> 33) % n;
}

static struct run find(uint64_t n)
{
	struct run run = {.n = n};
	uint64_t scavenged;

	if (tgd_pages_alloc(heap, n, 1, &run.first, &scavenged) < 0)
		bench_die("no run of free pages was found");
	return run;
}

static void fill_packed(void)
{
	unsigned i;

	for (i = 0; i < n_spans; i++)
		spans[i] = find(1 + below(SPAN_MAX));
}

/* Some of what is taken is then known as spans. */
static void fill_scattered(uint64_t n_pages)
{
	uint64_t at, scavenged, stride;
	unsigned i;

	n_pages -= n_pages / 16;
	stride = n_pages / n_spans;
	for (at = 0; at < n_pages; at += AT_ONCE) {
		if (tgd_pages_alloc_at(heap, at, tgs_min(AT_ONCE, n_pages - at), &scavenged) < 0)
			bench_die("the page heap cannot be filled");
	}
	for (i = 0; i < n_spans; i++)
		spans[i] = (struct run){i * stride, 1 + below(tgs_min(SPAN_MAX, stride))};
}

/* Moves a thousand to the end of the list, at random. */
static void choose(void)
{
	unsigned i;

	for (i = 0; i < TURN; i++) {
		uint64_t at = below(n_spans - i), last = n_spans - 1 - i;
		struct run other = spans[at];

		spans[at] = spans[last];
		spans[last] = other;
	}
}

static void one_turn(double *ret_find_ns, double *ret_free_ns)
{
	struct run *chosen = spans + n_spans - TURN;
	double begin;
	unsigned i;

	choose();
	begin = bench_now_ms();
	for (i = 0; i < TURN; i++)
		tgd_pages_release(heap, chosen[i].first, chosen[i].n, false);
	*ret_free_ns = (bench_now_ms() - begin) * 1e6 / TURN;
	begin = bench_now_ms();
	for (i = 0; i < TURN; i++)
		chosen[i] = find(chosen[i].n);
	*ret_find_ns = (bench_now_ms() - begin) * 1e6 / TURN;
}

static void measure(void *arg)
{
	struct figures *f = arg;
	double *finds = calloc(f->n_turns, sizeof(*finds)),
	       *frees = calloc(f->n_turns, sizeof(*frees));
	uint64_t before;
	double begin;
	unsigned i;

	n_spans = (unsigned)tgs_min(SPANS_MAX, f->n_pages / (2 * SPAN_MAX));
	spans = calloc(n_spans, sizeof(*spans));
	if (finds == NULL || frees == NULL || spans == NULL)
		bench_die("out of memory");
	before = scale_memory_of(getpid(), "RssAnon");
	begin = bench_now_ms();
	if (tgd_pages_new(&heap, f->n_pages) < 0)
		bench_die("out of memory");
	f->new_us = (bench_now_ms() - begin) * 1e3;
	f->new_bytes = scale_memory_of(getpid(), "RssAnon") - before;
	if (f->scattered)
		fill_scattered(f->n_pages);
	else
		fill_packed();
	for (i = 0; i < f->n_turns; i++)
		one_turn(&finds[i], &frees[i]);
	f->bytes = scale_memory_of(getpid(), "RssAnon") - before;
	f->find_ns = scale_median(finds, f->n_turns);
	f->free_ns = scale_median(frees, f->n_turns);
	heap = tgd_pages_free(heap);
	free(spans);
	free(finds);
	free(frees);
}

static void one_size(struct scale *scale, json_t *rows, uint64_t gib, bool scattered)
{
	struct figures *f =
		mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double finds[SCALE_ROUNDS_MAX], frees[SCALE_ROUNDS_MAX], find_ns, free_ns;
	unsigned i;

	if (f == MAP_FAILED)
		bench_die("out of memory");
	*f = (struct figures){.scattered = scattered,
			      .n_pages = (gib << 30) / PAGE,
			      .n_turns = scale->quick ? 20 : 200};
	for (i = 0; i < scale->rounds; i++) {
		seed = i;
		if (tgt_in_child(measure, f) != 0)
			bench_die("the page heap could not be measured");
		finds[i] = f->find_ns;
		frees[i] = f->free_ns;
	}
	find_ns = scale_median(finds, scale->rounds);
	free_ns = scale_median(frees, scale->rounds);
	scale_say(scale, "%10llu  %-10s %10.0f %10.0f %10.1f %12.1f %12.1f\n",
		  (unsigned long long)gib, scattered ? "scattered" : "packed", find_ns, free_ns,
		  f->new_us, (double)f->new_bytes / 1024, (double)f->bytes / 1024);
	scale_add(rows, json_pack("{s:I, s:s, s:f, s:f, s:f, s:I, s:I}", "gib", (json_int_t)gib,
				  "heap", scattered ? "scattered" : "packed", "find_ns", find_ns,
				  "free_ns", free_ns, "new_us", f->new_us, "new_bytes",
				  (json_int_t)f->new_bytes, "bytes", (json_int_t)f->bytes));
	munmap(f, sizeof(*f));
}

void scale_pages(struct scale *scale)
{
	static const uint64_t sizes[] = {1, 4, 16, 64, 256, 1024, 4096, 16384};
	json_t *rows = scale_table(scale, "page_heap");
	unsigned i, scattered;

	scale_say(scale,
		  "\nPage heaps on their own: to find a run of 1 to 16 pages, and to free one\n"
		  "%10s  %-10s %10s %10s %10s %12s %12s\n",
		  "GiB", "heap", "find ns", "free ns", "new us", "new KiB", "used KiB");
	for (scattered = 0; scattered < 2; scattered++) {
		for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			one_size(scale, rows, sizes[i], scattered);
	}
}
