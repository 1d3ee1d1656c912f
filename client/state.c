/* state.c - memory for the words in which a small object is published, or freed by somebody else; and the frees for which
 * there is none.
 *
 * The published and remote words of a dense or tiny span have memory only once somebody has needed them (tgs_has_more).
 * Whoever is about to write there makes sure, from his slow path: the daemon puts the memory there and says so in the page
 * map, once for the life of the span; dense spans side by side have theirs in common.  A process that asks again and again,
 * as one does that consumes what another makes, has neighbours of the span done with it: as many as it asked for in the last
 * second, times two.
 *
 * If the machine has no memory left, tg_publish and tg_swap fail; a free cannot.  It is owed: the object stays allocated, and
 * the thread keeps its address and tries again when it next needs the daemon, trims or ends; and at the next such free, but
 * not at each of them, for then the daemon has searched all there is.  What a process owes when it is killed stays allocated.
 *
 * A thread that frees before it has a slot, and gets none since the daemon does not answer, owes to the process: the next
 * thread that has something to do with the daemon takes that over.
 */
#include <errno.h>

#include "client/cache.h"

#define AHEAD_LOG_MAX 6u    /* at most 63 neighbours at a time */
#define AHEAD_MS      1000u /* so long after the last time, it is a new beginning */
#define OWED_BYTES    4096u
#define OWED_MS       100u /* before a free that is to be owed tries again */

/* Frees that are owed; the last one begun is first. */
struct tgc_owed {
	struct tgc_owed *next;
	uint64_t n;
	void *objects[(OWED_BYTES - 16) / sizeof(void *)];
};
_Static_assert(sizeof(struct tgc_owed) == OWED_BYTES, "an OS page");

/* Between tgc_rpc_begin and tgc_rpc_end. */
static uint32_t choose_ahead(void)
{
	uint32_t now_ms = tgc_coarse_ms();

	if (now_ms - tgc_process->state_asked_ms > AHEAD_MS)
		tgc_process->state_ahead = 0;
	else if (tgc_process->state_ahead < AHEAD_LOG_MAX)
		tgc_process->state_ahead++;
	tgc_process->state_asked_ms = now_ms;
	return (1u << tgc_process->state_ahead) - 1;
}

int tgc_state_ask(uint64_t page)
{
	Tgd__BackState body = TGD__BACK_STATE__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	int r;

	if (!tgc_enter())
		return -errno;
	body.n_pages = 1;
	body.pages = &page;
	request.body_case = TGD__REQUEST__BODY_BACK_STATE;
	request.back_state = &body;
	tgc_rpc_begin();
	body.ahead = choose_ahead();
	r = tgc_rpc_call(&request, TGD__REPLY__BODY__NOT_SET, NULL);
	tgc_rpc_end();
	if (r == 0 && !(tgs_page_entry(&tgc_heap, page) & TGS_ENTRY_MORE))
		r = -EPROTO;
	/* The span has ended meanwhile: with a live object in it, it would not have. */
	if (r == -EINVAL)
		return -EFAULT;
	return r == 0 || r == -ENOTCONN ? r : -ENOMEM;
}

/* Adds it to those that begin with `owed`; returns the first.  NULL: no memory. */
static struct tgc_owed *add_owed(struct tgc_owed *owed, void *p)
{
	struct tgc_owed *first = owed;

	if (!owed || owed->n == TGS_ARRAY_LEN(owed->objects)) {
		first = tgc_wiped_alloc(sizeof(*first));
		if (!first)
			return NULL;
		first->next = owed;
	}
	first->objects[first->n++] = p;
	return first;
}

static void owe(struct tgc_cache *cache, void *p)
{
	struct tgc_owed *owed = add_owed(cache->owed, p);

	if (!owed)
		return; /* not even that: the object stays allocated */
	cache->owed = owed;
	tgc_count(&cache->n_owed, 1);
}

static void *take_owed(struct tgc_cache *cache)
{
	struct tgc_owed *owed = cache->owed;
	void *p = owed->objects[--owed->n];

	if (owed->n == 0) {
		cache->owed = owed->next;
		tgc_wiped_free(owed, sizeof(*owed));
	}
	tgc_count(&cache->n_owed, -UINT64_C(1));
	return p;
}

void tgc_owed_leave(void *p)
{
	struct tgc_owed *owed;

	pthread_mutex_lock(&tgc_process->owed_lock);
	owed = add_owed(tgc_process->owed, p);
	if (owed) {
		tgc_process->owed = owed;
		tgc_count(&tgc_process->n_owed, 1);
	}
	pthread_mutex_unlock(&tgc_process->owed_lock);
}

void tgc_owed_take_over(struct tgc_cache *cache)
{
	struct tgc_owed *owed, *last;

	pthread_mutex_lock(&tgc_process->owed_lock);
	owed = tgc_process->owed;
	if (owed) {
		for (last = owed; last->next; last = last->next)
			;
		last->next = cache->owed;
		cache->owed = owed;
		tgc_count(&cache->n_owed, tgc_process->n_owed);
		tgc_process->owed = NULL;
		tgc_process->n_owed = 0;
	}
	pthread_mutex_unlock(&tgc_process->owed_lock);
}

bool tgc_state_or_owe(struct tgc_cache *cache, const struct tgs_object *object, void *p)
{
	if (cache->owed && tgc_coarse_ms() - cache->owed_tried_ms >= OWED_MS)
		tgc_owed_pay(cache);
	if (!cache->owed && tgc_state_back(object) == 0)
		return true;
	if (!cache->owed)
		cache->owed_tried_ms = tgc_coarse_ms();
	owe(cache, p);
	return false;
}

void tgc_owed_pay(struct tgc_cache *cache)
{
	cache->owed_tried_ms = tgc_coarse_ms();
	while (cache->owed) {
		void *p = cache->owed->objects[cache->owed->n - 1];
		struct tgs_object object;

		/* Also of an object of our own: its byte may say already that it was freed (client/foreign.c). */
		if (tgs_object_find(&tgc_heap, p, &object) == TGS_FOUND &&
		    tgc_state_back(&object) < 0)
			return;
		(void)take_owed(cache);
		tgc_foreign_pay(cache, p);
	}
}

void tgc_owed_forget(struct tgc_cache *cache)
{
	while (cache->owed)
		(void)take_owed(cache);
}
