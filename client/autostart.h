/* autostart.h - a private daemon for a client that finds none (TG_AUTOSTART). */
#pragma once

#include <stddef.h>

/* Starts a tgd on the socket that we want to attach to.  It ends by itself when it has had no client for a while.  Two
 * clients may do this at once: the daemon that comes second finds the socket's lock taken and ends.
 * 0: started, but not yet ready; -errno and a sentence in `why`. */
int tgc_autostart(char *why, size_t why_size);
