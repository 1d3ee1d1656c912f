/* peer.h - who is at the other end of a socket, as the kernel says. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Of the process that connected, at the time when it did. */
struct tgd_peer {
	pid_t pid; /* 0: a process that this pid namespace does not see */
	uid_t uid;
	gid_t gid;
	uint64_t accepted_at; /* when we looked, in clock ticks after boot */
};

/* Who may connect: what the mode of a file says of its owner, its group and others. */
struct tgd_access {
	mode_t mode;
	uid_t uid;
	gid_t gid;
};

int tgd_peer_get(int sock, struct tgd_peer *ret);

bool tgd_peer_may_connect(const struct tgd_peer *peer, int sock, const struct tgd_access *access);

bool tgd_peer_may_administer(const struct tgd_peer *peer);

int tgd_peer_open_process(const struct tgd_peer *peer, int sock, int *ret_pidfd,
			  uint64_t *ret_start_time, char *why, size_t why_size);

/* As tgd_peer_open_process, for a process known by pid and start time.  -ESRCH: it has ended. */
int tgd_peer_reopen_process(pid_t pid, uint64_t start_time, int *ret_pidfd);

/* May the process still have this file, of so many bytes, mapped as a whole?  False is certain: it has executed another
 * program, or has never mapped it.  A process of another user tells only its size; if that is enough, true. */
bool tgd_peer_may_have_mapped(pid_t pid, int heap_fd, uint64_t bytes);

/* Sends a signal to the process behind a pidfd: 0 or -errno. */
int tgd_peer_signal(int pidfd, int signal_number);
