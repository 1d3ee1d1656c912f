/* listen.c - one daemon a path, whatever was left behind there.
 *
 * A socket file says nothing about whether anybody listens, so whoever serves PATH holds a lock on
 * PATH.lock, which the kernel gives up for a process that dies.  With the lock held, a socket at
 * PATH is a leftover and is removed; anything else at PATH is somebody's file and is not touched.
 * The lock file is removed at the end.  Another daemon may have opened it before that and get its
 * lock after, on a file that has no name any more; so who gets the lock looks whether the file
 * still is the one at that name, or tries again. The socket gets its mode before it listens, so
 * nobody can connect under a wrong one.
 *
 * The lock belongs to the open file, and so to keeper and worker alike: it is given up when neither
 * has the file open any more.  Its text, and the kernel for who asks about the socket, name the
 * keeper.
 */
#include "daemon/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "shm/base.h"

#define BACKLOG 1024

static int refuse(int error, char *why, size_t why_size, const char *what, const char *path)
{
	snprintf(why, why_size, "%s %s: %s", what, path, strerror(-error));
	return error;
}

static int refuse_in_use(int lock_fd, const char *path, char *why, size_t why_size)
{
	char pid[16];
	ssize_t n = pread(lock_fd, pid, sizeof(pid) - 1, 0);

	pid[n > 0 ? n : 0] = '\0';
	pid[strcspn(pid, "\n")] = '\0';
	snprintf(why, why_size,
		 "another tgd (pid %s) serves %s; stop it (tgctl --socket %s stop), or use another "
		 "--socket",
		 pid[0] != '\0' ? pid : "unknown", path, path);
	return -EADDRINUSE;
}

/* Opens and locks the lock file.  1: it lost its name meanwhile, try again. */
static int try_lock(struct tgd_listener *listener, char *why, size_t why_size)
{
	struct stat at_name, opened;
	TGS_CLOSE int fd = -1;

	fd = open(listener->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return refuse(-errno, why, why_size, "cannot open", listener->lock_path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK
			       ? refuse_in_use(fd, listener->path, why, why_size)
			       : refuse(-errno, why, why_size, "cannot lock", listener->lock_path);
	if (fstat(fd, &opened) < 0)
		return refuse(-errno, why, why_size, "cannot look at", listener->lock_path);
	if (stat(listener->lock_path, &at_name) < 0 || at_name.st_dev != opened.st_dev ||
	    at_name.st_ino != opened.st_ino)
		return 1;
	listener->lock_fd = fd;
	fd = -1;
	return 0;
}

static int write_pid(const struct tgd_listener *listener)
{
	char pid[16];
	int n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());

	errno = EIO;
	return ftruncate(listener->lock_fd, 0) < 0 || pwrite(listener->lock_fd, pid, n, 0) != n
		       ? -errno
		       : 0;
}

static int take_lock(struct tgd_listener *listener, char *why, size_t why_size)
{
	int r;

	do
		r = try_lock(listener, why, why_size);
	while (r > 0);
	if (r < 0)
		return r;
	r = write_pid(listener);
	return r < 0 ? refuse(r, why, why_size, "cannot write to", listener->lock_path) : 0;
}

/* A program that knows nothing of our lock may listen there. */
static bool somebody_listens(const struct sockaddr_un *address)
{
	TGS_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
			   errno == EAGAIN);
}

static int remove_leftover(const struct sockaddr_un *address, char *why, size_t why_size)
{
	const char *path = address->sun_path;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : refuse(-errno, why, why_size, "cannot look at", path);
	if (!S_ISSOCK(st.st_mode)) {
		snprintf(why, why_size,
			 "%s is there and is no socket; remove it, or use another --socket", path);
		return -EEXIST;
	}
	if (somebody_listens(address)) {
		snprintf(why, why_size,
			 "another program listens on %s; stop it, or use another --socket", path);
		return -EADDRINUSE;
	}
	return unlink(path) < 0 ? refuse(-errno, why, why_size, "cannot remove the old", path) : 0;
}

static int bind_and_listen(int fd, const struct sockaddr_un *address,
			   const struct tgd_access *access, char *why, size_t why_size)
{
	const char *path = address->sun_path;
	mode_t old = umask(0177);
	int r = bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;

	umask(old);
	if (r < 0)
		return refuse(r, why, why_size, "cannot make the socket", path);
	if (chown(path, (uid_t)-1, access->gid) < 0)
		r = refuse(-errno, why, why_size, "cannot set the group of", path);
	else if (chmod(path, access->mode) < 0)
		r = refuse(-errno, why, why_size, "cannot set the mode of", path);
	else if (listen(fd, BACKLOG) < 0)
		r = refuse(-errno, why, why_size, "cannot listen on", path);
	if (r < 0)
		unlink(path);
	return r;
}

int tgd_listen(struct tgd_listener *listener, const char *path, const struct tgd_access *access,
	       int *ret_fd, char *why, size_t why_size)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	TGS_CLOSE int fd = -1;
	int r;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	tgd_listen_resume(listener, path, -1);
	r = take_lock(listener, why, why_size);
	if (r < 0)
		goto undo;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		r = refuse(-errno, why, why_size, "cannot make a socket for", path);
		goto undo;
	}
	r = remove_leftover(&address, why, why_size);
	if (r == 0)
		r = bind_and_listen(fd, &address, access, why, why_size);
	if (r < 0)
		goto undo;
	*ret_fd = fd;
	fd = -1;
	return 0;
undo:
	if (listener->lock_fd >= 0) {
		unlink(listener->lock_path);
		close(listener->lock_fd);
		listener->lock_fd = -1;
	}
	return r;
}

void tgd_listen_resume(struct tgd_listener *listener, const char *path, int lock_fd)
{
	snprintf(listener->path, sizeof(listener->path), "%s", path);
	snprintf(listener->lock_path, sizeof(listener->lock_path), "%s.lock", path);
	listener->lock_fd = lock_fd;
}

void tgd_listen_sign(const struct tgd_listener *listener, int fd)
{
	(void)write_pid(listener);
	/* Peers ask the kernel for the pid of whoever said so last. */
	(void)listen(fd, BACKLOG);
}

void tgd_listen_done(struct tgd_listener *listener)
{
	struct stat at_name, locked;

	if (listener->lock_fd < 0)
		return;
	/* Keeper or worker, the other may have removed both, and then they may be another's. */
	if (fstat(listener->lock_fd, &locked) == 0 && stat(listener->lock_path, &at_name) == 0 &&
	    at_name.st_dev == locked.st_dev && at_name.st_ino == locked.st_ino) {
		unlink(listener->path);
		unlink(listener->lock_path);
	}
	close(listener->lock_fd);
	listener->lock_fd = -1;
}
