/* server.h - the daemon as a whole: heap, socket, event loop, signals, timers. */
#pragma once

#include <stddef.h>

#include "daemon/config.h"

struct tgd_server;

/* Makes the heap and listens; peers can connect from here on.  `config` stays the caller's and is
 * changed by a reload. -errno with a sentence. */
int tgd_server_new(struct tgd_server **ret, struct tgd_config *config, char *why, size_t why_size);

/* Serves until a signal, tgctl or idleness ends it: 0, or -EIO when the event loop fails. */
int tgd_server_run(struct tgd_server *server);

/* Closes and removes everything.  NULL is fine.  Returns NULL. */
struct tgd_server *tgd_server_free(struct tgd_server *server);
