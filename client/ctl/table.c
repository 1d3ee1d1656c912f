/* table.c - rows of text in columns as wide as what is in them.
 *
 * All cells are kept until the end, because only then the widths are known; their text lies in
 * one growing buffer, so that the list of a big heap's spans costs two allocations at a time and
 * not one a cell.  Numbers stand to the right, so that their digits line up; names stand to the
 * left and belong into the last column, which is not padded: so a name may be long, or in any
 * script, and disturbs nothing.  After running out of memory a table takes no more cells, and
 * printing it says so.
 */
#include "client/ctl/table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "proto/size.h"
#include "shm/base.h"

#define GAP 2 /* blanks between columns */

struct tgc_table {
	const char *const *headings;
	unsigned n_columns;
	size_t *cells; /* where in `text` each cell starts */
	size_t n_cells, cells_room;
	char *text;
	size_t n_text, text_room;
	bool failed;
};

/* `headings` must outlive the table. */
struct tgc_table *tgc_table_new(const char *const *headings, unsigned n_columns)
{
	struct tgc_table *table = calloc(1, sizeof(*table));

	if (table == NULL)
		return NULL;
	table->headings = headings;
	table->n_columns = n_columns;
	return table;
}

struct tgc_table *tgc_table_free(struct tgc_table *table)
{
	if (table == NULL)
		return NULL;
	free(table->cells);
	free(table->text);
	free(table);
	return NULL;
}

size_t tgc_table_rows(const struct tgc_table *table)
{
	return table->n_cells / table->n_columns;
}

/* Room for `more` elements behind n, by doubling. */
static int make_room(void *array, size_t element, size_t n, size_t more, size_t *room)
{
	size_t want = *room == 0 ? 1024 : *room;
	void *grown;

	while (want < n + more)
		want *= 2;
	if (want == *room)
		return 0;
	grown = reallocarray(*(void **)array, want, element);
	if (grown == NULL)
		return -ENOMEM;
	*(void **)array = grown;
	*room = want;
	return 0;
}

void tgc_table_text(struct tgc_table *table, const char *text)
{
	size_t size = strlen(text) + 1;

	if (table->failed)
		return;
	if (make_room(&table->cells, sizeof(*table->cells), table->n_cells, 1, &table->cells_room) <
		    0 ||
	    make_room(&table->text, 1, table->n_text, size, &table->text_room) < 0) {
		table->failed = true;
		return;
	}
	table->cells[table->n_cells++] = table->n_text;
	memcpy(table->text + table->n_text, text, size);
	table->n_text += size;
}

void tgc_table_number(struct tgc_table *table, uint64_t n)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, n);
	tgc_table_text(table, text);
}

void tgc_table_size(struct tgc_table *table, uint64_t bytes)
{
	char text[TGP_SIZE_TEXT];

	tgp_format_size(bytes, text, sizeof(text));
	tgc_table_text(table, text);
}

/* "-" of nothing; else whole per cent, rounded down, so that 100 % means all. */
void tgc_table_percent(struct tgc_table *table, uint64_t part, uint64_t whole)
{
	char text[24];

	if (whole == 0) {
		tgc_table_text(table, "-");
		return;
	}
	snprintf(text, sizeof(text), "%d%%", (int)((double)part / (double)whole * 100));
	tgc_table_text(table, text);
}

static const char *heading(const struct tgc_table *table, unsigned column, bool *ret_left)
{
	const char *text = table->headings[column];

	*ret_left = *text == '<';
	return *ret_left ? text + 1 : text;
}

static void print_cell(const struct tgc_table *table, FILE *out, unsigned column, size_t width,
		       const char *text)
{
	bool left;

	(void)heading(table, column, &left);
	if (column > 0)
		fprintf(out, "%*s", GAP, "");
	if (left && column == table->n_columns - 1)
		fprintf(out, "%s", text);
	else
		fprintf(out, left ? "%-*s" : "%*s", (int)width, text);
	if (column == table->n_columns - 1)
		putc('\n', out);
}

/* Prints headings and rows.  0, or -ENOMEM if there was no memory for all of it: then nothing is
 * printed.  Errors of `out` are the caller's to look for. */
int tgc_table_print(const struct tgc_table *table, FILE *out)
{
	TGS_FREE size_t *widths = calloc(table->n_columns, sizeof(*widths));
	size_t i, width;
	unsigned column;
	bool left;

	if (widths == NULL || table->failed)
		return -ENOMEM;
	for (column = 0; column < table->n_columns; column++)
		widths[column] = strlen(heading(table, column, &left));
	for (i = 0; i < table->n_cells; i++) {
		width = strlen(table->text + table->cells[i]);
		if (width > widths[i % table->n_columns])
			widths[i % table->n_columns] = width;
	}
	for (column = 0; column < table->n_columns; column++)
		print_cell(table, out, column, widths[column], heading(table, column, &left));
	for (i = 0; i < table->n_cells; i++) {
		column = (unsigned)(i % table->n_columns);
		print_cell(table, out, column, widths[column], table->text + table->cells[i]);
	}
	return 0;
}
