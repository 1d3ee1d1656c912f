/* message.c - makes messages for tests.
 *
 * A test that names each field by hand forgets the field that is added tomorrow.  So messages are
 * filled by walking protobuf-c's descriptors: every field of every message gets a value, and what
 * tgd.proto gains is tried by the tests as it stands.  The limits are repeated here and not taken
 * from proto/msg.c, so that a wrong limit there does not agree with itself.
 * The few rules between fields (a class, a power of two) are set right at the end.
 * One thread only.
 */
#include "tests/support/message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for a few of the largest messages at a time. */
static _Alignas(16) uint8_t pool[1 << 20];
static size_t pool_used;

static const struct {
	const char *field;
	size_t min, max;
} limits[] = {
	/* requests */
	{"Hello.program", 0, 64},
	{"Attach.heap", 0, 63},
	{"Attach.name", 0, 63},
	{"GetSpans.also", 0, 69},
	{"PutSpans.pages", 1, 256},
	{"BackState.pages", 1, 256},
	{"RootSet.name", 1, 127},
	/* replies */
	{"HelloReply.program", 0, 64},
	{"AttachReply.heap_uuid", 16, 16},
	{"SpansReply.spans", 1, 256},
	{"HoldingsReply.pages", 0, TGP_SPANS_MAX},
	{"Status.heap", 0, 63},
	{"Client.name", 0, 63},
	{"Clients.clients", 0, 256},
	{"Classes.classes", 0, 69},
	{"Spans.spans", 0, 256},
	{"Map.cells", 0, 2048},
	{"Root.name", 1, 127},
	{"Roots.roots", 0, 256},
	{"Check.errors", 0, 64},
};

static void field_name(const ProtobufCMessageDescriptor *message,
		       const ProtobufCFieldDescriptor *field, char *name, size_t size)
{
	snprintf(name, size, "%s.%s", message->short_name, field->name);
}

void tgt_limits_of(const ProtobufCMessageDescriptor *message, const ProtobufCFieldDescriptor *field,
		   size_t *ret_min, size_t *ret_max)
{
	char name[128];
	size_t i;

	field_name(message, field, name, sizeof(name));
	for (i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		if (strcmp(limits[i].field, name) == 0) {
			*ret_min = limits[i].min;
			*ret_max = limits[i].max;
			return;
		}
	}
	*ret_min = 0;
	*ret_max = 255;
}

uint64_t tgt_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1du;
}

void tgt_fill_reset(void)
{
	pool_used = 0;
}

static void *take(size_t size)
{
	void *p = pool + pool_used;

	size = (size + 15) & ~(size_t)15;
	if (size > sizeof(pool) - pool_used) {
		fprintf(stderr, "message.c: no room for test messages, call tgt_fill_reset()\n");
		abort();
	}
	pool_used += size;
	memset(p, 0, size);
	return p;
}

struct filler {
	struct tgt_fill fill;
	uint64_t random;
};

/* A number between 0 and max: max itself, or a random one, small ones more often. */
static uint64_t pick(struct filler *f, uint64_t max)
{
	uint64_t n;

	if (f->fill.seed == 0)
		return max;
	n = tgt_random(&f->random);
	n >>= tgt_random(&f->random) & 63;
	return max == UINT64_MAX ? n : n % (max + 1);
}

/* How many elements, or bytes of a string, this field gets. */
static size_t pick_size(struct filler *f, const ProtobufCMessageDescriptor *message,
			const ProtobufCFieldDescriptor *field)
{
	char name[128];
	size_t min, max;

	field_name(message, field, name, sizeof(name));
	tgt_limits_of(message, field, &min, &max);
	if (f->fill.more_of != NULL && strcmp(f->fill.more_of, name) == 0)
		return max + 1;
	if (f->fill.less_of != NULL && strcmp(f->fill.less_of, name) == 0)
		return min - 1;
	return min + pick(f, max - min);
}

static ProtobufCMessage *fill_message(struct filler *f, const ProtobufCMessageDescriptor *d,
				      uint32_t body);

static char *fill_string(struct filler *f, size_t n)
{
	char *text = take(n + 1);
	size_t i;

	for (i = 0; i < n; i++)
		text[i] = (char)(' ' + pick(f, '~' - ' '));
	return text;
}

