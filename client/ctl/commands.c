/* commands.c - what tgctl can do, but for its lists (list.c, top.c): ask the daemon, show the answer.
 *
 * Each command asks for one thing and shows it either as text (report.c, map.c) or as one JSON
 * object (json.c); nothing is printed before the whole answer is there, so standard output has
 * the result or nothing.
 */
#include "client/ctl/commands.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/ctl/json.h"
#include "client/ctl/map.h"
#include "client/ctl/report.h"
#include "client/ctl/run.h"
#include "proto/size.h"

/* Walking the whole heap, or punching holes into much of it, takes the daemon longer than a look
 * at its books. */
#define SLOW_FACTOR 12

#define MAP_JSON_CELLS \
	1024 /* as many whatever the terminal, so that scripts get the same anywhere */

static int print_json(struct tgc_ctl *ctl, json_t *object)
{
	if (tgc_json_print(object, ctl->out) < 0)
		return tgc_ctl_fail(ctl, TGC_BAD_NEWS, -ENOMEM, "out of memory");
	return TGC_OK;
}

static int ask_for(struct tgc_ctl *ctl, Tgd__Admin__What what, uint64_t value, unsigned body,
		   const Tgd__Reply **ret)
{
	Tgd__Admin ask = TGD__ADMIN__INIT;

	ask.what = what;
	ask.value = value;
	return tgc_ctl_ask(ctl, &ask, body, ret);
}

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int tgc_cmd_ping(struct tgc_ctl *ctl, char **args)
{
	const Tgd__Reply *reply;
	int64_t started, took;
	int status;

	(void)args;
	status = tgc_ctl_connect(ctl);
	if (status != TGC_OK)
		return status;
	started = now_us();
	status = ask_for(ctl, TGD__ADMIN__WHAT__PING, 0, 0, &reply);
	if (status != TGC_OK)
		return status;
	took = now_us() - started;
	if (ctl->json)
		return print_json(ctl,
				  json_pack("{s:b, s:I, s:s, s:I}", "ok", 1, "pid",
					    (json_int_t)ctl->talk->daemon_pid, "version",
					    ctl->talk->daemon, "round_trip_us", (json_int_t)took));
	fprintf(ctl->out, "%s, process %d, at %s: answered in %" PRId64 " us\n", ctl->talk->daemon,
		(int)ctl->talk->daemon_pid, ctl->path, took);
	return TGC_OK;
}

int tgc_cmd_status(struct tgc_ctl *ctl, char **args)
{
	const Tgd__Reply *reply;
	int status;

	(void)args;
	status = ask_for(ctl, TGD__ADMIN__WHAT__STATUS, 0, TGD__REPLY__BODY_STATUS, &reply);
	if (status != TGC_OK)
		return status;
	if (ctl->json)
		return print_json(ctl, tgc_json_status(reply->status));
	tgc_report_status(ctl->out, reply->status);
	return TGC_OK;
}

int tgc_cmd_map(struct tgc_ctl *ctl, char **args)
{
	struct tgc_canvas canvas = tgc_map_canvas(ctl->out);
	Tgd__Admin ask = TGD__ADMIN__INIT;
	const Tgd__Reply *reply;
	int status;

	(void)args;
	ask.what = TGD__ADMIN__WHAT__MAP;
	ask.count = ctl->json ? MAP_JSON_CELLS : tgc_map_cells(&canvas);
	status = tgc_ctl_ask(ctl, &ask, TGD__REPLY__BODY_MAP, &reply);
	if (status != TGC_OK)
		return status;
	if (ctl->json)
		return print_json(ctl, tgc_json_map(reply->map));
	tgc_map_print(ctl->out, &canvas, reply->map);
	return TGC_OK;
}

/* Damage is not an error of tgctl: the report says it all, only the status differs. */
int tgc_cmd_check(struct tgc_ctl *ctl, char **args)
{
	const Tgd__Reply *reply;
	const Tgd__Check *check;
	int status;

	(void)args;
	ctl->timeout_ms *= SLOW_FACTOR;
	status = ask_for(ctl, TGD__ADMIN__WHAT__CHECK, 0, TGD__REPLY__BODY_CHECK, &reply);
	if (status != TGC_OK)
		return status;
	check = reply->check;
	if (!ctl->json)
		tgc_report_check(ctl->out, check);
	else
		status = print_json(ctl, tgc_json_check(check));
	if (!check->ok || check->n_errors > 0)
		status = TGC_BAD_NEWS;
	return status;
}

int tgc_cmd_trim(struct tgc_ctl *ctl, char **args)
{
	char text[TGP_SIZE_TEXT];
	const Tgd__Reply *reply;
	int status;

	(void)args;
	ctl->timeout_ms *= SLOW_FACTOR;
	status = ask_for(ctl, TGD__ADMIN__WHAT__TRIM, 0, TGD__REPLY__BODY_TRIMMED, &reply);
	if (status != TGC_OK)
		return status;
	if (ctl->json)
		return print_json(ctl, json_pack("{s:I}", "trimmed_bytes",
						 tgc_json_number(reply->trimmed->bytes)));
	tgp_format_size(reply->trimmed->bytes, text, sizeof(text));
	fprintf(ctl->out, "gave %s back to the kernel\n", text);
	return TGC_OK;
}

