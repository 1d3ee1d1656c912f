/* cli.h - tgctl's command line. */
#pragma once

#include <stdio.h>

/* All that tgctl does.  Returns the exit status.  `out` takes results, `err` sentences about
 * failures. */
int tgc_cli_main(int argc, char **argv, FILE *out, FILE *err);
