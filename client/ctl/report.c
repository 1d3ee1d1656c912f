/* report.c - what the daemon answered, as text for people.
 *
 * Sizes are rounded and have units here; whoever wants exact bytes takes --json.  All tables fit
 * 80 columns unless a heap is huge or a name long; names come last, so that they do not push
 * numbers around.  Numbers from the wire that stand for words (policy, state) may be newer than
 * this program: they are then called "unknown".
 */
#include "client/ctl/report.h"

#include <inttypes.h>
#include <stdbool.h>

#include "proto/size.h"
#include "shm/base.h"
#include "shm/layout.h"
#include "shm/sizeclass.h"

#define LABEL "%-12s" /* of a line of `status` and `check` */

const char *tgc_report_policy(uint32_t policy)
{
	static const char *const names[] = {"keep", "reclaim"};

	return policy < TGS_ARRAY_LEN(names) ? names[policy] : "unknown";
}

const char *tgc_report_state(uint32_t state)
{
	static const char *const names[] = {"connected", "away", "dead"};

	return state < TGS_ARRAY_LEN(names) ? names[state] : "unknown";
}

const char *tgc_report_kind(uint32_t class)
{
	if (class == 0)
		return "large";
	return class == TGS_CLASS_TINY ? "tiny" : "small";
}

/* ---- status ---- */

/* A size to be printed at once; valid until the sixth call after it. */
static const char *size_text(uint64_t bytes)
{
	static char texts[6][TGP_SIZE_TEXT];
	static unsigned next;
	char *text = texts[next++ % TGS_ARRAY_LEN(texts)];

	tgp_format_size(bytes, text, TGP_SIZE_TEXT);
	return text;
}

static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

/* "3 d 4 h", "12 min 5 s": the two largest units that count. */
static void print_duration(FILE *out, uint64_t seconds)
{
	static const struct {
		uint64_t seconds;
		const char *name;
	} units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
	size_t i = 0;

	while (i < TGS_ARRAY_LEN(units) - 1 && seconds < units[i].seconds)
		i++;
	fprintf(out, "%" PRIu64 " %s", seconds / units[i].seconds, units[i].name);
	if (i < TGS_ARRAY_LEN(units) - 1)
		fprintf(out, " %" PRIu64 " %s", seconds % units[i].seconds / units[i + 1].seconds,
			units[i + 1].name);
}

static void print_memory(FILE *out, const Tgd__Status *s)
{
	fprintf(out, LABEL "%s, in an address range of %s\n", "limit", size_text(s->limit_bytes),
		size_text(s->reserve_bytes));
	fprintf(out, LABEL "%s in %" PRIu64 " span%s", "in use", size_text(s->span_bytes), s->spans,
		plural(s->spans));
	if (s->limit_bytes > 0)
		fprintf(out, ", %.1f%% of the limit",
			(double)s->span_bytes * 100 / (double)s->limit_bytes);
	fprintf(out, "; peak %s\n", size_text(s->peak_span_bytes));
	fprintf(out, LABEL "%" PRIu64 " span%s held by no client, kept for the next request\n",
		"central", s->orphan_spans, plural(s->orphan_spans));
	fprintf(out, LABEL "%s below the limit; the largest free range has %s\n", "free",
		size_text(s->free_bytes), size_text(s->largest_free_run_bytes));
	fprintf(out, LABEL "%s of memory, %s of it free and kept for reuse\n", "resident",
		size_text(s->resident_bytes), size_text(s->idle_bytes));
	if (*s->huge != '\0')
		fprintf(out, LABEL "%s, %s in pages of 2 MiB\n", "huge", s->huge,
			size_text(s->huge_bytes));
	fprintf(out, LABEL "%s given back to the kernel since the start\n", "returned",
		size_text(s->scavenged_bytes));
}

/* One line a matter, in the order in which an operator asks. */
void tgc_report_status(FILE *out, const Tgd__Status *s)
{
	fprintf(out, LABEL "%s\n", "heap", s->heap);
	fprintf(out, LABEL "tgd %s, process %" PRIu32 ", up ", "daemon", s->version, s->pid);
	print_duration(out, s->uptime_ms / 1000);
	putc('\n', out);
	if (s->keeper_pid != 0)
		fprintf(out,
			LABEL "process %" PRIu32 "; %" PRIu64 " daemon%s served this heap before\n",
			"keeper", s->keeper_pid, s->restarts, plural(s->restarts));
	if (*s->upgrade_failure != '\0')
		fprintf(out, LABEL "failed: %s\n", "upgrade", s->upgrade_failure);
	print_memory(out, s);
	fprintf(out,
		LABEL "%" PRIu64 " attached with %" PRIu64 " thread%s; %" PRIu64
		      " died and %s recovered\n",
		"clients", s->clients, s->slots, plural(s->slots), s->recovered_clients,
		s->recovered_clients == 1 ? "was" : "were");
	fprintf(out, LABEL "%" PRIu64 "\n", "roots", s->roots);
	fprintf(out, LABEL "%" PRIu64 " from clients, %" PRIu64 " of them about spans\n",
		"messages", s->messages, s->span_messages);
	fprintf(out, LABEL "%" PRIu64 " request%s for want of memory\n", "refused", s->refused,
		plural(s->refused));
}

/* ---- check ---- */

