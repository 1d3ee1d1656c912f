/* keep.c - what the C library must keep in its own memory: open files, and values of thread-
 * specific keys.
 *
 * In a child of a process with several threads, fork() itself makes all files' locks free and
 * clears the other threads' thread-specific values, before any fork handler runs.  Were they in
 * the heap, which is still shared at that moment, it would do so to the parent.  So the calls
 * that make them are done with the C library's allocator.  (glibc 2.36, nptl/fork.c:
 * fresetlockfiles, reclaim_stacks.  Its third such object, the state of the name service, has a
 * lock that is free whenever no look-up is just reading nsswitch.conf.)
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <threads.h>
#include <wchar.h>

#include "client/malloc/dropin.h"

void *tgc_next_function(const char *name)
{
	bool was = tgc_use_libc;
	void *p;

	tgc_use_libc = true;
	p = dlsym(RTLD_NEXT, name);
	tgc_use_libc = was;
	return p;
}

static void *next(const char *name, void *_Atomic *known)
{
	void *p = *known;

	if (!p)
		*known = p = tgc_next_function(name);
	return p;
}

/* Defines `name` as a call of the C library's function with its allocator. */
#define KEEP(result, failed, name, parameters, arguments)             \
	TG_API result name parameters                                 \
	{                                                             \
		static void *_Atomic known;                           \
		result(*function) parameters;                         \
		bool was = tgc_use_libc;                              \
		result r = failed;                                    \
                                                                      \
		tgc_use_libc = true;                                  \
		function = (result(*) parameters)next(#name, &known); \
		if (function)                                         \
			r = function arguments;                       \
		else                                                  \
			errno = ENOSYS;                               \
		tgc_use_libc = was;                                   \
		return r;                                             \
	}

KEEP(FILE *, NULL, fopen, (const char *path, const char *mode), (path, mode))
KEEP(FILE *, NULL, fopen64, (const char *path, const char *mode), (path, mode))
KEEP(FILE *, NULL, fdopen, (int fd, const char *mode), (fd, mode))
KEEP(FILE *, NULL, popen, (const char *command, const char *mode), (command, mode))
KEEP(FILE *, NULL, tmpfile, (void), ())
KEEP(FILE *, NULL, tmpfile64, (void), ())
KEEP(FILE *, NULL, fmemopen, (void *buffer, size_t size, const char *mode), (buffer, size, mode))
KEEP(FILE *, NULL, open_memstream, (char **text, size_t *size), (text, size))
KEEP(FILE *, NULL, open_wmemstream, (wchar_t * *text, size_t *size), (text, size))
KEEP(FILE *, NULL, fopencookie, (void *cookie, const char *mode, cookie_io_functions_t functions),
     (cookie, mode, functions))
KEEP(int, ENOSYS, pthread_setspecific, (pthread_key_t key, const void *value), (key, value))
KEEP(int, thrd_error, tss_set, (tss_t key, void *value), (key, value))
