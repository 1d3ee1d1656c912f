/* Clients of a daemon: attach, away, death, and who may do what. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CUnit/CUnit.h>

#include "tests/support/daemon.h"
#include "tests/support/peer.h"
#include "tests/support/runner.h"

#define NOBODY 65534

static struct tgt_daemon d;
static struct tgt_peer a, b;

static void *heap; /* as a client has it; MAP_FAILED: not mapped */
static size_t heap_bytes;

static void set_up(void)
{
	heap = MAP_FAILED;
	a.fd = b.fd = -1;
	CU_ASSERT_EQUAL_FATAL(tgt_daemon_start(&d, NULL), 0);
}

static void tear_down(void)
{
	tgt_peer_close(&a);
	tgt_peer_close(&b);
	if (heap != MAP_FAILED)
		munmap(heap, heap_bytes);
	CU_ASSERT_EQUAL(tgt_daemon_stop(&d), 0);
}

static void connect_and_greet(struct tgt_peer *peer)
{
	CU_ASSERT_EQUAL_FATAL(tgt_peer_connect(peer, d.socket), 0);
	CU_ASSERT_EQUAL_FATAL(tgt_peer_hello(peer), 0);
}

/* The error of an attach (0: none), and its client id. */
static int attach(struct tgt_peer *peer, uint32_t client_id, uint32_t *ret_id)
{
	const Tgd__Reply *reply;

	CU_ASSERT_EQUAL_FATAL(tgt_peer_attach(peer, "test", 0, client_id, &reply), 0);
	if (reply->error == 0 && ret_id != NULL)
		*ret_id = reply->attach->client_id;
	if (reply->error == 0 && heap == MAP_FAILED && peer->n_fds == 2) {
		heap_bytes = reply->attach->heap_bytes;
		heap = mmap(NULL, heap_bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, peer->fds[1],
			    0);
		CU_ASSERT(heap != MAP_FAILED);
	}
	return reply->error;
}

static int admin(struct tgt_peer *peer, Tgd__Admin__What what, uint64_t value)
{
	const Tgd__Reply *reply;

	CU_ASSERT_EQUAL_FATAL(tgt_peer_admin(peer, what, value, &reply), 0);
	return reply->error;
}

static Tgd__Status status_of(struct tgt_peer *peer)
{
	const Tgd__Reply *reply;

	CU_ASSERT_EQUAL_FATAL(tgt_peer_admin(peer, TGD__ADMIN__WHAT__STATUS, 0, &reply), 0);
	CU_ASSERT_EQUAL_FATAL(reply->body_case, TGD__REPLY__BODY_STATUS);
	return *reply->status;
}

/* State of the one client that there is: 0 connected, 1 away; -1: there is none. */
static int client_state(struct tgt_peer *peer)
{
	const Tgd__Reply *reply;

	CU_ASSERT_EQUAL_FATAL(tgt_peer_admin(peer, TGD__ADMIN__WHAT__CLIENTS, 0, &reply), 0);
	return reply->clients->n_clients == 1 ? (int)reply->clients->clients[0]->state : -1;
}

/* Runs in a process of its own, as this user; says whether it returned true. */
static bool in_child(bool (*what)(void), uid_t uid)
{
	pid_t parent = getpid(), pid;
	int status = -1;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
			_exit(2);
		if (uid != 0 && (setgroups(0, NULL) < 0 || setgid(uid) < 0 || setuid(uid) < 0))
			_exit(2);
		_exit(what() ? 0 : 1);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return false;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- clients ---- */

static void attach_gives_both_files_and_the_map_cannot_be_written(void)
{
	const Tgd__Reply *reply;
	struct stat st;

	connect_and_greet(&a);
	CU_ASSERT_EQUAL_FATAL(tgt_peer_attach(&a, "test", 0, 0, &reply), 0);
	CU_ASSERT_EQUAL_FATAL(reply->error, 0);
	CU_ASSERT_EQUAL_FATAL(reply->body_case, TGD__REPLY__BODY_ATTACH);
	CU_ASSERT_EQUAL_FATAL(a.n_fds, 2);
	CU_ASSERT_EQUAL(fstat(a.fds[0], &st), 0);
	CU_ASSERT_EQUAL((uint64_t)st.st_size, reply->attach->map_bytes);
	CU_ASSERT_EQUAL(fcntl(a.fds[0], F_GETFL) & O_ACCMODE, O_RDONLY);
	CU_ASSERT_EQUAL(fstat(a.fds[1], &st), 0);
	CU_ASSERT_EQUAL((uint64_t)st.st_size, reply->attach->heap_bytes);
	CU_ASSERT_EQUAL(fcntl(a.fds[1], F_GETFL) & O_ACCMODE, O_RDWR);
	CU_ASSERT_NOT_EQUAL(reply->attach->client_id, 0);
}

static void attach_is_refused_for_another_heap_and_unknown_flags(void)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Attach wish = TGD__ATTACH__INIT;
	const Tgd__Reply *reply;

	connect_and_greet(&a);
	request.body_case = TGD__REQUEST__BODY_ATTACH;
	request.attach = &wish;
	wish.heap = "other";
	CU_ASSERT_EQUAL_FATAL(tgt_peer_ask(&a, &request, &reply), 0);
	CU_ASSERT_EQUAL(reply->error, -ENOENT);
	CU_ASSERT_STRING_EQUAL(reply->message,
			       "this daemon serves the heap \"main\", not \"other\"");
	wish.heap = "main";
	wish.flags = 0x10;
	CU_ASSERT_EQUAL_FATAL(tgt_peer_ask(&a, &request, &reply), 0);
	CU_ASSERT_EQUAL(reply->error, -EINVAL);
	wish.flags = 1;
	CU_ASSERT_EQUAL_FATAL(tgt_peer_ask(&a, &request, &reply), 0);
	CU_ASSERT_EQUAL(reply->error, 0);
	/* Once a connection, since the descriptors come once. */
	CU_ASSERT_EQUAL_FATAL(tgt_peer_ask(&a, &request, &reply), 0);
	CU_ASSERT_EQUAL(reply->error, -EALREADY);
}

