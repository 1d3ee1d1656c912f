# tests/crash/: every store of client and daemon is a place to be killed at.  What is to be killed is compiled a second
# time, with points.h in front of it.  Lists are sorted, one file a line.
#
# A program that is killed at once tells a sanitizer nothing, and takes too long under one: these are plain programs only.
# The library with points is for test_storm_yield, too.

tg_points_cppflags = $(AM_CPPFLAGS) -include $(top_srcdir)/tests/crash/points.h

check_LTLIBRARIES += %D%/libtgvictim.la
%C%_libtgvictim_la_SOURCES = \
	$(client_libtgclient_la_SOURCES) \
	$(shm_libtgshm_la_SOURCES) \
	proto/fdpass.c
%C%_libtgvictim_la_CPPFLAGS = $(tg_points_cppflags)
%C%_libtgvictim_la_CFLAGS = $(AM_CFLAGS) -ftls-model=initial-exec
$(%C%_libtgvictim_la_OBJECTS): | $(tg_generated)

if PLAIN
check_LTLIBRARIES += %D%/libtgpoints.la
%C%_libtgpoints_la_SOURCES = \
	%D%/control.h \
	%D%/points.c \
	%D%/points.h
$(%C%_libtgpoints_la_OBJECTS): | $(tg_generated)

check_LTLIBRARIES += %D%/libtgvictimd.la
%C%_libtgvictimd_la_SOURCES = $(daemon_libtgdaemon_la_SOURCES)
%C%_libtgvictimd_la_CPPFLAGS = $(tg_points_cppflags) -DTGT_PROCESS_POINTS
%C%_libtgvictimd_la_LIBADD = $(LIBEVENT_LIBS) $(INIH_LIBS)
$(%C%_libtgvictimd_la_OBJECTS): | $(tg_generated)

# A tgd that can be killed at its points.
check_PROGRAMS += %D%/tgd-crash
%C%_tgd_crash_SOURCES = \
	%D%/keeper_clock.c \
	daemon/main.c
%C%_tgd_crash_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=clock_gettime
%C%_tgd_crash_LDADD = %D%/libtgvictimd.la %D%/libtgvictim.la %D%/libtgpoints.la $(tg_core_libs)
$(%C%_tgd_crash_OBJECTS): | $(tg_generated)

# Scripts and oracle.
check_LTLIBRARIES += %D%/libtgcrash.la
%C%_libtgcrash_la_SOURCES = \
	%D%/cover.c \
	%D%/cover.h \
	%D%/daemons.c \
	%D%/keepers.c \
	%D%/keepers.h \
	%D%/ledger.c \
	%D%/ledger.h \
	%D%/main.c \
	%D%/main.h \
	%D%/oracle.c \
	%D%/oracle.h \
	%D%/run.c \
	%D%/run.h \
	%D%/scripts_daemon.c \
	%D%/scripts_memory.c \
	%D%/scripts_process.c \
	%D%/scripts_share.c \
	%D%/stopped.c
$(%C%_libtgcrash_la_OBJECTS): | $(tg_generated)

tg_crash_tests = \
	%D%/test_crash_client \
	%D%/test_crash_daemon \
	%D%/test_crash_keeper \
	%D%/test_crash_stopped

check_PROGRAMS += $(tg_crash_tests)
TESTS += $(tg_crash_tests)

tg_crash_libs = %D%/libtgcrash.la tests/libtgtest.la %D%/libtgvictim.la %D%/libtgpoints.la $(tg_core_libs)
%C%_test_crash_client_SOURCES = %D%/test_crash_client.c
%C%_test_crash_client_LDADD = $(tg_crash_libs)
%C%_test_crash_daemon_SOURCES = %D%/test_crash_daemon.c
%C%_test_crash_daemon_LDADD = $(tg_crash_libs)
%C%_test_crash_keeper_SOURCES = %D%/test_crash_keeper.c
%C%_test_crash_keeper_LDADD = $(tg_crash_libs)
%C%_test_crash_stopped_SOURCES = %D%/test_crash_stopped.c
%C%_test_crash_stopped_LDADD = $(tg_crash_libs)
tg_crash_objects = $(tg_crash_tests:=.$(OBJEXT))
$(tg_crash_objects): | $(tg_generated)
endif

# Minutes instead of seconds: the daemon is killed at every point, not only at every place.
.PHONY: check-crash
check-crash:
	TG_CRASH_ALL=1 $(MAKE) $(AM_MAKEFLAGS) check TESTS='$(tg_crash_tests)' TG_TEST_TIMEOUT=3600
