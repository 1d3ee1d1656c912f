/* config-impl.h - what config.c and config-keys.c share. */
#pragma once

#include "daemon/config.h"

#define TGD_DEFAULT_HEAP "main"

struct tgd_config_key_text {
	const char *name;
	/* Reads the text of the key into the config.  -EINVAL with a sentence in `why`. */
	int (*set)(struct tgd_config *config, const char *text, char *why, size_t why_size);
	const char *value, *help;
};

extern const struct tgd_config_key_text tgd_config_keys[TGD_CONFIG_KEYS];

/* Writes the sentence into `why`, and returns -EINVAL. */
__attribute__((format(printf, 3, 4))) int tgd_config_refuse(char *why, size_t why_size,
							    const char *format, ...);