int tgc_cmd_limit(struct tgc_ctl *ctl, char **args)
{
	char text[TGP_SIZE_TEXT];
	const Tgd__Reply *reply;
	uint64_t bytes;
	int r, status;

	r = tgp_parse_size(args[0], &bytes);
	if (r < 0)
		return tgc_ctl_fail(ctl, TGC_WRONG_USE, r, TGC_SIZE_WRONG("limit"), args[0]);
	status = ask_for(ctl, TGD__ADMIN__WHAT__LIMIT, bytes, 0, &reply);
	if (status != TGC_OK)
		return status;
	if (reply->body_case == TGD__REPLY__BODY_STATUS)
		bytes = reply->status->limit_bytes; /* it may have been rounded to pages */
	if (ctl->json)
		return print_json(ctl, json_pack("{s:I}", "limit_bytes", tgc_json_number(bytes)));
	tgp_format_size(bytes, text, sizeof(text));
	fprintf(ctl->out, "the limit is now %s\n", text);
	return TGC_OK;
}

/* "12" to a client id; 0, which no client has, if it is none. */
static uint32_t parse_client(const char *text)
{
	unsigned long long id;
	char *end;

	if (*text < '0' || *text > '9')
		return 0;
	errno = 0;
	id = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0' && id <= UINT32_MAX ? (uint32_t)id : 0;
}

int tgc_cmd_kick(struct tgc_ctl *ctl, char **args)
{
	uint32_t client = parse_client(args[0]);
	const Tgd__Reply *reply;
	int status;

	if (client == 0)
		return tgc_ctl_fail(ctl, TGC_WRONG_USE, -EINVAL,
				    "kick: \"%s\" is no client id; 'tgctl clients' lists them in "
				    "its column ID",
				    args[0]);
	status = ask_for(ctl, TGD__ADMIN__WHAT__KICK, client, 0, &reply);
	if (status != TGC_OK)
		return status;
	if (ctl->json)
		return print_json(ctl,
				  json_pack("{s:b, s:I}", "ok", 1, "client", (json_int_t)client));
	fprintf(ctl->out, "client %" PRIu32 " is disconnected and its process killed\n", client);
	return TGC_OK;
}

int tgc_cmd_stop(struct tgc_ctl *ctl, char **args)
{
	const Tgd__Reply *reply;
	int r, status;

	(void)args;
	status = ask_for(ctl, TGD__ADMIN__WHAT__STOP, 0, 0, &reply);
	if (status != TGC_OK)
		return status;
	r = tgc_talk_wait_end(ctl->talk);
	if (r < 0)
		return tgc_ctl_fail(ctl, TGC_BAD_NEWS, r, "%s", ctl->talk->why);
	if (ctl->json)
		return print_json(ctl, json_pack("{s:b, s:I}", "ok", 1, "pid",
						 (json_int_t)ctl->talk->daemon_pid));
	fprintf(ctl->out, "%s, process %d, has stopped\n", ctl->talk->daemon,
		(int)ctl->talk->daemon_pid);
	return TGC_OK;
}

/* The path as the daemon can use it: absolute. */
static int program_path(struct tgc_ctl *ctl, const char *program, char *buf)
{
	if (program == NULL) {
		buf[0] = '\0'; /* the daemon's own file */
		return TGC_OK;
	}
	if (realpath(program, buf) == NULL)
		return tgc_ctl_fail(ctl, TGC_BAD_NEWS, -errno, "upgrade: %s: %s", program,
				    strerror(errno));
	if (strlen(buf) > TGP_TEXT_MAX)
		return tgc_ctl_fail(ctl, TGC_BAD_NEWS, -ENAMETOOLONG,
				    "upgrade: %s: a path has at most %d bytes here", buf,
				    TGP_TEXT_MAX);
	return TGC_OK;
}

/* The old process answers, retires, and the new one takes over what it served. */
int tgc_cmd_upgrade(struct tgc_ctl *ctl, char **args)
{
	char path[PATH_MAX], old_name[TGP_PROGRAM_MAX + 1];
	Tgd__Admin ask = TGD__ADMIN__INIT;
	const Tgd__Reply *reply;
	pid_t old_pid;
	int r, status;

	status = program_path(ctl, args[0], path);
	if (status != TGC_OK)
		return status;
	ask.what = TGD__ADMIN__WHAT__UPGRADE;
	ask.path = path;
	ctl->timeout_ms *= SLOW_FACTOR;
	status = tgc_ctl_ask(ctl, &ask, 0, &reply);
	if (status != TGC_OK)
		return status;
	old_pid = ctl->talk->daemon_pid;
	strcpy(old_name, ctl->talk->daemon);
	r = tgc_talk_reopen(ctl->talk, ctl->path);
	if (r < 0)
		return tgc_ctl_fail(ctl, TGC_BAD_NEWS, r, "upgrade: %s", ctl->talk->why);
	status = ask_for(ctl, TGD__ADMIN__WHAT__STATUS, 0, TGD__REPLY__BODY_STATUS, &reply);
	if (status != TGC_OK)
		return status;
	if (*reply->status->upgrade_failure != '\0')
		return tgc_ctl_fail(ctl, TGC_BAD_NEWS, -ECHILD, "upgrade: %s",
				    reply->status->upgrade_failure);
	if (ctl->json)
		return print_json(ctl, json_pack("{s:b, s:I, s:s, s:I, s:s}", "ok", 1, "old_pid",
						 (json_int_t)old_pid, "old_version", old_name,
						 "pid", (json_int_t)ctl->talk->daemon_pid,
						 "version", ctl->talk->daemon));
	fprintf(ctl->out, "%s, process %d, has been replaced by %s, process %d\n", old_name,
		(int)old_pid, ctl->talk->daemon, (int)ctl->talk->daemon_pid);
	return TGC_OK;
}

/* No talk: the daemon of a run is its own. */
int tgc_cmd_run(struct tgc_ctl *ctl, char **args)
{
	struct tgc_run run = {.preload = ctl->preload, .limit = ctl->limit, .command = args};
	int status = tgc_run(&run);

	if (run.error != 0)
		return tgc_ctl_fail(ctl, status, run.error, "%s", run.why);
	return status;
}
