/* forks.h - what programs share that know nothing of Together, and fork: what they expect, a set of objects of all sizes,
 * two pipes, and a main that runs the stories it is told to.
 *
 * There are two of them, fork_user and fork_threads; they link nothing of ours.  Each story ends with status 0 if all was
 * as it should be; what was not is on standard output.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

#define EXPECT(condition) expect(!!(condition), #condition, __FILE__, __LINE__)

static inline bool expect(bool holds, const char *condition, const char *file, int line)
{
	if (!holds) {
		printf("%s:%d: not so: %s\n", file, line, condition);
		fflush(stdout);
		failures++;
	}
	return holds;
}

/* Ends a child: its parent counts its failures as one. */
static inline void end_child(void)
{
	_exit(failures == 0 ? 0 : 1);
}

static inline void expect_well(pid_t child)
{
	int status = -1;

	EXPECT(child > 0);
	EXPECT(waitpid(child, &status, 0) == child);
	if (!EXPECT(status == 0))
		printf("the child's status is 0x%x\n", (unsigned)status);
}

/* ---- a set of objects of all sizes, each with its number in every byte ---- */

#define N_OBJECTS 4000u

struct set {
	unsigned char *object[N_OBJECTS];
	size_t size[N_OBJECTS];
};

static inline size_t some_size(unsigned i)
{
	static const size_t some[] = {1, 12, 16, 24, 40, 100, 500, 2000, 9000, 30000};

	return i % 400 == 0 ? 40000 + i * 50 : some[i % 10];
}

static inline void make_one(struct set *set, unsigned i, unsigned char byte)
{
	set->size[i] = some_size(i);
	set->object[i] = malloc(set->size[i]);
	if (EXPECT(set->object[i] != NULL))
		memset(set->object[i], byte, set->size[i]);
}

static inline struct set *make_set(unsigned char byte)
{
	struct set *set = calloc(1, sizeof(*set));
	unsigned i;

	for (i = 0; i < N_OBJECTS; i++)
		make_one(set, i, (unsigned char)(byte + i));
	return set;
}

static inline bool is_set(const struct set *set, unsigned char byte)
{
	unsigned i;
	size_t k;

	for (i = 0; i < N_OBJECTS; i++) {
		for (k = 0; k < set->size[i]; k++) {
			if (set->object[i][k] != (unsigned char)(byte + i)) {
				printf("object %u of %zu bytes: byte %zu is %u\n", i, set->size[i],
				       k, set->object[i][k]);
				return false;
			}
		}
	}
	return true;
}

static inline void write_set(struct set *set, unsigned char byte)
{
	unsigned i;

	for (i = 0; i < N_OBJECTS; i++)
		memset(set->object[i], (unsigned char)(byte + i), set->size[i]);
}

static inline void free_set(struct set *set)
{
	unsigned i;

	for (i = 0; i < N_OBJECTS; i++)
		free(set->object[i]);
	free(set);
}

/* The compiler would leave a plain free(malloc(1)) out. */
static inline void touch_heap(void)
{
	void *volatile p = malloc(100);

	free(p);
}

/* Two pipes: each side says when it is done with its part. */
static int to_child[2], to_parent[2];

static inline void open_pipes(void)
{
	EXPECT(pipe(to_child) == 0 && pipe(to_parent) == 0);
}

static inline void say(const int *ends)
{
	EXPECT(write(ends[1], "x", 1) == 1);
}

static inline void hear(const int *ends)
{
	char c;

	EXPECT(read(ends[0], &c, 1) == 1);
}

/* ---- stories ---- */

struct story {
	const char *name;
	void (*run)(void);
};

/* Those of the `n` that the arguments name.  The exit status. */
static inline int run_stories(int argc, char **argv, const struct story *stories, size_t n)
{
	size_t k, n_run = 0;
	int i;

	for (i = 1; i < argc; i++) {
		for (k = 0; k < n; k++) {
			if (strcmp(argv[i], stories[k].name) == 0) {
				stories[k].run();
				n_run++;
			}
		}
	}
	if (n_run == 0 || n_run != (size_t)argc - 1) {
		fprintf(stderr, "usage: %s STORY...\n", argv[0]);
		return 2;
	}
	return failures == 0 ? 0 : 1;
}
