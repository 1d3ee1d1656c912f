/* size.c - sizes as people write and read them, in binary units.
 *
 * Options and the configuration file take sizes, reports print them.  K is 1024, M is 1024 K,
 * and so on, since memory comes in powers of two; "KiB" means the same as "K", so that what is
 * printed can be typed in again.  All is done in integers: no rounding surprises in a limit, and
 * no decimal comma from the user's locale.  A sign, a blank, or anything else that is left over
 * makes the whole text wrong: better to ask again than to guess a limit.
 */
#include "proto/size.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char units[] = "KMGTPE";

#define FRACTION_MAX \
	6 /* digits after the point: a fraction times the largest unit read still fits */

/* Reads digits into *ret and moves *p behind them. */
static int read_digits(const char **p, uint64_t *ret, unsigned *ret_n)
{
	uint64_t value = 0;
	unsigned n = 0;

	for (; **p >= '0' && **p <= '9'; (*p)++, n++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(**p - '0'), &value))
			return -ERANGE;
	*ret = value;
	*ret_n = n;
	return 0;
}

/* The unit at p as a power of two; -EINVAL if this is none.  "", "B", "K".."T", "KiB".."TiB", in
 * any case. */
static int read_unit(const char *p)
{
	const char *unit;

	if (*p == '\0' || strcasecmp(p, "B") == 0)
		return 0;
	unit = strchr("KMGT", *p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
	if (unit == NULL || (p[1] != '\0' && strcasecmp(p + 1, "iB") != 0))
		return -EINVAL;
	return 10 * (int)(strchr(units, *unit) - units + 1);
}

/* Reads digits, maybe a point with up to six more digits, and maybe a unit: B, K, M, G, T or KiB
 * to TiB.  What is less than a byte is dropped.  A fraction of a plain number is wrong.  0;
 * -EINVAL: not a size; -ERANGE: more than 64 bits hold.  Thread-safe; no malloc. */
int tgp_parse_size(const char *text, uint64_t *ret)
{
	uint64_t whole, fraction = 0, scale = 1, bytes;
	unsigned n, n_fraction = 0;
	const char *p = text;
	int r, shift;

	r = read_digits(&p, &whole, &n);
	if (r < 0)
		return r;
	if (n == 0)
		return -EINVAL;
	if (*p == '.') {
		p++;
		r = read_digits(&p, &fraction, &n_fraction);
		if (r < 0 || n_fraction == 0 || n_fraction > FRACTION_MAX)
			return -EINVAL;
	}
	/* "64 MiB", as it is printed, is fine too. */
	if (*p == ' ' && p[1] != '\0' && p[1] != ' ')
		p++;
	shift = read_unit(p);
	if (shift < 0 || (n_fraction > 0 && shift == 0))
		return -EINVAL;
	for (; n_fraction > 0; n_fraction--)
		scale *= 10;
	if (__builtin_mul_overflow(whole, (uint64_t)1 << shift, &bytes) ||
	    __builtin_add_overflow(bytes, (fraction << shift) / scale, &bytes))
		return -ERANGE;
	*ret = bytes;
	return 0;
}

/* Writes at most `size` bytes with the end; TGP_SIZE_TEXT are enough.  Thread-safe; no malloc. */
void tgp_format_size(uint64_t bytes, char *buf, size_t size)
{
	uint64_t whole, tenths, unit;
	unsigned i = 0;

	if (bytes < 1024) {
		snprintf(buf, size, "%" PRIu64 " B", bytes);
		return;
	}
	while (units[i + 1] != '\0' && bytes >> (10 * (i + 2)) != 0)
		i++;
	unit = (uint64_t)1 << (10 * (i + 1));
	whole = bytes / unit;
	tenths = (bytes % unit * 10 + unit / 2) / unit;
	if (tenths == 10) {
		whole++;
		tenths = 0;
	}
	if (whole == 1024 && units[i + 1] != '\0') {
		whole = 1;
		i++;
	}
	if (tenths == 0)
		snprintf(buf, size, "%" PRIu64 " %ciB", whole, units[i]);
	else
		snprintf(buf, size, "%" PRIu64 ".%" PRIu64 " %ciB", whole, tenths, units[i]);
}
