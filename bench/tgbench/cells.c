/* cells.c - the workloads with their parameters: every line that tgbench can measure.  docs/benchmarks.md explains them.
 */
#include "bench/tgbench/tgbench.h"

#define MALLOCS (1u << TGB_PRIVATE | 1u << TGB_SELF | 1u << TGB_PRELOAD)
#define ALL     (MALLOCS | 1u << TGB_SHARED)
#define GO      (1u << TGB_GO)
#define SELF    (1u << TGB_SELF)
#define GIB     1073741824.0

/* clang-format off */

static const struct tgb_metric ns[] = {{"ns", "ns"}, {0}};
static const struct tgb_metric ns_kib[] = {{"ns_kib", "ns/KiB"}, {0}};
static const struct tgb_metric churn[] = {{"ns", "ns"}, {"footprint", "ratio"}, {0}};
static const struct tgb_metric phases[] = {{"footprint", "ratio"}, {"ns", "ns"}, {0}};
static const struct tgb_metric two[] = {
	{"ns", "ns"}, {"alone_ns", "ns alone"}, {"slowdown", "both/alone"}, {0}};
static const struct tgb_metric tiny[] = {{"ns", "ns"},
					 {"malloc_ns", "ns malloc"},
					 {"free_ns", "ns free"},
					 {"object_bytes", "bytes"},
					 {0}};
static const struct tgb_metric start[] = {
	{"first_us", "us first"}, {"exec_us", "us exec"}, {"fork_us", "us fork"}, {0}};

/* Name, arguments, who, two cores, deadline, metrics, fresh memory. */
#define PAIR(size, kinds) \
	{"pair", "100x" #size, "pair batch=100 size=" #size, kinds, false, 10, ns, 0}
#define PAIR_10000(size) \
	{"pair", "10000x" #size, "pair batch=10000 segment=512 size=" #size, ALL, false, 15, ns, 0}
#define CHURN(name, args)    {"churn", name, "churn " args, ALL, false, 30, churn, 0}
#define LARSON(name, args)   {"larson", name, "larson live=5000 " args, MALLOCS, true, 20, ns, 0}
#define RING(name, args, by) {"prodcons", name, "prodcons " args, by, true, 20, ns, 0}
#define TWO(size)            {"twoproc", #size, "twoproc batch=100 size=" #size, ALL, true, 15, two, 0}
#define REUSE(name, args)    {"large", "reuse" name, "reuse size=" args, MALLOCS, false, 20, ns, 0}
#define FRESH(name, args)    {"large", "fresh" name, "fresh size=" args, MALLOCS, false, 60, ns_kib, GIB}
#define REALLOC(name, args)  {"realloc", name, "realloc " args, MALLOCS, false, 20, ns, 0}
#define CALLOC(name, args)   {"calloc", name, "calloc " args, MALLOCS, false, 20, ns, 0}
#define TINY(name, args)     {"tinymix", name, "tinymix " args, MALLOCS, false, 60, tiny, 0}
#define GROWTH(name, args)   {"growth", name, "growth " args, MALLOCS, false, 120, ns_kib, 2 * GIB}

const struct tgb_cell tgb_all_cells[] = {
	PAIR(1, ALL | GO),
	PAIR(2, ALL | GO),
	PAIR(4, ALL | GO),
	PAIR(5, ALL | GO),
	PAIR(7, ALL | GO),
	PAIR(8, ALL | GO),
	PAIR(12, ALL | GO),
	PAIR(15, ALL | GO),
	PAIR(16, ALL | GO),
	PAIR(24, ALL),
	PAIR(32, ALL | GO),
	PAIR(64, ALL | GO),
	PAIR(256, ALL),
	PAIR(1024, ALL),
	PAIR(4096, ALL),
	PAIR(16384, ALL),
	PAIR_10000(1),
	PAIR_10000(5),
	PAIR_10000(8),
	PAIR_10000(12),
	PAIR_10000(16),
	PAIR_10000(24),
	PAIR_10000(64),
	PAIR_10000(256),
	PAIR_10000(1024),
	PAIR_10000(4096),
	PAIR_10000(16384),
	CHURN("5000x1K", "live=5000 sizes=exp hi=1024"),
	CHURN("100000x1K", "live=100000 sizes=exp hi=1024"),
	CHURN("5000x32K", "live=5000 sizes=log hi=32768"),
	CHURN("100000x32K", "live=100000 sizes=log hi=32768 segment=1024"),
	LARSON("swap", "fresh=0"),
	LARSON("new-threads", "fresh=1"),
	RING("64", "lo=64 hi=64", ALL),
	RING("16..1024", "lo=16 hi=1024", ALL),
	RING("64-threads", "threads=1 lo=64 hi=64", SELF),
	RING("16..1024-threads", "threads=1 lo=16 hi=1024", SELF),
	RING("64-bare", "threads=1 bare=1", SELF),
	RING("64-bare-8", "threads=1 bare=1 stores=8", SELF),
	TWO(16),
	TWO(64),
	TWO(256),
	TWO(1024),
	REUSE("-64K", "65536"),
	REUSE("-1M", "1048576"),
	REUSE("-16M", "16777216"),
	REUSE("8-64K", "65536 live=8"),
	REUSE("8-1M", "1048576 live=8"),
	REUSE("8-16M", "16777216 live=8"),
	FRESH("-64K", "65536"),
	FRESH("-1M", "1048576"),
	FRESH("-16M", "16777216"),
	REALLOC("doubling", "factor=2"),
	REALLOC("x1.1", "factor=1.1"),
	REALLOC("plus-4K", "factor=1 plus=4096"),
	CALLOC("64", "size=64"),
	CALLOC("1024", "size=1024"),
	CALLOC("16384", "size=16384"),
	CALLOC("1M", "size=1048576 batch=4"),
	TINY("1..15", "lo=1 hi=15"),
	TINY("8", "lo=8 hi=8"),
	GROWTH("1K", "lo=1024 hi=1024"),
	GROWTH("64..16K", "sizes=log lo=64 hi=16384"),
	{"start", "64", "start", MALLOCS, false, 60, start, 0},
	{"footprint", "60-phases", "phases", MALLOCS, false, 180, phases, 0},
};

/* clang-format on */

const unsigned tgb_n_all_cells = sizeof(tgb_all_cells) / sizeof(*tgb_all_cells);
