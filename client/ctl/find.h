/* find.h - where the programs and libraries of the same installation, or build, are. */
#pragma once

#include <stddef.h>

/* Absolute or PATH-found file of tgd; of libtgmalloc.so.  0, or -ENOENT, -ENAMETOOLONG. */
int tgc_find_daemon(char *buf, size_t size);
int tgc_find_preload(char *buf, size_t size);
