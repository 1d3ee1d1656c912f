#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <tg.h>

struct node {
	tg_link next;
	char word[24];
};

int main(void)
{
	struct node *list, *node;

	if (tg_attach(NULL) < 0)
		return fprintf(stderr, "%s\n", tg_attach_error()), 1;
	list = tg_calloc(1, sizeof(*list));
	tg_root_set("words", list); /* any process finds it by this name */
	if (fork() == 0) {          /* the child allocates, and dies */
		node = tg_calloc(1, sizeof(*node));
		strcpy(node->word, "made by the child");
		tg_swap(&list->next, NULL, node, TG_GIVE);
		_exit(0);
	}
	wait(NULL);
	node = tg_link_get(&list->next); /* the parent reads what it left, and frees it */
	printf("%s\n", node->word);
	tg_swap(&list->next, node, NULL, TG_RETIRE);
	tg_root_set("words", NULL);
	tg_free(list);
	return tg_detach() < 0;
}
