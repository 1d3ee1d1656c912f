/* error.c - what is said when a pointer is freed at which no live object starts.
 *
 * One line on stderr that names address, class, place and owner; then abort (default), or count and go on
 * (TG_ON_ERROR=count).  Written with write(2) from a buffer on the stack: the heap may be what is broken.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cache.h"

struct line {
	char text[512];
	size_t n;
};

static void say(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct line *line, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(line->text + line->n, sizeof(line->text) - line->n, format, args);
	va_end(args);
	if (n > 0)
		line->n = tgs_min(line->n + (size_t)n, sizeof(line->text) - 1);
}

static void say_owner(struct line *line, unsigned slot)
{
	const struct tgs_client *clients =
		(const struct tgs_client *)((const uint8_t *)tgc_heap.map +
					    tgc_heap.geometry.clients_at);
	uint32_t index =
		atomic_load_explicit(&tgc_heap.slot_owners[slot].client, memory_order_relaxed);

	if (slot == TGS_SLOT_CENTRAL || index == 0 || index > TGS_CLIENTS_MAX) {
		say(line, ", held by no client");
		return;
	}
	say(line, ", owned by thread slot %u of pid %u (%.63s)%s", slot, clients[index - 1].pid,
	    clients[index - 1].name, slot == tgc_cache->slot_id ? ", the calling thread" : "");
}

static void say_place(struct line *line, const void *p)
{
	struct tgs_object object;

	switch (tgs_object_find(&tgc_heap, p, &object)) {
	case TGS_NOT_IN_HEAP:
		say(line, "it does not lie in the heap, which is at %p to %p",
		    (void *)tgc_heap.data, (void *)(tgc_heap.data + tgc_heap.data_bytes));
		return;
	case TGS_NO_SPAN:
		say(line, "page %llu of the heap is free, or inside a large object",
		    (unsigned long long)((uint64_t)((const uint8_t *)p - tgc_heap.data) >>
					 TGS_PAGE_SHIFT));
		return;
	case TGS_NOT_A_START:
		say(line, "no object starts there");
		break;
	case TGS_FOUND:
		say(line, "no live object starts there: it was freed before, or never allocated");
		break;
	}
	if (object.span.class == 0)
		say(line, "; large object of %llu pages", (unsigned long long)object.span.n_pages);
	else if (object.span.class == TGS_CLASS_TINY)
		say(line, "; class 68 (tiny)");
	else
		say(line, "; class %u (%u bytes), slot %u", object.span.class,
		    tgs_classes[object.span.class].size, object.index);
	say(line, " of the span at page %llu", (unsigned long long)object.span.page);
	say_owner(line, object.span.owner);
}

void tgc_report(enum tgc_error error, const void *p)
{
	struct line line = {.n = 0};
	struct tgs_object object;
	int cancel_state, saved_errno = errno;
	ssize_t written;

	/* The hot path only sees that no live object starts there. */
	if (error == TGC_DOUBLE_FREE && tgs_object_find(&tgc_heap, p, &object) != TGS_FOUND)
		error = TGC_INVALID_FREE;

	say(&line, "together: pid %d: ", (int)getpid());
	switch (error) {
	case TGC_DOUBLE_FREE:
		say(&line, "double free of %p: ", p);
		say_place(&line, p);
		break;
	case TGC_INVALID_FREE:
		say(&line, "invalid free of %p: ", p);
		say_place(&line, p);
		break;
	case TGC_NOT_ATTACHED:
		say(&line, "free of %p: this process is not attached to a heap", p);
		break;
	}
	if (!tgc_saved.count_errors)
		say(&line, "; aborting (TG_ON_ERROR=count goes on)");
	line.text[line.n++] = '\n';
	/* tg_free is no point at which a thread can be cancelled, and write is. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	written = write(STDERR_FILENO, line.text, line.n);
	(void)written;
	pthread_setcancelstate(cancel_state, NULL);
	if (!tgc_saved.count_errors)
		abort();
	if (tgc_process)
		atomic_fetch_add_explicit(&tgc_process->errors, 1, memory_order_relaxed);
	errno = saved_errno;
}

void tgc_report_twice(uint64_t page, unsigned class, unsigned unit, uint64_t slots)
{
	for (; slots != 0; slots &= slots - 1)
		tgc_report(TGC_DOUBLE_FREE,
			   tgs_page_address(&tgc_heap, page) +
				   (uint64_t)(unit * 64 + (unsigned)__builtin_ctzll(slots)) *
					   tgs_classes[class].size);
}
