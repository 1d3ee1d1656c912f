# bench/: measured by hand, never part of pass or fail.  Built by "make check", so that it keeps compiling.  Lists are
# sorted, one file a line.

check_PROGRAMS += %D%/tg-cacheload
check_PROGRAMS += %D%/tg-measure
check_PROGRAMS += %D%/tg-recovery
check_PROGRAMS += %D%/tg-scale

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

# BENCH_ARGS: see the comment of recovery.c.
.PHONY: bench bench-build bench-recovery
bench: bench-recovery

bench-build: all
	$(MAKE) $(AM_MAKEFLAGS) %D%/tg-cacheload %D%/tg-measure %D%/tg-recovery %D%/tg-scale

bench-recovery: bench-build
	@$(AM_TESTS_ENVIRONMENT) %D%/tg-recovery $(BENCH_ARGS)

EXTRA_DIST += \
	scripts/bench-cached \
	scripts/bench-lib.sh \
	scripts/bench-programs \
	scripts/bench-recovery \
	scripts/bench-scale
