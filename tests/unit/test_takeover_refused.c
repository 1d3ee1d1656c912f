/* test_takeover_refused: files in which something cannot be what a daemon wrote are refused,
 * with a sentence, untouched. */
#include <sys/mman.h>

#include "tests/support/runner.h"
#include "tests/support/takeover.h"

/* 21760-byte objects: three in eight pages. */
enum { WIDE = 63, WIDE_PAGES = 8, SPARSE = 30, DENSE = 5 };

static uint32_t keeper, reclaimer;
static unsigned slot, thread;
static uint64_t wide, small, large;

static void small_heap(void)
{
	start_heap(64 * MIB, 0);
	keeper = add_client(0);
	reclaimer = add_client(RECLAIM);
	slot = open_slot(keeper);
	thread = open_slot(reclaimer);
	wide = get_span(keeper, slot, WIDE).page;
	small = get_span(keeper, slot, SPARSE).page;
	large = get_large(keeper, slot, 20).page;
	take_object(small, 0);
	CU_ASSERT_EQUAL(tgd_heap_root_set(heap, "root", ref_of(small, 0), false, 0), 0);
}

static unsigned closet(void)
{
	return heap->holders.table[reclaimer % TGS_CLIENTS_MAX].closet;
}

/* Of all words in memory, and of where they lie; no hole gets filled. */
static uint64_t sum_of(int fd, uint64_t bytes)
{
	static uint64_t words[TGS_OS_PAGE / 8];
	uint64_t at, sum = 14695981039346656037u;
	size_t i;

	for (at = 0; at < bytes; at += sizeof(words)) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);

		if (data < 0 || (uint64_t)data >= bytes)
			break;
		at = (uint64_t)data;
		sum = (sum ^ at) * 1099511628211u;
		CU_ASSERT_EQUAL_FATAL(pread(fd, words, sizeof(words), data), sizeof(words));
		for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
			sum = (sum ^ words[i]) * 1099511628211u;
	}
	return sum;
}

/* Takes over what is damaged by now, and expects to be refused; then the daemon that was, lives
 * on. */
static void expect_refusal(const char *name, int error, const char *sentence)
{
	uint64_t map_bytes = view->geometry.map_bytes, state_bytes = view->geometry.data_at;
	char why[512] = "";
	uint64_t map_sum, state_sum;
	int map_fd, heap_fd, r;

	die();
	map_fd = dup(kept_map);
	heap_fd = dup(kept_heap);
	map_sum = sum_of(map_fd, map_bytes);
	state_sum = sum_of(heap_fd, state_bytes);
	r = adopt(name, why, sizeof(why));
	CU_ASSERT_EQUAL(r, error);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, sentence));
	if (!strstr(why, sentence))
		printf("\"%s\" has no \"%s\"\n", why, sentence);
	CU_ASSERT_EQUAL(sum_of(map_fd, map_bytes), map_sum);
	CU_ASSERT_EQUAL(sum_of(heap_fd, state_bytes), state_sum);
	close(map_fd);
	close(heap_fd);
	heap = r == 0 ? tgd_heap_free(heap) : NULL;
}

static void refused(const char *sentence)
{
	expect_refusal("test", -EPROTO, sentence);
}

/* A test changes one thing, and each time on a new heap. */
#define REFUSES(change, sentence)  \
	do {                       \
		change;            \
		refused(sentence); \
		small_heap();      \
	} while (0)

static void page_is(uint64_t page, uint64_t value)
{
	*entry(page) = value;
}

/* ---- files ---- */

static void another_name_is_refused(void)
{
	expect_refusal("other", -EPROTO, "the heap \"test\", not \"other\"");
	CU_ASSERT_PTR_NULL(heap);
}

static void a_heap_that_was_never_finished_is_told_apart(void)
{
	header()->daemon_epoch = 0;
	expect_refusal("test", -ENODATA, "before it was finished");
}

static void another_version_and_other_magic_are_refused(void)
{
	REFUSES(header()->layout_version++, "layout version");
	REFUSES(header()->magic++, "not one of a heap");
	REFUSES(header()->uuid[3]++, "does not belong to the map");
	header()->geometry.dense_at++;
	refused("its geometry");
}

