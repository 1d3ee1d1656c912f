dnl Required packages, reported all at once.
dnl
dnl Each TG_REQUIRE_* macro looks for one thing; what is missing is noted with the Debian package that brings it.
dnl TG_REQUIRE_DONE stops with one message that names everything missing and the one apt line that cures it, so
dnl that nobody runs configure five times to learn five names.

m4_pattern_forbid([^PKG_(CHECK|PROG)])
m4_pattern_forbid([^TG_REQUIRE_])

dnl TG_NOTE_MISSING(WHAT, DEBIAN-PACKAGE)
AC_DEFUN([TG_NOTE_MISSING],
[tg_missing="$tg_missing
    $1 (Debian package $2)"
tg_missing_debs="$tg_missing_debs $2"])

dnl TG_REQUIRE_PKG(PREFIX, MODULE-WITH-VERSION, DEBIAN-PACKAGE): sets PREFIX_CFLAGS and PREFIX_LIBS.
AC_DEFUN([TG_REQUIRE_PKG],
[AC_REQUIRE([PKG_PROG_PKG_CONFIG])dnl
PKG_CHECK_MODULES([$1], [$2], [], [TG_NOTE_MISSING([$2], [$3])])])

dnl TG_REQUIRE_PROG(VARIABLE, PROGRAM, DEBIAN-PACKAGE)
AC_DEFUN([TG_REQUIRE_PROG],
[AC_ARG_VAR([$1], [path of $2])dnl
AC_PATH_PROG([$1], [$2])
AS_IF([test -z "$$1"], [TG_NOTE_MISSING([program $2], [$3])])])

dnl TG_REQUIRE_HEADER(HEADER, DEBIAN-PACKAGE)
AC_DEFUN([TG_REQUIRE_HEADER],
[AC_CHECK_HEADER([$1], [], [TG_NOTE_MISSING([header $1], [$2])])])

dnl TG_REQUIRE_DONE: stop if anything was missing.
AC_DEFUN([TG_REQUIRE_DONE],
[AS_IF([test -z "$PKG_CONFIG"],
       [tg_missing="
    pkg-config (without it none of the libraries can be found)$tg_missing"
	tg_missing_debs=" pkg-config$tg_missing_debs"])
AS_IF([test -n "$tg_missing"],
      [AC_MSG_ERROR([these are needed and were not found:
$tg_missing

On Debian and its relatives this installs them:

    apt-get install$tg_missing_debs
])])])
