# client/ctl/: tgctl.  All but its main is in libtgctl.la, which tests link, too.  Lists are sorted, one file a line.

noinst_LTLIBRARIES += %D%/libtgctl.la
%C%_libtgctl_la_SOURCES = \
	%D%/cli.c \
	%D%/cli.h \
	%D%/commands.c \
	%D%/commands.h \
	%D%/ctl.c \
	%D%/ctl.h \
	%D%/find.c \
	%D%/find.h \
	%D%/json.c \
	%D%/json.h \
	%D%/list.c \
	%D%/list.h \
	%D%/map.c \
	%D%/map.h \
	%D%/report.c \
	%D%/report.h \
	%D%/run-daemon.c \
	%D%/run-daemon.h \
	%D%/run.c \
	%D%/run.h \
	%D%/table.c \
	%D%/table.h \
	%D%/talk.c \
	%D%/talk.h \
	%D%/top.c
%C%_libtgctl_la_CPPFLAGS = $(AM_CPPFLAGS) -DTGC_BINDIR='"$(bindir)"' -DTGC_LIBDIR='"$(libdir)"'
%C%_libtgctl_la_LIBADD = $(JANSSON_LIBS)
$(%C%_libtgctl_la_OBJECTS): | $(tg_generated)

bin_PROGRAMS += %D%/tgctl
%C%_tgctl_SOURCES = %D%/tgctl.c
%C%_tgctl_LDADD = %D%/libtgctl.la $(tg_core_libs)
$(%C%_tgctl_OBJECTS): | $(tg_generated)
