/* What the daemon makes of its command line and of its config file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <CUnit/CUnit.h>

#include "daemon/config.h"
#include "shm/base.h"
#include "tests/support/runner.h"

static struct tgd_config config;
static enum tgd_config_action action;
static char why[512];
static char path[64];

/* Reads a command line that ends with NULL. */
static int read_args(const char *const *args)
{
	char *argv[16] = {"tgd"};
	int argc = 1;

	while (*args != NULL)
		argv[argc++] = (char *)*args++;
	why[0] = '\0';
	return tgd_config_from_args(&config, argc, argv, &action, why, sizeof(why));
}

#define READ(...) read_args((const char *const[]){__VA_ARGS__, NULL})

static void write_file(const char *text)
{
	FILE *file = fopen(path, "w");

	CU_ASSERT_PTR_NOT_NULL_FATAL(file);
	fputs(text, file);
	CU_ASSERT_EQUAL_FATAL(fclose(file), 0);
}

/* Reads a file with this text, named by --config. */
static int read_file(const char *text)
{
	write_file(text);
	return READ("--config", path);
}

static bool why_has(const char *text)
{
	if (strstr(why, text) != NULL)
		return true;
	fprintf(stderr, "not \"%s\" in: %s\n", text, why);
	return false;
}

/* The file's text leads to an error that names this line and has these words. */
static bool refused(const char *text, unsigned line, const char *words)
{
	char place[96];

	snprintf(place, sizeof(place), "%s:%u: ", path, line);
	return read_file(text) < 0 && why_has(place) && why_has(words);
}

static void set_up(void)
{
	int fd;

	snprintf(path, sizeof(path), "/tmp/tgd-config.XXXXXX");
	fd = mkstemp(path);
	CU_ASSERT_FATAL(fd >= 0);
	close(fd);
	unsetenv("TG_SOCKET");
	unsetenv("XDG_RUNTIME_DIR");
}

static void tear_down(void)
{
	unlink(path);
}

static void without_options_everything_has_its_default(void)
{
	uint64_t half = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2;

	CU_ASSERT_EQUAL(read_args((const char *const[]){NULL}), 0);
	CU_ASSERT_EQUAL(action, TGD_CONFIG_RUN);
	CU_ASSERT_STRING_EQUAL(config.heap, "main");
	CU_ASSERT_EQUAL(config.reserve_bytes, UINT64_C(64) << 30);
	CU_ASSERT_EQUAL(config.limit_bytes, tgs_min(half, config.reserve_bytes));
	CU_ASSERT_EQUAL(config.base, 0);
	CU_ASSERT_EQUAL(config.mode, 0600);
	CU_ASSERT_EQUAL(config.group, (gid_t)-1);
	CU_ASSERT_EQUAL(config.idle_exit_s, 0);
	CU_ASSERT_EQUAL(config.huge, TGD_HUGE_AUTO);
	CU_ASSERT_EQUAL(config.log_level, TGD_LOG_INFO);
	CU_ASSERT_NOT_EQUAL(config.socket[0], '\0');
}

static void the_command_line_sets_every_key(void)
{
	CU_ASSERT_EQUAL(READ("--socket=/x/s", "--heap", "h1", "--reserve=1G", "--limit", "512M",
			     "--base=0x400000000000", "--mode=0666", "--group=0", "--idle-exit=7",
			     "--huge=always", "--log-level=debug"),
			0);
	CU_ASSERT_STRING_EQUAL(config.socket, "/x/s");
	CU_ASSERT_STRING_EQUAL(config.heap, "h1");
	CU_ASSERT_EQUAL(config.reserve_bytes, UINT64_C(1) << 30);
	CU_ASSERT_EQUAL(config.limit_bytes, UINT64_C(512) << 20);
	CU_ASSERT_EQUAL(config.base, UINT64_C(0x400000000000));
	CU_ASSERT_EQUAL(config.mode, 0666);
	CU_ASSERT_EQUAL(config.group, 0);
	CU_ASSERT_EQUAL(config.idle_exit_s, 7);
	CU_ASSERT_EQUAL(config.huge, TGD_HUGE_ALWAYS);
	CU_ASSERT_EQUAL(config.log_level, TGD_LOG_DEBUG);
}

