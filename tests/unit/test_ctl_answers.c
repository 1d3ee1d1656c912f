/* What tgctl makes of the daemon's answers: statuses, sentences, JSON, lists in several answers. */
#include "tests/support/ctlpeer.h"

#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/ctl/ctl.h"

/* ---- answers ---- */

static bool refuse(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	reply->error = -EPERM;
	reply->message = (char *)"uid 5 may not do this";
	return ask->what == TGD__ADMIN__WHAT__LIMIT && ask->value == 64 << 20;
}

static void a_refusal_is_status_1_in_the_daemons_words(void)
{
	tgt_ctl_start_peer(refuse);
	CU_ASSERT_EQUAL(tgt_ctl("--json limit 64M"), TGC_BAD_NEWS);
	CU_ASSERT_STRING_EQUAL(tgt_ctl_err, "tgctl: uid 5 may not do this\n");
	tgt_ctl_check_json_error("EPERM");
	tgt_ctl_check_peer();
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
	tgt_ctl_start_peer(refuse_without_words);
	CU_ASSERT_EQUAL(tgt_ctl("trim"), TGC_BAD_NEWS);
	CHECK_ERR("Protocol error");
	tgt_ctl_check_peer();
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

	tgt_ctl_start_peer(agree);
	CU_ASSERT_EQUAL(tgt_ctl("ping"), TGC_OK);
	CHECK_OUT("tgd 9.9, process ");
	CHECK_OUT(tgt_ctl_path);
	tgt_ctl_check_peer();
	tgt_ctl_start_peer(agree);
	CU_ASSERT_EQUAL(tgt_ctl("--json ping"), TGC_OK);
	object = tgt_ctl_parse_out();
	CU_ASSERT(json_is_true(json_object_get(object, "ok")));
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(object, "pid")), tgt_ctl_peer);
	CU_ASSERT(json_is_integer(json_object_get(object, "round_trip_us")));
	json_decref(object);
	tgt_ctl_check_peer();
}

static bool expect_limit(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	(void)reply;
	return ask->what == TGD__ADMIN__WHAT__LIMIT && ask->value == UINT64_C(3) << 29;
}

