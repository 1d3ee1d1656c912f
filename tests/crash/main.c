/* main.c - options, and a test for each script.
 */
#include "tests/crash/main.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/control.h"
#include "tests/crash/ledger.h"
#include "tests/crash/oracle.h"
#include "tests/support/child.h"
#include "tests/support/message.h"
#include "tests/support/runner.h"

#define SCRIPTS_MAX 256u

uint64_t tgt_only_point;

static const struct tgt_script *scripts[SCRIPTS_MAX];
static CU_TestInfo tests[SCRIPTS_MAX + 16];
static unsigned n_scripts, n_tests;
static void (*run_one)(const struct tgt_script *);
static bool (*is_wanted)(const struct tgt_script *);
static long long start_ms;

bool tgt_is_swap(const struct tgt_script *script)
{
	return strncmp(script->name, "swap", 4) == 0;
}

static const struct tgt_script *lists(unsigned i)
{
	static const struct tgt_script *const all[] = {tgt_memory_scripts, tgt_share_scripts,
						       tgt_process_scripts, tgt_daemon_scripts};

	return all[i];
}

const struct tgt_script *tgt_script_named(const char *name)
{
	const struct tgt_script *script;
	unsigned i;

	for (i = 0; i < 4; i++) {
		for (script = lists(i); script->name != NULL; script++) {
			if (strcmp(script->name, name) == 0)
				return script;
		}
	}
	return NULL;
}

const struct tgt_script *tgt_script_at_random(uint64_t *random)
{
	const struct tgt_script *all[SCRIPTS_MAX], *script;
	unsigned n = 0, i;

	for (i = 0; i < 4; i++) {
		for (script = lists(i); script->name != NULL; script++) {
			if (script->meeting == NULL && script->flags == 0)
				all[n++] = script;
		}
	}
	return all[tgt_random(random) % n];
}

/* CUnit knows which test it is running, and so which script. */
static void run_current(void)
{
	const char *name = CU_get_current_test()->pName;
	unsigned i;

	for (i = 0; strcmp(scripts[i]->name, name) != 0; i++)
		;
	run_one(scripts[i]);
}

static int start(void)
{
	static const char *const args[] = {"--reserve", "256M", "--limit", "16M", NULL};

	start_ms = tgt_now_ms();
	tgt_world_start(args);
	return 0;
}

static int stop(void)
{
	printf("%llu kills in %lld ms\n", (unsigned long long)tgt_n_kills, tgt_now_ms() - start_ms);
	return tgt_world_stop() ? 0 : 1;
}

static void add(const struct tgt_script *from, const char *only)
{
	for (; from->name != NULL; from++) {
		if ((only != NULL && strcmp(from->name, only) != 0) ||
		    (is_wanted != NULL && !is_wanted(from)))
			continue;
		scripts[n_scripts++] = from;
		tests[n_tests++] = (CU_TestInfo){from->name, run_current};
	}
}

static int usage(const char *program)
{
	fprintf(stderr, "usage: %s [--list] [--script NAME [--point K]]\n", program);
	return 2;
}

int tgt_crash_main(int argc, char **argv, const char *name,
		   bool (*wanted)(const struct tgt_script *),
		   void (*each)(const struct tgt_script *), const CU_TestInfo *more)
{
	static const struct option options[] = {{"script", required_argument, NULL, 's'},
						{"point", required_argument, NULL, 'p'},
						{"list", no_argument, NULL, 'l'},
						{NULL, 0, NULL, 0}};
	CU_SuiteInfo suites[] = {{name, start, stop, NULL, NULL, tests}, CU_SUITE_INFO_NULL};
	const char *only = NULL;
	bool list = false;
	unsigned i;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 's')
			only = optarg;
		else if (option == 'p')
			tgt_only_point = strtoull(optarg, NULL, 0);
		else if (option == 'l')
			list = true;
		else
			return usage(argv[0]);
	}
	run_one = each;
	is_wanted = wanted;
	tgt_share_scripts_make();
	for (i = 0; i < 4; i++)
		add(lists(i), only);
	for (; more->pName != NULL; more++) {
		if (only == NULL || strcmp(more->pName, only) == 0)
			tests[n_tests++] = *more;
	}
	if (list) {
		for (i = 0; i < n_tests; i++)
			printf("%s\n", tests[i].pName);
		return 0;
	}
	if (!tgt_control_make() || !tgt_ledger_make() || !tgt_nursery_start())
		return 99;
	return tgt_run(name, suites);
}
