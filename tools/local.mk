# tools/: checks of the sources for developers.

EXTRA_DIST += tools/check-model tools/count-tests

# The Spin models of what concurrent kills may leave behind (docs/model/).  Skipped where spin is not installed.
TESTS += tools/check-model

.PHONY: check-model
check-model:
	srcdir='$(srcdir)' CC='$(CC)' $(top_srcdir)/tools/check-model

tg_sources_glob = shm/*.[ch] proto/*.[ch] daemon/*.[ch] client/*.[ch] client/*/*.[ch] \
	examples/*/*.[ch] tests/*/*.[ch] bench/*.[ch] bench/*/*.[ch] tools/*.c

# cppcheck does not look for system headers: without the loops of utlist it takes a session for uninitialised.  The
# suppressed kinds take "object - start of the heap", where object may be NULL, for arithmetic on NULL.  In
# cxx.c it takes what operator new returns for a leak, and a pointer to a function for a variable never set.
tg_cppcheck_flags = --include=/usr/include/utlist.h --suppress=unknownMacro \
	--suppress=nullPointerRedundantCheck --suppress=nullPointerArithmeticRedundantCheck \
	--suppress=memleak:client/malloc/cxx.c --suppress=legacyUninitvar:client/malloc/cxx.c

.PHONY: format format-check lint
format:
	cd $(top_srcdir) && for f in $(tg_sources_glob); do test ! -f $$f || echo $$f; done | xargs clang-format -i

format-check:
	cd $(top_srcdir) && for f in $(tg_sources_glob); do test ! -f $$f || echo $$f; done | \
		xargs clang-format --dry-run -Werror

# Each part says so when its program is not installed, instead of passing quietly.
lint: $(BUILT_SOURCES)
	$(top_srcdir)/tools/check-layers $(top_srcdir)
	$(top_srcdir)/tools/check-lists $(top_srcdir)
	TG_BUILDDIR='$(abs_top_builddir)' CC='$(CC)' $(top_srcdir)/tools/check-headers $(top_srcdir)
	@cd $(top_srcdir) && if command -v shellcheck >/dev/null; then \
		shellcheck -x -e SC2016 scripts/lib.sh \
			$$(grep -lE '^#!.*sh$$' autogen.sh .ci/run scripts/* tests/scripts/* tools/*) && \
			echo "shellcheck: fine"; \
	else echo "shellcheck: not installed, skipped"; fi
	@cd $(top_srcdir) && if command -v groff >/dev/null; then \
		for m in docs/*.[1-8]; do groff -man -ww -z -Tutf8 $$m || exit 1; done && echo "groff: fine"; \
	else echo "groff: not installed, skipped"; fi
	@cd $(top_srcdir) && if command -v cppcheck >/dev/null; then \
		cppcheck --quiet --error-exitcode=1 --enable=warning,portability --inline-suppr $(tg_cppcheck_flags) \
			-D_GNU_SOURCE= '-DPACKAGE_VERSION="$(PACKAGE_VERSION)"' -I. shm proto daemon client && \
			echo "cppcheck: fine"; \
	else echo "cppcheck: not installed, skipped"; fi
