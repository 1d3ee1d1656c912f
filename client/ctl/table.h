/* table.h - rows of text in columns as wide as what is in them. */
#pragma once

#include <stdint.h>
#include <stdio.h>

struct tgc_table;

/* Headings with a leading '<' have their cells to the left, others to the right.  NULL: out of
 * memory. */
struct tgc_table *tgc_table_new(const char *const *headings, unsigned n_columns);

/* Adds the next cell, row by row.  Failures show in tgc_table_print. */
void tgc_table_text(struct tgc_table *table, const char *text);
void tgc_table_number(struct tgc_table *table, uint64_t n);
void tgc_table_size(struct tgc_table *table, uint64_t bytes);
void tgc_table_percent(struct tgc_table *table, uint64_t part, uint64_t whole);

/* Prints headings and rows, all that was added.  0 or -ENOMEM. */
int tgc_table_print(const struct tgc_table *table, FILE *out);

size_t tgc_table_rows(const struct tgc_table *table);

/* NULL or not.  Returns NULL. */
struct tgc_table *tgc_table_free(struct tgc_table *table);
