/* malloc_user.c - a program that knows nothing of Together and uses malloc as programs do;
 * test_malloc runs it with libtgmalloc.so preloaded.
 *
 * usage: malloc_user STORY...    (the names are in the table at the end)
 *
 * Each story ends with status 0 if all was as the C library's own malloc would have it; what was
 * not is on standard output.
 */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

#define EXPECT(condition) expect(!!(condition), #condition, __LINE__)

static bool expect(bool holds, const char *condition, int line)
{
	if (!holds) {
		printf("malloc_user.c:%d: not so: %s\n", line, condition);
		failures++;
	}
	return holds;
}

/* The compiler knows malloc too well: without this it would leave calls out. */
static void *volatile seen;

static void *see(void *p)
{
	seen = p;
	return p;
}

/* Does the address lie in a shared mapping of the heap's file? */
static bool in_heap(const void *p)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned long from, to;
	bool found = false;

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx", &from, &to) == 2 && (uintptr_t)p >= from &&
		    (uintptr_t)p < to)
			found = strstr(line, "memfd:tg-heap") != NULL;
	}
	if (maps)
		fclose(maps);
	return found;
}

static bool is_aligned(const void *p, size_t align)
{
	return (uintptr_t)p % align == 0;
}

static bool is_filled(const unsigned char *p, size_t size, unsigned char byte)
{
	return size == 0 || (p[0] == byte && memcmp(p, p + 1, size - 1) == 0);
}

/* Sizes about all the edges: 0, tiny, the class of 24, page, the largest small one, large. */
static const size_t sizes[] = {0,    1,     7,     8,     15,    16,     17,      24,
			       25,   32,    33,    100,   1000,  4096,   8191,    8192,
			       8193, 32767, 32768, 32769, 65536, 100000, 1000000, 5000000};
#define N_SIZES (sizeof(sizes) / sizeof(sizes[0]))

static void sizes_and_alignment(void)
{
	size_t i;

	for (i = 0; i < N_SIZES; i++) {
		unsigned char *p = see(malloc(sizes[i])), *q = see(malloc(sizes[i]));
		size_t usable;

		if (!EXPECT(p && q && p != q))
			continue;
		EXPECT(in_heap(p));
		EXPECT(is_aligned(p, 16) && is_aligned(q, 16));
		usable = malloc_usable_size(p);
		EXPECT(usable >= sizes[i]);
		memset(p, 0x5a, usable);
		memset(q, 0xa5, malloc_usable_size(q));
		EXPECT(is_filled(p, usable, 0x5a));
		free(p);
		free(q);
	}
	EXPECT(malloc_usable_size(NULL) == 0);
	free(NULL);
}

static void calloc_clears(void)
{
	size_t i, round;

	/* Used before and freed, so that what calloc finds is not zero by itself. */
	for (round = 0; round < 3; round++) {
		for (i = 0; i < N_SIZES; i++) {
			unsigned char *p = see(malloc(sizes[i]));

			memset(p, 0xff, sizes[i]);
			free(p);
			p = see(calloc(1, sizes[i]));
			EXPECT(p && is_aligned(p, 16) && is_filled(p, sizes[i], 0));
			memset(p, 0xff, sizes[i]);
			free(p);
		}
	}
}

static void realloc_keeps(void)
{
	size_t i, k;

	for (i = 0; i < N_SIZES; i++) {
		for (k = 0; k < N_SIZES; k++) {
			size_t least = sizes[i] < sizes[k] ? sizes[i] : sizes[k];
			unsigned char *p = see(malloc(sizes[i]));

			memset(p, 0x77, sizes[i]);
			p = see(realloc(p, sizes[k]));
			if (sizes[k] == 0) {
				EXPECT(p == NULL);
				continue;
			}
			EXPECT(p && is_aligned(p, 16) && malloc_usable_size(p) >= sizes[k]);
			EXPECT(is_filled(p, least, 0x77));
			free(p);
		}
	}
	EXPECT((seen = realloc(NULL, 100)) != NULL);
	free(seen);
	EXPECT((seen = reallocarray(NULL, 10, 30)) != NULL);
	free(seen);
}

