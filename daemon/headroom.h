/* headroom.h - how much memory the machine, and the cgroups around us, can still give.
 *
 * Memory files are charged to whoever first backs a page: the daemon.  Asked for more than there
 * is, the kernel does not refuse, it kills; so the daemon looks before it asks.  A reading costs
 * some file reads and is kept for 100 ms; what was backed since is counted down from it.
 *
 *   machine   MemAvailable, less a reserve for everybody else: 64 MiB or 2 % of the machine,
 *             whichever is more
 *   cgroup    for each one from ours to the root: the lower of memory.max and memory.high, less
 *             memory.current, plus the page cache in it that the kernel can drop (inactive files,
 *             half of the active ones)
 *
 * Grants leave a margin: a little memory for what must not fail when all else does, the state in which
 * frees are noted (`urgent`).
 *
 * What cannot be read does not limit: fallocate's own refusal is the last word.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define TGD_HEADROOM_MARGIN (UINT64_C(4) << 20)

struct tgd_headroom {
	const char *meminfo;     /* "/proc/meminfo"; tests set others, before the first use */
	const char *self_cgroup; /* "/proc/self/cgroup" */
	const char *cgroup_root; /* "/sys/fs/cgroup" */
	uint64_t left;           /* bytes */
	uint64_t read_at_ms;     /* 0: never */
	bool urgent;             /* what is asked for now may use the margin */
};

void tgd_headroom_init(struct tgd_headroom *headroom);

/* Counts `bytes` as used, if there is so much beside the margin.  False: there is not, also by a fresh
 * reading. */
bool tgd_headroom_take(struct tgd_headroom *headroom, uint64_t bytes);

/* Undoes a take, or tells that so much was given back to the kernel. */
void tgd_headroom_give(struct tgd_headroom *headroom, uint64_t bytes);

/* Reads anew and returns the bytes that are left. */
uint64_t tgd_headroom_read(struct tgd_headroom *headroom);
