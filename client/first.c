/* first.c - the spans that most programs want at once, asked for in one go.
 *
 * A program that starts asks for the first span of one class after the other, and waits each time.  libtgmalloc, which
 * attaches because there is something to be allocated, asks for those of the usual classes together: the requests are sent
 * before the first answer is awaited.  What does not come is asked for when it is needed; and so are the others, until it shows
 * that the program is one of those that pass through most classes (compilers, interpreters): then one span of each.
 */
#include "client/prefetch.h"

#define FIRST_ALONE   6u /* classes that are none of the usual ones; whoever needs more of them ... */
#define REST_SIZE_MAX 4096u /* ... will most likely need all up to this size */

/* Each of these about half of some 60 programs used, or more (shells, compilers, tools, interpreters); 144 KiB. */
static const uint8_t usual[] = {2, 4, 5, 6, 7, 8, 9, 12, 14, 15, 17, 25, 31, 32, 37, 38, 44};

struct first {
	struct tgc_post post;
	uint64_t page;
	bool has, zero;
};

static void note(struct tgc_post *post, const Tgd__Reply *reply)
{
	struct first *first = tgs_container_of(post, struct first, post);

	if (!reply || reply->error != 0 || reply->body_case != TGD__REPLY__BODY_SPANS ||
	    reply->spans->n_spans != 1)
		return;
	first->has = true;
	first->page = reply->spans->spans[0]->page;
	first->zero = reply->spans->spans[0]->zero;
}

/* One span of each of these classes. */
static void get_one_of_each(struct tgc_cache *cache, const uint8_t *classes, size_t n_classes)
{
	struct first first[TGS_CLASSES] = {0};
	struct tgc_get_spans get;
	size_t i, n;

	tgc_rpc_begin();
	tgc_rpc_hold();
	for (n = 0; n < n_classes; n++) {
		first[n].post.take = note;
		if (tgc_rpc_post(tgc_get_spans(&get, cache->slot_id, classes[n], 1),
				 &first[n].post) < 0)
			break;
	}
	tgc_rpc_release();
	/* The last answer comes last. */
	for (i = n; i-- > 0;)
		tgc_rpc_collect(&first[i].post);
	tgc_rpc_end();
	for (i = 0; i < n; i++) {
		if (first[i].has && first[i].page < tgc_heap.geometry.n_pages)
			tgc_span_add(cache, first[i].page, classes[i],
				     tgs_classes[classes[i]].n_pages, first[i].zero);
	}
}

void tgc_first_spans(void)
{
	struct tgc_cache *cache = tgc_cache_get();

	if (!cache)
		return;
	cache->first_left = FIRST_ALONE;
	get_one_of_each(cache, usual, TGS_ARRAY_LEN(usual));
}

void tgc_first_of_class(struct tgc_cache *cache)
{
	uint8_t classes[TGS_CLASSES];
	unsigned class;
	size_t n = 0;

	if (cache->first_left == 0 || --cache->first_left != 0)
		return;
	for (class = 2; class < TGS_CLASSES && tgs_classes[class].size <= REST_SIZE_MAX;
	     class += 1) {
		if (cache->supply[class].n_spans == 0)
			classes[n++] = (uint8_t) class;
	}
	get_one_of_each(cache, classes, n);
}
