/* attach.c - becoming a client of a heap, and ceasing to be one.
 *
 * Attaching: options and environment to tgc_saved; connect; map the two files at the heap's address.  A forked child finds
 * its parent's mapping in place and only becomes a client of its own, if the daemon still serves the same heap.
 */
#include "client/tg.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cache.h"
#include "client/rpc.h"
#include "proto/path.h"

#define TIMEOUT_MS_DEFAULT 5000

static char why[256];

const char *tgc_attach_why(void)
{
	return why;
}

TG_API const char *tg_attach_error(void)
{
	return why;
}

static int save_text(char *to, size_t size, const char *text, const char *what)
{
	if (strlen(text) >= size) {
		snprintf(why, sizeof(why), "the %s is longer than %zu bytes", what, size - 1);
		return -ENAMETOOLONG;
	}
	memset(to, 0, size);
	memcpy(to, text, strlen(text));
	return 0;
}

/* The options are taken by value, as far as this program's struct tg_options goes; a field that we do not know must be
 * zero, or we would ignore a wish. */
static int take_options(const struct tg_options *given, struct tg_options *ret)
{
	size_t size = given ? given->size : 0, i;

	memset(ret, 0, sizeof(*ret));
	if (!given)
		return 0;
	if (size == 0)
		size = sizeof(*ret);
	for (i = sizeof(*ret); i < size; i++) {
		if (((const char *)given)[i] != 0) {
			snprintf(why, sizeof(why),
				 "struct tg_options has fields that libtg %s does not know",
				 tg_version());
			return -EINVAL;
		}
	}
	memcpy(ret, given, size < sizeof(*ret) ? size : sizeof(*ret));
	if (ret->flags & ~(unsigned)(TG_RECLAIM | TG_AUTOSTART | TG_ANY_ADDRESS)) {
		snprintf(why, sizeof(why), "unknown flags 0x%x", ret->flags);
		return -EINVAL;
	}
	if (ret->timeout_ms < 0) {
		snprintf(why, sizeof(why), "timeout_ms is negative (%d)", ret->timeout_ms);
		return -EINVAL;
	}
	return 0;
}

static int save_options(const struct tg_options *given)
{
	struct tg_options options;
	const char *on_error = secure_getenv("TG_ON_ERROR");
	const char *heap;
	int r;

	r = take_options(given, &options);
	if (r < 0)
		return r;
	heap = options.heap ? options.heap : secure_getenv("TG_HEAP");
	r = save_text(tgc_saved.heap, sizeof(tgc_saved.heap), heap ? heap : "", "heap's name");
	if (r < 0)
		return r;
	r = save_text(tgc_saved.name, sizeof(tgc_saved.name),
		      options.name ? options.name : program_invocation_short_name, "client's name");
	if (r == -ENAMETOOLONG && !options.name) {
		memcpy(tgc_saved.name, program_invocation_short_name, sizeof(tgc_saved.name) - 1);
		r = 0;
	}
	if (!options.name)
		tgp_text_clean(tgc_saved.name, TGP_NAME_MAX);
	if (r < 0)
		return r;
	r = tgp_socket_path(options.socket, tgc_saved.socket, sizeof(tgc_saved.socket));
	if (r < 0) {
		snprintf(why, sizeof(why), "the socket's path is empty, or longer than %zu bytes",
			 sizeof(tgc_saved.socket) - 1);
		return r;
	}
	tgc_saved.flags = options.flags;
	tgc_saved.timeout_ms = options.timeout_ms ? options.timeout_ms : TIMEOUT_MS_DEFAULT;
	tgc_saved.count_errors = false;
	if (on_error && strcmp(on_error, "count") == 0) {
		tgc_saved.count_errors = true;
	} else if (on_error && strcmp(on_error, "abort") != 0 && on_error[0] != '\0') {
		snprintf(why, sizeof(why), "TG_ON_ERROR is \"%.32s\"; it can be abort or count",
			 on_error);
		return -EINVAL;
	}
	return 0;
}

