# shellcheck shell=sh
# What the benchmark scripts have in common: the build, a directory and daemons that are gone at the end, and memory.
# Sourced, not run, after lib.sh.
#
# shellcheck disable=SC2154 # tg_root is lib.sh's
# Sets bench_build (the build tree: $TG_BENCH_BUILD, or build/), TGD, TGCTL, bench_dir (a directory of our own) and
# bench_socket (in it).

bench_build=${TG_BENCH_BUILD:-$tg_root/build}
bench_tgd=
bench_pids=

# Progress goes to standard error: what --json prints is on standard output alone.
bench_say() {
	printf '== %s\n' "$*" >&2
}

# Ends what was started, newest first, and waits, so that nothing is left behind.
bench_stop_all() {
	for bench_pid in $bench_pids $bench_tgd; do
		kill "$bench_pid" 2>/dev/null || true
		wait "$bench_pid" 2>/dev/null || true
	done
	bench_pids=
	bench_tgd=
}

bench_clean_up() {
	trap - EXIT
	trap '' HUP INT TERM
	bench_stop_all
	[ -z "$bench_dir" ] || rm -rf "$bench_dir"
}

# bench_begin: builds all benchmarks, in the tree build/, which is made if it is not there.
bench_begin() {
	bench_dir=
	if [ ! -f "$bench_build/Makefile" ]; then
		tg_build "$bench_build" >&2 || tg_die "the build failed"
	fi
	tg_quietly "$bench_build/bench-build.log" make -C "$bench_build" bench-build || exit 1
	TGD=$bench_build/daemon/tgd
	TGCTL=$bench_build/client/ctl/tgctl
	export TGD TGCTL
	unset LD_PRELOAD TG_HEAP TG_ON_ERROR TG_SOCKET
	bench_dir=$(mktemp -d)
	bench_socket=$bench_dir/tgd.sock
	trap bench_clean_up EXIT
	trap 'bench_clean_up; exit 130' HUP INT TERM
}

# bench_await SECONDS COMMAND...: until it succeeds.
bench_await() {
	bench_tries=$(($1 * 50))
	shift
	until "$@" >/dev/null 2>&1; do
		bench_tries=$((bench_tries - 1))
		[ "$bench_tries" -gt 0 ] || return 1
		sleep 0.02
	done
}

# bench_start COMMAND...: in the background; its process id is in *bench_started*.  Not in our process group: ^C must not
# end a daemon before those that still have something to tell it.
bench_start() {
	setsid "$@" >"$bench_dir/server.log" 2>&1 &
	bench_started=$!
	bench_pids="$bench_started $bench_pids"
}

# bench_start_tgd [PREFIX...] -- [OPTION...]: a daemon with a new heap at bench_socket; PREFIX is a command like taskset.
# bench_tgd_worker is the process that serves.
bench_start_tgd() {
	bench_prefix=
	while [ "$1" != -- ]; do
		bench_prefix="$bench_prefix $1"
		shift
	done
	shift
	# shellcheck disable=SC2086 # words
	setsid $bench_prefix "$TGD" --socket "$bench_socket" "$@" 2>"$bench_dir/tgd.log" &
	bench_tgd=$!
	bench_await 10 "$TGCTL" --socket "$bench_socket" ping ||
		tg_die "tgd did not start: $(cat "$bench_dir/tgd.log")"
	# shellcheck disable=SC2034 # used by those that source this
	bench_tgd_worker=$("$TGCTL" --socket "$bench_socket" --json status | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
}

# bench_descendants PID: it, its children, and theirs.
bench_descendants() {
	echo "$1"
	for bench_child in $(pgrep -P "$1" || true); do
		bench_descendants "$bench_child"
	done
}

# bench_memory PID...: the bytes that these processes take: what they have to themselves, their part of what is mapped
# from files, and all of the memory files that they have open, mapped or not.  So a page of a shared heap counts once,
# also if nobody has touched it.
bench_memory() {
	for bench_pid in "$@"; do
		cat "/proc/$bench_pid/smaps_rollup"
		find "/proc/$bench_pid/fd" -lname '/memfd:*' -exec stat -L -c 'file %d:%i %b' {} + 2>/dev/null || true
	done | awk '
		$1 == "Pss:" { sum += $2 * 1024 }
		$1 == "Pss_Shmem:" { sum -= $2 * 1024 }
		$1 == "file" && !($2 in seen) { seen[$2] = 1; sum += $3 * 512 }
		END { printf "%.0f\n", sum }'
}

# bench_number TEXT: it must be one, from 1 to 99.
bench_number() {
	case $1 in
	[1-9] | [1-9][0-9])
		;;
	*)
		tg_die "--rounds takes a number from 1 to 99, not \"$1\""
		;;
	esac
}

# awk functions for reports: the median of values[1 .. n], which it sorts.
# shellcheck disable=SC2034 # used by those that source this
bench_awk='
	function median(values, n,    i, j, x) {
		for (i = 2; i <= n; i++) {
			x = values[i]
			for (j = i - 1; j > 0 && values[j] > x; j--)
				values[j + 1] = values[j]
			values[j + 1] = x
		}
		return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
	}
'
