/* client.h - a process that is a client of the heap, connected or not, until it exits or
 * detaches. */
#pragma once

#include <stdint.h>
#include <sys/types.h>
#include <uthash.h>

#include "daemon/context.h"
#include "daemon/heap.h"

struct event;

struct tgd_client {
	struct tgd_context *context;
	uint32_t id; /* the heap's */
	pid_t pid;
	uid_t uid;
	uint64_t start_time; /* with pid: the process, for good */
	int pidfd;           /* readable when the process has ended */
	struct event *exit_event;
	struct tgd_session *session; /* its connection; NULL: away */
	uint64_t messages;
	char label[160]; /* for the log: id, pid, uid, name */
	UT_hash_handle by_id, by_pid;
};

/* What is known of a process that wants to be a client.  The descriptor stays the caller's on
 * failure. */
struct tgd_client_new {
	const struct tgd_peer *peer;
	int pidfd;
	uint64_t start_time;
	uint32_t flags;
	const char *name;
};

/* Enters it into the heap's table and watches for its end.  `on_exit` is called from the loop when
 * the process has ended; it is to call tgd_client_end.  -ENOMEM, or as tgd_heap_client_add. */
int tgd_client_add(struct tgd_context *context, const struct tgd_client_new *new,
		   void (*on_exit)(struct tgd_client *client), struct tgd_client **ret);

/* The same for one that the heap's table lists from the time of another daemon.  It is away.  -ESRCH:
 * its process has ended; or what the kernel says. */
int tgd_client_resume(struct tgd_context *context, const struct tgd_client_info *info,
		      void (*on_exit)(struct tgd_client *client));

struct tgd_client *tgd_client_by_id(const struct tgd_context *context, uint32_t id);
struct tgd_client *tgd_client_by_pid(const struct tgd_context *context, pid_t pid);

/* The client is no more: the heap settles what it held, and the struct is freed. */
void tgd_client_end(struct tgd_client *client, const char *how, bool orderly);

/* Frees all without a word to the heap, which goes too. */
void tgd_clients_free(struct tgd_context *context);
