/* ctlpeer.c - tgctl's command line run inside a test, against a peer that answers as the test
 * wants.
 *
 * The peer is a child that serves one connection on a socket in a directory of its own.  It
 * listens before tgctl runs; its exit status says whether what it was asked made sense.  What it
 * sends comes in two pieces, so that the other side has to put them together.
 */
#include "tests/support/ctlpeer.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/ctl/cli.h"
#include "tests/support/runner.h"

char tgt_ctl_path[64];
char *tgt_ctl_out, *tgt_ctl_err;
pid_t tgt_ctl_peer;

static char dir[] = "/tmp/tg-test-ctl-XXXXXX";
static size_t out_size, err_size;

/* ---- the peer ---- */

uint32_t tgt_ctl_hello_version = TGP_VERSION;
bool tgt_ctl_last_answer;

static void send_all(int fd, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;
	ssize_t sent;

	for (; n > 0; n -= (size_t)sent, p += sent) {
		sent = send(fd, p, n, MSG_NOSIGNAL);
		if (sent <= 0)
			_exit(10);
	}
}

static bool serve_one(int fd, const Tgd__Request *request, tgt_answer_fn *answer)
{
	static uint8_t buf[TGP_FRAME_HEAD + TGP_FRAME_MAX];
	Tgd__HelloReply hello = TGD__HELLO_REPLY__INIT;
	Tgd__Reply reply = TGD__REPLY__INIT;
	ssize_t size;

	reply.id = request->id;
	if (request->body_case == TGD__REQUEST__BODY_HELLO) {
		hello.version = tgt_ctl_hello_version;
		hello.program = (char *)"tgd 9.9";
		hello.pid = (uint32_t)getpid();
		reply.body_case = TGD__REPLY__BODY_HELLO;
		reply.hello = &hello;
	} else if (request->body_case != TGD__REQUEST__BODY_ADMIN) {
		_exit(11);
	} else if (!answer(request->admin, &reply)) {
		return false;
	}
	size = tgp_reply_pack(&reply, buf, sizeof(buf));
	if (size < 0)
		_exit(12);
	send_all(fd, buf, 3);
	send_all(fd, buf + 3, (size_t)size - 3);
	return true;
}

/* Listens once more, which makes this process the one that the other side sees behind the
 * socket. */
__attribute__((noreturn)) static void serve(int listener, int ready, tgt_answer_fn *answer)
{
	static uint8_t in[4096], memory[TGP_UNPACK_MAX];
	const Tgd__Request *request;
	struct tgp_arena arena;
	const uint8_t *payload;
	size_t n = 0, len;
	char why[256];
	ssize_t got;
	int fd;

	if (listen(listener, 4) < 0)
		_exit(15);
	close(ready);
	fd = accept(listener, NULL, NULL);
	close(listener);
	alarm(60);
	tgp_arena_init(&arena, memory, sizeof(memory));
	while ((got = recv(fd, in + n, sizeof(in) - n, 0)) > 0) {
		n += (size_t)got;
		while (tgp_frame_next(in, n, &payload, &len) > 0) {
			tgp_arena_reset(&arena);
			if (tgp_request_unpack(&arena, payload, len, &request, why, sizeof(why)) <
			    0)
				_exit(13);
			if (!serve_one(fd, request, answer) || tgt_ctl_last_answer)
				_exit(0);
			n -= TGP_FRAME_HEAD + len;
			memmove(in, in + TGP_FRAME_HEAD + len, n);
		}
	}
	_exit(got < 0 ? 14 : 0);
}

