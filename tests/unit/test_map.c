/* The heap as tgctl draws it: which character a cell becomes, how rows are cut, when there is
 * colour. */
#include "client/ctl/map.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tests/support/runner.h"

#define N_CELLS 12

static char *printed;
static size_t printed_size;
static FILE *out;

static Tgd__MapCell cells[N_CELLS], *pointers[N_CELLS];
static Tgd__Map map;

static void set_up(void)
{
	size_t i;

	unsetenv("COLUMNS");
	unsetenv("NO_COLOR");
	setenv("TERM", "xterm", 1);
	out = open_memstream(&printed, &printed_size);
	CU_ASSERT_PTR_NOT_NULL_FATAL(out);
	tgd__map__init(&map);
	for (i = 0; i < N_CELLS; i++) {
		tgd__map_cell__init(&cells[i]);
		pointers[i] = &cells[i];
	}
	map.cells = pointers;
	map.n_cells = N_CELLS;
	map.pages_per_cell = 8;
	map.n_pages = N_CELLS * 8;
}

static void tear_down(void)
{
	fclose(out);
	free(printed);
}

static void set_cell(unsigned i, uint32_t used, uint32_t idle, uint32_t returned, uint32_t class)
{
	cells[i].used = used;
	cells[i].idle = idle;
	cells[i].returned = returned;
	cells[i].class_ = class;
}

/* Draws with so many cells a row. */
static const char *draw(unsigned columns, bool colour)
{
	struct tgc_canvas canvas = {.columns = columns, .rows = 20, .colour = colour};

	tgc_map_print(out, &canvas, &map);
	fflush(out);
	return printed;
}

static void letters_tell_the_class_and_capitals_the_fullness(void)
{
	set_cell(0, 8, 0, 0, 68);
	set_cell(1, 4, 0, 4, 2);
	set_cell(2, 3, 5, 0, 10);
	set_cell(3, 1, 0, 7, 12);
	set_cell(4, 8, 0, 0, 32);
	set_cell(5, 8, 0, 0, 33);
	set_cell(6, 8, 0, 0, 67);
	set_cell(7, 8, 0, 0, 0);
	set_cell(8, 0, 8, 0, 0);
	set_cell(9, 0, 1, 7, 5);
	set_cell(10, 0, 0, 8, 0);
	set_cell(11, 1, 0, 0, 4000000000u);
	CU_ASSERT_PTR_NOT_NULL(strstr(draw(N_CELLS, false), "\n       0 B TSsmMKKL--.L\n"));
	CU_ASSERT_PTR_NULL(strchr(printed, '\033'));
}

static void rows_start_with_their_offset(void)
{
	const char *text = draw(5, false);

	/* A cell of 8 pages is 64 KiB, a row of 5 cells 320 KiB. */
	CU_ASSERT_PTR_NOT_NULL(
		strstr(text, "\n       0 B .....\n   320 KiB .....\n   640 KiB ..\n\n"));
	CU_ASSERT_PTR_NOT_NULL(
		strstr(text, "the first 768 KiB: 0 B in use, 0 B free with memory; a cell is "
			     "64 KiB\n"));
}

static void a_heap_never_used_is_no_picture(void)
{
	map.n_cells = 0;
	map.n_pages = 0;
	CU_ASSERT_STRING_EQUAL(draw(10, false), "the heap has not been used yet\n");
}

static void absurd_numbers_from_the_wire_are_drawn(void)
{
	set_cell(0, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX);
	map.pages_per_cell = UINT64_MAX;
	map.n_pages = UINT64_MAX;
	CU_ASSERT_PTR_NOT_NULL(strstr(draw(N_CELLS, true), "L"));
	CU_ASSERT_PTR_NOT_NULL(strstr(printed, "l"));
}

static void colour_is_switched_off_before_a_line_ends(void)
{
	const char *p, *text;
	bool on = false;

	set_cell(4, 8, 0, 0, 5);
	set_cell(5, 8, 0, 0, 5);
	text = draw(5, true);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\033[48;5;"));
	for (p = text; *p != '\0'; p++) {
		if (*p == '\033')
			on = strncmp(p, "\033[0m", 4) != 0;
		CU_ASSERT(*p != '\n' || !on);
	}
}

static void the_width_is_80_unless_columns_says_otherwise(void)
{
	static const struct {
		const char *columns;
		unsigned want;
	} cases[] = {{"100", 88}, {"80", 68},   {"10", 16}, {"0", 68},
		     {"-5", 68},  {"many", 68}, {"", 68},   {"5000", 512}};
	struct tgc_canvas canvas = tgc_map_canvas(out);
	size_t i;

	CU_ASSERT_EQUAL(canvas.columns, 68);
	CU_ASSERT_EQUAL(canvas.rows, 20);
	CU_ASSERT_FALSE(canvas.colour);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		setenv("COLUMNS", cases[i].columns, 1);
		canvas = tgc_map_canvas(out);
		CU_ASSERT_EQUAL(canvas.columns, cases[i].want);
		CU_ASSERT(tgc_map_cells(&canvas) <= TGP_CELLS_MAX);
		CU_ASSERT(canvas.rows >= 4);
	}
}

static void a_terminal_has_its_width_and_colour(void)
{
	struct winsize size = {.ws_row = 50, .ws_col = 120};
	int master = posix_openpt(O_RDWR | O_NOCTTY);
	struct tgc_canvas canvas;
	FILE *terminal;

	CU_ASSERT_FATAL(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	terminal = fopen(ptsname(master), "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(terminal);
	CU_ASSERT_EQUAL(ioctl(master, TIOCSWINSZ, &size), 0);
	setenv("COLUMNS", "90", 1);
	canvas = tgc_map_canvas(terminal);
	CU_ASSERT_EQUAL(canvas.columns, 108);
	CU_ASSERT_TRUE(canvas.colour);
	setenv("TERM", "dumb", 1);
	CU_ASSERT_FALSE(tgc_map_canvas(terminal).colour);
	setenv("TERM", "xterm", 1);
	setenv("NO_COLOR", "1", 1);
	CU_ASSERT_FALSE(tgc_map_canvas(terminal).colour);
	setenv("NO_COLOR", "", 1);
	CU_ASSERT_TRUE(tgc_map_canvas(terminal).colour);
	fclose(terminal);
	close(master);
}

static void no_line_is_wider_than_80_columns(void)
{
	struct tgc_canvas canvas = tgc_map_canvas(out);
	const char *line, *end;

	for (line = draw(canvas.columns, false); *line != '\0'; line = end + 1) {
		end = strchrnul(line, '\n');
		CU_ASSERT(end - line <= 80);
	}
}

static CU_TestInfo tests[] = {
	{"letters tell the class, and capitals the fullness",
	 letters_tell_the_class_and_capitals_the_fullness},
	{"rows start with their offset", rows_start_with_their_offset},
	{"a heap never used is no picture", a_heap_never_used_is_no_picture},
	{"absurd numbers from the wire are drawn", absurd_numbers_from_the_wire_are_drawn},
	{"colour is switched off before a line ends", colour_is_switched_off_before_a_line_ends},
	{"the width is 80 unless COLUMNS says otherwise",
	 the_width_is_80_unless_columns_says_otherwise},
	{"a terminal has its width, and colour", a_terminal_has_its_width_and_colour},
	{"no line is wider than 80 columns", no_line_is_wider_than_80_columns},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"the map", NULL, NULL, set_up, tear_down, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("map", suites);
}
