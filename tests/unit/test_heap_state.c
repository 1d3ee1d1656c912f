/* test_heap_state: the published and remote words of dense and tiny spans have memory exactly when the page map says so.
 *
 * fallocate is wrapped by the linker, so that a test can let it fail, as on a machine without memory.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/support/runner.h"
#include "tests/support/takeover.h"

int __real_fallocate(int fd, int mode, off_t at, off_t bytes);
int __wrap_fallocate(int fd, int mode, off_t at, off_t bytes);

static bool no_memory;

int __wrap_fallocate(int fd, int mode, off_t at, off_t bytes)
{
	if (no_memory && !(mode & FALLOC_FL_PUNCH_HOLE)) {
		errno = ENOSPC;
		return -1;
	}
	return __real_fallocate(fd, mode, at, bytes);
}

enum {
	TINY = TGS_CLASS_TINY,
	DENSE = 5,
	DENSE_TOO = 4,
	SHORTER = 6,
	MORE = TGS_OS_PAGE,
	GROUP = TGS_DENSE_GROUP
};

static uint32_t client, other;
static unsigned slot, thread;

static void two_clients(void)
{
	no_memory = false;
	start_heap(64 * MIB, 0);
	client = add_client(0);
	other = add_client(0);
	slot = open_slot(client);
	thread = open_slot(other);
}

static bool has_more(uint64_t page)
{
	unsigned kind = kind_at(page);
	bool more = tgs_has_more(view, kind, page);

	CU_ASSERT_EQUAL(tgd_backing_has_words(&heap->backing, kind, page), more);
	return more;
}

static int back(uint64_t page, unsigned ahead)
{
	return tgd_heap_back_state(heap, &page, 1, ahead);
}

static uint64_t resident(void)
{
	return status().resident_bytes;
}

/* So many spans of a slot, which lie side by side; returns the first. */
static uint64_t get_spans(uint32_t id, unsigned of, unsigned class, unsigned n)
{
	struct tgd_grant grant[64];
	unsigned got = 0, i;

	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, id, of, class, n, grant, &got), 0);
	CU_ASSERT_EQUAL_FATAL(got, n);
	for (i = 0; i < n; i++)
		CU_ASSERT_EQUAL(grant[i].page, grant[0].page + i);
	return grant[0].page;
}

static uint64_t get_tiny(uint32_t id, unsigned of, unsigned n)
{
	return get_spans(id, of, TINY, n);
}

/* How many of the spans side by side have it. */
static unsigned count_more(uint64_t page, unsigned n)
{
	unsigned have = 0;

	while (n-- > 0)
		have += has_more(page + n);
	return have;
}

static void it_has_memory_from_the_first_need_on(void)
{
	uint64_t page = get_tiny(client, slot, 2), before = resident();

	CU_ASSERT_FALSE(has_more(page));
	CU_ASSERT_EQUAL(back(page, 0), 0);
	CU_ASSERT(has_more(page));
	CU_ASSERT_FALSE(has_more(page + 1));
	CU_ASSERT_EQUAL(resident(), before + MORE);
	CU_ASSERT_EQUAL(owner_of(page), slot);
	CU_ASSERT_EQUAL(span_at(page).class, TINY);
	CU_ASSERT_EQUAL(back(page, 0), 0);
	CU_ASSERT_EQUAL(resident(), before + MORE);
	/* Nobody's objects and frees make it grow. */
	take_object(page, 5);
	publish(page, 5);
	remote_free(thread, page, 5);
	CU_ASSERT_EQUAL(resident(), before + MORE);
}

static void what_has_its_words_elsewhere_is_refused(void)
{
	uint64_t tiny = get_tiny(client, slot, 1), small = get_span(client, slot, 20).page;
	uint64_t wide = get_span(client, slot, 63).page, large = get_large(client, slot, 9).page;
	uint64_t bad[] = {small, wide, wide + 1, large, large + 1, large + 9, 1u << 20, UINT64_MAX};
	uint64_t before = resident(), pages[2] = {tiny};
	unsigned i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		pages[1] = bad[i];
		CU_ASSERT_EQUAL(tgd_heap_back_state(heap, pages, 2, 9), -EINVAL);
		CU_ASSERT(strstr(tgd_heap_why(heap), "no tiny or dense span") != NULL);
	}
	CU_ASSERT_EQUAL(tgd_heap_back_state(heap, pages, 0, 9), 0);
	CU_ASSERT_FALSE(has_more(tiny));
	CU_ASSERT_EQUAL(resident(), before);
	pages[1] = tiny;
	CU_ASSERT_EQUAL(tgd_heap_back_state(heap, pages, 2, 0), 0);
	CU_ASSERT(has_more(tiny));
}

