/* msg.c - messages in bounded memory, checked for their meaning; and packed into frames.
 *
 * protobuf-c checks the types of what it reads and nothing else: it takes any number of elements,
 * any enum value, a NUL or broken UTF-8 in a string, and keeps every unknown field; 64 KiB of input
 * can ask for megabytes.  So unpacking gets its memory from an arena of fixed size, and one walk
 * over the result, led by protobuf-c's own descriptors, holds every field against the table of
 * limits below.  A few rules that a table cannot say follow in code.
 * Invariants:
 * - nothing here calls malloc or free: libtgmalloc packs and unpacks inside malloc itself;
 * - each block of the arena has its size in front: that is how the length of a string on the wire
 *   is known, for protobuf-c keeps a pointer alone, and a NUL inside would look like its end;
 * - a repeated field without an entry in `limits` holds nothing (a test goes through all of them).
 * The walk is recursive; the schema is not, so the walk is as deep as the schema at most.
 */
#include "proto/msg.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ARENA_ALIGN 8 /* enough for every type in a message */
#define ERRNO_MAX   4095

/* How many elements (repeated) or bytes (string, bytes) a field has.  A string that is not here:
 * 0..TGP_TEXT_MAX; so has each of the strings of a repeated field. */
struct limit {
	const ProtobufCMessageDescriptor *message;
	const char *field;
	size_t min, max;
};

static const struct limit limits[] = {
	{&tgd__hello__descriptor, "program", 0, TGP_PROGRAM_MAX},
	{&tgd__attach__descriptor, "heap", 0, TGP_NAME_MAX},
	{&tgd__attach__descriptor, "name", 0, TGP_NAME_MAX},
	{&tgd__get_spans__descriptor, "also", 0, TGP_CLASSES_MAX},
	{&tgd__put_spans__descriptor, "pages", 1, TGP_SPANS_MAX},
	{&tgd__back_state__descriptor, "pages", 1, TGP_SPANS_MAX},
	{&tgd__root_set__descriptor, "name", 1, TGP_ROOT_MAX},
	{&tgd__hello_reply__descriptor, "program", 0, TGP_PROGRAM_MAX},
	{&tgd__attach_reply__descriptor, "heap_uuid", TGP_UUID_SIZE, TGP_UUID_SIZE},
	{&tgd__spans_reply__descriptor, "spans", 1, TGP_SPANS_MAX},
	{&tgd__holdings_reply__descriptor, "pages", 0, TGP_SPANS_MAX},
	{&tgd__status__descriptor, "heap", 0, TGP_NAME_MAX},
	{&tgd__client__descriptor, "name", 0, TGP_NAME_MAX},
	{&tgd__clients__descriptor, "clients", 0, TGP_ROWS_MAX},
	{&tgd__classes__descriptor, "classes", 0, TGP_CLASSES_MAX},
	{&tgd__spans__descriptor, "spans", 0, TGP_ROWS_MAX},
	{&tgd__map__descriptor, "cells", 0, TGP_CELLS_MAX},
	{&tgd__root__descriptor, "name", 1, TGP_ROOT_MAX},
	{&tgd__roots__descriptor, "roots", 0, TGP_ROWS_MAX},
	{&tgd__check__descriptor, "errors", 0, TGP_ERRORS_MAX},
};

static const struct limit text_limit = {NULL, NULL, 0, TGP_TEXT_MAX};
static const struct limit no_limit = {NULL, NULL, 0, 0};

/* What the checks need besides the message: where lengths are known from, and where the sentence
 * goes. */
struct check {
	const struct tgp_arena *arena;
	char *why;
	size_t why_size;
};

/* ---- the arena ---- */

