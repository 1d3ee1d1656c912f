/* context.h - what the parts of one daemon share: heap, clients, connections, a few counts.
 *
 * server.c owns it and everything in it.  The functions in it are the server's, given as pointers
 * so that what lies below need not know it.  One thread.
 */
#pragma once

#include <stdint.h>

#include "daemon/config.h"
#include "daemon/peer.h"

struct event_base;
struct tgd_client;
struct tgd_heap;
struct tgd_session;

/* What is known of the keeper; the text is the context's. */
struct tgd_keeping {
	pid_t keeper_pid; /* 0: there is none right now */
	uint64_t restarts;
	const char *
		upgrade_failure; /* why the last upgrade was not done; "": it was, or there was none */
};

struct tgd_context {
	struct tgd_config *config;
	struct tgd_heap *heap;
	struct event_base *base;
	struct tgd_access access;         /* who may connect */
	struct tgd_client *clients_by_id; /* uthash: processes that are clients, not ended */
	struct tgd_client *clients_by_pid;
	unsigned n_clients;
	struct tgd_session *sessions; /* utlist: connections */
	unsigned n_sessions;
	unsigned max_sessions; /* as many as there are descriptors for, with a pidfd for each */
	unsigned n_waiting;    /* sessions that wait for a client to be settled */
	unsigned n_unread_attaches; /* sessions whose AttachReply may lie unread */
	uint64_t start_ms;          /* tgd_now_ms at the start */
	uint64_t messages;          /* requests of clients answered */
	uint64_t span_messages;     /* of these: about spans */

	/* The heap may have background work to do. */
	void (*want_work)(struct tgd_context *context);

	/* The number of clients has changed. */
	void (*clients_changed)(struct tgd_context *context);

	/* Ends the daemon, in the next turn of the loop: what was answered so far is sent. */
	void (*stop)(struct tgd_context *context, const char *why);

	/* Has the keeper put another program in our place: an open file, which stays the caller's, and
	 * its path. It then asks us to retire.  -errno: the keeper was not asked. */
	int (*upgrade)(struct tgd_context *context, int program, const char *path);

	void (*tell_keeping)(const struct tgd_context *context, struct tgd_keeping *ret);
};

/* Milliseconds of a clock that nobody sets. */
uint64_t tgd_now_ms(void);
