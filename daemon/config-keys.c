/* config-keys.c - the keys that options and config file have in common, and how the text of each is read.
 *
 * Each key has one function that reads its text, so both are checked alike.
 */
#include "daemon/config-impl.h"

#include <errno.h>
#include <grp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "proto/size.h"
#include "shm/base.h"

#define BASE_UNIT (UINT64_C(4) << 20) /* the heap's pages start at a multiple of 4 MiB */
#define BASE_MAX  (UINT64_C(1) << 47) /* of user space on x86-64, usually */

const char *const tgd_huge_names[TGD_HUGE_MODES] = {
	[TGD_HUGE_AUTO] = "auto",
	[TGD_HUGE_NEVER] = "never",
	[TGD_HUGE_ALWAYS] = "always",
};

int tgd_config_refuse(char *why, size_t why_size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, why_size, format, args);
	va_end(args);
	return -EINVAL;
}

static int set_socket(struct tgd_config *config, const char *text, char *why, size_t why_size)
{
	if (*text == '\0' || strlen(text) >= sizeof(config->socket))
		return tgd_config_refuse(why, why_size,
					 "a socket's path has 1 to %zu bytes, this one has %zu",
					 sizeof(config->socket) - 1, strlen(text));
	strcpy(config->socket, text);
	return 0;
}

static int set_heap(struct tgd_config *config, const char *text, char *why, size_t why_size)
{
	const char *p;

	if (*text == '\0' || strlen(text) >= sizeof(config->heap))
		return tgd_config_refuse(why, why_size,
					 "a heap's name has 1 to %zu bytes, this one has %zu",
					 sizeof(config->heap) - 1, strlen(text));
	for (p = text; *p > ' ' && *p <= '~' && *p != '/'; p++)
		;
	if (*p != '\0')
		return tgd_config_refuse(
			why, why_size,
			"a heap's name is made of visible ASCII characters without '/'");
	strcpy(config->heap, text);
	return 0;
}

static int parse_size(const char *text, uint64_t *ret, char *why, size_t why_size)
{
	int r = tgp_parse_size(text, ret);

	if (r == -ERANGE)
		return tgd_config_refuse(why, why_size, "\"%s\" is more than any machine has",
					 text);
	if (r < 0)
		return tgd_config_refuse(
			why, why_size,
			"\"%s\" is not a size; write it like 512M, 1.5G or 1073741824", text);
	return 0;
}

static int set_reserve(struct tgd_config *config, const char *text, char *why, size_t why_size)
{
	char min[TGP_SIZE_TEXT], max[TGP_SIZE_TEXT];
	uint64_t bytes;
	int r;

	r = parse_size(text, &bytes, why, why_size);
	if (r < 0)
		return r;
	if (bytes < TGS_RESERVE_MIN || bytes > TGS_RESERVE_MAX) {
		tgp_format_size(TGS_RESERVE_MIN, min, sizeof(min));
		tgp_format_size(TGS_RESERVE_MAX, max, sizeof(max));
		return tgd_config_refuse(why, why_size,
					 "a heap reserves %s to %s of addresses, not %s", min, max,
					 text);
	}
	config->reserve_bytes = bytes;
	return 0;
}

static int set_limit(struct tgd_config *config, const char *text, char *why, size_t why_size)
{
	uint64_t bytes;
	int r;

	r = parse_size(text, &bytes, why, why_size);
	if (r < 0)
		return r;
	if (bytes == 0)
		return tgd_config_refuse(why, why_size, "a heap with the limit 0 can hold nothing");
	config->limit_bytes = bytes;
	return 0;
}

static int set_base(struct tgd_config *config, const char *text, char *why, size_t why_size)
{
	unsigned long long value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 16);
	if (strncmp(text, "0x", 2) != 0 || *end != '\0' || errno != 0)
		return tgd_config_refuse(why, why_size,
					 "\"%s\" is not an address; write it like 0x200000000000",
					 text);
	if (value == 0 || value % BASE_UNIT != 0 || value >= BASE_MAX)
		return tgd_config_refuse(
			why, why_size,
			"the heap's address is a multiple of 4 MiB below 0x%llx, not %s",
			(unsigned long long)BASE_MAX, text);
	config->base = value;
	return 0;
}