static void neighbours_are_done_ahead_of_need(void)
{
	uint64_t page = get_tiny(client, slot, 32), theirs = get_tiny(other, thread, 4), i;

	/* Those granted after it, which have the higher addresses here. */
	CU_ASSERT_EQUAL(back(page + 4, 3), 0);
	for (i = 0; i < 32; i++)
		CU_ASSERT_EQUAL(has_more(page + i), i >= 4 && i < 8);
	/* Of those that have it already none counts. */
	CU_ASSERT_EQUAL(back(page + 2, 2), 0);
	CU_ASSERT(has_more(page + 2) && has_more(page + 3) && has_more(page + 8));
	CU_ASSERT_FALSE(has_more(page + 9));
	/* Then those granted before; never more than that slot's. */
	CU_ASSERT_EQUAL(back(page + 30, 2), 0);
	CU_ASSERT(has_more(page + 31) && has_more(page + 29));
	CU_ASSERT_EQUAL(back(page + 30, UINT32_MAX), 0);
	CU_ASSERT_EQUAL(count_more(page, 32), 32);
	CU_ASSERT_EQUAL(count_more(theirs, 4), 0);
}

static void it_stays_until_the_span_ends(void)
{
	uint64_t page = get_tiny(client, slot, 1);

	take_objects(page, 20);
	CU_ASSERT_EQUAL(back(page, 0), 0);
	publish(page, 3);
	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	CU_ASSERT_EQUAL(owner_of(page), TGS_SLOT_CENTRAL);
	CU_ASSERT(has_more(page));
	CU_ASSERT_EQUAL(get_tiny(other, thread, 1), page);
	CU_ASSERT(has_more(page));
	/* It becomes empty, all of it by frees of others; what was published is nobody's any more. */
	while (status().spans > 0) {
		static unsigned i;

		remote_free(slot, page, i++);
		if (i == 20)
			CU_ASSERT_EQUAL(put_span(other, thread, page), 0);
	}
	(void)checked();
	/* The memory is idle, like the page's, so the next span there has it at once ... */
	CU_ASSERT_EQUAL(get_tiny(client, slot, 1), page);
	CU_ASSERT(has_more(page));
	CU_ASSERT_EQUAL(tgs_published_bits(view, TGS_TINY, page, 0), 0);
	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	/* ... until both go back. */
	(void)tgd_heap_trim(heap);
	CU_ASSERT_EQUAL(get_tiny(client, slot, 1), page);
	CU_ASSERT_FALSE(has_more(page));
	/* Of another class there, nobody says so. */
	CU_ASSERT_EQUAL(back(page, 0), 0);
	CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	CU_ASSERT_EQUAL(get_large(client, slot, 1).page, page);
	CU_ASSERT_EQUAL(*entry(page) & TGS_ENTRY_MORE, 0);
}

static void without_memory_it_is_refused_and_had_later(void)
{
	uint64_t page = get_tiny(client, slot, 4);
	uint64_t before = resident(), refused = status().refused;

	no_memory = true;
	CU_ASSERT_EQUAL(back(page, 3), -ENOMEM);
	CU_ASSERT(strstr(tgd_heap_why(heap), "4096 bytes to spare") != NULL);
	CU_ASSERT_EQUAL(status().refused, refused + 1);
	CU_ASSERT_FALSE(has_more(page));
	CU_ASSERT_EQUAL(resident(), before);
	no_memory = false;
	CU_ASSERT_EQUAL(back(page, 0), 0);
	/* Those that nobody needs yet are no reason to refuse. */
	no_memory = true;
	CU_ASSERT_EQUAL(back(page, 3), 0);
	CU_ASSERT_FALSE(has_more(page + 1));
	no_memory = false;
}

