/* cells.c - the workloads with their parameters: every line that tgbench can measure.  docs/benchmarks.md explains them.
 */
#include "bench/tgbench/tgbench.h"

#define MALLOCS (1u << TGB_PRIVATE | 1u << TGB_SELF | 1u << TGB_PRELOAD)
#define ALL     (MALLOCS | 1u << TGB_SHARED)
#define GO      (1u << TGB_GO)
#define SELF    (1u << TGB_SELF)

#define NS        {{"ns", "ns"}}
#define NS_KIB    {{"ns_kib", "ns/KiB"}}
#define FOOTPRINT {{"ns", "ns"}, {"footprint", "ratio"}}

#define PAIR(size, kinds)                                                                  \
	{                                                                                  \
		"pair", "100x" #size, "pair batch=100 size=" #size, kinds, false, 10, NS   \
	}
#define PAIR_10000(size)                                                                      \
	{                                                                                     \
		"pair", "10000x" #size, "pair batch=10000 segment=512 size=" #size, ALL, false, 15, NS \
	}
#define CHURN(name, args)                                               \
	{                                                               \
		"churn", name, "churn " args, ALL, false, 60, FOOTPRINT \
	}
#define TWO(size)                                                                    \
	{                                                                            \
		"twoproc", #size, "twoproc batch=100 size=" #size, ALL, true, 15,    \
		{                                                                    \
			{"ns", "ns"}, {"alone_ns", "ns alone"}, {"slowdown", "both/alone"} \
		}                                                                    \
	}
#define LARGE(name, size)                                                                     \
	{"large", "reuse-" name, "reuse size=" size, MALLOCS, false, 20, NS},                 \
		{"large", "reuse8-" name, "reuse live=8 size=" size, MALLOCS, false, 20, NS}, \
	{                                                                                     \
		"large", "fresh-" name, "fresh size=" size, MALLOCS, false, 60, NS_KIB        \
	}
#define REALLOC(name, args)                                                \
	{                                                                  \
		"realloc", name, "realloc " args, MALLOCS, false, 20, NS   \
	}
#define CALLOC(name, args)                                               \
	{                                                                \
		"calloc", name, "calloc " args, MALLOCS, false, 20, NS   \
	}

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
	{"larson", "swap", "larson live=5000 fresh=0", MALLOCS, true, 20, NS},
	{"larson", "new-threads", "larson live=5000 fresh=1", MALLOCS, true, 20, NS},
	{"prodcons", "64", "prodcons lo=64 hi=64", ALL, true, 20, NS},
	{"prodcons", "16..1024", "prodcons lo=16 hi=1024", ALL, true, 20, NS},
	{"prodcons", "64-threads", "prodcons threads=1 lo=64 hi=64", SELF, true, 20, NS},
	{"prodcons", "16..1024-threads", "prodcons threads=1 lo=16 hi=1024", SELF, true, 20, NS},
	TWO(16),
	TWO(64),
	TWO(256),
	TWO(1024),
	LARGE("64K", "65536"),
	LARGE("1M", "1048576"),
	LARGE("16M", "16777216"),
	REALLOC("doubling", "factor=2"),
	REALLOC("x1.1", "factor=1.1"),
	REALLOC("plus-4K", "factor=1 plus=4096"),
	CALLOC("64", "size=64"),
	CALLOC("1024", "size=1024"),
	CALLOC("16384", "size=16384"),
	CALLOC("1M", "size=1048576 batch=4"),
	{"tinymix", "1..15", "tinymix lo=1 hi=15", MALLOCS, false, 60,
	 {{"ns", "ns"}, {"malloc_ns", "ns malloc"}, {"free_ns", "ns free"}, {"object_bytes", "bytes"}}},
	{"tinymix", "8", "tinymix lo=8 hi=8", MALLOCS, false, 60,
	 {{"ns", "ns"}, {"malloc_ns", "ns malloc"}, {"free_ns", "ns free"}, {"object_bytes", "bytes"}}},
	{"growth", "1K", "growth lo=1024 hi=1024", MALLOCS, false, 120, NS_KIB},
	{"growth", "64..16K", "growth sizes=log lo=64 hi=16384", MALLOCS, false, 120, NS_KIB},
	{"start", "64", "start", MALLOCS, false, 60,
	 {{"first_us", "us first"}, {"exec_us", "us exec"}, {"fork_us", "us fork"}}},
	{"footprint", "60-phases", "phases", MALLOCS, false, 180, {{"footprint", "ratio"}, {"ns", "ns"}}},
};

const unsigned tgb_n_all_cells = sizeof(tgb_all_cells) / sizeof(*tgb_all_cells);
