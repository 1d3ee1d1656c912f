/* test_msg_hostile: what has no meaning, or is sent to do harm, is refused within fixed memory.
 *
 * The messages are written byte by byte.  Each payload is given in a block of exactly its size, and
 * where it matters the arena is one too, so that AddressSanitizer sees a step over either end.
 */
#include "proto/msg.h"

#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/message.h"
#include "tests/support/runner.h"

static uint8_t memory[TGP_UNPACK_MAX];
static struct tgp_arena arena;
static struct tgt_wire wire, inner;
static uint8_t frame[TGP_FRAME_HEAD + TGP_FRAME_MAX];
static char why[512];

static void set_up(void)
{
	tgp_arena_init(&arena, memory, sizeof(memory));
	tgt_fill_reset();
	wire.n = inner.n = 0;
	why[0] = '\0';
}

enum kind { REQUEST, REPLY };

/* Unpacks a copy of the payload that has not a byte more. */
static int unpack(struct tgp_arena *to, enum kind kind, const void *payload, size_t len,
		  const Tgd__Request **ret_request, const Tgd__Reply **ret_reply)
{
	uint8_t *copy = malloc(len > 0 ? len : 1);
	int r;

	memcpy(copy, payload, len);
	if (kind == REQUEST)
		r = tgp_request_unpack(to, copy, len, ret_request, why, sizeof(why));
	else
		r = tgp_reply_unpack(to, copy, len, ret_reply, why, sizeof(why));
	free(copy);
	return r;
}

/* What is in `wire` is refused with a sentence that contains `says`; the arena stays as it was. */
static void expect_refused(enum kind kind, const char *says)
{
	const Tgd__Request *request = NULL;
	const Tgd__Reply *reply = NULL;
	size_t before = arena.used;

	why[0] = '\0';
	CU_ASSERT_EQUAL(unpack(&arena, kind, wire.bytes, wire.n, &request, &reply), -EPROTO);
	CU_ASSERT(request == NULL && reply == NULL);
	CU_ASSERT_EQUAL(arena.used, before);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, says));
	if (strstr(why, says) == NULL)
		printf("\n    said \"%s\" and not \"%s\"\n", why, says);
	wire.n = inner.n = 0;
}

static const Tgd__Request *expect_request(void)
{
	const Tgd__Request *request = NULL;
	int r = unpack(&arena, REQUEST, wire.bytes, wire.n, &request, NULL);

	if (r < 0)
		printf("\n    refused: %s\n", why);
	CU_ASSERT_EQUAL_FATAL(r, 0);
	wire.n = inner.n = 0;
	return request;
}

/* `wire` becomes a message, id 1, whose body is what `inner` holds. */
static void wrap_inner(uint32_t body)
{
	wire.n = 0;
	tgt_wire_number(&wire, 1, 1);
	tgt_wire_message(&wire, body, &inner);
	inner.n = 0;
}

/* ---- meaning ---- */

static void empty_and_oversize_payloads_are_refused(void)
{
	expect_refused(REQUEST, "message has 0 bytes");
	expect_refused(REPLY, "message has 0 bytes");
	wire.n = TGP_FRAME_MAX + 1;
	memset(wire.bytes, 0, wire.n);
	expect_refused(REQUEST, "message has 65537 bytes");
}

static void request_needs_an_id_and_a_body(void)
{
	tgt_wire_message(&wire, TGD__REQUEST__BODY_DETACH, &inner);
	expect_refused(REQUEST, "Request.id is 0");
	tgt_wire_number(&wire, 1, 5);
	expect_refused(REQUEST, "Request has no body");
	/* A body of a newer protocol is none that is known here. */
	inner.n = 0;
	wrap_inner(999);
	expect_refused(REQUEST, "Request has no body");
}

