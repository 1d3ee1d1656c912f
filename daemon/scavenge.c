/* scavenge.c - see scavenge.h.
 *
 * A run of pages is taken out of the page heap, punched, and put back as scavenged, so nobody can
 * be granted it in between; then the state blocks are looked at, when the page heap says again that
 * their pages are free.
 */
#include "daemon/scavenge.h"

#include <time.h>

#include "shm/base.h"

#define SLICE_PAGES   128u /* 1 MiB */
#define QUANTUM_PAGES 8u   /* 64 KiB: less is not worth a system call, unless it is all there is */
#define DECAY_MS      1000u
#define DECAY_PART    4u
#define REST_FACTOR   99u
#define REST_MAX_MS   1000u
#define MADE_PART     16u   /* of the pages in use, and ... */
#define MADE_MIN      32u   /* ... at least so many may lie idle while memory is made */
#define MADE_SLICE    32u   /* 256 KiB: requests wait for no more */
#define LONG_PAGES    128u  /* 1 MiB */
#define LONG_MAX      1024u /* 8 MiB at a time: with more the pace is for comfort, as ever */
#define LONG_MS       2u

void tgd_scavenge_init(struct tgd_scavenge *scavenge, struct tgd_pages *pages,
		       struct tgd_backing *backing)
{
	*scavenge = (struct tgd_scavenge){.pages = pages, .backing = backing};
}

void tgd_scavenge_note(struct tgd_scavenge *scavenge)
{
	scavenge->peak_pages = tgs_max(scavenge->peak_pages, tgd_pages_in_use(scavenge->pages));
}

uint64_t tgd_scavenge_excess(const struct tgd_scavenge *scavenge)
{
	uint64_t in_use = tgd_pages_in_use(scavenge->pages);
	uint64_t idle = tgd_pages_free_backed(scavenge->pages);
	uint64_t peak = tgs_max(scavenge->peak_pages, in_use);
	uint64_t goal = peak + peak / 10 + scavenge->spare_pages;

	return in_use + idle > goal ? tgs_min(in_use + idle - goal, idle) : 0;
}

static void decay(struct tgd_scavenge *scavenge, uint64_t now_ms)
{
	uint64_t in_use = tgd_pages_in_use(scavenge->pages);

	tgd_scavenge_note(scavenge);
	if (scavenge->decay_at_ms == 0)
		scavenge->decay_at_ms = now_ms + DECAY_MS;
	/* After a long sleep all the seconds missed count, but the peak is down after a few dozen
	 * of them. */
	while (now_ms >= scavenge->decay_at_ms) {
		uint64_t above = scavenge->peak_pages - in_use;

		if (above == 0) {
			scavenge->decay_at_ms = now_ms + DECAY_MS;
			break;
		}
		scavenge->peak_pages -= (above + DECAY_PART - 1) / DECAY_PART;
		scavenge->decay_at_ms += DECAY_MS;
	}
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t tgd_scavenge_force(struct tgd_scavenge *scavenge, uint64_t n_pages)
{
	uint64_t done = 0, first, n;

	while (done < n_pages) {
		n = tgd_pages_take_scavengable(scavenge->pages, n_pages - done, &first);
		if (n == 0)
			break;
		if (tgd_backing_punch(scavenge->backing, first, n) < 0) {
			tgd_pages_release(scavenge->pages, first, n, false);
			break;
		}
		tgd_pages_release(scavenge->pages, first, n, true);
		scavenge->state_bytes +=
			tgd_backing_punch_state(scavenge->backing, scavenge->pages, first, n);
		done += n;
	}
	return done;
}

void tgd_scavenge_made(struct tgd_scavenge *scavenge, uint64_t n_pages)
{
	scavenge->made_pages += n_pages;
}

void tgd_scavenge_long(struct tgd_scavenge *scavenge, uint64_t n_pages)
{
	if (n_pages < LONG_PAGES)
		return;
	scavenge->long_pages += n_pages;
	scavenge->long_at_ms = 0;
}

/* Have the long pieces lain idle long enough?  Since the last of them came.  Returns milliseconds until then; 0: there is
 * none any more. */
static uint64_t settle_long(struct tgd_scavenge *scavenge, uint64_t now_ms)
{
	if (scavenge->long_pages == 0)
		return 0;
	if (scavenge->long_at_ms == 0)
		scavenge->long_at_ms = now_ms + LONG_MS;
	if (now_ms < scavenge->long_at_ms)
		return scavenge->long_at_ms - now_ms;
	scavenge->made_pages += tgs_min(scavenge->long_pages, LONG_MAX);
	scavenge->long_pages = 0;
	return 0;
}

/* Memory was made although some lies idle, which did not fit.  True: a slice of it went back. */
static bool exchange(struct tgd_scavenge *scavenge)
{
	uint64_t idle = tgd_pages_free_backed(scavenge->pages), n;
	uint64_t keep = scavenge->spare_pages +
			tgs_max(tgd_pages_in_use(scavenge->pages) / MADE_PART, MADE_MIN);

	n = idle > keep ? tgs_min(scavenge->made_pages, idle - keep) : 0;
	n = tgd_scavenge_force(scavenge, tgs_min(n, MADE_SLICE));
	scavenge->made_pages = n != 0 ? scavenge->made_pages - n : 0;
	return n != 0;
}

/* A slice of what is above the goal. */
static int work_paced(struct tgd_scavenge *scavenge, uint64_t now_ms)
{
	uint64_t excess, begun, rest;

	if (tgd_pages_free_backed(scavenge->pages) == 0)
		return -1;
	excess = tgd_scavenge_excess(scavenge);
	/* A few pages over the goal wait until there are more, or until the peak has come all the
	 * way down. */
	if (excess < QUANTUM_PAGES && scavenge->peak_pages > tgd_pages_in_use(scavenge->pages))
		return (int)(scavenge->decay_at_ms - now_ms);
	if (excess == 0)
		return -1;
	if (now_ms < scavenge->rest_until_ms)
		return (int)(scavenge->rest_until_ms - now_ms);

	begun = now_us();
	if (tgd_scavenge_force(scavenge, tgs_min(excess, SLICE_PAGES)) == 0) {
		/* The kernel refused; it may do better later. */
		scavenge->rest_until_ms = now_ms + REST_MAX_MS;
		return REST_MAX_MS;
	}
	rest = (now_us() - begun) * REST_FACTOR / 1000;
	rest = tgs_min(tgs_max(rest, 1), REST_MAX_MS);
	scavenge->rest_until_ms = now_ms + rest;
	return (int)rest;
}

int tgd_scavenge_work(struct tgd_scavenge *scavenge, uint64_t now_ms)
{
	uint64_t long_ms;
	int paced_ms;

	decay(scavenge, now_ms);
	long_ms = settle_long(scavenge, now_ms);
	if (exchange(scavenge))
		return 0;
	paced_ms = work_paced(scavenge, now_ms);
	return long_ms != 0 && (paced_ms < 0 || (uint64_t)paced_ms > long_ms) ? (int)long_ms
									      : paced_ms;
}
