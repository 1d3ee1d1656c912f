/*
 * pagesum: merging summaries; the packing itself is inline in the header.
 *
 * One pass over the children from left to right with the free run that reaches the current border.
 * A wholly free child prolongs it, any other child ends it and begins a new one. What the run is
 * when the first child that is not wholly free comes up is the start of the merged range.
 */
#include "daemon/pagesum.h"

#include <stdbool.h>

uint64_t tgd_pagesum_merge(const uint64_t stored[TGD_PAGESUM_FANOUT], unsigned child_log)
{
	const uint64_t full = tgd_pagesum_full(child_log);
	uint64_t start = 0, longest = 0, run = 0;
	bool from_start = true;

	for (unsigned i = 0; i < TGD_PAGESUM_FANOUT; i++) {
		uint64_t sum = stored[i] ^ full;

		if (sum == full) {
			run += UINT64_C(1) << child_log;
			continue;
		}
		run += tgd_pagesum_start(sum);
		if (from_start)
			start = run;
		from_start = false;
		if (run > longest)
			longest = run;
		if (tgd_pagesum_longest(sum) > longest)
			longest = tgd_pagesum_longest(sum);
		run = tgd_pagesum_end(sum);
	}
	if (from_start)
		start = run;
	if (run > longest)
		longest = run;
	return tgd_pagesum_pack(start, longest, run);
}
