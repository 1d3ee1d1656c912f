/* request.c - one handler a message, found by table; the heap does the work.
 *
 * A handler fills the answer and returns 0, or a negative errno value with a sentence.  Who may ask
 * what is in the table (attached or not) and, for what changes the heap for all, in admin.c.  Every
 * request that changes the heap is followed by its background work from the loop, never by the work
 * itself, so that each answer is as fast as the next.
 */
#include "daemon/request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/admin.h"
#include "daemon/client.h"
#include "daemon/heap.h"
#include "daemon/join.h"
#include "shm/base.h"

typedef int handler_fn(struct tgd_session *session, const Tgd__Request *request,
		       struct tgd_answer *answer);

int tgd_answer_refuse(struct tgd_answer *answer, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(answer->why, sizeof(answer->why), format, args);
	va_end(args);
	return error;
}

int tgd_answer_heap_refuses(const struct tgd_session *session, struct tgd_answer *answer, int error)
{
	return tgd_answer_refuse(answer, error, "%s", tgd_heap_why(session->context->heap));
}

/* ---- slots, spans, roots ---- */

static int handle_open_slot(struct tgd_session *session, const Tgd__Request *request,
			    struct tgd_answer *answer)
{
	Tgd__SlotReply *reply = &answer->body.slot;
	unsigned slot;
	int r;

	(void)request;
	r = tgd_heap_open_slot(session->context->heap, session->client->id, &slot);
	if (r < 0)
		return tgd_answer_heap_refuses(session, answer, r);
	session->last_slot = slot;
	tgd__slot_reply__init(reply);
	reply->slot = slot;
	answer->reply.body_case = TGD__REPLY__BODY_SLOT;
	answer->reply.slot = reply;
	return 0;
}

static int handle_close_slot(struct tgd_session *session, const Tgd__Request *request,
			     struct tgd_answer *answer)
{
	int r = tgd_heap_close_slot(session->context->heap, session->client->id,
				    request->close_slot->slot);

	return r < 0 ? tgd_answer_heap_refuses(session, answer, r) : 0;
}

static void put_grants(struct tgd_answer *answer, const struct tgd_grant *grants, unsigned n)
{
	static Tgd__SpanGrant rows[TGP_SPANS_MAX], *pointers[TGP_SPANS_MAX];
	Tgd__SpansReply *reply = &answer->body.spans;
	unsigned i;

	for (i = 0; i < n; i++) {
		tgd__span_grant__init(&rows[i]);
		rows[i].page = grants[i].page;
		rows[i].free = grants[i].free;
		rows[i].zero = grants[i].zero;
		rows[i].class_ = grants[i].class;
		pointers[i] = &rows[i];
	}
	tgd__spans_reply__init(reply);
	reply->n_spans = n;
	reply->spans = pointers;
	answer->reply.body_case = TGD__REPLY__BODY_SPANS;
	answer->reply.spans = reply;
}

static int handle_get_spans(struct tgd_session *session, const Tgd__Request *request,
			    struct tgd_answer *answer)
{
	const Tgd__GetSpans *get = request->get_spans;
	unsigned slot = get->slot != 0 ? get->slot : session->last_slot;
	struct tgd_heap *heap = session->context->heap;
	struct tgd_grant grants[TGP_SPANS_MAX];
	unsigned n;
	int r;

	r = tgd_heap_get_spans(heap, session->client->id, slot, get->class_, get->count, grants,
			       &n);
	if (r < 0)
		return tgd_answer_heap_refuses(session, answer, r);
	if (get->n_also != 0)
		n += tgd_heap_get_one_each(heap, session->client->id, slot, get->also,
					   tgs_min(get->n_also, TGP_SPANS_MAX - n), grants + n);
	put_grants(answer, grants, n);
	return 0;
}

static int handle_put_spans(struct tgd_session *session, const Tgd__Request *request,
			    struct tgd_answer *answer)
{
	const Tgd__PutSpans *put = request->put_spans;
	int r;

	r = tgd_heap_put_spans(session->context->heap, session->client->id, put->slot, put->pages,
			       put->n_pages);
	return r < 0 ? tgd_answer_heap_refuses(session, answer, r) : 0;
}

static int handle_get_large(struct tgd_session *session, const Tgd__Request *request,
			    struct tgd_answer *answer)
{
	const Tgd__GetLarge *get = request->get_large;
	struct tgd_heap *heap = session->context->heap;
	struct tgd_grant grants[TGP_SPANS_MAX];
	unsigned n = 1;
	int r;

	if (get->count > 1 && get->align_pages <= 1)
		r = tgd_heap_get_larges(heap, session->client->id, get->slot, get->n_pages,
					get->count, grants, &n);
	else
		r = tgd_heap_get_large(heap, session->client->id, get->slot, get->n_pages,
				       get->align_pages, grants);
	if (r < 0)
		return tgd_answer_heap_refuses(session, answer, r);
	put_grants(answer, grants, n);
	return 0;
}

static int handle_resize(struct tgd_session *session, const Tgd__Request *request,
			 struct tgd_answer *answer)
{
	const Tgd__Resize *resize = request->resize;
	struct tgd_grant grant;
	int r;

	r = tgd_heap_resize(session->context->heap, session->client->id, resize->slot, resize->page,
			    resize->n_pages, &grant);
	if (r < 0)
		return tgd_answer_heap_refuses(session, answer, r);
	put_grants(answer, &grant, 1);
	return 0;
}

static int handle_root_set(struct tgd_session *session, const Tgd__Request *request,
			   struct tgd_answer *answer)
{
	const Tgd__RootSet *set = request->root_set;
	struct tgd_heap *heap = session->context->heap;
	int r;