static void the_file_sets_every_key(void)
{
	CU_ASSERT_EQUAL(read_file("# a comment\n"
				  "; another\n"
				  "socket = /x/s\n"
				  "\n"
				  "   heap = h1\n"
				  "\treserve=1G\n"
				  "limit = 512M ; a comment behind\n"
				  "base = 0x400000000000\n"
				  "mode = 0660\n"
				  "group = root\n"
				  "idle-exit = 7\n"
				  "huge = never\n"
				  "log-level = warning"),
			0);
	CU_ASSERT_STRING_EQUAL(config.socket, "/x/s");
	CU_ASSERT_STRING_EQUAL(config.heap, "h1");
	CU_ASSERT_EQUAL(config.reserve_bytes, UINT64_C(1) << 30);
	CU_ASSERT_EQUAL(config.limit_bytes, UINT64_C(512) << 20);
	CU_ASSERT_EQUAL(config.base, UINT64_C(0x400000000000));
	CU_ASSERT_EQUAL(config.mode, 0660);
	CU_ASSERT_EQUAL(config.group, 0);
	CU_ASSERT_EQUAL(config.idle_exit_s, 7);
	CU_ASSERT_EQUAL(config.huge, TGD_HUGE_NEVER);
	CU_ASSERT_EQUAL(config.log_level, TGD_LOG_WARNING);
}

static void the_command_line_counts_more_than_the_file(void)
{
	write_file("limit = 100M\nheap = of-file\n");
	CU_ASSERT_EQUAL(READ("--limit=200M", "--config", path), 0);
	CU_ASSERT_EQUAL(config.limit_bytes, UINT64_C(200) << 20);
	CU_ASSERT_STRING_EQUAL(config.heap, "of-file");
	/* The order of the two does not matter. */
	CU_ASSERT_EQUAL(READ("--config", path, "--limit=200M"), 0);
	CU_ASSERT_EQUAL(config.limit_bytes, UINT64_C(200) << 20);
}

static void a_mistake_in_the_file_is_found_also_where_the_command_line_counts(void)
{
	write_file("heap = x\nlimit = lots\n");
	CU_ASSERT(READ("--limit=200M", "--config", path) < 0);
	CU_ASSERT(why_has(":2: limit: \"lots\" is not a size"));
}

static void mistakes_in_the_file_are_named_with_their_line(void)
{
	CU_ASSERT(refused("heap = x\n\nlimmit = 1G\n", 3, "no key \"limmit\""));
	CU_ASSERT(refused("limit = -1\n", 1, "limit: \"-1\" is not a size"));
	CU_ASSERT(refused("limit = 99999999999999T\n", 1, "more than any machine has"));
	CU_ASSERT(refused("# x\nlimit = 0\n", 2, "can hold nothing"));
	CU_ASSERT(refused("reserve = 1M\n", 1, "64 MiB to 16 TiB"));
	CU_ASSERT(refused("base = 4096\n", 1, "not an address"));
	CU_ASSERT(refused("base = 0x1000\n", 1, "multiple of 4 MiB"));
	CU_ASSERT(refused("base = 0x800000000000\n", 1, "below 0x800000000000"));
	CU_ASSERT(refused("mode = 0968\n", 1, "not a file mode"));
	CU_ASSERT(refused("mode = 0060\n", 1, "not even the daemon's own user"));
	CU_ASSERT(refused("group = no-such-group-here\n", 1, "no group \"no-such-group-here\""));
	CU_ASSERT(refused("idle-exit = soon\n", 1, "not a number of seconds"));
	CU_ASSERT(refused("huge = sometimes\n", 1, "auto, never or always"));
	CU_ASSERT(refused("log-level = loud\n", 1, "not a level"));
	CU_ASSERT(refused("heap = a b\n", 1, "visible ASCII"));
	CU_ASSERT(refused("heap = \n", 1, "1 to 63 bytes"));
	CU_ASSERT(refused("heap = a\nheap = b\n", 2, "heap is set twice"));
	CU_ASSERT(refused("[tgd]\nheap = a\n", 2, "no sections"));
	CU_ASSERT(refused("heap = a\njust words\n", 2, "neither a comment"));
	CU_ASSERT(refused("config = other\n", 1, "no key \"config\""));
}

