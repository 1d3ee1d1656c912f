/* cli.c - tgctl's command line: options, the table of commands, help.
 *
 * The table is the one place that knows which commands there are; --help, the checks of their
 * arguments and the calls all come from it.  Options may stand before the command or behind it;
 * behind `run` they end at the first word that is none, since what follows are the command's
 * own.
 */
#include "client/ctl/cli.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

#include "client/ctl/commands.h"
#include "proto/size.h"
#include "shm/base.h"

struct command {
	const char *name;
	const char *args; /* as help shows them */
	int n_args;       /* so many; -1: one or more; one more if `args` are in brackets */
	const char *summary;
	const char *details;
	int (*run)(struct tgc_ctl *ctl, char **args);
};

static const struct command commands[] = {
	{"ping", "", 0, "ask the daemon whether it is there",
	 "Prints who answered, and how fast.\n", tgc_cmd_ping},
	{"status", "", 0, "show the heap as a whole",
	 "Memory, clients and messages.  A heap in a steady state sends no messages.\n",
	 tgc_cmd_status},
	{"clients", "", 0, "list the attached processes",
	 "STATE: connected; away (alive, but its connection is gone); dead (being recovered).\n"
	 "POLICY: what becomes of its unpublished objects when it ends.\n",
	 tgc_cmd_clients},
	{"classes", "", 0, "show the use of each size class",
	 "CENTRAL: spans that no client holds.  FULL: used slots; for tiny and large objects and\n"
	 "the sum, used memory.\n",
	 tgc_cmd_classes},
	{"spans", "", 0, "list all spans",
	 "REMOTE: objects freed by others that the owner has not taken back yet.\n", tgc_cmd_spans},
	{"map", "", 0, "draw the heap",
	 "As wide as the terminal; in colour on a terminal, unless NO_COLOR is set.\n",
	 tgc_cmd_map},
	{"roots", "", 0, "list the named objects", "", tgc_cmd_roots},
	{"top", "", 0, "watch the heap and its clients",
	 "Those that hold most are first.  On a terminal it is drawn anew every two seconds, "
	 "until\n"
	 "you interrupt it (Ctrl-C); elsewhere once.\n",
	 tgc_cmd_top},
	{"check", "", 0, "verify every structure of the heap",
	 "Exit status 1 if there is damage.  Objects are counted exactly if no one allocates\n"
	 "or frees meanwhile.\n",
	 tgc_cmd_check},
	{"trim", "", 0, "give idle memory back to the kernel",
	 "Clients are asked to give back what they only cache.\n", tgc_cmd_trim},
	{"limit", "SIZE", 1, "change how much memory the heap may take",
	 "SIZE: bytes, or a number with K, M, G or T (binary): 64M, 1.5G.\n", tgc_cmd_limit},
	{"kick", "CLIENT", 1, "disconnect a client and kill its process",
	 "CLIENT: an ID as listed by `tgctl clients`.  What the client held is settled as at any\n"
	 "other death.\n",
	 tgc_cmd_kick},
	{"upgrade", "[PROGRAM]", 0, "replace the daemon's program, without an interruption",
	 "PROGRAM: a tgd; default: the file that the daemon runs, or what is in its place now.\n"
	 "The heap and its clients stay as they are.  Returns when the new one serves.  If it\n"
	 "cannot, the old one goes on, and the exit status is 1.\n",
	 tgc_cmd_upgrade},
	{"stop", "", 0, "end the daemon", "Returns when it has ended.\n", tgc_cmd_stop},
	{"run", "[--preload] [--limit SIZE] -- COMMAND...", -1,
	 "run a command on a heap of its own",
	 "Starts a private daemon, runs COMMAND with TG_SOCKET set, stops the daemon, and exits "
	 "with\n"
	 "COMMAND's status (128+N if signal N ended it, 127 if it is not found).\n"
	 "  --preload       COMMAND's malloc uses the heap (LD_PRELOAD of libtgmalloc.so)\n"
	 "  --limit SIZE    how much memory the heap may take\n",
	 tgc_cmd_run},
};

