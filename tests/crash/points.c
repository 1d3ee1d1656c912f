/* points.c - what a process does at a point, and the control block that tells it.
 *
 * Nothing here is a point itself.
 */
#define TGT_NO_POINTS
#include "tests/crash/points.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/handover.h"
#include "tests/crash/control.h"

struct tgt_control *tgt_control;

static enum tgt_role role;
static void (*at_pause)(void);

enum tgt_role tgt_my_role(void)
{
	return role;
}

/* The linker's names for the ends of the section. */
extern struct tgt_site __start_tg_points[], __stop_tg_points[];

/* From the folder on: the name with which the compiler was called has a path before it. */
static const char *short_name(const char *file)
{
	static const char *const folders[] = {"shm/", "client/", "daemon/", "proto/"};
	unsigned i;

	for (i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		const char *at = file, *last = NULL;

		while ((at = strstr(at, folders[i])) != NULL) {
			if (at == file || at[-1] == '/')
				last = at;
			at++;
		}
		if (last != NULL)
			return last;
	}
	return file;
}

/* The list is the same in every process of the program. */
static void enter_sites(void)
{
	size_t n = (size_t)(__stop_tg_points - __start_tg_points), i;

	if (n > TGT_SITES_MAX)
		abort();
	if (atomic_load(&tgt_control->n_sites[role]) != 0)
		return;
	for (i = 0; i < n; i++) {
		struct tgt_site_info *info = &tgt_control->site[role][i];

		snprintf(info->file, sizeof(info->file), "%s",
			 short_name(__start_tg_points[i].file));
		snprintf(info->what, sizeof(info->what), "%s", __start_tg_points[i].what);
		info->line = __start_tg_points[i].line;
	}
	atomic_store(&tgt_control->n_sites[role], (uint32_t)n);
}

static bool map_control(int fd)
{
	void *p = mmap(NULL, sizeof(*tgt_control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return false;
	tgt_control = p;
	enter_sites();
	return true;
}

/* The keeper tells the process that it starts what it is. */
static bool is_worker(void)
{
	const char *given = getenv("TGD_HANDOVER");
	char worker[16];

	snprintf(worker, sizeof(worker), "role=%d ", (int)TGD_ROLE_WORKER);
	return given != NULL && strstr(given, worker) != NULL;
}

__attribute__((constructor)) static void find_control(void)
{
	const char *path = getenv(TGT_CONTROL_VARIABLE);
	int fd;

	if (strncmp(program_invocation_short_name, "tgd", 3) != 0)
		role = TGT_CLIENT;
	else
		role = is_worker() ? TGT_DAEMON : TGT_KEEPER;
	if (path == NULL)
		return;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || !map_control(fd))
		_exit(125);
	close(fd);
}

bool tgt_control_make(void)
{
	char path[64];
	int fd = memfd_create("tg-crash-control", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, sizeof(*tgt_control)) < 0 || !map_control(fd))
		return false;
	/* The descriptor stays open: it is the file's name. */
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fd);
	return setenv(TGT_CONTROL_VARIABLE, path, 1) == 0;
}

void tgt_arm(enum tgt_role whom, uint32_t pid, uint64_t k, int signal)
{
	struct tgt_aim *aim = &tgt_control->aim[whom];

	aim->pid = pid;
	aim->pause_file[0] = '\0';
	aim->signal = (uint32_t)signal;
	atomic_store(&aim->left, k == 0 ? INT64_MAX : (int64_t)k);
	atomic_store(&aim->next, 0);
	atomic_store(&aim->n_passed, 0);
	atomic_store(&aim->n_fired, 0);
	atomic_store(&aim->fired, 0);
	atomic_store(&aim->armed, 1);
}

void tgt_arm_next(enum tgt_role whom, uint64_t k)
{
	atomic_store(&tgt_control->aim[whom].next, k == 0 ? INT64_MAX : (int64_t)k);
}

void tgt_pause_at(enum tgt_role whom, const char *file, const char *what, void (*then)(void))
{
	struct tgt_aim *aim = &tgt_control->aim[whom];

	at_pause = then;
	snprintf(aim->pause_what, sizeof(aim->pause_what), "%s", what);
	snprintf(aim->pause_file, sizeof(aim->pause_file), "%s", file);
	atomic_store(&aim->paused, 0);
}

void tgt_disarm(enum tgt_role whom)
{
	atomic_store(&tgt_control->aim[whom].armed, 0);
}

const struct tgt_site_info *tgt_fired(enum tgt_role whom)
{
	uint32_t fired = atomic_load(&tgt_control->aim[whom].fired);

	return fired == 0 ? NULL : &tgt_control->site[whom][fired - 1];
}

static void fire(struct tgt_aim *aim, uint32_t index)
{
	int64_t next = atomic_exchange(&aim->next, 0);

	if (next == 0)
		atomic_store(&aim->armed, 0);
	else
		atomic_store(&aim->left, next);
	atomic_fetch_add(&tgt_control->site[role][index].fired, 1);
	atomic_fetch_add(&aim->n_fired, 1);
	atomic_store(&aim->fired_pid, (uint32_t)getpid());
	atomic_store(&aim->fired, index + 1);
	/* Comes back only from SIGSTOP. */
	raise((int)aim->signal);
}

static void pause_here(struct tgt_aim *aim, const struct tgt_site_info *info)
{
	if (at_pause == NULL || aim->pause_file[0] == '\0' ||
	    strcmp(info->file, aim->pause_file) != 0 || strcmp(info->what, aim->pause_what) != 0 ||
	    atomic_exchange(&aim->paused, 1) != 0)
		return;
	at_pause();
}

void tgt_point(const struct tgt_site *site, const volatile void *address)
{
	struct tgt_aim *aim;
	uint32_t index;
	uint64_t n;

	if (tgt_control == NULL)
		return;
	aim = &tgt_control->aim[role];
	if (atomic_load(&aim->armed) == 0 || (aim->pid != 0 && aim->pid != (uint32_t)getpid()))
		return;
	index = (uint32_t)(site - __start_tg_points);
	atomic_fetch_add(&tgt_control->site[role][index].passed, 1);
	if (role == TGT_CLIENT && address != NULL && tgt_control->to != 0 &&
	    ((uintptr_t)address < tgt_control->from || (uintptr_t)address >= tgt_control->to))
		return;
	pause_here(aim, &tgt_control->site[role][index]);
	n = atomic_fetch_add(&aim->n_passed, 1);
	if (n < TGT_TRACE_MAX)
		tgt_control->trace[role][n] = (uint16_t)index;
	if (atomic_fetch_sub(&aim->left, 1) == 1)
		fire(aim, index);
}
