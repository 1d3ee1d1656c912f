/* keeper.h - the process that holds what must not be lost, and starts the worker that serves. */
#pragma once

#include "daemon/config.h"
#include "daemon/handover.h"

/* Makes the socket, or goes on with what was handed over, and keeps a worker running until it ends
 * in good order.  Returns the exit status of tgd. */
int tgd_keeper_run(const struct tgd_config *config, const struct tgd_handover *handover);
