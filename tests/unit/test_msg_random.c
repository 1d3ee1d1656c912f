/* test_msg_random: no bytes crash the unpacker, and none make it, or the packer, call malloc.
 *
 * 200,000 rounds from a fixed seed: a third are random bytes, the others good messages that were
 * damaged at random, which get further.  What is accepted must come back the same when it is packed
 * and unpacked once more.  Worth most under AddressSanitizer: each payload is in a block of exactly
 * its size.
 *
 * Calls of malloc and its family are counted while a message is in work: by definitions of our own,
 * which shared libraries then use too; or under a sanitizer, which has its own, by its hook.
 */
#include "proto/msg.h"

#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/message.h"
#include "tests/support/runner.h"

enum { ROUNDS = 200000, SEEDS = 16, N_REQUESTS = 11, N_REPLIES = 12 };

/* ---- counting malloc ---- */

static unsigned long n_mallocs; /* this program has one thread */

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

#ifdef SANITIZED
/* Of the sanitizers' common interface, whose header is not everywhere. */
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
					      void (*on_free)(const volatile void *));

static void on_malloc(const volatile void *p, size_t size)
{
	(void)p;
	(void)size;
	n_mallocs++;
}

static void on_free(const volatile void *p)
{
	(void)p;
	n_mallocs++;
}

static int start_counting(void)
{
	return __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0 ? 0 : 1;
}
#else
/* glibc's own names for what is replaced here. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void __libc_free(void *p);

#define REPLACED __attribute__((visibility("default")))

REPLACED void *malloc(size_t size)
{
	n_mallocs++;
	return __libc_malloc(size);
}

REPLACED void *calloc(size_t n, size_t size)
{
	n_mallocs++;
	return __libc_calloc(n, size);
}

REPLACED void *realloc(void *p, size_t size)
{
	n_mallocs++;
	return __libc_realloc(p, size);
}

REPLACED void free(void *p)
{
	n_mallocs++;
	__libc_free(p);
}

static int start_counting(void)
{
	return 0;
}
#endif

/* ---- good messages to start from ---- */

static struct {
	uint8_t *bytes;
	size_t n;
} corpus[SEEDS * (N_REQUESTS + N_REPLIES)];
static size_t n_corpus;

static uint8_t memory[TGP_UNPACK_MAX];
static struct tgp_arena arena;
static uint8_t frame[TGP_FRAME_HEAD + TGP_FRAME_MAX], again[TGP_FRAME_HEAD + TGP_FRAME_MAX];

static int add_to_corpus(ssize_t n)
{
	if (n < 0)
		return 1;
	corpus[n_corpus].n = (size_t)n - TGP_FRAME_HEAD;
	corpus[n_corpus].bytes = malloc(corpus[n_corpus].n);
	memcpy(corpus[n_corpus].bytes, frame + TGP_FRAME_HEAD, corpus[n_corpus].n);
	n_corpus++;
	return 0;
}

static int make_corpus(void)
{
	struct tgt_fill fill = {1, NULL, NULL};
	uint32_t i;
	int failed = 0;

	for (; fill.seed <= SEEDS; fill.seed++) {
		for (i = 0; i < N_REQUESTS; i++) {
			tgt_fill_reset();
			failed |= add_to_corpus(tgp_request_pack(
				tgt_fill_request(TGD__REQUEST__BODY_HELLO + i, &fill), frame,
				sizeof(frame)));
		}
		for (i = 0; i < N_REPLIES; i++) {
			tgt_fill_reset();
			failed |= add_to_corpus(
				tgp_reply_pack(tgt_fill_reply(TGD__REPLY__BODY_HELLO + i, &fill),
					       frame, sizeof(frame)));
		}
	}
	tgp_arena_init(&arena, memory, sizeof(memory));
	return failed || start_counting();
}

static int drop_corpus(void)
{
	while (n_corpus > 0)
		free(corpus[--n_corpus].bytes);
	return 0;
}

/* ---- damage ---- */

static uint8_t damaged[TGP_FRAME_MAX];

static size_t below(uint64_t *random, size_t n)
{
	return (size_t)(tgt_random(random) >> 16) % n;
}

/* One change at a random place of damaged[0..n): returns the new length. */
static size_t damage_once(uint64_t *random, size_t n)
{
	size_t at = below(random, n), len = 1 + below(random, 16), from;

	switch (below(random, 6)) {
	case 0:
		damaged[at] ^= (uint8_t)(1 << below(random, 8));
		return n;
	case 1:
		damaged[at] = (uint8_t)tgt_random(random);
		return n;
	case 2: /* cut the end */
		return at > 0 ? at : 1;
	case 3: /* take some bytes out */
		if (len > n - at)
			len = n - at;
		memmove(damaged + at, damaged + at + len, n - at - len);
		return n - len > 0 ? n - len : 1;
	case 4: /* put some in: a piece of itself */
		from = below(random, n);
		if (len > n - from)
			len = n - from;
		if (len > sizeof(damaged) - n)
			return n;
		memmove(damaged + at + len, damaged + at, n - at);
		memmove(damaged + at, damaged + from, len);
		return n + len;
	default: /* a run of bytes that mean much: long numbers, NUL */
		if (len > n - at)
			len = n - at;
		memset(damaged + at, below(random, 2) == 0 ? 0xff : 0, len);
		return n;
	}
}

