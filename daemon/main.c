/* main.c - tgd: options, then run.
 *
 * Status 0 after an orderly end, 1 when it cannot start or go on, 2 on wrong use.
 */
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "daemon/config.h"
#include "daemon/log.h"
#include "daemon/server.h"

static int serve(struct tgd_config *config)
{
	struct tgd_server *server;
	char why[512] = "";
	int r;

	/* A peer that closes its socket is an error of a send, not a reason to end. */
	signal(SIGPIPE, SIG_IGN);
#ifdef TG_DEBUG
	event_enable_debug_mode();
#endif
	r = tgd_server_new(&server, config, why, sizeof(why));
	if (r < 0) {
		tgd_log(TGD_LOG_ERROR, "cannot start: %s", why);
		return 1;
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

int main(int argc, char **argv)
{
	static struct tgd_config config;
	enum tgd_config_action action;
	char why[512] = "";

	if (tgd_config_from_args(&config, argc, argv, &action, why, sizeof(why)) < 0) {
		fprintf(stderr, "tgd: %s\n", why);
		return 2;
	}
	switch (action) {
	case TGD_CONFIG_HELP:
		tgd_config_print_help(stdout);
		return 0;
	case TGD_CONFIG_VERSION:
		puts("tgd " PACKAGE_VERSION);
		return 0;
	case TGD_CONFIG_RUN:
		break;
	}
	tgd_log_open(config.log_level);
	return serve(&config);
}
