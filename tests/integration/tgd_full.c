/* tgd_full - tgd on a machine that has no memory left, as long as the file that TG_TEST_NO_MEMORY names exists.
 *
 * daemon/main.c is linked with it, and calls of fallocate come here (--wrap).  What gives memory back works.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int __real_fallocate(int fd, int mode, off_t at, off_t bytes);
int __wrap_fallocate(int fd, int mode, off_t at, off_t bytes);

int __wrap_fallocate(int fd, int mode, off_t at, off_t bytes)
{
	const char *path = getenv("TG_TEST_NO_MEMORY");

	if (!(mode & FALLOC_FL_PUNCH_HOLE) && path && access(path, F_OK) == 0) {
		errno = ENOSPC;
		return -1;
	}
	return __real_fallocate(fd, mode, at, bytes);
}
