# bench/: measured by hand, never part of pass or fail.  Built by "make check", so that it keeps compiling.  Lists are
# sorted, one file a line.

if PLAIN
check_PROGRAMS += %D%/tg-cacheload
check_PROGRAMS += %D%/tg-measure
check_PROGRAMS += %D%/tg-recovery
check_PROGRAMS += %D%/tg-scale
check_PROGRAMS += $(tgbench_programs)
endif

%C%_tg_cacheload_SOURCES = \
	%D%/cacheconn.c \
	%D%/cachekeys.c \
	%D%/cacheload.c \
	%D%/cacheload.h \
	%D%/histogram.h
%C%_tg_cacheload_LDADD = -lm

%C%_tg_measure_SOURCES = %D%/measure.c
%C%_tg_measure_LDADD =

%C%_tg_recovery_SOURCES = \
	%D%/bench.c \
	%D%/bench.h \
	%D%/recovery.c
%C%_tg_recovery_LDADD = $(LDADD) $(JANSSON_LIBS)
$(%C%_tg_recovery_OBJECTS): | $(tg_generated)

%C%_tg_scale_SOURCES = \
	%D%/bench.c \
	%D%/bench.h \
	%D%/scale-clients.c \
	%D%/scale-pages.c \
	%D%/scale-requests.c \
	%D%/scale.c \
	%D%/scale.h
%C%_tg_scale_LDADD = $(LDADD) $(JANSSON_LIBS)
$(%C%_tg_scale_OBJECTS): | $(tg_generated)

# ---- tgbench, and the workers that it starts ----
#
# The workloads are compiled once for each kind of allocator (alloc.h).  That the compiler knows what malloc and free do
# must not help anybody; and a loop begins at a cache line, so that what it takes does not depend on what stands before it.
tgbench_programs = \
	%D%/tgbench/tgb-malloc \
	%D%/tgbench/tgb-malloc-noplt \
	%D%/tgbench/tgb-together \
	%D%/tgbench/tgbench

if TGBENCH_APR
tgbench_programs += %D%/tgbench/tgb-apr
endif
if TGBENCH_BOOST
tgbench_programs += %D%/tgbench/tgb-boost
endif

%C%_tgbench_tgbench_SOURCES = \
	%D%/tgbench/allocators.c \
	%D%/tgbench/cells.c \
	%D%/tgbench/json.c \
	%D%/tgbench/main.c \
	%D%/tgbench/pingpong.c \
	%D%/tgbench/ready.c \
	%D%/tgbench/results.c \
	%D%/tgbench/run.c \
	%D%/tgbench/svg.c \
	%D%/tgbench/table.c \
	%D%/tgbench/targets.c \
	%D%/tgbench/tgbench.h
%C%_tgbench_tgbench_LDADD = $(LDADD) $(JANSSON_LIBS) -lm

tgbench_worker_sources = \
	%D%/tgbench/alloc.h \
	%D%/tgbench/heap.c \
	%D%/tgbench/memory.c \
	%D%/tgbench/peer.h \
	%D%/tgbench/work-churn.c \
	%D%/tgbench/work-large.c \
	%D%/tgbench/work-pair.c \
	%D%/tgbench/work-pair.h \
	%D%/tgbench/work-procs.c \
	%D%/tgbench/work-start.c \
	%D%/tgbench/work-threads.c \
	%D%/tgbench/work-tiny.c \
	%D%/tgbench/worker.c \
	%D%/tgbench/worker.h
tgbench_worker_cflags = $(AM_CFLAGS) -O2 -falign-functions=64 -fno-builtin-malloc -fno-builtin-calloc \
	-fno-builtin-realloc -fno-builtin-free

%C%_tgbench_tgb_malloc_SOURCES = $(tgbench_worker_sources)
%C%_tgbench_tgb_malloc_CFLAGS = $(tgbench_worker_cflags)
%C%_tgbench_tgb_malloc_LDADD = -lm

# As tg.h has it for libtg: no jump through the linkage table on the way to malloc and free.
%C%_tgbench_tgb_malloc_noplt_SOURCES = $(tgbench_worker_sources)
%C%_tgbench_tgb_malloc_noplt_CFLAGS = $(tgbench_worker_cflags) -fno-plt
%C%_tgbench_tgb_malloc_noplt_LDADD = -lm

