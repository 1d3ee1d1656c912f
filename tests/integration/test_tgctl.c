/* tgctl asks a real tgd about a heap that is in use: what it shows agrees with what the test
 * did, and with itself. */
#include <CUnit/CUnit.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/base.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

#define MIB     (1 << 20)
#define N_SMALL 1000
#define N_TINY  100

static void *small[N_SMALL], *tiny[N_TINY], *large;

static void allocate_some(void)
{
	size_t i;

	for (i = 0; i < N_SMALL; i++)
		CU_ASSERT_PTR_NOT_NULL(small[i] = tg_malloc(100));
	for (i = 0; i < N_TINY; i++)
		CU_ASSERT_PTR_NOT_NULL(tiny[i] = tg_malloc(5));
	CU_ASSERT_PTR_NOT_NULL(large = tg_malloc(3 * MIB));
}

static void free_all(void)
{
	size_t i;

	for (i = 0; i < N_SMALL; i++)
		tg_free(small[i]);
	for (i = 0; i < N_TINY; i++)
		tg_free(tiny[i]);
	tg_free(large);
}

/* What the command answers; it must succeed.  Two words at most. */
static json_t *ask(const char *command, const char *argument)
{
	const char *args[] = {command, argument, NULL};
	int status = -1;
	json_t *answer = tgt_tgctl(&tgt_d, args, &status);

	CU_ASSERT_EQUAL(status, 0);
	CU_ASSERT_PTR_NOT_NULL(answer);
	return answer;
}

/* The text of the command without --json; the caller frees it. */
static char *ask_text(const char *command)
{
	const char *argv[] = {getenv("TGCTL"), "--socket", tgt_d.socket, command, NULL};
	char *text = NULL;

	CU_ASSERT_EQUAL(tgt_run_program(argv, &text), 0);
	CU_ASSERT_PTR_NOT_NULL(text);
	return text;
}

/* Sum of one number over a list. */
static long long sum(const json_t *answer, const char *list, const char *name)
{
	long long n = 0;
	json_t *row;
	size_t i;

	json_array_foreach (json_object_get(answer, list), i, row)
		n += tgt_json_int(row, name);
	return n;
}

/* Bytes of the listed spans that no client holds. */
static long long central_bytes(const json_t *spans)
{
	long long n = 0;
	json_t *row;
	size_t i;

	json_array_foreach (json_object_get(spans, "spans"), i, row)
		if (tgt_json_int(row, "client") == 0)
			n += tgt_json_int(row, "n_pages") * 8192;
	return n;
}

static void all_reports_agree_on_what_is_in_use(void)
{
	json_t *status, *classes, *spans, *map, *clients, *check;
	const char *huge;
	long long span_bytes;

	allocate_some();
	status = ask("status", NULL);
	classes = ask("classes", NULL);
	spans = ask("spans", NULL);
	map = ask("map", NULL);
	clients = ask("clients", NULL);
	check = ask("check", NULL);
	span_bytes = tgt_json_int(status, "span_bytes");
	CU_ASSERT(span_bytes > 3 * MIB);
	CU_ASSERT_EQUAL(sum(classes, "classes", "span_bytes"), span_bytes);
	CU_ASSERT_EQUAL(sum(spans, "spans", "n_pages") * 8192, span_bytes);
	CU_ASSERT_EQUAL(sum(map, "cells", "used") * 8192, span_bytes);
	CU_ASSERT_EQUAL((long long)json_array_size(json_object_get(spans, "spans")),
			tgt_json_int(status, "spans"));
	CU_ASSERT_EQUAL(sum(classes, "classes", "spans"), tgt_json_int(status, "spans"));
	CU_ASSERT_EQUAL(sum(clients, "clients", "span_bytes") + central_bytes(spans), span_bytes);
	CU_ASSERT_EQUAL(sum(classes, "classes", "objects"), N_SMALL + N_TINY + 1);
	CU_ASSERT_EQUAL(sum(spans, "spans", "objects"), N_SMALL + N_TINY + 1);
	CU_ASSERT_EQUAL(tgt_json_int(check, "objects"), N_SMALL + N_TINY + 1);
	CU_ASSERT(tgt_json_int(status, "resident_bytes") >= 3 * MIB);
	huge = json_string_value(json_object_get(status, "huge"));
	CU_ASSERT_PTR_NOT_NULL_FATAL(huge);
	CU_ASSERT(strcmp(huge, "auto") == 0 || strcmp(huge, "unsupported") == 0);
	CU_ASSERT(tgt_json_int(status, "huge_bytes") <= tgt_json_int(status, "resident_bytes"));
	CU_ASSERT_EQUAL(tgt_json_int(status, "span_bytes") + tgt_json_int(status, "free_bytes"),
			tgt_json_int(status, "limit_bytes"));
	json_decref(status);
	json_decref(classes);
	json_decref(spans);
	json_decref(map);
	json_decref(clients);
	json_decref(check);
	free_all();
}

