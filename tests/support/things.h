/* things.h - what a client has: objects of all kinds, filled; and threads that are busy with more of them.
 *
 * For tests of what becomes of a client that something happens to.  Failures are expectations (child.h), so all of it may
 * be used in children.
 */
#pragma once

#include <stddef.h>

#define TGT_THINGS 200u /* small, tiny and large ones */

void tgt_things_make(void);
void tgt_things_check(void);
void tgt_things_free(void); /* checks them, too */

/* Threads that allocate and free each other's objects until they are told to end. */
#define TGT_BUSY         3
#define TGT_BUSY_OBJECTS 64 /* at most that many live */

void tgt_busy_start(void);
void tgt_busy_end(void); /* frees what they had */
