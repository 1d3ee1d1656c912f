/* buckets.c - turns with links that lie in objects which are themselves retired, and their memory used again.
 *
 * A cell leads to a bucket, whose links lead to leaves.  Nobody may put a leaf into a bucket that is out of its cell, so
 * before a bucket is retired each of its links is sealed, for good; whoever meets a sealed link helps to the end.  Who
 * comes late with a word that he saw before finds another one there, whatever the memory has become.
 */
#include "tests/storm/storm.h"

static bool same(const tg_link *link, uint64_t seen)
{
	return tg_link_look(link, NULL) == seen;
}

static unsigned new_bucket(struct storm_worker *w)
{
	unsigned index = storm_new_entry(w, STORM_BUCKET,
					 sizeof(struct storm_bucket) + storm_random(w, 100));
	struct storm_bucket *bucket;
	unsigned i;

	if (index == STORM_TABLE)
		return index;
	bucket = tg_from_ref(w->book->table[index].ref);
	for (i = 0; i < STORM_BUCKET_LINKS; i++) {
		bucket->links[i].word = 0;
		if (!tg_swap(&bucket->links[i], NULL, w->arena->marks.empty, 0))
			storm_fail("a link of one's own cannot be set: %m");
	}
	return index;
}

/* False: the bucket is in the cell no longer. */
static bool seal(struct storm_worker *w, const tg_link *cell, uint64_t seen_bucket,
		 struct storm_bucket *bucket)
{
	const struct storm_marks *marks = &w->arena->marks;
	unsigned i;

	for (i = 0; i < STORM_BUCKET_LINKS; i++) {
		tg_link *link = &bucket->links[i];

		for (;;) {
			void *leaf;
			uint64_t seen = tg_link_look(link, &leaf);

			if (!same(cell, seen_bucket))
				return false;
			if (leaf == marks->sealed)
				break;
			if (leaf == marks->empty)
				storm_swap_seen(w, link, seen, (void *)marks->sealed, 0);
			else
				storm_retire(w, link, seen, leaf, STORM_LEAF, (void *)marks->sealed,
					     "bucket");
		}
	}
	return true;
}

static void replace(struct storm_worker *w, tg_link *cell, uint64_t seen,
		    struct storm_bucket *bucket)
{
	unsigned index;

	if (bucket != NULL && !seal(w, cell, seen, bucket))
		return;
	index = new_bucket(w);
	if (index != STORM_TABLE &&
	    !storm_exchange(w, cell, seen, bucket, STORM_BUCKET, index, "cell of buckets"))
		storm_free_at(w, index);
}

static void put_leaf(struct storm_worker *w, tg_link *link, uint64_t seen, void *leaf)
{
	unsigned index =
		storm_new_entry(w, STORM_LEAF, sizeof(struct storm_head) + storm_random(w, 300));
	bool put;

	if (index == STORM_TABLE)
		return;
	if (leaf == w->arena->marks.empty)
		put = storm_give(w, link, seen, index);
	else
		put = storm_exchange(w, link, seen, leaf, STORM_LEAF, index, "bucket");
	if (!put)
		storm_free_at(w, index);
}

void storm_turn_bucket(struct storm_worker *w)
{
	tg_link *cell = &w->arena->buckets[storm_random(w, STORM_BUCKETS)], *link;
	struct storm_marks *marks = &w->arena->marks;
	unsigned what = (unsigned)storm_random(w, 20);
	void *bucket, *leaf;
	uint64_t seen_bucket = tg_link_look(cell, &bucket), seen;

	if (bucket == NULL || what == 0) {
		replace(w, cell, seen_bucket, bucket);
		return;
	}
	link = &((struct storm_bucket *)bucket)->links[storm_random(w, STORM_BUCKET_LINKS)];
	seen = tg_link_look(link, &leaf);
	if (!same(cell, seen_bucket))
		return;
	if (leaf == marks->sealed)
		replace(w, cell, seen_bucket, bucket);
	else if (what > 4)
		put_leaf(w, link, seen, leaf);
	else if (leaf != marks->empty)
		storm_retire(w, link, seen, leaf, STORM_LEAF, marks->empty, "bucket");
}
