#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cli/parse.h"
#include "quant/error.h"

namespace quern {
namespace {

template <class Call>
std::string usage_error(Call call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    return error.what();
  }
  return "(no error)";
}

TEST(NumberParsing, TakesPlainDecimalsInRange) {
  EXPECT_EQ(parse_integer("-n", "-1", -1, 10), -1);
  EXPECT_EQ(parse_integer("-n", "010", 0, 10), 10);  // not octal
  EXPECT_EQ(parse_unsigned("--seed", "18446744073709551615", 0, UINT64_MAX), UINT64_MAX);
  EXPECT_EQ(parse_number("--temp", "0.75", 0, 1), 0.75);
  EXPECT_EQ(parse_number("--temp", "1e-38", 0, 1), 1e-38);
}

TEST(NumberParsing, RefusesWhatIsNotAllANumber) {
  for (const char* text : {"", " ", "12abc", "abc", "1e9", "1.5", "0x10", "+1", " 1", "1 ", "--1",
                           "99999999999999999999", "1,2"})
    EXPECT_NE(usage_error([&] { parse_integer("-n", text, INT64_MIN, INT64_MAX); }), "(no error)") << text;
  for (const char* text : {"", "0.5x", "nan", "inf", "-inf", "1e999", "+0.5", " 0.5", "0,5"})
    EXPECT_NE(usage_error([&] { parse_number("--temp", text, -1e308, 1e308); }), "(no error)") << text;
}

TEST(NumberParsing, TakesSizesWithUnits) {
  const std::pair<const char*, uint64_t> sizes[] = {{"1", 1},
                                                    {"12B", 12},
                                                    {"5k", 5000},
                                                    {"5K", 5000},
                                                    {"500M", 500'000'000},
                                                    {"4G", 4'000'000'000},
                                                    {"4GB", 4'000'000'000},
                                                    {"2GiB", uint64_t{2} << 30},
                                                    {"3KiB", 3072},
                                                    {"7Mi", 7u << 20}};
  for (const auto& [text, bytes] : sizes) EXPECT_EQ(parse_bytes("--split-size", text), bytes) << text;
  for (const char* text : {"", "0", "K", "1.5G", "4T", "-1", "1 G", "4GiBs", "4Gb", "4BB", "5000000000G"})
    EXPECT_NE(usage_error([&] { parse_bytes("--split-size", text); }), "(no error)") << text;
}

TEST(NumberParsing, RefusesWhatIsOutOfRangeNamingTheOption) {
  EXPECT_EQ(usage_error([] { parse_integer("--top-k", "-1", 0, 9); }),
            "--top-k: '-1' is not a whole number between 0 and 9");
  EXPECT_EQ(usage_error([] { parse_unsigned("--ctx", "10", 1, 9); }),
            "--ctx: '10' is not a whole number between 1 and 9");
  EXPECT_NE(usage_error([] { parse_unsigned("--seed", "-1", 0, UINT64_MAX); }), "(no error)");
  EXPECT_EQ(usage_error([] { parse_number("--top-p", "2", 0, 1); }), "--top-p: 2 is not between 0 and 1");
}

TEST(NumberParsing, EscapesWhatItQuotes) {
  EXPECT_EQ(usage_error([] { parse_integer("-n", "\x1b[2J", 0, 9); }),
            "-n: '\\x1B[2J' is not a whole number between 0 and 9");
}

TEST(NumberParsing, ListsAreSeparatedByCommasOrSpaces) {
  const std::vector<TokenId> expected = {1, 5, 9};
  for (const char* text : {"1,5,9", "1 5 9", "1, 5, 9", "1,5 9\n"})
    EXPECT_EQ(parse_ids("--ids", text), expected) << text;
}

TEST(NumberParsing, RefusesListsWithHolesAndIdsThatAreNone) {
  for (const char* text : {"", ",", "1,", ",1", "1,,2", "1,x", "-1", "1,2147483648", "1;2"})
    EXPECT_NE(usage_error([&] { parse_ids("--ids", text); }), "(no error)") << text;
}

}  // namespace
}  // namespace quern
