/* admin.c - what tgctl asks: figures for all who may connect, and for administrators the means to
 * act on them.
 *
 * Where clients that have ended are not settled yet, the answer waits until they are, so that figures
 * asked for right after a client's end are those without it; nobody else waits with it.  Lists come in pieces of at most TGP_ROWS_MAX
 * rows; `more` says that there are others, which are asked for with the last row's page, id or
 * index in `from`.  Rows are static: one request is handled at a time.
 */
#include "daemon/admin.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/client.h"
#include "daemon/handover.h"
#include "daemon/heap.h"
#include "daemon/log.h"
#include "proto/size.h"
#include "shm/base.h"

#define PATH_SIZE (TGP_TEXT_MAX + 1)

/* Less than tgctl waits for these answers. */
#define SETTLE_MS      4000u
#define SETTLE_SLOW_MS 30000u

typedef int admin_fn(struct tgd_session *session, const Tgd__Admin *admin,
		     struct tgd_answer *answer);

/* Makes one submessage the reply's body. */
#define SET_BODY(answer, kind, KIND)                          \
	((answer)->reply.body_case = TGD__REPLY__BODY_##KIND, \
	 (answer)->reply.kind = &(answer)->body.kind)

static unsigned rows_wanted(const Tgd__Admin *admin, unsigned max)
{
	return admin->count == 0 || admin->count > max ? max : admin->count;
}

static int handle_ping(struct tgd_session *session, const Tgd__Admin *admin,
		       struct tgd_answer *answer)
{
	(void)session;
	(void)admin;
	(void)answer;
	return 0;
}

static int handle_status(struct tgd_session *session, const Tgd__Admin *admin,
			 struct tgd_answer *answer)
{
	struct tgd_context *context = session->context;
	Tgd__Status *status = &answer->body.status;
	struct tgd_heap_status heap;
	struct tgd_keeping keeping;
	static char failure[TGD_FAILURE_SIZE];

	(void)admin;
	tgd_heap_status(context->heap, &heap);
	context->tell_keeping(context, &keeping);
	tgd__status__init(status);
	status->heap = context->config->heap;
	status->pid = (uint32_t)getpid();
	status->uptime_ms = tgd_now_ms() - context->start_ms;
	status->reserve_bytes = heap.reserve_bytes;
	status->limit_bytes = heap.limit_bytes;
	status->span_bytes = heap.span_bytes;
	status->free_bytes = heap.free_bytes;
	status->resident_bytes = heap.resident_bytes;
	status->idle_bytes = heap.idle_bytes;
	status->clients = heap.clients;
	status->spans = heap.spans;
	status->slots = heap.slots;
	status->recovered_clients = heap.recovered_clients;
	status->scavenged_bytes = heap.scavenged_bytes;
	status->messages = context->messages;
	status->span_messages = context->span_messages;
	status->refused = heap.refused;
	status->largest_free_run_bytes = heap.largest_free_run_bytes;
	status->roots = heap.roots;
	status->version = PACKAGE_VERSION;
	status->heap_base = heap.base;
	status->peak_span_bytes = heap.peak_span_bytes;
	status->orphan_spans = heap.orphan_spans;
	status->keeper_pid = (uint32_t)keeping.keeper_pid;
	status->restarts = keeping.restarts;
	snprintf(failure, sizeof(failure), "%s", keeping.upgrade_failure);
	tgp_text_clean(failure, TGP_TEXT_MAX);
	status->upgrade_failure = failure;
	status->huge =
		(char *)(uintptr_t)(heap.huge_refused ? "unsupported" : tgd_huge_names[heap.huge]);
	status->huge_bytes = heap.huge_bytes;
	SET_BODY(answer, status, STATUS);
	return 0;
}

static void put_client(const struct tgd_context *context, const struct tgd_client_info *info,
		       Tgd__Client *row)
{
	const struct tgd_client *client = info->dead ? NULL : tgd_client_by_id(context, info->id);

	tgd__client__init(row);
	row->id = info->id;
	row->pid = info->pid;
	row->uid = info->uid;
	row->threads = info->threads;
	row->spans = info->spans;
	row->span_bytes = info->span_bytes;
	row->policy = info->flags & 1;
	row->state = info->dead ? 2 : client != NULL && client->session != NULL ? 0 : 1;
	row->messages = client != NULL ? client->messages : 0;
}

static int handle_clients(struct tgd_session *session, const Tgd__Admin *admin,
			  struct tgd_answer *answer)
{
	static struct tgd_client_info infos[TGP_ROWS_MAX + 1];
	static Tgd__Client rows[TGP_ROWS_MAX], *pointers[TGP_ROWS_MAX];
	unsigned n = 0, max = rows_wanted(admin, TGP_ROWS_MAX);
	Tgd__Clients *clients = &answer->body.clients;
	uint32_t id = (uint32_t)tgs_min(admin->from, UINT32_MAX);