static void *arena_alloc(void *data, size_t size)
{
	struct tgp_arena *arena = data;
	uintptr_t base = (uintptr_t)arena->buf;
	size_t at, head = sizeof(size_t);

	if (arena->used > arena->size || size > arena->size)
		goto full;
	at = (size_t)(((base + arena->used + head + ARENA_ALIGN - 1) &
		       ~(uintptr_t)(ARENA_ALIGN - 1)) -
		      base);
	if (at > arena->size || size > arena->size - at)
		goto full;
	memcpy(arena->buf + at - head, &size, head);
	arena->used = at + size;
	return arena->buf + at;
full:
	arena->used = SIZE_MAX;
	return NULL;
}

static void arena_free(void *data, void *block)
{
	(void)data;
	(void)block;
}

/* Makes an arena over `size` bytes at buf, at any alignment; both are the caller's and outlive
 * the arena. */
void tgp_arena_init(struct tgp_arena *arena, void *buf, size_t size)
{
	_Static_assert(_Alignof(ProtobufCMessage) <= ARENA_ALIGN &&
			       _Alignof(uint64_t) <= ARENA_ALIGN &&
			       _Alignof(double) <= ARENA_ALIGN && _Alignof(size_t) <= ARENA_ALIGN,
		       "blocks of the arena are aligned for all that a message is made of");
	arena->buf = buf;
	arena->size = size;
	arena->used = 0;
	arena->allocator = (ProtobufCAllocator){arena_alloc, arena_free, arena};
}

/* All messages unpacked into the arena are gone; it is as new. */
void tgp_arena_reset(struct tgp_arena *arena)
{
	arena->used = 0;
}

/* Size of the block at p as it was asked for; 0 if p is not in the arena (a default value of
 * protobuf-c). */
static size_t arena_block_size(const struct tgp_arena *arena, const void *p)
{
	uintptr_t at = (uintptr_t)p, base = (uintptr_t)arena->buf;
	size_t size;

	if (at < base || at - base >= arena->used)
		return 0;
	memcpy(&size, (const uint8_t *)p - sizeof(size), sizeof(size));
	return size;
}

/* ---- text ---- */

/* Length in bytes of the character at p, which has n bytes: well-formed UTF-8 and not a control
 * character. 0 if it is neither. */
static size_t char_len(const uint8_t *p, size_t n)
{
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	uint32_t code;
	size_t len, i;

	if (p[0] < 0x80)
		return p[0] >= 0x20 && p[0] != 0x7f ? 1 : 0;
	if (p[0] >= 0xc2 && p[0] < 0xe0)
		len = 2;
	else if (p[0] >= 0xe0 && p[0] < 0xf0)
		len = 3;
	else if (p[0] >= 0xf0 && p[0] < 0xf5)
		len = 4;
	else
		return 0;
	if (len > n)
		return 0;
	code = p[0] & (0x7fu >> len);
	for (i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (p[i] & 0x3f);
	}
	if (code < smallest[len] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ||
	    code < 0xa0)
		return 0;
	return len;
}

/* Cuts the string to `max` bytes, at the end of a character, and puts '?' for each byte of it
 * that would be refused: control characters (so, too, line breaks) and broken UTF-8.  For texts
 * made of what others chose. */
void tgp_text_clean(char *text, size_t max)
{
	uint8_t *p = (uint8_t *)text;
	size_t n = strlen(text), i = 0, len;

	while (i < n) {
		len = char_len(p + i, n - i);
		if (len == 0) {
			p[i] = '?';
			len = 1;
		}
		if (i + len > max)
			break;
		i += len;
	}
	p[i] = '\0';
}

/* ---- the checks that every message goes through ---- */

__attribute__((format(printf, 2, 3))) static int refuse(const struct check *c, const char *format,
							...)
{
	va_list args;

	if (c->why_size > 0) {
		va_start(args, format);
		vsnprintf(c->why, c->why_size, format, args);
		va_end(args);
	}
	return -EPROTO;
}

