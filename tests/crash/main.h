/* main.h - the main of the crash tests of clients: options, the world, one test a script. */
#pragma once

#include <CUnit/CUnit.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/crash/run.h"

/* --point; 0: all. */
extern uint64_t tgt_only_point;

/* Runs `each` for each script that is `wanted` (NULL: all), as a test of its name, then the tests of `more`; or the one of all
 * these that --script names.  The exit status. */
int tgt_crash_main(int argc, char **argv, const char *name,
		   bool (*wanted)(const struct tgt_script *),
		   void (*each)(const struct tgt_script *), const CU_TestInfo *more);

/* NULL: there is none of that name. */
const struct tgt_script *tgt_script_named(const char *name);
/* One without a meeting, of all. */
const struct tgt_script *tgt_script_at_random(uint64_t *random);

/* A script of tg_swap. */
bool tgt_is_swap(const struct tgt_script *script);
