# tests/: see CONTRIBUTING.md for how to add one.  Lists are sorted, one a line; a test's source is its name plus .c.

check_LTLIBRARIES += %D%/libtgtest.la
%C%_libtgtest_la_SOURCES = \
	%D%/support/badfree.h \
	%D%/support/badpeers.h \
	%D%/support/cached.c \
	%D%/support/cached.h \
	%D%/support/child.c \
	%D%/support/child.h \
	%D%/support/conns.h \
	%D%/support/crowd.c \
	%D%/support/crowd.h \
	%D%/support/ctlpeer.c \
	%D%/support/ctlpeer.h \
	%D%/support/daemon.c \
	%D%/support/daemon.h \
	%D%/support/fixture.c \
	%D%/support/fixture.h \
	%D%/support/forks.h \
	%D%/support/frees.h \
	%D%/support/heap.h \
	%D%/support/load.c \
	%D%/support/load.h \
	%D%/support/message.c \
	%D%/support/message.h \
	%D%/support/mixed.h \
	%D%/support/pages.h \
	%D%/support/peer.c \
	%D%/support/peer.h \
	%D%/support/region.c \
	%D%/support/region.h \
	%D%/support/runner.c \
	%D%/support/runner.h \
	%D%/support/stress.c \
	%D%/support/stress.h \
	%D%/support/taken.h \
	%D%/support/takeover.h \
	%D%/support/things.c \
	%D%/support/things.h
%C%_libtgtest_la_CPPFLAGS = $(AM_CPPFLAGS) $(CUNIT_CFLAGS)
%C%_libtgtest_la_LIBADD = $(CUNIT_LIBS) $(JANSSON_LIBS)
$(%C%_libtgtest_la_OBJECTS): | $(tg_generated)

# What every test links unless it sets its own _LDADD.
LDADD = %D%/libtgtest.la daemon/libtgdaemon.la client/libtgclient.la $(tg_core_libs)

tg_unit_tests = \
	%D%/unit/test_central \
	%D%/unit/test_check \
	%D%/unit/test_chunkset \
	%D%/unit/test_config \
	%D%/unit/test_conn \
	%D%/unit/test_conn_output \
	%D%/unit/test_ctl \
	%D%/unit/test_ctl_answers \
	%D%/unit/test_fdpass \
	%D%/unit/test_frame \
	%D%/unit/test_headroom \
	%D%/unit/test_heap \
	%D%/unit/test_heap_huge \
	%D%/unit/test_heap_info \
	%D%/unit/test_heap_memory \
	%D%/unit/test_heap_place \
	%D%/unit/test_heap_state \
	%D%/unit/test_heap_threads \
	%D%/unit/test_layout \
	%D%/unit/test_map \
	%D%/unit/test_msg \
	%D%/unit/test_msg_hostile \
	%D%/unit/test_msg_random \
	%D%/unit/test_pagebits \
	%D%/unit/test_pages \
	%D%/unit/test_pages_memory \
	%D%/unit/test_pages_model \
	%D%/unit/test_pagesum \
	%D%/unit/test_pagetree \
	%D%/unit/test_path \
	%D%/unit/test_reclaim \
	%D%/unit/test_region \
	%D%/unit/test_remote \
	%D%/unit/test_report \
	%D%/unit/test_roots \
	%D%/unit/test_scavenge \
	%D%/unit/test_settle \
	%D%/unit/test_settle_swap \
	%D%/unit/test_size \
	%D%/unit/test_sizeclass \
	%D%/unit/test_span \
	%D%/unit/test_step \
	%D%/unit/test_takeover \
	%D%/unit/test_takeover_half \
	%D%/unit/test_takeover_random \
	%D%/unit/test_takeover_refused \
	%D%/unit/test_tsan_remote

# Tests of memory that fails stand between the daemon and the kernel.
%C%_unit_test_heap_huge_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=madvise,--wrap=clock_gettime
%C%_unit_test_heap_memory_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=fallocate
%C%_unit_test_heap_state_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=fallocate

# Tests of tgctl link what it is made of.
tg_ctl_libs = %D%/libtgtest.la client/ctl/libtgctl.la $(tg_core_libs)
%C%_unit_test_ctl_LDADD = $(tg_ctl_libs)
%C%_unit_test_ctl_answers_LDADD = $(tg_ctl_libs)
%C%_unit_test_map_LDADD = $(tg_ctl_libs)
%C%_unit_test_report_LDADD = $(tg_ctl_libs)

tg_integration_tests = \
	%D%/integration/test_ahead \
	%D%/integration/test_alloc \
	%D%/integration/test_attach \
	%D%/integration/test_badfree \
	%D%/integration/test_badfree_others \
	%D%/integration/test_badinput \
	%D%/integration/test_borrow \
	%D%/integration/test_daemon \
	%D%/integration/test_daemon_clients \
	%D%/integration/test_dense \
	%D%/integration/test_ends \
	%D%/integration/test_errno \
	%D%/integration/test_exec \
	%D%/integration/test_fork \
	%D%/integration/test_free \
	%D%/integration/test_full \
	%D%/integration/test_grants \
	%D%/integration/test_greedy_peers \
	%D%/integration/test_hints \
	%D%/integration/test_hostile_peers \
	%D%/integration/test_interrupt \
	%D%/integration/test_large \
	%D%/integration/test_life \
	%D%/integration/test_link \
	%D%/integration/test_malloc \
	%D%/integration/test_noslot \
	%D%/integration/test_owed \
	%D%/integration/test_policy \
	%D%/integration/test_programs \
	%D%/integration/test_realloc \
	%D%/integration/test_restart \
	%D%/integration/test_roots \
	%D%/integration/test_service \
	%D%/integration/test_stopped \
	%D%/integration/test_stress \
	%D%/integration/test_tgcached \
	%D%/integration/test_tgcached_kills \
	%D%/integration/test_tgcached_table \
	%D%/integration/test_tgcached_workers \
	%D%/integration/test_tgctl \
	%D%/integration/test_tgctl_run \
	%D%/integration/test_tgctl_top \
	%D%/integration/test_threads \
	%D%/integration/test_tiny \
	%D%/integration/test_tiny_words \
	%D%/integration/test_upgrade

