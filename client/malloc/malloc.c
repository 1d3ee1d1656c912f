/* malloc.c - malloc and its family for an unmodified program: LD_PRELOAD=libtgmalloc.so.
 *
 * Each call is libtg's, with three differences.  Objects are always aligned to 16 bytes: C11 asks
 * for the alignment of any type, and gcc takes the low three bits of a pointer from malloc for
 * zero whatever the size, so requests below 16 are rounded up to 16 and those of 17..24 to 32
 * (docs/malloc.md).  What the heap cannot serve for want of a daemon is the C library's.  And
 * errors are those of the C library: errno is ENOMEM, and a success leaves errno as it was.
 */
#include "client/malloc/dropin.h"

#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <string.h>

#include "client/cache.h"
#include "client/tg.h"
#include "shm/sizeclass.h"

#define ALIGN 16u

/* The size whose class has slots aligned to 16: all but the tiny ones and the class of 24
 * bytes have. */
static inline size_t round_up(size_t size)
{
	if (TGS_LIKELY(size > 24))
		return size;
	return size <= 16 ? 16 : 32;
}

static void *from_libc(size_t align, size_t size, bool zero)
{
	if (zero)
		return __libc_calloc(1, size);
	if (align > ALIGN)
		return __libc_memalign(align, size);
	return __libc_malloc(size);
}

static void *from_heap(size_t align, size_t size, bool zero)
{
	if (zero)
		return tg_calloc(1, size);
	if (align > ALIGN)
		return tg_aligned_alloc(align, size);
	return tg_malloc(size);
}

/* Everything but the common cases: the first call, a heap that is full, a daemon that is gone. */
static TGS_COLD void *allocate_slow(size_t align, size_t size, bool zero)
{
	enum tgc_next next = tgc_dropin_failed();
	void *p = NULL;

	if (next == TGC_NEXT_RETRY) {
		p = from_heap(align, round_up(size), zero);
		if (!p)
			next = tgc_dropin_failed();
	}
	if (!p && next != TGC_NEXT_FAIL)
		p = from_libc(align, size, zero);
	/* What errno was before, nobody knows any more; that it is not 0 would be taken for an
	 * error by programs that set it to 0, call readdir, and allocate in between. */
	errno = p ? 0 : ENOMEM;
	return p;
}

static inline void *allocate(size_t align, size_t size, bool zero)
{
	void *p;

	if (TGS_UNLIKELY(tgc_use_libc))
		return from_libc(align, size, zero);
	p = from_heap(align, round_up(size), zero);
	if (TGS_UNLIKELY(!p))
		return allocate_slow(align, size, zero);
	return p;
}

static TGS_COLD void *malloc_slow(size_t size)
{
	return allocate(0, size, false);
}

/* The common case of tg_malloc is taken in here: a call and a look at what it returned less. */
TG_API __attribute__((aligned(64))) void *malloc(size_t size)
{
	void *p;

	if (TGS_LIKELY(size <= TGS_FINE_MAX) && TGS_LIKELY(!tgc_use_libc)) {
		p = tgc_small_at_hand(tgs_size_to_class(round_up(size)), NULL);
		if (TGS_LIKELY(p != NULL))
			return p;
	}
	return malloc_slow(size);
}

TG_API void *calloc(size_t n, size_t size)
{
	size_t bytes;

	if (TGS_UNLIKELY(__builtin_mul_overflow(n, size, &bytes))) {
		errno = ENOMEM;
		return NULL;
	}
	return allocate(0, bytes, true);
}

bool tgc_malloc_frees(void *object)
{
	if (!tgc_in_heap(object)) {
		__libc_free(object);
		return true;
	}
	/* A forked child's copy of its parent's object is only forgotten. */
	return TGS_UNLIKELY(tgc_inherited != NULL) &&
	       (tgc_is_inherited(object) || tgc_is_strange(object));
}

/* What is in a span of ours, most objects are, is freed without a further question. */
TG_API void free(void *object)
{
	tg_free(object);
}

/* The C library has no second name for this one. */
static size_t libc_usable_size(void *object)
{
	static size_t (*_Atomic usable_size)(void *);

	if (!usable_size)
		usable_size = (size_t(*)(void *))tgc_next_function("malloc_usable_size");
	return usable_size ? usable_size(object) : 0;
}

/* Some programs ask after each malloc.  No object here is tiny, and whoever asks for one that is not live gets any answer
 * from the C library, too. */
static inline size_t small_size(const void *object)
{
	uint64_t page = (uint64_t)((const uint8_t *)object - tgc_heap.data) >> TGS_PAGE_SHIFT;
	unsigned class = tgs_entry_class(
		atomic_load_explicit(&tgc_heap.page_map[page], memory_order_relaxed));

	return class < TGS_CLASSES ? tgs_classes[class].size : 0;
}

TG_API size_t malloc_usable_size(void *object)
{
	size_t size;

	if (!object)
		return 0;
	if (TGS_UNLIKELY(!tgc_in_heap(object)))
		return libc_usable_size(object);
	if (TGS_UNLIKELY(tgc_is_inherited(object)))
		return tgc_inherited_size(object);
	size = small_size(object);
	return TGS_LIKELY(size != 0) ? size : tg_usable_size(object);
}

/* From the C library, or from a parent, to where new objects are. */
static void *move(void *object, size_t size)
{
	size_t old_size = malloc_usable_size(object);
	void *p = malloc(size);

	if (!p)
		return NULL;
	memcpy(p, object, old_size < size ? old_size : size);
	free(object);
	return p;
}

TG_API void *realloc(void *object, size_t size)
{
	void *p;

	if (!object)
		return malloc(size);
	if (size == 0) {
		free(object);
		return NULL;
	}
	if (TGS_UNLIKELY(size > PTRDIFF_MAX)) {
		errno = ENOMEM;
		return NULL;
	}
	if (TGS_UNLIKELY(!tgc_in_heap(object)))
		return tgc_use_libc ? __libc_realloc(object, size) : move(object, size);
	if (TGS_UNLIKELY(tgc_use_libc) || TGS_UNLIKELY(tgc_is_inherited(object)))
		return move(object, size);
	p = tg_realloc(object, round_up(size));
	if (TGS_UNLIKELY(!p) && errno == ENOTCONN)
		return move(object, size);
	if (TGS_UNLIKELY(!p))
		errno = ENOMEM;
	return p;
}

TG_API void *reallocarray(void *object, size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(object, bytes);
}

/* As the C library does it: what is no power of two is rounded up to one. */
TG_API void *memalign(size_t align, size_t size)
{
	size_t power = ALIGN;

	if (align > SIZE_MAX / 2 + 1) {
		errno = EINVAL;
		return NULL;
	}
	while (power < align)
		power *= 2;
	return allocate(power, size, false);
}

TG_API void *aligned_alloc(size_t align, size_t size)
{
	return memalign(align, size);
}

TG_API int posix_memalign(void **ret, size_t align, size_t size)
{
	int saved_errno = errno;
	void *p;

	if (align % sizeof(void *) != 0 || !tgs_is_power_of_two(align))
		return EINVAL;
	p = memalign(align, size);
	errno = saved_errno;
	if (!p)
		return ENOMEM;
	*ret = p;
	return 0;
}

TG_API void *valloc(size_t size)
{
	return memalign(TGS_OS_PAGE, size);
}

TG_API void *pvalloc(size_t size)
{
	if (size > PTRDIFF_MAX) {
		errno = ENOMEM;
		return NULL;
	}
	return valloc(tgs_round_up(size, TGS_OS_PAGE));
}