/* Maps the heap, or, in a forked child, finds it mapped. */
static int map_heap(int map_fd, int heap_fd, const Tgd__AttachReply *reply, bool in_child)
{
	int r;

	if (in_child && tgc_heap.base) {
		if (memcmp(reply->heap_uuid.data, tgc_saved.uuid, sizeof(tgc_saved.uuid)) == 0)
			return 0;
		snprintf(why, sizeof(why),
			 "the daemon at %.100s serves another heap than the one of our parent",
			 tgc_saved.socket);
		return -ENOTCONN;
	}
	r = tgs_region_map(&tgc_heap, map_fd, heap_fd, false,
			   (tgc_saved.flags & TG_ANY_ADDRESS) != 0, why, sizeof(why));
	if (r < 0)
		return r;
	memcpy(tgc_saved.uuid, reply->heap_uuid.data, sizeof(tgc_saved.uuid));
	return 0;
}

int tgc_attach_locked(bool in_child)
{
	const Tgd__AttachReply *reply;
	TGS_CLOSE int map_fd = -1;
	TGS_CLOSE int heap_fd = -1;
	int r;

	why[0] = '\0';
	r = tgc_rpc_open(&reply, &map_fd, &heap_fd);
	if (r < 0) {
		snprintf(why, sizeof(why), "%s", tgc_rpc_why());
		return r;
	}
	tgc_process->client_id = reply->client_id;
	r = map_heap(map_fd, heap_fd, reply, in_child);
	if (r == 0) {
		tgc_process->spans =
			tgc_wiped_alloc(tgc_heap.geometry.n_pages * sizeof(struct tgc_span));
		if (!tgc_process->spans || !tgc_owns_open())
			r = -ENOMEM;
	}
	if (r < 0) {
		tgc_rpc_close();
		if (!in_child)
			tgs_region_unmap(&tgc_heap);
		return r;
	}
	atomic_store_explicit(&tgc_process->attached, 1, memory_order_release);
	return 0;
}

static int attach(const struct tg_options *options)
{
	struct tgc_saved before;
	int r = 0;

	pthread_mutex_lock(&tgc_process->lock);
	if (tgc_saved.attach_count == 0) {
		/* Only a child that was forked while another thread was in here finds a mapping. */
		tgs_region_unmap(&tgc_heap);
		before = tgc_saved;
		r = save_options(options);
		if (r == 0)
			r = tgc_attach_locked(false);
		if (r < 0)
			tgc_saved = before;
	}
	if (r == 0)
		tgc_saved.attach_count++;
	pthread_mutex_unlock(&tgc_process->lock);
	return r;
}

TG_API int tg_attach(const struct tg_options *options)
{
	int r, cancel_state;

	if (!tgc_process_init())
		return -ENOMEM;
	/* What we call here are points at which a thread can be cancelled; and we have a lock. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	r = attach(options);
	pthread_setcancelstate(cancel_state, NULL);
	return r;
}

static void detach(void)
{
	Tgd__Detach body = TGD__DETACH__INIT;
	Tgd__Request request = TGD__REQUEST__INIT;
	struct tgc_cache *cache;

	for (cache = tgc_process->all; cache; cache = cache->next_all) {
		if (cache->slot_id != 0)
			tgc_foreign_flush(cache);
	}
	/* The rest is the daemon's: it settles our slots as it would had we ended, in one go. */
	request.body_case = TGD__REQUEST__BODY_DETACH;
	request.detach = &body;
	tgc_rpc_begin();
	(void)tgc_rpc_call(&request, TGD__REPLY__BODY__NOT_SET, NULL);
	tgc_rpc_end();
	tgc_rpc_close();
	tgc_process_clear();
}

TG_API int tg_detach(void)
{
	int cancel_state;

	if (!tgc_process || tgc_saved.attach_count == 0)
		return -ENOTCONN;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	pthread_mutex_lock(&tgc_process->lock);
	if (--tgc_saved.attach_count == 0) {
		if (atomic_load_explicit(&tgc_process->attached, memory_order_acquire))
			detach();
		else
			tgs_region_unmap(
				&tgc_heap); /* a forked child that never was a client itself */
	}
	pthread_mutex_unlock(&tgc_process->lock);
	pthread_setcancelstate(cancel_state, NULL);
	return 0;
}

TG_API const char *tg_version(void)
{
	return "0.1.0";
}
