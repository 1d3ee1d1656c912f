/* badfree.h - objects of every kind, for tests that free them wrongly, and the errors that this process has counted. */
#pragma once

#include <CUnit/CUnit.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "tests/support/fixture.h"

static const size_t kinds[] = {1, 7, 15, 16, 24, 500, 512, 20000, 32768, 50000, 1 << 20};
#define N_KINDS (sizeof(kinds) / sizeof(*kinds))

/* As tgt_set_up, but errors are counted, and the process goes on. */
static inline void count_errors(void)
{
	setenv("TG_ON_ERROR", "count", 1);
	tgt_set_up();
	unsetenv("TG_ON_ERROR");
}

/* So many by now. */
static inline void errors_are(uint64_t n)
{
	CU_ASSERT_EQUAL(tgt_stats().errors, n);
}