static void aligned(void)
{
	size_t align, i;
	void *p = NULL;

	for (align = 8; align <= 1 << 20; align *= 2) {
		for (i = 0; i < N_SIZES; i++) {
			EXPECT(posix_memalign(&p, align, sizes[i]) == 0 && is_aligned(p, align));
			memset(p, 1, sizes[i]);
			free(see(p));
			p = see(aligned_alloc(align, sizes[i]));
			EXPECT(p && is_aligned(p, align) && is_aligned(p, 16));
			memset(p, 1, sizes[i]);
			free(p);
		}
	}
	p = see(memalign(48, 100)); /* rounded up to 64 */
	EXPECT(p && is_aligned(p, 64));
	free(p);
	p = see(valloc(10));
	EXPECT(p && is_aligned(p, 4096));
	free(p);
	p = see(pvalloc(10));
	EXPECT(p && is_aligned(p, 4096) && malloc_usable_size(p) >= 4096);
	free(p);
	EXPECT(posix_memalign(&p, 3, 10) == EINVAL && posix_memalign(&p, 4, 10) == EINVAL);
}

static void errors(void)
{
	size_t absurd[] = {(size_t)PTRDIFF_MAX + 1, SIZE_MAX, SIZE_MAX - 15,
			   (size_t)PTRDIFF_MAX - 100};
	volatile size_t three = 3;
	void *volatile p = malloc(10);
	size_t i;

	for (i = 0; i < sizeof(absurd) / sizeof(absurd[0]); i++) {
		void *q = p;

		errno = 0;
		EXPECT(see(malloc(absurd[i])) == NULL && errno == ENOMEM);
		errno = 0;
		EXPECT(see(calloc(1, absurd[i])) == NULL && errno == ENOMEM);
		errno = 0;
		EXPECT(see(realloc(p, absurd[i])) == NULL && errno == ENOMEM);
		errno = 0;
		EXPECT(see(aligned_alloc(64, absurd[i])) == NULL && errno == ENOMEM);
		errno = 0;
		EXPECT(posix_memalign(&q, 64, absurd[i]) == ENOMEM && q == p);
		EXPECT(see(pvalloc(absurd[i])) == NULL);
	}
	errno = 0;
	EXPECT(see(calloc(SIZE_MAX / 2, three)) == NULL && errno == ENOMEM);
	errno = 0;
	EXPECT(see(reallocarray(NULL, SIZE_MAX / 2, three)) == NULL && errno == ENOMEM);
	free(p);
}

/* However often the daemon is asked. */
static void errno_stays(void)
{
	static void *p[3000];
	size_t i, k;

	free(see(malloc(1)));
	for (i = 0; i < N_SIZES - 2; i++) {
		errno = 4711;
		for (k = 0; k < 3000 && sizes[i] * k < 100000000; k++)
			p[k] = malloc(sizes[i]);
		while (k > 0)
			free(p[--k]);
		EXPECT(errno == 4711);
	}
}

/* ---- a limit ---- */

/* tgd has a limit of 64 MiB. */
static void full(void)
{
	static void *p[100000];
	size_t n, round;

	for (round = 0; round < 2; round++) {
		errno = 0;
		for (n = 0; n < 100000 && (p[n] = malloc(1000)) != NULL; n++)
			memset(p[n], 1, 1000);
		EXPECT(n > 40000 && n < 70000 && errno == ENOMEM);
		errno = 0;
		EXPECT(see(malloc(10000000)) == NULL && errno == ENOMEM);
		errno = 0;
		EXPECT(see(realloc(p[0], 10000000)) == NULL && errno == ENOMEM);
		while (n > 0)
			free(p[--n]);
		EXPECT((seen = malloc(10000000)) != NULL);
		free(seen);
	}
}

/* ---- threads ---- */

