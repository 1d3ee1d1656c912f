/* request.h - what each message of the protocol does. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "daemon/session.h"
#include "proto/msg.h"

/* A reply in the making.  Rows and cells lie in static storage: one request is handled at a
 * time. */
struct tgd_answer {
	Tgd__Reply reply;
	union {
		Tgd__HelloReply hello;
		Tgd__AttachReply attach;
		Tgd__SlotReply slot;
		Tgd__SpansReply spans;
		Tgd__HoldingsReply holdings;
		Tgd__Status status;
		Tgd__Clients clients;
		Tgd__Classes classes;
		Tgd__Spans span_list;
		Tgd__Map map;
		Tgd__Roots roots;
		Tgd__Check check;
		Tgd__Trimmed trimmed;
	} body;
	bool with_fds; /* the heap's descriptors go with the reply */
	bool later; /* the reply follows when something has happened, or the request comes again */
	char why[512]; /* the sentence of an error */
};

/* Answers one request.  0: done, an error reply included; -EPROTO: the peer broke the rules, as
 * `why` says, and was not answered yet. */
int tgd_request_handle(struct tgd_session *session, const Tgd__Request *request, char *why,
		       size_t why_size);

/* Writes the sentence of an error and returns the error. */
int tgd_answer_refuse(struct tgd_answer *answer, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The client has no connection any more: it may come back, unless it is another program by now. */
void tgd_client_lost(struct tgd_client *client, const char *why);

/* Passes on what the heap says about its last error. */
int tgd_answer_heap_refuses(const struct tgd_session *session, struct tgd_answer *answer,
			    int error);
