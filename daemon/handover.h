/* handover.h - what keeper and worker give each other when one of them starts the other. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/path.h"
#include "shm/layout.h"

#define TGD_FAILURE_SIZE 256

enum tgd_role {
	TGD_ROLE_FIRST, /* started by others: becomes a keeper, and makes all */
	TGD_ROLE_KEEPER, /* started by a worker whose keeper died, or by the keeper before an upgrade */
	TGD_ROLE_WORKER, /* started by a keeper */
};

/* Descriptors that are not there are -1. */
struct tgd_handover {
	enum tgd_role role;
	int control;      /* to the other one */
	int listener;     /* the socket that listens */
	int lock;         /* the lock file */
	int map, heap;    /* the memory files; not there before the first worker has made them */
	int worker;       /* for a keeper: the pidfd of its worker */
	pid_t keeper_pid; /* 0: not known */
	pid_t worker_pid;
	uint64_t restarts; /* workers that served this heap before */
	bool ready;        /* for a keeper: its worker serves */
	mode_t mode;       /* of the socket */
	gid_t gid;
	char socket[TGP_SOCKET_PATH_SIZE];
	char name[TGS_HEAP_NAME_SIZE];  /* of the heap */
	char failure[TGD_FAILURE_SIZE]; /* why the last upgrade was not done; "": it was */
};

/* Nothing is there. */
void tgd_handover_init(struct tgd_handover *handover);

/* Reads what was handed over to this process, and takes it out of the environment; nothing: role
 * FIRST. The descriptors are the caller's.  -EINVAL: what is there is none of tgd's making; with a
 * sentence. */
int tgd_handover_take(struct tgd_handover *ret, char *why, size_t why_size);

/* Executes the program (an open file) with these arguments, which then finds the handover.  Of all
 * descriptors, it gets the standard ones and those in it.  Returns only on failure: -errno. */
int tgd_handover_exec(const struct tgd_handover *handover, int program, char **argv);

/* This program's own file, for tgd_handover_exec: the caller's, or -errno. */
int tgd_handover_self(void);
