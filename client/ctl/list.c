/* list.c - the commands that list something: clients, classes, spans, roots.
 *
 * All work alike: ask, add the rows of the answer to a table or to a JSON array, ask for what
 * comes after the last row while the daemon says that there is more, then print.  The daemon may
 * be changing meanwhile; a row that comes or goes between two answers may be missed, but none is
 * listed twice, because each answer must lie behind the one before: this also ends the loop with
 * a daemon that never says that it is done.
 */
#include "client/ctl/commands.h"

#include <errno.h>

#include "client/ctl/json.h"
#include "client/ctl/list.h"
#include "client/ctl/report.h"

/* Where rows go: exactly one of the two is there. */
struct rows {
	struct tgc_table *table;
	json_t *array;
};

struct listing {
	struct tgc_list list;
	struct tgc_table *(*table_new)(void);
};

/* Gives up `item`. */
static int append(const struct rows *rows, json_t *item)
{
	return json_array_append_new(rows->array, item) < 0 ? -ENOMEM : 0;
}

static int add_clients(void *to, const Tgd__Reply *reply, struct tgc_next *ret_next)
{
	const struct rows *rows = to;
	const Tgd__Clients *list = reply->clients;
	size_t i;
	int r = 0;

	for (i = 0; i < list->n_clients && r == 0; i++) {
		if (rows->table != NULL)
			tgc_report_client(rows->table, list->clients[i]);
		else
			r = append(rows, tgc_json_client(list->clients[i]));
		ret_next->last = list->clients[i]->id;
	}
	ret_next->more = list->more;
	return r;
}

static int add_classes(void *to, const Tgd__Reply *reply, struct tgc_next *ret_next)
{
	const struct rows *rows = to;
	const Tgd__Classes *list = reply->classes;
	size_t i;
	int r = 0;

	(void)ret_next; /* they are few: one answer has all */
	for (i = 0; i < list->n_classes && r == 0; i++) {
		if (rows->table != NULL)
			tgc_report_class(rows->table, list->classes[i]);
		else
			r = append(rows, tgc_json_class(list->classes[i]));
	}
	if (rows->table != NULL)
		tgc_report_classes_total(rows->table, list);
	return r;
}

static int add_spans(void *to, const Tgd__Reply *reply, struct tgc_next *ret_next)
{
	const struct rows *rows = to;
	const Tgd__Spans *list = reply->span_list;
	size_t i;
	int r = 0;

	for (i = 0; i < list->n_spans && r == 0; i++) {
		if (rows->table != NULL)
			tgc_report_span(rows->table, list->spans[i]);
		else
			r = append(rows, tgc_json_span(list->spans[i]));
		ret_next->last = list->spans[i]->page;
	}
	ret_next->more = list->more;
	return r;
}

static int add_roots(void *to, const Tgd__Reply *reply, struct tgc_next *ret_next)
{
	const struct rows *rows = to;
	const Tgd__Roots *list = reply->roots;
	size_t i;
	int r = 0;

	for (i = 0; i < list->n_roots && r == 0; i++) {
		if (rows->table != NULL)
			tgc_report_root(rows->table, list->roots[i]);
		else
			r = append(rows, tgc_json_root(list->roots[i]));
		ret_next->last = list->roots[i]->index;
	}
	ret_next->more = list->more;
	return r;
}

int tgc_list_collect(struct tgc_ctl *ctl, const struct tgc_list *list, void *to)
{
	Tgd__Admin ask = TGD__ADMIN__INIT;
	const Tgd__Reply *reply;
	struct tgc_next next;
	int r, status;

	ask.what = list->what;
	for (;;) {
		next = (struct tgc_next){.last = ask.from};
		status = tgc_ctl_ask(ctl, &ask, list->body, &reply);
		if (status != TGC_OK)
			return status;
		r = list->add(to, reply, &next);
		if (r < 0)
			return tgc_ctl_fail(ctl, TGC_BAD_NEWS, r, "out of memory");
		if (!next.more)
			return TGC_OK;
		if (next.last <= ask.from)
			return tgc_ctl_fail(ctl, TGC_UNREACHABLE, -EPROTO,
					    "the daemon's list of %s goes in circles; are tgd and "
					    "tgctl of the same version?",
					    list->key);
		ask.from = next.last;
	}
}

static int show(struct tgc_ctl *ctl, const struct listing *listing)
{
	struct rows rows = {0};
	int r, status;

	if (ctl->json)
		rows.array = json_array();
	else
		rows.table = listing->table_new();
	if (rows.array == NULL && rows.table == NULL)
		return tgc_ctl_fail(ctl, TGC_BAD_NEWS, -ENOMEM, "out of memory");
	status = tgc_list_collect(ctl, &listing->list, &rows);
	if (status == TGC_OK) {
		r = ctl->json ? tgc_json_print(json_pack("{s:O}", listing->list.key, rows.array),
					       ctl->out)
			      : tgc_table_print(rows.table, ctl->out);
		if (r < 0)
			status = tgc_ctl_fail(ctl, TGC_BAD_NEWS, r, "out of memory");
	}
	json_decref(rows.array);
	tgc_table_free(rows.table);
	return status;
}

int tgc_cmd_clients(struct tgc_ctl *ctl, char **args)
{
	static const struct listing listing = {
		{TGD__ADMIN__WHAT__CLIENTS, TGD__REPLY__BODY_CLIENTS, "clients", add_clients},
		tgc_report_clients_new};

	(void)args;
	return show(ctl, &listing);
}

int tgc_cmd_classes(struct tgc_ctl *ctl, char **args)
{
	static const struct listing listing = {
		{TGD__ADMIN__WHAT__CLASSES, TGD__REPLY__BODY_CLASSES, "classes", add_classes},
		tgc_report_classes_new};

	(void)args;
	return show(ctl, &listing);
}

int tgc_cmd_spans(struct tgc_ctl *ctl, char **args)
{
	static const struct listing listing = {
		{TGD__ADMIN__WHAT__SPANS, TGD__REPLY__BODY_SPAN_LIST, "spans", add_spans},
		tgc_report_spans_new};

	(void)args;
	return show(ctl, &listing);
}

int tgc_cmd_roots(struct tgc_ctl *ctl, char **args)
{
	static const struct listing listing = {
		{TGD__ADMIN__WHAT__ROOTS, TGD__REPLY__BODY_ROOTS, "roots", add_roots},
		tgc_report_roots_new};

	(void)args;
	return show(ctl, &listing);
}