static void an_overlong_line_is_refused_and_not_cut(void)
{
	char text[600] = "limit = 1G\nheap = ";

	memset(text + strlen(text), 'x', 400);
	CU_ASSERT(refused(text, 2, "a line has at most"));
	/* The comment would hide in what was cut off. */
	memset(text, ' ', 300);
	strcpy(text + 300, "limit = 1G\n");
	CU_ASSERT(refused(text, 1, "a line has at most"));
}

static void names_and_paths_may_be_as_long_as_they_fit(void)
{
	char heap[65], socket[109], option[128];

	memset(heap, 'h', sizeof(heap));
	heap[63] = '\0';
	CU_ASSERT_EQUAL(READ("--heap", heap), 0);
	heap[63] = 'h';
	heap[64] = '\0';
	CU_ASSERT(READ("--heap", heap) < 0);
	CU_ASSERT(why_has("--heap: a heap's name has 1 to 63 bytes, this one has 64"));

	memset(socket, 's', sizeof(socket));
	socket[107] = '\0';
	CU_ASSERT_EQUAL(READ("--socket", socket), 0);
	socket[107] = 's';
	socket[108] = '\0';
	snprintf(option, sizeof(option), "--socket=%s", socket);
	CU_ASSERT(READ(option) < 0);
	CU_ASSERT(why_has("1 to 107 bytes, this one has 108"));
	CU_ASSERT(READ("--socket=") < 0);
}

static void wrong_use_is_told_what_is_wrong(void)
{
	CU_ASSERT(READ("--bogus") < 0);
	CU_ASSERT(why_has("no option --bogus"));
	CU_ASSERT(READ("-x") < 0);
	CU_ASSERT(why_has("no option -x"));
	CU_ASSERT(READ("--limit") < 0);
	CU_ASSERT(why_has("--limit needs a value"));
	CU_ASSERT(READ("word") < 0);
	CU_ASSERT(why_has("\"word\" is not an option"));
	CU_ASSERT(READ("--config", "/nonexistent/tgd.conf") < 0);
	CU_ASSERT(why_has("/nonexistent/tgd.conf: cannot be read: No such file"));
	CU_ASSERT(READ("--config", "/") < 0);
	CU_ASSERT(why_has("/: cannot be read"));
}

static void a_limit_over_the_reservation_is_refused_and_the_default_limit_never_is(void)
{
	CU_ASSERT(READ("--limit=2G", "--reserve=1G") < 0);
	CU_ASSERT(why_has("the limit (2 GiB) is over the reservation (1 GiB)"));
	CU_ASSERT_EQUAL(READ("--reserve=64M"), 0);
	CU_ASSERT_EQUAL(config.limit_bytes, UINT64_C(64) << 20);
}

static void the_socket_comes_from_the_environment_unless_it_is_set(void)
{
	setenv("TG_SOCKET", "/of/env", 1);
	CU_ASSERT_EQUAL(read_args((const char *const[]){NULL}), 0);
	CU_ASSERT_STRING_EQUAL(config.socket, "/of/env");
	CU_ASSERT_EQUAL(READ("--socket=/of/args"), 0);
	CU_ASSERT_STRING_EQUAL(config.socket, "/of/args");
	CU_ASSERT_EQUAL(read_file("socket = /of/file\n"), 0);
	CU_ASSERT_STRING_EQUAL(config.socket, "/of/file");
}

static void a_group_opens_the_socket_to_it_unless_a_mode_is_set(void)
{
	CU_ASSERT_EQUAL(READ("--group=0"), 0);
	CU_ASSERT_EQUAL(config.mode, 0660);
	CU_ASSERT_EQUAL(READ("--group=0", "--mode=0600"), 0);
	CU_ASSERT_EQUAL(config.mode, 0600);
}

static void help_and_version_need_nothing_else_to_be_right(void)
{
	CU_ASSERT_EQUAL(READ("--help", "--bogus"), 0);
	CU_ASSERT_EQUAL(action, TGD_CONFIG_HELP);
	CU_ASSERT_EQUAL(READ("--version"), 0);
	CU_ASSERT_EQUAL(action, TGD_CONFIG_VERSION);
}

