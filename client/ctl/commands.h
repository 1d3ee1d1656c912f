/* commands.h - what tgctl can do: one function a command. */
#pragma once

#include "client/ctl/ctl.h"

/* args: the words after the command, as many as its entry in cli.c allows, then NULL.  Each
 * returns an exit status, and has said what was wrong if it is not TGC_OK. */
int tgc_cmd_ping(struct tgc_ctl *ctl, char **args);
int tgc_cmd_status(struct tgc_ctl *ctl, char **args);
int tgc_cmd_clients(struct tgc_ctl *ctl, char **args);
int tgc_cmd_classes(struct tgc_ctl *ctl, char **args);
int tgc_cmd_spans(struct tgc_ctl *ctl, char **args);
int tgc_cmd_map(struct tgc_ctl *ctl, char **args);
int tgc_cmd_roots(struct tgc_ctl *ctl, char **args);
int tgc_cmd_top(struct tgc_ctl *ctl, char **args);
int tgc_cmd_check(struct tgc_ctl *ctl, char **args);
int tgc_cmd_trim(struct tgc_ctl *ctl, char **args);
int tgc_cmd_limit(struct tgc_ctl *ctl, char **args);
int tgc_cmd_kick(struct tgc_ctl *ctl, char **args);
int tgc_cmd_upgrade(struct tgc_ctl *ctl, char **args);
int tgc_cmd_stop(struct tgc_ctl *ctl, char **args);
int tgc_cmd_run(struct tgc_ctl *ctl, char **args);
