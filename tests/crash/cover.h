/* cover.h - was every point that exists passed? */
#pragma once

#include "tests/crash/control.h"

/* Points of which it is known that no script comes to them: by file and the text of the line, with the reason. */
struct tgt_uncovered {
	const char *file, *text, *reason;
};

/* Looks at the sites of the program with that role whose files begin with one of `files` (NULL at the end).  Prints those
 * that were never passed and are not in `uncovered` (NULL at the end), and those that are there and were passed.  Returns
 * how many. */
unsigned tgt_cover(enum tgt_role role, const char *const *files,
		   const struct tgt_uncovered *uncovered);
