/* test_crash_keeper.c - the keeper is killed at each of its points, and the worker where it has to do with its keeper: one of
 * the two makes the other anew, and the heap is whole; unless there was only one, and then the next tgd starts.
 *
 *	tests/crash/test_crash_keeper                      all
 *	tests/crash/test_crash_keeper SCENE [POINT]        one of those that --list names, all points or one
 *
 * TG_CRASH_ALL=1: also of the worker every point, and not only the first at each place.
 *
 * A scene is one thing that happens to a heap with a client: first its points are only counted, then each time one process is
 * killed at one of them.
 */
#include <CUnit/CUnit.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/crash/control.h"
#include "tests/crash/cover.h"
#include "tests/crash/keepers.h"
#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/runner.h"

#define FIRES_MS     500 /* a chosen point that has not come by then will not come in this run */
#define QUIET_MS     200 /* no more points come after so long without one */
#define FAILURES_MAX 3u

struct scene {
	const char *name;
	enum tgt_role role;                      /* who is killed */
	void (*act)(const struct tgt_keepers *); /* NULL: the start itself */
	/* May the heap be gone after that?  Asked when it is.  NULL: no. */
	bool (*may_end)(const struct scene *);
	bool stops; /* the process is only stopped at its point; its keeper is killed, and it goes on */
};

static const char *only_scene;
static unsigned long only_point;

/* ---- one run ---- */

/* Before the point of which the process died, so many were of that kind. */
static unsigned came_before(enum tgt_role role, const char *file, const char *what)
{
	const struct tgt_aim *aim = &tgt_control->aim[role];
	uint64_t passed = atomic_load(&aim->n_passed), i;
	unsigned n = 0;

	for (i = 0; i + 1 < passed && i < TGT_TRACE_MAX; i++) {
		const struct tgt_site_info *site =
			&tgt_control->site[role][tgt_control->trace[role][i]];

		n += strcmp(site->file, file) == 0 && strcmp(site->what, what) == 0;
	}
	return n;
}

/* Until its own points stop it. */
static void await_fire(enum tgt_role role)
{
	long long deadline = tgt_now_ms() + FIRES_MS;

	while (tgt_fired(role) == NULL && tgt_now_ms() < deadline && !tgt_keepers_have_ended())
		(void)poll(NULL, 0, 1);
}

static void await_quiet(enum tgt_role role)
{
	const struct tgt_aim *aim = &tgt_control->aim[role];
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS;
	uint64_t n;

	do {
		n = atomic_load(&aim->n_passed);
		(void)poll(NULL, 0, QUIET_MS);
	} while ((n == 0 || atomic_load(&aim->n_passed) != n) && tgt_now_ms() < deadline);
}

/* Done by a child: it may wait for an answer of somebody who is stopped. */
struct action {
	const struct scene *scene;
	struct tgt_keepers on;
};

/* Whatever files were left behind, they are in nobody's way. */
static bool starts_again(void)
{
	struct tgt_keepers d;

	tgt_keepers_spawn();
	return tgt_keepers_settle(&d, 0) == TGT_SERVED;
}

/* A worker that was retiring when its keeper was killed is followed by one of the same program, who says so. */
static bool says_what_became(const struct action *action, const struct tgt_keepers *d)
{
	const struct scene *scene = action->scene;
	pid_t pid = (pid_t)atomic_load(&tgt_control->aim[scene->role].fired_pid);

	return !scene->stops || tgt_fired(scene->role) == NULL || pid != action->on.worker ||
	       !tgt_keepers_said("retiring: ") || tgt_keepers_said("upgraded: ") ||
	       d->upgrade_failed;
}

static bool judge(const struct action *action)
{
	const struct scene *scene = action->scene;
	struct tgt_keepers d;
	enum tgt_fate fate = tgt_keepers_settle(&d, 0);
	bool cut = tgt_fired(scene->role) != NULL;
	bool well = false;

	if (fate == TGT_SERVED) {
		well = tgt_keepers_go_on(&d) && says_what_became(action, &d);
		/* It was about to end, and had not heard of it yet. */
		if (!well && scene->may_end != NULL)
			fate = tgt_keepers_settle(&d, 0);
	}
	if (fate == TGT_ALL_ENDED)
		well = scene->may_end != NULL && scene->may_end(scene) &&
		       tgt_keepers_objects_are_whole() && (cut || scene->act != NULL);
	if (!well)
		printf("\n  %s", fate == TGT_SERVED      ? "it does not go on"
				 : fate == TGT_ALL_ENDED ? "nothing is left"
							 : "nobody serves");
	/* The client hears from the next daemon that the heap is gone; from none it would wait. */
	if (fate == TGT_ALL_ENDED)
		well = starts_again() && well;
	tgt_keepers_leave();
	return well;
}

