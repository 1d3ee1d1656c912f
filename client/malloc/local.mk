# client/malloc/: libtgmalloc.so, to be named in LD_PRELOAD.  Lists are sorted, one file a line.

lib_LTLIBRARIES += %D%/libtgmalloc.la
%C%_libtgmalloc_la_SOURCES = \
	%D%/cxx.c \
	%D%/dropin.h \
	%D%/fork.c \
	%D%/keep.c \
	%D%/malloc.c \
	%D%/start.c
# -fno-builtin: the compiler must not turn our malloc plus memset into a call of our own calloc.
# -fexceptions: std::bad_alloc passes through operator new.
%C%_libtgmalloc_la_CFLAGS = $(AM_CFLAGS) -ftls-model=initial-exec -fno-builtin -fexceptions
# Only these names and the C++ operators go out, so that the program's own symbols never meet ours.
tg_malloc_family = malloc|calloc|realloc|reallocarray|free|posix_memalign|aligned_alloc|memalign|valloc|pvalloc
tg_malloc_kept = fopen|fopen64|fdopen|popen|tmpfile|tmpfile64|fmemopen|open_memstream|open_wmemstream|fopencookie
%C%_libtgmalloc_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared \
	-Wl,-z,initfirst \
	-export-symbols-regex \
	'^($(tg_malloc_family)|malloc_usable_size|$(tg_malloc_kept)|fork|pthread_setspecific|tss_set|_Zn[wa].*|_Zd[la].*)$$'
%C%_libtgmalloc_la_LIBADD = client/libtgclient.la $(tg_core_libs)
$(%C%_libtgmalloc_la_OBJECTS): | $(tg_generated)
