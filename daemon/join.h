/* join.h - Hello, Attach, Detach, and the clients of the daemon before this one. */
#pragma once

#include <stddef.h>

#include "daemon/request.h"

/* Handlers of request.c's table. */
int tgd_join_hello(struct tgd_session *session, const Tgd__Request *request,
		   struct tgd_answer *answer);
int tgd_join_attach(struct tgd_session *session, const Tgd__Request *request,
		    struct tgd_answer *answer);
int tgd_join_detach(struct tgd_session *session, const Tgd__Request *request,
		    struct tgd_answer *answer);

/* Enters the clients of the daemon before us that still live, and ends those that do not.  For a heap
 * that was taken over, before the loop runs.  -errno with a sentence. */
int tgd_clients_resume(struct tgd_context *context, char *why, size_t why_size);
