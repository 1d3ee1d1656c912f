/* tgctl's command line: wrong use, a daemon that is not there or makes no sense, a run that does
 * not start. */
#include "tests/support/ctlpeer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/ctl/cli.h"
#include "client/ctl/ctl.h"

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
		CU_ASSERT_EQUAL(tgt_ctl(cases[i].line), TGC_WRONG_USE);
		CHECK_ERR(cases[i].sentence);
		if (strstr(tgt_ctl_err, cases[i].sentence) == NULL)
			fprintf(stderr, "\"%s\" gave: %s", cases[i].line, tgt_ctl_err);
		CU_ASSERT_EQUAL(strncmp(tgt_ctl_err, "tgctl: ", 7), 0);
		CU_ASSERT_STRING_EQUAL(tgt_ctl_out, "");
	}
}

static void wrong_use_is_json_if_asked_for(void)
{
	CU_ASSERT_EQUAL(tgt_ctl("--json limit lots"), TGC_WRONG_USE);
	tgt_ctl_check_json_error("EINVAL");
	CU_ASSERT_EQUAL(tgt_ctl("limit 99999999T --json"), TGC_WRONG_USE);
	tgt_ctl_check_json_error("ERANGE");
}

static void help_and_version_need_no_daemon(void)
{
	static const char *const names[] = {"ping",  "status", "clients", "classes", "spans",
					    "map",   "roots",  "top",     "check",   "trim",
					    "limit", "kick",   "stop",    "run"};
	char line[64];
	size_t i;

	CU_ASSERT_EQUAL(tgt_ctl("--version"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(tgt_ctl_out, "tgctl " PACKAGE_VERSION "\n");
	CU_ASSERT_EQUAL(tgt_ctl("--help"), TGC_OK);
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(line, sizeof(line), "\n  %s ", names[i]);
		CHECK_OUT(line);
	}
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(line, sizeof(line), "%s --help", names[i]);
		CU_ASSERT_EQUAL(tgt_ctl(line), TGC_OK);
		snprintf(line, sizeof(line), "tgctl [--socket PATH] [--json] %s", names[i]);
		CHECK_OUT(line);
		CU_ASSERT_STRING_EQUAL(tgt_ctl_err, "");
	}
}

static void options_of_the_command_that_is_run_are_its_own(void)
{
	setenv("TGD", "/nonexistent/tgd", 1);
	/* --help is seq's, so tgctl gets as far as looking for a daemon. */
	CU_ASSERT_EQUAL(tgt_ctl("run seq --help"), TGC_UNREACHABLE);
	CU_ASSERT_EQUAL(tgt_ctl("run -- --help"), TGC_UNREACHABLE);
	CU_ASSERT_EQUAL(tgt_ctl("run --help seq"), TGC_OK);
	unsetenv("TGD");
}

/* ---- no daemon ---- */

static void no_socket_is_status_3_and_names_the_path(void)
{
	char want[256];

	CU_ASSERT_EQUAL(tgt_ctl("status"), TGC_UNREACHABLE);
	snprintf(want, sizeof(want),
		 "tgctl: no daemon at %s: no such file; start one with: tgd --socket %s\n",
		 tgt_ctl_path, tgt_ctl_path);
	CU_ASSERT_STRING_EQUAL(tgt_ctl_err, want);
	CU_ASSERT_STRING_EQUAL(tgt_ctl_out, "");
	CU_ASSERT_EQUAL(tgt_ctl("--json status"), TGC_UNREACHABLE);
	tgt_ctl_check_json_error("ENOENT");
}

static void nobody_listening_is_status_3(void)
{
	int listener = tgt_ctl_listen();

	CU_ASSERT(listener >= 0);
	close(listener);
	CU_ASSERT_EQUAL(tgt_ctl("--json ping"), TGC_UNREACHABLE);
	CHECK_ERR("connection refused; start one with: tgd --socket ");
	tgt_ctl_check_json_error("ECONNREFUSED");
}

static void a_file_that_is_no_socket_is_status_3(void)
{
	CU_ASSERT_EQUAL(tgt_ctl("--socket /etc/passwd --json ping"), TGC_UNREACHABLE);
	CHECK_ERR("/etc/passwd is not a socket");
	tgt_ctl_check_json_error("ENOTSOCK");
}

static void a_path_too_long_for_a_socket_is_wrong_use(void)
{
	char line[256];

	memset(line, 'x', 200);
	memcpy(line, "--socket /", 10);
	strcpy(line + 200, " status");
	CU_ASSERT_EQUAL(tgt_ctl(line), TGC_WRONG_USE);
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
	tgt_ctl_start_peer(hang_up);
	CU_ASSERT_EQUAL(tgt_ctl("status --json"), TGC_UNREACHABLE);
	CHECK_ERR("closed the connection without an answer");
	tgt_ctl_check_json_error("ECONNRESET");
	tgt_ctl_check_peer();
}

