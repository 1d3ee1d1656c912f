/* object.c - what the storm's objects look like, so that whoever finds one can tell whether it is whole.
 *
 * A reader may look at an object that others free meanwhile: nothing in it is believed before it is checked, and the
 * answer counts only if the link that led to it has not changed since.
 */
#include "client/process.h"
#include "tests/storm/storm.h"
#include "tests/support/fixture.h"

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= UINT64_C(0x7fb5d329728ea185);
	x ^= x >> 27;
	x *= UINT64_C(0x81dadef4bc2dd44d);
	return x ^ x >> 33;
}

static uint64_t check_of(const struct storm_head *head)
{
	return mix(mix(head->number + 1) ^
		   mix((uint64_t)head->size << 32 | head->seat << 8 | head->kind));
}

static size_t head_size(enum storm_kind kind)
{
	return kind == STORM_BUCKET ? sizeof(struct storm_bucket) : sizeof(struct storm_head);
}

void storm_object_make(void *p, enum storm_kind kind, unsigned seat, uint32_t number, size_t size)
{
	struct storm_head *head = p;
	size_t skip = head_size(kind);

	head->next = 0;
	head->depth = 0;
	head->number = number;
	head->size = (uint32_t)size;
	head->seat = (uint16_t)seat;
	head->kind = (uint16_t)kind;
	head->check = check_of(head);
	tgt_fill_object((char *)p + skip, size - skip, head->check);
}

bool storm_object_ok(const void *p, enum storm_kind kind, struct storm_name *ret)
{
	struct storm_head head = *(const volatile struct storm_head *)p;
	uint64_t at = (uint64_t)((const uint8_t *)p - tgc_heap.data);
	size_t skip = head_size(kind);

	if (head.kind != kind || head.check != check_of(&head) || head.seat >= STORM_SEATS ||
	    head.number >= STORM_NUMBERS || head.size < skip || head.size > STORM_SIZE_MAX ||
	    at + head.size > tgc_heap.data_bytes)
		return false;
	*ret = (struct storm_name){head.seat, (uint32_t)head.number};
	return tgt_is_filled((const char *)p + skip, head.size - skip, head.check);
}

static uint8_t tiny_byte(uint8_t first, size_t size, size_t i)
{
	return (uint8_t)(first * 31 + i * 17 + size);
}

void storm_tiny_make(void *p, size_t size, uint64_t random)
{
	uint8_t *bytes = p;
	size_t i;

	bytes[0] = (uint8_t)random;
	for (i = 1; i < size; i++)
		bytes[i] = tiny_byte(bytes[0], size, i);
}

unsigned storm_class(size_t size)
{
	if (size <= TGS_TINY_MAX)
		return TGS_CLASS_TINY;
	return size <= TGS_SMALL_MAX ? tgs_size_to_class(size) : 0;
}

bool storm_tiny_ok(const void *p, size_t size)
{
	const volatile uint8_t *bytes = p;
	uint8_t first = bytes[0];
	size_t i;

	for (i = 1; i < size; i++) {
		if (bytes[i] != tiny_byte(first, size, i))
			return false;
	}
	return true;
}
