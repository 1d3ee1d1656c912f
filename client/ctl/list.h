/* list.h - asking for a list that may take several answers: list.c for what it prints itself, top.c for its clients. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/ctl/ctl.h"

/* What an answer says of the next one. */
struct tgc_next {
	uint64_t last; /* number of the last row */
	bool more;
};

struct tgc_list {
	Tgd__Admin__What what;
	unsigned body;   /* kind of answer */
	const char *key; /* of the array in the JSON object */
	/* Adds the rows of an answer to `to`.  0 or -ENOMEM. */
	int (*add)(void *to, const Tgd__Reply *reply, struct tgc_next *ret_next);
};

/* Asks until all is there.  TGC_OK, or the exit status, and what was wrong is noted. */
int tgc_list_collect(struct tgc_ctl *ctl, const struct tgc_list *list, void *to);
