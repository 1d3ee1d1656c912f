/* peer.c - credentials and identity of a peer, from the kernel alone.
 *
 * A pid names a process only while that process lives; a pidfd names it for good.  The kernel can
 * give the pidfd of whoever connected (SO_PEERPIDFD, Linux 6.5).  Before that we open one by pid,
 * and then make sure that the pid was not used again between the connect and now: its process must
 * have started before we accepted the connection. Pid and start time together are the identity that
 * outlives this daemon, so they go into the client table.
 */
#include "daemon/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "shm/base.h"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define START_TIME_FIELD 22 /* of /proc/PID/stat, see proc(5) */

static uint64_t ticks_since_boot(void)
{
	struct timespec now;
	long hz = sysconf(_SC_CLK_TCK);

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * (uint64_t)hz +
	       (uint64_t)now.tv_nsec / (UINT64_C(1000000000) / (uint64_t)hz);
}

/* To be called right after accept.  -errno of getsockopt. */
int tgd_peer_get(int sock, struct tgd_peer *ret)
{
	struct ucred cred;
	socklen_t size = sizeof(cred);

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
		return -errno;
	*ret = (struct tgd_peer){.pid = cred.pid,
				 .uid = cred.uid,
				 .gid = cred.gid,
				 .accepted_at = ticks_since_boot()};
	return 0;
}

/* Is the peer in this group, by its own or one of its supplementary groups? */
static bool in_group(const struct tgd_peer *peer, int sock, gid_t gid)
{
	TGS_FREE gid_t *groups = NULL;
	socklen_t size = 0;
	size_t i;

	if (peer->gid == gid)
		return true;
	/* With no room at all the kernel says how much it needs. */
	if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, NULL, &size) == 0 || errno != ERANGE)
		return false;
	groups = malloc(size);
	if (groups == NULL || getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
		return false;
	for (i = 0; i < size / sizeof(groups[0]); i++) {
		if (groups[i] == gid)
			return true;
	}
	return false;
}

/* The same rule as the kernel's for the socket file, checked again on the connection itself: the
 * file may have been changed by others, or reached through a descriptor. */
bool tgd_peer_may_connect(const struct tgd_peer *peer, int sock, const struct tgd_access *access)
{
	if (peer->uid == 0)
		return true;
	if (peer->uid == access->uid)
		return (access->mode & 0200) != 0;
	if (in_group(peer, sock, access->gid))
		return (access->mode & 0020) != 0;
	return (access->mode & 0002) != 0;
}

/* Root, and the user that the daemon runs as. */
bool tgd_peer_may_administer(const struct tgd_peer *peer)
{
	return peer->uid == 0 || peer->uid == geteuid();
}

/* The process's start time in clock ticks after boot.  -errno; -ENODATA: the kernel wrote what we
 * cannot read. */
static int read_start_time(pid_t pid, uint64_t *ret)
{
	TGS_CLOSE int fd = -1;
	char path[32], text[1024], *p;
	unsigned field;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';

	/* Field 2 is the program's name in parentheses, which may itself hold spaces and
	 * parentheses. */
	p = strrchr(text, ')');
	for (field = 2; p != NULL && field < START_TIME_FIELD; field++) {
		p = strchr(p, ' ');
		if (p != NULL)
			p++;
	}
	if (p == NULL || sscanf(p, "%lu", ret) != 1)
		return -ENODATA;
	return 0;
}

static int pidfd_of_peer(const struct tgd_peer *peer, int sock, bool *ret_certain)
{
	socklen_t size = sizeof(int);
	int fd;

	*ret_certain = getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0;
	if (!*ret_certain) {
		if (errno != ENOPROTOOPT)
			return -errno;
		fd = (int)syscall(SYS_pidfd_open, peer->pid, 0);
		if (fd < 0)
			return -errno;
	}
	/* Nobody reads it, but an event loop wants what it watches not to block. */
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

static bool has_exited(int pidfd)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return poll(&p, 1, 0) != 0;
}

