/* config.h - what the daemon was told: defaults, then the config file, then the command line. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "daemon/huge.h"
#include "daemon/log.h"
#include "proto/path.h"
#include "shm/layout.h"

/* The keys, in the order of the table in config-keys.c. */
enum tgd_config_key {
	TGD_CONFIG_SOCKET,
	TGD_CONFIG_HEAP,
	TGD_CONFIG_RESERVE,
	TGD_CONFIG_LIMIT,
	TGD_CONFIG_BASE,
	TGD_CONFIG_MODE,
	TGD_CONFIG_GROUP,
	TGD_CONFIG_IDLE_EXIT,
	TGD_CONFIG_HUGE,
	TGD_CONFIG_LOG_LEVEL,
	TGD_CONFIG_KEYS
};

struct tgd_config {
	char socket[TGP_SOCKET_PATH_SIZE];
	char heap[TGS_HEAP_NAME_SIZE];
	uint64_t reserve_bytes;
	uint64_t limit_bytes;
	uint64_t base;        /* 0: the daemon chooses */
	mode_t mode;          /* of the socket */
	gid_t group;          /* of the socket; (gid_t)-1: the daemon's own */
	unsigned idle_exit_s; /* 0: never */
	enum tgd_huge_mode huge;
	enum tgd_log_level log_level;
	char file[PATH_MAX];  /* "": none */
	unsigned set;         /* bit (key): somebody set it */
	unsigned set_by_args; /* bit (key): on the command line, so that the file does not count */
	int argc;             /* the command line, for a reload */
	char **argv;
};

/* What tgd_config_from_args found, other than an error. */
enum tgd_config_action {
	TGD_CONFIG_RUN,
	TGD_CONFIG_UPGRADE, /* of the daemon at the socket, to this program */
	TGD_CONFIG_HELP,
	TGD_CONFIG_VERSION,
};

/* Everything at its default and nothing set. */
void tgd_config_init(struct tgd_config *config);

/* Reads the command line and the file that it names.  0 with what to do, or -EINVAL (or what
 * reading the file said) with a sentence in `why`, which names the option or file:line.  `argv`
 * must stay until the last reload. */
int tgd_config_from_args(struct tgd_config *config, int argc, char **argv,
			 enum tgd_config_action *ret_action, char *why, size_t why_size);

/* The same without the file, for a daemon that must go on although somebody has broken it. */
int tgd_config_from_args_alone(struct tgd_config *config, int argc, char **argv, char *why,
			       size_t why_size);

/* Reads the same command line, and the file as it is now, into *ret.  Returns as
 * tgd_config_from_args. */
int tgd_config_reload(const struct tgd_config *config, struct tgd_config *ret, char *why,
		      size_t why_size);

void tgd_config_print_help(FILE *to);