static void numbers_out_of_range_are_refused(void)
{
	static const struct {
		uint32_t body;
		struct {
			uint32_t field;
			uint64_t value;
		} numbers[3];
		const char *says;
	} bad[] = {
		{TGD__REQUEST__BODY_HELLO, {{2, 1}}, "Hello offers versions 1 to 0"},
		{TGD__REQUEST__BODY_HELLO, {{1, 2}, {2, 3}}, "Hello offers versions 3 to 2"},
		{TGD__REQUEST__BODY_GET_SPANS, {{3, 1}}, "GetSpans.class is 0"},
		{TGD__REQUEST__BODY_GET_SPANS, {{2, 1}, {3, 1}}, "GetSpans.class is 1"},
		{TGD__REQUEST__BODY_GET_SPANS, {{2, 69}, {3, 1}}, "GetSpans.class is 69"},
		{TGD__REQUEST__BODY_GET_SPANS, {{2, UINT32_MAX}, {3, 1}}, "GetSpans.class is"},
		{TGD__REQUEST__BODY_GET_SPANS, {{2, 5}}, "GetSpans.count is 0"},
		{TGD__REQUEST__BODY_GET_SPANS, {{2, 5}, {3, 257}}, "GetSpans.count is 257"},
		{TGD__REQUEST__BODY_GET_SPANS, {{2, 5}, {3, 1}, {4, 1}}, "GetSpans.also is 1"},
		{TGD__REQUEST__BODY_GET_SPANS, {{2, 5}, {3, 1}, {4, 69}}, "GetSpans.also is 69"},
		{TGD__REQUEST__BODY_GET_LARGE, {{1, 2}}, "GetLarge.n_pages is 0"},
		{TGD__REQUEST__BODY_GET_LARGE, {{2, 1}, {3, 3}}, "GetLarge.align_pages is 3"},
		{TGD__REQUEST__BODY_GET_LARGE, {{2, 1}, {3, UINT64_MAX}}, "not a power of two"},
		{TGD__REQUEST__BODY_GET_LARGE, {{2, 1}, {4, 257}}, "GetLarge.count is 257"},
		{TGD__REQUEST__BODY_RESIZE, {{2, 7}}, "Resize.n_pages is 0"},
		{TGD__REQUEST__BODY_PUT_SPANS, {{1, 2}}, "PutSpans.pages has 0 elements"},
		{TGD__REQUEST__BODY_ADMIN, {{2, 7}}, "Admin.what is not set"},
		{TGD__REQUEST__BODY_ADMIN, {{1, 99}}, "Admin.what is 99"},
		{TGD__REQUEST__BODY_ADMIN, {{1, UINT64_MAX}}, "Admin.what is -1"},
	};
	size_t i, j;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		for (j = 0; j < 3 && bad[i].numbers[j].field != 0; j++)
			tgt_wire_number(&inner, bad[i].numbers[j].field, bad[i].numbers[j].value);
		wrap_inner(bad[i].body);
		expect_refused(REQUEST, bad[i].says);
	}
}

static void numbers_at_the_edge_are_accepted(void)
{
	static const uint32_t edges[][2] = {{2, 1}, {68, 256}};
	size_t i;

	for (i = 0; i < 2; i++) {
		tgt_wire_number(&inner, 2, edges[i][0]);
		tgt_wire_number(&inner, 3, edges[i][1]);
		wrap_inner(TGD__REQUEST__BODY_GET_SPANS);
		CU_ASSERT_EQUAL(expect_request()->get_spans->class_, edges[i][0]);
	}
	tgt_wire_number(&inner, 2, 1);
	wrap_inner(TGD__REQUEST__BODY_GET_LARGE);
	CU_ASSERT_EQUAL(expect_request()->get_large->align_pages, 0);
}

static void reply_is_checked_too(void)
{
	tgt_wire_message(&wire, 15, &inner);
	expect_refused(REPLY, "Reply.id is 0 without an error");
	tgt_wire_number(&wire, 1, 1);
	tgt_wire_number(&wire, 2, 5);
	expect_refused(REPLY, "Reply.error is 5");
	tgt_wire_number(&wire, 1, 1);
	tgt_wire_number(&wire, 2, (uint64_t)-4096);
	expect_refused(REPLY, "Reply.error is -4096");
	wrap_inner(TGD__REPLY__BODY_HELLO);
	expect_refused(REPLY, "HelloReply.version is 0");
	tgt_wire_bytes(&inner, 6, "0123456789abcdef", 16);
	wrap_inner(TGD__REPLY__BODY_ATTACH);
	expect_refused(REPLY, "AttachReply.client_id is 0");
	wrap_inner(TGD__REPLY__BODY_SLOT);
	expect_refused(REPLY, "SlotReply.slot is 0");
}