static void failed(const struct scene *scene, uint64_t k)
{
	const struct tgt_site_info *site = tgt_fired(scene->role);

	printf("\n  in scene \"%s\", point %llu", scene->name, (unsigned long long)k);
	if (site != NULL)
		printf(" (%s:%u, %s)", site->file, site->line, site->what);
	printf(":\n");
	tgt_keepers_show_log();
}

/* One process is at its point.  Who was killed has ended after this, if he is a child of ours, as keepers are. */
static void see_it_die(const struct scene *scene)
{
	pid_t pid = (pid_t)atomic_load(&tgt_control->aim[scene->role].fired_pid);

	if (scene->stops)
		kill(tgt_keepers_group, SIGKILL);
	(void)waitpid(scene->stops ? tgt_keepers_group : pid, NULL, 0);
	if (scene->stops && tgt_keepers_await_stop(pid))
		kill(pid, SIGCONT);
}

static void act(void *arg)
{
	const struct action *action = arg;

	action->scene->act(&action->on);
}

/* Kills at point k; 0: at none, and they are counted. */
static bool run(const struct scene *scene, uint64_t k)
{
	int signal = scene->stops ? SIGSTOP : SIGKILL;
	struct action action = {.scene = scene};
	pid_t actor = 0;
	bool well = true;

	if (scene->act == NULL)
		tgt_arm(scene->role, 0, k, signal);
	tgt_keepers_spawn();
	if (scene->act != NULL) {
		well = tgt_keepers_settle(&action.on, 0) == TGT_SERVED && tgt_keepers_enter();
		tgt_arm(scene->role, 0, k, signal);
		actor = well ? tgt_fork(act, &action) : 0;
	}
	if (k != 0)
		await_fire(scene->role);
	else if (scene->act != NULL || tgt_keepers_settle(&action.on, 0) == TGT_SERVED)
		await_quiet(scene->role);
	tgt_disarm(scene->role);
	if (tgt_fired(scene->role) != NULL)
		see_it_die(scene);
	well = (actor == 0 || tgt_wait(actor) >= 0) && well;
	well = judge(&action) && well;
	if (!well)
		failed(scene, k);
	tgt_keepers_kill();
	return well;
}

/* Of a worker that is killed, which has many points, the first at each place. */
static unsigned choose(const struct scene *scene, uint64_t *chosen)
{
	enum tgt_role role = scene->role;
	uint64_t n = atomic_load(&tgt_control->aim[role].n_passed), i;
	bool seen[TGT_SITES_MAX] = {false};
	bool all = role == TGT_KEEPER || scene->stops || getenv("TG_CRASH_ALL") != NULL;
	unsigned n_chosen = 0;

	for (i = 0; i < n && i < TGT_TRACE_MAX; i++) {
		if (all || !seen[tgt_control->trace[role][i]])
			chosen[n_chosen++] = i + 1;
		seen[tgt_control->trace[role][i]] = true;
	}
	return n_chosen;
}

/* ---- scenes ---- */

static bool always(const struct scene *scene)
{
	(void)scene;
	return true;
}

/* Before it has made the other one, it is alone. */
static bool if_worker_was_not_made(const struct scene *scene)
{
	return came_before(scene->role, "daemon/keeper.c", "fork") == 0;
}

static bool if_keeper_was_not_made(const struct scene *scene)
{
	return came_before(scene->role, "daemon/kept.c", "fork") == 0;
}

/* A worker that is asked to retire ends; then the keeper is alone. */
static bool if_worker_retired(const struct scene *scene)
{
	return came_before(scene->role, "proto/fdpass.c", "sendmsg") != 0 &&
	       if_worker_was_not_made(scene);
}

/* The first one that it made then was no worker. */
static bool if_no_tgd_was_made(const struct scene *scene)
{
	return came_before(scene->role, "proto/fdpass.c", "sendmsg") != 0 &&
	       came_before(scene->role, "daemon/keeper.c", "fork") < 2;
}

static void kill_worker(const struct tgt_keepers *d)
{
	kill(d->worker, SIGKILL);
}

static void kill_keeper(const struct tgt_keepers *d)
{
	kill(d->keeper, SIGKILL);
}

static void terminate(const struct tgt_keepers *d)
{
	kill(d->keeper, SIGTERM);
}

static void stop(const struct tgt_keepers *d)
{
	(void)d;
	(void)tgt_keepers_ask(TGD__ADMIN__WHAT__STOP, "");
}

static void upgrade(const struct tgt_keepers *d)
{
	(void)d;
	(void)tgt_keepers_ask(TGD__ADMIN__WHAT__UPGRADE, getenv("TGD"));
}

