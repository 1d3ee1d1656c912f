/* daemons.c - the daemon is killed at its points: while it serves, while it recovers a client, while it takes over from one
 * that was killed before.
 *
 * Which points there are is found by a run in which they are only counted; those of later runs are nearly the same, and a
 * run in which the chosen one does not come is simply a run without a kill.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/control.h"
#include "tests/crash/ledger.h"
#include "tests/crash/oracle.h"
#include "tests/crash/run.h"
#include "tests/support/child.h"
#include "tests/support/message.h"

#define FAILURES_MAX 3u

/* Numbers of points, from 1 on, at which to kill. */
static uint64_t chosen[TGT_TRACE_MAX];
static uint64_t n_chosen;

/* Was anybody killed at the place, in whichever copy? */
static bool is_new(uint32_t index)
{
	const struct tgt_site_info *site = tgt_control->site[TGT_DAEMON];
	uint32_t n = atomic_load(&tgt_control->n_sites[TGT_DAEMON]), i;

	for (i = 0; i < n; i++) {
		if (site[i].line == site[index].line &&
		    strcmp(site[i].file, site[index].file) == 0 && atomic_load(&site[i].fired) != 0)
			return false;
	}
	return true;
}

static bool is_wanted(uint64_t times, bool last, uint32_t site, unsigned per_site)
{
	if (per_site == TGT_NEW)
		return times == 1 && is_new(site);
	return per_site == 0 || times <= per_site || last;
}

/* Of the points passed after the first `skip` ones. */
static void choose(uint64_t skip, unsigned per_site)
{
	static uint64_t times[TGT_SITES_MAX], last[TGT_SITES_MAX];
	const uint16_t *trace = tgt_control->trace[TGT_DAEMON];
	uint64_t n = atomic_load(&tgt_control->aim[TGT_DAEMON].n_passed), i;

	if (n > TGT_TRACE_MAX)
		n = TGT_TRACE_MAX;
	memset(times, 0, sizeof(times));
	for (i = skip; i < n; i++)
		last[trace[i]] = i;
	n_chosen = 0;
	for (i = skip; i < n; i++) {
		times[trace[i]]++;
		if (is_wanted(times[trace[i]], last[trace[i]] == i, trace[i], per_site))
			chosen[n_chosen++] = i - skip + 1;
	}
}

bool tgt_daemons_are_well(void)
{
	static const char *const bad[] = {"signal 6", "signal 11", "signal 7", "ended with status",
					  "core dumped"};
	const char *log = tgt_world_log();
	unsigned i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (strstr(log, bad[i]) != NULL) {
			tgt_wrong("a daemon died by itself:\n%.4000s", strstr(log, bad[i]));
			return false;
		}
	}
	return true;
}

/* One run; the child is not cut. */
static enum tgt_outcome run(const struct tgt_script *script, bool reclaim, uint64_t k,
			    uint64_t next)
{
	enum tgt_outcome outcome;

	tgt_run_prepare(script, reclaim, 0, SIGKILL);
	tgt_ledger->daemon_k = k;
	tgt_ledger->daemon_next = next;
	outcome = tgt_run_prepared(script);
	tgt_disarm(TGT_DAEMON);
	tgt_n_kills += atomic_load(&tgt_control->aim[TGT_DAEMON].n_fired);
	return outcome == TGT_ENDED ? outcome : TGT_FAILED;
}

static unsigned failed(const struct tgt_script *script, bool reclaim, const char *what, uint64_t k)
{
	char how[96];

	snprintf(how, sizeof(how), "policy %s, %s", reclaim ? "reclaim" : "keep", what);
	tgt_run_failed(script, how, k);
	return 1;
}

unsigned tgt_run_daemon(const struct tgt_script *script, bool reclaim, unsigned per_site,
			uint64_t point)
{
	unsigned n = 0;
	uint64_t i;

	if (run(script, reclaim, 0, TGT_NO_POINT) == TGT_FAILED)
		return failed(script, reclaim, "daemon not killed", 0);
	choose(0, per_site);
	if (point != 0) {
		chosen[0] = point;
		n_chosen = 1;
	}
	for (i = 0; i < n_chosen && n < FAILURES_MAX; i++) {
		if (run(script, reclaim, chosen[i], TGT_NO_POINT) == TGT_FAILED)
			n += failed(script, reclaim, "daemon", chosen[i]);
	}
	return n;
}

/* The next daemon, after one that was killed at point k. */
static unsigned run_next(const struct tgt_script *script, bool reclaim, uint64_t k,
			 unsigned per_site)
{
	unsigned n = 0;
	uint64_t i;

	if (run(script, reclaim, k, 0) == TGT_FAILED)
		return failed(script, reclaim, "daemon", k);
	choose(k, per_site);
	for (i = 0; i < n_chosen && n < FAILURES_MAX; i++) {
		if (run(script, reclaim, k, chosen[i]) == TGT_FAILED)
			n += failed(script, reclaim, "the next daemon", chosen[i]);
	}
	return n;
}

unsigned tgt_run_daemon_twice(const struct tgt_script *script, bool reclaim, unsigned per_site,
			      unsigned per_site_next)
{
	static uint64_t first[TGT_TRACE_MAX];
	uint64_t n_first, i;
	unsigned n = 0;

	if (run(script, reclaim, 0, TGT_NO_POINT) == TGT_FAILED)
		return failed(script, reclaim, "daemon not killed", 0);
	choose(0, per_site);
	n_first = n_chosen;
	memcpy(first, chosen, sizeof(first));
	for (i = 0; i < n_first && n < FAILURES_MAX; i++)
		n += run_next(script, reclaim, first[i], per_site_next);
	return n;
}

