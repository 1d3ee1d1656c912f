/* server.h - the daemon as a whole: heap, socket, event loop, signals, timers. */
#pragma once

#include <stddef.h>

#include "daemon/config.h"
#include "daemon/handover.h"

struct tgd_server;

/* A worker: takes over what the keeper hands over, and makes the heap if that has none.  `config`
 * stays the caller's and is changed by a reload.  -errno with a sentence; -EPROTO: the memory files
 * are refused. */
int tgd_server_new(struct tgd_server **ret, struct tgd_config *config,
		   const struct tgd_handover *handover, char *why, size_t why_size);

/* Serves until a signal, tgctl or idleness ends it, or the keeper asks it to retire: 0, or -EIO when
 * the event loop fails. */
int tgd_server_run(struct tgd_server *server);

/* Closes and removes everything.  NULL is fine.  Returns NULL. */
struct tgd_server *tgd_server_free(struct tgd_server *server);
