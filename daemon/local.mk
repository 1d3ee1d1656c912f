# daemon/: tgd.  Everything but main.c is a library, so that tests link the same objects.
# Lists are sorted, one file a line.

noinst_LTLIBRARIES += %D%/libtgdaemon.la
%C%_libtgdaemon_la_SOURCES = \
	%D%/accept.c \
	%D%/accept.h \
	%D%/admin.c \
	%D%/admin.h \
	%D%/backing-drop.c \
	%D%/backing-find.c \
	%D%/backing-huge.c \
	%D%/backing-impl.h \
	%D%/backing.c \
	%D%/backing.h \
	%D%/central.c \
	%D%/central.h \
	%D%/chunkset.c \
	%D%/chunkset.h \
	%D%/client.c \
	%D%/client.h \
	%D%/config-impl.h \
	%D%/config-keys.c \
	%D%/config.c \
	%D%/config.h \
	%D%/conn.c \
	%D%/conn.h \
	%D%/context.h \
	%D%/control.c \
	%D%/control.h \
	%D%/handover.c \
	%D%/handover.h \
	%D%/headroom.c \
	%D%/headroom.h \
	%D%/heap-ahead.c \
	%D%/heap-check.c \
	%D%/heap-huge.c \
	%D%/heap-impl.h \
	%D%/heap-info.c \
	%D%/heap-place.c \
	%D%/heap-spans.c \
	%D%/heap-state.c \
	%D%/heap-work.c \
	%D%/heap.c \
	%D%/heap.h \
	%D%/holders.c \
	%D%/holders.h \
	%D%/huge.h \
	%D%/join.c \
	%D%/join.h \
	%D%/keeper.c \
	%D%/keeper.h \
	%D%/kept.c \
	%D%/kept.h \
	%D%/lease.c \
	%D%/lease.h \
	%D%/listen.c \
	%D%/listen.h \
	%D%/log.c \
	%D%/log.h \
	%D%/notify.c \
	%D%/notify.h \
	%D%/pagebits.c \
	%D%/pagebits.h \
	%D%/pages.c \
	%D%/pages.h \
	%D%/pagesum.c \
	%D%/pagesum.h \
	%D%/pagetree.c \
	%D%/pagetree.h \
	%D%/peer.c \
	%D%/peer.h \
	%D%/reclaim.c \
	%D%/reclaim.h \
	%D%/request.c \
	%D%/request.h \
	%D%/roots.c \
	%D%/roots.h \
	%D%/scavenge.c \
	%D%/scavenge.h \
	%D%/server.c \
	%D%/server.h \
	%D%/session.c \
	%D%/session.h \
	%D%/takeover-map.c \
	%D%/takeover-tables.c \
	%D%/takeover.c \
	%D%/takeover.h \
	%D%/upgrade.c \
	%D%/upgrade.h
%C%_libtgdaemon_la_LIBADD = $(LIBEVENT_LIBS) $(INIH_LIBS)
$(%C%_libtgdaemon_la_OBJECTS): | $(tg_generated)

bin_PROGRAMS += %D%/tgd
%C%_tgd_SOURCES = %D%/main.c
%C%_tgd_LDADD = %D%/libtgdaemon.la $(tg_core_libs)
$(%C%_tgd_OBJECTS): | $(tg_generated)