int tgt_ctl_listen(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, tgt_ctl_path);
	unlink(tgt_ctl_path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

void tgt_ctl_start_peer(tgt_answer_fn *answer)
{
	int listener = tgt_ctl_listen(), ready[2];
	char byte;

	CU_ASSERT_FATAL(listener >= 0 && pipe(ready) == 0);
	tgt_ctl_peer = fork();
	if (tgt_ctl_peer == 0) {
		close(ready[0]);
		serve(listener, ready[1], answer);
	}
	close(listener);
	close(ready[1]);
	CU_ASSERT_EQUAL(read(ready[0], &byte, 1), 0); /* until the other end is closed */
	close(ready[0]);
	CU_ASSERT_FATAL(tgt_ctl_peer > 0);
}

void tgt_ctl_start_babbler(const char *bytes, size_t n)
{
	int listener = tgt_ctl_listen(), fd;

	CU_ASSERT_FATAL(listener >= 0);
	tgt_ctl_peer = fork();
	if (tgt_ctl_peer == 0) {
		alarm(60);
		fd = accept(listener, NULL, NULL);
		send_all(fd, bytes, n);
		/* Until the other side hangs up. */
		while (recv(fd, (char[64]){0}, 64, 0) > 0)
			;
		_exit(0);
	}
	close(listener);
	CU_ASSERT_FATAL(tgt_ctl_peer > 0);
}

void tgt_ctl_check_peer(void)
{
	int status = -1;

	CU_ASSERT_EQUAL(waitpid(tgt_ctl_peer, &status, 0), tgt_ctl_peer);
	CU_ASSERT_EQUAL(status, 0);
	tgt_ctl_peer = 0;
}

/* ---- tgctl ---- */

static void forget_output(void)
{
	free(tgt_ctl_out);
	free(tgt_ctl_err);
	tgt_ctl_out = tgt_ctl_err = NULL;
}

int tgt_ctl(const char *line)
{
	char words[512], *rest = words, *argv[32] = {(char *)"tgctl"}, *word;
	FILE *out, *err;
	int argc = 1, status;

	forget_output();
	out = open_memstream(&tgt_ctl_out, &out_size);
	err = open_memstream(&tgt_ctl_err, &err_size);
	snprintf(words, sizeof(words), "%s", line);
	while ((word = strsep(&rest, " ")) != NULL)
		if (*word != '\0')
			argv[argc++] = word;
	argv[argc] = NULL;
	status = tgc_cli_main(argc, argv, out, err);
	fclose(out);
	fclose(err);
	return status;
}

void tgt_ctl_set_up(void)
{
	setenv("TG_SOCKET", tgt_ctl_path, 1);
	tgt_ctl_hello_version = TGP_VERSION;
	unlink(tgt_ctl_path);
}

void tgt_ctl_tear_down(void)
{
	if (tgt_ctl_peer > 0) {
		kill(tgt_ctl_peer, SIGKILL);
		waitpid(tgt_ctl_peer, NULL, 0);
		tgt_ctl_peer = 0;
	}
	unlink(tgt_ctl_path);
	forget_output();
}

static int make_dir(void)
{
	if (mkdtemp(dir) == NULL)
		return -1;
	snprintf(tgt_ctl_path, sizeof(tgt_ctl_path), "%s/sock", dir);
	return 0;
}

json_t *tgt_ctl_parse_out(void)
{
	json_error_t error;
	json_t *object = json_loads(tgt_ctl_out, 0, &error);

	CU_ASSERT_FATAL(json_is_object(object));
	return object;
}

void tgt_ctl_check_json_error(const char *errno_name)
{
	json_t *object = tgt_ctl_parse_out();
	const char *sentence = json_string_value(json_object_get(object, "error"));

	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(object, "errno")), errno_name);
	CU_ASSERT_PTR_NOT_NULL_FATAL(sentence);
	CU_ASSERT_PTR_NOT_NULL(strstr(tgt_ctl_err, sentence));
	json_decref(object);
}

int tgt_ctl_run(const char *name, CU_SuiteInfo *suites)
{
	int r;

	if (make_dir() < 0)
		return 99;
	r = tgt_run(name, suites);
	(void)rmdir(dir);
	return r;
}
