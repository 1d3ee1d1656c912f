/* link.c - swing a link.
 *
 * How many bits the offset needs depends on the length of the heap file; what is left above offset and thread slot is
 * for the step's number (13 bits in a heap of 64 GiB).
 */
#include "shm/link.h"

#include "shm/base.h"
#include "shm/span.h"
#include "shm/step.h"

/* ThreadSanitizer does not know fences.  What it then misses is order between atomics, no data race. */
#if defined(__SANITIZE_THREAD__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif

static struct tgs_tag_format link_format(const struct tgs_heap *heap)
{
	return (struct tgs_tag_format){
		.slot_shift = heap->geometry.link_offset_bits,
		.seq_bits = heap->geometry.link_seq_bits,
		.kind = TGS_STEP_SWAP,
	};
}

uint64_t tgs_link_target(const struct tgs_heap *heap, uint64_t word)
{
	return word & ((UINT64_C(1) << heap->geometry.link_offset_bits) - 1);
}

uint64_t tgs_link_get(const struct tgs_heap *heap, const _Atomic uint64_t *link)
{
	return tgs_link_target(heap, atomic_load_explicit(link, memory_order_acquire));
}

uint64_t tgs_link_begin(const struct tgs_heap *heap, unsigned self, _Atomic uint64_t *link,
			uint64_t what, uint64_t expected, uint64_t desired)
{
	struct tgs_tag_format format = link_format(heap);

	return tgs_step_begin(heap, self, &format, link, what, expected, desired);
}

/* One try, from a word that was read.  False: the link has changed. */
static bool swing_from(const struct tgs_heap *heap, unsigned self, uint64_t seq,
		       _Atomic uint64_t *link, uint64_t value, uint64_t desired)
{
	struct tgs_tag_format format = link_format(heap);

	return tgs_step_help(heap, &format, link, value) &&
	       atomic_compare_exchange_strong_explicit(link, &value,
						       desired | tgs_tag(&format, self, seq),
						       memory_order_seq_cst, memory_order_acquire);
}

bool tgs_link_swing(const struct tgs_heap *heap, unsigned self, uint64_t seq,
		    _Atomic uint64_t *link, uint64_t expected, uint64_t desired)
{
	for (;;) {
		uint64_t value = atomic_load_explicit(link, memory_order_acquire);

		if (tgs_link_target(heap, value) != expected)
			return false;
		if (swing_from(heap, self, seq, link, value, desired))
			return true;
	}
}

bool tgs_link_swing_seen(const struct tgs_heap *heap, unsigned self, uint64_t seq,
			 _Atomic uint64_t *link, uint64_t seen, uint64_t desired)
{
	return swing_from(heap, self, seq, link, seen, desired);
}

bool tgs_link_swap(const struct tgs_heap *heap, unsigned self, _Atomic uint64_t *link,
		   uint64_t expected, uint64_t desired, uint64_t what)
{
	uint64_t seq;

	if (tgs_link_get(heap, link) != expected)
		return false;
	seq = tgs_link_begin(heap, self, link, what, expected, desired);
	return tgs_link_swing(heap, self, seq, link, expected, desired);
}

void tgs_link_help_inside(const struct tgs_heap *heap, uint64_t ref, uint64_t bytes)
{
	struct tgs_tag_format format = link_format(heap);
	uint64_t n = atomic_load_explicit(&heap->map->n_slots, memory_order_acquire);
	uint64_t slot;

	/* A swing that has taken place was noted before: whoever sees the one sees the other. */
	atomic_thread_fence(memory_order_seq_cst);
	for (slot = TGS_SLOT_CENTRAL + 1; slot < tgs_min(n, TGS_SLOTS_MAX); slot++) {
		uint64_t note =
			atomic_load_explicit(&heap->slots[slot].step.word, memory_order_acquire);
		uint64_t at = (note & ~TGS_STEP_KIND_MASK) - ref;
		_Atomic uint64_t *link = (_Atomic uint64_t *)(heap->base + ref + at);

		if ((note & TGS_STEP_KIND_MASK) != TGS_STEP_SWAP || at >= bytes)
			continue;
		while (!tgs_step_help(heap, &format, link,
				      atomic_load_explicit(link, memory_order_seq_cst)))
			;
	}
}

bool tgs_link_gives_inside(const struct tgs_heap *heap, uint64_t ref, uint64_t bytes)
{
	uint64_t n = atomic_load_explicit(&heap->map->n_slots, memory_order_acquire);
	uint64_t slot;

	for (slot = TGS_SLOT_CENTRAL + 1; slot < tgs_min(n, TGS_SLOTS_MAX); slot++) {
		const struct tgs_step *step = &heap->slots[slot].step;

		if ((atomic_load_explicit(&step->word, memory_order_acquire) &
		     TGS_STEP_KIND_MASK) == TGS_STEP_SWAP &&
		    (atomic_load_explicit(&step->arg, memory_order_relaxed) & TGS_SWAP_PRIVATE) &&
		    atomic_load_explicit(&step->new_ref, memory_order_relaxed) - ref < bytes)
			return true;
	}
	return false;
}

bool tgs_link_took_place(const struct tgs_heap *heap, unsigned self, _Atomic uint64_t *link)
{
	struct tgs_tag_format format = link_format(heap);

	return tgs_step_took_place(heap, self, &format, link);
}
