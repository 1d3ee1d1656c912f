/* What tgctl prints: tables that line up, words for numbers, and JSON with the keys that others
 * build on. */
#include "client/ctl/report.h"

#include <stdlib.h>
#include <string.h>

#include "client/ctl/json.h"
#include "shm/base.h"
#include "tests/support/runner.h"

static char *printed;
static size_t printed_size;
static FILE *out;

static int open_out(void)
{
	out = open_memstream(&printed, &printed_size);
	return out == NULL;
}

static void set_up(void)
{
	CU_ASSERT_FATAL(open_out() == 0);
}

static void tear_down(void)
{
	fclose(out);
	free(printed);
	printed = NULL;
}

static const char *text(void)
{
	fflush(out);
	return printed;
}

/* ---- tables ---- */

static void check_table(struct tgc_table *table, const char *want)
{
	CU_ASSERT_PTR_NOT_NULL_FATAL(table);
	CU_ASSERT_EQUAL(tgc_table_print(table, out), 0);
	CU_ASSERT_STRING_EQUAL(text(), want);
	if (strcmp(text(), want) != 0)
		fprintf(stderr, "got:\n%s", text());
	tgc_table_free(table);
}

static void columns_are_as_wide_as_what_is_in_them(void)
{
	static const char *const headings[] = {"N", "<WORD", "SIZE", "<NAME"};
	struct tgc_table *table = tgc_table_new(headings, 4);

	tgc_table_number(table, 7);
	tgc_table_text(table, "a");
	tgc_table_size(table, 1536);
	tgc_table_text(table, "first");
	tgc_table_number(table, 12345);
	tgc_table_text(table, "longer");
	tgc_table_size(table, 0);
	tgc_table_text(table, "");
	CU_ASSERT_EQUAL(tgc_table_rows(table), 2);
	check_table(table, "    N  WORD       SIZE  NAME\n"
			   "    7  a       1.5 KiB  first\n"
			   "12345  longer      0 B  \n");
}

static void a_table_without_rows_has_its_headings(void)
{
	check_table(tgc_report_roots_new(), "INDEX  REF  SIZE  NAME\n");
}

static void many_rows_are_all_kept(void)
{
	static const char *const headings[] = {"A", "B"};
	struct tgc_table *table = tgc_table_new(headings, 2);
	unsigned i, n_lines = 0;
	const char *p;

	for (i = 0; i < 20000; i++)
		tgc_table_number(table, i);
	CU_ASSERT_EQUAL(tgc_table_rows(table), 10000);
	CU_ASSERT_EQUAL(tgc_table_print(table, out), 0);
	for (p = text(); *p != '\0'; p++)
		n_lines += *p == '\n';
	CU_ASSERT_EQUAL(n_lines, 10001);
	CU_ASSERT_PTR_NOT_NULL(strstr(text(), "\n19998  19999\n"));
	tgc_table_free(table);
}

static void per_cent_is_100_only_when_full_and_nothing_of_nothing(void)
{
	static const char *const headings[] = {"P"};
	struct tgc_table *table = tgc_table_new(headings, 1);

	tgc_table_percent(table, 0, 0);
	tgc_table_percent(table, 999999, 1000000);
	tgc_table_percent(table, 1000000, 1000000);
	tgc_table_percent(table, UINT64_MAX / 2, UINT64_MAX);
	check_table(table, "   P\n   -\n 99%\n100%\n 50%\n");
}

static void clients_fit_80_columns(void)
{
	struct tgc_table *table = tgc_report_clients_new();
	Tgd__Client c = TGD__CLIENT__INIT;

	c.id = 16383;
	c.pid = 4194303;
	c.uid = 1000;
	c.threads = 16;
	c.spans = 123456;
	c.span_bytes = UINT64_C(1023) << 30;
	c.policy = 1;
	c.state = 0;
	c.name = (char *)"tgcached";
	tgc_report_client(table, &c);
	c.policy = 9;
	c.state = 9;
	tgc_report_client(table, &c);
	check_table(
		table,
		"   ID      PID   UID  THREADS   SPANS    MEMORY  POLICY   STATE      NAME\n"
		"16383  4194303  1000       16  123456  1023 GiB  reclaim  connected  tgcached\n"
		"16383  4194303  1000       16  123456  1023 GiB  unknown  unknown    tgcached\n");
	CU_ASSERT(strchr(text(), '\n') - text() <= 80);
}

