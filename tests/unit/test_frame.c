/* test_frame: frames come out of a stream whole, in order, at every split, or not at all.
 *
 * The stream has frames of lengths around every border of the head's bytes.  Each input is in a
 * block of exactly its size, so that AddressSanitizer sees a read past what has arrived.
 */
#include "proto/frame.h"

#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/runner.h"

/* tgp_frame_next on a copy that has not a byte more than n; the payload is given as its offset. */
static int next_in_exact_copy(const uint8_t *bytes, size_t n, size_t *ret_offset, size_t *ret_len)
{
	uint8_t *copy = malloc(n > 0 ? n : 1);
	const uint8_t *payload = NULL;
	int r;

	memcpy(copy, bytes, n);
	r = tgp_frame_next(copy, n, &payload, ret_len);
	if (r == 1)
		*ret_offset = (size_t)(payload - copy);
	free(copy);
	return r;
}

static void length_is_little_endian(void)
{
	uint8_t head[TGP_FRAME_HEAD];

	tgp_frame_put_head(head, 1);
	CU_ASSERT_EQUAL(memcmp(head, "\x01\x00\x00\x00", 4), 0);
	tgp_frame_put_head(head, 0x1234);
	CU_ASSERT_EQUAL(memcmp(head, "\x34\x12\x00\x00", 4), 0);
	tgp_frame_put_head(head, TGP_FRAME_MAX);
	CU_ASSERT_EQUAL(memcmp(head, "\x00\x00\x01\x00", 4), 0);
}

static void needs_the_whole_head_and_payload(void)
{
	static const uint8_t frame[] = {3, 0, 0, 0, 'a', 'b', 'c', 'x'};
	size_t n, offset, len;

	for (n = 0; n < 7; n++) {
		offset = len = 99;
		CU_ASSERT_EQUAL(next_in_exact_copy(frame, n, &offset, &len), 0);
		CU_ASSERT(offset == 99 && len == 99);
	}
	for (; n <= sizeof(frame); n++) {
		CU_ASSERT_EQUAL(next_in_exact_copy(frame, n, &offset, &len), 1);
		CU_ASSERT(offset == TGP_FRAME_HEAD && len == 3);
	}
	CU_ASSERT_EQUAL(tgp_frame_next(NULL, 0, NULL, NULL), 0);
}

static void length_zero_and_over_the_cap_are_refused_by_the_head_alone(void)
{
	static const uint8_t bad[][TGP_FRAME_HEAD] = {
		{0, 0, 0, 0},         {1, 0, 1, 0},    {0, 0, 2, 0},
		{0, 0, 0, 1},         {0, 0, 0, 0x80}, {0xff, 0xff, 0xff, 0xff},
		{'G', 'E', 'T', ' '},
	};
	size_t i, offset, len;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CU_ASSERT_EQUAL(next_in_exact_copy(bad[i], 3, &offset, &len), 0);
		offset = len = 99;
		CU_ASSERT_EQUAL(next_in_exact_copy(bad[i], 4, &offset, &len), -EPROTO);
		CU_ASSERT(offset == 99 && len == 99);
	}
}

static void largest_frame_is_taken(void)
{
	uint8_t *frame = calloc(1, TGP_FRAME_HEAD + TGP_FRAME_MAX);
	const uint8_t *payload;
	size_t len = 0;

	tgp_frame_put_head(frame, TGP_FRAME_MAX);
	CU_ASSERT_EQUAL(tgp_frame_next(frame, TGP_FRAME_HEAD + TGP_FRAME_MAX - 1, &payload, &len),
			0);
	CU_ASSERT_EQUAL(tgp_frame_next(frame, TGP_FRAME_HEAD + TGP_FRAME_MAX, &payload, &len), 1);
	CU_ASSERT(payload == frame + TGP_FRAME_HEAD && len == TGP_FRAME_MAX);
	free(frame);
}

/* ---- streams ---- */

static const size_t lengths[] = {1, 2, 3, 4, 5, 255, 256, 257};
#define N_FRAMES (sizeof(lengths) / sizeof(lengths[0]))

static uint8_t stream[2048];
static size_t stream_len;

static void make_stream(void)
{
	size_t i;

	stream_len = 0;
	for (i = 0; i < N_FRAMES; i++) {
		tgp_frame_put_head(stream + stream_len, (uint32_t)lengths[i]);
		memset(stream + stream_len + TGP_FRAME_HEAD, (int)i, lengths[i]);
		stream_len += TGP_FRAME_HEAD + lengths[i];
	}
}

/* Takes the frames that lie whole in stream[*at..arrived) and checks that each is the next one. */
static void drain(size_t arrived, size_t *at, size_t *n_seen)
{
	size_t offset, len, i;

	while (next_in_exact_copy(stream + *at, arrived - *at, &offset, &len) == 1) {
		CU_ASSERT_FATAL(*n_seen < N_FRAMES);
		CU_ASSERT_EQUAL(len, lengths[*n_seen]);
		for (i = 0; i < len && stream[*at + offset + i] == *n_seen; i++)
			;
		CU_ASSERT_EQUAL(i, len);
		*at += TGP_FRAME_HEAD + len;
		(*n_seen)++;
	}
}

static void frames_come_out_of_a_stream_of_single_bytes(void)
{
	size_t at = 0, n_seen = 0, arrived;

	for (arrived = 0; arrived <= stream_len; arrived++)
		drain(arrived, &at, &n_seen);
	CU_ASSERT_EQUAL(n_seen, N_FRAMES);
	CU_ASSERT_EQUAL(at, stream_len);
}

static void frames_come_out_of_a_stream_torn_at_any_point(void)
{
	size_t split;

	for (split = 0; split <= stream_len; split++) {
		size_t at = 0, n_seen = 0;

		drain(split, &at, &n_seen);
		drain(stream_len, &at, &n_seen);
		CU_ASSERT_EQUAL(n_seen, N_FRAMES);
		CU_ASSERT_EQUAL(at, stream_len);
	}
}

static CU_TestInfo head_tests[] = {
	{"the length is little-endian", length_is_little_endian},
	{"a frame needs its whole head and payload", needs_the_whole_head_and_payload},
	{"length 0 and over the cap are refused by the head alone",
	 length_zero_and_over_the_cap_are_refused_by_the_head_alone},
	{"the largest frame is taken", largest_frame_is_taken},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo stream_tests[] = {
	{"frames come out of a stream of single bytes",
	 frames_come_out_of_a_stream_of_single_bytes},
	{"frames come out of a stream torn at any point",
	 frames_come_out_of_a_stream_torn_at_any_point},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"head", NULL, NULL, NULL, NULL, head_tests},
	{"stream", NULL, NULL, make_stream, NULL, stream_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("frame", suites);
}
