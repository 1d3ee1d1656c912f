/* headroom.c - read what the kernel says about free memory, and count it down.
 *
 * All files are small text files of the kernel's; each is read whole into a buffer on the stack.
 * Numbers that do not parse count as "no limit": a kernel or a container that hides a file must not
 * stop the heap.
 */
#include "daemon/headroom.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shm/base.h"

#define FRESH_MS     100
#define RESERVE_MIN  (UINT64_C(64) << 20)
#define RESERVE_PART 50 /* a 50th: 2 % */
#define PATH_SIZE    4096

void tgd_headroom_init(struct tgd_headroom *headroom)
{
	*headroom = (struct tgd_headroom){
		.meminfo = "/proc/meminfo",
		.self_cgroup = "/proc/self/cgroup",
		.cgroup_root = "/sys/fs/cgroup",
	};
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	/* Never 0, which stands for "not read yet". */
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 + 1;
}

/* The file's text, cut to the buffer; false if there is no such file, or nothing in it. */
static bool read_text(const char *path, char *text, size_t size)
{
	TGS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0;

	if (fd < 0)
		return false;
	while (n < size - 1) {
		ssize_t done = read(fd, text + n, size - 1 - n);

		if (done <= 0)
			break;
		n += (size_t)done;
	}
	text[n] = '\0';
	return n > 0;
}

/* The number after `key` at the start of a line; `otherwise` if there is none. */
static uint64_t field(const char *text, const char *key, uint64_t otherwise)
{
	size_t len = strlen(key);
	const char *line = text;

	while (line) {
		if (strncmp(line, key, len) == 0 && (line[len] == ' ' || line[len] == ':')) {
			const char *digits = line + len + strspn(line + len, ": \t");
			char *end;
			uint64_t value = strtoull(digits, &end, 10);

			return end != digits ? value : otherwise;
		}
		line = strchr(line, '\n');
		if (line)
			line++;
	}
	return otherwise;
}

static uint64_t machine_left(const struct tgd_headroom *headroom)
{
	char text[4096];
	uint64_t available, total, reserve;

	if (!read_text(headroom->meminfo, text, sizeof(text)))
		return UINT64_MAX;
	available = field(text, "MemAvailable", UINT64_MAX >> 10) << 10;
	total = field(text, "MemTotal", 0) << 10;
	reserve = tgs_max(RESERVE_MIN, total / RESERVE_PART);
	return available > reserve ? available - reserve : 0;
}

/* A number in a file of its own; "max", and what is not there, is UINT64_MAX. */
static uint64_t cgroup_number(const char *dir, const char *file)
{
	char path[PATH_SIZE + 32], text[64];
	char *end;
	uint64_t value;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	if (!read_text(path, text, sizeof(text)))
		return UINT64_MAX;
	value = strtoull(text, &end, 10);
	return end != text ? value : UINT64_MAX;
}

static uint64_t cgroup_left(const char *dir)
{
	uint64_t limit =
		tgs_min(cgroup_number(dir, "memory.max"), cgroup_number(dir, "memory.high"));
	uint64_t current, droppable = 0;
	char path[PATH_SIZE + 32], text[8192];

	if (limit == UINT64_MAX)
		return UINT64_MAX;
	current = cgroup_number(dir, "memory.current");
	if (current == UINT64_MAX)
		return UINT64_MAX;
	snprintf(path, sizeof(path), "%s/memory.stat", dir);
	if (read_text(path, text, sizeof(text)))
		droppable = field(text, "inactive_file", 0) + field(text, "active_file", 0) / 2;
	current -= tgs_min(current, droppable);
	return limit > current ? limit - current : 0;
}

/* The least of all cgroups from ours up to the root.  Ours is the line "0::/path" (version 2). */
static uint64_t cgroups_left(const struct tgd_headroom *headroom)
{
	size_t root_len = strlen(headroom->cgroup_root);
	char text[PATH_SIZE], dir[PATH_SIZE];
	uint64_t left = UINT64_MAX;
	char *line, *slash;

	if (!read_text(headroom->self_cgroup, text, sizeof(text)))
		return UINT64_MAX;
	line = strncmp(text, "0::/", 4) == 0 ? text : strstr(text, "\n0::/");
	if (!line)
		return UINT64_MAX;
	line = strchr(line, '/');
	line[strcspn(line, "\n")] = '\0';
	if (root_len + strlen(line) >= sizeof(dir))
		return UINT64_MAX;
	memcpy(dir, headroom->cgroup_root, root_len);
	strcpy(dir + root_len, line);

	for (;;) {
		left = tgs_min(left, cgroup_left(dir));
		slash = strrchr(dir + root_len, '/');
		if (!slash)
			return left;
		*slash = '\0';
	}
}

uint64_t tgd_headroom_read(struct tgd_headroom *headroom)
{
	headroom->left = tgs_min(machine_left(headroom), cgroups_left(headroom));
	headroom->read_at_ms = now_ms();
	return headroom->left;
}

bool tgd_headroom_take(struct tgd_headroom *headroom, uint64_t bytes)
{
	uint64_t margin = headroom->urgent ? 0 : TGD_HEADROOM_MARGIN;

	if (headroom->read_at_ms == 0 || now_ms() - headroom->read_at_ms >= FRESH_MS ||
	    headroom->left < bytes + margin)
		(void)tgd_headroom_read(headroom);
	if (headroom->left < bytes + margin)
		return false;
	headroom->left -= bytes;
	return true;
}

void tgd_headroom_give(struct tgd_headroom *headroom, uint64_t bytes)
{
	if (headroom->left <= UINT64_MAX - bytes)
		headroom->left += bytes;
}