# It uses the table of the server by itself.
%C%_integration_test_tgcached_table_SOURCES = \
	%D%/integration/test_tgcached_table.c \
	examples/tgcached/table.c
%C%_integration_test_tgcached_table_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/client

# Programs that tests start; no tests themselves.
tg_test_helpers = \
	%D%/integration/fork_threads \
	%D%/integration/fork_user \
	%D%/integration/malloc_user \
	%D%/integration/tgd_full
# They are run with libtgmalloc.so preloaded, and link nothing of ours.
%C%_integration_fork_threads_SOURCES = %D%/integration/fork_threads.c
%C%_integration_fork_threads_LDADD =
%C%_integration_fork_user_SOURCES = %D%/integration/fork_user.c
%C%_integration_fork_user_LDADD =
%C%_integration_malloc_user_SOURCES = %D%/integration/malloc_user.c
%C%_integration_malloc_user_LDADD =
EXTRA_DIST += %D%/integration/new_user.cc
# A daemon between which and the kernel something stands.
%C%_integration_tgd_full_SOURCES = %D%/integration/tgd_full.c daemon/main.c
%C%_integration_tgd_full_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=fallocate
%C%_integration_tgd_full_LDADD = daemon/libtgdaemon.la $(tg_core_libs)

# Each takes files to try as arguments; built here so that they keep compiling, run by hand (see their comments).
tg_fuzzers = \
	%D%/fuzz/fuzz_msg

# Scripts that are tests: the rules that the sources must keep, and the tests of our tools.
tg_script_tests = \
	%D%/scripts/test-check-layers \
	%D%/scripts/test-count-tests \
	%D%/scripts/test-readme \
	%D%/scripts/test-runner \
	%D%/scripts/test-tgbench \
	tools/check-headers \
	tools/check-layers \
	tools/check-lists

# Run by "make check-long" with TG_TEST_LONG=1 in the environment.
tg_long_tests = \
	%D%/integration/test_stress

# Tests for which a run under ThreadSanitizer makes sense: threads of one process, no fork.
TSAN_TESTS = \
	%D%/unit/test_heap_threads \
	%D%/unit/test_tsan_remote

check_PROGRAMS += $(tg_unit_tests) $(tg_integration_tests) $(tg_test_helpers) $(tg_fuzzers)
TESTS += $(tg_unit_tests) $(tg_integration_tests)
if PLAIN
TESTS += $(tg_script_tests)
endif
EXTRA_DIST += $(tg_script_tests)
tg_check_objects = $(check_PROGRAMS:=.$(OBJEXT))
$(tg_check_objects): | $(tg_generated)

# A test that hangs is killed with all its children, and fails.
TG_TEST_TIMEOUT = 300
LOG_COMPILER = timeout
AM_LOG_FLAGS = --kill-after=10 $(TG_TEST_TIMEOUT)

# Where a test finds what was built.  The user's own settings must not leak into tests.
AM_TESTS_ENVIRONMENT = \
	TGD='$(abs_top_builddir)/daemon/tgd'; \
	TGCTL='$(abs_top_builddir)/client/ctl/tgctl'; \
	TGCACHED='$(abs_top_builddir)/examples/tgcached/tgcached'; \
	TGLIB='$(abs_top_builddir)/client/.libs/libtg.so'; \
	TGMALLOC='$(abs_top_builddir)/client/malloc/.libs/libtgmalloc.so'; \
	TG_SRCDIR='$(abs_top_srcdir)'; \
	TG_BUILDDIR='$(abs_top_builddir)'; \
	TG_SANITIZER='$(TG_SANITIZER)'; \
	TG_TEST_LONG='$(TG_TEST_LONG)'; \
	CC='$(CC)'; \
	export TGD TGCTL TGCACHED TGLIB TGMALLOC TG_SRCDIR TG_BUILDDIR TG_SANITIZER TG_TEST_LONG CC; \
	unset TG_SOCKET TG_HEAP TG_ON_ERROR TG_AUTOSTART;

.PHONY: check-long check-layers check-tsan
# Builds these alone.
check-tsan: $(BUILT_SOURCES)
	$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(TSAN_TESTS)' check_PROGRAMS='$(TSAN_TESTS)' \
		check_LTLIBRARIES= check_DATA=

check-long:
	$(MAKE) $(AM_MAKEFLAGS) check TESTS='$(tg_long_tests)' TG_TEST_LONG=1 TG_TEST_TIMEOUT=3600

check-layers:
	$(AM_V_at)$(top_srcdir)/tools/check-layers $(top_srcdir)
