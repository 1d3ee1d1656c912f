/* tgctl's command line against a peer that answers as the test wants: statuses, sentences, JSON, paging.
 *
 * The peer is a child that serves one connection on a socket in a directory of its own.  It listens before it is
 * forked, so nothing waits for it; its exit status says whether what it was asked made sense.
 */
#include "client/ctl/cli.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/ctl/ctl.h"
#include "proto/msg.h"
#include "tests/support/runner.h"

/* Fills the reply to an admin request; what it points to is static.  false: hang up instead. */
typedef bool answer_fn(const Tgd__Admin *ask, Tgd__Reply *reply);

static char dir[] = "/tmp/tg-test-ctl-XXXXXX", path[64];
static char *out_text, *err_text;
static size_t out_size, err_size;
static pid_t peer;

/* ---- the peer ---- */

static uint32_t hello_version = TGP_VERSION;

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

static bool serve_one(int fd, const Tgd__Request *request, answer_fn *answer)
{
	static uint8_t buf[TGP_FRAME_HEAD + TGP_FRAME_MAX];
	Tgd__HelloReply hello = TGD__HELLO_REPLY__INIT;
	Tgd__Reply reply = TGD__REPLY__INIT;
	ssize_t size;

	reply.id = request->id;
	if (request->body_case == TGD__REQUEST__BODY_HELLO) {
		hello.version = hello_version;
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
	/* In two pieces, so that the other side has to put them together. */
	send_all(fd, buf, 3);
	send_all(fd, buf + 3, (size_t)size - 3);
	return true;
}

__attribute__((noreturn)) static void serve(int listener, answer_fn *answer)
{
	static uint8_t in[4096], memory[TGP_UNPACK_MAX];
	int fd = accept(listener, NULL, NULL);
	const Tgd__Request *request;
	struct tgp_arena arena;
	const uint8_t *payload;
	size_t n = 0, len;
	char why[256];
	ssize_t got;

	close(listener);
	alarm(60);
	tgp_arena_init(&arena, memory, sizeof(memory));
	while ((got = recv(fd, in + n, sizeof(in) - n, 0)) > 0) {
		n += (size_t)got;
		while (tgp_frame_next(in, n, &payload, &len) > 0) {
			tgp_arena_reset(&arena);
			if (tgp_request_unpack(&arena, payload, len, &request, why, sizeof(why)) < 0)
				_exit(13);
			if (!serve_one(fd, request, answer))
				_exit(0);
			n -= TGP_FRAME_HEAD + len;
			memmove(in, in + TGP_FRAME_HEAD + len, n);
		}
	}
	_exit(got < 0 ? 14 : 0);
}

static int listen_at_path(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	unlink(path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static void start_peer(answer_fn *answer)
{
	int listener = listen_at_path();

	CU_ASSERT_FATAL(listener >= 0);
	peer = fork();
	if (peer == 0)
		serve(listener, answer);
	close(listener);
	CU_ASSERT_FATAL(peer > 0);
}

/* The peer saw the connection's end, and nothing that it did not expect. */
static void check_peer(void)
{
	int status = -1;

	CU_ASSERT_EQUAL(waitpid(peer, &status, 0), peer);
	CU_ASSERT_EQUAL(status, 0);
	peer = 0;
}

/* ---- tgctl ---- */

static void forget_output(void)
{
	free(out_text);
	free(err_text);
	out_text = err_text = NULL;
}

/* Runs tgctl with words separated by blanks; what it prints is then in out_text and err_text. */
static int tgctl(const char *line)
{
	char words[512], *rest = words, *argv[32] = {(char *)"tgctl"}, *word;
	FILE *out, *err;
	int argc = 1, status;

	forget_output();
	out = open_memstream(&out_text, &out_size);
	err = open_memstream(&err_text, &err_size);
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

static void set_up(void)
{
	setenv("TG_SOCKET", path, 1);
	hello_version = TGP_VERSION;
	unlink(path);
}

static void tear_down(void)
{
	if (peer > 0) {
		kill(peer, SIGKILL);
		waitpid(peer, NULL, 0);
		peer = 0;
	}
	unlink(path);
	forget_output();
}

static int make_dir(void)
{
	if (mkdtemp(dir) == NULL)
		return -1;
	snprintf(path, sizeof(path), "%s/sock", dir);
	return 0;
}

static int remove_dir(void)
{
	return rmdir(dir);
}

#define CHECK_OUT(text) CU_ASSERT_PTR_NOT_NULL(strstr(out_text, text))
#define CHECK_ERR(text) CU_ASSERT_PTR_NOT_NULL(strstr(err_text, text))

/* The whole of standard output is one object; the caller gives it up. */
static json_t *parse_out(void)
{
	json_error_t error;
	json_t *object = json_loads(out_text, 0, &error);

	CU_ASSERT_FATAL(json_is_object(object));
	return object;
}

static void check_json_error(const char *errno_name)
{
	json_t *object = parse_out();
	const char *sentence = json_string_value(json_object_get(object, "error"));

	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(object, "errno")), errno_name);
	CU_ASSERT_PTR_NOT_NULL_FATAL(sentence);
	CU_ASSERT_PTR_NOT_NULL(strstr(err_text, sentence));
	json_decref(object);
}

/* ---- wrong use ---- */

static void wrong_use_is_status_2_and_says_what_to_do(void)
{
	static const struct {
		const char *line, *sentence;
	} cases[] = {
		{"", "which command?"},
		{"stat", "there is no command \"stat\""},
		{"--fast status", "unknown option --fast"},
		{"-x status", "unknown option -x"},
		{"status --fast", "unknown option --fast"},
		{"--socket", "option --socket needs a value"},
		{"--json=1 status", "takes no value"},
		{"status now", "do not know what to do with \"now\""},
		{"limit", "limit needs more: tgctl limit SIZE"},
		{"limit 1 2", "do not know what to do with \"2\""},
		{"limit lots", "\"lots\" is no size; say, for example, 64M"},
		{"limit 99999999999999T", "is no size"},
		{"kick", "kick needs more: tgctl kick CLIENT"},
		{"kick bob", "\"bob\" is no client id; 'tgctl clients' lists them"},
		{"kick 0", "is no client id"},
		{"kick 1x", "is no client id"},
		{"kick 4294967296", "is no client id"},
		{"run", "run needs more"},
		{"run --preload --", "run needs more"},
		{"run --limit x true", "--limit: \"x\" is no size"},
		{"run --limit 0 true", "--limit: \"0\" is no size"},
		{"status --limit 5M", "unknown option --limit"},
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CU_ASSERT_EQUAL(tgctl(cases[i].line), TGC_WRONG_USE);
		CHECK_ERR(cases[i].sentence);
		if (strstr(err_text, cases[i].sentence) == NULL)
			fprintf(stderr, "\"%s\" gave: %s", cases[i].line, err_text);
		CU_ASSERT_EQUAL(strncmp(err_text, "tgctl: ", 7), 0);
		CU_ASSERT_STRING_EQUAL(out_text, "");
	}
}

static void wrong_use_is_json_if_asked_for(void)
{
	CU_ASSERT_EQUAL(tgctl("--json limit lots"), TGC_WRONG_USE);
	check_json_error("EINVAL");
	CU_ASSERT_EQUAL(tgctl("limit 99999999T --json"), TGC_WRONG_USE);
	check_json_error("ERANGE");
}

static void help_and_version_need_no_daemon(void)
{
	static const char *const names[] = {"ping",  "status", "clients", "classes", "spans", "map", "roots",
					    "check", "trim",   "limit",   "kick",    "stop",  "run"};
	char line[64];
	size_t i;

	CU_ASSERT_EQUAL(tgctl("--version"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(out_text, "tgctl " PACKAGE_VERSION "\n");
	CU_ASSERT_EQUAL(tgctl("--help"), TGC_OK);
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(line, sizeof(line), "\n  %s ", names[i]);
		CHECK_OUT(line);
	}
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(line, sizeof(line), "%s --help", names[i]);
		CU_ASSERT_EQUAL(tgctl(line), TGC_OK);
		snprintf(line, sizeof(line), "tgctl [--socket PATH] [--json] %s", names[i]);
		CHECK_OUT(line);
		CU_ASSERT_STRING_EQUAL(err_text, "");
	}
}

static void options_of_the_command_that_is_run_are_its_own(void)
{
	setenv("TGD", "/nonexistent/tgd", 1);
	/* --help is seq's, so tgctl gets as far as looking for a daemon. */
	CU_ASSERT_EQUAL(tgctl("run seq --help"), TGC_UNREACHABLE);
	CU_ASSERT_EQUAL(tgctl("run -- --help"), TGC_UNREACHABLE);
	CU_ASSERT_EQUAL(tgctl("run --help seq"), TGC_OK);
	unsetenv("TGD");
}

/* ---- no daemon ---- */

static void no_socket_is_status_3_and_names_the_path(void)
{
	char want[256];

	CU_ASSERT_EQUAL(tgctl("status"), TGC_UNREACHABLE);
	snprintf(want, sizeof(want),
		 "tgctl: no daemon at %s: no such file; start one with: tgd --socket %s\n", path, path);
	CU_ASSERT_STRING_EQUAL(err_text, want);
	CU_ASSERT_STRING_EQUAL(out_text, "");
	CU_ASSERT_EQUAL(tgctl("--json status"), TGC_UNREACHABLE);
	check_json_error("ENOENT");
}

static void nobody_listening_is_status_3(void)
{
	int listener = listen_at_path();

	CU_ASSERT(listener >= 0);
	close(listener);
	CU_ASSERT_EQUAL(tgctl("--json ping"), TGC_UNREACHABLE);
	CHECK_ERR("connection refused; start one with: tgd --socket ");
	check_json_error("ECONNREFUSED");
}

static void a_file_that_is_no_socket_is_status_3(void)
{
	CU_ASSERT_EQUAL(tgctl("--socket /etc/passwd --json ping"), TGC_UNREACHABLE);
	CHECK_ERR("/etc/passwd is not a socket");
	check_json_error("ENOTSOCK");
}

static void a_path_too_long_for_a_socket_is_wrong_use(void)
{
	char line[256];

	memset(line, 'x', 200);
	memcpy(line, "--socket /", 10);
	strcpy(line + 200, " status");
	CU_ASSERT_EQUAL(tgctl(line), TGC_WRONG_USE);
	CHECK_ERR("longer than 107 bytes");
}

static bool hang_up(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	(void)ask;
	(void)reply;
	return false;
}

static void a_daemon_that_hangs_up_is_status_3(void)
{
	start_peer(hang_up);
	CU_ASSERT_EQUAL(tgctl("status --json"), TGC_UNREACHABLE);
	CHECK_ERR("closed the connection without an answer");
	check_json_error("ECONNRESET");
	check_peer();
}

static void a_daemon_of_another_version_is_status_3(void)
{
	hello_version = TGP_VERSION + 1;
	start_peer(hang_up);
	CU_ASSERT_EQUAL(tgctl("status"), TGC_UNREACHABLE);
	CHECK_ERR("speaks version 2 of the protocol");
	check_peer();
}

static bool answer_another(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	static Tgd__Check check;

	(void)ask;
	tgd__check__init(&check);
	reply->body_case = TGD__REPLY__BODY_CHECK;
	reply->check = &check;
	return true;
}

static bool answer_with_other_id(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	answer_another(ask, reply);
	reply->id += 5;
	return true;
}

static void an_answer_to_another_question_is_refused(void)
{
	start_peer(answer_another);
	CU_ASSERT_EQUAL(tgctl("status"), TGC_UNREACHABLE);
	CHECK_ERR("of another kind than the question");
	check_peer();
	start_peer(answer_with_other_id);
	CU_ASSERT_EQUAL(tgctl("check"), TGC_UNREACHABLE);
	CHECK_ERR("answered request 7 instead of 2");
	check_peer();
}

/* Sends these bytes whatever comes. */
static void start_babbler(const char *bytes, size_t n)
{
	int listener = listen_at_path(), fd;

	CU_ASSERT_FATAL(listener >= 0);
	peer = fork();
	if (peer == 0) {
		alarm(60);
		fd = accept(listener, NULL, NULL);
		send_all(fd, bytes, n);
		/* Until the other side hangs up. */
		while (recv(fd, (char[64]){0}, 64, 0) > 0)
			;
		_exit(0);
	}
	close(listener);
	CU_ASSERT_FATAL(peer > 0);
}

static void garbage_is_refused_with_a_sentence(void)
{
	start_babbler("HTTP/1.1 400 Bad Request\r\n", 26);
	CU_ASSERT_EQUAL(tgctl("status"), TGC_UNREACHABLE);
	CHECK_ERR("what answers there is no tgd");
	check_peer();
	start_babbler("\3\0\0\0\377\377\377", 7);
	CU_ASSERT_EQUAL(tgctl("status"), TGC_UNREACHABLE);
	CHECK_ERR("the daemon's answer makes no sense");
	check_peer();
}

static void a_daemon_that_says_nothing_is_given_up(void)
{
	struct tgc_talk *talk = tgc_talk_new();

	CU_ASSERT_PTR_NOT_NULL_FATAL(talk);
	start_babbler("", 0);
	talk->timeout_ms = 50;
	CU_ASSERT_EQUAL(tgc_talk_open(talk, path), -ETIMEDOUT);
	CU_ASSERT_FALSE(talk->refused);
	CU_ASSERT_PTR_NOT_NULL(strstr(talk->why, "did not answer within 0.1 s"));
	tgc_talk_free(talk);
	check_peer();
}

static void a_daemon_that_does_not_accept_is_given_up(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int listener = listen_at_path(), fds[16], n = 0;
	struct tgc_talk *talk = tgc_talk_new();

	CU_ASSERT_FATAL(listener >= 0 && talk != NULL);
	strcpy(address.sun_path, path);
	do { /* fill its queue */
		fds[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	} while (connect(fds[n++], (struct sockaddr *)&address, sizeof(address)) == 0 && n < 16);
	CU_ASSERT(n < 16);
	talk->timeout_ms = 50;
	CU_ASSERT_EQUAL(tgc_talk_open(talk, path), -ETIMEDOUT);
	CU_ASSERT_PTR_NOT_NULL(strstr(talk->why, "does not accept connections"));
	tgc_talk_free(talk);
	while (n > 0)
		close(fds[--n]);
	close(listener);
}

/* ---- answers ---- */

static bool refuse(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	reply->error = -EPERM;
	reply->message = (char *)"uid 5 may not do this";
	return ask->what == TGD__ADMIN__WHAT__LIMIT && ask->value == 64 << 20;
}

static void a_refusal_is_status_1_in_the_daemons_words(void)
{
	start_peer(refuse);
	CU_ASSERT_EQUAL(tgctl("--json limit 64M"), TGC_BAD_NEWS);
	CU_ASSERT_STRING_EQUAL(err_text, "tgctl: uid 5 may not do this\n");
	check_json_error("EPERM");
	check_peer();
}

static bool refuse_without_words(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	(void)ask;
	reply->id = 0;
	reply->error = -EPROTO;
	return true;
}

static void a_refusal_without_words_has_those_of_its_errno(void)
{
	start_peer(refuse_without_words);
	CU_ASSERT_EQUAL(tgctl("trim"), TGC_BAD_NEWS);
	CHECK_ERR("Protocol error");
	check_peer();
}

static bool agree(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	(void)ask;
	(void)reply;
	return true;
}

static void ping_tells_who_answered(void)
{
	json_t *object;

	start_peer(agree);
	CU_ASSERT_EQUAL(tgctl("ping"), TGC_OK);
	CHECK_OUT("tgd 9.9, process ");
	CHECK_OUT(path);
	check_peer();
	start_peer(agree);
	CU_ASSERT_EQUAL(tgctl("--json ping"), TGC_OK);
	object = parse_out();
	CU_ASSERT(json_is_true(json_object_get(object, "ok")));
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(object, "pid")), peer);
	CU_ASSERT(json_is_integer(json_object_get(object, "round_trip_us")));
	json_decref(object);
	check_peer();
}

static bool expect_limit(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	(void)reply;
	return ask->what == TGD__ADMIN__WHAT__LIMIT && ask->value == UINT64_C(3) << 29;
}

static void limit_sends_bytes(void)
{
	start_peer(expect_limit);
	CU_ASSERT_EQUAL(tgctl("limit 1.5G"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(out_text, "the limit is now 1.5 GiB\n");
	check_peer();
	start_peer(expect_limit);
	CU_ASSERT_EQUAL(tgctl("limit 1536M --json"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(out_text, "{\"limit_bytes\": 1610612736}\n");
	check_peer();
}

static bool expect_kick(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	(void)reply;
	return ask->what == TGD__ADMIN__WHAT__KICK && ask->value == 12;
}

static void kick_sends_the_client(void)
{
	start_peer(expect_kick);
	CU_ASSERT_EQUAL(tgctl("--json kick 12"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(out_text, "{\"ok\": true, \"client\": 12}\n");
	check_peer();
}

static bool trim_some(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	static Tgd__Trimmed trimmed;

	tgd__trimmed__init(&trimmed);
	trimmed.bytes = 5 << 20;
	reply->body_case = TGD__REPLY__BODY_TRIMMED;
	reply->trimmed = &trimmed;
	return ask->what == TGD__ADMIN__WHAT__TRIM;
}

static void trim_tells_how_much(void)
{
	start_peer(trim_some);
	CU_ASSERT_EQUAL(tgctl("trim"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(out_text, "gave 5 MiB back to the kernel\n");
	check_peer();
	start_peer(trim_some);
	CU_ASSERT_EQUAL(tgctl("--json trim"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(out_text, "{\"trimmed_bytes\": 5242880}\n");
	check_peer();
}

static bool damaged(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	static char *errors[] = {(char *)"page 3 is in two spans"};
	static Tgd__Check check;

	tgd__check__init(&check);
	check.ok = false;
	check.n_errors = 1;
	check.errors = errors;
	check.objects = 17;
	reply->body_case = TGD__REPLY__BODY_CHECK;
	reply->check = &check;
	return ask->what == TGD__ADMIN__WHAT__CHECK;
}

static bool sound(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	damaged(ask, reply);
	reply->check->ok = true;
	reply->check->n_errors = 0;
	return true;
}

static void damage_is_status_1_with_the_whole_report(void)
{
	json_t *object;

	start_peer(damaged);
	CU_ASSERT_EQUAL(tgctl("check"), TGC_BAD_NEWS);
	CHECK_OUT("DAMAGED: 1 error\n  page 3 is in two spans\n");
	check_peer();
	start_peer(damaged);
	CU_ASSERT_EQUAL(tgctl("check --json"), TGC_BAD_NEWS);
	object = parse_out();
	CU_ASSERT(json_is_false(json_object_get(object, "ok")));
	CU_ASSERT_EQUAL(json_array_size(json_object_get(object, "errors")), 1);
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(object, "objects")), 17);
	json_decref(object);
	check_peer();
	start_peer(sound);
	CU_ASSERT_EQUAL(tgctl("check --json"), TGC_OK);
	object = parse_out();
	CU_ASSERT(json_is_true(json_object_get(object, "ok")));
	json_decref(object);
	check_peer();
}

/* Agrees and goes, as a daemon that stops does; but here the agreement must arrive first. */
static bool agree_once(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	(void)reply;
	alarm(1); /* ends this process with the connection */
	signal(SIGALRM, SIG_DFL);
	return ask->what == TGD__ADMIN__WHAT__STOP;
}

static void stop_returns_when_the_daemon_has_ended(void)
{
	int status = 0;

	start_peer(agree_once);
	CU_ASSERT_EQUAL(tgctl("stop --json"), TGC_OK);
	CHECK_OUT("{\"ok\": true, \"pid\": ");
	CU_ASSERT_EQUAL(waitpid(peer, &status, WNOHANG), peer);
	CU_ASSERT(WIFSIGNALED(status));
	peer = 0;
}

/* ---- lists ---- */

#define N_LISTED 600
#define N_A_PAGE 250

/* Clients 1, 3, 5, ... in pages. */
static bool list_clients(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	static Tgd__Client rows[N_A_PAGE], *pointers[N_A_PAGE];
	static Tgd__Clients list;
	uint32_t id = 1;
	size_t n = 0;

	tgd__clients__init(&list);
	while (id <= ask->from)
		id += 2;
	for (; n < N_A_PAGE && id < 2 * N_LISTED; n++, id += 2) {
		tgd__client__init(&rows[n]);
		rows[n].id = id;
		rows[n].name = (char *)"worker";
		pointers[n] = &rows[n];
	}
	list.n_clients = n;
	list.clients = pointers;
	list.more = id < 2 * N_LISTED;
	reply->body_case = TGD__REPLY__BODY_CLIENTS;
	reply->clients = &list;
	return ask->what == TGD__ADMIN__WHAT__CLIENTS;
}

static void a_list_in_several_answers_is_one(void)
{
	json_t *object, *list, *row;
	unsigned n_lines = 0;
	const char *p;
	size_t i;

	start_peer(list_clients);
	CU_ASSERT_EQUAL(tgctl("--json clients"), TGC_OK);
	object = parse_out();
	list = json_object_get(object, "clients");
	CU_ASSERT_EQUAL(json_array_size(list), N_LISTED);
	json_array_foreach(list, i, row) {
		CU_ASSERT_EQUAL(json_integer_value(json_object_get(row, "id")), (json_int_t)(2 * i + 1));
	}
	json_decref(object);
	check_peer();
	start_peer(list_clients);
	CU_ASSERT_EQUAL(tgctl("clients"), TGC_OK);
	for (p = out_text; *p != '\0'; p++)
		n_lines += *p == '\n';
	CU_ASSERT_EQUAL(n_lines, N_LISTED + 1);
	check_peer();
}

static bool list_in_circles(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	Tgd__Admin first = *ask;

	first.from = 0;
	return list_clients(&first, reply);
}

static bool list_nothing_for_ever(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	list_clients(ask, reply);
	reply->clients->n_clients = 0;
	reply->clients->more = true;
	return true;
}

static void a_list_without_end_is_given_up(void)
{
	start_peer(list_in_circles);
	CU_ASSERT_EQUAL(tgctl("clients --json"), TGC_UNREACHABLE);
	CHECK_ERR("list of clients goes in circles");
	check_json_error("EPROTO");
	check_peer();
	start_peer(list_nothing_for_ever);
	CU_ASSERT_EQUAL(tgctl("clients"), TGC_UNREACHABLE);
	CU_ASSERT_STRING_EQUAL(out_text, "");
	check_peer();
}

static bool list_empty(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	static Tgd__Classes classes;
	static Tgd__Spans spans;
	static Tgd__Roots roots;
	static Tgd__Map map;

	switch (ask->what) {
	case TGD__ADMIN__WHAT__CLASSES:
		tgd__classes__init(&classes);
		reply->body_case = TGD__REPLY__BODY_CLASSES;
		reply->classes = &classes;
		return true;
	case TGD__ADMIN__WHAT__SPANS:
		tgd__spans__init(&spans);
		reply->body_case = TGD__REPLY__BODY_SPAN_LIST;
		reply->span_list = &spans;
		return true;
	case TGD__ADMIN__WHAT__ROOTS:
		tgd__roots__init(&roots);
		reply->body_case = TGD__REPLY__BODY_ROOTS;
		reply->roots = &roots;
		return true;
	default:
		tgd__map__init(&map);
		reply->body_case = TGD__REPLY__BODY_MAP;
		reply->map = &map;
		return ask->what == TGD__ADMIN__WHAT__MAP && ask->count > 0 &&
		       ask->count <= TGP_CELLS_MAX;
	}
}

static void empty_lists_are_empty_lists(void)
{
	static const char *const lines[][2] = {{"classes", "{\"classes\": []}\n"},
					       {"spans", "{\"spans\": []}\n"},
					       {"roots", "{\"roots\": []}\n"}};
	char line[64];
	size_t i;

	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		start_peer(list_empty);
		snprintf(line, sizeof(line), "%s --json", lines[i][0]);
		CU_ASSERT_EQUAL(tgctl(line), TGC_OK);
		CU_ASSERT_STRING_EQUAL(out_text, lines[i][1]);
		check_peer();
	}
	start_peer(list_empty);
	CU_ASSERT_EQUAL(tgctl("map"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(out_text, "the heap has not been used yet\n");
	check_peer();
	start_peer(list_empty);
	CU_ASSERT_EQUAL(tgctl("map --json"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(out_text, "{\"page_bytes\": 8192, \"n_pages\": 0, \"pages_per_cell\": 0, "
					 "\"cells\": []}\n");
	check_peer();
}

static void a_result_that_cannot_be_written_is_an_error(void)
{
	char *argv[] = {(char *)"tgctl", (char *)"--help", NULL};
	FILE *full = fopen("/dev/full", "w"), *err = open_memstream(&err_text, &err_size);

	CU_ASSERT_FATAL(full != NULL && err != NULL);
	CU_ASSERT_EQUAL(tgc_cli_main(2, argv, full, err), TGC_BAD_NEWS);
	fclose(full);
	fclose(err);
	CHECK_ERR("cannot write the result: No space left on device");
}

/* ---- run, without a daemon that works ---- */

static void a_daemon_that_does_not_start_is_status_3(void)
{
	setenv("TGD", "/bin/false", 1);
	CU_ASSERT_EQUAL(tgctl("run true"), TGC_UNREACHABLE);
	CHECK_ERR("tgd (/bin/false) ended with status 1 before it was ready");
	setenv("TGD", "/nonexistent/tgd", 1);
	CU_ASSERT_EQUAL(tgctl("--json run true"), TGC_UNREACHABLE);
	CHECK_ERR("cannot run /nonexistent/tgd: No such file or directory");
	check_json_error("ECHILD");
	unsetenv("TGD");
}

static void a_library_that_is_not_there_is_named_before_anything_starts(void)
{
	setenv("TGD", "/nonexistent/tgd", 1);
	setenv("TG_PRELOAD_LIB", "/nonexistent/libtgmalloc.so", 1);
	CU_ASSERT_EQUAL(tgctl("run --preload true"), TGC_UNREACHABLE);
	CHECK_ERR("cannot find libtgmalloc.so; say where it is with TG_PRELOAD_LIB");
	unsetenv("TG_PRELOAD_LIB");
	unsetenv("TGD");
}

static CU_TestInfo use_tests[] = {
	{"wrong use is status 2, and says what to do", wrong_use_is_status_2_and_says_what_to_do},
	{"wrong use is JSON if asked for", wrong_use_is_json_if_asked_for},
	{"help and version need no daemon", help_and_version_need_no_daemon},
	{"options of the command that is run are its own",
	 options_of_the_command_that_is_run_are_its_own},
	{"a result that cannot be written is an error", a_result_that_cannot_be_written_is_an_error},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo reach_tests[] = {
	{"no socket is status 3, and names the path", no_socket_is_status_3_and_names_the_path},
	{"nobody listening is status 3", nobody_listening_is_status_3},
	{"a file that is no socket is status 3", a_file_that_is_no_socket_is_status_3},
	{"a path too long for a socket is wrong use", a_path_too_long_for_a_socket_is_wrong_use},
	{"a daemon that hangs up is status 3", a_daemon_that_hangs_up_is_status_3},
	{"a daemon of another version is status 3", a_daemon_of_another_version_is_status_3},
	{"an answer to another question is refused", an_answer_to_another_question_is_refused},
	{"garbage is refused with a sentence", garbage_is_refused_with_a_sentence},
	{"a daemon that says nothing is given up", a_daemon_that_says_nothing_is_given_up},
	{"a daemon that does not accept is given up", a_daemon_that_does_not_accept_is_given_up},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo answer_tests[] = {
	{"a refusal is status 1, in the daemon's words", a_refusal_is_status_1_in_the_daemons_words},
	{"a refusal without words has those of its errno",
	 a_refusal_without_words_has_those_of_its_errno},
	{"ping tells who answered", ping_tells_who_answered},
	{"limit sends bytes", limit_sends_bytes},
	{"kick sends the client", kick_sends_the_client},
	{"trim tells how much", trim_tells_how_much},
	{"damage is status 1, with the whole report", damage_is_status_1_with_the_whole_report},
	{"stop returns when the daemon has ended", stop_returns_when_the_daemon_has_ended},
	{"a list in several answers is one", a_list_in_several_answers_is_one},
	{"a list without end is given up", a_list_without_end_is_given_up},
	{"empty lists are empty lists", empty_lists_are_empty_lists},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo run_tests[] = {
	{"a daemon that does not start is status 3", a_daemon_that_does_not_start_is_status_3},
	{"a library that is not there is named before anything starts",
	 a_library_that_is_not_there_is_named_before_anything_starts},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"use", make_dir, remove_dir, set_up, tear_down, use_tests},
	{"reaching the daemon", NULL, NULL, set_up, tear_down, reach_tests},
	{"answers", NULL, NULL, set_up, tear_down, answer_tests},
	{"run", NULL, NULL, set_up, tear_down, run_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("ctl", suites);
}
