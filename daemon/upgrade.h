/* upgrade.h - tgd --upgrade: this program in the place of the daemon that runs. */
#pragma once

#include "daemon/config.h"

/* Asks the daemon at the configured socket to go on as this program, waits until it does, and says so
 * on standard output, or on standard error why not.  Returns the exit status. */
int tgd_upgrade(const struct tgd_config *config);
