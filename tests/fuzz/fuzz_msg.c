/* fuzz_msg - any bytes through the frame reader and the unpackers; what is accepted must be stable.
 *
 * The input is what a peer sends: frames, one after the other.  Each payload is tried as a request
 * and as a reply, so one corpus serves both.  A message that was accepted is packed and unpacked
 * again, and must give the same bytes: abort() if not.
 *
 * With libFuzzer:   clang -g -O1 -DTG_LIBFUZZER -fsanitize=fuzzer,address,undefined ... fuzz_msg.c
 * Without:          the main below runs the files that it is given; so it serves AFL (one file a
 *                   run) and as a check that an old finding stays fixed.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t memory[TGP_UNPACK_MAX];
static uint8_t first[TGP_FRAME_HEAD + TGP_FRAME_MAX], second[TGP_FRAME_HEAD + TGP_FRAME_MAX];

/* Bytes of the frame that the accepted message packs to; 0 if it was refused. */
static size_t unpack_and_pack(int is_request, const uint8_t *payload, size_t len, uint8_t *buf)
{
	struct tgp_arena arena;
	const Tgd__Request *request;
	const Tgd__Reply *reply;
	char why[128];
	ssize_t n;
	int r;

	tgp_arena_init(&arena, memory, sizeof(memory));
	if (is_request) {
		r = tgp_request_unpack(&arena, payload, len, &request, why, sizeof(why));
		n = r < 0 ? 0 : tgp_request_pack(request, buf, sizeof(first));
	} else {
		r = tgp_reply_unpack(&arena, payload, len, &reply, why, sizeof(why));
		n = r < 0 ? 0 : tgp_reply_pack(reply, buf, sizeof(first));
	}
	if (n < 0)
		abort(); /* it came in a frame, so it must fit in one */
	return (size_t)n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *payload;
	size_t len;
	int is_request;

	while (tgp_frame_next(data, size, &payload, &len) == 1) {
		for (is_request = 0; is_request < 2; is_request++) {
			size_t n = unpack_and_pack(is_request, payload, len, first);

			if (n > 0 && (unpack_and_pack(is_request, first + TGP_FRAME_HEAD,
						      n - TGP_FRAME_HEAD, second) != n ||
				      memcmp(first, second, n) != 0))
				abort();
		}
		data += TGP_FRAME_HEAD + len;
		size -= TGP_FRAME_HEAD + len;
	}
	return 0;
}

#ifndef TG_LIBFUZZER
/* Reads at most `max` bytes; the block is exactly as long as what was read. */
static uint8_t *read_file(const char *path, size_t max, size_t *ret_n)
{
	FILE *file = fopen(path, "rb");
	uint8_t *bytes;

	if (file == NULL)
		return NULL;
	bytes = malloc(max);
	if (bytes != NULL) {
		uint8_t *exact;

		*ret_n = fread(bytes, 1, max, file);
		exact = realloc(bytes, *ret_n > 0 ? *ret_n : 1);
		bytes = exact != NULL ? exact : bytes;
	}
	fclose(file);
	return bytes;
}

int main(int argc, char **argv)
{
	int i;

	if (argc < 2) {
		fprintf(stderr, "usage: fuzz_msg FILE...\n");
		return 2;
	}
	for (i = 1; i < argc; i++) {
		size_t n;
		uint8_t *bytes = read_file(argv[i], 1 << 20, &n);

		if (bytes == NULL) {
			fprintf(stderr, "fuzz_msg: cannot read %s\n", argv[i]);
			return 2;
		}
		LLVMFuzzerTestOneInput(bytes, n);
		free(bytes);
		printf("%s: passed, %zu bytes\n", argv[i], n);
	}
	return 0;
}
#endif
