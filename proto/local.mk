# proto/: the wire.  Lists are sorted, one file a line.

noinst_LTLIBRARIES += %D%/libtgproto.la
%C%_libtgproto_la_SOURCES = \
	%D%/fdpass.c \
	%D%/fdpass.h \
	%D%/frame.c \
	%D%/frame.h \
	%D%/msg.c \
	%D%/msg.h \
	%D%/path.c \
	%D%/path.h \
	%D%/size.c \
	%D%/size.h
nodist_%C%_libtgproto_la_SOURCES = \
	%D%/tgd.pb-c.c \
	%D%/tgd.pb-c.h
%C%_libtgproto_la_LIBADD = $(PROTOBUF_C_LIBS)
$(%C%_libtgproto_la_OBJECTS): | $(tg_generated)

# Made from tgd.proto, neither committed nor shipped.  One run makes both files; the header's rule only cares for a
# header that was deleted while its .c stayed.
EXTRA_DIST += %D%/tgd.proto
CLEANFILES += %D%/tgd.pb-c.c %D%/tgd.pb-c.h

%D%/tgd.pb-c.c: %D%/tgd.proto
	$(AM_V_GEN)$(MKDIR_P) %D% && $(PROTOC_C) --proto_path=$(srcdir)/%D% --c_out=%D% $(srcdir)/%D%/tgd.proto

%D%/tgd.pb-c.h: %D%/tgd.pb-c.c
	@if test ! -f $@; then rm -f %D%/tgd.pb-c.c; $(MAKE) $(AM_MAKEFLAGS) %D%/tgd.pb-c.c; fi