static void classes_without_a_span_are_left_out_and_the_sum_counts_all(void)
{
	struct tgc_table *table = tgc_report_classes_new();
	Tgd__Class rows[4], *pointers[4];
	Tgd__Classes list = TGD__CLASSES__INIT;
	size_t i;

	for (i = 0; i < 4; i++) {
		tgd__class__init(&rows[i]);
		pointers[i] = &rows[i];
	}
	rows[0] = (Tgd__Class){.base = rows[0].base,
			       .class_ = 0,
			       .spans = 1,
			       .objects = 1,
			       .slots = 1,
			       .span_bytes = 65536,
			       .object_bytes = 49152};
	rows[1].class_ = 6;
	rows[1].size = 64;
	rows[2] = (Tgd__Class){.base = rows[2].base,
			       .class_ = 7,
			       .size = 80,
			       .spans = 2,
			       .orphans = 1,
			       .objects = 51,
			       .slots = 204,
			       .span_bytes = 16384,
			       .object_bytes = 4080};
	rows[3] = (Tgd__Class){.base = rows[3].base,
			       .class_ = 68,
			       .size = 1,
			       .spans = 1,
			       .objects = 100,
			       .slots = 8192,
			       .span_bytes = 8192,
			       .object_bytes = 700};
	list.n_classes = 4;
	list.classes = pointers;
	for (i = 0; i < 4; i++)
		tgc_report_class(table, &rows[i]);
	tgc_report_classes_total(table, &list);
	check_table(table,
		    "CLASS    SIZE  SPANS  CENTRAL  SPAN MEM  OBJECTS  SLOTS  FULL  OBJECT MEM\n"
		    "large  >32768      1        0    64 KiB        1      -   75%      48 KiB\n"
		    "    7      80      2        1    16 KiB       51    204   25%       4 KiB\n"
		    " tiny   1..15      1        0     8 KiB      100      -    8%       700 B\n"
		    "  all              4        1    88 KiB      152      -   59%    52.7 KiB\n");
}

static void spans_name_central_and_survive_an_unknown_class(void)
{
	struct tgc_table *table = tgc_report_spans_new();
	Tgd__Span s = TGD__SPAN__INIT;

	s.page = 12;
	s.n_pages = 1;
	s.class_ = 6;
	s.slot = 1;
	s.objects = 3;
	s.slots = 128;
	tgc_report_span(table, &s);
	s.class_ = 4000000000u;
	s.slot = 2;
	s.client = 5;
	s.remote = 1;
	tgc_report_span(table, &s);
	check_table(table, "PAGE  PAGES  CLASS  SIZE  OBJECTS  SLOTS  REMOTE     SLOT  CLIENT\n"
			   "  12      1      6    64        3    128       0  central       -\n"
			   "  12      1      ?     ?        3    128       1        2       5\n");
}

/* ---- words ---- */

static void a_duration_has_its_two_largest_units(void)
{
	static const struct {
		uint64_t ms;
		const char *want;
	} cases[] = {{999, "up 0 s\n"},
		     {59999, "up 59 s\n"},
		     {60000, "up 1 min 0 s\n"},
		     {3661000, "up 1 h 1 min\n"},
		     {UINT64_C(200000000), "up 2 d 7 h\n"}};
	Tgd__Status s = TGD__STATUS__INIT;
	size_t i;

	for (i = 0; i < TGS_ARRAY_LEN(cases); i++) {
		tear_down();
		set_up();
		s.uptime_ms = cases[i].ms;
		tgc_report_status(out, &s);
		CU_ASSERT_PTR_NOT_NULL(strstr(text(), cases[i].want));
	}
}

