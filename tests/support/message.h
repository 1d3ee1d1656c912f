/* message.h - makes messages for tests: filled by protobuf-c's descriptors, or byte by byte. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/msg.h"

/* What a generated message holds. */
struct tgt_fill {
	uint64_t seed;       /* 0: the largest of everything; else random, within the limits */
	const char *more_of; /* "Message.field": one element or byte more than the limit; or NULL */
	const char *less_of; /* "Message.field": one fewer than it must have; or NULL */
};

/* The limits of a field as docs/protocol.md has them, written down a second time for the tests: how
 * many elements, or bytes of a string. */
void tgt_limits_of(const ProtobufCMessageDescriptor *message, const ProtobufCFieldDescriptor *field,
		   size_t *ret_min, size_t *ret_max);

/* A request or reply with this body (the number of a oneof member in tgd.proto; 0: none), which
 * tgp_request_unpack or tgp_reply_unpack accepts unless more_of or less_of says otherwise.  It
 * lives in memory of its own until the next call of tgt_fill_reset. */
Tgd__Request *tgt_fill_request(uint32_t body, const struct tgt_fill *fill);
Tgd__Reply *tgt_fill_reply(uint32_t body, const struct tgt_fill *fill);
void tgt_fill_reset(void);

/* xorshift64*: the same numbers everywhere for one seed, which is not 0. */
uint64_t tgt_random(uint64_t *state);

/* Bytes of a message as they go over the wire, without a frame. */
struct tgt_wire {
	uint8_t bytes[2 * TGP_FRAME_MAX];
	size_t n;
};

void tgt_wire_varint(struct tgt_wire *wire, uint64_t value);
/* A field that is a number. */
void tgt_wire_number(struct tgt_wire *wire, uint32_t field, uint64_t value);
/* A field that is a string, bytes, a packed array or a message. */
void tgt_wire_bytes(struct tgt_wire *wire, uint32_t field, const void *bytes, size_t n);
void tgt_wire_message(struct tgt_wire *wire, uint32_t field, const struct tgt_wire *inner);
