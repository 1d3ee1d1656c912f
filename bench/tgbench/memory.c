/* memory.c - how much memory the heap of this process takes, whichever allocator it is.
 *
 * What the process has to itself (anonymous pages, and pages of shared memory that it sees), as the kernel's walk of its
 * page tables counts it.  With a daemon, the shared pages are not those in our page tables but all pages of the daemon's
 * memory files: objects, records, page map, and what is backed in advance, whether we have touched it or not.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/tgbench/worker.h"

#define FILES_MAX 16

static double field(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at == NULL ? 0 : strtod(at + strlen(name), NULL) * 1024;
}

static void read_rollup(char *text, size_t size)
{
	int fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
	size_t n = 0;
	ssize_t got;

	if (fd < 0)
		tgb_die("/proc/self/smaps_rollup cannot be read");
	while (n + 1 < size && (got = read(fd, text + n, size - n - 1)) > 0)
		n += (size_t)got;
	text[n] = '\0';
	close(fd);
}

/* By getdents into a buffer of our own would be purer, but opendir's buffer is freed again. */
static double bytes_of_files(const char *pid)
{
	ino_t seen[FILES_MAX];
	unsigned n_seen = 0, i;
	const struct dirent *entry;
	char path[64];
	double sum = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	if (dir == NULL)
		tgb_die("%s cannot be read", path);
	while ((entry = readdir(dir)) != NULL) {
		char target[64];
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
		struct stat st;

		target[n > 0 ? n : 0] = '\0';
		if (strncmp(target, "/memfd:", 7) != 0 ||
		    fstatat(dirfd(dir), entry->d_name, &st, 0) < 0)
			continue;
		for (i = 0; i < n_seen && seen[i] != st.st_ino; i++)
			;
		if (i == n_seen && n_seen < FILES_MAX) {
			seen[n_seen++] = st.st_ino;
			sum += (double)st.st_blocks * 512;
		}
	}
	closedir(dir);
	return sum;
}

double tgb_memory(void)
{
	const char *daemon = getenv("TGBENCH_DAEMON");
	double files = 0;
	char text[4096];

	/* First: what the C library keeps for opendir is then ours before the heap grows, too. */
	if (daemon != NULL)
		files = bytes_of_files(daemon);
	read_rollup(text, sizeof(text));
	return field(text, "\nPss_Anon:") + (daemon != NULL ? files : field(text, "\nPss_Shmem:"));
}
