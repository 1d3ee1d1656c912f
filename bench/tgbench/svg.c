/* svg.c - the chart.
 */
#include "bench/tgbench/tgbench.h"

int tgb_svg(const struct tgb_bench *b, const char *path)
{
	(void)b;
	(void)path;
	return -1;
}
