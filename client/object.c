/* object.c - what can be asked of an object that exists: its size, its ref, to be published, to be another size.
 */
#include "client/tg.h"

#include <errno.h>
#include <string.h>

#include "client/cache.h"

/* A live object at p, in a heap that we are attached to. */
static bool find_live(const void *p, struct tgs_object *ret)
{
	return tgs_object_find(&tgc_heap, p, ret) == TGS_FOUND && tgs_object_live(&tgc_heap, ret);
}

TG_API size_t tg_usable_size(const void *object)
{
	struct tgs_object found;

	if (!object)
		return 0;
	if (!find_live(object, &found)) {
		errno = EFAULT;
		return 0;
	}
	return tgs_object_size(&tgc_heap, &found);
}

TG_API tg_ref tg_to_ref(const void *object)
{
	if (!object)
		return 0;
	if ((const uint8_t *)object < tgc_heap.data ||
	    (uint64_t)((const uint8_t *)object - tgc_heap.data) >= tgc_heap.data_bytes) {
		errno = EFAULT;
		return 0;
	}
	return tgs_ref_of(&tgc_heap, object);
}

TG_API void *tg_from_ref(tg_ref ref)
{
	if (ref == 0)
		return NULL;
	if (ref < tgc_heap.geometry.data_at || ref >= tgc_heap.geometry.heap_bytes) {
		errno = EFAULT;
		return NULL;
	}
	return tgc_heap.base + ref;
}

TG_API int tg_publish(const void *object)
{
	struct tgs_object found;
	int r;

	if (!find_live(object, &found))
		return -EFAULT;
	r = tgc_state_back(&found);
	if (r < 0)
		return r;
	tgs_publish(&tgc_heap, &found);
	return 0;
}

/* Would an object of `size` bytes lie where this one lies?  Small ones: in the same class.  Tiny ones: in the room it
 * has, unless they would not be tiny any more, or not aligned for their new size. */
static bool fits_in_place(const struct tgs_object *object, size_t size)
{
	unsigned class = object->span.class;

	if (class == TGS_CLASS_TINY)
		return size <= TGS_TINY_MAX && (object->index & tgc_tiny_align_mask(size)) == 0 &&
		       size <= tgs_object_size(&tgc_heap, object);
	/* Pages of its own (tgc_demand_alone). */
	if (class == 0 && size <= TGS_SMALL_MAX) {
		size_t have = object->span.n_pages << TGS_PAGE_SHIFT;

		return size <= have && size > have / 2;
	}
	/* A class may also hold smaller objects that tg_aligned_alloc put there; moving those loses their alignment, as
	 * C allows. */
	return class != 0 && size > TGS_TINY_MAX && size <= TGS_SMALL_MAX &&
	       tgs_size_to_class(size) == class;
}

TG_API void *tg_realloc(void *object, size_t size)
{
	struct tgs_object found;
	size_t old_size;
	void *p;

	if (!object)
		return tg_malloc(size);
	if (size == 0) {
		tg_free(object);
		return NULL;
	}
	if (!find_live(object, &found)) {
		/* The report is that of a free: this is one, too. */
		tg_free(object);
		errno = EFAULT;
		return NULL;
	}
	if (fits_in_place(&found, size))
		return object;
	if (found.span.class == 0 && size > TGS_SMALL_MAX) {
		p = tgc_large_realloc(object, found.span.page, size);
		if (p)
			return p;
	}
	old_size = tgs_object_size(&tgc_heap, &found);
	p = NULL;
	if (size > TGS_SMALL_MAX && size > old_size)
		p = tg_malloc(tgc_large_grown(size));
	if (!p)
		p = tg_malloc(size);
	if (!p)
		return NULL;
	memcpy(p, object, old_size < size ? old_size : size);
	tg_free(object);
	return p;
}