static size_t make_payload(uint64_t *random)
{
	size_t i, n;

	if (below(random, 3) == 0) {
		n = 1 + below(random, below(random, 64) == 0 ? 4096 : 64);
		for (i = 0; i < n; i++)
			damaged[i] = (uint8_t)(tgt_random(random) >> 32);
		return n;
	}
	i = below(random, n_corpus);
	/* The few that are very long take most of the time. */
	if (corpus[i].n > 2048 && below(random, 16) != 0)
		i = below(random, n_corpus);
	n = corpus[i].n;
	memcpy(damaged, corpus[i].bytes, n);
	for (i = below(random, 4); i > 0; i--)
		n = damage_once(random, n);
	return n;
}

/* ---- the rounds ---- */

struct count {
	unsigned long accepted, refused, changed, without_reason, mallocs;
};

/* Unpacks a request or reply and, if accepted, packs it into buf; returns the bytes of the frame. */
static ssize_t unpack_and_pack(int is_request, const uint8_t *payload, size_t n, uint8_t *buf,
			       char *why, size_t why_size)
{
	const Tgd__Request *request;
	const Tgd__Reply *reply;
	int r;

	tgp_arena_reset(&arena);
	if (is_request) {
		r = tgp_request_unpack(&arena, payload, n, &request, why, why_size);
		return r < 0 ? r : tgp_request_pack(request, buf, sizeof(frame));
	}
	r = tgp_reply_unpack(&arena, payload, n, &reply, why, why_size);
	return r < 0 ? r : tgp_reply_pack(reply, buf, sizeof(frame));
}

static void one_round(const uint8_t *payload, size_t n, int is_request, struct count *count)
{
	char why[256] = "";
	unsigned long before = n_mallocs;
	ssize_t len = unpack_and_pack(is_request, payload, n, frame, why, sizeof(why)), twice = 0;

	if (len > 0)
		twice = unpack_and_pack(is_request, frame + TGP_FRAME_HEAD,
					(size_t)len - TGP_FRAME_HEAD, again, why, sizeof(why));
	count->mallocs += n_mallocs - before;
	if (len > 0) {
		count->accepted++;
		if (twice != len || memcmp(frame, again, (size_t)len) != 0)
			count->changed++;
	} else {
		count->refused++;
		if (len != -EPROTO || why[0] == '\0')
			count->without_reason++;
	}
}

static void random_bytes_are_refused_or_mean_something(void)
{
	uint64_t random = 0x7467700a;
	struct count count = {0, 0, 0, 0, 0};
	int round;

	for (round = 0; round < ROUNDS; round++) {
		size_t n = make_payload(&random);
		uint8_t *exact = malloc(n);

		memcpy(exact, damaged, n);
		one_round(exact, n, 1, &count);
		one_round(exact, n, 0, &count);
		free(exact);
	}
	printf("\n    %lu accepted, %lu refused\n", count.accepted, count.refused);
	CU_ASSERT_EQUAL(count.changed, 0);
	CU_ASSERT_EQUAL(count.without_reason, 0);
	CU_ASSERT_EQUAL(count.mallocs, 0);
	/* Both ways were tried in earnest. */
	CU_ASSERT(count.accepted > ROUNDS / 10);
	CU_ASSERT(count.refused > ROUNDS / 10);
}

static void good_messages_are_packed_and_unpacked_without_malloc(void)
{
	struct count count = {0, 0, 0, 0, 0};
	size_t i;

	for (i = 0; i < n_corpus; i++)
		one_round(corpus[i].bytes, corpus[i].n, i % (N_REQUESTS + N_REPLIES) < N_REQUESTS,
			  &count);
	CU_ASSERT_EQUAL(count.accepted, n_corpus);
	CU_ASSERT_EQUAL(count.mallocs, 0);
	CU_ASSERT_EQUAL(count.changed, 0);
}

/* protobuf-c with its own allocator is what we do not want: it must be seen. */
static void malloc_in_the_library_is_counted(void)
{
	unsigned long before = n_mallocs;
	Tgd__Request *request;

	request = tgd__request__unpack(NULL, corpus[0].n, corpus[0].bytes);
	CU_ASSERT_PTR_NOT_NULL_FATAL(request);
	tgd__request__free_unpacked(request, NULL);
	CU_ASSERT(n_mallocs >= before + 4);
}

static CU_TestInfo random_tests[] = {
	{"malloc in the library is counted", malloc_in_the_library_is_counted},
	{"good messages are packed and unpacked without malloc",
	 good_messages_are_packed_and_unpacked_without_malloc},
	{"random bytes are refused or mean something, without malloc",
	 random_bytes_are_refused_or_mean_something},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"random", make_corpus, drop_corpus, NULL, NULL, random_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("msg_random", suites);
}
