/* map.c - the heap drawn in the terminal.
 *
 * The daemon cuts the part of the heap that was ever in use into cells of equal length and says
 * of each what its pages do; here a cell becomes one character.  A letter says what most of its
 * pages in use serve (a group of size classes), a capital that at least half of the cell is in
 * use; "-" has free pages with memory, "." only such that were returned to the kernel or never
 * used.  So a row reads without colour, and on a terminal colour adds three steps of fullness.
 * Each row starts with the offset of its first cell.  Numbers of a cell come from the wire: they
 * are only compared and added here, and nothing is indexed with them before it was checked.
 */
#include "client/ctl/map.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "proto/size.h"
#include "shm/base.h"
#include "shm/layout.h"
#include "shm/sizeclass.h"

#define MARGIN      12 /* columns of a row's offset and what frames the cells */
#define COLUMNS_MIN 16
#define COLUMNS_MAX 512
#define ROWS        20
#define WIDTH_USUAL 80

/* Classes that look alike: those up to `size` bytes.  Colours are of the 256-colour palette,
 * from sparse to full. */
static const struct group {
	char letter;
	uint32_t size; /* largest; 0: large objects */
	const char *name;
	uint8_t colours[3];
} groups[] = {
	{'t', TGS_TINY_MAX, "tiny, 1 to 15 B", {52, 88, 160}},
	{'s', 128, "16 to 128 B", {58, 94, 136}},
	{'m', 1024, "to 1 KiB", {22, 28, 34}},
	{'k', TGS_SMALL_MAX, "to 32 KiB", {23, 30, 37}},
	{'l', 0, "large", {54, 91, 134}},
};

#define COLOUR_IDLE 238

/* ---- what it is drawn on ---- */

