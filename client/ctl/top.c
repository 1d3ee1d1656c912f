/* top.c - `tgctl top`: the heap as a whole and its clients, those that hold most first.
 *
 * On a terminal it is drawn anew every two seconds, and when the terminal's size changes, until somebody interrupts it;
 * elsewhere, and as JSON, there is one picture.  Each picture is put together before any of it is printed, and asked for on a
 * connection of its own: so a daemon may be replaced while it is being watched.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl/commands.h"
#include "client/ctl/json.h"
#include "client/ctl/list.h"
#include "client/ctl/report.h"
#include "shm/base.h"

#define PERIOD_S 2

/* A client of an answer that is gone by now. */
struct row {
	Tgd__Client client;
	char name[TGP_NAME_MAX + 1];
};

struct picture {
	json_t *status;   /* with --json, else NULL ... */
	FILE *text;       /* ... and this is what has been drawn so far */
	struct row *rows; /* clients */
	size_t n_rows;
};

/* ---- what is to be seen ---- */

static int add_rows(void *to, const Tgd__Reply *reply, struct tgc_next *ret_next)
{
	const Tgd__Clients *list = reply->clients;
	struct picture *picture = to;
	struct row *rows;
	size_t i;

	ret_next->more = list->more;
	if (list->n_clients == 0)
		return 0;
	rows = reallocarray(picture->rows, picture->n_rows + list->n_clients, sizeof(*rows));
	if (rows == NULL)
		return -ENOMEM;
	picture->rows = rows;
	for (i = 0; i < list->n_clients; i++) {
		struct row *row = &rows[picture->n_rows++];

		row->client = *list->clients[i];
		snprintf(row->name, sizeof(row->name), "%s", list->clients[i]->name);
		ret_next->last = row->client.id;
	}
	return 0;
}

static int ask_status(struct tgc_ctl *ctl, struct picture *picture)
{
	Tgd__Admin ask = TGD__ADMIN__INIT;
	const Tgd__Reply *reply;
	int status;

	ask.what = TGD__ADMIN__WHAT__STATUS;
	status = tgc_ctl_ask(ctl, &ask, TGD__REPLY__BODY_STATUS, &reply);
	if (status != TGC_OK)
		return status;
	if (ctl->json)
		picture->status = tgc_json_status(reply->status);
	else
		tgc_report_status(picture->text, reply->status);
	return TGC_OK;
}

static int compare(const void *a, const void *b)
{
	const Tgd__Client *left = &((const struct row *)a)->client;
	const Tgd__Client *right = &((const struct row *)b)->client;

	if (left->span_bytes != right->span_bytes)
		return left->span_bytes < right->span_bytes ? 1 : -1;
	return left->id < right->id ? -1 : left->id > right->id;
}

/* Rows have come to where they stay: now their names can be pointed at. */
static void sort_rows(struct picture *picture)
{
	size_t i;

	if (picture->n_rows != 0)
		qsort(picture->rows, picture->n_rows, sizeof(*picture->rows), compare);
	for (i = 0; i < picture->n_rows; i++)
		picture->rows[i].client.name = picture->rows[i].name;
}

/* ---- how it is shown ---- */

static int print_json(struct tgc_ctl *ctl, struct picture *picture)
{
	json_t *clients = json_array();
	size_t i;
	int r = 0;

	for (i = 0; i < picture->n_rows && r == 0; i++)
		r = json_array_append_new(clients, tgc_json_client(&picture->rows[i].client));
	if (r != 0) {
		json_decref(clients);
		clients = NULL;
	}
	r = tgc_json_print(json_pack("{s:o, s:o}", "status", picture->status, "clients", clients),
			   ctl->out);
	picture->status = NULL;
	return r;
}

static int draw_clients(struct picture *picture)
{
	struct tgc_table *table = tgc_report_clients_new();
	size_t i;
	int r;

	if (table == NULL)
		return -ENOMEM;
	for (i = 0; i < picture->n_rows; i++)
		tgc_report_client(table, &picture->rows[i].client);
	putc('\n', picture->text);
	r = tgc_table_print(table, picture->text);
	tgc_table_free(table);
	return r;
}

/* As much of it as there is room for, over what is there. */
static void show(FILE *out, const char *text, bool terminal)
{
	struct winsize size = {0};
	const char *end;
	unsigned line;
	int width;

	if (!terminal) {
		fputs(text, out);
		return;
	}
	(void)ioctl(fileno(out), TIOCGWINSZ, &size);
	if (size.ws_row == 0 || size.ws_col == 0)
		size = (struct winsize){.ws_row = 24, .ws_col = 80};
	fputs("\033[H", out);
	for (line = 1; *text != '\0' && line < size.ws_row; line++) {
		end = strchrnul(text, '\n');
		width = (int)tgs_min((uint64_t)(end - text), size.ws_col);
		fprintf(out, "%.*s\033[K\n", width, text);
		text = *end == '\0' ? end : end + 1;
	}
	fputs("\033[J", out);
	fflush(out);
}

static int take_picture(struct tgc_ctl *ctl, struct picture *picture)
{
	static const struct tgc_list clients = {TGD__ADMIN__WHAT__CLIENTS, TGD__REPLY__BODY_CLIENTS,
						"clients", add_rows};
	int status = ask_status(ctl, picture), r;

	if (status == TGC_OK)
		status = tgc_list_collect(ctl, &clients, picture);
	if (status != TGC_OK)
		return status;
	sort_rows(picture);
	r = ctl->json ? print_json(ctl, picture) : draw_clients(picture);
	return r < 0 ? tgc_ctl_fail(ctl, TGC_BAD_NEWS, r, "out of memory") : TGC_OK;
}

static int once(struct tgc_ctl *ctl, bool terminal)
{
	struct picture picture = {0};
	char *text = NULL;
	size_t size;
	int status;

	picture.text = open_memstream(&text, &size);
	if (picture.text == NULL)
		return tgc_ctl_fail(ctl, TGC_BAD_NEWS, -ENOMEM, "out of memory");
	status = take_picture(ctl, &picture);
	if (fclose(picture.text) != 0 && status == TGC_OK)
		status = tgc_ctl_fail(ctl, TGC_BAD_NEWS, -ENOMEM, "out of memory");
	if (status == TGC_OK && !ctl->json)
		show(ctl->out, text, terminal);
	json_decref(picture.status);
	free(picture.rows);
	free(text);
	return status;
}

/* Until the next picture is due.  False: it is to end. */
static bool wait_for_next(const sigset_t *signals)
{
	const struct timespec period = {.tv_sec = PERIOD_S};
	int signal = sigtimedwait(signals, NULL, &period);

	return signal < 0 || signal == SIGWINCH;
}

int tgc_cmd_top(struct tgc_ctl *ctl, char **args)
{
	bool terminal = !ctl->json && fileno(ctl->out) >= 0 && isatty(fileno(ctl->out));
	sigset_t signals, before;
	int status;

	(void)args;
	if (!terminal)
		return once(ctl, false);
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGWINCH);
	/* They come while we wait, and never in the middle of a picture. */
	sigprocmask(SIG_BLOCK, &signals, &before);
	fputs("\033[H\033[2J", ctl->out);
	do {
		status = once(ctl, true);
		ctl->talk = tgc_talk_free(ctl->talk);
	} while (status == TGC_OK && !ferror(ctl->out) && wait_for_next(&signals));
	sigprocmask(SIG_SETMASK, &before, NULL);
	return status;
}
