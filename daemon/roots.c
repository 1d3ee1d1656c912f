/* roots.c - see roots.h.
 *
 * A name is exchanged as under a sequence lock: generation odd, fence, name and hash, generation
 * even.  The ref is 0 meanwhile, and is stored last.  Names are few and changes are rare, so the
 * table is searched from its start.
 */
#include "daemon/roots.h"

#include <errno.h>
#include <string.h>

#include "shm/base.h"

/* ThreadSanitizer does not know fences.  What it then misses is order between atomics, no data
 * race. */
#if defined(__SANITIZE_THREAD__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif

void tgd_roots_init(struct tgd_roots *roots, const struct tgs_heap *view,
		    struct tgd_backing *backing)
{
	*roots = (struct tgd_roots){.view = view, .backing = backing};
}

/* The map is the daemon's to write; the view has it const because all others only read it. */
static struct tgs_root *entry_at(const struct tgd_roots *roots, uint64_t index)
{
	return (struct tgs_root *)(uintptr_t)roots->view->roots + index;
}

/* Lets a reader skip an entry without comparing the name. */
uint32_t tgd_roots_hash(const char *name)
{
	uint32_t hash = 2166136261u;

	for (; *name != '\0'; name++)
		hash = (hash ^ (uint8_t)*name) * 16777619u;
	return hash;
}

static uint64_t ref_of(const struct tgs_root *root)
{
	return atomic_load_explicit(&root->ref, memory_order_relaxed);
}

/* The entry that has this name and leads somewhere, and, if there is none, the place for a new one
 * (n_used: behind). */
static bool find(const struct tgd_roots *roots, const char *name, uint64_t *ret_index)
{
	uint32_t hash = tgd_roots_hash(name);
	uint64_t i, place = roots->n_used;

	for (i = 0; i < roots->n_used; i++) {
		const struct tgs_root *root = entry_at(roots, i);

		if (ref_of(root) == 0) {
			/* Its own old place is the best one: the name need not be written. */
			if (place == roots->n_used || strcmp(root->name, name) == 0)
				place = i;
			continue;
		}
		if (root->hash == hash && strcmp(root->name, name) == 0) {
			*ret_index = i;
			return true;
		}
	}
	*ret_index = place;
	return false;
}

static void write_name(struct tgs_root *root, const char *name)
{
	/* Odd already where a daemon was killed in here, and the next one could not look at the entry. */
	uint32_t odd = atomic_load_explicit(&root->generation, memory_order_relaxed) | 1;

	atomic_store_explicit(&root->generation, odd, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	memset(root->name, 0, sizeof(root->name));
	TGS_POINT();
	memcpy(root->name, name, strlen(name));
	TGS_POINT();
	root->hash = tgd_roots_hash(name);
	TGS_POINT();
	atomic_store_explicit(&root->generation, odd + 1, memory_order_release);
}

/* The name was being written: it was to be another one, of which not all is there. */
static void finish_name(struct tgs_root *root)
{
	uint32_t generation = atomic_load_explicit(&root->generation, memory_order_relaxed);

	if (generation % 2 == 0)
		return;
	memset(root->name, 0, sizeof(root->name));
	TGS_POINT();
	root->hash = tgd_roots_hash("");
	TGS_POINT();
	atomic_store_explicit(&root->generation, generation + 1, memory_order_release);
}

void tgd_roots_adopt(struct tgd_roots *roots, const struct tgs_heap *view,
		     struct tgd_backing *backing)
{
	uint64_t i;

	tgd_roots_init(roots, view, backing);
	roots->n_used = atomic_load_explicit(&view->map->n_roots, memory_order_acquire);
	for (i = 0; i <= roots->n_used && i < TGS_ROOTS_MAX; i++) {
		struct tgs_root *root = entry_at(roots, i);

		if (!tgd_backing_has_map(backing,
					 view->geometry.roots_at + i * sizeof(struct tgs_root),
					 sizeof(struct tgs_root)))
			continue;
		if (i == roots->n_used && ref_of(root) != 0)
			atomic_store_explicit(&root->ref, 0, memory_order_release);
		finish_name(root);
		roots->n_roots += ref_of(root) != 0;
	}
}

uint64_t tgd_roots_get(const struct tgd_roots *roots, const char *name)
{
	uint64_t index;

	return find(roots, name, &index) ? ref_of(entry_at(roots, index)) : 0;
}

static int add(struct tgd_roots *roots, uint64_t index, const char *name, uint64_t ref)
{
	struct tgs_map_header *header = (struct tgs_map_header *)(uintptr_t)roots->view->map;
	struct tgs_root *root;
	int r;

	if (index == TGS_ROOTS_MAX)
		return -ENOSPC;
	r = tgd_backing_map(roots->backing,
			    roots->view->geometry.roots_at + index * sizeof(struct tgs_root),
			    sizeof(struct tgs_root));
	if (r < 0)
		return r;
	root = entry_at(roots, index);
	if (index == roots->n_used || strcmp(root->name, name) != 0)
		write_name(root, name);
	atomic_store_explicit(&root->ref, ref, memory_order_release);
	if (index == roots->n_used)
		atomic_store_explicit(&header->n_roots, ++roots->n_used, memory_order_release);
	roots->n_roots++;
	return 0;
}

int tgd_roots_set(struct tgd_roots *roots, const char *name, uint64_t ref, bool compare,
		  uint64_t expected)
{
	struct tgs_root *root;
	uint64_t index;
	bool found;

	if (name[0] == '\0')
		return -EINVAL;
	if (strnlen(name, TGS_ROOT_NAME_SIZE) == TGS_ROOT_NAME_SIZE)
		return -ENAMETOOLONG;

	found = find(roots, name, &index);
	root = found ? entry_at(roots, index) : NULL;
	if (compare && (found ? ref_of(root) : 0) != expected)
		return -EAGAIN;
	if (!found && ref == 0)
		return compare ? 0 : -ENOENT;
	if (!found)
		return add(roots, index, name, ref);
	atomic_store_explicit(&root->ref, ref, memory_order_release);
	if (ref == 0)
		roots->n_roots--;
	return 0;
}

uint64_t tgd_roots_from(const struct tgd_roots *roots, uint64_t index)
{
	while (index < roots->n_used && ref_of(entry_at(roots, index)) == 0)
		index++;
	return tgs_min(index, roots->n_used);
}

const struct tgs_root *tgd_roots_entry(const struct tgd_roots *roots, uint64_t index)
{
	return entry_at(roots, index);
}