/* The machine has a little more than the margin left, then only the margin. */
static void the_margin_is_for_what_is_needed(void)
{
	uint64_t page = get_tiny(client, slot, 4);
	struct tgd_headroom *headroom = &heap->backing.headroom;
	struct tgd_grant grant;
	unsigned n;
	char path[] = "/tmp/tg-state-XXXXXX";
	int fd = mkstemp(path);
	/* All but the reserve of 64 MiB. */
	unsigned kib = (64 << 10) + (unsigned)(TGD_HEADROOM_MARGIN >> 10);

	CU_ASSERT_FATAL(fd >= 0);
	CU_ASSERT(dprintf(fd, "MemTotal: 1048576 kB\nMemAvailable: %u kB\n", kib) > 0);
	close(fd);
	headroom->meminfo = path;
	headroom->read_at_ms = 0;
	CU_ASSERT_EQUAL(tgd_heap_get_spans(heap, client, slot, 20, 1, &grant, &n), -ENOMEM);
	CU_ASSERT_EQUAL(back(page, 3), 0);
	CU_ASSERT(has_more(page));
	CU_ASSERT_FALSE(has_more(page + 1));
	CU_ASSERT_FALSE(headroom->urgent);
	headroom->meminfo = "/proc/meminfo";
	headroom->read_at_ms = 0;
	unlink(path);
}

static void a_root_of_a_tiny_object_has_it_first(void)
{
	uint64_t page = get_tiny(client, slot, 1);
	uint64_t ref = tgs_ref_of(view, tgs_page_address(view, page)) + 8;
	struct tgd_root_info info;

	take_object(page, 8);
	no_memory = true;
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "tiny", ref, false, 0), -ENOMEM);
	CU_ASSERT_FALSE(tgd_heap_root_from(heap, 0, &info));
	CU_ASSERT_EQUAL(view->map->rooting, 0);
	no_memory = false;
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "tiny", ref, false, 0), 0);
	CU_ASSERT(has_more(page));
	CU_ASSERT_EQUAL(tgs_published_bits(view, TGS_TINY, page, 0), UINT64_C(1) << 8);
	CU_ASSERT_EQUAL(checked().published, 1);
}

static void the_next_daemon_finds_what_there_is(void)
{
	uint64_t page = get_tiny(client, slot, 4), i;

	for (i = 0; i < 4; i++)
		take_objects(page + i, 100);
	CU_ASSERT_EQUAL(back(page, 0), 0);
	publish(page, 7);
	CU_ASSERT_EQUAL(back(page + 1, 0), 0);
	remote_free(thread, page + 1, 9);
	/* Killed after the memory was there and before the page map said so. */
	CU_ASSERT_EQUAL(tgd_backing_words(&heap->backing, TGS_TINY, page + 2, true), 0);
	take_over();
	CU_ASSERT(has_more(page) && has_more(page + 1));
	CU_ASSERT_FALSE(has_more(page + 2) || has_more(page + 3));
	CU_ASSERT_EQUAL(checked().published, 1);
	CU_ASSERT_EQUAL(checked().objects, 399);
	CU_ASSERT_EQUAL(back(page + 2, 0), 0);
	CU_ASSERT(has_more(page + 2));
	take_over();
	CU_ASSERT(has_more(page + 2));
	/* Its holder dies, and central's spans keep it as well. */
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, client), 0);
	while (tgd_heap_work(heap, 1) == 0)
		;
	CU_ASSERT_EQUAL(owner_of(page), TGS_SLOT_CENTRAL);
	take_over();
	CU_ASSERT(has_more(page) && has_more(page + 1) && has_more(page + 2));
	CU_ASSERT_FALSE(has_more(page + 3));
}

static void a_dead_clients_private_objects_die_with_and_without_it(void)
{
	uint32_t victim = add_client(RECLAIM);
	unsigned theirs = open_slot(victim);
	uint64_t page = get_tiny(victim, theirs, 2);

	take_objects(page, 50);
	take_objects(page + 1, 50);
	publish(page, 4);
	CU_ASSERT_FALSE(has_more(page + 1));
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, victim), 0);
	while (tgd_heap_work(heap, 1) == 0)
		;
	CU_ASSERT_EQUAL(checked().objects, 1);
	CU_ASSERT_EQUAL(status().spans, 1);
}

static void check_sees_an_entry_that_does_not_tell(void)
{
	uint64_t page = get_tiny(client, slot, 1);
	struct tgd_check check;

	*entry(page) |= TGS_ENTRY_MORE;
	tgd_heap_check(heap, &check);
	CU_ASSERT_FALSE(check.ok);
	CU_ASSERT(strstr(check.error[0], "against what the page map says") != NULL);
	*entry(page) &= ~TGS_ENTRY_MORE;
	CU_ASSERT_EQUAL(back(page, 0), 0);
	*entry(page) &= ~TGS_ENTRY_MORE;
	tgd_heap_check(heap, &check);
	CU_ASSERT_FALSE(check.ok);
	*entry(page) |= TGS_ENTRY_MORE;
}

/* ---- dense spans: those of a group of 16 pages have theirs together ---- */

