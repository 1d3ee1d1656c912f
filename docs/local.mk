# docs/: manual pages are installed, the rest is shipped.  Lists are sorted, one file a line.

dist_man_MANS += \
	%D%/tg_malloc.3 \
	%D%/tgctl.1 \
	%D%/tgd.8

EXTRA_DIST += \
	%D%/benchmarks.md \
	%D%/crash-safety.md \
	%D%/design.md \
	%D%/layout.md \
	%D%/malloc.md \
	%D%/model/README.md \
	%D%/model/free.pml \
	%D%/model/owner.pml \
	%D%/model/swap.pml \
	%D%/performance-programs.md \
	%D%/performance-scale.md \
	%D%/performance.md \
	%D%/protocol.md \
	%D%/recovery-cost.md \
	%D%/testing.md \
	README.md