void tgc_report_check(FILE *out, const Tgd__Check *c)
{
	uint64_t n_errors = c->n_errors + c->more_errors;
	size_t i;

	if (c->ok)
		fprintf(out, LABEL "the heap is sound\n", "check");
	else
		fprintf(out, LABEL "DAMAGED: %" PRIu64 " error%s\n", "check", n_errors,
			plural(n_errors));
	for (i = 0; i < c->n_errors; i++)
		fprintf(out, "  %s\n", c->errors[i]);
	if (c->more_errors > 0)
		fprintf(out, "  and %" PRIu64 " more\n", c->more_errors);
	fprintf(out, LABEL "%" PRIu64 " live, %s; %" PRIu64 " of them published\n", "objects",
		c->objects, size_text(c->object_bytes), c->published);
	if (c->pending_frees > 0)
		fprintf(out,
			LABEL "%" PRIu64
			      " freed object%s still in a thread's buffer, not counted as live\n",
			"pending", c->pending_frees, plural(c->pending_frees));
	fprintf(out, LABEL "%" PRIu64 ", %" PRIu64 " of them held by no client\n", "spans",
		c->spans, c->orphan_spans);
}

/* ---- tables ---- */

struct tgc_table *tgc_report_clients_new(void)
{
	static const char *const headings[] = {"ID",     "PID",     "UID",    "THREADS", "SPANS",
					       "MEMORY", "<POLICY", "<STATE", "<NAME"};

	return tgc_table_new(headings, TGS_ARRAY_LEN(headings));
}

void tgc_report_client(struct tgc_table *table, const Tgd__Client *c)
{
	tgc_table_number(table, c->id);
	tgc_table_number(table, c->pid);
	tgc_table_number(table, c->uid);
	tgc_table_number(table, c->threads);
	tgc_table_number(table, c->spans);
	tgc_table_size(table, c->span_bytes);
	tgc_table_text(table, tgc_report_policy(c->policy));
	tgc_table_text(table, tgc_report_state(c->state));
	tgc_table_text(table, c->name);
}

struct tgc_table *tgc_report_classes_new(void)
{
	static const char *const headings[] = {"CLASS",   "SIZE",  "SPANS", "CENTRAL",   "SPAN MEM",
					       "OBJECTS", "SLOTS", "FULL",  "OBJECT MEM"};

	return tgc_table_new(headings, TGS_ARRAY_LEN(headings));
}

/* Slots of a tiny span are single bytes, so there and for large objects what counts is the
 * memory. */
static void add_class(struct tgc_table *table, const Tgd__Class *c, bool by_slots)
{
	tgc_table_number(table, c->spans);
	tgc_table_number(table, c->orphans);
	tgc_table_size(table, c->span_bytes);
	tgc_table_number(table, c->objects);
	if (by_slots) {
		tgc_table_number(table, c->slots);
		tgc_table_percent(table, c->objects, c->slots);
	} else {
		tgc_table_text(table, "-");
		tgc_table_percent(table, c->object_bytes, c->span_bytes);
	}
	tgc_table_size(table, c->object_bytes);
}

void tgc_report_class(struct tgc_table *table, const Tgd__Class *c)
{
	bool small = c->class_ != 0 && c->class_ != TGS_CLASS_TINY;

	if (c->spans == 0)
		return;
	if (small) {
		tgc_table_number(table, c->class_);
		tgc_table_number(table, c->size);
	} else {
		tgc_table_text(table, tgc_report_kind(c->class_));
		tgc_table_text(table, c->class_ == 0 ? ">32768" : "1..15");
	}
	add_class(table, c, small);
}

void tgc_report_classes_total(struct tgc_table *table, const Tgd__Classes *classes)
{
	Tgd__Class total = TGD__CLASS__INIT;
	size_t i;

	for (i = 0; i < classes->n_classes; i++) {
		total.spans += classes->classes[i]->spans;
		total.orphans += classes->classes[i]->orphans;
		total.span_bytes += classes->classes[i]->span_bytes;
		total.objects += classes->classes[i]->objects;
		total.object_bytes += classes->classes[i]->object_bytes;
	}
	tgc_table_text(table, "all");
	tgc_table_text(table, "");
	add_class(table, &total, false);
}

struct tgc_table *tgc_report_spans_new(void)
{
	static const char *const headings[] = {"PAGE",  "PAGES",  "CLASS", "SIZE",  "OBJECTS",
					       "SLOTS", "REMOTE", "SLOT",  "CLIENT"};

	return tgc_table_new(headings, TGS_ARRAY_LEN(headings));
}

void tgc_report_span(struct tgc_table *table, const Tgd__Span *s)
{
	tgc_table_number(table, s->page);
	tgc_table_number(table, s->n_pages);
	if (s->class_ > TGS_CLASS_TINY) {
		tgc_table_text(table, "?");
		tgc_table_text(table, "?");
	} else if (s->class_ == 0 || s->class_ == TGS_CLASS_TINY) {
		tgc_table_text(table, tgc_report_kind(s->class_));
		tgc_table_text(table, s->class_ == 0 ? ">32768" : "1..15");
	} else {
		tgc_table_number(table, s->class_);
		tgc_table_number(table, tgs_classes[s->class_].size);
	}
	tgc_table_number(table, s->objects);
	tgc_table_number(table, s->slots);
	tgc_table_number(table, s->remote);
	if (s->slot == TGS_SLOT_CENTRAL)
		tgc_table_text(table, "central");
	else
		tgc_table_number(table, s->slot);
	if (s->client == 0)
		tgc_table_text(table, "-");
	else
		tgc_table_number(table, s->client);
}

struct tgc_table *tgc_report_roots_new(void)
{
	static const char *const headings[] = {"INDEX", "REF", "SIZE", "<NAME"};

	return tgc_table_new(headings, TGS_ARRAY_LEN(headings));
}

void tgc_report_root(struct tgc_table *table, const Tgd__Root *root)
{
	char ref[24];

	snprintf(ref, sizeof(ref), "0x%" PRIx64, root->ref);
	tgc_table_number(table, root->index);
	tgc_table_text(table, ref);
	tgc_table_size(table, root->size);
	tgc_table_text(table, root->name);
}
