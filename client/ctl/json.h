/* json.h - what the daemon answered, as JSON with the keys that others build on (docs/design.md,
 * section 8). */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "proto/msg.h"

/* Each returns a new object, NULL if there is no memory for it. */
json_t *tgc_json_status(const Tgd__Status *status);
json_t *tgc_json_client(const Tgd__Client *client);
json_t *tgc_json_class(const Tgd__Class *class);
json_t *tgc_json_span(const Tgd__Span *span);
json_t *tgc_json_root(const Tgd__Root *root);
json_t *tgc_json_map(const Tgd__Map *map);
json_t *tgc_json_check(const Tgd__Check *check);
json_t *tgc_json_error(const char *sentence, int error);

/* A number as JSON knows it: integers there have 63 bits. */
json_int_t tgc_json_number(uint64_t n);

/* Prints the object as one line and gives it up; NULL is fine.  0 or -ENOMEM (the object is
 * NULL, or too big). */
int tgc_json_print(json_t *object, FILE *out);
