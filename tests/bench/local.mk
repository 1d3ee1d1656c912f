# tests/bench/: measured by hand or by "make bench", never part of pass or fail.  Built by "make check", so that they
# keep compiling.  Lists are sorted, one a line.

tg_benches =

check_PROGRAMS += $(tg_benches)

.PHONY: bench
bench: all
	$(MAKE) $(AM_MAKEFLAGS) $(tg_benches)
	@$(AM_TESTS_ENVIRONMENT) for b in $(tg_benches); do echo "== $$b"; ./$$b || exit 1; done