static void clients_shows_this_process(void)
{
	json_t *answer = ask("clients", NULL), *row;

	CU_ASSERT_EQUAL(json_array_size(json_object_get(answer, "clients")), 1);
	row = json_array_get(json_object_get(answer, "clients"), 0);
	CU_ASSERT_EQUAL(tgt_json_int(row, "pid"), getpid());
	CU_ASSERT_EQUAL(tgt_json_int(row, "uid"), getuid());
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(row, "policy")), "keep");
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(row, "state")), "connected");
	json_decref(answer);
}

static void roots_shows_names_and_sizes(void)
{
	void *object = tg_malloc(1000);
	json_t *answer, *row;
	char *text;

	CU_ASSERT_EQUAL(tg_root_set("a name with blanks", object), 0);
	answer = ask("roots", NULL);
	CU_ASSERT_EQUAL(json_array_size(json_object_get(answer, "roots")), 1);
	row = json_array_get(json_object_get(answer, "roots"), 0);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(row, "name")),
			       "a name with blanks");
	CU_ASSERT_EQUAL(tgt_json_int(row, "ref"), (long long)tg_to_ref(object));
	CU_ASSERT_EQUAL(tgt_json_int(row, "size"), (long long)tg_usable_size(object));
	json_decref(answer);
	text = ask_text("roots");
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "  a name with blanks\n"));
	free(text);
	CU_ASSERT_EQUAL(tg_root_set("a name with blanks", NULL), 0);
	tg_free(object);
}

static void more_roots_than_one_answer_holds_are_all_listed(void)
{
	void *object = tg_malloc(16);
	json_t *answer;
	char name[32];
	int i;

	for (i = 0; i < 700; i++) {
		snprintf(name, sizeof(name), "root %d", i);
		CU_ASSERT_EQUAL(tg_root_set(name, object), 0);
	}
	answer = ask("roots", NULL);
	CU_ASSERT_EQUAL(json_array_size(json_object_get(answer, "roots")), 700);
	json_decref(answer);
	for (i = 0; i < 700; i++) {
		snprintf(name, sizeof(name), "root %d", i);
		CU_ASSERT_EQUAL(tg_root_set(name, NULL), 0);
	}
	tg_free(object);
}

static void tables_and_the_map_fit_80_columns(void)
{
	static const char *const commands[] = {"status", "clients", "classes", "spans",
					       "map",    "roots",   "check"};
	const char *line, *end;
	char *text;
	size_t i;

	unsetenv("COLUMNS");
	allocate_some();
	for (i = 0; i < TGS_ARRAY_LEN(commands); i++) {
		text = ask_text(commands[i]);
		for (line = text; *line != '\0'; line = *end == '\0' ? end : end + 1) {
			end = strchrnul(line, '\n');
			CU_ASSERT(end - line <= 80);
			if (end - line > 80)
				printf("%s: %.*s\n", commands[i], (int)(end - line), line);
		}
		CU_ASSERT_PTR_NULL(strchr(text, '\033'));
		free(text);
	}
	free_all();
}

static void limit_changes_the_limit(void)
{
	json_t *answer = ask("limit", "96M");
	void *object;

	CU_ASSERT_EQUAL(tgt_json_int(answer, "limit_bytes"), 96 * MIB);
	json_decref(answer);
	CU_ASSERT_EQUAL(tgt_status("limit_bytes"), 96 * MIB);
	CU_ASSERT_PTR_NULL(tg_malloc(100 * MIB));
	json_decref(ask("limit", "128M"));
	object = tg_malloc(100 * MIB);
	CU_ASSERT_PTR_NOT_NULL(object);
	tg_free(object);
}

static void a_limit_below_what_is_in_use_is_refused(void)
{
	const char *args[] = {"limit", "1M", NULL};
	long long before = tgt_status("limit_bytes");
	void *object = tg_malloc(3 * MIB);
	json_t *answer;
	int status = -1;

	CU_ASSERT_PTR_NOT_NULL(object);
	answer = tgt_tgctl(&tgt_d, args, &status);
	CU_ASSERT_EQUAL(status, 1);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(answer, "errno")), "EBUSY");
	json_decref(answer);
	CU_ASSERT_EQUAL(tgt_status("limit_bytes"), before);
	tg_free(object);
}

static void trim_gives_memory_back(void)
{
	json_t *answer;
	void *object = tg_malloc(32 * MIB);

	CU_ASSERT_PTR_NOT_NULL_FATAL(object);
	memset(object, 1, 32 * MIB);
	tg_free(object);
	CU_ASSERT_EQUAL(tg_trim(), 0);
	answer = ask("trim", NULL);
	CU_ASSERT(tgt_json_int(answer, "trimmed_bytes") >= 0);
	json_decref(answer);
	/* The daemon may have given some of it back by itself before it was asked. */
	CU_ASSERT(tgt_status("scavenged_bytes") >= 32 * MIB);
	CU_ASSERT_EQUAL(tgt_status("idle_bytes"), 0);
}

