/* first.c - the spans that most programs want at once, asked for in one go.
 *
 * A program that starts asks for the first span of one class after the other, and waits each time.  libtgmalloc, which
 * attaches because there is something to be allocated, asks for a slot and for spans of the usual classes together with
 * that: one round trip.  The answers are noted under the connection's lock and taken by the thread that needs a slot next.  What
 * does not come is asked for when it is needed; and so are the others, until it shows that the program is one of those that
 * pass through most classes (compilers, interpreters): then one span of each.
 *
 * If the connection is lost in between, the daemon may have given what we never hear of.  A slot is found by agreeing on slots
 * when the next one is opened, spans by agreeing on what the slot holds (client/agree.c).
 */
#include "client/prefetch.h"
#include "client/wire.h"

#define FIRST_ALONE   4u /* classes that are none of the usual ones; whoever needs more of them ... */
#define REST_SIZE_MAX 4096u /* ... will most likely need all up to this size */

/* Each of these about half of some 60 programs used, or more (shells, compilers, tools, interpreters); 144 KiB. */
static const uint8_t usual[] = {2, 4, 5, 6, 7, 8, 9, 12, 14, 15, 17, 25, 31, 32, 37, 38, 44};

/* One span of each of these classes. */
static Tgd__Request *ask_one_of_each(struct tgc_get_spans *get, uint32_t slot,
				     const uint8_t *classes, size_t n_classes)
{
	Tgd__Request *request = tgc_get_spans(get, slot, classes[0], 1);
	size_t i;

	for (i = 1; i < n_classes; i++)
		tgc_get_spans_also(get, classes[i]);
	return request;
}

static void get_one_of_each(struct tgc_cache *cache, const uint8_t *classes, size_t n_classes)
{
	struct tgc_get_spans get;
	const Tgd__Reply *reply;
	Tgd__Request *request;

	request = ask_one_of_each(&get, cache->slot_id, classes, n_classes);
	tgc_rpc_begin();
	if (tgc_rpc_call(request, TGD__REPLY__BODY_SPANS, &reply) == 0)
		(void)tgc_take_spans(cache, classes[0], reply->spans);
	tgc_rpc_end();
}

static void note_slot(struct tgc_post *post, const Tgd__Reply *reply)
{
	struct tgc_first *first = tgs_container_of(post, struct tgc_first, slot_post);

	first->slot_lost = !reply;
	if (reply && reply->error == 0 && reply->body_case == TGD__REPLY__BODY_SLOT &&
	    reply->slot->slot > TGS_SLOT_CENTRAL && reply->slot->slot < TGS_SLOTS_MAX)
		first->slot = reply->slot->slot;
}

static void note_spans(struct tgc_post *post, const Tgd__Reply *reply)
{
	struct tgc_first *first = tgs_container_of(post, struct tgc_first, spans_post);
	size_t i;

	first->spans_lost = !reply;
	if (!reply || reply->error != 0 || reply->body_case != TGD__REPLY__BODY_SPANS)
		return;
	for (i = 0; i < reply->spans->n_spans && i < TGC_FIRST_MAX; i++) {
		const Tgd__SpanGrant *grant = reply->spans->spans[i];

		first->grants[first->n_grants++] = (struct tgc_first_grant){
			.page = grant->page,
			.class = grant->class_ != 0 ? grant->class_ : usual[0],
			.zero = grant->zero,
		};
	}
}

int tgc_first_post(void)
{
	struct tgc_first *first = &tgc_wire()->first;
	Tgd__OpenSlot open = TGD__OPEN_SLOT__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	struct tgc_get_spans get;
	int r;

	*first = (struct tgc_first){
		.slot_post.take = note_slot,
		.spans_post.take = note_spans,
	};
	request.body_case = TGD__REQUEST__BODY_OPEN_SLOT;
	request.open_slot = &open;
	r = tgc_rpc_post(&request, &first->slot_post);
	if (r < 0)
		return r;
	return tgc_rpc_post(ask_one_of_each(&get, 0, usual, TGS_ARRAY_LEN(usual)),
			    &first->spans_post);
}

uint32_t tgc_first_slot(void)
{
	struct tgc_first *first = &tgc_wire()->first;
	uint32_t slot;

	tgc_rpc_collect(&first->slot_post);
	slot = first->slot;
	first->slot = 0;
	return slot;
}

bool tgc_first_lost(void)
{
	struct tgc_first *first = &tgc_wire()->first;
	bool lost = first->slot_lost;

	first->slot = 0;
	first->slot_lost = false;
	return lost;
}

void tgc_first_take(struct tgc_cache *cache)
{
	struct tgc_first *first = &tgc_wire()->first;
	uint32_t i;

	cache->first_left = FIRST_ALONE;
	tgc_rpc_collect(&first->spans_post);
	for (i = 0; i < first->n_grants; i++) {
		const struct tgc_first_grant *grant = &first->grants[i];

		(void)tgc_span_add(cache, grant->page, grant->class, grant->zero);
	}
	first->n_grants = 0;
	/* The daemon may have given some that we do not know of. */
	if (first->spans_lost)
		cache->agreed = UINT64_MAX;
}

void tgc_first_of_class(struct tgc_cache *cache, unsigned needed)
{
	uint8_t classes[TGS_CLASSES];
	unsigned class;
	size_t n = 0;

	if (tgs_classes[needed].size > REST_SIZE_MAX || cache->first_left == 0 ||
	    --cache->first_left != 0)
		return;
	for (class = 2; class < TGS_CLASSES && tgs_classes[class].size <= REST_SIZE_MAX;
	     class += 1) {
		if (cache->supply[class].n_spans == 0)
			classes[n++] = (uint8_t) class;
	}
	if (n != 0)
		get_one_of_each(cache, classes, n);
}
