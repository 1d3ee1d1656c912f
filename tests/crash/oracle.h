/* oracle.h - after a kill: is the heap exactly what the ledger says it must be?
 *
 * The oracle looks at every slot of every span through the test program's own mapping, and asks the daemon for its check,
 * so neither is believed alone.  Exact: an object that should be there and is not, one that is there and should not be,
 * and one whose bytes changed are failures; one object of the call in hand may be either, and no more.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/msg.h"

/* Where complaints go: printed, with what the test was doing, and counted. */
void tgt_wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern unsigned tgt_n_wrong;

/* The daemon's answer to an admin request, or NULL; the connection is made anew where it was lost. */
const Tgd__Reply *tgt_admin(Tgd__Admin__What what, uint64_t value);
void tgt_admin_close(void);

/* Only so many clients are left, dead or alive; the test program is one of them.  False: not in time. */
bool tgt_wait_clients(unsigned n);

/* The test program knows its slots: call it before the first run. */
void tgt_oracle_start(void);

/* The call that a child has in hand will not go on: what of it is done is entered in the ledger. */
void tgt_hand_is_cut(void);

/* Compares, then frees all that is there and gives all back: no span, no object, no slot may be left.  True: all is as it
 * should be; else what is wrong was printed. */
bool tgt_oracle(void);