static void what_needs_a_client_is_refused_without_one(void)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__OpenSlot open = TGD__OPEN_SLOT__INIT;
	const Tgd__Reply *reply;

	connect_and_greet(&a);
	request.body_case = TGD__REQUEST__BODY_OPEN_SLOT;
	request.open_slot = &open;
	CU_ASSERT_EQUAL_FATAL(tgt_peer_ask(&a, &request, &reply), 0);
	CU_ASSERT_EQUAL(reply->error, -ENOTCONN);
	CU_ASSERT_EQUAL(attach(&a, 0, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(tgt_peer_ask(&a, &request, &reply), 0);
	CU_ASSERT_EQUAL(reply->error, 0);
	CU_ASSERT_EQUAL(tgt_peer_detach(&a), 0);
	CU_ASSERT_EQUAL_FATAL(tgt_peer_ask(&a, &request, &reply), 0);
	CU_ASSERT_EQUAL(reply->error, -ENOTCONN);
}

static void a_client_whose_socket_closes_is_away_and_can_come_back(void)
{
	uint32_t id = 0, again = 0;

	connect_and_greet(&a);
	CU_ASSERT_EQUAL(attach(&a, 0, &id), 0);
	connect_and_greet(&b);
	CU_ASSERT_EQUAL(client_state(&b), 0);
	tgt_peer_close(&a);
	CU_ASSERT(tgt_daemon_wait_log(&d, "lost its connection"));
	CU_ASSERT_EQUAL(client_state(&b), 1);
	CU_ASSERT_EQUAL(status_of(&b).clients, 1);

	connect_and_greet(&a);
	CU_ASSERT_EQUAL(attach(&a, id, &again), 0);
	CU_ASSERT_EQUAL(again, id);
	CU_ASSERT_EQUAL(client_state(&b), 0);
	CU_ASSERT_EQUAL(status_of(&b).recovered_clients, 0);
}

static void a_process_is_one_client(void)
{
	uint32_t id = 0, other = 0;

	connect_and_greet(&a);
	connect_and_greet(&b);
	CU_ASSERT_EQUAL(attach(&a, 0, &id), 0);
	CU_ASSERT_EQUAL(attach(&b, 0, &other), -EALREADY);
	CU_ASSERT_EQUAL(attach(&b, id + 1, &other), -ESRCH);
	/* With its id it may take over, as it is the same process. */
	CU_ASSERT_EQUAL(attach(&b, id, &other), 0);
	CU_ASSERT_EQUAL(other, id);
	CU_ASSERT(tgt_peer_at_end(&a));
	CU_ASSERT_EQUAL(client_state(&b), 0);
}

static void a_process_that_forgot_that_it_was_a_client_becomes_a_new_one(void)
{
	uint32_t id = 0, other = 0;

	connect_and_greet(&a);
	CU_ASSERT_EQUAL(attach(&a, 0, &id), 0);
	/* Its socket is closed when it attaches anew, whether or not the daemon has seen that
	 * yet. */
	connect_and_greet(&b);
	tgt_peer_close(&a);
	CU_ASSERT_EQUAL(attach(&b, 0, &other), 0);
	CU_ASSERT_NOT_EQUAL(other, id);
	CU_ASSERT_EQUAL(status_of(&b).clients, 1);
	CU_ASSERT_EQUAL(status_of(&b).recovered_clients, 1);
}

static uint32_t foreign_id;

static bool attach_with_foreign_id(void)
{
	const Tgd__Reply *reply;
	static struct tgt_peer peer;

	return tgt_peer_connect(&peer, d.socket) == 0 && tgt_peer_hello(&peer) == 0 &&
	       tgt_peer_attach(&peer, "thief", 0, foreign_id, &reply) == 0 &&
	       reply->error == -ESRCH;
}

static void another_process_cannot_be_that_client(void)
{
	connect_and_greet(&a);
	CU_ASSERT_EQUAL(attach(&a, 0, &foreign_id), 0);
	CU_ASSERT(in_child(attach_with_foreign_id, 0));
	tgt_peer_close(&a);
	CU_ASSERT(tgt_daemon_wait_log(&d, "lost its connection"));
	CU_ASSERT(in_child(attach_with_foreign_id, 0));
	connect_and_greet(&b);
	CU_ASSERT_EQUAL(client_state(&b), 1);
}

static int heir_lives[2]; /* a pipe: the grandchild reads from it until the test closes it */

/* Attaches, leaves the socket to a child of its own, and exits. */
static bool attach_and_leave_an_heir(void)
{
	const Tgd__Reply *reply;
	static struct tgt_peer peer;
	char c;

	if (tgt_peer_connect(&peer, d.socket) < 0 || tgt_peer_hello(&peer) < 0 ||
	    tgt_peer_attach(&peer, "parent", 0, 0, &reply) < 0 || reply->error != 0)
		return false;
	switch (fork()) {
	case -1:
		return false;
	case 0:
		close(heir_lives[1]);
		while (read(heir_lives[0], &c, 1) > 0)
			;
		_exit(0);
	default:
		return true;
	}
}

static void the_end_of_the_process_counts_and_not_a_socket_that_a_child_inherited(void)
{
	CU_ASSERT_EQUAL_FATAL(pipe2(heir_lives, O_CLOEXEC), 0);
	CU_ASSERT(in_child(attach_and_leave_an_heir, 0));
	CU_ASSERT(tgt_daemon_wait_log(&d, "\"parent\") exited"));
	connect_and_greet(&a);
	CU_ASSERT_EQUAL(status_of(&a).clients, 0);
	CU_ASSERT_EQUAL(status_of(&a).recovered_clients, 1);
	close(heir_lives[0]);
	close(heir_lives[1]);
}

static void a_kicked_client_is_dead_and_settled_when_the_answer_comes(void)
{
	pid_t parent = getpid(), pid;
	const Tgd__Reply *reply;
	static struct tgt_peer peer;
	int status, ready[2];
	uint32_t id = 0;

	CU_ASSERT_EQUAL_FATAL(pipe2(ready, O_CLOEXEC), 0);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent && tgt_peer_connect(&peer, d.socket) == 0 &&
		    tgt_peer_hello(&peer) == 0 &&
		    tgt_peer_attach(&peer, "victim", 0, 0, &reply) == 0 && reply->error == 0 &&
		    write(ready[1], &reply->attach->client_id, sizeof(id)) == sizeof(id)) {
			for (;;)
				pause();
		}
		_exit(1);
	}
	close(ready[1]);
	CU_ASSERT_EQUAL(read(ready[0], &id, sizeof(id)), sizeof(id));
	close(ready[0]);
	connect_and_greet(&a);
	CU_ASSERT_EQUAL(admin(&a, TGD__ADMIN__WHAT__KICK, id + 1), -ENOENT);
	CU_ASSERT_EQUAL(admin(&a, TGD__ADMIN__WHAT__KICK, id), 0);
	CU_ASSERT_EQUAL(client_state(&a), -1);
	CU_ASSERT_EQUAL(status_of(&a).recovered_clients, 1);
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void messages_of_clients_are_counted_and_tgctls_are_not(void)
{
	uint64_t before;

	connect_and_greet(&a);
	before = status_of(&a).messages;
	CU_ASSERT_EQUAL(status_of(&a).messages, before);
	CU_ASSERT_EQUAL(tgt_peer_good_client(d.socket), 0);
	/* Attach, OpenSlot, Detach. */
	CU_ASSERT_EQUAL(status_of(&a).messages, before + 3);
	CU_ASSERT_EQUAL(status_of(&a).span_messages, 0);
}

