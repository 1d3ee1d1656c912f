/* wire.h - the connection as client/rpc.c sees it: requests go out, replies come in.
 *
 * All under the connection's lock, but for the first connection of the process, of which nobody knows yet.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "client/process.h"
#include "client/rpc.h"
#include "proto/fdpass.h"

#define TGC_OUT_SIZE    8192u
#define TGC_IN_SIZE     16384u
#define TGC_UNPACK_SIZE 65536u

struct tgc_rpc {
	pthread_mutex_t lock;
	int cancel_state; /* of the thread that has the lock, as it was before; the next two likewise */
	int saved_errno;
	bool used_libc;
	bool gave_up;    /* the last attempt to make the connection again failed */
	unsigned misses; /* waits, one after the other, in which looking was in vain */
	uint64_t next_id;
	_Atomic uint64_t messages;
	_Atomic uint64_t reconnects;
	struct tgc_post *posts; /* outstanding */
	struct tgc_first first;
	struct tgp_arena arena;
	char why[TGP_TEXT_MAX + 1];
	int fds[TGP_FDS_MAX]; /* came with the last reply */
	size_t n_fds;
	size_t in_n, out_n;
	unsigned
		n_unheard; /* requests sent whose answers nobody waits for, since one was last waited for */
	bool holds; /* requests wait in `out` for others to be sent with them */
	uint8_t out[TGC_OUT_SIZE];
	uint8_t in[TGC_IN_SIZE];
	uint8_t unpack[TGC_UNPACK_SIZE];
};

static inline struct tgc_rpc *tgc_wire(void)
{
	return tgc_process->rpc;
}

int64_t tgc_wire_now_ms(void);

/* Is the descriptor still the socket that we opened? */
bool tgc_wire_is_ours(void);

/* Closes it.  Whoever has posted a request is told that no reply will come. */
void tgc_wire_disconnect(void);

/* Those that came with the last reply and that nobody has taken. */
void tgc_wire_close_fds(void);

/* Sends a request, whose id is filled in; while `holds` is set, only puts it into `out`. */
int tgc_wire_send(Tgd__Request *request, int64_t deadline);
int tgc_wire_release(int64_t deadline); /* what is held back goes */

/* Receives one reply; if it is that of a posted request, hands it over, and *ret is NULL. */
int tgc_wire_receive(const Tgd__Reply **ret, int64_t deadline);

/* The reply to the request of that id.  Its error, or -errno. */
int tgc_wire_await(uint64_t id, Tgd__Reply__BodyCase body, const Tgd__Reply **ret,
		   int64_t deadline);

/* One exchange on the connection that there is. */
int tgc_wire_exchange(Tgd__Request *request, Tgd__Reply__BodyCase body, const Tgd__Reply **ret,
		      int64_t deadline);