static const struct limit *limit_of(const ProtobufCMessageDescriptor *message,
				    const ProtobufCFieldDescriptor *field)
{
	size_t i;

	for (i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		if (limits[i].message == message && strcmp(limits[i].field, field->name) == 0)
			return &limits[i];
	return field->label != PROTOBUF_C_LABEL_REPEATED && field->type == PROTOBUF_C_TYPE_STRING
		       ? &text_limit
		       : &no_limit;
}

static int check_size(const struct check *c, const ProtobufCMessageDescriptor *message,
		      const ProtobufCFieldDescriptor *field, const struct limit *limit, size_t n,
		      const char *unit)
{
	if (n > limit->max)
		return refuse(c, "%s.%s has %zu %s, more than the limit of %zu",
			      message->short_name, field->name, n, unit, limit->max);
	if (n < limit->min)
		return refuse(c, "%s.%s has %zu %s, fewer than the %zu it must have",
			      message->short_name, field->name, n, unit, limit->min);
	return 0;
}

static int check_string(const struct check *c, const ProtobufCMessageDescriptor *message,
			const ProtobufCFieldDescriptor *field, const struct limit *limit,
			const char *text)
{
	size_t block = arena_block_size(c->arena, text), n = block == 0 ? 0 : block - 1, i, len;
	int r;

	r = check_size(c, message, field, limit, n, "bytes");
	if (r < 0)
		return r;
	for (i = 0; i < n; i += len) {
		len = char_len((const uint8_t *)text + i, n - i);
		if (len == 0)
			return refuse(
				c, "%s.%s has at byte %zu a control character or what is not UTF-8",
				message->short_name, field->name, i);
	}
	return 0;
}

static int check_message(const struct check *c, const ProtobufCMessage *message);

/* One value: a field that is not repeated, or one element of a field that is. */
static int check_value(const struct check *c, const ProtobufCMessageDescriptor *message,
		       const ProtobufCFieldDescriptor *field, const struct limit *limit,
		       const void *value)
{
	const ProtobufCMessage *inner;
	int number;

	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		return check_string(c, message, field, limit, *(char *const *)value);
	case PROTOBUF_C_TYPE_BYTES:
		return check_size(c, message, field, limit,
				  ((const ProtobufCBinaryData *)value)->len, "bytes");
	case PROTOBUF_C_TYPE_ENUM:
		number = *(const int *)value;
		if (protobuf_c_enum_descriptor_get_value(field->descriptor, number) == NULL)
			return refuse(c, "%s.%s is %d, which is not known here",
				      message->short_name, field->name, number);
		return 0;
	case PROTOBUF_C_TYPE_MESSAGE:
		inner = *(ProtobufCMessage *const *)value;
		return inner == NULL ? 0 : check_message(c, inner);
	default:
		return 0; /* numbers: any value that the type can hold */
	}
}

