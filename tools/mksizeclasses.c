/*
 * mksizeclasses: compute the size classes and print them as shm/sizeclass-table.h.
 *
 * The classes are those of the Go runtime, but worked out here from its rules (mksizeclasses.go)
 * and not typed in, so that the rules can be read, and changed, in one place:
 *   1. Candidate sizes advance by a step that grows with the size, so that rounding a request up
 *      wastes at most an eighth.
 *   2. A span gets as many pages as it takes for its unused tail to be at most an eighth.
 *   3. Of two neighbours with the same pages and the same number of objects the larger is kept.
 *   4. A size grows into what its span has left over, in steps of 128, so that the sizes above
 *      1024 stay addressable by a table with one entry per 128 bytes.
 * The program runs at build time, checks what it made (68 entries, reciprocals exact for every
 * offset of every span, every request served by the smallest class that fits), and fails the
 * build if a check fails. It needs nothing but the C library.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	PAGE = 8192,
	SMALL_MAX = 32768,
	N_CLASSES = 68,    /* what the rules must give, class 0 included */
	MAX_CLASSES = 256, /* room for the candidates while merging */
	FINE_STEP = 8,     /* table A: one entry per 8 bytes, for the smaller requests */
	FINE_MAX = 1024,
	COARSE_STEP = 128, /* table B: one entry per 128 bytes, from FINE_MAX on */
	N_FINE = FINE_MAX / FINE_STEP + 1,
	N_COARSE = (SMALL_MAX - FINE_MAX) / COARSE_STEP + 1,
	SPARSE_MAX = 64, /* most slots of a span with one 64-object unit of state */
};

struct size_class {
	uint32_t size;
	uint32_t n_pages;
};

static uint32_t n_slots(const struct size_class *c)
{
	return c->n_pages * PAGE / c->size;
}

