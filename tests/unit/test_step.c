/* test_step - detectable steps and links: whatever happens to the word afterwards, the recoverer knows.
 */
#include "shm/step.h"

#include <CUnit/CUnit.h>

#include "shm/link.h"
#include "shm/remote.h"
#include "tests/support/region.h"
#include "tests/support/runner.h"

/* Threads. */
enum { A = 2, B = 3, C = 4 };

static const struct tgs_tag_format format = {.slot_shift = TGS_REMOTE_SLOT_SHIFT(1),
					     .seq_bits = TGS_REMOTE_SEQ_BITS,
					     .kind = TGS_STEP_FREE};

static _Atomic uint64_t *word;

static void set_up(void)
{
	tgt_region_set_up();
	tgt_open_slot(A);
	tgt_open_slot(B);
	tgt_open_slot(C);
	tgt_put_span(5, 5, C, 0);
	word = tgt_remote_word(5, 32);
}

static uint64_t begin(unsigned self)
{
	return tgs_step_begin(tgt_heap, self, &format, word, 1, 0, 0);
}

static bool took_place(unsigned self)
{
	return tgs_step_took_place(tgt_heap, self, &format, word);
}

static bool help(uint64_t value)
{
	return tgs_step_help(tgt_heap, &format, word, value);
}

static uint64_t mark(unsigned slot)
{
	return tgt_heap->slots[slot].mark;
}

static void test_noted_but_not_done(void)
{
	uint64_t seq = begin(A);

	CU_ASSERT_EQUAL(seq, 1);
	CU_ASSERT_EQUAL(tgt_heap->slots[A].step.word, tgs_ref_of(tgt_heap, word) | TGS_STEP_FREE);
	CU_ASSERT_EQUAL(tgt_heap->slots[A].step.arg, 1);
	CU_ASSERT_FALSE(took_place(A));
	tgs_step_done(&tgt_heap->slots[A]);
	CU_ASSERT_EQUAL(tgt_heap->slots[A].step.word, 0);
	CU_ASSERT_EQUAL(begin(A), 2);
	CU_ASSERT_FALSE(took_place(A));
}

static void test_done_and_still_there(void)
{
	uint64_t seq = begin(A);

	*word = 1 | tgs_tag(&format, A, seq);
	CU_ASSERT_TRUE(took_place(A));
	/* Another thread's step is none of ours, an earlier one of our own neither. */
	begin(B);
	CU_ASSERT_FALSE(took_place(B));
	tgs_step_done(&tgt_heap->slots[A]);
	begin(A);
	CU_ASSERT_FALSE(took_place(A));
}

static void test_done_and_overwritten_with_help(void)
{
	uint64_t seq = begin(A);

	*word = 1 | tgs_tag(&format, A, seq);
	CU_ASSERT_TRUE(help(*word));
	CU_ASSERT_EQUAL(mark(A), seq);
	*word = 0;
	CU_ASSERT_TRUE(took_place(A));
	/* The mark does not speak for the next step. */
	tgs_step_done(&tgt_heap->slots[A]);
	begin(A);
	CU_ASSERT_FALSE(took_place(A));
}

static void test_help_is_only_for_who_needs_it(void)
{
	uint64_t seq = begin(A), value = 1 | tgs_tag(&format, A, seq);

	/* The word is not what the helper read: it must look again. */
	*word = 0;
	CU_ASSERT_FALSE(help(value));
	CU_ASSERT_EQUAL(mark(A), 0);
	/* The thread has finished. */
	*word = value;
	tgs_step_done(&tgt_heap->slots[A]);
	CU_ASSERT_TRUE(help(value));
	CU_ASSERT_EQUAL(mark(A), 0);
	/* It is at another word by now. */
	tgs_step_begin(tgt_heap, A, &format, word + 1, 1, 0, 0);
	CU_ASSERT_TRUE(help(value));
	CU_ASSERT_EQUAL(mark(A), 0);
	/* It is at this word again, but the tag is that of an earlier step. */
	tgs_step_done(&tgt_heap->slots[A]);
	begin(A);
	CU_ASSERT_TRUE(help(value));
	CU_ASSERT_EQUAL(mark(A), 0);
	CU_ASSERT_FALSE(took_place(A));
}