static void *churn(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg, i;
	void *p[64] = {NULL};

	for (i = 0; i < 20000; i++) {
		unsigned k = (unsigned)rand_r(&seed) % 64;

		free(p[k]);
		p[k] = malloc((size_t)rand_r(&seed) % 3000);
		if (p[k])
			memset(p[k], (int)k, 1);
	}
	for (i = 0; i < 64; i++)
		free(p[i]);
	/* Kept for the thread by the C library, and freed after all destructors have run. */
	seen = strerror(4711);
	return NULL;
}

/* Thread slots that this process has, by the daemon's account. */
static int count_slots(void)
{
	FILE *p = popen("unset LD_PRELOAD; \"$TGCTL\" --socket \"$TG_SOCKET\" --json status", "r");
	char text[4096] = "";
	const char *found;

	if (p) {
		text[fread(text, 1, sizeof(text) - 1, p)] = '\0';
		pclose(p);
	}
	found = strstr(text, "\"slots\": ");
	return found ? atoi(found + strlen("\"slots\": ")) : -1;
}

static void threads(void)
{
	pthread_t thread[8];
	uintptr_t i, round;
	int slots;

	for (round = 0; round < 60; round++) {
		for (i = 0; i < 8; i++)
			EXPECT(pthread_create(&thread[i], NULL, churn, (void *)(round * 8 + i)) ==
			       0);
		for (i = 0; i < 8; i++)
			EXPECT(pthread_join(thread[i], NULL) == 0);
	}
	/* 8, this one, and that of the large objects; popen's shell has none here any more. */
	slots = count_slots();
	if (!EXPECT(slots > 0 && slots <= 11))
		printf("%d slots\n", slots);
}

static void *busy(void *arg)
{
	void *p = malloc(200000);

	(void)arg;
	for (;;) {
		/* Each asks the daemon. */
		p = see(realloc(p, 100000));
		p = see(realloc(p, 200000));
		pthread_testcancel();
	}
	return NULL;
}

/* malloc is no point at which a thread can be cancelled, even when it talks to the daemon. */
static void cancelled(void)
{
	pthread_t thread[4];
	unsigned round, i;
	void *result;

	for (round = 0; round < 30; round++) {
		for (i = 0; i < 4; i++)
			EXPECT(pthread_create(&thread[i], NULL, busy, NULL) == 0);
		free(see(malloc(30000000)));
		for (i = 0; i < 4; i++)
			EXPECT(pthread_cancel(thread[i]) == 0);
		for (i = 0; i < 4; i++)
			EXPECT(pthread_join(thread[i], &result) == 0 && result == PTHREAD_CANCELED);
		free(see(malloc(30000000)));
	}
}

/* ---- ends ---- */

static void double_free(void)
{
	void *p = see(malloc(100)), *q = see(malloc(100));

	free(p);
	free(seen == q ? p : NULL);
	failures++;
}

/* The test ends the daemon when it reads "go", and then closes our input. */
static void daemon_dies(void)
{
	static void *p[20000];
	size_t i;

	for (i = 0; i < 10000; i++)
		p[i] = memset(malloc(500), (int)i, 500);
	EXPECT(in_heap(p[0]));
	puts("go");
	fflush(stdout);
	while (getchar() != EOF)
		;
	for (i = 10000; i < 20000; i++) {
		p[i] = malloc(500);
		if (!EXPECT(p[i] != NULL))
			return;
		memset(p[i], (int)i, 500);
	}
	EXPECT(!in_heap(p[19999]));
	for (i = 0; i < 20000; i += 3)
		p[i] = memset(realloc(p[i], 700), (int)i, 700);
	for (i = 0; i < 20000; i++) {
		EXPECT(is_filled(p[i], i % 3 == 0 ? 700 : 500, (unsigned char)i));
		free(p[i]);
	}
}

/* For the tests without a daemon: that malloc works at all, and where from. */
static void on_heap(void)
{
	EXPECT(in_heap(see(malloc(100))));
	free(seen);
}

