/* things.c - see things.h.
 */
#include "tests/support/things.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "client/tg.h"
#include "tests/support/child.h"
#include "tests/support/fixture.h"

static void *things[TGT_THINGS];

static size_t size_of(unsigned i)
{
	static const size_t some[] = {1, 15, 24, 100, 600, 5000, 32768, 40000};

	return some[i % 8] + i / 8 % 2;
}

void tgt_things_make(void)
{
	unsigned i;

	for (i = 0; i < TGT_THINGS; i++) {
		things[i] = tg_malloc(size_of(i));
		TGT_REQUIRE(things[i] != NULL);
		tgt_fill_object(things[i], size_of(i), i);
	}
}

void tgt_things_check(void)
{
	unsigned i;

	for (i = 0; i < TGT_THINGS; i++)
		TGT_EXPECT(tgt_is_filled(things[i], size_of(i), i));
}

void tgt_things_free(void)
{
	unsigned i;

	tgt_things_check();
	for (i = 0; i < TGT_THINGS; i++)
		tg_free(things[i]);
}

/* ---- busy threads ---- */

static struct {
	_Atomic bool stop;
	_Atomic(void *) shelf[TGT_BUSY_OBJECTS];
	pthread_t threads[TGT_BUSY];
} busy;

static void *keep_busy(void *arg)
{
	static const size_t sizes[] = {1, 15, 24, 400, 4000, 30000, 70000};
	unsigned n = (unsigned)(uintptr_t)arg;

	while (!atomic_load(&busy.stop)) {
		size_t size = sizes[++n % 7];
		void *p = tg_malloc(size);

		TGT_REQUIRE(p != NULL);
		memset(p, 0x77, size);
		tg_free(atomic_exchange(&busy.shelf[n % TGT_BUSY_OBJECTS], p));
	}
	return NULL;
}

void tgt_busy_start(void)
{
	uintptr_t i;

	atomic_store(&busy.stop, false);
	for (i = 0; i < TGT_BUSY; i++)
		TGT_REQUIRE(pthread_create(&busy.threads[i], NULL, keep_busy, (void *)i) == 0);
}

void tgt_busy_end(void)
{
	unsigned i;

	atomic_store(&busy.stop, true);
	for (i = 0; i < TGT_BUSY; i++)
		pthread_join(busy.threads[i], NULL);
	for (i = 0; i < TGT_BUSY_OBJECTS; i++)
		tg_free(atomic_exchange(&busy.shelf[i], NULL));
}
