/* Sizes as people write and read them: what is accepted, what is refused, and how it looks when
 * printed. */
#include "proto/size.h"

#include <errno.h>
#include <string.h>

#include "tests/support/runner.h"

#define K         UINT64_C(1024)
#define UNTOUCHED UINT64_C(0xdecade)

static void check_size(const char *text, uint64_t want)
{
	uint64_t got = UNTOUCHED;

	CU_ASSERT_EQUAL(tgp_parse_size(text, &got), 0);
	CU_ASSERT_EQUAL(got, want);
}

static void check_refused(const char *text, int error)
{
	uint64_t got = UNTOUCHED;

	CU_ASSERT_EQUAL(tgp_parse_size(text, &got), error);
	CU_ASSERT_EQUAL(got, UNTOUCHED);
}

static void plain_numbers_are_bytes(void)
{
	check_size("0", 0);
	check_size("1", 1);
	check_size("1073741824", K * K * K);
	check_size("18446744073709551615", UINT64_MAX);
	check_size("12B", 12);
	check_size("007", 7);
}

static void units_are_binary_in_any_case(void)
{
	check_size("1K", K);
	check_size("64M", 64 * K * K);
	check_size("2g", 2 * K * K * K);
	check_size("3T", 3 * K * K * K * K);
	check_size("64MiB", 64 * K * K);
	check_size("64 MiB", 64 * K * K);
	check_size("64mib", 64 * K * K);
}

static void fractions_are_exact_and_less_than_a_byte_is_dropped(void)
{
	check_size("1.5G", 3 * K * K * K / 2);
	check_size("0.5K", 512);
	check_size("0.25M", 256 * K);
	check_size("0.1K", 102);
	check_size("0.999999T", 1099510528264);
}

static void what_is_no_size_is_refused(void)
{
	static const char *const texts[] = {
		"",     " ",     "M",    "-1",   "+1",     "1.5",        "1.",     ".5G",   "1,5G",
		"1 ",   " 1",    "64MB", "64Mi", "64X",    "64MM",       "64 M M", "0x10",  "1e9",
		"1.5B", "1..5G", "12 ",  "1  M", "1.5.5G", "1.1234567G", "lots",   "64MiBx"};
	size_t i;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		check_refused(texts[i], -EINVAL);
}

static void what_64_bits_do_not_hold_is_out_of_range(void)
{
	check_refused("18446744073709551616", -ERANGE);
	check_refused("99999999999999999999999999", -ERANGE);
	check_refused("16777216T", -ERANGE);
	check_size("16777215T", UINT64_C(16777215) << 40);
	check_size("16777215.999999T", (UINT64_C(16777215) << 40) + 1099510528264);
}

static void check_text(uint64_t bytes, const char *want)
{
	char got[TGP_SIZE_TEXT];

	tgp_format_size(bytes, got, sizeof(got));
	CU_ASSERT_STRING_EQUAL(got, want);
}

static void sizes_are_printed_with_one_digit_at_most_after_the_point(void)
{
	check_text(0, "0 B");
	check_text(1023, "1023 B");
	check_text(1024, "1 KiB");
	check_text(1536, "1.5 KiB");
	check_text(64 * K * K, "64 MiB");
	check_text(3 * K * K * K / 2, "1.5 GiB");
	check_text(K * K + 1, "1 MiB");
	check_text(UINT64_MAX, "16 EiB");
}

static void rounding_up_reaches_the_next_unit(void)
{
	check_text(K * K - 1, "1 MiB");
	check_text(K * K * K - 1, "1 GiB");
	check_text(1023 * K + 900, "1023.9 KiB");
	check_text(10 * K - 1, "10 KiB");
}

static void what_is_printed_can_be_read_again(void)
{
	uint64_t bytes, again;
	char text[TGP_SIZE_TEXT];

	for (bytes = 1; bytes < UINT64_C(1000) << 40; bytes = bytes * 3 + 1) {
		tgp_format_size(bytes, text, sizeof(text));
		CU_ASSERT_EQUAL_FATAL(tgp_parse_size(text, &again), 0);
		/* One digit after the point: at most a twentieth of a unit away. */
		CU_ASSERT((again > bytes ? again - bytes : bytes - again) <= bytes / 20 + 1);
	}
}

static CU_TestInfo parse_tests[] = {
	{"plain numbers are bytes", plain_numbers_are_bytes},
	{"units are binary, in any case", units_are_binary_in_any_case},
	{"fractions are exact, and less than a byte is dropped",
	 fractions_are_exact_and_less_than_a_byte_is_dropped},
	{"what is no size is refused", what_is_no_size_is_refused},
	{"what 64 bits do not hold is out of range", what_64_bits_do_not_hold_is_out_of_range},
	CU_TEST_INFO_NULL,
};

static CU_TestInfo format_tests[] = {
	{"sizes are printed with one digit at most after the point",
	 sizes_are_printed_with_one_digit_at_most_after_the_point},
	{"rounding up reaches the next unit", rounding_up_reaches_the_next_unit},
	{"what is printed can be read again", what_is_printed_can_be_read_again},
	CU_TEST_INFO_NULL,
};

static CU_SuiteInfo suites[] = {
	{"reading a size", NULL, NULL, NULL, NULL, parse_tests},
	{"printing a size", NULL, NULL, NULL, NULL, format_tests},
	CU_SUITE_INFO_NULL,
};

int main(void)
{
	return tgt_run("size", suites);
}
