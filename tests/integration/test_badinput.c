/* test_badinput - what a program may get wrong when it attaches: each mistake is one clear error, and all else goes on.
 *
 * Every test ends with a good client on the real daemon.  Peers that break the protocol are test_hostile_peers's; here it
 * is the daemon that does: a fake one that answers wrongly.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/tg.h"
#include "proto/fdpass.h"
#include "proto/msg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"
#include "tests/support/runner.h"

static struct tg_options options;

static void set_up(void)
{
	const char *const args[] = {"--heap", "kitchen", NULL};

	tgt_set_up_daemon(args);
	options = (struct tg_options){.size = sizeof(options)};
}

/* A client without faults. */
static void good_client(void)
{
	void *p;

	CU_ASSERT_EQUAL_FATAL(tg_attach(NULL), 0);
	CU_ASSERT_STRING_EQUAL(tg_attach_error(), "");
	p = tg_malloc(100);
	CU_ASSERT_PTR_NOT_NULL(p);
	tg_free(p);
	CU_ASSERT_EQUAL(tg_detach(), 0);
}

static void tear_down(void)
{
	good_client();
	tgt_tear_down();
}

/* tg_attach fails with this error and a sentence that has this text; and the process is no client. */
static void attach_fails(int error, const char *text)
{
	int r = tg_attach(&options);

	CU_ASSERT_EQUAL(r, error);
	CU_ASSERT_PTR_NOT_NULL(strstr(tg_attach_error(), text));
	if (r != error || strstr(tg_attach_error(), text) == NULL)
		printf("%d: \"%s\"\n", r, tg_attach_error());
	CU_ASSERT_PTR_NULL(tg_malloc(1));
	CU_ASSERT_EQUAL(tg_detach(), -ENOTCONN);
}

static void test_no_daemon(void)
{
	char path[128];

	options.socket = "/nonexistent/tgd.sock";
	attach_fails(-ENOENT, "/nonexistent/tgd.sock: No such file or directory");
	snprintf(path, sizeof(path), "%s/nobody", tgt_d.dir);
	options.socket = path;
	attach_fails(-ENOENT, "cannot connect to ");
	/* A file, a directory. */
	options.socket = tgt_d.log_path;
	attach_fails(-ECONNREFUSED, "Connection refused");
	options.socket = tgt_d.dir;
	attach_fails(-ECONNREFUSED, "Connection refused");
	/* Also by the environment. */
	options.socket = NULL;
	setenv("TG_SOCKET", "/nonexistent/other.sock", 1);
	attach_fails(-ENOENT, "/nonexistent/other.sock");
	setenv("TG_SOCKET", tgt_d.socket, 1);
}

static void test_a_socket_that_nobody_serves(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/dead", tgt_d.dir);
	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	options.socket = address.sun_path;
	attach_fails(-ECONNREFUSED, "Connection refused");
	close(fd);
	attach_fails(-ECONNREFUSED, "Connection refused");
	unlink(address.sun_path);
}

static void test_paths_and_names_that_are_too_long(void)
{
	char text[300];

	memset(text, 'x', sizeof(text));
	text[0] = '/';
	text[108] = '\0';
	options.socket = text;
	attach_fails(-ENAMETOOLONG, "socket's path");
	text[107] = '\0';
	attach_fails(-ENOENT, "cannot connect to ");
	options.socket = "";
	attach_fails(-EINVAL, "socket's path is empty");
	options.socket = NULL;
	text[107] = 'x';
	text[64] = '\0';
	options.heap = text;
	attach_fails(-ENAMETOOLONG, "heap's name is longer than 63 bytes");
	text[63] = '\0';
	attach_fails(-ENOENT, text);
	options.heap = NULL;
	text[63] = 'x';
	options.name = text;
	attach_fails(-ENAMETOOLONG, "client's name is longer than 63 bytes");
	text[63] = '\0';
	CU_ASSERT_EQUAL(tg_attach(&options), 0);
	CU_ASSERT_EQUAL(tg_detach(), 0);
}

static void test_an_unknown_heap(void)
{
	options.heap = "cellar";
	attach_fails(-ENOENT, "cellar");
	CU_ASSERT_PTR_NOT_NULL(strstr(tg_attach_error(), "kitchen"));
	options.heap = "Kitchen";
	attach_fails(-ENOENT, "Kitchen");
	options.heap = NULL;
	setenv("TG_HEAP", "attic", 1);
	attach_fails(-ENOENT, "attic");
	/* What is asked for counts more than the environment. */
	options.heap = "kitchen";
	CU_ASSERT_EQUAL(tg_attach(&options), 0);
	CU_ASSERT_EQUAL(tg_detach(), 0);
	unsetenv("TG_HEAP");
}