/* A descriptor that becomes readable when the peer's process ends (the caller's), and when that
 * process started, in clock ticks after boot.  On failure `why` has a sentence.  -ESRCH: the
 * process is gone, or cannot be seen from here; or what the kernel says. */
int tgd_peer_open_process(const struct tgd_peer *peer, int sock, int *ret_pidfd,
			  uint64_t *ret_start_time, char *why, size_t why_size)
{
	uint64_t start_time;
	bool certain;
	int fd, r;

	if (peer->pid <= 0) {
		snprintf(why, why_size,
			 "your process is in a pid namespace that tgd cannot see; "
			 "run tgd in the outermost of the namespaces concerned");
		return -ESRCH;
	}
	fd = pidfd_of_peer(peer, sock, &certain);
	if (fd < 0) {
		snprintf(why, why_size, "tgd cannot watch process %d: %s", (int)peer->pid,
			 strerror(-fd));
		return fd;
	}
	r = read_start_time(peer->pid, &start_time);
	if (r == 0 && (has_exited(fd) || (!certain && start_time > peer->accepted_at)))
		r = -ESRCH;
	if (r < 0) {
		snprintf(why, why_size,
			 "tgd cannot tell when process %d was started (from /proc/%d/stat): %s",
			 (int)peer->pid, (int)peer->pid, strerror(-r));
		close(fd);
		return r;
	}
	*ret_pidfd = fd;
	*ret_start_time = start_time;
	return 0;
}

int tgd_peer_reopen_process(pid_t pid, uint64_t start_time, int *ret_pidfd)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0), r;
	uint64_t found;

	if (fd < 0)
		return errno == EINVAL ? -ESRCH : -errno;
	/* First the pidfd, then the time: so they are of one process, if that still lives. */
	r = read_start_time(pid, &found);
	if (r == -ENOENT || (r == 0 && (found != start_time || has_exited(fd))))
		r = -ESRCH;
	if (r == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		r = -errno;
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret_pidfd = fd;
	return 0;
}

/* A line of /proc/PID/maps: "from-to perms offset major:minor inode  path". */
static bool line_maps(const char *line, const struct stat *file)
{
	unsigned major_number, minor_number;
	unsigned long inode;

	return sscanf(line, "%*s %*s %*s %x:%x %lu", &major_number, &minor_number, &inode) == 3 &&
	       inode == file->st_ino && major_number == major(file->st_dev) &&
	       minor_number == minor(file->st_dev);
}

/* Anybody may know the size of a process. */
static bool is_smaller(pid_t pid, uint64_t bytes)
{
	unsigned long pages = 0;
	char path[32];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	file = fopen(path, "re");
	if (file == NULL)
		return false;
	/* 0: it has no memory any more, or its first thread has ended and the others have. */
	if (fscanf(file, "%lu", &pages) != 1)
		pages = 0;
	fclose(file);
	return pages != 0 && pages < bytes / (uint64_t)sysconf(_SC_PAGESIZE);
}

bool tgd_peer_may_have_mapped(pid_t pid, int heap_fd, uint64_t bytes)
{
	size_t size = 0, n_lines = 0;
	bool found = false;
	char *line = NULL;
	char path[32];
	struct stat st;
	FILE *file;

	if (is_smaller(pid, bytes))
		return false;
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	if (fstat(heap_fd, &st) < 0)
		return true;
	file = fopen(path, "re");
	if (file == NULL)
		return true;
	while (!found && getline(&line, &size, file) > 0) {
		found = line_maps(line, &st);
		n_lines++;
	}
	free(line);
	fclose(file);
	return found || n_lines == 0;
}

int tgd_peer_signal(int pidfd, int signal_number)
{
	return syscall(SYS_pidfd_send_signal, pidfd, signal_number, NULL, 0) < 0 ? -errno : 0;
}