enum { OPTION_SOCKET = 256, OPTION_JSON, OPTION_PRELOAD, OPTION_LIMIT };

#define COMMON_OPTIONS                                                                      \
	{"socket", required_argument, NULL, OPTION_SOCKET},                                 \
		{"json", no_argument, NULL, OPTION_JSON}, {"help", no_argument, NULL, 'h'}, \
	{                                                                                   \
		"version", no_argument, NULL, 'V'                                           \
	}

static const struct option common_options[] = {COMMON_OPTIONS, {0}};
static const struct option run_options[] = {COMMON_OPTIONS,
					    {"preload", no_argument, NULL, OPTION_PRELOAD},
					    {"limit", required_argument, NULL, OPTION_LIMIT},
					    {0}};

/* ---- help ---- */

static void print_help(FILE *out)
{
	size_t i;

	fputs("Usage: tgctl [--socket PATH] [--json] COMMAND [ARGUMENT...]\n"
	      "Show and steer a heap that is shared by many processes, and its daemon tgd.\n\n"
	      "Commands:\n",
	      out);
	for (i = 0; i < TGS_ARRAY_LEN(commands); i++) {
		const struct command *c = &commands[i];
		const char *args =
			strcmp(c->name, "run") == 0 ? "[OPTION...] -- COMMAND..." : c->args;
		int width = fprintf(out, "  %s%s%s", c->name, *args == '\0' ? "" : " ", args);

		if (width < 18)
			fprintf(out, "%*s%s\n", 18 - width, "", c->summary);
		else
			fprintf(out, "\n%*s%s\n", 18, "", c->summary);
	}
	fputs("\nOptions:\n"
	      "  --socket PATH   the daemon's socket; default: $TG_SOCKET, else\n"
	      "                  $XDG_RUNTIME_DIR/tgd.sock, else /run/tgd.sock (root) or\n"
	      "                  /tmp/tgd-UID.sock\n"
	      "  --json          print one JSON object, with exact numbers\n"
	      "  -h, --help      print this, or with a COMMAND what that does\n"
	      "  -V, --version   print the version\n\n"
	      "Exit status: 0 success; 1 bad news (check found damage, the daemon refused);\n"
	      "2 wrong use; 3 the daemon cannot be reached.\n",
	      out);
}

static void print_command_help(FILE *out, const struct command *c)
{
	fprintf(out, "Usage: tgctl [--socket PATH] [--json] %s%s%s\n", c->name,
		*c->args == '\0' ? "" : " ", c->args);
	fprintf(out, "tgctl %s: %s.\n", c->name, c->summary);
	if (*c->details != '\0')
		fprintf(out, "\n%s", c->details);
}

/* ---- options ---- */

static int wrong_option(struct tgc_ctl *ctl, int code, char **argv)
{
	const char *word = argv[optind - 1];
	char letter[] = {'-', (char)optopt, '\0'};

	/* A wrong letter may be one of several in a word, so getopt names it; a long option is
	 * the word. */
	if (optopt > 0 && optopt < 256 && strncmp(word, "--", 2) != 0)
		word = letter;
	if (code == ':')
		return tgc_ctl_fail(ctl, TGC_WRONG_USE, -EINVAL,
				    "option %s needs a value; try 'tgctl --help'", word);
	if (optopt >= 256 || (optopt != 0 && strncmp(word, "--", 2) == 0))
		return tgc_ctl_fail(ctl, TGC_WRONG_USE, -EINVAL,
				    "option %s takes no value; try 'tgctl --help'", word);
	return tgc_ctl_fail(ctl, TGC_WRONG_USE, -EINVAL, "unknown option %s; try 'tgctl --help'",
			    word);
}

/* Reads options up to where getopt ends; optind is then the first other word.  -1: go on; else
 * the exit status. */
