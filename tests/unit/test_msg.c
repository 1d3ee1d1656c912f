/* test_msg: what is within the limits goes over the wire and back; what is not is refused.
 *
 * Most tests go through all messages by their descriptors (tests/support/message.h), so a new field
 * is tried without a word here.  What a correct sender cannot produce is written byte by byte.
 */
#include "proto/msg.h"

#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/message.h"
#include "tests/support/runner.h"

static const struct tgt_fill largest = {0, NULL, NULL};
static uint8_t memory[TGP_UNPACK_MAX];
static struct tgp_arena arena;
static struct tgt_wire wire, inner;
static uint8_t frame[TGP_FRAME_HEAD + TGP_FRAME_MAX], again[TGP_FRAME_HEAD + TGP_FRAME_MAX];
static char why[512];

static void set_up(void)
{
	tgp_arena_init(&arena, memory, sizeof(memory));
	tgt_fill_reset();
	wire.n = inner.n = 0;
	why[0] = '\0';
}

static const ProtobufCMessageDescriptor *const kinds[] = {
	&tgd__request__descriptor,
	&tgd__reply__descriptor,
};

/* Calls visit for every body of requests and of replies; returns how many there are. */
static int for_each_body(void (*visit)(const ProtobufCMessageDescriptor *,
				       const ProtobufCFieldDescriptor *))
{
	unsigned kind, i;
	int n = 0;

	for (kind = 0; kind < 2; kind++) {
		for (i = 0; i < kinds[kind]->n_fields; i++) {
			const ProtobufCFieldDescriptor *field = &kinds[kind]->fields[i];

			if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0)
				continue;
			tgt_fill_reset();
			tgp_arena_reset(&arena);
			visit(kinds[kind], field);
			n++;
		}
	}
	return n;
}

static ssize_t pack_filled(const ProtobufCMessageDescriptor *kind, uint32_t body,
			   const struct tgt_fill *fill)
{
	return kind == &tgd__request__descriptor
		       ? tgp_request_pack(tgt_fill_request(body, fill), frame, sizeof(frame))
		       : tgp_reply_pack(tgt_fill_reply(body, fill), frame, sizeof(frame));
}

/* Unpacks a payload of either kind. */
static int unpack(const ProtobufCMessageDescriptor *kind, const uint8_t *payload, size_t len,
		  const ProtobufCMessage **ret)
{
	const Tgd__Request *request = NULL;
	const Tgd__Reply *reply = NULL;
	int r;

	if (kind == &tgd__request__descriptor) {
		r = tgp_request_unpack(&arena, payload, len, &request, why, sizeof(why));
		*ret = (const ProtobufCMessage *)request;
	} else {
		r = tgp_reply_unpack(&arena, payload, len, &reply, why, sizeof(why));
		*ret = (const ProtobufCMessage *)reply;
	}
	return r;
}

/* What is in `wire` is refused, for a reason that contains `says`; the arena stays as it was. */
static void expect_refused(const ProtobufCMessageDescriptor *kind, const char *says)
{
	const ProtobufCMessage *message;
	size_t before = arena.used;

	why[0] = '\0';
	CU_ASSERT_EQUAL(unpack(kind, wire.bytes, wire.n, &message), -EPROTO);
	CU_ASSERT_PTR_NULL(message);
	CU_ASSERT_EQUAL(arena.used, before);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, says));
	if (strstr(why, says) == NULL)
		printf("\n    said \"%s\" and not \"%s\"\n", why, says);
	wire.n = inner.n = 0;
}

static void expect_accepted(const ProtobufCMessageDescriptor *kind)
{
	const ProtobufCMessage *message;
	int r = unpack(kind, wire.bytes, wire.n, &message);

	CU_ASSERT_EQUAL(r, 0);
	if (r < 0)
		printf("\n    refused: %s\n", why);
	wire.n = inner.n = 0;
}

/* `wire` becomes a request, id 1, whose body is what `inner` holds. */
static void wrap_inner(uint32_t body)
{
	wire.n = 0;
	tgt_wire_number(&wire, 1, 1);
	tgt_wire_message(&wire, body, &inner);
}

/* ---- round trips ---- */

static void round_trip(const ProtobufCMessageDescriptor *kind, const ProtobufCFieldDescriptor *body,
		       const struct tgt_fill *fill)
{
	const ProtobufCMessage *message;
	const uint8_t *payload;
	ssize_t n, m;
	size_t len;
	int r;

	n = pack_filled(kind, body->id, fill);
	CU_ASSERT_FATAL(n > 0);
	CU_ASSERT_EQUAL_FATAL(tgp_frame_next(frame, (size_t)n, &payload, &len), 1);
	CU_ASSERT_EQUAL(TGP_FRAME_HEAD + len, (size_t)n);
	r = unpack(kind, payload, len, &message);
	if (r < 0)
		printf("\n    %s: %s\n", body->name, why);
	CU_ASSERT_EQUAL_FATAL(r, 0);
	m = kind == &tgd__request__descriptor
		    ? tgp_request_pack((const Tgd__Request *)message, again, sizeof(again))
		    : tgp_reply_pack((const Tgd__Reply *)message, again, sizeof(again));
	CU_ASSERT_EQUAL(m, n);
	CU_ASSERT_EQUAL(memcmp(frame, again, (size_t)n), 0);
}