	tgd__clients__init(clients);
	while (tgd_heap_client_after(session->context->heap, id, &infos[n])) {
		id = infos[n].id;
		if (n == max) {
			clients->more = true;
			break;
		}
		put_client(session->context, &infos[n], &rows[n]);
		rows[n].name = infos[n].name;
		pointers[n] = &rows[n];
		n++;
	}
	clients->n_clients = n;
	clients->clients = pointers;
	SET_BODY(answer, clients, CLIENTS);
	return 0;
}

static int handle_classes(struct tgd_session *session, const Tgd__Admin *admin,
			  struct tgd_answer *answer)
{
	static struct tgd_class_info infos[TGS_CLASSES_ALL];
	static Tgd__Class rows[TGS_CLASSES_ALL], *pointers[TGS_CLASSES_ALL];
	Tgd__Classes *classes = &answer->body.classes;
	unsigned i;

	_Static_assert(TGS_CLASSES_ALL <= TGP_CLASSES_MAX, "all classes fit in one reply");
	(void)admin;
	tgd_heap_classes(session->context->heap, infos);
	for (i = 0; i < TGS_CLASSES_ALL; i++) {
		tgd__class__init(&rows[i]);
		rows[i].class_ = infos[i].class;
		rows[i].size = infos[i].size;
		rows[i].spans = infos[i].spans;
		rows[i].orphans = infos[i].orphans;
		rows[i].objects = infos[i].objects;
		rows[i].slots = infos[i].slots;
		rows[i].span_bytes = infos[i].span_bytes;
		rows[i].object_bytes = infos[i].object_bytes;
		pointers[i] = &rows[i];
	}
	tgd__classes__init(classes);
	classes->n_classes = TGS_CLASSES_ALL;
	classes->classes = pointers;
	SET_BODY(answer, classes, CLASSES);
	return 0;
}

static int handle_spans(struct tgd_session *session, const Tgd__Admin *admin,
			struct tgd_answer *answer)
{
	static Tgd__Span rows[TGP_ROWS_MAX], *pointers[TGP_ROWS_MAX];
	unsigned n = 0, max = rows_wanted(admin, TGP_ROWS_MAX);
	Tgd__Spans *spans = &answer->body.span_list;
	struct tgd_span_info info;
	/* 0 is where a list starts, although it is a page, too. */
	uint64_t page = admin->from == 0 ? 0 : admin->from + 1;

	tgd__spans__init(spans);
	while (tgd_heap_span_from(session->context->heap, page, &info)) {
		if (n == max) {
			spans->more = true;
			break;
		}
		page = info.page + info.n_pages;
		tgd__span__init(&rows[n]);
		rows[n].page = info.page;
		rows[n].n_pages = info.n_pages;
		rows[n].class_ = info.class;
		rows[n].slot = info.slot;
		rows[n].client = info.client_id;
		rows[n].objects = info.objects;
		rows[n].slots = info.slots;
		rows[n].remote = info.remote;
		pointers[n] = &rows[n];
		n++;
	}
	spans->n_spans = n;
	spans->spans = pointers;
	SET_BODY(answer, span_list, SPAN_LIST);
	return 0;
}

static int handle_map(struct tgd_session *session, const Tgd__Admin *admin,
		      struct tgd_answer *answer)
{
	static struct tgd_map_cell infos[TGP_CELLS_MAX];
	static Tgd__MapCell rows[TGP_CELLS_MAX], *pointers[TGP_CELLS_MAX];
	Tgd__Map *map = &answer->body.map;
	uint64_t n_pages = 0, pages_per_cell = 0;
	unsigned i, n;

	n = tgd_heap_map(session->context->heap, rows_wanted(admin, TGP_CELLS_MAX), infos, &n_pages,
			 &pages_per_cell);
	for (i = 0; i < n; i++) {
		tgd__map_cell__init(&rows[i]);
		rows[i].used = infos[i].used;
		rows[i].idle = infos[i].idle;
		rows[i].returned = infos[i].returned;
		rows[i].class_ = infos[i].class;
		pointers[i] = &rows[i];
	}
	tgd__map__init(map);
	map->n_pages = n_pages;
	map->pages_per_cell = pages_per_cell;
	map->n_cells = n;
	map->cells = pointers;
	SET_BODY(answer, map, MAP);
	return 0;
}

static int handle_roots(struct tgd_session *session, const Tgd__Admin *admin,
			struct tgd_answer *answer)
{
	static struct tgd_root_info infos[TGP_ROWS_MAX + 1];
	static Tgd__Root rows[TGP_ROWS_MAX], *pointers[TGP_ROWS_MAX];
	unsigned n = 0, max = rows_wanted(admin, TGP_ROWS_MAX);
	uint64_t index = admin->from == 0 ? 0 : admin->from + 1;
	Tgd__Roots *roots = &answer->body.roots;

