/* start.c - the first allocation attaches the process; if that cannot be, the C library's
 * allocator serves it.
 *
 * A program that has nothing to do with the heap must not die because no daemon runs, so there is
 * one line on standard error and the program goes on.  A heap that is full is another matter: a
 * limit is a limit, and the call fails.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/malloc/dropin.h"
#include "client/prefetch.h"

enum { NEW, ATTACHED, FAILED };

pthread_mutex_t tgc_dropin_lock = PTHREAD_MUTEX_INITIALIZER;

static _Atomic int state;
static atomic_bool said_lost;

void tgc_dropin_say(const char *what, const char *why)
{
	char line[512];
	int n;

	n = snprintf(line, sizeof(line), "together: libtgmalloc: %.60s (pid %d): %s%s%.300s\n",
		     program_invocation_short_name, (int)getpid(), what, *why == '\0' ? "" : ": ",
		     why);
	if (n > 0) {
		ssize_t written =
			write(STDERR_FILENO, line, tgs_min((uint64_t)n, sizeof(line) - 1));

		(void)written;
	}
}

static void start(void)
{
	struct tg_options options = {.size = sizeof(options), .flags = TG_RECLAIM | TG_AUTOSTART};
	int r;

	tgc_fork_init();
	tgc_saved.is_malloc = true;
	r = tg_attach(&options);
	if (r == 0) {
		r = tgc_fork_ready();
		if (r == 0) {
			(void)tgc_cache_get();
			atomic_store(&state, ATTACHED);
			return;
		}
		(void)tg_detach();
	}
	tgc_dropin_say("cannot use the shared heap, and goes on with the C library's malloc",
		       tg_attach_error()[0] != '\0' ? tg_attach_error() : strerror(-r));
	atomic_store(&state, FAILED);
}

static void start_once(void)
{
	int cancel_state;

	tgc_use_libc = true;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	pthread_mutex_lock(&tgc_dropin_lock);
	if (atomic_load(&state) == NEW)
		start();
	pthread_mutex_unlock(&tgc_dropin_lock);
	pthread_setcancelstate(cancel_state, NULL);
	tgc_use_libc = false;
}

enum tgc_next tgc_dropin_failed(void)
{
	int error = errno;

	if (atomic_load(&state) == NEW) {
		/* Before the C library has been started there is no environment that could
		 * name the socket. */
		if (!environ)
			return TGC_NEXT_LIBC;
		start_once();
		errno = error;
		if (atomic_load(&state) == ATTACHED)
			return TGC_NEXT_RETRY;
	}
	if (atomic_load(&state) == FAILED) {
		tgc_use_libc = true; /* for this thread for good */
		return TGC_NEXT_LIBC;
	}
	if (error != ENOTCONN)
		return TGC_NEXT_FAIL;
	if (!atomic_exchange(&said_lost, true)) {
		bool was = tgc_use_libc;

		tgc_use_libc = true;
		tgc_dropin_say("the daemon is gone; goes on with the C library's malloc",
			       tg_attach_error());
		tgc_use_libc = was;
	}
	/* A forked child that could not become a client will not be asked again; a client may
	 * find its daemon again. */
	if (!atomic_load(&tgc_process->attached))
		tgc_use_libc = true;
	return TGC_NEXT_LIBC;
}
