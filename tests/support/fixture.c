/* fixture.c - a daemon and a heap that is exact, before and after each integration test.
 */
#include "tests/support/fixture.h"

#include <CUnit/CUnit.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/child.h"

struct tgt_daemon tgt_d;
long long tgt_held;
bool tgt_reclaims;

static bool attached;
static int failed_before;

void tgt_set_up_daemon(const char *const *args)
{
	int r = tgt_daemon_start(&tgt_d, args);

	/* A test without a daemon would only print a hundred failures that all say this. */
	if (r < 0) {
		fprintf(stderr, "tgd cannot be started: %s\n", strerror(-r));
		exit(EXIT_FAILURE);
	}
	setenv("TG_SOCKET", tgt_d.socket, 1);
	tgt_held = 0;
	failed_before = tgt_failed_expectations();
	attached = false;
}

void tgt_set_up_with(const char *const *args, const struct tg_options *options)
{
	int r;

	tgt_set_up_daemon(args);
	r = tg_attach(options);
	if (r < 0) {
		fprintf(stderr, "tg_attach: %s: %s\n", strerror(-r), tg_attach_error());
		exit(EXIT_FAILURE);
	}
	attached = true;
}

void tgt_set_up(void)
{
	tgt_set_up_with(NULL, NULL);
}

static void set_up_as(unsigned flags)
{
	struct tg_options options = {.size = sizeof(options), .flags = flags, .timeout_ms = 20000};

	tgt_reclaims = flags == TG_RECLAIM;
	tgt_set_up_with(NULL, &options);
}

void tgt_set_up_keep(void)
{
	set_up_as(0);
}

void tgt_set_up_reclaim(void)
{
	set_up_as(TG_RECLAIM);
}

void tgt_tear_down(void)
{
	CU_ASSERT_EQUAL(tgt_failed_expectations(), failed_before);
	tgt_check(tgt_held);
	if (attached) {
		CU_ASSERT_EQUAL(tg_detach(), 0);
		tgt_check(tgt_held);
	}
	attached = false;
	CU_ASSERT_EQUAL(tgt_daemon_stop(&tgt_d), 0);
	unsetenv("TG_SOCKET");
}

static json_t *ask(const char *command)
{
	const char *args[] = {command, NULL};

	return tgt_tgctl(&tgt_d, args, NULL);
}

void tgt_check(long long objects)
{
	json_t *answer = ask("check"), *error;
	size_t i;

	CU_ASSERT_PTR_NOT_NULL(answer);
	CU_ASSERT(json_is_true(json_object_get(answer, "ok")));
	json_array_foreach (json_object_get(answer, "errors"), i, error)
		printf("check: %s\n", json_string_value(error));
	CU_ASSERT_EQUAL(tgt_json_int(answer, "objects"), objects);
	if (tgt_json_int(answer, "objects") != objects)
		printf("check: %lld objects, not %lld\n", tgt_json_int(answer, "objects"), objects);
	json_decref(answer);
}

static long long number(const char *command, const char *name)
{
	json_t *answer = ask(command);
	long long n = tgt_json_int(answer, name);

	json_decref(answer);
	return n;
}

void tgt_fresh_memory(void)
{
	const char *const trim[] = {"trim", NULL};
	int status = -1;

	CU_ASSERT_EQUAL(tg_trim(), 0);
	json_decref(tgt_tgctl(&tgt_d, trim, &status));
	CU_ASSERT_EQUAL(status, 0);
}

long long tgt_status(const char *name)
{
	return number("status", name);
}

long long tgt_check_number(const char *name)
{
	return number("check", name);
}

/* The daemon tells nobody that it has changed, so it is asked again and again. */
static bool wait_status(const char *name, long long least, long long most)
{
	long long deadline = tgt_now_ms() + TGT_TIMEOUT_MS, n;

	for (;;) {
		n = tgt_status(name);
		if (n >= least && n <= most)
			return true;
		if (tgt_now_ms() >= deadline)
			break;
		(void)poll(NULL, 0, 10);
	}
	printf("%s is %lld, and not between %lld and %lld\n", name, n, least, most);
	return false;
}

bool tgt_wait_at_most(const char *name, long long n)
{
	return wait_status(name, 0, n);
}

bool tgt_wait_at_least(const char *name, long long n)
{
	return wait_status(name, n, INT64_MAX);
}

struct tg_stats tgt_stats(void)
{
	struct tg_stats stats = {.size = sizeof(stats)};

	TGT_EXPECT(tg_stats(&stats) == 0);
	return stats;
}

bool tgt_has_sanitizer(void)
{
	const char *sanitizer = getenv("TG_SANITIZER");

	return sanitizer != NULL && *sanitizer != '\0';
}

unsigned tgt_scaled(unsigned n)
{
	return tgt_has_sanitizer() ? n / 8 + 1 : n;
}

/* splitmix64 */
static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

void tgt_fill_object(void *object, size_t size, uint64_t seed)
{
	uint8_t *p = object;
	uint64_t word = mix(seed);

	for (; size >= 8; size -= 8, p += 8, word += UINT64_C(0x0101010101010101))
		memcpy(p, &word, 8);
	memcpy(p, &word, size);
}

bool tgt_is_filled(const void *object, size_t size, uint64_t seed)
{
	const uint8_t *p = object;
	uint64_t word = mix(seed);

	for (; size >= 8; size -= 8, p += 8, word += UINT64_C(0x0101010101010101)) {
		if (memcmp(p, &word, 8) != 0)
			return false;
	}
	return memcmp(p, &word, size) == 0;
}

bool tgt_is_zero(const void *object, size_t size)
{
	const uint8_t *p = object;

	return size == 0 || (p[0] == 0 && memcmp(p, p + 1, size - 1) == 0);
}
