/* badpeers.h - one daemon for all tests of a program, and a peer that breaks the rules; after each test the daemon has to serve
 * a good client.
 *
 * For test_hostile_peers and test_greedy_peers.
 */
#pragma once

#include <CUnit/CUnit.h>
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "tests/support/daemon.h"
#include "tests/support/peer.h"

#define N_FILES         128 /* of the daemon: 64 for itself, 2 a connection */
#define CONNECTIONS_MAX 32

static struct tgt_daemon d;
static struct tgt_peer bad;
static pid_t daemon_pid;

static inline int start_all(void)
{
	const char *const args[] = {"--mode", "0666", NULL};
	int r = tgt_daemon_start_limited(&d, args, N_FILES);

	daemon_pid = r == 0 ? tgt_daemon_worker(&d, NULL) : 0;
	return r;
}

static inline int stop_all(void)
{
	return tgt_daemon_stop(&d);
}

static inline void set_up(void)
{
	CU_ASSERT_EQUAL_FATAL(tgt_peer_connect(&bad, d.socket), 0);
}

/* What each test ends with: the daemon is the same one and does its work. */
static inline void tear_down(void)
{
	tgt_peer_close(&bad);
	CU_ASSERT_EQUAL(tgt_peer_good_client(d.socket), 0);
	CU_ASSERT_EQUAL(kill(daemon_pid, 0), 0);
}

static inline void send_bytes(const void *bytes, size_t n)
{
	CU_ASSERT_EQUAL_FATAL(tgt_peer_send(&bad, bytes, n, NULL), 0);
}

/* Packs a request; the caller chooses everything. */
static inline size_t pack(const Tgd__Request *request, uint8_t *buf, size_t size)
{
	ssize_t n = tgp_request_pack(request, buf, size);

	CU_ASSERT_FATAL(n > 0);
	return (size_t)n;
}

static inline size_t pack_ping(uint64_t id, uint8_t *buf, size_t size)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Admin admin = TGD__ADMIN__INIT;

	admin.what = TGD__ADMIN__WHAT__PING;
	request.id = id;
	request.body_case = TGD__REQUEST__BODY_ADMIN;
	request.admin = &admin;
	return pack(&request, buf, size);
}

static inline unsigned count_open_files(pid_t pid)
{
	char path[32];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir != NULL && readdir(dir) != NULL)
		n++;
	if (dir != NULL)
		closedir(dir);
	return n - 2; /* . and .. */
}

/* The last test of each: nothing is left of all the others. */
static inline void no_connection_and_no_client_is_left(void)
{
	const Tgd__Reply *reply;
	unsigned before;

	CU_ASSERT_EQUAL_FATAL(tgt_peer_hello(&bad), 0);
	before = count_open_files(daemon_pid);
	CU_ASSERT(before < 40);
	CU_ASSERT_EQUAL_FATAL(tgt_peer_admin(&bad, TGD__ADMIN__WHAT__CHECK, 0, &reply), 0);
	CU_ASSERT(reply->check->ok);
	CU_ASSERT_EQUAL(reply->check->objects, 0);
	CU_ASSERT_EQUAL_FATAL(tgt_peer_admin(&bad, TGD__ADMIN__WHAT__STATUS, 0, &reply), 0);
	CU_ASSERT_EQUAL(reply->status->clients, 0);
	CU_ASSERT_EQUAL(reply->status->slots, 0);
}
