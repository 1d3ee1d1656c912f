/* fork_user.c - a program that knows nothing of Together, and forks; test_malloc runs it with
 * libtgmalloc.so preloaded.
 *
 * usage: fork_user STORY...    (the names are in the table at the end)
 *
 * After fork each process has what it had, and none sees what the other does to it.  Each story
 * ends with status 0 if that was so; what was not is on standard output.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static int failures;

#define EXPECT(condition) expect(!!(condition), #condition, __LINE__)

static bool expect(bool holds, const char *condition, int line)
{
	if (!holds) {
		printf("fork_user.c:%d: not so: %s\n", line, condition);
		fflush(stdout);
		failures++;
	}
	return holds;
}

/* Ends a child: its parent counts its failures as one. */
static void end_child(void)
{
	_exit(failures == 0 ? 0 : 1);
}

static void expect_well(pid_t child)
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

static size_t some_size(unsigned i)
{
	static const size_t some[] = {1, 12, 16, 24, 40, 100, 500, 2000, 9000, 30000};

	return i % 400 == 0 ? 40000 + i * 50 : some[i % 10];
}

static void make_one(struct set *set, unsigned i, unsigned char byte)
{
	set->size[i] = some_size(i);
	set->object[i] = malloc(set->size[i]);
	if (EXPECT(set->object[i] != NULL))
		memset(set->object[i], byte, set->size[i]);
}

static struct set *make_set(unsigned char byte)
{
	struct set *set = calloc(1, sizeof(*set));
	unsigned i;

	for (i = 0; i < N_OBJECTS; i++)
		make_one(set, i, (unsigned char)(byte + i));
	return set;
}

static bool is_set(const struct set *set, unsigned char byte)
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

static void write_set(struct set *set, unsigned char byte)
{
	unsigned i;

	for (i = 0; i < N_OBJECTS; i++)
		memset(set->object[i], (unsigned char)(byte + i), set->size[i]);
}

static void free_set(struct set *set)
{
	unsigned i;

	for (i = 0; i < N_OBJECTS; i++)
		free(set->object[i]);
	free(set);
}

/* The compiler would leave a plain free(malloc(1)) out. */
static void touch_heap(void)
{
	void *volatile p = malloc(100);

	free(p);
}

/* Two pipes: each side says when it is done with its part. */
static int to_child[2], to_parent[2];

static void open_pipes(void)
{
	EXPECT(pipe(to_child) == 0 && pipe(to_parent) == 0);
}

static void say(const int *ends)
{
	EXPECT(write(ends[1], "x", 1) == 1);
}

static void hear(const int *ends)
{
	char c;

	EXPECT(read(ends[0], &c, 1) == 1);
}

/* ---- stories ---- */

static void is_private(void)
{
	struct set *set = make_set(1);
	pid_t child;

	open_pipes();
	child = fork();
	if (child == 0) {
		hear(to_child); /* the parent has written all over its own */
		EXPECT(is_set(set, 1));
		write_set(set, 3);
		say(to_parent);
		hear(to_child); /* the parent has freed its own, and made others */
		EXPECT(is_set(set, 3));
		end_child();
	}
	write_set(set, 2);
	say(to_child);
	hear(to_parent);
	EXPECT(is_set(set, 2));
	free_set(set);
	set = make_set(9);
	say(to_child);
	expect_well(child);
	EXPECT(is_set(set, 9));
	free_set(set);
}

/* What a child does to what it inherited: as with any object, and nothing of it reaches the
 * parent. */
static void inherited(void)
{
	struct set *set = make_set(1), *more;
	pid_t child;
	unsigned i;

	child = fork();
	if (child == 0) {
		for (i = 0; i < N_OBJECTS; i++) {
			EXPECT(malloc_usable_size(set->object[i]) >= set->size[i]);
			if (i % 3 == 0) {
				free(set->object[i]);
				make_one(set, i, (unsigned char)(1 + i));
			} else if (i % 3 == 1) {
				set->object[i] = realloc(set->object[i], set->size[i] + 100);
				memset(set->object[i] + set->size[i], (unsigned char)(1 + i), 100);
				set->size[i] += 100;
			}
		}
		EXPECT(is_set(set, 1));
		more = make_set(5);
		EXPECT(is_set(set, 1) && is_set(more, 5));
		free_set(more);
		free_set(set);
		end_child();
	}
	expect_well(child);
	EXPECT(is_set(set, 1));
	free_set(set);
}

