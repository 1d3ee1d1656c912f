/* frame.c - cuts a stream of bytes into frames.
 *
 * A stream socket keeps no message boundaries, so each message has its length in front.  This file
 * keeps no state and touches no socket: the caller owns the bytes received so far, asks whether a
 * frame lies at their start, uses it, drops TGP_FRAME_HEAD + length bytes and asks again.
 * A head that can never become a frame is refused as soon as its four bytes are there, before
 * anybody makes room for the payload.  Length 0 is refused too: no message of ours packs to
 * nothing, so it can only come from a peer that is out of step.
 */
#include "proto/frame.h"

#include <assert.h>
#include <errno.h>

/* Safe from any thread; no errors.  A length out of range is a bug of the caller. */
void tgp_frame_put_head(uint8_t head[TGP_FRAME_HEAD], uint32_t len)
{
	assert(len > 0 && len <= TGP_FRAME_MAX);
	head[0] = (uint8_t)len;
	head[1] = (uint8_t)(len >> 8);
	head[2] = (uint8_t)(len >> 16);
	head[3] = (uint8_t)(len >> 24);
}

/* Looks at the n bytes received so far, at any alignment.  1: a whole frame lies at their start,
 * its payload at *ret_payload with *ret_len bytes (it points into `bytes`); 0: more is needed;
 * -EPROTO: the length is 0 or over TGP_FRAME_MAX, and the stream cannot be used further.
 * Results are set only with 1. */
int tgp_frame_next(const void *bytes, size_t n, const uint8_t **ret_payload, size_t *ret_len)
{
	const uint8_t *p = bytes;
	uint32_t len;

	if (n < TGP_FRAME_HEAD)
		return 0;
	len = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
	if (len == 0 || len > TGP_FRAME_MAX)
		return -EPROTO;
	if (n - TGP_FRAME_HEAD < len)
		return 0;
	*ret_payload = p + TGP_FRAME_HEAD;
	*ret_len = len;
	return 1;
}