static void the_example_is_right_and_shows_every_key(void)
{
	static const char *const words[] = {"socket", "heap",  "reserve",   "limit", "base",
					    "mode",   "group", "idle-exit", "huge",  "log-level"};
	const char *root = getenv("TG_SRCDIR");
	char example[512], text[4096] = "\n", wanted[32];
	FILE *file;
	unsigned i;

	snprintf(example, sizeof(example), "%s/examples/tgd.conf", root != NULL ? root : ".");
	CU_ASSERT_EQUAL(READ("--config", example), 0);
	CU_ASSERT_EQUAL(config.limit_bytes, UINT64_C(4) << 30);

	file = fopen(example, "r");
	CU_ASSERT_PTR_NOT_NULL_FATAL(file);
	CU_ASSERT(fread(text + 1, 1, sizeof(text) - 2, file) > 0);
	fclose(file);
	for (i = 0; i < TGS_ARRAY_LEN(words); i++) {
		/* Set, or with a semicolon before it. */
		snprintf(wanted, sizeof(wanted), "\n%s = ", words[i]);
		if (strstr(text, wanted) == NULL) {
			snprintf(wanted, sizeof(wanted), "\n;%s = ", words[i]);
			CU_ASSERT_PTR_NOT_NULL(strstr(text, wanted));
		}
	}
	CU_ASSERT_EQUAL(TGS_ARRAY_LEN(words), TGD_CONFIG_KEYS);
}

static void a_reload_sees_the_new_file_and_the_old_command_line(void)
{
	struct tgd_config again;
	char *argv[] = {"tgd", "--heap=of-args", "--config", path, NULL};

	write_file("limit = 100M\n");
	CU_ASSERT_EQUAL(tgd_config_from_args(&config, 4, argv, &action, why, sizeof(why)), 0);
	CU_ASSERT_EQUAL(config.limit_bytes, UINT64_C(100) << 20);
	write_file("limit = 300M\nheap = of-file\n");
	CU_ASSERT_EQUAL(tgd_config_reload(&config, &again, why, sizeof(why)), 0);
	CU_ASSERT_EQUAL(again.limit_bytes, UINT64_C(300) << 20);
	CU_ASSERT_STRING_EQUAL(again.heap, "of-args");
	write_file("limit = what\n");
	CU_ASSERT(tgd_config_reload(&config, &again, why, sizeof(why)) < 0);
	CU_ASSERT_EQUAL(again.limit_bytes, UINT64_C(300) << 20);
}

static CU_TestInfo tests[] = {
	{"without options everything has its default", without_options_everything_has_its_default},
	{"the command line sets every key", the_command_line_sets_every_key},
	{"the file sets every key", the_file_sets_every_key},
	{"the command line counts more than the file", the_command_line_counts_more_than_the_file},
	{"a mistake in the file is found also where the command line counts",
	 a_mistake_in_the_file_is_found_also_where_the_command_line_counts},
	{"mistakes in the file are named with their line",
	 mistakes_in_the_file_are_named_with_their_line},
	{"an overlong line is refused and not cut", an_overlong_line_is_refused_and_not_cut},
	{"names and paths may be as long as they fit", names_and_paths_may_be_as_long_as_they_fit},
	{"wrong use is told what is wrong", wrong_use_is_told_what_is_wrong},
	{"a limit over the reservation is refused and the default limit never is",
	 a_limit_over_the_reservation_is_refused_and_the_default_limit_never_is},
	{"the socket comes from the environment unless it is set",
	 the_socket_comes_from_the_environment_unless_it_is_set},
	{"a group opens the socket to it unless a mode is set",
	 a_group_opens_the_socket_to_it_unless_a_mode_is_set},
	{"help and version need nothing else to be right",
	 help_and_version_need_nothing_else_to_be_right},
	{"the example is right and shows every key", the_example_is_right_and_shows_every_key},
	{"a reload sees the new file and the old command line",
	 a_reload_sees_the_new_file_and_the_old_command_line},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"config", NULL, NULL, set_up, tear_down, tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("config", suites);
}