static void test_words_without_a_helpful_tag(void)
{
	/* No tag; the daemon's; that of a slot which was never opened and has no memory. */
	*word = 1;
	CU_ASSERT_TRUE(help(1));
	*word = 1 | tgs_tag(&format, TGS_SLOT_CENTRAL, 9);
	CU_ASSERT_TRUE(help(*word));
	*word = 1 | tgs_tag(&format, TGS_SLOTS_MAX - 1, 9);
	CU_ASSERT_TRUE(help(*word));
	CU_ASSERT_EQUAL(mark(TGS_SLOT_CENTRAL), 0);
}

static void test_a_late_helper_does_not_lower_the_mark(void)
{
	uint64_t seq = begin(A);

	*word = 1 | tgs_tag(&format, A, seq);
	tgt_heap->slots[A].mark = seq + 100;
	CU_ASSERT_TRUE(help(*word));
	CU_ASSERT_EQUAL(mark(A), seq + 100);
}

/* The tag has 18 bits of the number: after 2^18 steps it would be the same again. */
static void test_a_number_that_stands_in_the_word_is_skipped(void)
{
	uint64_t round = UINT64_C(1) << TGS_REMOTE_SEQ_BITS;
	uint64_t seq = begin(A);

	*word = 1 | tgs_tag(&format, A, seq);
	tgs_step_done(&tgt_heap->slots[A]);
	tgt_heap->slots[A].step.seq = seq + round - 1;
	CU_ASSERT_EQUAL(begin(A), seq + round + 1);
	/* Not done, and not mistaken for done because of the old tag. */
	CU_ASSERT_FALSE(took_place(A));
	tgs_step_done(&tgt_heap->slots[A]);
	/* Another thread's tag with that number is no reason to skip it. */
	tgt_heap->slots[B].step.seq = seq + round - 1;
	CU_ASSERT_EQUAL(begin(B), seq + round);
}

static void test_numbers_do_not_wrap(void)
{
	uint64_t many = (UINT64_C(1) << TGS_REMOTE_SEQ_BITS) * 1000 + 17, seq;

	tgt_heap->slots[A].step.seq = many;
	seq = begin(A);
	*word = 1 | tgs_tag(&format, A, seq);
	CU_ASSERT_TRUE(help(*word));
	CU_ASSERT_EQUAL(mark(A), many + 1);
	*word = 0;
	CU_ASSERT_TRUE(took_place(A));
}

static void test_tags_are_apart(void)
{
	uint64_t all = tgs_tag(&format, TGS_SLOTS_MAX - 1, UINT64_MAX);

	CU_ASSERT_EQUAL(all, UINT64_MAX << 32);
	CU_ASSERT_EQUAL(tgs_tag_of(&format, UINT64_MAX), all);
	CU_ASSERT_EQUAL(tgs_tag(&format, 1, 0), UINT64_C(1) << 32);
	CU_ASSERT_EQUAL(tgs_tag(&format, 0, 1), UINT64_C(1) << 46);
	CU_ASSERT_NOT_EQUAL(tgs_tag(&format, A, 5), tgs_tag(&format, B, 5));
}

/* ---- links ---- */

static struct tgs_tag_format link_format(void)
{
	return (struct tgs_tag_format){.slot_shift = tgt_heap->geometry.link_offset_bits,
				       .seq_bits = tgt_heap->geometry.link_seq_bits,
				       .kind = TGS_STEP_SWAP};
}