/* ---- the recoverer ---- */

/* The child is stopped, aim is taken at the daemon, and the child killed. */
static enum tgt_outcome run_recovery(const struct tgt_script *script, bool reclaim, uint64_t i,
				     uint64_t k)
{
	enum tgt_outcome outcome;
	int pid;

	tgt_run_prepare(script, reclaim, i, SIGSTOP);
	outcome = tgt_run_judge(tgt_run_child(script, &pid));
	tgt_ledger->daemon_k = k;
	tgt_arm_daemon();
	if (outcome == TGT_CUT) {
		kill(pid, SIGKILL);
		(void)tgt_child_wait(pid);
		tgt_n_kills++;
	}
	if (outcome != TGT_FAILED && !tgt_oracle())
		outcome = TGT_FAILED;
	tgt_disarm(TGT_DAEMON);
	tgt_n_kills += atomic_load(&tgt_control->aim[TGT_DAEMON].n_fired);
	return outcome;
}

unsigned tgt_run_recovery(const struct tgt_script *script, bool reclaim, unsigned step,
			  unsigned per_site)
{
	enum tgt_outcome outcome = TGT_CUT;
	uint64_t i, j;
	unsigned n = 0;
	char what[64];

	for (i = 1; outcome == TGT_CUT && n < FAILURES_MAX; i += step) {
		snprintf(what, sizeof(what), "client at point %llu, its recoverer",
			 (unsigned long long)i);
		outcome = run_recovery(script, reclaim, i, 0);
		if (outcome == TGT_FAILED)
			return n + failed(script, reclaim, what, 0);
		choose(0, per_site);
		for (j = 0; j < n_chosen && n < FAILURES_MAX; j++) {
			if (run_recovery(script, reclaim, i, chosen[j]) == TGT_FAILED)
				n += failed(script, reclaim, what, chosen[j]);
		}
	}
	return n;
}

/* The points of a run with two children. */
struct beside {
	const struct tgt_script *first, *second;
	uint64_t i, j;
	enum tgt_outcome one, two;
};

static void end_child(int pid)
{
	kill(pid, SIGKILL);
	(void)tgt_child_wait(pid);
	tgt_n_kills++;
}

/* The first child stays stopped until the second one is recovered. */
static bool run_beside(struct beside *b, uint64_t k)
{
	bool well = true;
	int one, two;

	tgt_run_prepare(b->first, false, b->i, SIGSTOP);
	b->one = tgt_run_judge(tgt_run_child(b->first, &one));
	b->two = TGT_ENDED;
	if (b->one == TGT_CUT) {
		tgt_hand_is_cut();
		tgt_run_second(b->second, b->j, SIGSTOP);
		b->two = tgt_run_judge(tgt_run_child(b->second, &two));
		tgt_hand_is_cut();
		tgt_ledger->daemon_k = k;
		tgt_arm_daemon();
		if (b->two == TGT_CUT)
			end_child(two);
		well = tgt_wait_clients(2);
		end_child(one);
	}
	well = well && b->one != TGT_FAILED && b->two != TGT_FAILED && tgt_oracle();
	tgt_disarm(TGT_DAEMON);
	tgt_n_kills += atomic_load(&tgt_control->aim[TGT_DAEMON].n_fired);
	return well;
}

static unsigned run_all_beside(struct beside *b, unsigned per_site)
{
	unsigned n = 0;
	uint64_t i;

	if (!run_beside(b, 0))
		return failed(b->second, false, "beside one that is stopped", 0);
	choose(0, per_site);
	for (i = 0; i < n_chosen && n < FAILURES_MAX; i++) {
		if (!run_beside(b, chosen[i]))
			n += failed(b->second, false, "beside one that is stopped", chosen[i]);
	}
	return n;
}

unsigned tgt_run_recovery_beside(const struct tgt_script *first, const struct tgt_script *second,
				 unsigned per_site)
{
	struct beside b = {.first = first, .second = second, .i = 1, .one = TGT_CUT};
	unsigned n = 0;

	for (; b.one == TGT_CUT && n < FAILURES_MAX; b.i++) {
		b.two = TGT_CUT;
		for (b.j = 1; b.one == TGT_CUT && b.two == TGT_CUT && n < FAILURES_MAX; b.j++)
			n += run_all_beside(&b, per_site);
	}
	return n;
}

/* ---- both ---- */

unsigned tgt_run_both_at_random(const struct tgt_script *script, bool reclaim, uint64_t *random)
{
	uint64_t n_daemon, n_client, i, k;
	enum tgt_outcome outcome;
	char what[64];

	if (run(script, reclaim, 0, TGT_NO_POINT) == TGT_FAILED)
		return failed(script, reclaim, "nobody killed", 0);
	n_daemon = atomic_load(&tgt_control->aim[TGT_DAEMON].n_passed);
	n_client = atomic_load(&tgt_control->aim[TGT_CLIENT].n_passed);
	if (n_client == 0)
		return 0;
	i = tgt_random(random) % n_client + 1;
	k = tgt_random(random) % n_daemon + 1;
	tgt_run_prepare(script, reclaim, i, SIGKILL);
	tgt_ledger->daemon_k = k;
	outcome = tgt_run_prepared(script);
	tgt_disarm(TGT_DAEMON);
	tgt_n_kills += atomic_load(&tgt_control->aim[TGT_DAEMON].n_fired);
	if (outcome != TGT_FAILED)
		return 0;
	snprintf(what, sizeof(what), "client at point %llu, and daemon", (unsigned long long)i);
	return failed(script, reclaim, what, k);
}
