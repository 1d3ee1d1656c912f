/* find.c - where the programs and libraries of the same installation, or build, are.
 *
 * `tgctl run` needs a tgd and maybe libtgmalloc.so of its own version.  Tried in this order:
 * - what the environment names ($TGD, $TG_PRELOAD_LIB): whoever sets it means it;
 * - next to tgctl itself, so that an installation may be moved or unpacked anywhere;
 * - the build tree, if tgctl lies in one: it works before it is installed;
 * - where it was configured to be installed; for tgd then $PATH.
 */
#include "client/ctl/find.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/base.h"

#define PATH_SIZE 4096

/* Directory of the running program, without a slash at the end. */
static int own_dir(char *buf, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", buf, size - 1);
	char *slash;

	if (n < 0)
		return -errno;
	buf[n] = '\0';
	slash = strrchr(buf, '/');
	if (slash == NULL)
		return -ENOENT;
	*slash = '\0';
	return 0;
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), n_end = strlen(end);

	return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

/* The top of the build tree that `dir` of tgctl lies in: cuts `dir`; false if it is in none. */
static bool cut_to_build_tree(char *dir)
{
	static const char *const ends[] = {"/client/ctl", "/client/ctl/.libs"};
	size_t i;

	for (i = 0; i < TGS_ARRAY_LEN(ends); i++) {
		if (ends_with(dir, ends[i])) {
			dir[strlen(dir) - strlen(ends[i])] = '\0';
			return true;
		}
	}
	return false;
}

/* 1 if DIR/name can be accessed as `mode` says, then its path is in buf; else 0, or
 * -ENAMETOOLONG. */
static int try(const char *dir, const char *name, int mode, char *buf, size_t size)
{
	int n = snprintf(buf, size, "%s/%s", dir, name);

	if (n < 0 || (size_t)n >= size)
		return -ENAMETOOLONG;
	return access(buf, mode) == 0;
}

/* Looks into $PATH.  As try(). */
static int try_path(const char *name, char *buf, size_t size)
{
	const char *path = getenv("PATH"), *end;
	char dir[PATH_SIZE];
	int r = 0;

	while (r == 0 && path != NULL && *path != '\0') {
		end = strchrnul(path, ':');
		if (end > path && (size_t)(end - path) < sizeof(dir)) {
			memcpy(dir, path, (size_t)(end - path));
			dir[end - path] = '\0';
			r = try(dir, name, X_OK, buf, size);
		}
		path = *end == ':' ? end + 1 : end;
	}
	return r;
}

static int from_environment(const char *name, char *buf, size_t size)
{
	const char *value = getenv(name);

	if (value == NULL || *value == '\0')
		return 0;
	return snprintf(buf, size, "%s", value) < (int)size ? 1 : -ENAMETOOLONG;
}

/* The file of tgd.  What $TGD names is not checked: starting it will tell.  -ENOENT,
 * -ENAMETOOLONG. */
int tgc_find_daemon(char *buf, size_t size)
{
	char dir[PATH_SIZE];
	int r;

	r = from_environment("TGD", buf, size);
	if (r == 0 && own_dir(dir, sizeof(dir)) == 0) {
		r = try(dir, "tgd", X_OK, buf, size);
		if (r == 0 && cut_to_build_tree(dir))
			r = try(dir, "daemon/tgd", X_OK, buf, size);
	}
	if (r == 0)
		r = try(TGC_BINDIR, "tgd", X_OK, buf, size);
	if (r == 0)
		r = try_path("tgd", buf, size);
	return r > 0 ? 0 : r < 0 ? r : -ENOENT;
}

/* The file of libtgmalloc.so.  What $TG_PRELOAD_LIB names must be there, too: the dynamic linker
 * would only warn and go on without it.  -ENOENT, -ENAMETOOLONG. */
int tgc_find_preload(char *buf, size_t size)
{
	char dir[PATH_SIZE];
	int r;

	r = from_environment("TG_PRELOAD_LIB", buf, size);
	if (r > 0 && access(buf, R_OK) < 0)
		return -ENOENT;
	if (r == 0 && own_dir(dir, sizeof(dir)) == 0) {
		r = try(dir, "../lib/libtgmalloc.so", R_OK, buf, size);
		if (r == 0 && cut_to_build_tree(dir))
			r = try(dir, "client/malloc/.libs/libtgmalloc.so", R_OK, buf, size);
	}
	if (r == 0)
		r = try(TGC_LIBDIR, "libtgmalloc.so", R_OK, buf, size);
	return r > 0 ? 0 : r < 0 ? r : -ENOENT;
}
