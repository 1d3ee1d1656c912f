/* accept.h - the door: connections come in through the listening socket. */
#pragma once

#include <stdbool.h>

#include "daemon/context.h"

struct evconnlistener;
struct event;

struct tgd_accept {
	struct tgd_context *context;
	struct evconnlistener *listener;
	struct event *again;
	unsigned n_now; /* since `again` last ran */
	bool stopped;
};

/* Takes over the socket, also on failure.  -ENOMEM. */
int tgd_accept_init(struct tgd_accept *accept, struct tgd_context *context, int fd);

/* Nobody is let in any more; who comes waits in the socket's queue, for another process. */
void tgd_accept_stop(struct tgd_accept *accept);

void tgd_accept_done(struct tgd_accept *accept);