static void a_group_of_dense_spans_has_it_together(void)
{
	uint64_t page = get_spans(client, slot, DENSE, 20), group = page - page % GROUP;
	uint64_t theirs = get_spans(other, thread, DENSE_TOO, 1), before = resident(), i;

	CU_ASSERT_EQUAL(page, group);
	CU_ASSERT_EQUAL(theirs, page + 20);
	CU_ASSERT_EQUAL(count_more(page, 21), 0);
	CU_ASSERT_EQUAL(back(page + 17, 0), 0);
	for (i = 0; i < 21; i++)
		CU_ASSERT_EQUAL(has_more(page + i), i >= GROUP);
	CU_ASSERT_EQUAL(resident(), before + MORE);
	CU_ASSERT_EQUAL(owner_of(theirs), thread);
	CU_ASSERT_EQUAL(span_at(theirs).class, DENSE_TOO);
	/* What is granted there later has it from the start. */
	before = resident();
	CU_ASSERT_EQUAL(get_spans(other, thread, DENSE, 1), page + 21);
	CU_ASSERT(has_more(page + 21));
	CU_ASSERT_EQUAL(tgs_remote_bits(view, TGS_DENSE_4, page + 21, 0), 0);
	CU_ASSERT_EQUAL(back(page + 21, 0), 0);
	CU_ASSERT_EQUAL(resident(), before + PAGE);
	take_object(page + 17, 5);
	publish(page + 17, 5);
	remote_free(thread, page + 17, 5);
	CU_ASSERT_EQUAL(resident(), before + PAGE);
}

/* Their bytes lie apart, and so do they, as a rule; their words do not. */
static void dense_spans_of_other_lengths_have_it_too(void)
{
	uint64_t page = get_spans(client, slot, DENSE, 40), shorter, i;

	for (i = 0; i < 30; i++)
		CU_ASSERT_EQUAL(i != 3 ? put_span(client, slot, page + i) : 0, 0);
	/* Much lies idle there, and is taken. */
	shorter = get_span(client, slot, SHORTER).page;
	CU_ASSERT_FATAL(shorter >= page && shorter < page + GROUP);
	CU_ASSERT_FALSE(has_more(shorter));
	CU_ASSERT_EQUAL(back(page + 3, 0), 0);
	CU_ASSERT(has_more(page + 3));
	CU_ASSERT(has_more(shorter));
	take_object(shorter, 127);
	remote_free(thread, shorter, 127);
	CU_ASSERT_EQUAL(tgs_remote_bits(view, TGS_DENSE_2, shorter, 1), UINT64_C(1) << 63);
}

static void groups_are_done_ahead_of_need(void)
{
	uint64_t page = get_spans(client, slot, DENSE, 64), theirs;

	theirs = get_spans(other, thread, DENSE, GROUP);
	CU_ASSERT_EQUAL(back(page + GROUP + 3, 1), 0);
	CU_ASSERT_EQUAL(count_more(page, 64), 2 * GROUP);
	CU_ASSERT_EQUAL(count_more(page + GROUP, 2 * GROUP), 2 * GROUP);
	CU_ASSERT_EQUAL(back(page, 63), 0);
	CU_ASSERT_EQUAL(count_more(page, 64), 64);
	CU_ASSERT_EQUAL(count_more(theirs, GROUP), 0);
}

static void it_goes_with_the_last_of_the_group(void)
{
	uint64_t page = get_spans(client, slot, DENSE, 2);

	take_objects(page, 20);
	CU_ASSERT_EQUAL(back(page + 1, 0), 0);
	CU_ASSERT_EQUAL(put_span(client, slot, page + 1), 0);
	(void)tgd_heap_trim(heap);
	CU_ASSERT(has_more(page));
	CU_ASSERT_EQUAL(get_spans(client, slot, DENSE_TOO, 1), page + 1);
	CU_ASSERT(has_more(page + 1));
	CU_ASSERT_EQUAL(put_span(client, slot, page + 1), 0);
	while (tgs_taken_bytes(view, TGS_DENSE_4, page)[0] != 0) {
		static unsigned i;

		remote_free(thread, page, i++);
		if (i == 20)
			CU_ASSERT_EQUAL(put_span(client, slot, page), 0);
	}
	(void)checked();
	(void)tgd_heap_trim(heap);
	CU_ASSERT_EQUAL(get_spans(client, slot, DENSE, 1), page);
	CU_ASSERT_FALSE(has_more(page));
}