static _Noreturn void fail(const char *format, ...)
{
	va_list args;

	fputs("mksizeclasses: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(EXIT_FAILURE);
}

/* The distance to the next candidate, which changes at powers of two only. */
static uint32_t step_after(uint32_t size, uint32_t step)
{
	if (size & (size - 1))
		return step;
	if (size >= 2048)
		return 256;
	if (size >= 128)
		return size / 8;
	if (size >= 32)
		return 16;
	return step;
}

/* The fewest pages of which objects of this size leave at most an eighth unused. */
static uint32_t pages_for(uint32_t size)
{
	uint32_t bytes = PAGE;

	while (bytes % size > bytes / 8)
		bytes += PAGE;
	return bytes / PAGE;
}

/* Rules 1 to 3. Entry 0 is reserved for large objects. Returns the number of entries. */
static unsigned collect(struct size_class *classes)
{
	uint32_t step = FINE_STEP;
	unsigned n = 1;

	for (uint32_t size = step; size <= SMALL_MAX; size += step) {
		struct size_class next = {.size = size, .n_pages = pages_for(size)};

		step = step_after(size, step);
		if (n > 1 && classes[n - 1].n_pages == next.n_pages &&
		    n_slots(&classes[n - 1]) == n_slots(&next))
			n--;
		if (n == MAX_CLASSES)
			fail("more than %d classes; the rules are broken", MAX_CLASSES);
		classes[n++] = next;
	}
	return n;
}

/* Rule 4. */
static void grow(struct size_class *classes, unsigned n)
{
	for (unsigned i = 1; i < n; i++) {
		uint32_t room = classes[i].n_pages * PAGE / n_slots(&classes[i]);

		room -= room % COARSE_STEP;
		if (room > classes[i].size)
			classes[i].size = room;
	}
}

/* ceil(2^32 / size): (offset * magic) >> 32 is then offset / size for offsets within a span, and the low half is less than
 * magic where a slot starts. */
static uint64_t magic_of(uint32_t size)
{
	return UINT32_MAX / size + UINT64_C(1);
}

static void check_magic(const struct size_class *c)
{
	uint64_t magic = magic_of(c->size);

	for (uint64_t offset = 0; offset <= c->n_pages * PAGE; offset++)
		if ((offset * magic) >> 32 != offset / c->size ||
		    ((uint32_t)(offset * magic) < magic) != (offset % c->size == 0))
			fail("the reciprocal of %" PRIu32 " is wrong at offset %" PRIu64, c->size,
			     offset);
}

static unsigned smallest_class(const struct size_class *classes, unsigned n, uint32_t size)
{
	for (unsigned i = 0; i < n; i++)
		if (classes[i].size >= size)
			return i;
	fail("no class for a request of %" PRIu32 " bytes", size);
}

static void check_lookup(const struct size_class *classes, unsigned n)
{
	for (uint32_t size = 1; size <= SMALL_MAX; size++) {
		bool fine = size <= FINE_MAX - FINE_STEP;
		uint32_t step = fine ? FINE_STEP : COARSE_STEP;
		uint32_t edge = (size + step - 1) / step * step;

		if (smallest_class(classes, n, size) != smallest_class(classes, n, edge))
			fail("requests of %" PRIu32 " and %" PRIu32
			     " bytes share a table entry but not a class",
			     size, edge);
	}
}

static const char *kind_of(uint32_t slots)
{
	if (slots <= SPARSE_MAX)
		return "TGS_SPARSE";
	if (slots <= 2 * SPARSE_MAX)
		return "TGS_DENSE_2";
	return slots <= 4 * SPARSE_MAX ? "TGS_DENSE_4" : "TGS_DENSE_8";
}

static void print_classes(const struct size_class *classes, unsigned n)
{
	puts("/* size, objects, pages, kind, magic */\n"
	     "const struct tgs_class tgs_classes[TGS_CLASSES_ALL] = {\n"
	     "\t[0] = { 0, 1, 0, TGS_SPARSE, 0 },");
	for (unsigned i = 1; i < n; i++)
		printf("\t[%u] = { %" PRIu32 ", %" PRIu32 ", %" PRIu32 ", %s, %" PRIu64 " },\n", i,
		       classes[i].size, n_slots(&classes[i]), classes[i].n_pages,
		       kind_of(n_slots(&classes[i])), magic_of(classes[i].size));
	printf("\t[TGS_CLASS_TINY] = { 1, %d, 1, TGS_TINY, UINT64_C(1) << 32 },\n};\n", PAGE);
}

static void print_table(const struct size_class *classes, unsigned n, const char *name,
			uint32_t base, uint32_t step, uint32_t n_entries)
{
	printf("\nconst uint8_t %s[%" PRIu32 "] = {", name, n_entries);
	for (uint32_t i = 0; i < n_entries; i++)
		printf("%s%u,", i % 16 ? " " : "\n\t", smallest_class(classes, n, base + i * step));
	puts("\n};");
}

int main(void)
{
	static struct size_class classes[MAX_CLASSES];
	unsigned n = collect(classes);

	grow(classes, n);
	if (n != N_CLASSES)
		fail("the rules gave %u classes and not %d", n, N_CLASSES);
	for (unsigned i = 1; i < n; i++)
		check_magic(&classes[i]);
	check_lookup(classes, n);

	printf("/* Made by tools/mksizeclasses.c; do not edit. */\n"
	       "#define TGS_TABLE_PAGE_SIZE %d\n"
	       "#define TGS_TABLE_CLASSES %u\n"
	       "#define TGS_TABLE_SMALL_MAX %d\n\n",
	       PAGE, n, SMALL_MAX);
	print_classes(classes, n);
	print_table(classes, n, "tgs_class_table_a", 0, FINE_STEP, N_FINE);
	print_table(classes, n, "tgs_class_table_b", FINE_MAX, COARSE_STEP, N_COARSE);

	if (fflush(stdout) || ferror(stdout))
		fail("cannot write the table");
	return EXIT_SUCCESS;
}
