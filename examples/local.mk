# examples/: programs that use the installed interface only (<tg.h>, libtg).  Built, not installed.
# Lists are sorted, one file a line.

# The program of README.md: compiled and run by tests/scripts/test-readme, as a user would.
EXTRA_DIST += %D%/share-list.c

# Every key of tgd(8) with a comment; tests/unit/test_config reads it.
EXTRA_DIST += %D%/tgd.conf

# A unit for systemd; see tgd(8).
EXTRA_DIST += %D%/tgd.service

EXTRA_DIST += %D%/tgcached/README.md

noinst_PROGRAMS += %D%/tgcached/tgcached
%C%_tgcached_tgcached_SOURCES = \
	%D%/tgcached/cached.h \
	%D%/tgcached/main.c \
	%D%/tgcached/table.c \
	%D%/tgcached/worker.c
%C%_tgcached_tgcached_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/client
# -no-install: a plain program that finds libtg.so in the build tree, instead of libtool's wrapper script.
%C%_tgcached_tgcached_LDFLAGS = $(AM_LDFLAGS) -no-install
%C%_tgcached_tgcached_LDADD = client/libtg.la $(LIBEVENT_LIBS)