static void test_a_link_is_swung(void)
{
	_Atomic uint64_t *link = (_Atomic uint64_t *)tgt_heap->data;
	struct tgs_tag_format tags = link_format();
	uint64_t highest = tgt_heap->geometry.heap_bytes - 1;

	CU_ASSERT_EQUAL(tgs_link_get(tgt_heap, link), 0);
	CU_ASSERT_TRUE(tgs_link_swap(tgt_heap, A, link, 0, highest, 3));
	CU_ASSERT_EQUAL(tgs_link_get(tgt_heap, link), highest);
	CU_ASSERT_EQUAL(tgs_tag_of(&tags, *link), tgs_tag(&tags, A, tgt_heap->slots[A].step.seq));
	/* The step stays noted, with all that its recoverer needs, until it is said to be done. */
	CU_ASSERT_EQUAL(tgt_heap->slots[A].step.word, tgs_ref_of(tgt_heap, link) | TGS_STEP_SWAP);
	CU_ASSERT_EQUAL(tgt_heap->slots[A].step.arg, 3);
	CU_ASSERT_EQUAL(tgt_heap->slots[A].step.old_ref, 0);
	CU_ASSERT_EQUAL(tgt_heap->slots[A].step.new_ref, highest);
	CU_ASSERT_TRUE(tgs_step_took_place(tgt_heap, A, &tags, link));
	/* The next one to swing it tells the one before, who may have been killed since. */
	CU_ASSERT_TRUE(tgs_link_swap(tgt_heap, B, link, highest, 64, 0));
	CU_ASSERT_EQUAL(mark(A), tgt_heap->slots[A].step.seq);
	CU_ASSERT_TRUE(tgs_step_took_place(tgt_heap, A, &tags, link));
	CU_ASSERT_EQUAL(tgs_link_get(tgt_heap, link), 64);
}

static void test_a_link_that_leads_elsewhere(void)
{
	_Atomic uint64_t *link = (_Atomic uint64_t *)tgt_heap->data;
	uint64_t before;

	CU_ASSERT_TRUE(tgs_link_swap(tgt_heap, A, link, 0, 4096, 0));
	before = *link;
	CU_ASSERT_FALSE(tgs_link_swap(tgt_heap, B, link, 0, 8192, 0));
	CU_ASSERT_FALSE(tgs_link_swap(tgt_heap, B, link, 4097, 8192, 0));
	CU_ASSERT_EQUAL(*link, before);
	/* No step was even begun. */
	CU_ASSERT_EQUAL(tgt_heap->slots[B].step.word, 0);
	CU_ASSERT_EQUAL(tgt_heap->slots[B].step.seq, 0);
}

/* One thread swings a link to and fro for longer than its tag can count. */
static void test_links_count_beyond_their_tag(void)
{
	_Atomic uint64_t *link = (_Atomic uint64_t *)tgt_heap->data;
	struct tgs_tag_format tags = link_format();
	uint64_t n = (UINT64_C(2) << tags.seq_bits) + 5, i, at = 0;

	for (i = 0; i < n && i < (1 << 20); i++) {
		if (!tgs_link_swap(tgt_heap, A, link, at, at ^ 4096, 0) ||
		    !tgs_step_took_place(tgt_heap, A, &tags, link))
			break;
		at ^= 4096;
		tgs_step_done(&tgt_heap->slots[A]);
	}
	CU_ASSERT(i == n || i == 1 << 20);
	CU_ASSERT_EQUAL(tgs_link_get(tgt_heap, link), at);
}

int main(void)
{
	CU_TestInfo steps[] = {
		{"A step that is only noted did not take place", test_noted_but_not_done},
		{"A step took place if the word still has its tag", test_done_and_still_there},
		{"A step that was overwritten took place, as its overwriter has told",
		 test_done_and_overwritten_with_help},
		{"Nobody is told of what is not his step of now",
		 test_help_is_only_for_who_needs_it},
		{"A word with no tag, or a tag that is nobody's, is overwritten as it is",
		 test_words_without_a_helpful_tag},
		{"A late helper does not lower the mark",
		 test_a_late_helper_does_not_lower_the_mark},
		{"A number whose tag stands in the word is skipped",
		 test_a_number_that_stands_in_the_word_is_skipped},
		{"The mark has the whole number, not what of it fits the tag",
		 test_numbers_do_not_wrap},
		{"Tags of different threads and steps differ", test_tags_are_apart},
		CU_TEST_INFO_NULL,
	};
	CU_TestInfo links[] = {
		{"A link is swung, and who swung it before is told", test_a_link_is_swung},
		{"A link that leads elsewhere is not swung", test_a_link_that_leads_elsewhere},
		{"A thread swings links for longer than its tag can count",
		 test_links_count_beyond_their_tag},
		CU_TEST_INFO_NULL,
	};
	CU_SuiteInfo suites[] = {
		{"step", NULL, NULL, set_up, tgt_region_tear_down, steps},
		{"link", NULL, NULL, set_up, tgt_region_tear_down, links},
		CU_SUITE_INFO_NULL,
	};

	return tgt_run("step", suites);
}