static void status_says_what_an_operator_asks(void)
{
	Tgd__Status s = TGD__STATUS__INIT;

	s.heap = (char *)"main";
	s.version = (char *)"0.1.0";
	s.pid = 42;
	s.limit_bytes = UINT64_C(1) << 30;
	s.reserve_bytes = UINT64_C(64) << 30;
	s.span_bytes = UINT64_C(256) << 20;
	s.spans = 1;
	s.clients = 4;
	s.slots = 17;
	s.recovered_clients = 1;
	s.messages = 123;
	s.span_messages = 45;
	s.refused = 6;
	tgc_report_status(out, &s);
	CU_ASSERT_PTR_NOT_NULL(strstr(text(), "heap        main\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text(), "tgd 0.1.0, process 42"));
	CU_ASSERT_PTR_NOT_NULL(
		strstr(text(), "limit       1 GiB, in an address range of 64 GiB\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text(), "256 MiB in 1 span, 25.0% of the limit"));
	CU_ASSERT_PTR_NOT_NULL(
		strstr(text(), "4 attached with 17 threads; 1 died and was recovered"));
	CU_ASSERT_PTR_NOT_NULL(
		strstr(text(), "messages    123 from clients, 45 of them about spans\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text(), "refused     6 requests for want of memory\n"));
}

static void status_of_a_huge_heap_fits_80_columns(void)
{
	uint64_t huge = (UINT64_C(1024) << 30) - (UINT64_C(100) << 20); /* "1023.9 GiB" */
	Tgd__Status s = TGD__STATUS__INIT;
	const char *line, *end;

	s.heap = (char *)"main";
	s.version = (char *)"0.1.0";
	s.pid = 4194303;
	s.uptime_ms = UINT64_C(1000) * 86400 * 1000 - 1000;
	s.limit_bytes = s.reserve_bytes = s.span_bytes = s.peak_span_bytes = s.free_bytes = huge;
	s.largest_free_run_bytes = s.resident_bytes = s.idle_bytes = s.scavenged_bytes = huge;
	s.huge = (char *)"unsupported";
	s.huge_bytes = huge;
	s.spans = s.orphan_spans = 134217728;
	s.clients = s.slots = 16384;
	s.recovered_clients = 1000000;
	s.messages = s.span_messages = s.refused = UINT64_C(1) << 40;
	tgc_report_status(out, &s);
	for (line = text(); *line != '\0'; line = end + 1) {
		end = strchrnul(line, '\n');
		CU_ASSERT(end - line <= 80);
	}
	CU_ASSERT_PTR_NOT_NULL(strstr(text(), "1023.9 GiB in 134217728 spans"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text(), "unsupported, 1023.9 GiB in pages of 2 MiB"));
}

static void check_names_the_damage(void)
{
	char *errors[] = {(char *)"span 7: bit of no slot is set"};
	Tgd__Check c = TGD__CHECK__INIT;

	c.errors = errors;
	c.n_errors = 1;
	c.more_errors = 2;
	c.objects = 5;
	c.pending_frees = 1;
	tgc_report_check(out, &c);
	CU_ASSERT_PTR_NOT_NULL(strstr(text(), "DAMAGED: 3 errors\n  span 7: bit of no slot is set\n"
					      "  and 2 more\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text(), "1 freed object still in a thread's buffer"));
	CU_ASSERT_PTR_NULL(strstr(text(), "sound"));
}

/* ---- JSON ---- */

/* The object has these keys, separated by blanks, and gives up the reference. */
static void check_keys(json_t *object, const char *keys)
{
	char copy[512], *key, *rest = copy;

	CU_ASSERT_PTR_NOT_NULL_FATAL(object);
	snprintf(copy, sizeof(copy), "%s", keys);
	while ((key = strsep(&rest, " ")) != NULL) {
		CU_ASSERT_PTR_NOT_NULL(json_object_get(object, key));
		if (json_object_get(object, key) == NULL)
			fprintf(stderr, "no key %s\n", key);
	}
	json_decref(object);
}

static void objects_have_the_keys_of_the_contract(void)
{
	Tgd__Status status = TGD__STATUS__INIT;
	Tgd__Client client = TGD__CLIENT__INIT;
	Tgd__Check check = TGD__CHECK__INIT;

	check_keys(tgc_json_status(&status), "heap pid uptime_s reserve_bytes limit_bytes "
					     "span_bytes free_bytes resident_bytes clients spans "
					     "recovered_clients scavenged_bytes messages "
					     "span_messages refused largest_free_run_bytes "
					     "idle_bytes roots version orphan_spans huge "
					     "huge_bytes");
	check_keys(tgc_json_client(&client),
		   "id pid uid name threads spans span_bytes policy state");
	check_keys(tgc_json_check(&check),
		   "ok errors objects object_bytes published spans orphan_spans pending_frees");
}

/* Each value is another, so that no two keys can be mixed up unnoticed. */
static void each_key_has_its_own_value(void)
{
	Tgd__Status s = TGD__STATUS__INIT;
	json_t *object;
	size_t i;
	const struct {
		const char *key;
		uint64_t *value;
	} fields[] = {
		{"reserve_bytes", &s.reserve_bytes},
		{"limit_bytes", &s.limit_bytes},
		{"span_bytes", &s.span_bytes},
		{"peak_span_bytes", &s.peak_span_bytes},
		{"free_bytes", &s.free_bytes},
		{"largest_free_run_bytes", &s.largest_free_run_bytes},
		{"resident_bytes", &s.resident_bytes},
		{"idle_bytes", &s.idle_bytes},
		{"huge_bytes", &s.huge_bytes},
		{"scavenged_bytes", &s.scavenged_bytes},
		{"clients", &s.clients},
		{"slots", &s.slots},
		{"recovered_clients", &s.recovered_clients},
		{"spans", &s.spans},
		{"orphan_spans", &s.orphan_spans},
		{"roots", &s.roots},
		{"messages", &s.messages},
		{"span_messages", &s.span_messages},
		{"refused", &s.refused},
	};

	for (i = 0; i < TGS_ARRAY_LEN(fields); i++)
		*fields[i].value = 1000 + i;
	s.pid = 77;
	s.uptime_ms = 12999;
	object = tgc_json_status(&s);
	CU_ASSERT_PTR_NOT_NULL_FATAL(object);
	for (i = 0; i < TGS_ARRAY_LEN(fields); i++)
		CU_ASSERT_EQUAL(json_integer_value(json_object_get(object, fields[i].key)),
				(json_int_t)(1000 + i));
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(object, "pid")), 77);
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(object, "uptime_s")), 12);
	json_decref(object);
}

static void policy_and_state_are_words(void)
{
	static const char *const states[] = {"connected", "away", "dead", "unknown"};
	Tgd__Client c = TGD__CLIENT__INIT;
	json_t *object;

	for (c.state = 0; c.state < 4; c.state++) {
		c.policy = c.state & 1;
		object = tgc_json_client(&c);
		CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(object, "state")),
				       states[c.state]);
		CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(object, "policy")),
				       c.policy ? "reclaim" : "keep");
		json_decref(object);
	}
}