static void error_reply_needs_no_id_and_an_empty_one_no_body(void)
{
	const Tgd__Reply *reply = NULL;

	tgt_wire_number(&wire, 2, (uint64_t)-EPROTO);
	CU_ASSERT_EQUAL_FATAL(unpack(&arena, REPLY, wire.bytes, wire.n, NULL, &reply), 0);
	CU_ASSERT(reply->error == -EPROTO && reply->message[0] == '\0');
	wire.n = 0;
	tgt_wire_number(&wire, 1, 9);
	CU_ASSERT_EQUAL_FATAL(unpack(&arena, REPLY, wire.bytes, wire.n, NULL, &reply), 0);
	CU_ASSERT(reply->id == 9 && reply->body_case == TGD__REPLY__BODY__NOT_SET);
}

static void last_of_two_bodies_wins(void)
{
	const Tgd__Request *request;

	tgt_wire_bytes(&inner, 1, "not read", 8);
	wrap_inner(TGD__REQUEST__BODY_ATTACH);
	tgt_wire_number(&inner, 1, 77);
	tgt_wire_message(&wire, TGD__REQUEST__BODY_CLOSE_SLOT, &inner);
	request = expect_request();
	CU_ASSERT_EQUAL_FATAL(request->body_case, TGD__REQUEST__BODY_CLOSE_SLOT);
	CU_ASSERT_EQUAL(request->close_slot->slot, 77);

	/* So it does if it is the same body twice: protobuf-c replaces the one, it does not merge. */
	tgt_wire_number(&inner, 1, 5);
	tgt_wire_number(&inner, 2, 6);
	wrap_inner(TGD__REQUEST__BODY_RESIZE);
	tgt_wire_number(&inner, 2, 7);
	tgt_wire_number(&inner, 3, 8);
	tgt_wire_message(&wire, TGD__REQUEST__BODY_RESIZE, &inner);
	request = expect_request();
	CU_ASSERT(request->resize->slot == 0 && request->resize->page == 7 &&
		  request->resize->n_pages == 8);
}

/* ---- bytes that are no message ---- */

