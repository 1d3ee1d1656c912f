/* fork_user.c - a program that knows nothing of Together, and forks; test_malloc runs it with
 * libtgmalloc.so preloaded.
 *
 * usage: fork_user STORY...    (the names are in the table at the end)
 *
 * After fork each process has what it had, and none sees what the other does to it: child, grandchild, one that outlives its
 * parent, one that executes another program.
 */
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/forks.h"

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

static const struct story stories[] = {
	{"private", is_private},      {"inherited", inherited},
	{"generations", generations}, {"outlives-parent", outlives_parent},
	{"executes", executes},       {"executed", executed},
};

int main(int argc, char **argv)
{
	return run_stories(argc, argv, stories, sizeof(stories) / sizeof(stories[0]));
}
