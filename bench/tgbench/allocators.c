/* allocators.c - the allocators that tgbench knows, and which of them are on this machine.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/tgbench/tgbench.h"

static const struct tgb_allocator known[] = {
	{"together", TGB_SELF, "tgb-together", NULL, NULL, NULL, true},
	{"tg-preload", TGB_PRELOAD, "tgb-malloc", "libtgmalloc.so", NULL, NULL, true},
	{"glibc", TGB_PRIVATE, "tgb-malloc", NULL, NULL, NULL, true},
	{"tcmalloc", TGB_PRIVATE, "tgb-malloc", "libtcmalloc_minimal.so.4", NULL, NULL, true},
	{"jemalloc", TGB_PRIVATE, "tgb-malloc", "libjemalloc.so.2", NULL, NULL, true},
	{"mimalloc", TGB_PRIVATE, "tgb-malloc", "libmimalloc.so.2.0", NULL, NULL, true},
	{"tbbmalloc", TGB_PRIVATE, "tgb-malloc", "libtbbmalloc_proxy.so.2", NULL, NULL, true},
	{"boost", TGB_SHARED, "tgb-boost", NULL, NULL, NULL, true},
	{"apr-rmm", TGB_SHARED, "tgb-apr", NULL, NULL, NULL, true},
	{"go", TGB_GO, "tgb-go", NULL, "GOGC=100", NULL, true},
	{"go-nogc", TGB_GO, "tgb-go", NULL, "GOGC=off", NULL, true},
};

static char *own_folder(void)
{
	static char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	path[n > 0 ? n : 0] = '\0';
	*strrchr(path, '/') = '\0';
	return path;
}

const char *tgb_built(const char *variable, const char *relative)
{
	const char *set = variable != NULL ? getenv(variable) : NULL;
	char *path;

	if (set != NULL && *set != '\0')
		return set;
	if (asprintf(&path, "%s/%s", own_folder(), relative) < 0)
		tgb_fail("out of memory");
	return path;
}

static void add(struct tgb_bench *b, const struct tgb_allocator *a)
{
	struct tgb_allocator *added;

	if (b->n_allocators == TGB_ALLOCATORS)
		tgb_fail("more than %d allocators", TGB_ALLOCATORS);
	added = &b->allocators[b->n_allocators++];
	*added = *a;
	added->worker = tgb_built(NULL, a->worker);
	if (a->kind == TGB_PRELOAD)
		added->preload = tgb_built("TGMALLOC", "../../client/malloc/.libs/libtgmalloc.so");
}

void tgb_allocators_init(struct tgb_bench *b)
{
	unsigned i;

	for (i = 0; i < sizeof(known) / sizeof(*known); i++)
		add(b, &known[i]);
}

bool tgb_allocators_add(struct tgb_bench *b, const char *text)
{
	struct tgb_allocator a = {.kind = TGB_PRIVATE, .worker = "tgb-malloc", .wanted = true};
	const char *is = strchr(text, '=');

	if (is == NULL || is == text || is[1] == '\0')
		return false;
	a.name = strndup(text, (size_t)(is - text));
	a.preload = realpath(is + 1, NULL);
	if (a.name == NULL || tgb_find_allocator(b, a.name) >= 0)
		return false;
	if (a.preload == NULL) {
		a.preload = is + 1;
		a.missing = strerror(errno);
	}
	add(b, &a);
	return true;
}

void tgb_allocators_without_plt(struct tgb_bench *b)
{
	unsigned i;

	for (i = 0; i < b->n_allocators; i++) {
		if (b->allocators[i].kind == TGB_PRIVATE)
			b->allocators[i].worker = tgb_built(NULL, "tgb-malloc-noplt");
	}
}

void tgb_allocators_probe(struct tgb_bench *b)
{
	unsigned i;

	for (i = 0; i < b->n_allocators; i++) {
		struct tgb_allocator *a = &b->allocators[i];

		if (!a->wanted || a->missing != NULL)
			continue;
		if (access(a->worker, X_OK) < 0)
			a->missing = "not built: configure did not find what it needs";
		else
			a->missing = tgb_run_probe(a);
	}
}