static void test_options_that_are_wrong(void)
{
	struct {
		struct tg_options options;
		uint64_t from_the_future;
	} newer = {.options = {.size = sizeof(newer)}};

	options.flags = 8;
	attach_fails(-EINVAL, "unknown flags 0x8");
	options.flags = TG_RECLAIM | 0x100;
	attach_fails(-EINVAL, "unknown flags");
	options.flags = 0;
	options.timeout_ms = -1;
	attach_fails(-EINVAL, "timeout_ms is negative (-1)");
	options.timeout_ms = 0;
	/* A newer program: what we do not know must be zero. */
	CU_ASSERT_EQUAL(tg_attach(&newer.options), 0);
	CU_ASSERT_EQUAL(tg_detach(), 0);
	newer.from_the_future = 1;
	CU_ASSERT_EQUAL(tg_attach(&newer.options), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(tg_attach_error(), "does not know"));
	/* An older one, which ends before the flags. */
	options.size = offsetof(struct tg_options, flags);
	options.flags = 0xffffffff;
	CU_ASSERT_EQUAL(tg_attach(&options), 0);
	CU_ASSERT_EQUAL(tg_detach(), 0);
	CU_ASSERT_EQUAL(tgt_status("clients"), 0);
}

static void attach_as_nobody(void *arg)
{
	(void)arg;
	TGT_REQUIRE(tgt_drop_root());
	TGT_EXPECT(tg_attach(&options) == -EACCES);
	TGT_EXPECT(strstr(tg_attach_error(), "Permission denied") != NULL);
}

static void test_no_permission(void)
{
	if (geteuid() != 0) {
		/* One's own file can be closed to oneself. */
		CU_ASSERT_EQUAL(chmod(tgt_d.socket, 0), 0);
		attach_fails(-EACCES, "Permission denied");
		CU_ASSERT_EQUAL(chmod(tgt_d.socket, 0600), 0);
		return;
	}
	CU_ASSERT_EQUAL(tgt_in_child(attach_as_nobody, NULL), 0);
}

/* ---- a daemon that is none ---- */

enum fake {
	SILENCE,
	HANG_UP,
	GARBAGE,
	HUGE_FRAME,
	OTHER_VERSION,
	WRONG_REPLY,
	NO_DESCRIPTORS,
	WRONG_DESCRIPTORS
};

static struct {
	int listener;
	char path[128];
	enum fake what;
} fake;

static void send_reply(int fd, Tgd__Reply *reply, const int *fds, size_t n_fds)
{
	uint8_t bytes[4096];
	ssize_t n = tgp_reply_pack(reply, bytes, sizeof(bytes));

	TGT_EXPECT(n > 0);
	TGT_EXPECT(tgp_send_fds(fd, bytes, (size_t)n, fds, n_fds) == n);
}

/* Reads one request, and nothing of the next, which may have come with it; its id. */
static uint64_t read_request(int fd)
{
	static uint8_t memory[TGP_UNPACK_MAX], bytes[8192];
	static struct tgp_arena arena;
	const Tgd__Request *request;
	const uint8_t *payload;
	char why[256];
	size_t n = 0, len = 0;
	ssize_t got;

	while (tgp_frame_next(bytes, n, &payload, &len) == 0) {
		got = read(fd, bytes + n, 1);
		if (got <= 0)
			return 0;
		n += (size_t)got;
	}
	tgp_arena_init(&arena, memory, sizeof(memory));
	TGT_REQUIRE(tgp_request_unpack(&arena, payload, len, &request, why, sizeof(why)) == 0);
	return request->id;
}

static void say_hello(int fd)
{
	Tgd__HelloReply hello = TGD__HELLO_REPLY__INIT;
	Tgd__Reply reply = TGD__REPLY__INIT;

	reply.id = read_request(fd);
	reply.body_case = TGD__REPLY__BODY_HELLO;
	reply.hello = &hello;
	hello.version = TGP_VERSION;
	hello.program = (char *)"fake";
	send_reply(fd, &reply, NULL, 0);
}

static void answer_attach(int fd, const int *fds, size_t n_fds)
{
	static uint8_t uuid[TGP_UUID_SIZE];
	Tgd__AttachReply attach = TGD__ATTACH_REPLY__INIT;
	Tgd__Reply reply = TGD__REPLY__INIT;

	reply.id = read_request(fd);
	reply.body_case = TGD__REPLY__BODY_ATTACH;
	reply.attach = &attach;
	attach.client_id = 1;
	attach.map_bytes = attach.heap_bytes = 4096;
	attach.heap_base = UINT64_C(0x200000000000);
	attach.heap_uuid.data = uuid;
	attach.heap_uuid.len = sizeof(uuid);
	send_reply(fd, &reply, fds, n_fds);
}