static int read_options(struct tgc_ctl *ctl, int argc, char **argv, const char *letters,
			const struct option *options)
{
	int code, r;

	optind = 0; /* start afresh, as GNU getopt has it */
	opterr = 0;
	while ((code = getopt_long(argc, argv, letters, options, NULL)) != -1) {
		switch (code) {
		case OPTION_SOCKET:
			ctl->socket = optarg;
			break;
		case OPTION_JSON:
			ctl->json = true;
			break;
		case OPTION_PRELOAD:
			ctl->preload = true;
			break;
		case OPTION_LIMIT:
			r = tgp_parse_size(optarg, &ctl->limit);
			if (r == 0 && ctl->limit == 0)
				r = -EINVAL;
			if (r < 0)
				return tgc_ctl_fail(ctl, TGC_WRONG_USE, r,
						    TGC_SIZE_WRONG("--limit"), optarg);
			break;
		case 'h':
			ctl->help = true;
			break;
		case 'V':
			fprintf(ctl->out, "tgctl %s\n", PACKAGE_VERSION);
			return TGC_OK;
		default:
			return wrong_option(ctl, code, argv);
		}
	}
	return -1;
}

/* ---- commands ---- */

static const struct command *find_command(const char *name)
{
	size_t i;

	for (i = 0; i < TGS_ARRAY_LEN(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

/* argv[0] is the command's name. */
static int do_command(struct tgc_ctl *ctl, const struct command *c, int argc, char **argv)
{
	bool is_run = c->n_args < 0;
	int max = c->n_args + (*c->args == '['), r, n;

	r = read_options(ctl, argc, argv, is_run ? "+:hV" : ":hV",
			 is_run ? run_options : common_options);
	if (r >= 0)
		return r;
	if (ctl->help) {
		print_command_help(ctl->out, c);
		return TGC_OK;
	}
	n = argc - optind;
	if (is_run ? n == 0 : n < c->n_args)
		return tgc_ctl_fail(ctl, TGC_WRONG_USE, -EINVAL, "%s needs more: tgctl %s %s",
				    c->name, c->name, c->args);
	if (!is_run && n > max)
		return tgc_ctl_fail(ctl, TGC_WRONG_USE, -EINVAL,
				    "%s: do not know what to do with \"%s\"; try 'tgctl %s --help'",
				    c->name, argv[optind + max], c->name);
	return c->run(ctl, argv + optind);
}

static int do_all(struct tgc_ctl *ctl, int argc, char **argv)
{
	const struct command *c;
	int r;

	r = read_options(ctl, argc, argv, "+:hV", common_options);
	if (r >= 0)
		return r;
	if (optind == argc) {
		if (!ctl->help)
			return tgc_ctl_fail(ctl, TGC_WRONG_USE, -EINVAL,
					    "which command?  'tgctl --help' lists them");
		print_help(ctl->out);
		return TGC_OK;
	}
	c = find_command(argv[optind]);
	if (c == NULL)
		return tgc_ctl_fail(ctl, TGC_WRONG_USE, -EINVAL,
				    "there is no command \"%s\"; 'tgctl --help' lists them",
				    argv[optind]);
	return do_command(ctl, c, argc - optind, argv + optind);
}

/* The whole program, but for the process around it.  Not for several threads at a time: getopt's
 * state is global. */
int tgc_cli_main(int argc, char **argv, FILE *out, FILE *err)
{
	struct tgc_ctl ctl = {.out = out, .err = err, .timeout_ms = TGC_TALK_TIMEOUT_MS};
	int status = do_all(&ctl, argc, argv);

	tgc_talk_free(ctl.talk);
	if ((fflush(out) != 0 || ferror(out)) && status == TGC_OK) {
		fprintf(err, "tgctl: cannot write the result: %s\n", strerror(errno));
		status = TGC_BAD_NEWS;
	}
	return status;
}