static void broken_encodings_are_refused(void)
{
	static const struct {
		size_t n;
		const char *bytes;
	} bad[] = {
		{1, "\x08"},     /* a number without one */
		{2, "\x08\x80"}, /* one that does not end */
		{12, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"}, /* longer than 64 bits */
		{2, "\x00\x01"},                                          /* field 0 */
		{1, "\x0b"},                                              /* groups */
		{2, "\x0b\x0c"},
		{1, "\x0e"}, /* wire types that are none */
		{1, "\x0f"},
		{5, "\x08\x01\x12\x05\x08"}, /* a body longer than the rest */
		{8, "\x08\x01\x12\xff\xff\xff\xff\x0f"},
		{13, "\x08\x01\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
		{4, "\x08\x01\x10\x01"},                 /* a body that is a number */
		{6, "\x08\x01\x3a\x02\x12\x05"},         /* packed pages: longer than the rest, */
		{8, "\x08\x01\x3a\x04\x12\x02\x01\x80"}, /* and a last one that does not end */
		{3, "\xff\xff\xff"},
	};
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		memcpy(wire.bytes, bad[i].bytes, bad[i].n);
		wire.n = bad[i].n;
		expect_refused(REQUEST, "");
		CU_ASSERT(why[0] != '\0');
	}
	/* Field number 0 in a tag that is longer than needed. */
	wrap_inner(TGD__REQUEST__BODY_DETACH);
	memcpy(wire.bytes + wire.n, "\x80\x80\x00\x00", 4);
	wire.n += 4;
	expect_refused(REQUEST, "Request has a field with the number 0");
}

/* A body's length stands before it, so any cut within it is seen. */
static void message_cut_short_anywhere_is_refused(void)
{
	struct tgt_fill fill = {3, NULL, NULL};
	uint32_t body;

	for (body = TGD__REQUEST__BODY_HELLO; body <= TGD__REQUEST__BODY_ADMIN; body++) {
		size_t n, cut;

		tgt_fill_reset();
		n = (size_t)tgp_request_pack(tgt_fill_request(body, &fill), frame, sizeof(frame)) -
		    TGP_FRAME_HEAD;
		for (cut = 0; cut < n; cut++) {
			memcpy(wire.bytes, frame + TGP_FRAME_HEAD, cut);
			wire.n = cut;
			expect_refused(REQUEST, "");
		}
	}
}

/* ---- amplification ---- */

static void wire_unknown(struct tgt_wire *to, int n)
{
	while (n-- > 0)
		tgt_wire_number(to, 1000, 1);
}

static void few_unknown_fields_pass_and_more_do_not_at_any_level(void)
{
	wrap_inner(TGD__REQUEST__BODY_DETACH);
	wire_unknown(&wire, TGP_UNKNOWN_MAX);
	CU_ASSERT_EQUAL(expect_request()->base.n_unknown_fields, TGP_UNKNOWN_MAX);
	wrap_inner(TGD__REQUEST__BODY_DETACH);
	wire_unknown(&wire, TGP_UNKNOWN_MAX + 1);
	expect_refused(REQUEST, "Request has 9 unknown fields");

	wire_unknown(&inner, TGP_UNKNOWN_MAX + 1);
	wrap_inner(TGD__REQUEST__BODY_DETACH);
	expect_refused(REQUEST, "Detach has 9 unknown fields");

	wire_unknown(&inner, TGP_UNKNOWN_MAX + 1);
	wire = inner;
	inner.n = 0;
	tgt_wire_message(&inner, 1, &wire);
	wrap_inner(TGD__REPLY__BODY_SPANS);
	expect_refused(REPLY, "SpanGrant has 9 unknown fields");
}

static void frame_full_of_empty_messages_is_refused(void)
{
	static const uint32_t lists[][2] = {
		{TGD__REPLY__BODY_SPANS, 1}, {TGD__REPLY__BODY_CLIENTS, 1},
		{TGD__REPLY__BODY_MAP, 3},   {TGD__REPLY__BODY_CHECK, 2},
		{TGD__REPLY__BODY_ROOTS, 1},
	};
	size_t i;

	for (i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		while (inner.n < TGP_FRAME_MAX - 16)
			tgt_wire_bytes(&inner, lists[i][1], "", 0);
		wrap_inner(lists[i][0]);
		expect_refused(REPLY, "message needs too much memory");
	}
}

static void frame_full_of_unknown_fields_is_refused(void)
{
	wrap_inner(TGD__REQUEST__BODY_DETACH);
	while (wire.n < TGP_FRAME_MAX - 16)
		tgt_wire_number(&wire, 15, 0);
	expect_refused(REQUEST, "message needs too much memory");
	while (inner.n < TGP_FRAME_MAX - 16)
		tgt_wire_number(&inner, 15, 0);
	wrap_inner(TGD__REQUEST__BODY_DETACH);
	expect_refused(REQUEST, "message needs too much memory");
}

/* The bodies that another one replaces still have their memory in the arena. */
static void frame_full_of_one_body_again_and_again_is_refused(void)
{
	tgt_wire_bytes(&inner, 2, "\x01", 1);
	wrap_inner(TGD__REQUEST__BODY_PUT_SPANS);
	tgt_wire_bytes(&inner, 2, "\x01", 1);
	while (wire.n < TGP_FRAME_MAX - 16)
		tgt_wire_message(&wire, TGD__REQUEST__BODY_PUT_SPANS, &inner);
	expect_refused(REQUEST, "message needs too much memory");
}

/* ---- memory ---- */

/* In an arena of any size, from none to enough: refused for want of memory, then accepted, and no
 * byte outside is touched. */
static void arena_too_small_is_refused_at_every_size(void)
{
	struct tgt_fill fill = {7, NULL, NULL};
	uint32_t body;

	for (body = TGD__REPLY__BODY_HELLO; body <= TGD__REPLY__BODY_TRIMMED; body++) {
		const Tgd__Reply *reply;
		size_t n, enough, size;

		set_up();
		n = (size_t)tgp_reply_pack(tgt_fill_reply(body, &fill), frame, sizeof(frame));
		n -= TGP_FRAME_HEAD;
		CU_ASSERT_EQUAL_FATAL(
			unpack(&arena, REPLY, frame + TGP_FRAME_HEAD, n, NULL, &reply), 0);
		enough = arena.used;
		for (size = 0; size <= enough; size += 1 + size / 64) {
			struct tgp_arena small;
			uint8_t *exact = malloc(size > 0 ? size : 1);
			int r;

			tgp_arena_init(&small, exact, size);
			r = unpack(&small, REPLY, frame + TGP_FRAME_HEAD, n, NULL, &reply);
			/* malloc's alignment may differ from that of `memory` by 8. */
			CU_ASSERT(r == -EPROTO || size + 8 >= enough);
			if (r < 0) {
				CU_ASSERT_STRING_EQUAL(why, "message needs too much memory");
				CU_ASSERT_EQUAL(small.used, 0);
			}
			free(exact);
		}
	}
}

static void messages_in_one_arena_stay_apart_until_the_reset(void)
{
	const Tgd__Request *first, *second;
	size_t shift;

	for (shift = 0; shift < 16; shift++) {
		tgp_arena_init(&arena, memory + shift, sizeof(memory) - shift);
		tgt_wire_bytes(&inner, 1, "first", 5);
		wrap_inner(TGD__REQUEST__BODY_ROOT_SET);
		first = expect_request();
		CU_ASSERT_EQUAL((uintptr_t)first % _Alignof(Tgd__Request), 0);
		tgt_wire_bytes(&inner, 1, "second\n", 7);
		wrap_inner(TGD__REQUEST__BODY_ROOT_SET);
		expect_refused(REQUEST, "RootSet.name");
		tgt_wire_bytes(&inner, 1, "second", 6);
		wrap_inner(TGD__REQUEST__BODY_ROOT_SET);
		second = expect_request();
		CU_ASSERT_STRING_EQUAL(first->root_set->name, "first");
		CU_ASSERT_STRING_EQUAL(second->root_set->name, "second");
		tgp_arena_reset(&arena);
		CU_ASSERT_EQUAL(arena.used, 0);
	}
}

static void sentence_is_cut_to_the_room_for_it(void)
{
	const Tgd__Request *request;
	char small[8] = "unchang";

	CU_ASSERT_EQUAL(tgp_request_unpack(&arena, frame, 0, &request, NULL, 0), -EPROTO);
	CU_ASSERT_EQUAL(tgp_request_unpack(&arena, frame, 0, &request, small, 0), -EPROTO);
	CU_ASSERT_STRING_EQUAL(small, "unchang");
	CU_ASSERT_EQUAL(tgp_request_unpack(&arena, frame, 0, &request, small, 5), -EPROTO);
	CU_ASSERT_STRING_EQUAL(small, "mess");
}

static CU_TestInfo meaning_tests[] = {
	{"empty and oversize payloads are refused", empty_and_oversize_payloads_are_refused},
	{"a request needs an id and a body", request_needs_an_id_and_a_body},
	{"numbers out of range are refused", numbers_out_of_range_are_refused},
	{"numbers at the edge are accepted", numbers_at_the_edge_are_accepted},
	{"a reply is checked too", reply_is_checked_too},
	{"an error reply needs no id, and an empty one no body",
	 error_reply_needs_no_id_and_an_empty_one_no_body},
	{"the last of two bodies wins", last_of_two_bodies_wins},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo encoding_tests[] = {
	{"broken encodings are refused", broken_encodings_are_refused},
	{"a message cut short anywhere is refused", message_cut_short_anywhere_is_refused},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo memory_tests[] = {
	{"a few unknown fields pass and more do not, at any level",
	 few_unknown_fields_pass_and_more_do_not_at_any_level},
	{"a frame full of empty messages is refused", frame_full_of_empty_messages_is_refused},
	{"a frame full of unknown fields is refused", frame_full_of_unknown_fields_is_refused},
	{"a frame full of one body again and again is refused",
	 frame_full_of_one_body_again_and_again_is_refused},
	{"an arena too small is refused, at every size", arena_too_small_is_refused_at_every_size},
	{"messages in one arena stay apart until the reset",
	 messages_in_one_arena_stay_apart_until_the_reset},
	{"the sentence is cut to the room for it", sentence_is_cut_to_the_room_for_it},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"meaning", NULL, NULL, set_up, NULL, meaning_tests},
	{"encoding", NULL, NULL, set_up, NULL, encoding_tests},
	{"memory", NULL, NULL, set_up, NULL, memory_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("msg_hostile", suites);
}
