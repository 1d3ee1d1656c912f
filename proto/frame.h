/* frame.h - one message on the wire: its length as 4 little-endian bytes, then the payload. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define TGP_FRAME_HEAD 4
#define TGP_FRAME_MAX  65536 /* payload bytes */

/* Writes the head of a frame whose payload has `len` bytes, 1..TGP_FRAME_MAX. */
void tgp_frame_put_head(uint8_t head[TGP_FRAME_HEAD], uint32_t len);

/* Is there a whole frame at the start of these bytes?  1: yes; 0: not yet; -EPROTO: there never
 * will be. */
int tgp_frame_next(const void *bytes, size_t n, const uint8_t **ret_payload, size_t *ret_len);
