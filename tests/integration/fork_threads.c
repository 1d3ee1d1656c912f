/* fork_threads.c - a program that knows nothing of Together, and forks where that is not easy: among other threads, on a
 * stack in the heap, without a free descriptor; test_malloc runs it with libtgmalloc.so preloaded.
 *
 * usage: fork_threads STORY...    (the names are in the table at the end)
 *
 * The child has what its parent had, and the other threads of the parent notice nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/support/forks.h"

static atomic_bool stop;
static pthread_mutex_t set_lock = PTHREAD_MUTEX_INITIALIZER;
static struct set *locked_set;

static void *replace(void *arg)
{
	unsigned n = (unsigned)(uintptr_t)arg;

	while (!stop) {
		n = n * 1103515245u + 12345u;
		pthread_mutex_lock(&set_lock);
		free(locked_set->object[n / 64 % N_OBJECTS]);
		make_one(locked_set, n / 64 % N_OBJECTS, (unsigned char)(1 + n / 64 % N_OBJECTS));
		pthread_mutex_unlock(&set_lock);
		free(calloc(1, n / 65536 % 5000));
	}
	return NULL;
}

static void lock_set(void)
{
	pthread_mutex_lock(&set_lock);
}

static void unlock_set(void)
{
	pthread_mutex_unlock(&set_lock);
}

/* Other threads work on objects under a lock; a fork handler takes it, so the child finds them
 * whole. */
static void among_threads(void)
{
	pthread_t thread[3];
	uintptr_t i;
	unsigned round;

	locked_set = make_set(1);
	EXPECT(pthread_atfork(lock_set, unlock_set, unlock_set) == 0);
	for (i = 0; i < 3; i++)
		EXPECT(pthread_create(&thread[i], NULL, replace, (void *)i) == 0);
	for (round = 0; round < 25; round++) {
		pid_t child = fork();

		if (child == 0) {
			EXPECT(is_set(locked_set, 1));
			make_one(locked_set, round, (unsigned char)(1 + round));
			EXPECT(is_set(locked_set, 1));
			end_child();
		}
		expect_well(child);
	}
	stop = true;
	for (i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	EXPECT(is_set(locked_set, 1));
	free_set(locked_set);
}

static void *fork_often(void *arg)
{
	struct set *set = make_set((unsigned char)(uintptr_t)arg);
	unsigned round;

	for (round = 0; round < 10; round++) {
		pid_t child = fork();

		if (child == 0) {
			EXPECT(is_set(set, (unsigned char)(uintptr_t)arg));
			end_child();
		}
		expect_well(child);
	}
	free_set(set);
	return NULL;
}

static void by_many_threads(void)
{
	pthread_t thread[4];
	uintptr_t i;

	for (i = 0; i < 4; i++)
		EXPECT(pthread_create(&thread[i], NULL, fork_often, (void *)i) == 0);
	for (i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
}

static ucontext_t main_context, other_context;
static pid_t forked;

static void fork_here(void)
{
	volatile unsigned char local[2000];
	unsigned i;

	for (i = 0; i < sizeof(local); i++)
		local[i] = (unsigned char)i;
	forked = fork();
	for (i = 0; i < sizeof(local); i++)
		EXPECT(local[i] == (unsigned char)i);
	if (forked == 0)
		end_child();
	expect_well(forked);
}

/* Of a coroutine, say. */
static void on_stack_in_heap(void)
{
	size_t size = 256 << 10;
	char *stack = malloc(size);

	EXPECT(getcontext(&other_context) == 0);
	other_context.uc_stack.ss_sp = stack;
	other_context.uc_stack.ss_size = size;
	other_context.uc_link = &main_context;
	makecontext(&other_context, fork_here, 0);
	EXPECT(swapcontext(&main_context, &other_context) == 0);
	free(stack);
}

/* All descriptors closed, those of the connection as well, or all in use. */
static void without_descriptors(void)
{
	struct rlimit limit = {.rlim_cur = 64, .rlim_max = 128};
	struct set *set = make_set(1);
	pid_t child;
	int fd;

	for (fd = 3; fd < 1024; fd++)
		close(fd);
	child = fork();
	if (child == 0) {
		EXPECT(is_set(set, 1));
		end_child();
	}
	expect_well(child);
	free_set(set);

	set = make_set(2);
	EXPECT(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	while (open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0)
		;
	EXPECT(errno == EMFILE);
	child = fork();
	if (child == 0) {
		EXPECT(is_set(set, 2));
		end_child();
	}
	write_set(set, 3);
	expect_well(child);
	EXPECT(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur == 64);
	EXPECT(is_set(set, 3));
	free_set(set);
}

static FILE *file;
static pthread_key_t keys[40];

static void *read_file(void *arg)
{
	unsigned i;
	int c;

	(void)arg;
	for (i = 0; i < 40; i++)
		EXPECT(pthread_setspecific(keys[i], &keys[i]) == 0);
	say(to_parent);
	c = fgetc(file); /* waits, with the file's lock taken, while the others fork */
	for (i = 0; i < 40; i++)
		EXPECT(pthread_getspecific(keys[i]) == &keys[i]);
	return (void *)(intptr_t)c;
}

static void *read_again(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)fgetc(file);
}

/* In the child fork() itself frees the locks of files and clears the values of keys of other
 * threads: the child's only. */
static void leaves_threads_alone(void)
{
	pthread_t thread;
	void *result;
	unsigned i;

	open_pipes();
	for (i = 0; i < 40; i++)
		EXPECT(pthread_key_create(&keys[i], NULL) == 0);
	file = fdopen(to_child[0], "r");
	setvbuf(file, NULL, _IONBF, 0);
	EXPECT(pthread_create(&thread, NULL, read_file, NULL) == 0);
	hear(to_parent);
	for (i = 0; i < 5; i++) {
		pid_t child = fork();

		if (child == 0)
			_exit(0);
		expect_well(child);
	}
	EXPECT(write(to_child[1], "abc", 3) == 3);
	EXPECT(pthread_join(thread, &result) == 0 && result == (void *)(intptr_t)'a');
	/* Another thread gets the lock, and then this one. */
	EXPECT(pthread_create(&thread, NULL, read_again, NULL) == 0);
	EXPECT(pthread_join(thread, &result) == 0 && result == (void *)(intptr_t)'b');
	EXPECT(fgetc(file) == 'c');
	fclose(file);
}

static const struct story stories[] = {
	{"among-threads", among_threads},
	{"by-many-threads", by_many_threads},
	{"stack-in-heap", on_stack_in_heap},
	{"no-descriptors", without_descriptors},
	{"leaves-threads-alone", leaves_threads_alone},
};

int main(int argc, char **argv)
{
	return run_stories(argc, argv, stories, sizeof(stories) / sizeof(stories[0]));
}
