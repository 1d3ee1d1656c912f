/* json.c - what the daemon answered, as JSON.
 *
 * One line holds the keys of one command and nothing else, so that they can be compared with the
 * contract (docs/design.md, section 8) at a glance: keys once there stay, others may be added.
 * Sizes are exact bytes.  Text came through proto/msg.h, which lets only clean UTF-8 pass, so
 * jansson takes it.
 */
#include "client/ctl/json.h"

#include <errno.h>
#include <string.h>

#include "client/ctl/report.h"
#include "shm/layout.h"

#define N(x) tgc_json_number(x)

/* JSON's integers are taken for signed 64-bit ones nearly everywhere: what is more becomes the
 * largest of these. */
json_int_t tgc_json_number(uint64_t n)
{
	return n > INT64_MAX ? INT64_MAX : (json_int_t)n;
}

json_t *tgc_json_status(const Tgd__Status *s)
{
	/* clang-format off */
	return json_pack("{s:s, s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I,"
			 " s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:I}",
			 "heap", s->heap,
			 "pid", N(s->pid),
			 "uptime_s", N(s->uptime_ms / 1000),
			 "version", s->version,
			 "heap_base", N(s->heap_base),
			 "reserve_bytes", N(s->reserve_bytes),
			 "limit_bytes", N(s->limit_bytes),
			 "span_bytes", N(s->span_bytes),
			 "peak_span_bytes", N(s->peak_span_bytes),
			 "free_bytes", N(s->free_bytes),
			 "largest_free_run_bytes", N(s->largest_free_run_bytes),
			 "resident_bytes", N(s->resident_bytes),
			 "idle_bytes", N(s->idle_bytes),
			 "scavenged_bytes", N(s->scavenged_bytes),
			 "clients", N(s->clients),
			 "slots", N(s->slots),
			 "recovered_clients", N(s->recovered_clients),
			 "spans", N(s->spans),
			 "orphan_spans", N(s->orphan_spans),
			 "roots", N(s->roots),
			 "messages", N(s->messages),
			 "span_messages", N(s->span_messages),
			 "refused", N(s->refused),
			 "keeper_pid", N(s->keeper_pid),
			 "restarts", N(s->restarts),
			 "upgrade_failure", s->upgrade_failure,
			 "huge", s->huge,
			 "huge_bytes", N(s->huge_bytes));
	/* clang-format on */
}

json_t *tgc_json_client(const Tgd__Client *c)
{
	/* clang-format off */
	return json_pack("{s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:s, s:s, s:I}",
			 "id", N(c->id),
			 "pid", N(c->pid),
			 "uid", N(c->uid),
			 "name", c->name,
			 "threads", N(c->threads),
			 "spans", N(c->spans),
			 "span_bytes", N(c->span_bytes),
			 "policy", tgc_report_policy(c->policy),
			 "state", tgc_report_state(c->state),
			 "messages", N(c->messages));
	/* clang-format on */
}

json_t *tgc_json_class(const Tgd__Class *c)
{
	/* clang-format off */
	return json_pack("{s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
			 "class", N(c->class_),
			 "kind", tgc_report_kind(c->class_),
			 "size", N(c->size),
			 "spans", N(c->spans),
			 "orphan_spans", N(c->orphans),
			 "objects", N(c->objects),
			 "slots", N(c->slots),
			 "span_bytes", N(c->span_bytes),
			 "object_bytes", N(c->object_bytes));
	/* clang-format on */
}

json_t *tgc_json_span(const Tgd__Span *s)
{
	/* clang-format off */
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
			 "page", N(s->page),
			 "n_pages", N(s->n_pages),
			 "class", N(s->class_),
			 "slot", N(s->slot),
			 "client", N(s->client),
			 "objects", N(s->objects),
			 "slots", N(s->slots),
			 "remote", N(s->remote));
	/* clang-format on */
}

json_t *tgc_json_root(const Tgd__Root *r)
{
	return json_pack("{s:I, s:s, s:I, s:I}", "index", N(r->index), "name", r->name, "ref",
			 N(r->ref), "size", N(r->size));
}

/* Appends and gives up `item`; -ENOMEM if it is NULL or the array cannot grow. */
static int append(json_t *array, json_t *item)
{
	return json_array_append_new(array, item) < 0 ? -ENOMEM : 0;
}

json_t *tgc_json_map(const Tgd__Map *map)
{
	json_t *cells = json_array();
	size_t i;

	for (i = 0; i < map->n_cells; i++) {
		const Tgd__MapCell *c = map->cells[i];

		if (append(cells,
			   json_pack("{s:I, s:I, s:I, s:I}", "used", N(c->used), "idle", N(c->idle),
				     "returned", N(c->returned), "class", N(c->class_))) < 0) {
			json_decref(cells);
			return NULL;
		}
	}
	return json_pack("{s:I, s:I, s:I, s:o}", "page_bytes", N(TGS_PAGE_SIZE), "n_pages",
			 N(map->n_pages), "pages_per_cell", N(map->pages_per_cell), "cells", cells);
}

json_t *tgc_json_check(const Tgd__Check *check)
{
	json_t *errors = json_array();
	size_t i;

	for (i = 0; i < check->n_errors; i++) {
		if (append(errors, json_string(check->errors[i])) < 0) {
			json_decref(errors);
			return NULL;
		}
	}
	/* clang-format off */
	return json_pack("{s:b, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
			 "ok", check->ok,
			 "errors", errors,
			 "more_errors", N(check->more_errors),
			 "objects", N(check->objects),
			 "object_bytes", N(check->object_bytes),
			 "published", N(check->published),
			 "spans", N(check->spans),
			 "orphan_spans", N(check->orphan_spans),
			 "pending_frees", N(check->pending_frees));
	/* clang-format on */
}

/* `error` is a negative errno value, shown by its name. */
json_t *tgc_json_error(const char *sentence, int error)
{
	const char *name = strerrorname_np(-error);

	return json_pack("{s:s, s:s}", "error", sentence, "errno", name == NULL ? "EIO" : name);
}

int tgc_json_print(json_t *object, FILE *out)
{
	int r;

	if (object == NULL)
		return -ENOMEM;
	/* Errors of `out` itself are seen when it is flushed. */
	r = json_dumpf(object, out, 0) < 0 && !ferror(out) ? -ENOMEM : 0;
	putc('\n', out);
	json_decref(object);
	return r;
}
