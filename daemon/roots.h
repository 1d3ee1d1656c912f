/* roots.h - the root table: names that lead to objects.
 *
 * The daemon is its only writer; clients read it in the map without asking, by the rules in
 * layout.h.  An entry, once used, keeps its name until another root needs the place; ref 0 says
 * that there is no such root.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/backing.h"
#include "shm/layout.h"
#include "shm/region.h"

struct tgd_roots {
	const struct tgs_heap *view;
	struct tgd_backing *backing;
	uint64_t n_used;  /* entries ever used, as in the map's header */
	uint64_t n_roots; /* of these: that lead to something */
};

void tgd_roots_init(struct tgd_roots *roots, const struct tgs_heap *view,
		    struct tgd_backing *backing);

/* As tgd_heap_root_set, but for the object, of which the caller knows that it is live.  -EAGAIN,
 * -ENOENT, -ENOSPC, -EINVAL, -ENAMETOOLONG, -ENOMEM. */
int tgd_roots_set(struct tgd_roots *roots, const char *name, uint64_t ref, bool compare,
		  uint64_t expected);

/* Instead of init, for a daemon that takes the files over: the roots as the map has them, which
 * were found sound (takeover.h).  An entry that was being written is nobody's; one that was not
 * counted yet leads nowhere: whoever asked for it had no answer. */
void tgd_roots_adopt(struct tgd_roots *roots, const struct tgs_heap *view,
		     struct tgd_backing *backing);

/* Where the name leads; 0: there is no such root. */
uint64_t tgd_roots_get(const struct tgd_roots *roots, const char *name);

/* What an entry of this name must have as its hash: FNV-1a, 32 bits. */
uint32_t tgd_roots_hash(const char *name);

/* The first entry in use at this index or above; n_used if there is none. */
uint64_t tgd_roots_from(const struct tgd_roots *roots, uint64_t index);

const struct tgs_root *tgd_roots_entry(const struct tgd_roots *roots, uint64_t index);