static unsigned terminal_width(int fd)
{
	const char *columns = getenv("COLUMNS");
	struct winsize size;
	char *end;
	long n;

	if (fd >= 0 && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		return size.ws_col;
	if (columns == NULL || *columns == '\0')
		return WIDTH_USUAL;
	n = strtol(columns, &end, 10);
	return *end == '\0' && n > 0 && n < 10000 ? (unsigned)n : WIDTH_USUAL;
}

/* The width of the terminal on `out`, if it is one, else $COLUMNS, else 80.  Colour: `out` is a
 * terminal, not a dumb one, and NO_COLOR is unset or empty. */
struct tgc_canvas tgc_map_canvas(FILE *out)
{
	const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");
	struct tgc_canvas canvas;
	unsigned width = terminal_width(fileno(out));

	canvas.columns = width < COLUMNS_MIN + MARGIN ? COLUMNS_MIN : width - MARGIN;
	if (canvas.columns > COLUMNS_MAX)
		canvas.columns = COLUMNS_MAX;
	canvas.rows = TGP_CELLS_MAX / canvas.columns;
	if (canvas.rows > ROWS)
		canvas.rows = ROWS;
	canvas.colour = fileno(out) >= 0 && isatty(fileno(out)) &&
			(no_colour == NULL || *no_colour == '\0') && term != NULL &&
			strcmp(term, "dumb") != 0;
	return canvas;
}

unsigned tgc_map_cells(const struct tgc_canvas *canvas)
{
	return canvas->columns * canvas->rows;
}

/* ---- cells ---- */

static const struct group *group_of(uint32_t class)
{
	size_t i;

	if (class == 0 || class >= TGS_CLASSES_ALL)
		return &groups[TGS_ARRAY_LEN(groups) - 1];
	if (class == TGS_CLASS_TINY)
		return &groups[0];
	for (i = 1; groups[i].size != 0 && tgs_classes[class].size > groups[i].size; i++)
		;
	return &groups[i];
}

/* What a cell looks like: a character and a background colour, 0 = none. */
static char look_of(const Tgd__MapCell *cell, unsigned *ret_colour)
{
	uint64_t all = (uint64_t)cell->used + cell->idle + cell->returned;
	const struct group *group = group_of(cell->class_);
	uint64_t used4 = (uint64_t)cell->used * 4;

	if (cell->used == 0) {
		*ret_colour = cell->idle > 0 ? COLOUR_IDLE : 0;
		return cell->idle > 0 ? '-' : '.';
	}
	*ret_colour = group->colours[used4 > all * 3 ? 2 : used4 > all ? 1 : 0];
	return used4 >= all * 2 ? (char)toupper(group->letter) : group->letter;
}

/* Changes the background if need be; `*now` is the one that is set. */
static void set_colour(FILE *out, const struct tgc_canvas *canvas, unsigned colour, unsigned *now)
{
	if (!canvas->colour || colour == *now)
		return;
	if (colour == 0)
		fputs("\033[0m", out);
	else
		fprintf(out, "\033[48;5;%u;38;5;255m", colour);
	*now = colour;
}

static void print_row(FILE *out, const struct tgc_canvas *canvas, const Tgd__Map *map, size_t first)
{
	char offset[TGP_SIZE_TEXT];
	unsigned colour, now = 0;
	size_t i;
	char c;

	tgp_format_size(first * map->pages_per_cell * TGS_PAGE_SIZE, offset, sizeof(offset));
	fprintf(out, "%10s ", offset);
	for (i = first; i < map->n_cells && i < first + canvas->columns; i++) {
		c = look_of(map->cells[i], &colour);
		set_colour(out, canvas, colour, &now);
		putc(c, out);
	}
	set_colour(out, canvas, 0, &now);
	putc('\n', out);
}

/* ---- the whole ---- */

static void print_legend(FILE *out, const struct tgc_canvas *canvas)
{
	unsigned now = 0;
	size_t i;

	fputs("\n  in use by objects of", out);
	for (i = 0; i < TGS_ARRAY_LEN(groups); i++) {
		fputs(i == 0 ? " " : i == 3 ? ",\n  " : ", ", out);
		set_colour(out, canvas, groups[i].colours[2], &now);
		putc(toupper(groups[i].letter), out);
		set_colour(out, canvas, 0, &now);
		fprintf(out, " %s", groups[i].name);
	}
	fputs(" (small letter: less than half of the cell)\n  ", out);
	set_colour(out, canvas, COLOUR_IDLE, &now);
	putc('-', out);
	set_colour(out, canvas, 0, &now);
	fputs(" free, has memory   . returned to the kernel or never used\n", out);
}

/* Draws the cells in rows of canvas->columns, with a line on top that sums them up and a legend
 * below. */
void tgc_map_print(FILE *out, const struct tgc_canvas *canvas, const Tgd__Map *map)
{
	char used_text[TGP_SIZE_TEXT], idle_text[TGP_SIZE_TEXT], all_text[TGP_SIZE_TEXT];
	char cell_text[TGP_SIZE_TEXT];
	uint64_t used = 0, idle = 0;
	size_t i;

	for (i = 0; i < map->n_cells; i++) {
		used += map->cells[i]->used;
		idle += map->cells[i]->idle;
	}
	if (map->n_pages == 0 || map->n_cells == 0) {
		fputs("the heap has not been used yet\n", out);
		return;
	}
	tgp_format_size(map->n_pages * TGS_PAGE_SIZE, all_text, sizeof(all_text));
	tgp_format_size(used * TGS_PAGE_SIZE, used_text, sizeof(used_text));
	tgp_format_size(idle * TGS_PAGE_SIZE, idle_text, sizeof(idle_text));
	tgp_format_size(map->pages_per_cell * TGS_PAGE_SIZE, cell_text, sizeof(cell_text));
	fprintf(out, "the first %s: %s in use, %s free with memory; a cell is %s\n\n", all_text,
		used_text, idle_text, cell_text);
	for (i = 0; i < map->n_cells; i += canvas->columns)
		print_row(out, canvas, map, i);
	print_legend(out, canvas);
}
