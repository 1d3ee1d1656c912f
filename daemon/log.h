/* log.h - one line an event on standard error, for the people who run the daemon. */
#pragma once

#include <stddef.h>

enum tgd_log_level {
	TGD_LOG_NOTICE,  /* always shown: ready, and ended */
	TGD_LOG_ERROR,   /* something that the daemon should do did not happen */
	TGD_LOG_WARNING, /* a peer or the machine misbehaved; the daemon copes */
	TGD_LOG_INFO,    /* what an operator wants to find later: clients come and go */
	TGD_LOG_DEBUG,   /* every connection */
};

/* Events above `max` are left out from now on.  Looks at standard error to choose the format of
 * lines. */
void tgd_log_open(enum tgd_log_level max);

/* One event; the text needs no final stop or newline.  Never blocks; keeps errno. */
void tgd_log(enum tgd_log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* "error", "warning", "info", "debug" to the level: 0, or -EINVAL. */
int tgd_log_level_parse(const char *text, enum tgd_log_level *ret);