	tgd__roots__init(roots);
	while (tgd_heap_root_from(session->context->heap, index, &infos[n])) {
		if (n == max) {
			roots->more = true;
			break;
		}
		index = infos[n].index + 1;
		tgd__root__init(&rows[n]);
		rows[n].name = infos[n].name;
		rows[n].ref = infos[n].ref;
		rows[n].index = infos[n].index;
		rows[n].size = infos[n].size;
		pointers[n] = &rows[n];
		n++;
	}
	roots->n_roots = n;
	roots->roots = pointers;
	SET_BODY(answer, roots, ROOTS);
	return 0;
}

static int handle_check(struct tgd_session *session, const Tgd__Admin *admin,
			struct tgd_answer *answer)
{
	static char *errors[TGD_CHECK_ERRORS];
	static struct tgd_check found;
	Tgd__Check *check = &answer->body.check;
	unsigned i;

	_Static_assert(TGD_CHECK_ERRORS <= TGP_ERRORS_MAX &&
			       TGD_CHECK_ERROR_SIZE <= TGP_TEXT_MAX + 1,
		       "all errors fit in one reply");
	(void)admin;
	tgd_heap_check(session->context->heap, &found);
	if (!found.ok)
		tgd_log(TGD_LOG_ERROR, "the check that %s asked for found damage: %s",
			tgd_session_label(session),
			found.n_errors > 0 ? found.error[0] : "(not described)");
	for (i = 0; i < found.n_errors; i++) {
		tgp_text_clean(found.error[i], TGD_CHECK_ERROR_SIZE - 1);
		errors[i] = found.error[i];
	}
	tgd__check__init(check);
	check->ok = found.ok;
	check->n_errors = found.n_errors;
	check->errors = errors;
	check->objects = found.objects;
	check->object_bytes = found.object_bytes;
	check->published = found.published;
	check->spans = found.spans;
	check->orphan_spans = found.orphan_spans;
	check->pending_frees = found.pending_frees;
	check->more_errors = found.more_errors;
	SET_BODY(answer, check, CHECK);
	return 0;
}

static int handle_trim(struct tgd_session *session, const Tgd__Admin *admin,
		       struct tgd_answer *answer)
{
	Tgd__Trimmed *trimmed = &answer->body.trimmed;
	char text[TGP_SIZE_TEXT];

	(void)admin;
	tgd__trimmed__init(trimmed);
	trimmed->bytes = tgd_heap_trim(session->context->heap);
	SET_BODY(answer, trimmed, TRIMMED);
	tgp_format_size(trimmed->bytes, text, sizeof(text));
	tgd_log(TGD_LOG_INFO, "gave %s back to the kernel, as %s asked", text,
		tgd_session_label(session));
	session->context->want_work(session->context);
	return 0;
}

static int handle_limit(struct tgd_session *session, const Tgd__Admin *admin,
			struct tgd_answer *answer)
{
	struct tgd_context *context = session->context;
	char text[TGP_SIZE_TEXT];
	int r;

	r = tgd_heap_set_limit(context->heap, admin->value);
	if (r < 0)
		return tgd_answer_refuse(answer, r, "%s", tgd_heap_why(context->heap));
	tgp_format_size(admin->value, text, sizeof(text));
	tgd_log(TGD_LOG_INFO, "the limit is %s now, as %s asked", text, tgd_session_label(session));
	context->want_work(context);
	return 0;
}

static int handle_kick(struct tgd_session *session, const Tgd__Admin *admin,
		       struct tgd_answer *answer)
{
	struct tgd_client *client = NULL;
	int r;

	if (admin->value <= UINT32_MAX)
		client = tgd_client_by_id(session->context, (uint32_t)admin->value);
	if (client == NULL)
		return tgd_answer_refuse(answer, -ENOENT,
					 "there is no client %llu; \"tgctl clients\" lists them",
					 (unsigned long long)admin->value);
	r = tgd_peer_signal(client->pidfd, SIGKILL);
	if (r < 0 && r != -ESRCH)
		return tgd_answer_refuse(answer, r, "process %d cannot be killed: %s",
					 (int)client->pid, strerror(-r));
	tgd_log(TGD_LOG_INFO, "%s was killed, as %s asked", client->label,
		tgd_session_label(session));
	/* Its exit is then seen as any other is. */
	tgd_session_await_end(session, answer->reply.id, client->id);
	answer->later = true;
	return 0;
}

static int handle_stop(struct tgd_session *session, const Tgd__Admin *admin,
		       struct tgd_answer *answer)
{
	char why[200];

