/* cover.c - the list of points, less those that were passed.
 *
 * A place in a header is a site in each file that includes it; it counts once.  A place that the compiler has copied counts
 * once, too.
 */
#include "tests/crash/cover.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The text of a line of the sources; "" where they are not to be found. */
static const char *text_of(const struct tgt_site_info *site)
{
	static char line[512];
	const char *top = getenv("TG_SRCDIR");
	char path[512];
	unsigned n = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", top != NULL ? top : ".", site->file);
	file = fopen(path, "re");
	line[0] = '\0';
	while (file != NULL && n < site->line && fgets(line, sizeof(line), file) != NULL)
		n++;
	if (file != NULL)
		fclose(file);
	line[strcspn(line, "\n")] = '\0';
	return line + strspn(line, "\t ");
}

static bool wanted(const struct tgt_site_info *site, const char *const *files)
{
	for (; *files != NULL; files++) {
		if (strncmp(site->file, *files, strlen(*files)) == 0)
			return true;
	}
	return false;
}

static bool same(const struct tgt_site_info *a, const struct tgt_site_info *b)
{
	return a->line == b->line && strcmp(a->file, b->file) == 0;
}

/* Of all copies of the place together. */
static bool passed_as(enum tgt_role role, const struct tgt_site_info *site)
{
	uint32_t n = atomic_load(&tgt_control->n_sites[role]), i;

	for (i = 0; i < n; i++) {
		const struct tgt_site_info *other = &tgt_control->site[role][i];

		if (same(site, other) && atomic_load(&other->passed) != 0)
			return true;
	}
	return false;
}

/* Keeper and worker are one program. */
static bool passed(enum tgt_role role, const struct tgt_site_info *site)
{
	if (role == TGT_CLIENT)
		return passed_as(role, site);
	return passed_as(TGT_DAEMON, site) || passed_as(TGT_KEEPER, site);
}

static bool is_first(enum tgt_role role, uint32_t i)
{
	uint32_t k;

	for (k = 0; k < i; k++) {
		if (same(&tgt_control->site[role][k], &tgt_control->site[role][i]))
			return false;
	}
	return true;
}

static const struct tgt_uncovered *excuse(const struct tgt_site_info *site,
					  const struct tgt_uncovered *uncovered)
{
	for (; uncovered->file != NULL; uncovered++) {
		if (strcmp(site->file, uncovered->file) == 0 &&
		    strstr(text_of(site), uncovered->text) != NULL)
			return uncovered;
	}
	return NULL;
}

unsigned tgt_cover(enum tgt_role role, const char *const *files,
		   const struct tgt_uncovered *uncovered)
{
	uint32_t n = atomic_load(&tgt_control->n_sites[role]), i;
	unsigned places = 0, missed = 0, excused = 0;

	for (i = 0; i < n; i++) {
		const struct tgt_site_info *site = &tgt_control->site[role][i];

		if (!wanted(site, files) || !is_first(role, i))
			continue;
		places++;
		if (passed(role, site))
			continue;
		if (excuse(site, uncovered) != NULL) {
			excused++;
			continue;
		}
		missed++;
		printf("never passed: %s:%u (%s) %s\n", site->file, site->line, site->what,
		       text_of(site));
	}
	printf("%u points, %u never passed, %u of them known ...", places, missed + excused,
	       excused);
	return missed;
}
