/* ctl.h - one run of tgctl: its options, where it writes, and how it fails. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "client/ctl/talk.h"
#include "proto/path.h"

/* Exit statuses: a contract with scripts. */
enum {
	TGC_OK = 0,
	TGC_BAD_NEWS = 1, /* the daemon refused, or check found damage */
	TGC_WRONG_USE = 2,
	TGC_UNREACHABLE = 3, /* no daemon, or none that answers */
};

/* Format of the sentence about a size that is none; takes the text. */
#define TGC_SIZE_WRONG(what)                                                                   \
	what ": \"%s\" is no size; say, for example, 64M, 1.5G or 1073741824 (K, M, G, T are " \
	     "binary)"

struct tgc_ctl {
	FILE *out, *err;    /* err takes sentences, out everything else */
	const char *socket; /* --socket, or NULL */
	bool json;
	bool help;
	bool preload;   /* run --preload */
	uint64_t limit; /* run --limit, in bytes; 0: not given */
	int timeout_ms;

	struct tgc_talk *talk; /* NULL: not connected */
	char path[TGP_SOCKET_PATH_SIZE];
};

/* Says what was wrong; with --json on `out`, too.  error: negative errno.  Returns the status. */
int tgc_ctl_fail(struct tgc_ctl *ctl, int status, int error, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* Connects to the daemon.  TGC_OK, or a status, and then it said why. */
int tgc_ctl_connect(struct tgc_ctl *ctl);

/* Asks, connecting first if need be; body: kind of answer wanted, 0 = any.  As tgc_ctl_connect. */
int tgc_ctl_ask(struct tgc_ctl *ctl, const Tgd__Admin *ask, unsigned body, const Tgd__Reply **ret);