static void what_is_no_heap_is_refused_and_closed(void)
{
	char why[256];
	int fds[2];

	end_heap();
	CU_ASSERT_EQUAL_FATAL(pipe(fds), 0);
	CU_ASSERT_EQUAL(tgd_heap_adopt(&heap, fds[0], fds[1], "test", why, sizeof(why)), -EPROTO);
	CU_ASSERT(strlen(why) > 10);
	CU_ASSERT_EQUAL(fcntl(fds[0], F_GETFD), -1);
	CU_ASSERT_EQUAL(fcntl(fds[1], F_GETFD), -1);
	fds[0] = memfd_create("empty", MFD_CLOEXEC);
	fds[1] = memfd_create("empty", MFD_CLOEXEC);
	CU_ASSERT_EQUAL(tgd_heap_adopt(&heap, fds[0], fds[1], "test", why, sizeof(why)), -EPROTO);
	CU_ASSERT_EQUAL(fcntl(fds[0], F_GETFD), -1);
	CU_ASSERT_EQUAL(fcntl(fds[1], F_GETFD), -1);
	CU_ASSERT_EQUAL(tgd_heap_adopt(&heap, -1, -1, "test", why, sizeof(why)), -EPROTO);
	CU_ASSERT_PTR_NULL(heap);
}

