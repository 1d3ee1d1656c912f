/*
 * sizeclass: the home of the tables that tools/mksizeclasses.c makes.
 *
 * Nothing is written here by hand. The asserts tie the numbers that the generator was built with
 * to those that the rest of the project is built with.
 */
#include "shm/sizeclass.h"

#include "shm/layout.h"
#include "shm/sizeclass-table.h"

_Static_assert(TGS_TABLE_PAGE_SIZE == TGS_PAGE_SIZE, "the table was made for another page size");
_Static_assert(TGS_TABLE_CLASSES == TGS_CLASSES, "the table has another number of classes");
_Static_assert(TGS_TABLE_SMALL_MAX == TGS_SMALL_MAX, "the table ends at another size");
_Static_assert(TGS_CLASS_TINY == TGS_CLASSES && TGS_CLASSES_ALL == TGS_CLASSES + 1,
	       "the tiny class comes right after the others");
_Static_assert(sizeof(struct tgs_class) == 16, "an entry is found by a shift");