static void round_trip_largest(const ProtobufCMessageDescriptor *kind,
			       const ProtobufCFieldDescriptor *body)
{
	round_trip(kind, body, &largest);
}

static void largest_of_every_message_fits_and_comes_back(void)
{
	CU_ASSERT_EQUAL(for_each_body(round_trip_largest), 13 + 13);
}

static void round_trip_random(const ProtobufCMessageDescriptor *kind,
			      const ProtobufCFieldDescriptor *body)
{
	struct tgt_fill fill = {1, NULL, NULL};

	for (; fill.seed <= 50; fill.seed++) {
		tgt_fill_reset();
		tgp_arena_reset(&arena);
		round_trip(kind, body, &fill);
	}
}

static void random_messages_come_back(void)
{
	CU_ASSERT_EQUAL(for_each_body(round_trip_random), 13 + 13);
}

/* The bytes themselves, so that no number of tgd.proto changes its meaning unseen. */
static void bytes_on_the_wire_are_these(void)
{
	static const uint8_t request_bytes[] = {10, 0, 0, 0,  0x08, 1,    0x32,
						6,  8, 2, 16, 5,    0x18, 3};
	static const uint8_t reply_bytes[] = {
		29,   0,    0,    0,                                  /* head */
		0x08, 7,                                              /* Reply.id */
		0x2a, 25,                                             /* Reply.attach */
		0x08, 5,                                              /* client_id */
		0x20, 0x80, 0x80, 0x80, 2,                            /* heap_bytes */
		0x32, 16,   'a',  'b',  'c', 'd', 'e', 'f', 'g', 'h', /* heap_uuid */
		'i',  'j',  'k',  'l',  'm', 'n', 'o', 'p',
	};
	static uint8_t uuid[] = "abcdefghijklmnop";
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__GetSpans get = TGD__GET_SPANS__INIT;
	Tgd__Reply reply = TGD__REPLY__INIT;
	Tgd__AttachReply attach = TGD__ATTACH_REPLY__INIT;
	const Tgd__Request *read;

	get.slot = 2;
	get.class_ = 5;
	get.count = 3;
	request.id = 1;
	request.body_case = TGD__REQUEST__BODY_GET_SPANS;
	request.get_spans = &get;
	CU_ASSERT_EQUAL(tgp_request_pack(&request, frame, sizeof(frame)), sizeof(request_bytes));
	CU_ASSERT_EQUAL(memcmp(frame, request_bytes, sizeof(request_bytes)), 0);
	CU_ASSERT_EQUAL_FATAL(tgp_request_unpack(&arena, request_bytes + 4, 10, &read, NULL, 0), 0);
	CU_ASSERT_EQUAL(read->id, 1);
	CU_ASSERT_EQUAL_FATAL(read->body_case, TGD__REQUEST__BODY_GET_SPANS);
	CU_ASSERT(read->get_spans->slot == 2 && read->get_spans->class_ == 5 &&
		  read->get_spans->count == 3);

	attach.client_id = 5;
	attach.heap_uuid = (ProtobufCBinaryData){16, uuid};
	attach.heap_bytes = 4 << 20;
	reply.id = 7;
	reply.body_case = TGD__REPLY__BODY_ATTACH;
	reply.attach = &attach;
	CU_ASSERT_EQUAL(tgp_reply_pack(&reply, frame, sizeof(frame)), sizeof(reply_bytes));
	CU_ASSERT_EQUAL(memcmp(frame, reply_bytes, sizeof(reply_bytes)), 0);
}

/* ---- packing ---- */

static void frame_that_does_not_fit_is_not_begun(void)
{
	ssize_t n = pack_filled(kinds[0], TGD__REQUEST__BODY_ATTACH, &largest), i;
	const Tgd__Request *request = tgt_fill_request(TGD__REQUEST__BODY_ATTACH, &largest);
	uint8_t *exact = malloc((size_t)n);

	CU_ASSERT_FATAL(n > 0);
	for (i = 0; i < n; i++) {
		memset(again, 0xee, (size_t)n);
		CU_ASSERT_EQUAL(tgp_request_pack(request, again, (size_t)i), -EMSGSIZE);
		CU_ASSERT(again[0] == 0xee && memcmp(again, again + 1, (size_t)n - 1) == 0);
	}
	CU_ASSERT_EQUAL(tgp_request_pack(request, exact, (size_t)n), n);
	free(exact);
}