static void limit_sends_bytes(void)
{
	tgt_ctl_start_peer(expect_limit);
	CU_ASSERT_EQUAL(tgt_ctl("limit 1.5G"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(tgt_ctl_out, "the limit is now 1.5 GiB\n");
	tgt_ctl_check_peer();
	tgt_ctl_start_peer(expect_limit);
	CU_ASSERT_EQUAL(tgt_ctl("limit 1536M --json"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(tgt_ctl_out, "{\"limit_bytes\": 1610612736}\n");
	tgt_ctl_check_peer();
}

static bool expect_kick(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	(void)reply;
	return ask->what == TGD__ADMIN__WHAT__KICK && ask->value == 12;
}

static void kick_sends_the_client(void)
{
	tgt_ctl_start_peer(expect_kick);
	CU_ASSERT_EQUAL(tgt_ctl("--json kick 12"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(tgt_ctl_out, "{\"ok\": true, \"client\": 12}\n");
	tgt_ctl_check_peer();
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
	tgt_ctl_start_peer(trim_some);
	CU_ASSERT_EQUAL(tgt_ctl("trim"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(tgt_ctl_out, "gave 5 MiB back to the kernel\n");
	tgt_ctl_check_peer();
	tgt_ctl_start_peer(trim_some);
	CU_ASSERT_EQUAL(tgt_ctl("--json trim"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(tgt_ctl_out, "{\"trimmed_bytes\": 5242880}\n");
	tgt_ctl_check_peer();
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

	tgt_ctl_start_peer(damaged);
	CU_ASSERT_EQUAL(tgt_ctl("check"), TGC_BAD_NEWS);
	CHECK_OUT("DAMAGED: 1 error\n  page 3 is in two spans\n");
	tgt_ctl_check_peer();
	tgt_ctl_start_peer(damaged);
	CU_ASSERT_EQUAL(tgt_ctl("check --json"), TGC_BAD_NEWS);
	object = tgt_ctl_parse_out();
	CU_ASSERT(json_is_false(json_object_get(object, "ok")));
	CU_ASSERT_EQUAL(json_array_size(json_object_get(object, "errors")), 1);
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(object, "objects")), 17);
	json_decref(object);
	tgt_ctl_check_peer();
	tgt_ctl_start_peer(sound);
	CU_ASSERT_EQUAL(tgt_ctl("check --json"), TGC_OK);
	object = tgt_ctl_parse_out();
	CU_ASSERT(json_is_true(json_object_get(object, "ok")));
	json_decref(object);
	tgt_ctl_check_peer();
}

/* Agrees and goes, as a daemon that stops does. */
static bool agree_and_go(const Tgd__Admin *ask, Tgd__Reply *reply)
{
	(void)reply;
	tgt_ctl_last_answer = true;
	return ask->what == TGD__ADMIN__WHAT__STOP;
}

static void stop_returns_when_the_daemon_has_ended(void)
{
	int status = -1;

	tgt_ctl_start_peer(agree_and_go);
	CU_ASSERT_EQUAL(tgt_ctl("stop --json"), TGC_OK);
	CHECK_OUT("{\"ok\": true, \"pid\": ");
	CU_ASSERT_EQUAL(waitpid(tgt_ctl_peer, &status, WNOHANG), tgt_ctl_peer);
	CU_ASSERT_EQUAL(status, 0);
	tgt_ctl_peer = 0;
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

	tgt_ctl_start_peer(list_clients);
	CU_ASSERT_EQUAL(tgt_ctl("--json clients"), TGC_OK);
	object = tgt_ctl_parse_out();
	list = json_object_get(object, "clients");
	CU_ASSERT_EQUAL(json_array_size(list), N_LISTED);
	json_array_foreach (list, i, row) {
		CU_ASSERT_EQUAL(json_integer_value(json_object_get(row, "id")),
				(json_int_t)(2 * i + 1));
	}
	json_decref(object);
	tgt_ctl_check_peer();
	tgt_ctl_start_peer(list_clients);
	CU_ASSERT_EQUAL(tgt_ctl("clients"), TGC_OK);
	for (p = tgt_ctl_out; *p != '\0'; p++)
		n_lines += *p == '\n';
	CU_ASSERT_EQUAL(n_lines, N_LISTED + 1);
	tgt_ctl_check_peer();
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
	tgt_ctl_start_peer(list_in_circles);
	CU_ASSERT_EQUAL(tgt_ctl("clients --json"), TGC_UNREACHABLE);
	CHECK_ERR("list of clients goes in circles");
	tgt_ctl_check_json_error("EPROTO");
	tgt_ctl_check_peer();
	tgt_ctl_start_peer(list_nothing_for_ever);
	CU_ASSERT_EQUAL(tgt_ctl("clients"), TGC_UNREACHABLE);
	CU_ASSERT_STRING_EQUAL(tgt_ctl_out, "");
	tgt_ctl_check_peer();
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
		tgt_ctl_start_peer(list_empty);
		snprintf(line, sizeof(line), "%s --json", lines[i][0]);
		CU_ASSERT_EQUAL(tgt_ctl(line), TGC_OK);
		CU_ASSERT_STRING_EQUAL(tgt_ctl_out, lines[i][1]);
		tgt_ctl_check_peer();
	}
	tgt_ctl_start_peer(list_empty);
	CU_ASSERT_EQUAL(tgt_ctl("map"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(tgt_ctl_out, "the heap has not been used yet\n");
	tgt_ctl_check_peer();
	tgt_ctl_start_peer(list_empty);
	CU_ASSERT_EQUAL(tgt_ctl("map --json"), TGC_OK);
	CU_ASSERT_STRING_EQUAL(tgt_ctl_out,
			       "{\"page_bytes\": 8192, \"n_pages\": 0, \"pages_per_cell\": 0, "
			       "\"cells\": []}\n");
	tgt_ctl_check_peer();
}

static CU_TestInfo answer_tests[] = {
	{"a refusal is status 1, in the daemon's words",
	 a_refusal_is_status_1_in_the_daemons_words},
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

static CU_SuiteInfo suites[] = {
	{"answers", NULL, NULL, tgt_ctl_set_up, tgt_ctl_tear_down, answer_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_ctl_run("ctl_answers", suites);
}
