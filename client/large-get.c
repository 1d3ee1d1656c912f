/* large-get.c - large spans from the daemon: one, or several of a length that is asked for again and again.
 *
 * How many is noted by length (client/idle.c has the lists), and less when some of that length were given back since.
 */
#include "client/idle.h"
#include "client/rpc.h"

#define BATCH_LOG_MAX   8u
#define BATCH_BYTES_MIN (UINT64_C(256) << 10)
#define BATCH_BYTES_MAX (UINT64_C(8) << 20)
#define BATCH_FEW_PART  10u
#define BATCH_FEW_PAGES 128u
#define BATCH_PART      32u

/* So many spans of this length are asked for at once.  From the third time on that it is about the same, twice as many as
 * before: up to a part of what the process has, which is smaller when that is much. */
static unsigned how_many(struct tgc_cache *large, uint64_t n_pages)
{
	struct tgc_supply *demand = &large->supply[tgc_idle_list(n_pages)];
	uint64_t few = tgs_min(large->n_pages / BATCH_FEW_PART, BATCH_FEW_PAGES);
	uint64_t part =
		tgs_max(BATCH_BYTES_MIN / TGS_PAGE_SIZE, tgs_max(few, large->n_pages / BATCH_PART));
	unsigned n = demand->batch < 2 ? 1 : 1u << tgs_min(demand->batch - 1, BATCH_LOG_MAX);

	/* Of small objects with pages of their own there will be few (tgc_demand_alone). */
	if (n_pages <= TGS_SMALL_MAX / TGS_PAGE_SIZE)
		return 1;

	if (demand->batch <= BATCH_LOG_MAX)
		demand->batch++;
	return (unsigned)tgs_max(
		1, tgs_min(n, tgs_min(part, BATCH_BYTES_MAX / TGS_PAGE_SIZE) / n_pages));
}

/* Of the spans that come the first is the answer, and the others are idle ones.  -EADDRINUSE: none may be used. */
static int get_large(struct tgc_cache *large, uint64_t n_pages, uint64_t align_pages,
		     struct tgc_span **ret)
{
	Tgd__GetLarge get = TGD__GET_LARGE__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	const Tgd__Reply *reply;
	int r, refused = -EPROTO;
	size_t i;

	get.slot = large->slot_id;
	get.n_pages = n_pages;
	get.align_pages = align_pages;
	get.count = align_pages == 1 ? how_many(large, n_pages) : 1;
	request.body_case = TGD__REQUEST__BODY_GET_LARGE;
	request.get_large = &get;

	*ret = NULL;
	tgc_rpc_begin();
	r = tgc_rpc_call(&request, TGD__REPLY__BODY_SPANS, &reply);
	/* From the last on: the idle span that was added last is the next to be used. */
	for (i = r == 0 ? reply->spans->n_spans : 0; i-- > 0;) {
		const Tgd__SpanGrant *grant = reply->spans->spans[i];
		int taken = tgc_span_add_large(large, grant->page, n_pages, grant->zero);

		if (taken < 0) {
			refused = taken;
			continue;
		}
		if (*ret)
			tgc_idle_add(large, *ret);
		*ret = tgc_span_record(grant->page);
	}
	tgc_rpc_end();
	return r == 0 && !*ret ? refused : r;
}

int tgc_large_get(struct tgc_cache *large, uint64_t n_pages, uint64_t align_pages,
		  struct tgc_span **ret)
{
	int r;

	do
		r = get_large(large, n_pages, align_pages, ret);
	while (r == -EADDRINUSE);
	return r;
}
