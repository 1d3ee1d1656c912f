/* report.h - what the daemon answered, as text for people. */
#pragma once

#include <stdio.h>

#include "client/ctl/table.h"
#include "proto/msg.h"

/* Words for numbers on the wire. */
const char *tgc_report_policy(uint32_t policy); /* "keep", "reclaim" */
const char *tgc_report_state(uint32_t state);   /* "connected", "away", "dead" */
const char *tgc_report_kind(uint32_t class);    /* "large", "small", "tiny" */

void tgc_report_status(FILE *out, const Tgd__Status *status);
void tgc_report_check(FILE *out, const Tgd__Check *check);

/* Headings of the tables, and a row for one answer.  NULL: out of memory. */
struct tgc_table *tgc_report_clients_new(void);
void tgc_report_client(struct tgc_table *table, const Tgd__Client *client);
struct tgc_table *tgc_report_classes_new(void);
void tgc_report_class(struct tgc_table *table,
		      const Tgd__Class *class); /* none if it has no span */
void tgc_report_classes_total(struct tgc_table *table, const Tgd__Classes *classes);
struct tgc_table *tgc_report_spans_new(void);
void tgc_report_span(struct tgc_table *table, const Tgd__Span *span);
struct tgc_table *tgc_report_roots_new(void);
void tgc_report_root(struct tgc_table *table, const Tgd__Root *root);