static void message_over_the_cap_is_not_packed(void)
{
	static uint8_t buf[2 * TGP_FRAME_MAX], bytes[TGP_FRAME_MAX];
	Tgd__AttachReply attach = TGD__ATTACH_REPLY__INIT;
	Tgd__Reply reply = TGD__REPLY__INIT;

	reply.id = 1;
	reply.body_case = TGD__REPLY__BODY_ATTACH;
	reply.attach = &attach;
	attach.heap_uuid.data = bytes;
	/* id 2, tag 1, length 3; tag 1, length 3: 10 bytes round the bytes */
	attach.heap_uuid.len = TGP_FRAME_MAX - 10;
	CU_ASSERT_EQUAL(tgp_reply_pack(&reply, buf, sizeof(buf)), TGP_FRAME_HEAD + TGP_FRAME_MAX);
	attach.heap_uuid.len++;
	CU_ASSERT_EQUAL(tgp_reply_pack(&reply, buf, sizeof(buf)), -EMSGSIZE);
}

/* ---- limits ---- */

/* Every string, bytes and repeated field of the message, and of those in it, one over its limit,
 * and one under what it must have. */
static const ProtobufCMessageDescriptor *limits_kind;
static uint32_t limits_body;
static int n_limits;

static void try_limit(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *field)
{
	struct tgt_fill fill = {0, NULL, NULL};
	char name[128];
	size_t min, max;
	int side;

	snprintf(name, sizeof(name), "%s.%s", d->short_name, field->name);
	tgt_limits_of(d, field, &min, &max);
	for (side = 0; side < (min > 0 ? 2 : 1); side++) {
		ssize_t n;

		fill.more_of = side == 0 ? name : NULL;
		fill.less_of = side == 1 ? name : NULL;
		tgt_fill_reset();
		n = pack_filled(limits_kind, limits_body, &fill);
		CU_ASSERT_FATAL(n > 0);
		wire.n = (size_t)n - TGP_FRAME_HEAD;
		memcpy(wire.bytes, frame + TGP_FRAME_HEAD, wire.n);
		expect_refused(limits_kind, name);
		CU_ASSERT_PTR_NOT_NULL(strstr(why, side == 0 ? "limit" : "must have"));
		n_limits++;
	}
}

static void try_limits_in(const ProtobufCMessageDescriptor *d)
{
	unsigned i;

	for (i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &d->fields[i];

		if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0)
			continue;
		if (field->label == PROTOBUF_C_LABEL_REPEATED ||
		    field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_BYTES)
			try_limit(d, field);
		if (field->type == PROTOBUF_C_TYPE_MESSAGE)
			try_limits_in(field->descriptor);
	}
}

static void try_limits_of_body(const ProtobufCMessageDescriptor *kind,
			       const ProtobufCFieldDescriptor *body)
{
	limits_kind = kind;
	limits_body = body->id;
	try_limits_in(body->descriptor);
	if (body->id == TGD__REPLY__BODY_HELLO)
		try_limits_in(kind); /* Reply.message */
}

static void one_over_any_limit_is_refused_and_named(void)
{
	n_limits = 0;
	for_each_body(try_limits_of_body);
	/* In the protocol as it is: 10 strings, 9 lists, 1 of bytes; 5 of them have a least size. */
	CU_ASSERT(n_limits >= 25);
}

static void string_of_a_list_has_a_limit_too(void)
{
	static const char text[256] = {[0 ... 255] = 'e'};

	tgt_wire_bytes(&inner, 2, text, 255);
	tgt_wire_number(&wire, 1, 1);
	tgt_wire_message(&wire, 14, &inner);
	expect_accepted(kinds[1]);
	tgt_wire_bytes(&inner, 2, text, 256);
	tgt_wire_number(&wire, 1, 1);
	tgt_wire_message(&wire, 14, &inner);
	expect_refused(kinds[1], "Check.errors has 256 bytes, more than the limit of 255");
}

/* ---- strings ---- */

/* A RootSet whose name is these bytes is what `wire` becomes. */
static void wire_root_set(const void *name, size_t n)
{
	inner.n = 0;
	tgt_wire_bytes(&inner, 1, name, n);
	wrap_inner(TGD__REQUEST__BODY_ROOT_SET);
}

#define BYTES(literal)                       \
	{                                    \
		literal, sizeof(literal) - 1 \
	}
struct bytes {
	const char *bytes;
	size_t n;
};

