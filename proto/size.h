/* size.h - sizes as people write and read them: "64M", "1.5 GiB". */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define TGP_SIZE_TEXT 16 /* bytes that the longest formatted size needs, with its end */

/* "64M", "1.5G", "1073741824" to bytes.  0; -EINVAL: not a size; -ERANGE: more than 64 bits
 * hold. */
int tgp_parse_size(const char *text, uint64_t *ret);

/* "17 B", "64 MiB", "1.5 GiB": at most one digit after the point, rounded to the nearest. */
void tgp_format_size(uint64_t bytes, char *buf, size_t size);
