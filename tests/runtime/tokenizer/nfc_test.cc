#include "runtime/tokenizer/nfc.h"
#include "tests/support/json.h"
#include "tests/support/paths.h"

#include <gtest/gtest.h>

#include <fstream>

namespace quern::test {
namespace {

std::string nfc(const std::string& text) { return to_nfc(text).value_or(text); }

// Written with Python's unicodedata (Unicode 14).
TEST(Nfc, EqualsPythonsOnRandomLettersAndMarks) {
  std::ifstream file(test_data("golden/nfc.jsonl"));
  size_t n_texts = 0;
  for (std::string line; std::getline(file, line); ++n_texts) {
    const Json golden = Json::parse(line);
    EXPECT_EQ(nfc(golden["text"]), golden["nfc"].get<std::string>()) << golden;
    EXPECT_EQ(nfc(golden["nfc"]), golden["nfc"].get<std::string>()) << golden;
  }
  EXPECT_EQ(n_texts, 400u);
}

TEST(Nfc, ComposesLettersMarksAndHangul) {
  EXPECT_EQ(nfc("e\u0301"), "\u00E9");
  EXPECT_EQ(nfc("\u1112\u1161\u11AB"), "\uD55C");
  EXPECT_EQ(nfc("\u212B \u2126"), "\u00C5 \u03A9");
  EXPECT_EQ(nfc("a\u0327\u0301"),
            "\u00E1\u0327");                 // the cedilla composes with no a, and does not block the accent
  EXPECT_EQ(nfc("\u0958"), "\u0915\u093C");  // excluded from composition
}

TEST(Nfc, LeavesOrdinaryTextAlone) {
  for (const char* const text :
       {"", "plain", "caf\u00E9", "\u6F22\u5B57 \uD55C\uAE00 \u041F\u0440", "\U0001F600"})
    EXPECT_EQ(to_nfc(text), std::nullopt) << text;
}

TEST(Nfc, KeepsMalformedBytesAndComposesNothingAcrossThem) {
  EXPECT_EQ(nfc("e\xFF\u0301e\u0301\xC3"), "e\xFF\u0301\u00E9\xC3");
}

}  // namespace
}  // namespace quern::test