/* ---- who may do what ---- */

static bool may_read_and_not_act(void)
{
	static struct tgt_peer peer;

	if (tgt_peer_connect(&peer, d.socket) < 0 || tgt_peer_hello(&peer) < 0)
		return false;
	return admin(&peer, TGD__ADMIN__WHAT__PING, 0) == 0 &&
	       admin(&peer, TGD__ADMIN__WHAT__CHECK, 0) == 0 &&
	       admin(&peer, TGD__ADMIN__WHAT__TRIM, 0) == -EPERM &&
	       admin(&peer, TGD__ADMIN__WHAT__LIMIT, 1 << 30) == -EPERM &&
	       admin(&peer, TGD__ADMIN__WHAT__KICK, 1) == -EPERM &&
	       admin(&peer, TGD__ADMIN__WHAT__STOP, 0) == -EPERM &&
	       tgt_peer_good_client(d.socket) == 0;
}

static void another_user_may_use_the_heap_if_the_mode_says_so_and_not_administer(void)
{
	const char *const args[] = {"--mode", "0666", NULL};

	CU_ASSERT_EQUAL(tgt_daemon_stop(&d), 0);
	CU_ASSERT_EQUAL_FATAL(tgt_daemon_start(&d, args), 0);
	if (geteuid() == 0)
		CU_ASSERT(in_child(may_read_and_not_act, NOBODY));
	connect_and_greet(&a);
	CU_ASSERT_EQUAL(admin(&a, TGD__ADMIN__WHAT__LIMIT, 1 << 30), 0);
	CU_ASSERT_EQUAL(admin(&a, TGD__ADMIN__WHAT__TRIM, 0), 0);
}

