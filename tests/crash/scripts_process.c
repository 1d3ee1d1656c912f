/* scripts_process.c - scripts of what a process does beside allocating: attach, detach, threads, fork, errors, and the
 * connection that is lost.
 */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/process.h"
#include "tests/crash/control.h"
#include "tests/crash/ledger.h"
#include "tests/crash/run.h"
#include "tests/support/child.h"

/* ---- attach and detach ---- */

static void attach(void)
{
	struct tg_options options = {.size = sizeof(options), .name = "victim"};

	options.socket = tgt_ledger->socket;
	options.flags = tgt_ledger->reclaim ? TG_RECLAIM : 0;
	tgt_begin();
	TGT_REQUIRE(tg_attach(&options) == 0);
	tgt_end();
}

/* As libtgmalloc does: a slot and the first spans are asked for together with attaching. */
static void attach_as_malloc(void)
{
	struct tg_options options = {.size = sizeof(options), .name = "victim"};

	options.socket = tgt_ledger->socket;
	options.flags = tgt_ledger->reclaim ? TG_RECLAIM : 0;
	tgc_saved.is_malloc = true;
	tgt_begin();
	TGT_REQUIRE(tg_attach(&options) == 0);
	tgt_do_mallocs(0, 3, 64);
	tgt_do_malloc(3, 10000);
	tgt_do_frees(0, 2);
	tgt_do_trim();
	tgt_end();
}

static void some_foreign(void)
{
	tgt_do_mallocs(100, 10, 64);
}

static void hold(void)
{
	tgt_do_mallocs(0, 10, 64);
	tgt_do_mallocs(10, 3, 8);
	tgt_do_malloc(13, 50000);
	tgt_do_malloc(14, 50000);
	tgt_do_publish(tgt_item(0));
	tgt_do_publish(tgt_item(13));
	tgt_do_free(tgt_item(1));
	tgt_do_frees(100, 5);
}

static void detach(void)
{
	tgt_begin();
	TGT_REQUIRE(tg_detach() == 0);
	tgt_end();
}

static void again(void)
{
	struct tg_options options = {.size = sizeof(options), .name = "victim again"};

	options.socket = tgt_ledger->socket;
	options.flags = tgt_ledger->reclaim ? TG_RECLAIM : 0;
	tgt_begin();
	TGT_REQUIRE(tg_attach(&options) == 0);
	tgt_do_malloc(20, 64);
	tgt_end();
}

/* What it left behind is nobody's; it is a client again and takes of it. */
static void hold_and_detach(void)
{
	tgt_do_mallocs(0, 10, 64);
	tgt_do_malloc(13, 50000);
	tgt_do_publish(tgt_item(0));
	TGT_REQUIRE(tg_detach() == 0);
}

/* ---- threads ---- */

static void *thread(void *unused)
{
	(void)unused;
	tgt_do_mallocs(1, 5, 100);
	tgt_do_frees(1, 3);
	tgt_do_malloc(6, 10);
	tgt_do_free(tgt_item(0));
	tgt_do_free(tgt_item(100));
	return NULL;
}

static void make_one(void)
{
	tgt_do_malloc(0, 100);
}

static void run_thread(void)
{
	pthread_t id;

	TGT_REQUIRE(pthread_create(&id, NULL, thread, NULL) == 0);
	TGT_REQUIRE(pthread_join(id, NULL) == 0);
}

static void thread_begins_and_ends(void)
{
	tgt_begin();
	run_thread();
	tgt_end();
}

/* The second thread takes the first one's cache. */
static void thread_after_thread(void)
{
	run_thread();
	tgt_do_malloc(0, 100);
	tgt_do_frees(4, 3);
	tgt_do_malloc(100, 64);
	tgt_begin();
	run_thread();
	tgt_do_trim();
	tgt_end();
}

/* What it frees of the first thread's it keeps at hand, and uses one again; then the process leaves. */
static void *reuse_and_detach(void *unused)
{
	(void)unused;
	tgt_do_frees(0, 6);
	tgt_do_malloc(20, 64);
	TGT_REQUIRE(tg_detach() == 0);
	return NULL;
}

static void thread_reuses_and_detaches(void)
{
	pthread_t id;

	tgt_begin();
	TGT_REQUIRE(pthread_create(&id, NULL, reuse_and_detach, NULL) == 0);
	TGT_REQUIRE(pthread_join(id, NULL) == 0);
	tgt_end();
}

static void make_ten(void)
{
	tgt_do_mallocs(0, 10, 64);
}