static void fill_value(struct filler *f, const ProtobufCMessageDescriptor *message,
		       const ProtobufCFieldDescriptor *field, size_t size, void *value)
{
	const ProtobufCEnumDescriptor *known;
	ProtobufCBinaryData *data;

	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		*(char **)value = fill_string(f, size);
		break;
	case PROTOBUF_C_TYPE_BYTES:
		data = value;
		data->len = size;
		data->data = (uint8_t *)fill_string(f, size);
		break;
	case PROTOBUF_C_TYPE_MESSAGE:
		*(ProtobufCMessage **)value = fill_message(f, field->descriptor, 0);
		break;
	case PROTOBUF_C_TYPE_ENUM:
		known = field->descriptor;
		*(int *)value = known->values[1 + pick(f, known->n_values - 2)].value;
		break;
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)value = (protobuf_c_boolean)pick(f, 1);
		break;
	case PROTOBUF_C_TYPE_INT32:
		*(int32_t *)value = -(int32_t)(1 + pick(f, 4094));
		break;
	case PROTOBUF_C_TYPE_UINT32:
		*(uint32_t *)value = (uint32_t)(1 + pick(f, UINT32_MAX - 1));
		break;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		*(uint64_t *)value = 1 + pick(f, UINT64_MAX - 1);
		break;
	default:
		fprintf(stderr, "message.c: %s.%s has a type that it cannot fill, teach it\n",
			message->short_name, field->name);
		abort();
	}
}

static size_t element_size(const ProtobufCFieldDescriptor *field)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		return sizeof(uint64_t);
	default:
		return sizeof(uint32_t);
	}
}

static void fill_repeated(struct filler *f, ProtobufCMessage *message,
			  const ProtobufCFieldDescriptor *field)
{
	size_t n = pick_size(f, message->descriptor, field), size = element_size(field), i;
	uint8_t *elements = take(n * size);

	for (i = 0; i < n; i++)
		fill_value(f, message->descriptor, field, (size_t)pick(f, 255),
			   elements + i * size);
	memcpy((uint8_t *)message + field->quantifier_offset, &n, sizeof(n));
	memcpy((uint8_t *)message + field->offset, &elements, sizeof(elements));
}

/* The rules that more than one field, or a range, is in. */
static void set_right(struct filler *f, ProtobufCMessage *message)
{
	if (message->descriptor == &tgd__get_spans__descriptor) {
		Tgd__GetSpans *m = (Tgd__GetSpans *)message;
		size_t i;

		m->class_ = (uint32_t)(2 + pick(f, 66));
		m->count = (uint32_t)(1 + pick(f, 255));
		for (i = 0; i < m->n_also; i++)
			m->also[i] = (uint32_t)(2 + pick(f, 66));
	} else if (message->descriptor == &tgd__get_large__descriptor) {
		Tgd__GetLarge *m = (Tgd__GetLarge *)message;

		m->align_pages = (uint64_t)1 << pick(f, 63);
		m->count = (uint32_t)pick(f, 256);
	} else if (message->descriptor == &tgd__hello__descriptor) {
		Tgd__Hello *m = (Tgd__Hello *)message;

		m->min_version = (uint32_t)pick(f, m->version);
	}
}

static ProtobufCMessage *fill_message(struct filler *f, const ProtobufCMessageDescriptor *d,
				      uint32_t body)
{
	ProtobufCMessage *message = take(d->sizeof_message);
	unsigned i;

	d->message_init(message);
	for (i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &d->fields[i];
		uint8_t *start = (uint8_t *)message;

		if (field->label == PROTOBUF_C_LABEL_REPEATED) {
			fill_repeated(f, message, field);
			continue;
		}
		if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
			if (field->id != body)
				continue;
			memcpy(start + field->quantifier_offset, &body, sizeof(body));
		}
		fill_value(f, d, field, pick_size(f, d, field), start + field->offset);
	}
	set_right(f, message);
	return message;
}

Tgd__Request *tgt_fill_request(uint32_t body, const struct tgt_fill *fill)
{
	struct filler f = {*fill, fill->seed};

	return (Tgd__Request *)fill_message(&f, &tgd__request__descriptor, body);
}

Tgd__Reply *tgt_fill_reply(uint32_t body, const struct tgt_fill *fill)
{
	struct filler f = {*fill, fill->seed};

	return (Tgd__Reply *)fill_message(&f, &tgd__reply__descriptor, body);
}

void tgt_wire_varint(struct tgt_wire *wire, uint64_t value)
{
	while (value >= 0x80) {
		wire->bytes[wire->n++] = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	wire->bytes[wire->n++] = (uint8_t)value;
}

void tgt_wire_number(struct tgt_wire *wire, uint32_t field, uint64_t value)
{
	tgt_wire_varint(wire, (uint64_t)field << 3);
	tgt_wire_varint(wire, value);
}

void tgt_wire_bytes(struct tgt_wire *wire, uint32_t field, const void *bytes, size_t n)
{
	tgt_wire_varint(wire, (uint64_t)field << 3 | 2);
	tgt_wire_varint(wire, n);
	memcpy(wire->bytes + wire->n, bytes, n);
	wire->n += n;
}

void tgt_wire_message(struct tgt_wire *wire, uint32_t field, const struct tgt_wire *inner)
{
	tgt_wire_bytes(wire, field, inner->bytes, inner->n);
}