static bool cannot_connect(void)
{
	static struct tgt_peer peer;

	return tgt_peer_connect(&peer, d.socket) == -EACCES;
}

static bool is_refused(void)
{
	Tgd__Request request = TGD__REQUEST__INIT;
	Tgd__Hello hello = TGD__HELLO__INIT;
	static struct tgt_peer peer;
	const Tgd__Reply *reply;

	hello.version = TGP_VERSION;
	hello.min_version = TGP_MIN_VERSION;
	request.body_case = TGD__REQUEST__BODY_HELLO;
	request.hello = &hello;
	return tgt_peer_connect(&peer, d.socket) == 0 &&
	       tgt_peer_ask(&peer, &request, &reply) == 0 && reply->error == -EACCES &&
	       strstr(reply->message, "uid 65534 may not use the heap") != NULL &&
	       tgt_peer_at_end(&peer);
}

static void another_user_may_not_connect_also_if_the_file_was_opened_to_him(void)
{
	if (geteuid() == 0) {
		CU_ASSERT(in_child(cannot_connect, NOBODY));
		CU_ASSERT_EQUAL(chmod(d.socket, 0666), 0);
		CU_ASSERT(in_child(is_refused, NOBODY));
	}
	CU_ASSERT_EQUAL(tgt_peer_good_client(d.socket), 0);
}

static bool good_client(void)
{
	return tgt_peer_good_client(d.socket) == 0;
}

static void the_group_may_connect_and_others_may_not(void)
{
	const char *const args[] = {"--group", "65534", NULL};

	if (geteuid() != 0)
		return;
	CU_ASSERT_EQUAL(tgt_daemon_stop(&d), 0);
	CU_ASSERT_EQUAL_FATAL(tgt_daemon_start(&d, args), 0);
	CU_ASSERT(in_child(good_client, NOBODY));
	CU_ASSERT(in_child(cannot_connect, 65533));
}

static CU_TestInfo client_tests[] = {
	{"attach gives both files, and the map cannot be written",
	 attach_gives_both_files_and_the_map_cannot_be_written},
	{"attach is refused for another heap and unknown flags",
	 attach_is_refused_for_another_heap_and_unknown_flags},
	{"what needs a client is refused without one", what_needs_a_client_is_refused_without_one},
	{"a client whose socket closes is away and can come back",
	 a_client_whose_socket_closes_is_away_and_can_come_back},
	{"a process is one client", a_process_is_one_client},
	{"a process that forgot that it was a client becomes a new one",
	 a_process_that_forgot_that_it_was_a_client_becomes_a_new_one},
	{"another process cannot be that client", another_process_cannot_be_that_client},
	{"the end of the process counts, and not a socket that a child inherited",
	 the_end_of_the_process_counts_and_not_a_socket_that_a_child_inherited},
	{"a kicked client is dead and settled when the answer comes",
	 a_kicked_client_is_dead_and_settled_when_the_answer_comes},
	{"messages of clients are counted and tgctl's are not",
	 messages_of_clients_are_counted_and_tgctls_are_not},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo access_tests[] = {
	{"another user may use the heap if the mode says so, and not administer",
	 another_user_may_use_the_heap_if_the_mode_says_so_and_not_administer},
	{"another user may not connect, also if the file was opened to him",
	 another_user_may_not_connect_also_if_the_file_was_opened_to_him},
	{"the group may connect and others may not", the_group_may_connect_and_others_may_not},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"clients", NULL, NULL, set_up, tear_down, client_tests},
	{"access", NULL, NULL, set_up, tear_down, access_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("daemon_clients", suites);
}
