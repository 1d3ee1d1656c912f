#!/bin/sh
# Makes ./configure and Makefile.in from configure.ac and the Makefile.am.
#
# Needed once after a clone; "make" does it by itself when one of the inputs changes.  Not needed for a release
# tarball.  Names the Debian packages that are missing instead of failing inside autoreconf.
set -eu
cd "$(dirname "$0")"

missing=
command -v autoconf >/dev/null || missing="$missing autoconf"
command -v automake >/dev/null || missing="$missing automake"
command -v libtoolize >/dev/null || missing="$missing libtool"
command -v pkg-config >/dev/null || missing="$missing pkg-config"
if [ -n "$missing" ]; then
	echo "autogen.sh: these are needed and were not found:$missing" >&2
	echo "On Debian and its relatives: apt-get install$missing (or run scripts/install-deps)" >&2
	exit 1
fi

exec autoreconf --install --force "$@"