static int set_mode(struct tgd_config *config, const char *text, char *why, size_t why_size)
{
	unsigned long value;
	char *end;

	value = strtoul(text, &end, 8);
	if (*text < '0' || *text > '7' || *end != '\0' || value > 0777)
		return tgd_config_refuse(why, why_size,
					 "\"%s\" is not a file mode; write it in octal, like 0660",
					 text);
	if ((value & 0200) == 0)
		return tgd_config_refuse(
			why, why_size,
			"with mode %s not even the daemon's own user may connect; use 06xx", text);
	config->mode = (mode_t)value;
	return 0;
}

/* A decimal number up to `max`, and nothing else. */
static bool parse_number(const char *text, unsigned long max, unsigned long *ret)
{
	char *end;

	errno = 0;
	*ret = strtoul(text, &end, 10);
	return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && *ret <= max;
}

static int set_group(struct tgd_config *config, const char *text, char *why, size_t why_size)
{
	struct group *group = getgrnam(text);
	unsigned long value;

	if (group != NULL) {
		config->group = group->gr_gid;
		return 0;
	}
	if (!parse_number(text, (gid_t)-1 - 1, &value))
		return tgd_config_refuse(
			why, why_size,
			"there is no group \"%s\"; make it with groupadd, or name another", text);
	config->group = (gid_t)value;
	return 0;
}

static int set_idle_exit(struct tgd_config *config, const char *text, char *why, size_t why_size)
{
	unsigned long value;

	if (!parse_number(text, INT_MAX / 1000, &value))
		return tgd_config_refuse(why, why_size,
					 "\"%s\" is not a number of seconds from 0 (never) to %d",
					 text, INT_MAX / 1000);
	config->idle_exit_s = (unsigned)value;
	return 0;
}

static int set_huge(struct tgd_config *config, const char *text, char *why, size_t why_size)
{
	unsigned i;

	for (i = 0; i < TGS_ARRAY_LEN(tgd_huge_names); i++) {
		if (strcmp(text, tgd_huge_names[i]) == 0) {
			config->huge = (enum tgd_huge_mode)i;
			return 0;
		}
	}
	return tgd_config_refuse(
		why, why_size, "\"%s\" does not say when to use huge pages: auto, never or always",
		text);
}

static int set_log_level(struct tgd_config *config, const char *text, char *why, size_t why_size)
{
	if (tgd_log_level_parse(text, &config->log_level) < 0)
		return tgd_config_refuse(
			why, why_size,
			"\"%s\" is not a level of the log: error, warning, info or debug", text);
	return 0;
}

const struct tgd_config_key_text tgd_config_keys[TGD_CONFIG_KEYS] = {
	[TGD_CONFIG_SOCKET] = {"socket", set_socket, "PATH",
			       "socket to listen on ($TG_SOCKET, else see tgd(8))"},
	[TGD_CONFIG_HEAP] = {"heap", set_heap, "NAME", "name of the heap (" TGD_DEFAULT_HEAP ")"},
	[TGD_CONFIG_RESERVE] = {"reserve", set_reserve, "SIZE",
				"addresses to reserve; the heap never outgrows them (64G)"},
	[TGD_CONFIG_LIMIT] = {"limit", set_limit, "SIZE",
			      "memory that the heap may use (half of the machine's)"},
	[TGD_CONFIG_BASE] = {"base", set_base, "ADDRESS",
			     "where the heap lies in every process (the daemon chooses)"},
	[TGD_CONFIG_MODE] = {"mode", set_mode, "OCTAL",
			     "mode of the socket: who may attach (0600; 0660 with --group)"},
	[TGD_CONFIG_GROUP] = {"group", set_group, "NAME", "group of the socket: who may attach"},
	[TGD_CONFIG_IDLE_EXIT] = {"idle-exit", set_idle_exit, "SECONDS",
				  "end when no client was attached for so long (0: never)"},
	[TGD_CONFIG_HUGE] = {"huge", set_huge, "MODE",
			     "pages of 2 MiB for the heap: auto, never or always (auto)"},
	[TGD_CONFIG_LOG_LEVEL] = {"log-level", set_log_level, "LEVEL",
				  "error, warning, info or debug (info)"},
};
