# bench/: measured by hand, never part of pass or fail.  Built by "make check", so that it keeps compiling.  Lists are
# sorted, one file a line.

check_PROGRAMS += %D%/tg-recovery

%C%_tg_recovery_SOURCES = \
	%D%/bench.c \
	%D%/bench.h \
	%D%/recovery.c
%C%_tg_recovery_LDADD = $(LDADD) $(JANSSON_LIBS)
$(%C%_tg_recovery_OBJECTS): | $(tg_generated)

# BENCH_ARGS: see the comment of recovery.c.
.PHONY: bench bench-recovery
bench: bench-recovery

bench-recovery: all
	$(MAKE) $(AM_MAKEFLAGS) tests/libtgtest.la %D%/tg-recovery
	@$(AM_TESTS_ENVIRONMENT) %D%/tg-recovery $(BENCH_ARGS)
