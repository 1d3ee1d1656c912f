/* log.c - lines on standard error.
 *
 * A line has a time stamp, the level, and the event: what happened, to whom (client id, pid, uid,
 * name), and figures. The journal adds its own time stamps and takes the level as "<N>" in front,
 * so a line for it has only these. A line is written with one write(2), so lines of several
 * processes on one pipe do not mix, and only if standard error can take it now: a reader who has
 * stopped must not stop the daemon.  What was dropped is counted and told. At most 100 warnings a
 * second are written, since it is others who cause them; the rest is counted.
 */
#include "daemon/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_SIZE           1024
#define WARNINGS_PER_SECOND 100u

static const char *const level_names[] = {"notice", "error", "warning", "info", "debug"};
static const char journal_levels[] = {'5', '3', '4', '6', '7'};

static enum tgd_log_level level_max = TGD_LOG_INFO;
static bool to_journal;
static unsigned long n_dropped;
static unsigned long n_warnings, n_unwritten; /* of the second `warnings_at` */
static time_t warnings_at;

/* systemd tells its services which file their standard error is when that goes to the journal. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	if (stream == NULL || sscanf(stream, "%llu:%llu", &dev, &ino) != 2)
		return false;
	return fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

void tgd_log_open(enum tgd_log_level max)
{
	level_max = max;
	to_journal = stderr_is_journal();
}

int tgd_log_level_parse(const char *text, enum tgd_log_level *ret)
{
	unsigned i;

	for (i = TGD_LOG_ERROR; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*ret = (enum tgd_log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int put_head(char *line, size_t size, enum tgd_log_level level)
{
	struct timespec now;
	struct tm tm;
	char stamp[32];

	if (to_journal)
		return snprintf(line, size, "<%c>", journal_levels[level]);
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	return snprintf(line, size, "%s.%03ldZ tgd[%d] %s: ", stamp, now.tv_nsec / 1000000,
			(int)getpid(), level_names[level]);
}

/* A pipe that has room says so only when it takes a whole line at once. */
static bool can_write(void)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) != 0;
}

static void put_line(char *line, size_t n)
{
	size_t i;

	/* An event is one line, whatever the text was made of. */
	for (i = 0; i < n; i++) {
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	}
	line[n] = '\n';
	if (!can_write() || write(STDERR_FILENO, line, n + 1) < 0)
		n_dropped++;
}

/* A peer that misbehaves as fast as it can must not fill the disk. */
static bool is_one_too_many(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec != warnings_at) {
		unsigned long n = n_unwritten;

		warnings_at = now.tv_sec;
		n_warnings = n_unwritten = 0;
		if (n > 0)
			tgd_log(TGD_LOG_WARNING, "%lu more warnings in one second were left out",
				n);
	}
	if (n_warnings++ < WARNINGS_PER_SECOND)
		return false;
	n_unwritten++;
	return true;
}

void tgd_log(enum tgd_log_level level, const char *format, ...)
{
	int saved_errno = errno, head, body;
	char line[LINE_SIZE];
	va_list args;

	if (level > level_max || (level == TGD_LOG_WARNING && is_one_too_many()))
		return;
	if (n_dropped > 0 && can_write()) {
		head = put_head(line, sizeof(line), TGD_LOG_WARNING);
		body = snprintf(line + head, sizeof(line) - head,
				"%lu lines of this log were lost: nobody read it", n_dropped);
		n_dropped = 0;
		put_line(line, head + body);
	}
	head = put_head(line, sizeof(line), level);
	va_start(args, format);
	body = vsnprintf(line + head, sizeof(line) - head, format, args);
	va_end(args);
	if (body >= 0)
		put_line(line, body < LINE_SIZE - head ? (size_t)(head + body) : LINE_SIZE - 1);
	errno = saved_errno;
}
