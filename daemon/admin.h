/* admin.h - what tgctl asks. */
#pragma once

#include "daemon/request.h"

/* 0, or -errno with a sentence in the answer. */
int tgd_admin_handle(struct tgd_session *session, const Tgd__Request *request,
		     struct tgd_answer *answer);
