/* tgctl.c - the program around tgctl's command line.
 *
 * tgctl shows and steers a heap: it talks to the daemon as any client does, but attaches to
 * nothing.  All of it is in the other files of this folder, which tests link:
 *
 *	cli.c                  options, the table of commands
 *	commands.c, list.c     the commands; run.c: `tgctl run`, find.c: where its programs are
 *	top.c                  `tgctl top`
 *	ctl.c                  one run of tgctl, and how it fails
 *	talk.c                 the conversation with the daemon
 *	report.c, table.c, map.c, json.c   how answers are shown
 */
#include <stdio.h>

#include "client/ctl/cli.h"

int main(int argc, char **argv)
{
	return tgc_cli_main(argc, argv, stdout, stderr);
}