static void generations(void)
{
	struct set *first = make_set(1), *second, *third;
	pid_t child, grandchild;

	child = fork();
	if (child == 0) {
		second = make_set(2);
		write_set(first, 11);
		grandchild = fork();
		if (grandchild == 0) {
			third = make_set(3);
			EXPECT(is_set(first, 11) && is_set(second, 2) && is_set(third, 3));
			write_set(first, 12);
			write_set(second, 13);
			grandchild = fork();
			if (grandchild == 0) {
				EXPECT(is_set(first, 12) && is_set(second, 13) && is_set(third, 3));
				free_set(first);
				free_set(second);
				free_set(third);
				end_child();
			}
			expect_well(grandchild);
			EXPECT(is_set(first, 12) && is_set(second, 13) && is_set(third, 3));
			end_child();
		}
		expect_well(grandchild);
		EXPECT(is_set(first, 11) && is_set(second, 2));
		free_set(second);
		end_child();
	}
	expect_well(child);
	EXPECT(is_set(first, 1));
	free_set(first);
}

/* Clients of the daemon, by its own account. */
static int count_clients(void)
{
	FILE *p = popen("\"$TGCTL\" --socket \"$TG_SOCKET\" --json status", "r");
	char text[4096] = "";
	const char *found;

	if (p) {
		text[fread(text, 1, sizeof(text) - 1, p)] = '\0';
		pclose(p);
	}
	found = strstr(text, "\"clients\": ");
	return found ? atoi(found + strlen("\"clients\": ")) : -1;
}

/* As a service goes into the background: the parent ends, so its memory is anybody's, and the
 * child needs some.  It must not get it where it still has what it inherited. */
static void outlives_parent(void)
{
	struct set *set, *more[6];
	pid_t middle;
	unsigned i;

	unsetenv("LD_PRELOAD"); /* tgctl is no client */
	open_pipes();
	touch_heap();
	middle = fork();
	if (middle == 0) {
		set = make_set(1);
		if (fork() != 0)
			_exit(0);
		close(to_child[1]);
		hear(to_child);
		for (i = 0; i < 6; i++)
			more[i] = make_set((unsigned char)(20 + i));
		EXPECT(is_set(set, 1));
		for (i = 0; i < 6; i++)
			EXPECT(is_set(more[i], (unsigned char)(20 + i)));
		for (i = 0; i < 6; i++)
			free_set(more[i]);
		if (failures == 0)
			say(to_parent);
		_exit(0);
	}
	expect_well(middle);
	while (count_clients() > 1)
		usleep(10000);
	say(to_child);
	close(to_parent[1]);
	hear(to_parent);
}

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

/* A process that has a child executes another program, which must become a client as the first was.  At once: the child
 * may not have run at all by then. */
static void fork_and_execute(void)
{
	touch_heap();
	if (fork() == 0) {
		char c;

		/* Allocates nothing, and lives until the parent ends. */
		close(to_child[1]);
		_exit(read(to_child[0], &c, 1) == 0 ? 0 : 1);
	}
	close(to_child[0]);
	execl("/proc/self/exe", "fork_user", "executed", NULL);
	EXPECT(!"execl");
}

static void executes(void)
{
	unsigned round;

	for (round = 0; round < 30; round++) {
		pid_t child;

		open_pipes();
		child = fork();
		if (child == 0) {
			fork_and_execute();
			end_child();
		}
		expect_well(child);
		close(to_child[0]);
		close(to_child[1]);
		close(to_parent[0]);
		close(to_parent[1]);
	}
}

static void executed(void)
{
	FILE *maps;
	char line[512];
	bool found = false;

	touch_heap();
	maps = fopen("/proc/self/maps", "r");
	while (maps && fgets(line, sizeof(line), maps))
		found = found || strstr(line, "memfd:tg-heap");
	EXPECT(found);
}

static const struct {
	const char *name;
	void (*run)(void);
} stories[] = {
	{"private", is_private},
	{"inherited", inherited},
	{"generations", generations},
	{"outlives-parent", outlives_parent},
	{"among-threads", among_threads},
	{"by-many-threads", by_many_threads},
	{"stack-in-heap", on_stack_in_heap},
	{"no-descriptors", without_descriptors},
	{"leaves-threads-alone", leaves_threads_alone},
	{"executes", executes},
	{"executed", executed},
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
		fprintf(stderr, "usage: fork_user STORY...\n");
		return 2;
	}
	return failures == 0 ? 0 : 1;
}
