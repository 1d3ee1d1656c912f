/* map.h - the heap drawn in the terminal, one character a cell. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "proto/msg.h"

/* How the map is to be drawn. */
struct tgc_canvas {
	unsigned columns; /* cells in a row */
	unsigned rows;    /* rows at most */
	bool colour;
};

/* What fits a terminal on `out`: its width, else $COLUMNS, else 80; colour only if it wants
 * that. */
struct tgc_canvas tgc_map_canvas(FILE *out);

/* How many cells to ask for. */
unsigned tgc_map_cells(const struct tgc_canvas *canvas);

void tgc_map_print(FILE *out, const struct tgc_canvas *canvas, const Tgd__Map *map);
