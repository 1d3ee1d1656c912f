/* main.c - tgd: options, then keeper or worker.
 *
 * Whoever starts tgd starts a keeper, which starts this same program again as its worker.  Status 0
 * after an orderly end, 1 when it cannot start or go on, 2 on wrong use, 3 from a worker that refuses
 * the memory files.
 */
#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "daemon/config.h"
#include "daemon/handover.h"
#include "daemon/keeper.h"
#include "daemon/log.h"
#include "daemon/server.h"
#include "daemon/upgrade.h"

#define STATUS_REFUSED 3

static int serve(struct tgd_config *config, const struct tgd_handover *handover)
{
	struct tgd_server *server;
	char why[512] = "";
	int r;

	/* Executed by descriptor, it would be called by the number of that. */
	prctl(PR_SET_NAME, "tgd");
	/* A peer that closes its socket is an error of a send, not a reason to end. */
	signal(SIGPIPE, SIG_IGN);
	/* A write beyond RLIMIT_FSIZE fails instead (daemon/backing.c). */
	signal(SIGXFSZ, SIG_IGN);
#ifdef TG_DEBUG
	event_enable_debug_mode();
#endif
	r = tgd_server_new(&server, config, handover, why, sizeof(why));
	if (r < 0) {
		tgd_log(TGD_LOG_ERROR, "cannot start: %s", why);
		return r == -EPROTO ? STATUS_REFUSED : 1;
	}
	r = tgd_server_run(server);
	if (r < 0)
		tgd_log(TGD_LOG_ERROR, "the event loop failed: %s", strerror(-r));
	tgd_server_free(server);
	/* Else what libevent keeps would look like a leak. */
	libevent_global_shutdown();
	if (r == 0)
		tgd_log(TGD_LOG_NOTICE, "ended");
	return r < 0 ? 1 : 0;
}

/* The config file may have been changed, and not for the better, since the keeper read it. */
static int configure(struct tgd_config *config, int argc, char **argv,
		     const struct tgd_handover *handover, enum tgd_config_action *ret_action)
{
	char why[512] = "";

	if (tgd_config_from_args(config, argc, argv, ret_action, why, sizeof(why)) == 0)
		return 0;
	if (handover->role != TGD_ROLE_FIRST &&
	    tgd_config_from_args_alone(config, argc, argv, why, sizeof(why)) == 0) {
		tgd_log_open(config->log_level);
		tgd_log(TGD_LOG_ERROR,
			"goes on without the config file, as it cannot be used as it is now: %s",
			why);
		*ret_action = TGD_CONFIG_RUN;
		return 0;
	}
	fprintf(stderr, "tgd: %s\n", why);
	return 2;
}

int main(int argc, char **argv)
{
	static struct tgd_handover handover;
	static struct tgd_config config;
	enum tgd_config_action action;
	char why[512] = "";
	int status;

	if (tgd_handover_take(&handover, why, sizeof(why)) < 0) {
		fprintf(stderr, "tgd: %s\n", why);
		return 1;
	}
	status = configure(&config, argc, argv, &handover, &action);
	if (status != 0)
		return status;
	switch (action) {
	case TGD_CONFIG_HELP:
		tgd_config_print_help(stdout);
		return 0;
	case TGD_CONFIG_VERSION:
		puts("tgd " PACKAGE_VERSION);
		return 0;
	case TGD_CONFIG_UPGRADE:
		return tgd_upgrade(&config);
	case TGD_CONFIG_RUN:
		break;
	}
	tgd_log_open(config.log_level);
	if (handover.role == TGD_ROLE_WORKER)
		return serve(&config, &handover);
	return tgd_keeper_run(&config, &handover);
}