	if (set->again)
		r = tgd_heap_root_set_again(heap, set->name, set->ref, set->compare, set->expected);
	else
		r = tgd_heap_root_set(heap, set->name, set->ref, set->compare, set->expected);
	return r < 0 ? tgd_answer_heap_refuses(session, answer, r) : 0;
}

static int handle_back_state(struct tgd_session *session, const Tgd__Request *request,
			     struct tgd_answer *answer)
{
	const Tgd__BackState *back = request->back_state;
	int r = tgd_heap_back_state(session->context->heap, back->pages, back->n_pages,
				    back->ahead);

	return r < 0 ? tgd_answer_heap_refuses(session, answer, r) : 0;
}

/* For a client that has lost a connection, and maybe answers with it. */
static int handle_holdings(struct tgd_session *session, const Tgd__Request *request,
			   struct tgd_answer *answer)
{
	static uint64_t pages[TGP_SPANS_MAX];
	const Tgd__Holdings *ask = request->holdings;
	Tgd__HoldingsReply *reply = &answer->body.holdings;
	uint64_t total, next;
	unsigned n;
	int r;

	r = tgd_heap_holdings(session->context->heap, session->client->id, ask->slot, ask->after,
			      pages, TGP_SPANS_MAX, &n, &total, &next);
	if (r < 0)
		return tgd_answer_heap_refuses(session, answer, r);
	tgd__holdings_reply__init(reply);
	reply->n = total;
	if (ask->after != 0 || ask->known != total) {
		reply->n_pages = n;
		reply->pages = pages;
		reply->next = next;
	}
	answer->reply.body_case = TGD__REPLY__BODY_HOLDINGS;
	answer->reply.holdings = reply;
	return 0;
}

/* ---- the table ---- */

enum {
	NEEDS_CLIENT = 1,
	CHANGES = 2, /* the heap may have work afterwards */
	ABOUT_SPANS = 4,
	UNCOUNTED = 8, /* not among the messages of Status */
};

static const struct handler {
	handler_fn *handle;
	unsigned flags;
} handlers[] = {
	[TGD__REQUEST__BODY_HELLO] = {tgd_join_hello, UNCOUNTED},
	[TGD__REQUEST__BODY_ATTACH] = {tgd_join_attach, 0},
	[TGD__REQUEST__BODY_OPEN_SLOT] = {handle_open_slot, NEEDS_CLIENT},
	[TGD__REQUEST__BODY_CLOSE_SLOT] = {handle_close_slot, NEEDS_CLIENT | CHANGES},
	[TGD__REQUEST__BODY_GET_SPANS] = {handle_get_spans, NEEDS_CLIENT | CHANGES | ABOUT_SPANS},
	[TGD__REQUEST__BODY_PUT_SPANS] = {handle_put_spans, NEEDS_CLIENT | CHANGES | ABOUT_SPANS},
	[TGD__REQUEST__BODY_GET_LARGE] = {handle_get_large, NEEDS_CLIENT | CHANGES | ABOUT_SPANS},
	[TGD__REQUEST__BODY_RESIZE] = {handle_resize, NEEDS_CLIENT | CHANGES | ABOUT_SPANS},
	[TGD__REQUEST__BODY_ROOT_SET] = {handle_root_set, NEEDS_CLIENT},
	[TGD__REQUEST__BODY_DETACH] = {tgd_join_detach, NEEDS_CLIENT},
	[TGD__REQUEST__BODY_HOLDINGS] = {handle_holdings, NEEDS_CLIENT},
	[TGD__REQUEST__BODY_BACK_STATE] = {handle_back_state, NEEDS_CLIENT | CHANGES},
	[TGD__REQUEST__BODY_ADMIN] = {tgd_admin_handle, UNCOUNTED},
};

static void count(struct tgd_session *session, unsigned flags)
{
	if ((flags & UNCOUNTED) != 0)
		return;
	session->context->messages++;
	if ((flags & ABOUT_SPANS) != 0)
		session->context->span_messages++;
	if (session->client != NULL)
		session->client->messages++;
}

int tgd_request_handle(struct tgd_session *session, const Tgd__Request *request, char *why,
		       size_t why_size)
{
	struct tgd_context *context = session->context;
	const struct handler *handler;
	struct tgd_answer answer;
	int fds[2], r;

	/* The union is initialised by the handler that uses it. */
	answer.with_fds = answer.later = false;
	answer.why[0] = '\0';
	tgd__reply__init(&answer.reply);
	answer.reply.id = request->id;
	if ((unsigned)request->body_case >= TGS_ARRAY_LEN(handlers) ||
	    handlers[request->body_case].handle == NULL) {
		snprintf(why, why_size, "there is no request of this kind (%d)",
			 (int)request->body_case);
		return -EPROTO;
	}
	handler = &handlers[request->body_case];
	count(session, handler->flags);
	if ((handler->flags & NEEDS_CLIENT) != 0 && session->client == NULL)
		r = tgd_answer_refuse(&answer, -ENOTCONN,
				      "this connection has not attached; only an attached process "
				      "can ask for this");
	else
		r = handler->handle(session, request, &answer);
	if (r == -EPROTO) {
		snprintf(why, why_size, "%s", answer.why);
		return r;
	}
	if (r < 0) {
		tgd_session_reply_error(session, request->id, r, answer.why);
	} else if (!answer.later) {
		fds[0] = tgd_heap_map_fd_ro(context->heap);
		fds[1] = tgd_heap_heap_fd(context->heap);
		tgd_session_reply(session, &answer.reply, answer.with_fds ? fds : NULL);
	}
	if ((handler->flags & CHANGES) != 0)
		context->want_work(context);
	return 0;
}
