/* msg.h - messages: bytes to checked structures and back, in memory that the caller brings. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/frame.h"
#include "proto/tgd.pb-c.h"

#define TGP_VERSION     1 /* what this code speaks */
#define TGP_MIN_VERSION 1 /* the oldest that it can speak */

/* Limits, the same for both sides.  docs/protocol.md lists which field has which. */
#define TGP_SPANS_MAX   256  /* spans in one GetSpans, PutSpans, SpansReply */
#define TGP_ROWS_MAX    256  /* rows in Clients, Spans, Roots */
#define TGP_CELLS_MAX   2048 /* cells in Map */
#define TGP_CLASSES_MAX 69   /* rows in Classes */
#define TGP_ERRORS_MAX  64   /* strings in Check.errors */
#define TGP_NAME_MAX    63   /* bytes of a heap or client name */
#define TGP_PROGRAM_MAX 64   /* bytes of Hello.program, HelloReply.program */
#define TGP_ROOT_MAX    127  /* bytes of a root's name, which has at least 1 */
#define TGP_TEXT_MAX    255  /* bytes of any other string */
#define TGP_UUID_SIZE   16   /* bytes of AttachReply.heap_uuid */
#define TGP_UNKNOWN_MAX 8    /* unknown fields that one message may have */
#define TGP_CLASS_MIN   2    /* smallest class of GetSpans */
#define TGP_CLASS_TINY  68   /* largest: tiny objects */

/* Arena bytes that are enough for any message within these limits. */
#define TGP_UNPACK_MAX (256 * 1024)

/* Memory for unpacked messages: a bump arena over a buffer of the caller's, without malloc.
 * What is unpacked lives in it until the reset.  It must not be moved or copied after
 * tgp_arena_init.  For one thread at a time. */
struct tgp_arena {
	uint8_t *buf;
	size_t size; /* bytes */
	size_t used; /* bytes; SIZE_MAX while an unpack fails for want of room */
	ProtobufCAllocator allocator;
};

void tgp_arena_init(struct tgp_arena *arena, void *buf, size_t size);
void tgp_arena_reset(struct tgp_arena *arena);

/* Unpack, then check the meaning.  0, or -EPROTO and a sentence in `why`. */
int tgp_request_unpack(struct tgp_arena *arena, const uint8_t *payload, size_t len,
		       const Tgd__Request **ret, char *why, size_t why_size);
int tgp_reply_unpack(struct tgp_arena *arena, const uint8_t *payload, size_t len,
		     const Tgd__Reply **ret, char *why, size_t why_size);

/* Packs a whole frame into buf.  Its length in bytes, or -EMSGSIZE. */
ssize_t tgp_request_pack(const Tgd__Request *request, uint8_t *buf, size_t size);
ssize_t tgp_reply_pack(const Tgd__Reply *reply, uint8_t *buf, size_t size);

/* Makes any text fit for a string field: cuts it to max bytes, replaces what the other side
 * would refuse. */
void tgp_text_clean(char *text, size_t max);