static void text_that_is_not_plain_utf8_is_refused(void)
{
	static const struct bytes bad[] = {
		BYTES("\0"),   /* NUL alone, */
		BYTES("a\0b"), /* inside, */
		BYTES("ab\0"), /* at the end */
		BYTES("a\nb"), /* control characters */
		BYTES("\x1b[31m"),
		BYTES("\x7f"),
		BYTES("\xc2\x80"), /* and those of the second block */
		BYTES("\xc2\x9f"),
		BYTES("\x80"), /* a continuation alone */
		BYTES("\xc3"), /* cut short */
		BYTES("\xc3("),
		BYTES("\xe2\x82"),
		BYTES("\xe2\x28\xa1"),
		BYTES("\xf0\x9f\x98"),
		BYTES("\xf0\x9f\x28\x80"),
		BYTES("\xc0\xaf"), /* longer than needed */
		BYTES("\xc1\xbf"),
		BYTES("\xe0\x80\xaf"),
		BYTES("\xe0\x9f\xbf"),
		BYTES("\xf0\x8f\xbf\xbf"),
		BYTES("\xed\xa0\x80"), /* surrogates */
		BYTES("\xed\xbf\xbf"),
		BYTES("\xf4\x90\x80\x80"), /* past the last character */
		BYTES("\xf5\x80\x80\x80"),
		BYTES("\xfe"),
		BYTES("\xff\xff"),
	};
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		wire_root_set(bad[i].bytes, bad[i].n);
		expect_refused(kinds[0], "RootSet.name has at byte");
	}
	wire_root_set("good\0bad", 8);
	expect_refused(kinds[0], "RootSet.name has at byte 4 ");
	tgt_wire_bytes(&inner, 2, "a\0b", 3);
	tgt_wire_number(&wire, 1, 1);
	tgt_wire_message(&wire, 14, &inner);
	expect_refused(kinds[1], "Check.errors has at byte 1 ");
}

static void plain_utf8_is_accepted(void)
{
	static const struct bytes good[] = {
		BYTES(" "),
		BYTES("~"),
		BYTES("\xc2\xa0"),
		BYTES("\xdf\xbf"),
		BYTES("\xe0\xa0\x80"),
		BYTES("\xed\x9f\xbf"),
		BYTES("\xee\x80\x80"),
		BYTES("\xef\xbf\xbf"),
		BYTES("\xf0\x90\x80\x80"),
		BYTES("\xf4\x8f\xbf\xbf"),
		BYTES("sch\xc3\xb6n \xe2\x82\xac \xf0\x9f\x98\x80"),
	};
	const Tgd__Request *request;
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		tgp_arena_reset(&arena);
		wire_root_set(good[i].bytes, good[i].n);
		CU_ASSERT_EQUAL_FATAL(
			tgp_request_unpack(&arena, wire.bytes, wire.n, &request, why, sizeof(why)),
			0);
		CU_ASSERT_STRING_EQUAL(request->root_set->name, good[i].bytes);
	}
}

static void expect_clean(const char *text, size_t max, const char *clean)
{
	size_t n = strlen(text) + 1;
	char *copy = malloc(n);

	memcpy(copy, text, n);
	tgp_text_clean(copy, max);
	CU_ASSERT_STRING_EQUAL(copy, clean);
	free(copy);
}

static void text_made_clean_is_accepted(void)
{
	expect_clean("", 0, "");
	expect_clean("", 5, "");
	expect_clean("abc", 0, "");
	expect_clean("abc", 2, "ab");
	expect_clean("abc", 3, "abc");
	expect_clean("abc", 4, "abc");
	expect_clean("a\nb\tc\x7f", 99, "a?b?c?");
	expect_clean("\xc3\xb6\xc3", 99, "\xc3\xb6?");
	expect_clean("\xe2\x82", 99, "??");
	expect_clean("1\xe2\x82\xac", 3, "1"); /* not half a character */
	expect_clean("1\xe2\x82\xac", 4, "1\xe2\x82\xac");
	expect_clean("\xc2\x9bx", 99, "??x");
}

static CU_TestInfo trip_tests[] = {
	{"the largest of every message fits and comes back",
	 largest_of_every_message_fits_and_comes_back},
	{"random messages come back", random_messages_come_back},
	{"the bytes on the wire are these", bytes_on_the_wire_are_these},
	{"a frame that does not fit is not begun", frame_that_does_not_fit_is_not_begun},
	{"a message over the cap is not packed", message_over_the_cap_is_not_packed},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo limit_tests[] = {
	{"one over any limit is refused and named", one_over_any_limit_is_refused_and_named},
	{"a string of a list has a limit too", string_of_a_list_has_a_limit_too},
	{"text that is not plain UTF-8 is refused", text_that_is_not_plain_utf8_is_refused},
	{"plain UTF-8 is accepted", plain_utf8_is_accepted},
	{"text made clean is accepted", text_made_clean_is_accepted},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"round trips", NULL, NULL, set_up, NULL, trip_tests},
	{"limits", NULL, NULL, set_up, NULL, limit_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("msg", suites);
}
