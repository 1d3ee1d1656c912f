# tests/storm/: many clients at work while they, and the daemon, are killed.  `make check` runs a short storm,
# `make check-storm` one of 2,000 kills.  Lists are sorted, one file a line.

check_PROGRAMS += %D%/test_storm
TESTS += %D%/test_storm

%C%_test_storm_SOURCES = \
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
$(%C%_test_storm_OBJECTS): | $(tg_generated)

# How it went is printed also if all went well.
.PHONY: check-storm
check-storm:
	TG_STORM_KILLS=$${TG_STORM_KILLS:-2000} $(MAKE) $(AM_MAKEFLAGS) check TESTS='%D%/test_storm' TG_TEST_TIMEOUT=900
	@cat %D%/test_storm.log
