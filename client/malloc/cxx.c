/* cxx.c - C++ operator new and delete, by their mangled names.
 *
 * When memory runs out they do what C++ asks: call the new handler until it gives up, then throw
 * std::bad_alloc, which is done by libstdc++'s own function, looked up only then; a C program
 * never needs it.
 */
#include <dlfcn.h>
#include <stdlib.h>

#include "client/malloc/dropin.h"

#define NOTHROW const void *nothrow __attribute__((unused))

/* From libstdc++, even if it is only known to a library that was loaded later. */
static void *find(const char *symbol)
{
	bool was = tgc_use_libc;
	void *p, *library;

	tgc_use_libc = true;
	p = dlsym(RTLD_DEFAULT, symbol);
	if (!p) {
		library = dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_NOLOAD);
		if (library)
			p = dlsym(library, symbol);
	}
	tgc_use_libc = was;
	return p;
}

static TGS_COLD void *new_slow(size_t align, size_t size, bool throws)
{
	void (*(*get_handler)(void))(void) =
		(void (*(*)(void))(void))find("_ZSt15get_new_handlerv");
	void (*throw_bad_alloc)(void) = (void (*)(void))find("_ZSt17__throw_bad_allocv");
	void (*handler)(void);
	void *p;

	while (get_handler && (handler = get_handler())) {
		handler();
		p = align ? aligned_alloc(align, size) : malloc(size);
		if (p)
			return p;
	}
	if (!throws)
		return NULL;
	if (throw_bad_alloc)
		throw_bad_alloc();
	tgc_dropin_say("operator new: out of memory, and no libstdc++ to throw std::bad_alloc", "");
	abort();
}

static inline void *new_plain(size_t size, bool throws)
{
	void *p = malloc(size);

	return TGS_LIKELY(p != NULL) ? p : new_slow(0, size, throws);
}

static inline void *new_aligned(size_t size, size_t align, bool throws)
{
	void *p = aligned_alloc(align, size);

	return TGS_LIKELY(p != NULL) ? p : new_slow(align, size, throws);
}

/* The names are C++'s: Zn new, Zd delete; w and a: plain and array; m, St11align_val_t,
 * RKSt9nothrow_t: the arguments. */
#define NEW(kind)                                                                                  \
	TG_API void *_Zn##kind##m(size_t size);                                                    \
	TG_API void *_Zn##kind##m(size_t size)                                                     \
	{                                                                                          \
		return new_plain(size, true);                                                      \
	}                                                                                          \
	TG_API void *_Zn##kind##mRKSt9nothrow_t(size_t size, NOTHROW);                             \
	TG_API void *_Zn##kind##mRKSt9nothrow_t(size_t size, NOTHROW)                              \
	{                                                                                          \
		return new_plain(size, false);                                                     \
	}                                                                                          \
	TG_API void *_Zn##kind##mSt11align_val_t(size_t size, size_t align);                       \
	TG_API void *_Zn##kind##mSt11align_val_t(size_t size, size_t align)                        \
	{                                                                                          \
		return new_aligned(size, align, true);                                             \
	}                                                                                          \
	TG_API void *_Zn##kind##mSt11align_val_tRKSt9nothrow_t(size_t size, size_t align,          \
							       NOTHROW);                           \
	TG_API void *_Zn##kind##mSt11align_val_tRKSt9nothrow_t(size_t size, size_t align, NOTHROW) \
	{                                                                                          \
		return new_aligned(size, align, false);                                            \
	}

#define DELETE(name, ...)                         \
	TG_API void name(void *p, ##__VA_ARGS__); \
	TG_API void name(void *p, ##__VA_ARGS__)  \
	{                                         \
		free(p);                          \
	}

#define SIZE  size_t size __attribute__((unused))
#define ALIGN size_t align __attribute__((unused))
#define DELETES(kind)                                      \
	DELETE(_Zd##kind##Pv)                              \
	DELETE(_Zd##kind##Pvm, SIZE)                       \
	DELETE(_Zd##kind##PvRKSt9nothrow_t, NOTHROW)       \
	DELETE(_Zd##kind##PvSt11align_val_t, ALIGN)        \
	DELETE(_Zd##kind##PvmSt11align_val_t, SIZE, ALIGN) \
	DELETE(_Zd##kind##PvSt11align_val_tRKSt9nothrow_t, ALIGN, NOTHROW)

NEW(w)
NEW(a)
DELETES(l)
DELETES(a)