static void misbehave(int fd)
{
	static const uint8_t garbage[64] = {5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff};
	static const uint8_t huge[] = {0, 0, 0, 0x7f, 1};
	Tgd__Reply reply = TGD__REPLY__INIT;
	int wrong[2] = {STDOUT_FILENO, STDERR_FILENO};

	switch (fake.what) {
	case SILENCE:
		while (read_request(fd) != 0)
			;
		break;
	case HANG_UP:
		break;
	case GARBAGE:
		(void)read_request(fd);
		TGT_EXPECT(write(fd, garbage, sizeof(garbage)) == sizeof(garbage));
		(void)read_request(fd);
		break;
	case HUGE_FRAME:
		(void)read_request(fd);
		TGT_EXPECT(write(fd, huge, sizeof(huge)) == sizeof(huge));
		(void)read_request(fd);
		break;
	case OTHER_VERSION:
		reply.id = read_request(fd);
		reply.error = -EPROTO;
		reply.message = (char *)"this daemon speaks versions 7 to 9 of the protocol";
		send_reply(fd, &reply, NULL, 0);
		break;
	case WRONG_REPLY:
		reply.id = read_request(fd);
		send_reply(fd, &reply, NULL, 0);
		(void)read_request(fd);
		break;
	case NO_DESCRIPTORS:
		say_hello(fd);
		answer_attach(fd, NULL, 0);
		(void)read_request(fd);
		break;
	case WRONG_DESCRIPTORS:
		say_hello(fd);
		answer_attach(fd, wrong, 2);
		(void)read_request(fd);
		break;
	}
}

static void be_fake(void *arg)
{
	int fd;

	(void)arg;
	for (;;) {
		fd = accept(fake.listener, NULL, NULL);
		TGT_REQUIRE(fd >= 0);
		misbehave(fd);
		close(fd);
	}
}

static void fake_daemon(enum fake what, int error, const char *text)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	pid_t pid;

	snprintf(fake.path, sizeof(fake.path), "%s/fake", tgt_d.dir);
	snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", fake.path);
	fake.what = what;
	fake.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_EQUAL_FATAL(bind(fake.listener, (struct sockaddr *)&address, sizeof(address)), 0);
	CU_ASSERT_EQUAL_FATAL(listen(fake.listener, 5), 0);
	pid = tgt_fork(be_fake, NULL);
	options.socket = fake.path;
	options.timeout_ms = 300;
	attach_fails(error, text);
	kill(pid, SIGKILL);
	CU_ASSERT_EQUAL(tgt_wait(pid), 128 + SIGKILL);
	close(fake.listener);
	unlink(fake.path);
}

static void test_a_silent_daemon(void)
{
	fake_daemon(SILENCE, -ETIMEDOUT, "300 ms");
}

static void test_a_daemon_that_hangs_up(void)
{
	fake_daemon(HANG_UP, -ECONNRESET, "lost the connection to ");
}

static void test_a_daemon_that_talks_nonsense(void)
{
	fake_daemon(GARBAGE, -EPROTO, "not a well-formed Reply");
	fake_daemon(HUGE_FRAME, -EPROTO, "fake is no tgd");
	fake_daemon(WRONG_REPLY, -EPROTO, "fake is no tgd");
}

static void test_a_daemon_of_another_version(void)
{
	fake_daemon(OTHER_VERSION, -EPROTO, "speaks versions 7 to 9");
}

static void test_a_daemon_without_a_heap(void)
{
	fake_daemon(NO_DESCRIPTORS, -EPROTO, "without the heap's two descriptors");
	fake_daemon(WRONG_DESCRIPTORS, -EPROTO, "not one of a heap");
}

int main(void)
{
	CU_TestInfo tests[] = {
		{"No daemon at the socket", test_no_daemon},
		{"A socket that nobody serves", test_a_socket_that_nobody_serves},
		{"Paths and names that are too long, or empty",
		 test_paths_and_names_that_are_too_long},
		{"A heap that the daemon does not serve", test_an_unknown_heap},
		{"Options that are wrong, or from another version", test_options_that_are_wrong},
		{"A socket that may not be used", test_no_permission},
		{"A daemon that says nothing", test_a_silent_daemon},
		{"A daemon that hangs up", test_a_daemon_that_hangs_up},
		{"A daemon that talks nonsense", test_a_daemon_that_talks_nonsense},
		{"A daemon of another version", test_a_daemon_of_another_version},
		{"A daemon that has no heap to give", test_a_daemon_without_a_heap},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"bad input", NULL, NULL, set_up, tear_down, tests},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("badinput", suites);
}