	(void)admin;
	(void)answer;
	snprintf(why, sizeof(why), "%s asked for it", tgd_session_label(session));
	session->context->stop(session->context, why);
	return 0;
}

/* The program's file, opened; -errno with a sentence.  "": ours, or what has taken its place. */
static int open_program(const char *asked, char *path, size_t size, struct tgd_answer *answer)
{
	static const char deleted[] = " (deleted)";
	char proc_path[32];
	struct stat st;
	ssize_t n;
	int fd;

	snprintf(path, size, "%s", asked);
	if (*path == '\0') {
		n = readlink("/proc/self/exe", path, size - 1);
		path[n > 0 ? n : 0] = '\0';
		if (n > (ssize_t)strlen(deleted) &&
		    strcmp(path + n - strlen(deleted), deleted) == 0)
			path[n - (ssize_t)strlen(deleted)] = '\0';
	}
	if (*path != '/')
		return tgd_answer_refuse(answer, -EINVAL,
					 "the program's path must be absolute, \"%s\" is not",
					 path);
	fd = open(path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return tgd_answer_refuse(answer, -errno, "%s cannot be opened: %s", path,
					 strerror(errno));
	snprintf(proc_path, sizeof(proc_path), "/proc/self/fd/%d", fd);
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && access(proc_path, X_OK) == 0)
		return fd;
	close(fd);
	return tgd_answer_refuse(answer, -EACCES, "%s is no program: not an executable file", path);
}

static int handle_upgrade(struct tgd_session *session, const Tgd__Admin *admin,
			  struct tgd_answer *answer)
{
	struct tgd_context *context = session->context;
	char path[PATH_SIZE];
	int fd, r;

	fd = open_program(admin->path, path, sizeof(path), answer);
	if (fd < 0)
		return fd;
	r = context->upgrade(context, fd, path);
	close(fd);
	if (r < 0)
		return tgd_answer_refuse(
			answer, r, "the keeper cannot be asked now (%s); try again", strerror(-r));
	tgd_log(TGD_LOG_INFO, "to be upgraded from %s, as %s asked", path,
		tgd_session_label(session));
	return 0;
}

static const struct admin {
	admin_fn *handle;
	unsigned settle_ms; /* first, clients that have ended, for so long at most */
	bool acts;          /* for administrators only */
} admins[] = {
	[TGD__ADMIN__WHAT__PING] = {handle_ping, 0, false},
	[TGD__ADMIN__WHAT__STATUS] = {handle_status, SETTLE_MS, false},
	[TGD__ADMIN__WHAT__CLIENTS] = {handle_clients, SETTLE_MS, false},
	[TGD__ADMIN__WHAT__CLASSES] = {handle_classes, SETTLE_MS, false},
	[TGD__ADMIN__WHAT__SPANS] = {handle_spans, SETTLE_MS, false},
	[TGD__ADMIN__WHAT__MAP] = {handle_map, SETTLE_MS, false},
	[TGD__ADMIN__WHAT__ROOTS] = {handle_roots, SETTLE_MS, false},
	[TGD__ADMIN__WHAT__CHECK] = {handle_check, SETTLE_SLOW_MS, false},
	[TGD__ADMIN__WHAT__TRIM] = {handle_trim, SETTLE_SLOW_MS, true},
	[TGD__ADMIN__WHAT__LIMIT] = {handle_limit, SETTLE_MS, true},
	[TGD__ADMIN__WHAT__KICK] = {handle_kick, 0, true},
	[TGD__ADMIN__WHAT__STOP] = {handle_stop, 0, true},
	[TGD__ADMIN__WHAT__UPGRADE] = {handle_upgrade, 0, true},
};

int tgd_admin_handle(struct tgd_session *session, const Tgd__Request *request,
		     struct tgd_answer *answer)
{
	const Tgd__Admin *admin = request->admin;
	struct tgd_heap_status status;
	const struct admin *entry;

	if ((unsigned)admin->what >= TGS_ARRAY_LEN(admins) || admins[admin->what].handle == NULL)
		return tgd_answer_refuse(answer, -EOPNOTSUPP,
					 "this daemon (" PACKAGE_VERSION ") knows no such command");
	entry = &admins[admin->what];
	if (entry->acts && !tgd_peer_may_administer(&session->peer))
		return tgd_answer_refuse(
			answer, -EPERM,
			"uid %u may not do this; only root and uid %u, as which tgd runs, "
			"may",
			(unsigned)session->peer.uid, (unsigned)geteuid());
	if (entry->settle_ms > 0) {
		tgd_heap_status(session->context->heap, &status);
		if (status.dead_clients > 0 &&
		    tgd_session_await_settled(session, entry->settle_ms)) {
			answer->later = true;
			return 0;
		}
	}
	return entry->handle(session, admin, answer);
}