static void attach_and_wait(void *arg)
{
	struct tgt_meeting *meeting = arg;

	/* A fork of an attached process is a client of its own from its first call on. */
	void *object = tg_malloc(64);

	TGT_REQUIRE(object != NULL);
	tgt_tell_parent(meeting);
	(void)tgt_wait_parent_said(meeting);
}

/* Id of the client that is not this process; -1: there is none. */
static long long other_client(void)
{
	json_t *answer = ask("clients", NULL), *row;
	long long id = -1;
	size_t i;

	json_array_foreach (json_object_get(answer, "clients"), i, row)
		if (tgt_json_int(row, "pid") != getpid())
			id = tgt_json_int(row, "id");
	json_decref(answer);
	return id;
}

static void kick_kills_the_client_and_only_it(void)
{
	struct tgt_meeting meeting;
	const char *args[] = {"kick", NULL, NULL};
	json_t *answer;
	char id[24];
	int status;
	pid_t pid;

	CU_ASSERT_FATAL(tgt_meeting_open(&meeting));
	pid = tgt_fork(attach_and_wait, &meeting);
	CU_ASSERT_FATAL(pid > 0);
	CU_ASSERT(tgt_wait_child_said(&meeting));
	snprintf(id, sizeof(id), "%lld", other_client());
	args[1] = id;
	answer = tgt_tgctl(&tgt_d, args, &status);
	CU_ASSERT_EQUAL(status, 0);
	json_decref(answer);
	CU_ASSERT_EQUAL(tgt_wait(pid), 128 + SIGKILL);
	tgt_meeting_close(&meeting);
	CU_ASSERT_EQUAL(tgt_status("clients"), 1);
	CU_ASSERT_EQUAL(other_client(), -1);
	tgt_held = 1; /* the policy is keep */
	answer = tgt_tgctl(&tgt_d, args, &status);
	CU_ASSERT_EQUAL(status, 1);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(answer, "errno")), "ENOENT");
	json_decref(answer);
}

static void ask_to_stop(void *arg)
{
	const char *args[] = {"stop", NULL};
	json_t *answer;
	int status = -1;

	(void)arg;
	TGT_REQUIRE(tgt_drop_root());
	answer = tgt_tgctl(&tgt_d, args, &status);
	TGT_EXPECT(status == 1 || status == 3); /* refused; or the socket does not even let it in */
	json_decref(answer);
}

static void strangers_may_not_stop_the_daemon(void)
{
	if (geteuid() == 0)
		CU_ASSERT_EQUAL(tgt_in_child(ask_to_stop, NULL), 0);
	CU_ASSERT_EQUAL(tgt_status("clients"), 1);
}

static void stop_returns_when_the_daemon_is_gone(void)
{
	const char *args[] = {"ping", NULL};
	json_t *answer;
	pid_t worker;
	int status;

	CU_ASSERT_EQUAL_FATAL(tgt_daemon_start(&tgt_d, NULL), 0);
	worker = tgt_daemon_worker(&tgt_d, NULL);
	answer = ask("stop", NULL);
	CU_ASSERT_EQUAL(tgt_json_int(answer, "pid"), worker);
	json_decref(answer);
	/* Both of its processes. */
	CU_ASSERT_EQUAL(kill(worker, 0), -1);
	CU_ASSERT_EQUAL(access(tgt_d.socket, F_OK), -1);
	answer = tgt_tgctl(&tgt_d, args, &status);
	CU_ASSERT_EQUAL(status, 3);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(answer, "errno")), "ENOENT");
	json_decref(answer);
	CU_ASSERT_EQUAL(tgt_daemon_wait(&tgt_d), 0);
	CU_ASSERT_EQUAL(tgt_daemon_stop(&tgt_d), 0);
}

static CU_TestInfo tests[] = {
	{"all reports agree on what is in use", all_reports_agree_on_what_is_in_use},
	{"clients shows this process", clients_shows_this_process},
	{"roots shows names and sizes", roots_shows_names_and_sizes},
	{"more roots than one answer holds are all listed",
	 more_roots_than_one_answer_holds_are_all_listed},
	{"tables and the map fit 80 columns", tables_and_the_map_fit_80_columns},
	{"limit changes the limit", limit_changes_the_limit},
	{"a limit below what is in use is refused", a_limit_below_what_is_in_use_is_refused},
	{"trim gives memory back", trim_gives_memory_back},
	{"kick kills the client, and only it", kick_kills_the_client_and_only_it},
	{"strangers may not stop the daemon", strangers_may_not_stop_the_daemon},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo stop_tests[] = {
	{"stop returns when the daemon is gone", stop_returns_when_the_daemon_is_gone},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"tgctl", NULL, NULL, tgt_set_up, tgt_tear_down, tests},
	{"tgctl stop", NULL, NULL, NULL, NULL, stop_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("tgctl", suites);
}
