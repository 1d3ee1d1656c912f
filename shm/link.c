/* link.c - swing a link.
 *
 * How many bits the offset needs depends on the length of the heap file; what is left above offset and thread slot is
 * for the step's number (13 bits in a heap of 64 GiB).
 */
#include "shm/link.h"

#include "shm/span.h"
#include "shm/step.h"

static struct tgs_tag_format link_format(const struct tgs_heap *heap)
{
	return (struct tgs_tag_format){
		.slot_shift = heap->geometry.link_offset_bits,
		.seq_bits = heap->geometry.link_seq_bits,
		.kind = TGS_STEP_SWAP,
	};
}

static uint64_t payload(const struct tgs_heap *heap, uint64_t value)
{
	return value & ((UINT64_C(1) << heap->geometry.link_offset_bits) - 1);
}

uint64_t tgs_link_get(const struct tgs_heap *heap, const _Atomic uint64_t *link)
{
	return payload(heap, atomic_load_explicit(link, memory_order_acquire));
}

bool tgs_link_swap(const struct tgs_heap *heap, unsigned self, _Atomic uint64_t *link,
		   uint64_t expected, uint64_t desired, uint64_t flags)
{
	struct tgs_tag_format format = link_format(heap);
	uint64_t value = atomic_load_explicit(link, memory_order_acquire);
	uint64_t seq;

	if (payload(heap, value) != expected)
		return false;
	seq = tgs_step_begin(heap, self, &format, link, flags, expected, desired);
	for (;;) {
		value = atomic_load_explicit(link, memory_order_acquire);
		if (payload(heap, value) != expected)
			return false;
		if (tgs_step_help(heap, &format, link, value) &&
		    atomic_compare_exchange_strong_explicit(
			    link, &value, desired | tgs_tag(&format, self, seq),
			    memory_order_seq_cst, memory_order_acquire))
			return true;
	}
}
