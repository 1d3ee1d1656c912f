/* config.c - what the daemon was told: the command line, the config file, and defaults.
 *
 * Options and config file are one table of keys (config-keys.c), so both know the same words.  The
 * command line is read first, then the file; a key that the command line has set is read from the
 * file into a copy that is thrown away, so that a mistake there is found all the same. Last come
 * the defaults that depend on other keys (limit, socket path, mode). The file is read line by line
 * by ourselves and parsed by inih: so the number of the line is known, a line too long for inih is
 * refused and not cut, and an indented line is a line like any other.
 */
#include "daemon/config.h"

#include <errno.h>
#include <getopt.h>
#include <ini.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "daemon/config-impl.h"
#include "proto/size.h"
#include "shm/base.h"

#define DEFAULT_RESERVE (UINT64_C(64) << 30)
#define LINE_MAX_SIZE   190 /* inih has room for 200 */

void tgd_config_init(struct tgd_config *config)
{
	*config = (struct tgd_config){
		.heap = TGD_DEFAULT_HEAP,
		.reserve_bytes = DEFAULT_RESERVE,
		.group = (gid_t)-1,
		.log_level = TGD_LOG_INFO,
	};
}

/* ---- the file ---- */

struct file {
	FILE *stream;
	const char *path;
	unsigned line;
	struct tgd_config *config;
	unsigned seen; /* bit (key): it was in the file already */
	int error;     /* of the first mistake, which is described in `why` */
	char *why;
	size_t why_size;
};

static __attribute__((format(printf, 2, 3))) void file_error(struct file *file, const char *format,
							     ...)
{
	va_list args;
	int n;

	if (file->error != 0)
		return;
	file->error = -EINVAL;
	n = snprintf(file->why, file->why_size, "%s:%u: ", file->path, file->line);
	if (n < 0 || (size_t)n >= file->why_size)
		return;
	va_start(args, format);
	vsnprintf(file->why + n, file->why_size - n, format, args);
	va_end(args);
}

/* Gives inih one line, as fgets does.  Indentation goes, since inih takes an indented line for more
 * of the one before. */
static char *read_line(char *text, int size, void *stream)
{
	struct file *file = stream;
	size_t n, blank;

	/* After a mistake the rest of the file does not matter. */
	if (file->error != 0 || fgets(text, size, file->stream) == NULL)
		return NULL;
	file->line++;
	n = strlen(text);
	if (n > LINE_MAX_SIZE || (n > 0 && text[n - 1] != '\n' && !feof(file->stream))) {
		file_error(file, "a line has at most %d bytes", LINE_MAX_SIZE);
		return NULL;
	}
	blank = strspn(text, " \t");
	memmove(text, text + blank, n - blank + 1);
	return text;
}

/* Handles one "name = value".  inih wants 1 for success. */
static int take_entry(void *user, const char *section, const char *name, const char *value)
{
	struct file *file = user;
	struct tgd_config ignored, *config;
	char why[256] = "";
	unsigned key;

	for (key = 0; key < TGD_CONFIG_KEYS && strcmp(tgd_config_keys[key].name, name) != 0; key++)
		;
	if (*section != '\0') {
		file_error(file, "there are no sections in this file; remove [%s]", section);
	} else if (key == TGD_CONFIG_KEYS) {
		file_error(file,
			   "there is no key \"%s\"; tgd --help lists them, without their dashes",
			   name);
	} else if ((file->seen & 1u << key) != 0) {
		file_error(file, "%s is set twice", name);
	} else {
		ignored = *file->config;
		config = (file->config->set_by_args & 1u << key) != 0 ? &ignored : file->config;
		file->seen |= 1u << key;
		if (tgd_config_keys[key].set(config, value == NULL ? "" : value, why, sizeof(why)) <
		    0)
			file_error(file, "%s: %s", name, why);
		config->set |= 1u << key;
	}
	return file->error == 0;
}

static int read_file(struct tgd_config *config, char *why, size_t why_size)
{
	struct file file = {
		.path = config->file, .config = config, .why = why, .why_size = why_size};
	int r;

	file.stream = fopen(config->file, "re");
	if (file.stream == NULL) {
		r = -errno;
		tgd_config_refuse(why, why_size, "%s: cannot be read: %s", config->file,
				  strerror(-r));
		return r;
	}
	r = ini_parse_stream(read_line, &file, take_entry, &file);
	if (r > 0) {
		file.line = r;
		file_error(&file, "this is neither a comment nor \"key = value\"");
	} else if (file.error == 0 && (r < 0 || ferror(file.stream))) {
		file.error = -EIO;
		tgd_config_refuse(why, why_size, "%s: cannot be read: %s", config->file,
				  strerror(EIO));
	}
	fclose(file.stream);
	return file.error;
}

/* ---- defaults that depend on the rest ---- */

static uint64_t half_of_memory(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

	return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page / 2 : UINT64_C(1) << 30;
}

static int complete(struct tgd_config *config, char *why, size_t why_size)
{
	char limit[TGP_SIZE_TEXT], reserve[TGP_SIZE_TEXT];
	int r;

	if ((config->set & 1u << TGD_CONFIG_SOCKET) == 0) {
		r = tgp_socket_path(NULL, config->socket, sizeof(config->socket));
		if (r < 0) {
			tgd_config_refuse(
				why, why_size,
				"the path of the socket that the environment gives (TG_SOCKET, "
				"XDG_RUNTIME_DIR) is too long; use --socket");
			return r;
		}
	}
	if ((config->set & 1u << TGD_CONFIG_MODE) == 0)
		config->mode = (config->set & 1u << TGD_CONFIG_GROUP) != 0 ? 0660 : 0600;
	if ((config->set & 1u << TGD_CONFIG_LIMIT) == 0)
		config->limit_bytes = tgs_min(half_of_memory(), config->reserve_bytes);
	if (config->limit_bytes > config->reserve_bytes) {
		tgp_format_size(config->limit_bytes, limit, sizeof(limit));
		tgp_format_size(config->reserve_bytes, reserve, sizeof(reserve));
		return tgd_config_refuse(
			why, why_size,
			"the limit (%s) is over the reservation (%s); raise --reserve", limit,
			reserve);
	}
	return 0;
}