static void a_daemon_of_another_version_is_status_3(void)
{
	tgt_ctl_hello_version = TGP_VERSION + 1;
	tgt_ctl_start_peer(hang_up);
	CU_ASSERT_EQUAL(tgt_ctl("status"), TGC_UNREACHABLE);
	CHECK_ERR("speaks version 2 of the protocol");
	tgt_ctl_check_peer();
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
	tgt_ctl_start_peer(answer_another);
	CU_ASSERT_EQUAL(tgt_ctl("status"), TGC_UNREACHABLE);
	CHECK_ERR("of another kind than the question");
	tgt_ctl_check_peer();
	tgt_ctl_start_peer(answer_with_other_id);
	CU_ASSERT_EQUAL(tgt_ctl("check"), TGC_UNREACHABLE);
	CHECK_ERR("answered request 7 instead of 2");
	tgt_ctl_check_peer();
}

static void garbage_is_refused_with_a_sentence(void)
{
	tgt_ctl_start_babbler("HTTP/1.1 400 Bad Request\r\n", 26);
	CU_ASSERT_EQUAL(tgt_ctl("status"), TGC_UNREACHABLE);
	CHECK_ERR("what answers there is no tgd");
	tgt_ctl_check_peer();
	tgt_ctl_start_babbler("\3\0\0\0\377\377\377", 7);
	CU_ASSERT_EQUAL(tgt_ctl("status"), TGC_UNREACHABLE);
	CHECK_ERR("the daemon's answer makes no sense");
	tgt_ctl_check_peer();
}

static void a_daemon_that_says_nothing_is_given_up(void)
{
	struct tgc_talk *talk = tgc_talk_new();

	CU_ASSERT_PTR_NOT_NULL_FATAL(talk);
	tgt_ctl_start_babbler("", 0);
	talk->timeout_ms = 50;
	CU_ASSERT_EQUAL(tgc_talk_open(talk, tgt_ctl_path), -ETIMEDOUT);
	CU_ASSERT_FALSE(talk->refused);
	CU_ASSERT_PTR_NOT_NULL(strstr(talk->why, "did not answer within 0.1 s"));
	tgc_talk_free(talk);
	tgt_ctl_check_peer();
}

static void a_daemon_that_does_not_accept_is_given_up(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int listener = tgt_ctl_listen(), fds[16], n = 0;
	struct tgc_talk *talk = tgc_talk_new();

	CU_ASSERT_FATAL(listener >= 0 && talk != NULL);
	strcpy(address.sun_path, tgt_ctl_path);
	do { /* fill its queue */
		fds[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	} while (connect(fds[n++], (struct sockaddr *)&address, sizeof(address)) == 0 && n < 16);
	CU_ASSERT(n < 16);
	talk->timeout_ms = 50;
	CU_ASSERT_EQUAL(tgc_talk_open(talk, tgt_ctl_path), -ETIMEDOUT);
	CU_ASSERT_PTR_NOT_NULL(strstr(talk->why, "does not accept connections"));
	tgc_talk_free(talk);
	while (n > 0)
		close(fds[--n]);
	close(listener);
}

static void a_result_that_cannot_be_written_is_an_error(void)
{
	char *argv[] = {(char *)"tgctl", (char *)"--help", NULL};
	size_t size;
	FILE *full = fopen("/dev/full", "w"), *err = open_memstream(&tgt_ctl_err, &size);

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
	CU_ASSERT_EQUAL(tgt_ctl("run true"), TGC_UNREACHABLE);
	CHECK_ERR("tgd (/bin/false) ended with status 1 before it was ready");
	setenv("TGD", "/nonexistent/tgd", 1);
	CU_ASSERT_EQUAL(tgt_ctl("--json run true"), TGC_UNREACHABLE);
	CHECK_ERR("cannot run /nonexistent/tgd: No such file or directory");
	tgt_ctl_check_json_error("ECHILD");
	unsetenv("TGD");
}

static void a_library_that_is_not_there_is_named_before_anything_starts(void)
{
	setenv("TGD", "/nonexistent/tgd", 1);
	setenv("TG_PRELOAD_LIB", "/nonexistent/libtgmalloc.so", 1);
	CU_ASSERT_EQUAL(tgt_ctl("run --preload true"), TGC_UNREACHABLE);
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
	{"a result that cannot be written is an error",
	 a_result_that_cannot_be_written_is_an_error},
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

static CU_TestInfo run_tests[] = {
	{"a daemon that does not start is status 3", a_daemon_that_does_not_start_is_status_3},
	{"a library that is not there is named before anything starts",
	 a_library_that_is_not_there_is_named_before_anything_starts},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"use", NULL, NULL, tgt_ctl_set_up, tgt_ctl_tear_down, use_tests},
	{"reaching the daemon", NULL, NULL, tgt_ctl_set_up, tgt_ctl_tear_down, reach_tests},
	{"run", NULL, NULL, tgt_ctl_set_up, tgt_ctl_tear_down, run_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_ctl_run("ctl", suites);
}
