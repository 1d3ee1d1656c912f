/* heap.c - how a worker comes to its heap: see alloc.h.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/tgbench/alloc.h"
#include "bench/tgbench/worker.h"

#if defined(TGB_TOGETHER)

void tgb_attach(void)
{
	if (tg_attach(NULL) < 0)
		tgb_die("%s", tg_attach_error());
}

void tgb_attach_child(void)
{
}

double tgb_messages(void)
{
	struct tg_stats stats = {.size = sizeof(stats)};

	return tg_stats(&stats) == 0 ? (double)stats.messages : 0;
}

void *tgb_shared_new(const char *name, size_t bytes)
{
	void *object = tg_calloc(1, bytes + 64);

	if (object == NULL || tg_root_set(name, object) < 0)
		tgb_die("no shared object");
	return tgb_shared_find(name, object);
}

/* On a cache line of its own. */
void *tgb_shared_find(const char *name, void *made)
{
	char *object = tg_root_get(name);

	(void)made;
	if (object == NULL)
		tgb_die("no shared object %s", name);
	return object + (-(uintptr_t)object & 63);
}

#else

void tgb_attach(void)
{
#ifdef TGB_PEER
	const char *wrong = tgb_peer_open((size_t)tgb_arg("segment", 256) << 20);

	if (wrong != NULL)
		tgb_die("%s", wrong);
#endif
}

void tgb_attach_child(void)
{
#ifdef TGB_PEER
	tgb_peer_open_child();
#endif
}

double tgb_messages(void)
{
	return 0;
}

void *tgb_shared_new(const char *name, size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		tgb_die("no shared memory for %s", name);
	return memory;
}

void *tgb_shared_find(const char *name, void *made)
{
	(void)name;
	return made;
}

#endif
