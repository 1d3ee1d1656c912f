# client/: libtg.  All code is in libtgclient.la, which tests and tgctl link; libtg.la adds only the export list.
# Lists are sorted, one file a line.

noinst_LTLIBRARIES += %D%/libtgclient.la
%C%_libtgclient_la_SOURCES = \
	%D%/agree.c \
	%D%/alloc.c \
	%D%/attach.c \
	%D%/autostart.c \
	%D%/autostart.h \
	%D%/bin.h \
	%D%/borrow.c \
	%D%/cache.c \
	%D%/cache.h \
	%D%/demand.c \
	%D%/error.c \
	%D%/first.c \
	%D%/foreign.c \
	%D%/idle.c \
	%D%/idle.h \
	%D%/large-get.c \
	%D%/large.c \
	%D%/object.c \
	%D%/own.c \
	%D%/own.h \
	%D%/populate.c \
	%D%/prefetch.c \
	%D%/prefetch.h \
	%D%/process.c \
	%D%/process.h \
	%D%/refill.c \
	%D%/resize.c \
	%D%/root.c \
	%D%/rpc.c \
	%D%/rpc.h \
	%D%/state.c \
	%D%/stats.c \
	%D%/swap.c \
	%D%/thread.c \
	%D%/tiny.c \
	%D%/wire.c \
	%D%/wire.h

# The thread cache is thread-local: initial-exec makes reaching it one instruction instead of a call.  A case of tg_malloc that is
# jumped to is fetched at once if it does not begin near the end of a line (tiny objects: 5 % of a pair).
%C%_libtgclient_la_CFLAGS = $(AM_CFLAGS) -ftls-model=initial-exec -falign-jumps=64
$(%C%_libtgclient_la_OBJECTS): | $(tg_generated)

include_HEADERS += %D%/tg.h

lib_LTLIBRARIES += %D%/libtg.la
%C%_libtg_la_SOURCES =
%C%_libtg_la_LDFLAGS = $(AM_LDFLAGS) -version-info 0:0:0 -export-symbols-regex '^tg_'
%C%_libtg_la_LIBADD = %D%/libtgclient.la $(tg_core_libs)