/* ---- fork ---- */

static void in_forked_child(void)
{
	tgt_do_malloc(50, 100);
	tgt_begin();
	tgt_do_malloc(51, 100);
	tgt_do_free(tgt_item(0));
	tgt_do_free(tgt_item(50));
	tgt_do_malloc(52, 50000);
	tgt_end();
}

static void in_forked_child_at_once(void)
{
	tgt_begin();
	tgt_do_malloc(51, 100);
	tgt_do_free(tgt_item(0));
	tgt_end();
}

static void forks(void (*what)(void))
{
	pid_t pid = fork();
	int status;

	TGT_REQUIRE(pid >= 0);
	if (pid == 0) {
		what();
		_exit(0);
	}
	TGT_REQUIRE(waitpid(pid, &status, 0) == pid);
	TGT_REQUIRE(tgt_fired(TGT_CLIENT) != NULL || status == 0);
	tgt_disarm(TGT_CLIENT);
}

static void fork_and_go_on(void)
{
	forks(in_forked_child);
}

static void fork_and_go_on_at_once(void)
{
	forks(in_forked_child_at_once);
}

/* Both go on: this side's heap is its own. */
static void fork_and_stay(void)
{
	pid_t pid = fork();
	int status;

	TGT_REQUIRE(pid >= 0);
	if (pid == 0) {
		tgt_do_malloc(50, 20);
		_exit(0);
	}
	TGT_REQUIRE(waitpid(pid, &status, 0) == pid && status == 0);
	tgt_begin();
	tgt_do_malloc(1, 100);
	tgt_do_free(tgt_item(0));
	tgt_end();
}

/* ---- errors ---- */

/* Freed twice, by the thread that owns it; found at once. */
static void free_twice(void)
{
	void *p = tgt_item(0)->p;

	tgt_do_free(tgt_item(0));
	tgt_begin();
	tg_free(p);
	tg_free((char *)p + 1);
	tg_free((void *)&tgt_ledger);
	tgt_end();
}

static void free_foreign_twice(void)
{
	void *p = tgt_item(100)->p;

	tgt_begin();
	tgt_do_free(tgt_item(100));
	tg_free(p);
	tgt_do_trim();
	tgt_end();
}

/* In the child's buffer when the owner frees it, too. */
static void free_late(void)
{
	tgt_do_free(tgt_item(100));
	tgt_meet();
	tgt_begin();
	tgt_do_trim();
	tgt_end();
}

static void owner_frees(void)
{
	tg_free(tgt_item(100)->p);
}

/* ---- the connection ---- */

/* As closefrom does in a program that becomes a daemon. */
static void lose_connection(void)
{
	hold();
	close(tgc_saved.socket_fd);
}

static void come_back(void)
{
	tgt_begin();
	tgt_do_malloc(20, 3000);
	tgt_do_malloc(21, 60000);
	tgt_do_frees(2, 5);
	tgt_do_trim();
	tgt_end();
}

const struct tgt_script tgt_process_scripts[] = {
	{"attach", .operation = attach, .flags = TGT_UNATTACHED},
	{"attach, as malloc", .operation = attach_as_malloc, .flags = TGT_UNATTACHED},
	{"detach", .observer = some_foreign, .set_up = hold, .operation = detach},
	{"detach, attach again", .set_up = hold_and_detach, .operation = again},
	{"thread", .observer = some_foreign, .set_up = make_one,
	 .operation = thread_begins_and_ends},
	{"thread after thread", .observer = some_foreign, .set_up = make_one,
	 .operation = thread_after_thread},
	{"thread, detach with another's slots at hand", .observer = some_foreign,
	 .set_up = make_ten, .operation = thread_reuses_and_detaches},
	{"fork, go on in the child", .set_up = make_one, .operation = fork_and_go_on},
	{"fork, begin in the child", .set_up = make_one, .operation = fork_and_go_on_at_once},
	{"fork, stay", .set_up = make_one, .operation = fork_and_stay},
	{"double free, own", .set_up = make_one, .operation = free_twice,
	 .flags = TGT_COUNT_ERRORS},
	{"double free, foreign", .observer = some_foreign, .operation = free_foreign_twice,
	 .flags = TGT_COUNT_ERRORS},
	{"double free, by owner and another", .observer = some_foreign, .operation = free_late,
	 .meeting = owner_frees, .flags = TGT_COUNT_ERRORS},
	{"connection lost", .observer = some_foreign, .set_up = lose_connection,
	 .operation = come_back},
	{.name = NULL},
};
