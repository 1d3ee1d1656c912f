/* ctl.c - one run of tgctl: how it reaches the daemon, and how it fails.
 *
 * Every failure ends here, so that all look alike: a sentence on standard error that starts with
 * "tgctl:", for people; with --json also an object with "error" and "errno" on standard output,
 * for programs; and an exit status by kind, for scripts.  Functions that return a status have
 * already said what was wrong.
 */
#include "client/ctl/ctl.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "client/ctl/json.h"

/* Prints the sentence and returns `status`.  What the user typed may be in it, so it is made fit
 * for a terminal. */
int tgc_ctl_fail(struct tgc_ctl *ctl, int status, int error, const char *format, ...)
{
	char sentence[2048];
	va_list args;

	va_start(args, format);
	vsnprintf(sentence, sizeof(sentence), format, args);
	va_end(args);
	tgp_text_clean(sentence, sizeof(sentence) - 1);
	fflush(ctl->out);
	fprintf(ctl->err, "tgctl: %s\n", sentence);
	if (ctl->json)
		(void)tgc_json_print(tgc_json_error(sentence, error), ctl->out);
	return status;
}

/* Connects once; later calls do nothing.  ctl->talk is freed by whoever made ctl. */
int tgc_ctl_connect(struct tgc_ctl *ctl)
{
	int r;

	if (ctl->talk != NULL)
		return TGC_OK;
	r = tgp_socket_path(ctl->socket, ctl->path, sizeof(ctl->path));
	if (r == -ENAMETOOLONG)
		return tgc_ctl_fail(ctl, TGC_WRONG_USE, r,
				    "the path of the socket is longer than %d bytes, which is all "
				    "that a socket's address holds",
				    TGP_SOCKET_PATH_SIZE - 1);
	if (r < 0)
		return tgc_ctl_fail(ctl, TGC_WRONG_USE, r,
				    "--socket needs the path of the daemon's socket");
	ctl->talk = tgc_talk_new();
	if (ctl->talk == NULL)
		return tgc_ctl_fail(ctl, TGC_UNREACHABLE, -ENOMEM, "out of memory");
	ctl->talk->timeout_ms = ctl->timeout_ms;
	r = tgc_talk_open(ctl->talk, ctl->path);
	if (r < 0)
		return tgc_ctl_fail(ctl, TGC_UNREACHABLE, r, "%s", ctl->talk->why);
	return TGC_OK;
}

int tgc_ctl_ask(struct tgc_ctl *ctl, const Tgd__Admin *ask, unsigned body, const Tgd__Reply **ret)
{
	int r, status;

	status = tgc_ctl_connect(ctl);
	if (status != TGC_OK)
		return status;
	r = tgc_talk_ask(ctl->talk, ask, body, ret);
	if (r < 0)
		return tgc_ctl_fail(ctl, ctl->talk->refused ? TGC_BAD_NEWS : TGC_UNREACHABLE, r,
				    "%s", ctl->talk->why);
	return TGC_OK;
}