# -no-install: a plain program that finds libtg.so in the build tree, instead of libtool's wrapper script.
%C%_tgbench_tgb_together_SOURCES = $(tgbench_worker_sources)
%C%_tgbench_tgb_together_CPPFLAGS = $(AM_CPPFLAGS) -DTGB_TOGETHER=1
%C%_tgbench_tgb_together_CFLAGS = $(tgbench_worker_cflags)
%C%_tgbench_tgb_together_LDFLAGS = $(AM_LDFLAGS) -no-install
%C%_tgbench_tgb_together_LDADD = client/libtg.la -lm

tgbench_peer_cppflags = $(AM_CPPFLAGS) -DTGB_PEER=1

%C%_tgbench_tgb_apr_SOURCES = \
	$(tgbench_worker_sources) \
	%D%/tgbench/peer-apr.c
%C%_tgbench_tgb_apr_CPPFLAGS = $(tgbench_peer_cppflags) $(TGBENCH_APR_CFLAGS)
%C%_tgbench_tgb_apr_CFLAGS = $(tgbench_worker_cflags)
%C%_tgbench_tgb_apr_LDADD = $(TGBENCH_APR_LIBS) -lm

# The one file in C++ is compiled by hand: the project needs no C++ compiler.
%C%_tgbench_tgb_boost_SOURCES = $(tgbench_worker_sources)
%C%_tgbench_tgb_boost_CPPFLAGS = $(tgbench_peer_cppflags)
%C%_tgbench_tgb_boost_CFLAGS = $(tgbench_worker_cflags)
%C%_tgbench_tgb_boost_LDADD = %D%/tgbench/peer-boost.$(OBJEXT) -lstdc++ -lm
EXTRA_DIST += %D%/tgbench/peer-boost.cc
CLEANFILES += %D%/tgbench/peer-boost.$(OBJEXT)
%D%/tgbench/peer-boost.$(OBJEXT): %D%/tgbench/peer-boost.cc %D%/tgbench/peer.h
	@$(MKDIR_P) %D%/tgbench
	$(AM_V_GEN)$(TGBENCH_CXX) -I$(top_srcdir) -O2 -g -pthread $(TG_SANITIZER_FLAGS) -c -o $@ \
		$(top_srcdir)/%D%/tgbench/peer-boost.cc

# From the standard library alone, so no network is needed.  A Go that does not work is as good as none.
EXTRA_DIST += %D%/tgbench/tgb-go.go
CLEANFILES += %D%/tgbench/tgb-go
%D%/tgbench/tgb-go: %D%/tgbench/tgb-go.go
	@$(MKDIR_P) %D%/tgbench
	$(AM_V_GEN)env GO111MODULE=off GOFLAGS= GOTOOLCHAIN=local GOCACHE='$(abs_builddir)/%D%/tgbench/go-cache' \
		$(TGBENCH_GO) build -o $@ $(top_srcdir)/%D%/tgbench/tgb-go.go || \
		echo "tgb-go: not built; tgbench goes without it" >&2
if TGBENCH_GO
tgbench_data = %D%/tgbench/tgb-go
endif
if PLAIN
check_DATA += $(tgbench_data)
endif
clean-local: clean-tgbench
clean-tgbench:
	rm -rf %D%/tgbench/go-cache
.PHONY: clean-tgbench

# BENCH_ARGS: see the comment of recovery.c.
.PHONY: bench bench-build bench-recovery
bench: bench-recovery

bench-build: all
	$(MAKE) $(AM_MAKEFLAGS) %D%/tg-cacheload %D%/tg-measure %D%/tg-recovery %D%/tg-scale \
		$(tgbench_programs) $(tgbench_data)

bench-recovery: bench-build
	@$(AM_TESTS_ENVIRONMENT) %D%/tg-recovery $(BENCH_ARGS)

EXTRA_DIST += \
	scripts/bench \
	scripts/bench-cached \
	scripts/bench-lib.sh \
	scripts/bench-programs \
	scripts/bench-recovery \
	scripts/bench-scale
