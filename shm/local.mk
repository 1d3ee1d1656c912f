# shm/: the region, linked by both sides.  Lists are sorted, one file a line.

noinst_LTLIBRARIES += %D%/libtgshm.la
%C%_libtgshm_la_SOURCES = \
	%D%/base.h \
	%D%/check.c \
	%D%/check.h \
	%D%/layout.h \
	%D%/link.c \
	%D%/link.h \
	%D%/region.c \
	%D%/region.h \
	%D%/remote.c \
	%D%/remote.h \
	%D%/settle.c \
	%D%/settle.h \
	%D%/sizeclass.c \
	%D%/sizeclass.h \
	%D%/span.c \
	%D%/span.h \
	%D%/step.c \
	%D%/step.h
$(%C%_libtgshm_la_OBJECTS): | $(tg_generated)

# The size class table: written by a program of ours that runs during the build.
CLEANFILES += %D%/sizeclass-table.h tools/mksizeclasses
EXTRA_DIST += tools/mksizeclasses.c

tools/mksizeclasses: tools/mksizeclasses.c
	$(AM_V_at)$(MKDIR_P) tools
	$(AM_V_CCLD)$(CC_FOR_BUILD) -std=gnu11 -O1 -I$(top_srcdir) -o $@ $(top_srcdir)/tools/mksizeclasses.c

%D%/sizeclass-table.h: tools/mksizeclasses
	$(AM_V_at)$(MKDIR_P) %D%
	$(AM_V_GEN)tools/mksizeclasses > $@.tmp && mv $@.tmp $@
