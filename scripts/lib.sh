# shellcheck shell=sh
# What the scripts have in common: install packages, make a build tree.  Sourced, not run.
#
# Sets tg_root (the source tree).  Commands whose output matters only when they fail go through tg_quietly, which
# keeps it in a log and shows the end of it on failure.

tg_root=$(cd "$(dirname "$0")/.." && pwd)

# Two cores are what CI has; more jobs only cost memory there.
: "${TG_JOBS:=2}"

tg_say() {
	printf '== %s\n' "$*"
}

tg_die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# tg_quietly LOG COMMAND...: output to LOG; on failure its last lines, and the command's status.
tg_quietly() {
	tg_log=$1
	shift
	mkdir -p "$(dirname "$tg_log")"
	tg_status=0
	"$@" >"$tg_log" 2>&1 || tg_status=$?
	if [ "$tg_status" != 0 ]; then
		printf '%s failed with status %s; the end of %s:\n' "$*" "$tg_status" "$tg_log" >&2
		tail -n 40 "$tg_log" >&2
	fi
	return "$tg_status"
}

# Makes ./configure unless it is there and newer than all that it is made from.
tg_autogen() {
	if [ -x "$tg_root/configure" ] && [ -f "$tg_root/Makefile.in" ] &&
	   [ -z "$(find "$tg_root/configure.ac" "$tg_root/m4/tg-require.m4" -newer "$tg_root/configure")" ]; then
		return 0
	fi
	tg_say "autogen.sh"
	tg_quietly "$tg_root/build/autogen.log" "$tg_root/autogen.sh"
}

# tg_configure DIR OPTION...: configures the build tree DIR with the options, unless it already is.
tg_configure() {
	tg_dir=$1
	shift
	tg_autogen || return 1
	mkdir -p "$tg_dir"
	if [ ! -f "$tg_dir/Makefile" ] || [ "$(cat "$tg_dir/.options" 2>/dev/null)" != "$*" ]; then
		tg_say "configure $* (in $tg_dir)"
		(cd "$tg_dir" && tg_quietly "$tg_dir/configure.log" "$tg_root/configure" "$@") || return 1
		printf '%s\n' "$*" >"$tg_dir/.options"
		# Objects of other options must not stay.
		(cd "$tg_dir" && tg_quietly "$tg_dir/clean.log" make clean) || return 1
	fi
}

# tg_build DIR OPTION...: the same, and builds.
tg_build() {
	tg_configure "$@" || return 1
	tg_say "make (in $1)"
	(cd "$1" && tg_quietly "$1/make.log" make -j"$TG_JOBS")
}