/* One object of each of some classes that few programs use. */
static void unusual(unsigned n)
{
	static const size_t bytes[] = {48 + 1, 128 + 16, 192, 224, 240, 256, 320, 352, 384};
	unsigned i;

	for (i = 0; i < n; i++)
		EXPECT(in_heap(see(malloc(bytes[i]))));
}

static void few_classes(void)
{
	unusual(3);
}

static void many_classes(void)
{
	unusual(9);
}

/* One object of each size above 4 KiB that has a class, and then more of one. */
static void few_slots(void)
{
	static const size_t bytes[] = {4864,  5376,  6144,  6528,  6784,  6912,  8192,  9472,
				       9728,  10240, 10880, 12288, 13568, 14336, 16384, 18432,
				       19072, 20480, 21760, 24576, 27264, 28672, 32768};
	uint8_t *p[23], *q[40];
	uintptr_t at;
	size_t i;

	for (i = 0; i < 23; i++) {
		p[i] = see(calloc(1, bytes[i]));
		EXPECT(p[i] && in_heap(p[i]) && malloc_usable_size(p[i]) >= bytes[i]);
		EXPECT(p[i][0] == 0 && p[i][bytes[i] - 1] == 0);
		p[i][bytes[i] - 1] = (uint8_t)i;
	}
	/* It fits where it is, and no message says so. */
	at = (uintptr_t)p[7];
	p[7] = see(realloc(p[7], 10000));
	EXPECT((uintptr_t)p[7] == at);
	p[7] = see(realloc(p[7], 20000));
	EXPECT(p[7] && p[7][9471] == 7 && malloc_usable_size(p[7]) >= 20000);
	for (i = 0; i < 23; i++)
		free(p[i]);
	for (i = 0; i < 40; i++)
		q[i] = see(malloc(5000));
	EXPECT(malloc_usable_size(q[0]) >= 8192 && malloc_usable_size(q[39]) == 5376);
	for (i = 0; i < 40; i++)
		free(q[i]);
}

/* One object at a time: what the last one had lies idle.  For ever that would be slow. */
static void few_slots_again(void)
{
	void *p;
	int i;

	for (i = 0; i < 100; i++, free(p))
		EXPECT(malloc_usable_size(p = see(malloc(13500))) >= (i < 40 ? 16384u : 13500u));
	EXPECT(malloc_usable_size(see(malloc(13500))) == 13568);
}

static void not_on_heap(void)
{
	void *p = see(malloc(100));

	EXPECT(p && !in_heap(p) && malloc_usable_size(p) >= 100);
	p = see(realloc(p, 100000));
	EXPECT(p && !in_heap(p));
	free(p);
	p = see(aligned_alloc(4096, 10000));
	EXPECT(p && is_aligned(p, 4096));
	free(p);
	p = see(calloc(10, 1000));
	EXPECT(p && is_filled(p, 10000, 0));
	free(p);
}

static const struct {
	const char *name;
	void (*run)(void);
} stories[] = {
	{"sizes", sizes_and_alignment},
	{"calloc", calloc_clears},
	{"realloc", realloc_keeps},
	{"aligned", aligned},
	{"errors", errors},
	{"errno", errno_stays},
	{"full", full},
	{"threads", threads},
	{"cancelled", cancelled},
	{"double-free", double_free},
	{"daemon-dies", daemon_dies},
	{"on-heap", on_heap},
	{"few-classes", few_classes},
	{"many-classes", many_classes},
	{"few-slots", few_slots},
	{"few-slots-again", few_slots_again},
	{"not-on-heap", not_on_heap},
};

int main(int argc, char **argv)
{
	size_t k, n_run = 0;
	int i;

	for (i = 1; i < argc; i++) {
		for (k = 0; k < sizeof(stories) / sizeof(stories[0]); k++) {
			if (strcmp(argv[i], stories[k].name) == 0) {
				stories[k].run();
				n_run++;
			}
		}
	}
	if (n_run == 0 || n_run != (size_t)argc - 1) {
		fprintf(stderr, "usage: malloc_user STORY...\n");
		return 2;
	}
	return failures == 0 ? 0 : 1;
}