static void an_address_that_is_taken_is_told(void)
{
	void *base = view->base, *p;
	char why[256];

	die();
	p = mmap(base, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CU_ASSERT_PTR_EQUAL_FATAL(p, base);
	CU_ASSERT_EQUAL(adopt("test", why, sizeof(why)), -EADDRINUSE);
	CU_ASSERT(strlen(why) > 10);
	munmap(p, PAGE);
}

/* ---- header ---- */

static void numbers_of_the_header_that_cannot_be_are_refused(void)
{
	REFUSES(header()->limit_bytes = 0, "a limit of 0 bytes");
	REFUSES(header()->limit_bytes = 65 * MIB, "a limit of");
	REFUSES(header()->limit_bytes = 28 * PAGE, "its spans have 29 pages");
	REFUSES(header()->n_slots = 1, "1 thread slots");
	REFUSES(header()->n_slots = TGS_SLOTS_MAX + 1, "16385 thread slots");
	REFUSES(header()->n_roots = TGS_ROOTS_MAX + 1, "4097 roots");
	REFUSES(header()->n_roots = TGS_ROOTS_MAX, "was never written");
	memset(header()->name, 'n', TGS_HEAP_NAME_SIZE);
	refused("it has no name");
}

/* ---- page map ---- */

static void entries_that_cannot_be_are_refused(void)
{
	REFUSES(page_is(small, 1), "bits that no entry has");
	REFUSES(page_is(small, *entry(small) | 1 << 22), "bits that no entry has");
	REFUSES(page_is(small, *entry(small) | 1 << 29), "bits that no entry has");
	REFUSES(page_is(small, *entry(small) | TGS_ENTRY_MORE), "tiny span's state to another");
	REFUSES(page_is(wide + 1, *entry(wide + 1) | TGS_ENTRY_MORE),
		"tiny span's state to another");
	REFUSES(page_is(large, *entry(large) | TGS_ENTRY_MORE), "tiny span's state to another");
	REFUSES(page_is(small, tgs_entry_make(1, slot, 0, 0)), "a class that no span has");
	REFUSES(page_is(small, tgs_entry_make(69, slot, 0, 0)), "a class that no span has");
	REFUSES(page_is(small, tgs_entry_make(127, slot, 0, 0)), "a class that no span has");
	REFUSES(page_is(small, tgs_entry_make(SPARSE, TGS_SLOT_NONE, 0, 0)), "never used");
	REFUSES(page_is(small, tgs_entry_make(SPARSE, thread + 1, 0, 0)), "never used");
	REFUSES(page_is(small, tgs_entry_make(SPARSE, slot, 0, 1)), "a length to a small span");
	REFUSES(page_is(small, tgs_entry_make(SPARSE, slot, 1, 0)), "the middle of a span");
	REFUSES(page_is(8191, tgs_entry_make(WIDE, slot, 0, 0)), "not inside the heap");
	page_is(small, 1);
	refused("the entry of page 8, 0x1,");
}

static void entries_that_do_not_fit_together_are_refused(void)
{
	uint64_t other = tgs_entry_make(SPARSE, slot, 0, 0);

	REFUSES(page_is(wide, 0), "the middle of a span");
	REFUSES(page_is(wide + 3, 0), "behind the end of a span");
	REFUSES(page_is(wide + 3, tgs_entry_make(WIDE, slot, 4, 0)), "does not continue");
	REFUSES(page_is(wide + 3, tgs_entry_make(WIDE - 1, slot, 3, 0)), "does not continue");
	REFUSES(page_is(wide + 3, tgs_entry_make(WIDE, thread + 1, 3, 0)), "never used");
	REFUSES(page_is(wide + 3, other), "does not continue");
	/* Overlaps what ends too early; owners change twice, or where entries are missing. */
	REFUSES((page_is(wide + 7, other), page_is(wide + 6, 0)), "behind the end of a span");
	REFUSES(page_is(wide + 3, tgs_entry_make(WIDE, thread, 3, 0)),
		"owners in a way that no change leaves");
	page_is(wide + 6, tgs_entry_make(WIDE, thread, 6, 0));
	page_is(wide + 7, 0);
	refused("owners in a way that no change leaves");
}

static void large_spans_that_cannot_be_are_refused(void)
{
	REFUSES(page_is(large, tgs_entry_make(0, slot, 0, 0)), "not inside the heap");
	REFUSES(page_is(large, tgs_entry_make(0, slot, 0, 8192)), "not inside the heap");
	REFUSES(page_is(large, tgs_entry_make(0, slot, 1, 20)), "the middle of a span");
	REFUSES(page_is(large + 19, *entry(small)), "lies inside the large span of 20 pages");
	page_is(wide, tgs_entry_make(0, slot, 0, 9));
	refused("page 1 has an entry");
}

/* ---- tables ---- */

static void clients_that_cannot_be_are_refused(void)
{
	REFUSES(client_entry(keeper)->state = 3, "3 is no state");
	REFUSES(client_entry(keeper)->generation = 0, "has no generation");
	REFUSES(client_entry(keeper)->generation = 1 << 18, "is no generation");
	REFUSES(client_entry(keeper)->flags = 4, "flags 0x4");
	memset(client_entry(keeper)->name, 'n', TGS_HEAP_NAME_SIZE);
	refused("its name does not end");
}

static void slots_that_cannot_be_are_refused(void)
{
	REFUSES(slot_owner(slot)->client = TGS_CLIENTS_MAX + 1, "client entry 16384");
	REFUSES(slot_owner(slot)->flags = 2, "flags 0x2");
	REFUSES(slot_owner(slot)->flags = TGS_SLOT_IS_CLOSET, "which needs none");
	REFUSES(slot_owner(thread)->flags = TGS_SLOT_IS_CLOSET, "are both the closet");
	slot_owner(closet())->flags = 0;
	refused("has no closet");
}

static void roots_that_cannot_be_are_refused(void)
{
	REFUSES(root(0)->generation++, "it leads somewhere");
	REFUSES(root(0)->name[0] = '\0', "it has no name");
	REFUSES(memset(root(0)->name, 'r', TGS_ROOT_NAME_SIZE), "it has no name");
	REFUSES(root(0)->hash++, "do not agree");
	REFUSES(root(0)->ref = 8, "out of the heap");
	root(0)->ref = view->geometry.heap_bytes;
	refused("out of the heap");
}

static CU_TestInfo files[] = {
	{"another name is refused", another_name_is_refused},
	{"a heap that was never finished is told apart",
	 a_heap_that_was_never_finished_is_told_apart},
	{"another version and other magic are refused",
	 another_version_and_other_magic_are_refused},
	{"what is no heap is refused, and closed", what_is_no_heap_is_refused_and_closed},
	{"an address that is taken is told", an_address_that_is_taken_is_told},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo contents[] = {
	{"numbers of the header that cannot be are refused",
	 numbers_of_the_header_that_cannot_be_are_refused},
	{"entries that cannot be are refused", entries_that_cannot_be_are_refused},
	{"entries that do not fit together are refused",
	 entries_that_do_not_fit_together_are_refused},
	{"large spans that cannot be are refused", large_spans_that_cannot_be_are_refused},
	{"clients that cannot be are refused", clients_that_cannot_be_are_refused},
	{"slots that cannot be are refused", slots_that_cannot_be_are_refused},
	{"roots that cannot be are refused", roots_that_cannot_be_are_refused},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"files", NULL, NULL, small_heap, end_heap, files},
	{"contents", NULL, NULL, small_heap, end_heap, contents},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("takeover_refused", suites);
}
