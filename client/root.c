/* root.c - names that lead to objects: set by the daemon on request, looked up in shared memory by everybody.
 */
#include "client/tg.h"

#include <errno.h>
#include <string.h>

#include "client/cache.h"
#include "client/rpc.h"

static int check_name(const char *name)
{
	char clean[TGS_ROOT_NAME_SIZE];

	if (!name || name[0] == '\0')
		return -EINVAL;
	if (strnlen(name, TGS_ROOT_NAME_SIZE) >= TGS_ROOT_NAME_SIZE)
		return -ENAMETOOLONG;
	/* What the wire does not take: control characters, and what is not UTF-8. */
	memcpy(clean, name, strlen(name) + 1);
	tgp_text_clean(clean, sizeof(clean) - 1);
	return strcmp(clean, name) == 0 ? 0 : -EINVAL;
}

static int root_set(const char *name, const void *object, bool compare, const void *expected)
{
	Tgd__RootSet body = TGD__ROOT_SET__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	int r;

	r = check_name(name);
	if (r < 0)
		return r;
	if (!tgc_enter())
		return -errno;
	/* The daemon publishes it, with the root: were we to do it and be killed then, nobody would find it. */
	if (object && tg_usable_size(object) == 0)
		return -EFAULT;
	if (compare && expected && tg_to_ref(expected) == 0)
		return -EAGAIN; /* no root leads out of the heap */
	body.name = (char *)(uintptr_t)name;
	body.ref = tg_to_ref(object);
	body.compare = compare;
	body.expected = tg_to_ref(expected);
	request.body_case = TGD__REQUEST__BODY_ROOT_SET;
	request.root_set = &body;
	tgc_rpc_begin();
	r = tgc_rpc_call(&request, TGD__REPLY__BODY__NOT_SET, NULL);
	tgc_rpc_end();
	return r;
}

TG_API int tg_root_set(const char *name, const void *object)
{
	return root_set(name, object, false, NULL);
}

TG_API int tg_root_cas(const char *name, const void *expected, const void *desired)
{
	return root_set(name, desired, true, expected);
}

/* What the entry leads to, if it has this name; 0 if not, or if it is being changed. */
static uint64_t read_root(const struct tgs_root *root, const char *name, size_t len)
{
	uint32_t generation = atomic_load_explicit(&root->generation, memory_order_acquire);
	uint64_t ref;

	if (generation & 1)
		return 0;
	ref = atomic_load_explicit(&root->ref, memory_order_acquire);
	if (ref == 0 || memcmp(root->name, name, len + 1) != 0)
		return 0;
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit(&root->generation, memory_order_relaxed) == generation ? ref
											   : 0;
}

TG_API void *tg_root_get(const char *name)
{
	uint64_t n, i, ref;
	int r;

	r = check_name(name);
	if (r < 0) {
		errno = -r;
		return NULL;
	}
	if (!tgc_enter())
		return NULL;
	n = atomic_load_explicit(&tgc_heap.map->n_roots, memory_order_acquire);
	for (i = 0; i < tgs_min(n, TGS_ROOTS_MAX); i++) {
		ref = read_root(&tgc_heap.roots[i], name, strlen(name));
		if (ref != 0)
			return tg_from_ref(ref);
	}
	errno = ENOENT;
	return NULL;
}