/* ---- the command line ---- */

enum { OPTION_CONFIG = 1000, OPTION_UPGRADE, OPTION_HELP, OPTION_VERSION };

#define N_ACTIONS 4 /* options that are no keys */

static int take_option(struct tgd_config *config, int option, const char *text, char *why,
		       size_t why_size)
{
	char reason[256] = "";

	if (option == OPTION_CONFIG) {
		if (*text == '\0' || strlen(text) >= sizeof(config->file))
			return tgd_config_refuse(why, why_size,
						 "--config: a path has 1 to %zu bytes",
						 sizeof(config->file) - 1);
		strcpy(config->file, text);
		return 0;
	}
	if (tgd_config_keys[option].set(config, text, reason, sizeof(reason)) < 0)
		return tgd_config_refuse(why, why_size, "--%s: %s", tgd_config_keys[option].name,
					 reason);
	config->set |= 1u << option;
	config->set_by_args |= 1u << option;
	return 0;
}

static int wrong_option(int option, const char *word, char *why, size_t why_size)
{
	if (option == ':')
		return tgd_config_refuse(why, why_size, "%s needs a value; see tgd --help", word);
	return tgd_config_refuse(why, why_size, "there is no option %s; see tgd --help", word);
}

static int from_args(struct tgd_config *config, int argc, char **argv, bool with_file,
		     enum tgd_config_action *ret_action, char *why, size_t why_size)
{
	struct option options[TGD_CONFIG_KEYS + N_ACTIONS + 1] = {
		{"config", required_argument, NULL, OPTION_CONFIG},
		{"upgrade", no_argument, NULL, OPTION_UPGRADE},
		{"help", no_argument, NULL, OPTION_HELP},
		{"version", no_argument, NULL, OPTION_VERSION},
	};
	enum tgd_config_action action = TGD_CONFIG_RUN;
	int option, r;
	unsigned key;

	for (key = 0; key < TGD_CONFIG_KEYS; key++)
		options[N_ACTIONS + key] = (struct option){tgd_config_keys[key].name,
							   required_argument, NULL, (int)key};
	tgd_config_init(config);
	config->argc = argc;
	config->argv = argv;
	optind = 0;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (option == OPTION_HELP || option == OPTION_VERSION) {
			*ret_action = option == OPTION_HELP ? TGD_CONFIG_HELP : TGD_CONFIG_VERSION;
			return 0;
		}
		if (option == OPTION_UPGRADE) {
			action = TGD_CONFIG_UPGRADE;
			continue;
		}
		if (option == '?' || option == ':')
			return wrong_option(option, argv[optind - 1], why, why_size);
		r = take_option(config, option, optarg, why, why_size);
		if (r < 0)
			return r;
	}
	if (optind < argc)
		return tgd_config_refuse(why, why_size, "\"%s\" is not an option; see tgd --help",
					 argv[optind]);
	if (config->file[0] != '\0' && with_file) {
		r = read_file(config, why, why_size);
		if (r < 0)
			return r;
	}
	r = complete(config, why, why_size);
	if (r < 0)
		return r;
	*ret_action = action;
	return 0;
}

int tgd_config_from_args(struct tgd_config *config, int argc, char **argv,
			 enum tgd_config_action *ret_action, char *why, size_t why_size)
{
	return from_args(config, argc, argv, true, ret_action, why, why_size);
}

int tgd_config_from_args_alone(struct tgd_config *config, int argc, char **argv, char *why,
			       size_t why_size)
{
	enum tgd_config_action action;

	return from_args(config, argc, argv, false, &action, why, why_size);
}

int tgd_config_reload(const struct tgd_config *config, struct tgd_config *ret, char *why,
		      size_t why_size)
{
	enum tgd_config_action action;
	struct tgd_config new;
	int r = tgd_config_from_args(&new, config->argc, config->argv, &action, why, why_size);

	if (r == 0)
		*ret = new;
	return r;
}

void tgd_config_print_help(FILE *to)
{
	static const char *const more[][2] = {
		{"--config FILE",
		 "read these options from a file, without their dashes: key = value"},
		{"--upgrade", "have the daemon at the socket go on as this program; see tgd(8)"},
		{"--help", "this text"},
		{"--version", "the version"},
	};
	char option[64];
	unsigned key;

	fputs("Usage: tgd [OPTION]...\n"
	      "Owns a heap that processes share, and serves it on a Unix socket until SIGTERM.\n\n",
	      to);
	for (key = 0; key < TGD_CONFIG_KEYS; key++) {
		snprintf(option, sizeof(option), "--%s %s", tgd_config_keys[key].name,
			 tgd_config_keys[key].value);
		fprintf(to, "  %-20s %s\n", option, tgd_config_keys[key].help);
	}
	for (key = 0; key < TGS_ARRAY_LEN(more); key++)
		fprintf(to, "  %-20s %s\n", more[key][0], more[key][1]);
	fputs("\nSIZE is a number of bytes with K, M, G or T behind it for powers of 1024: 1.5G.\n"
	      "What the command line says counts more than the file.  SIGHUP: read the limit "
	      "again.\n"
	      "\"ready\" in the log (standard error) says that clients can attach.  See tgd(8).\n",
	      to);
}