static void upgrade_in_vain(const struct tgt_keepers *d)
{
	(void)d;
	(void)tgt_keepers_ask(TGD__ADMIN__WHAT__UPGRADE, "/bin/false");
}

static const struct scene scenes[] = {
	{"start, keeper", TGT_KEEPER, NULL, always, false},
	{"start, worker", TGT_DAEMON, NULL, always, false},
	{"the worker dies, keeper", TGT_KEEPER, kill_worker, if_worker_was_not_made, false},
	{"the worker dies, next worker", TGT_DAEMON, kill_worker, NULL, false},
	{"the keeper dies, worker", TGT_DAEMON, kill_keeper, if_keeper_was_not_made, false},
	{"the keeper dies, next keeper", TGT_KEEPER, kill_keeper, NULL, false},
	{"upgrade, keeper", TGT_KEEPER, upgrade, if_worker_retired, false},
	{"upgrade, workers", TGT_DAEMON, upgrade, NULL, false},
	{"upgrade in vain, keeper", TGT_KEEPER, upgrade_in_vain, if_no_tgd_was_made, false},
	{"stop, keeper", TGT_KEEPER, stop, always, false},
	{"stop, worker", TGT_DAEMON, stop, always, false},
	{"SIGTERM, keeper", TGT_KEEPER, terminate, always, false},
	{"SIGTERM, worker", TGT_DAEMON, terminate, always, false},
	{"start, while the worker is stopped the keeper", TGT_DAEMON, NULL, NULL, true},
	{"the worker dies, while the next is stopped the keeper", TGT_DAEMON, kill_worker, NULL,
	 true},
	{"upgrade, while a worker is stopped the keeper", TGT_DAEMON, upgrade, NULL, true},
};

#define N_SCENES (sizeof(scenes) / sizeof(scenes[0]))

/* CUnit knows which test it is running, and so which scene. */
static void run_current(void)
{
	static uint64_t chosen[TGT_TRACE_MAX];
	const struct scene *scene = scenes;
	unsigned n, i, n_failed = 0;

	while (strcmp(scene->name, CU_get_current_test()->pName) != 0)
		scene++;
	CU_ASSERT_FATAL(run(scene, 0));
	n = choose(scene, chosen);
	CU_ASSERT(n > 0);
	if (only_point != 0) {
		chosen[0] = only_point;
		n = 1;
	}
	for (i = 0; i < n && n_failed < FAILURES_MAX; i++)
		n_failed += !run(scene, chosen[i]);
	CU_ASSERT_EQUAL(n_failed, 0);
	printf("%u points ...", n);
}

static const struct tgt_uncovered uncovered[] = {
	{"daemon/keeper.c", "waitpid(pid, NULL, 0)", "there are descriptors enough"},
	{"daemon/listen.c", "unlink(path)", "the socket has its name, and listens"},
	{"daemon/listen.c", "unlink(listener->lock_path)", "the same"},
	{NULL, NULL, NULL},
};

static void every_point_was_passed(void)
{
	static const char *const files[] = {
		"daemon/control.c", "daemon/handover.c", "daemon/keeper.c", "daemon/kept.c",
		"daemon/listen.c",  "daemon/notify.c",   "proto/fdpass.c",  NULL};

	CU_ASSERT_EQUAL(tgt_cover(TGT_KEEPER, files, uncovered), 0);
}

int main(int argc, char **argv)
{
	static CU_TestInfo tests[N_SCENES + 2];
	CU_SuiteInfo suites[] = {
		{"crash_keeper", tgt_keepers_set_up, tgt_keepers_clean_up, NULL, NULL, tests},
		CU_SUITE_INFO_NULL};
	const char *build = getenv("TG_BUILDDIR");
	unsigned i, n = 0;
	char tgd[1024];

	only_scene = argc > 1 ? argv[1] : NULL;
	only_point = argc > 2 ? strtoul(argv[2], NULL, 0) : 0;
	for (i = 0; i < N_SCENES; i++) {
		if (only_scene != NULL && strcmp(only_scene, "--list") == 0)
			printf("%s\n", scenes[i].name);
		else if (only_scene == NULL || strcmp(only_scene, scenes[i].name) == 0)
			tests[n++] = (CU_TestInfo){scenes[i].name, run_current};
	}
	if (only_scene == NULL)
		tests[n++] = (CU_TestInfo){"every point was passed", every_point_was_passed};
	if (n == 0)
		return 0;
	snprintf(tgd, sizeof(tgd), "%s/tests/crash/tgd-crash", build != NULL ? build : ".");
	setenv("TGD", tgd, 1);
	if (!tgt_control_make())
		return 99;
	/* No worker dies often here, and each may take its time. */
	tgt_control->keeper_faster = 1;
	return tgt_run("crash_keeper", suites);
}