static int check_repeated(const struct check *c, const ProtobufCMessage *message,
			  const ProtobufCFieldDescriptor *field)
{
	const uint8_t *start = (const uint8_t *)message;
	size_t n, i, stride;
	const uint8_t *elements;
	int r;

	memcpy(&n, start + field->quantifier_offset, sizeof(n));
	r = check_size(c, message->descriptor, field, limit_of(message->descriptor, field), n,
		       "elements");
	if (r < 0)
		return r;
	if (field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE)
		stride = sizeof(void *);
	else if (field->type == PROTOBUF_C_TYPE_ENUM)
		stride = sizeof(int);
	else
		return 0;
	memcpy(&elements, start + field->offset, sizeof(elements));
	for (i = 0; i < n; i++) {
		r = check_value(c, message->descriptor, field, &text_limit, elements + i * stride);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Holds all fields of a message, and of those in it, against the limits. */
static int check_message(const struct check *c, const ProtobufCMessage *message)
{
	const ProtobufCMessageDescriptor *d = message->descriptor;
	const uint8_t *start = (const uint8_t *)message;
	unsigned i;
	int r;

	if (message->n_unknown_fields > TGP_UNKNOWN_MAX)
		return refuse(c, "%s has %u unknown fields, more than the limit of %d",
			      d->short_name, message->n_unknown_fields, TGP_UNKNOWN_MAX);
	/* protobuf-c lets number 0 pass if it is written longer than needed. */
	for (i = 0; i < message->n_unknown_fields; i++)
		if (message->unknown_fields[i].tag == 0)
			return refuse(c, "%s has a field with the number 0", d->short_name);
	for (i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &d->fields[i];

		if (field->label == PROTOBUF_C_LABEL_REPEATED) {
			r = check_repeated(c, message, field);
		} else {
			/* The members of a oneof share their place: look at the one that is set. */
			if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
			    *(const uint32_t *)(start + field->quantifier_offset) != field->id)
				continue;
			r = check_value(c, d, field, limit_of(d, field), start + field->offset);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- the rules of single messages ---- */

static int check_get_spans(const struct check *c, const Tgd__GetSpans *m)
{
	size_t i;

	if (m->class_ < TGP_CLASS_MIN || m->class_ > TGP_CLASS_TINY)
		return refuse(c, "GetSpans.class is %u, not in %d..%d", m->class_, TGP_CLASS_MIN,
			      TGP_CLASS_TINY);
	if (m->count < 1 || m->count > TGP_SPANS_MAX)
		return refuse(c, "GetSpans.count is %u, not in 1..%d", m->count, TGP_SPANS_MAX);
	for (i = 0; i < m->n_also; i++) {
		if (m->also[i] < TGP_CLASS_MIN || m->also[i] > TGP_CLASS_TINY)
			return refuse(c, "GetSpans.also is %u, not in %d..%d", m->also[i],
				      TGP_CLASS_MIN, TGP_CLASS_TINY);
	}
	return 0;
}

static int check_get_large(const struct check *c, const Tgd__GetLarge *m)
{
	if (m->n_pages == 0)
		return refuse(c, "GetLarge.n_pages is 0");
	if ((m->align_pages & (m->align_pages - 1)) != 0)
		return refuse(c, "GetLarge.align_pages is %llu, not a power of two",
			      (unsigned long long)m->align_pages);
	if (m->count > TGP_SPANS_MAX)
		return refuse(c, "GetLarge.count is %u, not in 0..%d", m->count, TGP_SPANS_MAX);
	return 0;
}

static int check_request(const struct check *c, const Tgd__Request *request)
{
	if (request->id == 0)
		return refuse(c, "Request.id is 0");
	switch (request->body_case) {
	case TGD__REQUEST__BODY__NOT_SET:
		return refuse(c, "Request has no body that is known here");
	case TGD__REQUEST__BODY_HELLO:
		if (request->hello->version == 0 ||
		    request->hello->min_version > request->hello->version)
			return refuse(c, "Hello offers versions %u to %u",
				      request->hello->min_version, request->hello->version);
		return 0;
	case TGD__REQUEST__BODY_GET_SPANS:
		return check_get_spans(c, request->get_spans);
	case TGD__REQUEST__BODY_GET_LARGE:
		return check_get_large(c, request->get_large);
	case TGD__REQUEST__BODY_RESIZE:
		return request->resize->n_pages == 0 ? refuse(c, "Resize.n_pages is 0") : 0;
	case TGD__REQUEST__BODY_ADMIN:
		return request->admin->what == TGD__ADMIN__WHAT__NOTHING
			       ? refuse(c, "Admin.what is not set")
			       : 0;
	default:
		return 0;
	}
}

static int check_reply(const struct check *c, const Tgd__Reply *reply)
{
	if (reply->error > 0 || reply->error < -ERRNO_MAX)
		return refuse(c, "Reply.error is %d, not 0 or a negative errno value",
			      reply->error);
	if (reply->error == 0 && reply->id == 0)
		return refuse(c, "Reply.id is 0 without an error");
	switch (reply->body_case) {
	case TGD__REPLY__BODY_HELLO:
		return reply->hello->version == 0 ? refuse(c, "HelloReply.version is 0") : 0;
	case TGD__REPLY__BODY_ATTACH:
		return reply->attach->client_id == 0 ? refuse(c, "AttachReply.client_id is 0") : 0;
	case TGD__REPLY__BODY_SLOT:
		return reply->slot->slot == 0 ? refuse(c, "SlotReply.slot is 0") : 0;
	default:
		return 0;
	}
}

/* ---- unpack ---- */

static ProtobufCMessage *unpack(const struct check *c, struct tgp_arena *arena,
				const ProtobufCMessageDescriptor *d, const uint8_t *payload,
				size_t len)
{
	ProtobufCMessage *message;

	if (len == 0 || len > TGP_FRAME_MAX) {
		refuse(c, "message has %zu bytes, not 1 to %d", len, TGP_FRAME_MAX);
		return NULL;
	}
	message = protobuf_c_message_unpack(d, &arena->allocator, len, payload);
	if (message == NULL && arena->used == SIZE_MAX)
		refuse(c, "message needs too much memory");
	else if (message == NULL)
		refuse(c, "message is not a well-formed %s", d->short_name);
	return message;
}

/* Reads the request in `len` bytes of payload; it and all it points to live in the arena, nothing
 * of it in `payload`.  0, or -EPROTO with a sentence (no full stop) in `why`, cut to why_size bytes
 * (0: none wanted); then the arena is as before.  For one thread at a time on one arena. */
int tgp_request_unpack(struct tgp_arena *arena, const uint8_t *payload, size_t len,
		       const Tgd__Request **ret, char *why, size_t why_size)
{
	struct check c = {arena, why, why_size};
	size_t before = arena->used;
	ProtobufCMessage *message = unpack(&c, arena, &tgd__request__descriptor, payload, len);

	if (message == NULL || check_message(&c, message) < 0 ||
	    check_request(&c, (const Tgd__Request *)message) < 0) {
		arena->used = before;
		return -EPROTO;
	}
	*ret = (const Tgd__Request *)message;
	return 0;
}

/* The same for a reply. */
int tgp_reply_unpack(struct tgp_arena *arena, const uint8_t *payload, size_t len,
		     const Tgd__Reply **ret, char *why, size_t why_size)
{
	struct check c = {arena, why, why_size};
	size_t before = arena->used;
	ProtobufCMessage *message = unpack(&c, arena, &tgd__reply__descriptor, payload, len);

	if (message == NULL || check_message(&c, message) < 0 ||
	    check_reply(&c, (const Tgd__Reply *)message) < 0) {
		arena->used = before;
		return -EPROTO;
	}
	*ret = (const Tgd__Reply *)message;
	return 0;
}

/* ---- pack ---- */

static ssize_t pack(const ProtobufCMessage *message, uint8_t *buf, size_t size)
{
	size_t len = protobuf_c_message_get_packed_size(message);

	assert(len > 0); /* a message that says nothing at all has no frame */
	if (len > TGP_FRAME_MAX || size < TGP_FRAME_HEAD || len > size - TGP_FRAME_HEAD)
		return -EMSGSIZE;
	tgp_frame_put_head(buf, (uint32_t)len);
	protobuf_c_message_pack(message, buf + TGP_FRAME_HEAD);
	return (ssize_t)(TGP_FRAME_HEAD + len);
}

/* Packs a frame, head and payload, into buf.  Its bytes, at most TGP_FRAME_HEAD + TGP_FRAME_MAX,
 * or -EMSGSIZE when it has more than that or than `size`; then buf is untouched.  The meaning is
 * not checked: the other side does so.  The id must be set.  Allocates nothing; any thread. */
ssize_t tgp_request_pack(const Tgd__Request *request, uint8_t *buf, size_t size)
{
	return pack(&request->base, buf, size);
}

/* The same for a reply; its id, or its error, must be set. */
ssize_t tgp_reply_pack(const Tgd__Reply *reply, uint8_t *buf, size_t size)
{
	return pack(&reply->base, buf, size);
}