static void without_memory_dense_spans_are_refused_it(void)
{
	uint64_t page = get_spans(client, slot, DENSE, 40);
	uint64_t ref = tgs_ref_of(view, tgs_page_address(view, page)), before = resident();

	take_object(page, 0);
	no_memory = true;
	CU_ASSERT_EQUAL(back(page, 3), -ENOMEM);
	CU_ASSERT(strstr(tgd_heap_why(heap), "4096 bytes to spare") != NULL);
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "dense", ref, false, 0), -ENOMEM);
	CU_ASSERT_EQUAL(count_more(page, 40), 0);
	CU_ASSERT_EQUAL(resident(), before);
	no_memory = false;
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "dense", ref, false, 0), 0);
	CU_ASSERT_EQUAL(count_more(page, 40), GROUP);
	CU_ASSERT_EQUAL(checked().published, 1);
}

static void the_next_daemon_tells_all_of_the_group(void)
{
	uint64_t page = get_spans(client, slot, DENSE, 40);

	take_objects(page, 1);
	take_objects(page + 20, 20);
	/* Killed when some of them had been told. */
	CU_ASSERT_EQUAL(back(page + 20, 0), 0);
	publish(page + 20, 7);
	*entry(page + 30) &= ~TGS_ENTRY_MORE;
	*entry(page + 31) &= ~TGS_ENTRY_MORE;
	/* When none had. */
	CU_ASSERT_EQUAL(tgd_backing_words(&heap->backing, TGS_DENSE_4, page, true), 0);
	take_over();
	CU_ASSERT_EQUAL(count_more(page, 40), GROUP);
	CU_ASSERT_EQUAL(count_more(page + GROUP, GROUP), GROUP);
	CU_ASSERT_EQUAL(checked().published, 1);
	CU_ASSERT_EQUAL(checked().objects, 21);
	take_over();
	CU_ASSERT_EQUAL(count_more(page, 40), GROUP);
}

/* A client wrote what it liked into the bytes of a span whose words have no memory. */
static void a_mark_for_words_without_memory_means_nothing(void)
{
	uint64_t page = get_spans(client, slot, DENSE, 1), before = resident();

	tgs_taken_bytes(view, TGS_DENSE_4, page)[3] = TGS_HELD | TGS_SPECIAL;
	tgs_taken_bytes(view, TGS_DENSE_4, page)[4] = TGS_TAKEN | TGS_GOING | TGS_SPECIAL;
	take_object(page, 70);
	CU_ASSERT_EQUAL(tgd_heap_client_end(heap, client), 0);
	while (tgd_heap_work(heap, 1) == 0)
		;
	CU_ASSERT_EQUAL(owner_of(page), TGS_SLOT_CENTRAL);
	CU_ASSERT_FALSE(has_more(page));
	CU_ASSERT_EQUAL(checked().objects, 1);
	CU_ASSERT(resident() <= before);
}

static CU_TestInfo dense[] = {
	{"a group of dense spans has it together", a_group_of_dense_spans_has_it_together},
	{"dense spans of other lengths have it, too", dense_spans_of_other_lengths_have_it_too},
	{"groups are done ahead of need", groups_are_done_ahead_of_need},
	{"it goes with the last of the group", it_goes_with_the_last_of_the_group},
	{"without memory dense spans are refused it", without_memory_dense_spans_are_refused_it},
	{"the next daemon tells all of the group", the_next_daemon_tells_all_of_the_group},
	{"a mark for words without memory means nothing",
	 a_mark_for_words_without_memory_means_nothing},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo state[] = {
	{"it has memory from the first need on", it_has_memory_from_the_first_need_on},
	{"what has its words elsewhere is refused", what_has_its_words_elsewhere_is_refused},
	{"neighbours are done ahead of need", neighbours_are_done_ahead_of_need},
	{"it stays until the span ends", it_stays_until_the_span_ends},
	{"without memory it is refused, and had later", without_memory_it_is_refused_and_had_later},
	{"the margin is for what is needed", the_margin_is_for_what_is_needed},
	{"a root of a tiny object has it first", a_root_of_a_tiny_object_has_it_first},
	{"the next daemon finds what there is", the_next_daemon_finds_what_there_is},
	{"a dead client's private objects die with and without it",
	 a_dead_clients_private_objects_die_with_and_without_it},
	{"check sees an entry that does not tell", check_sees_an_entry_that_does_not_tell},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"state of tiny spans", NULL, NULL, two_clients, end_heap, state},
	{"state of dense spans", NULL, NULL, two_clients, end_heap, dense},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("heap state", suites);
}