static void numbers_over_63_bits_become_the_largest(void)
{
	CU_ASSERT_EQUAL(tgc_json_number(UINT64_MAX), INT64_MAX);
	CU_ASSERT_EQUAL(tgc_json_number((uint64_t)INT64_MAX), INT64_MAX);
	CU_ASSERT_EQUAL(tgc_json_number((uint64_t)INT64_MAX - 1), INT64_MAX - 1);
}

static void one_object_is_one_line(void)
{
	CU_ASSERT_EQUAL(tgc_json_print(tgc_json_error("no \"daemon\"", -2), out), 0);
	CU_ASSERT_STRING_EQUAL(text(),
			       "{\"error\": \"no \\\"daemon\\\"\", \"errno\": \"ENOENT\"}\n");
	CU_ASSERT(tgc_json_print(NULL, out) < 0);
}

static CU_TestInfo table_tests[] = {
	{"columns are as wide as what is in them", columns_are_as_wide_as_what_is_in_them},
	{"a table without rows has its headings", a_table_without_rows_has_its_headings},
	{"many rows are all kept", many_rows_are_all_kept},
	{"per cent is 100 only when full, and nothing of nothing",
	 per_cent_is_100_only_when_full_and_nothing_of_nothing},
	{"clients fit 80 columns", clients_fit_80_columns},
	{"classes without a span are left out, and the sum counts all",
	 classes_without_a_span_are_left_out_and_the_sum_counts_all},
	{"spans name central, and survive an unknown class",
	 spans_name_central_and_survive_an_unknown_class},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo word_tests[] = {
	{"a duration has its two largest units", a_duration_has_its_two_largest_units},
	{"status says what an operator asks", status_says_what_an_operator_asks},
	{"status of a huge heap fits 80 columns", status_of_a_huge_heap_fits_80_columns},
	{"check names the damage", check_names_the_damage},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo json_tests[] = {
	{"objects have the keys of the contract", objects_have_the_keys_of_the_contract},
	{"each key has its own value", each_key_has_its_own_value},
	{"policy and state are words", policy_and_state_are_words},
	{"numbers over 63 bits become the largest", numbers_over_63_bits_become_the_largest},
	{"one object is one line", one_object_is_one_line},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"tables", NULL, NULL, set_up, tear_down, table_tests},
	{"words", NULL, NULL, set_up, tear_down, word_tests},
	{"json", NULL, NULL, set_up, tear_down, json_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("report", suites);
}
