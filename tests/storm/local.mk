# tests/storm/: many clients at work while they, and the daemon, are killed.  `make check` runs short storms,
# `make check-storm` one of 2,000 kills.  Lists are sorted, one file a line.

tg_storm_tests = \
	%D%/test_storm \
	%D%/test_storm_yield

check_PROGRAMS += $(tg_storm_tests)
TESTS += $(tg_storm_tests)

tg_storm_sources = \
	%D%/audit.c \
	%D%/board.c \
	%D%/buckets.c \
	%D%/client.c \
	%D%/links.c \
	%D%/object.c \
	%D%/settle.c \
	%D%/storm.h \
	%D%/test_storm.c \
	%D%/work.c

%C%_test_storm_SOURCES = $(tg_storm_sources)
$(%C%_test_storm_OBJECTS): | $(tg_generated)

# With the library that tests/crash kills at each of its points.
%C%_test_storm_yield_SOURCES = $(tg_storm_sources) %D%/yield.c
%C%_test_storm_yield_LDADD = tests/libtgtest.la tests/crash/libtgvictim.la $(tg_core_libs)
$(%C%_test_storm_yield_OBJECTS): | $(tg_generated)

# How it went is printed also if all went well.
.PHONY: check-storm
check-storm:
	TG_STORM_KILLS=$${TG_STORM_KILLS:-2000} $(MAKE) $(AM_MAKEFLAGS) check TESTS='$(tg_storm_tests)' \
		TG_TEST_TIMEOUT=900
	@cat $(tg_storm_tests:=.log)
