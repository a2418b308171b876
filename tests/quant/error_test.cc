#include "quant/error.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "quant/utf8.h"

namespace quern {
namespace {

using namespace std::string_literals;

TEST(Printable, KeepsOrdinaryText) {
  EXPECT_EQ(printable("blk.0.attn_q.weight"), "blk.0.attn_q.weight");
  EXPECT_EQ(printable("Grüße, 世界 🦙"), "Grüße, 世界 🦙");
  EXPECT_EQ(printable(""), "");
}

TEST(Printable, EscapesWhatSteersATerminal) {
  EXPECT_EQ(printable("a\x1B[2Jb\n\x07\x7F"), "a\\x1B[2Jb\\x0A\\x07\\x7F");
  EXPECT_EQ(printable("nul\0end"s), "nul\\x00end");
  EXPECT_EQ(printable("\xC2\x9B"), "\\xC2\\x9B");                          // CSI in one character
  EXPECT_EQ(printable("\xE2\x80\xAE"), "\\xE2\\x80\\xAE");                 // right-to-left override
  EXPECT_EQ(printable("\xE2\x80\xA8"), "\\xE2\\x80\\xA8");                 // line separator
  EXPECT_EQ(printable("\xE2\x81\xA6"), "\\xE2\\x81\\xA6");                 // left-to-right isolate
  EXPECT_EQ(printable("\xE2\x80\x93 \xC2\xA0"), "\xE2\x80\x93 \xC2\xA0");  // neighbours of those
}

TEST(Printable, EscapesInvalidUtf8ByteByByte) {
  EXPECT_EQ(printable("a\xFFz"), "a\\xFFz");
  EXPECT_EQ(printable("\xC0\xAF"), "\\xC0\\xAF");
  EXPECT_EQ(printable("\xE4\xB8"), "\\xE4\\xB8");
}

TEST(Printable, DoesNotLetTextPretendToBeEscaped) { EXPECT_EQ(printable("\\x1B"), "\\x5Cx1B"); }

TEST(Printable, CutsLongTextBetweenCharacters) {
  EXPECT_EQ(printable(std::string(64, 'a')), std::string(64, 'a'));
  EXPECT_EQ(printable(std::string(65, 'a')), std::string(64, 'a') + "...");
  EXPECT_EQ(printable("世界", 5), "世...");
  EXPECT_EQ(printable("世界", 6), "世界");
}

TEST(Utf8, AcceptsExactlyWellFormedCharacters) {
  const auto encode = [](uint32_t c) {
    std::string out;
    const auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
    if (c < 0x80) {
      put(c);
    } else if (c < 0x800) {
      put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
      put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
    } else {
      put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
    }
    return out;
  };
  for (uint32_t c = 0; c < 0x1FFFFF; ++c) {
    const std::string text = encode(c);
    const bool is_scalar_value = c <= 0x10FFFF && !(c >= 0xD800 && c <= 0xDFFF);
    ASSERT_EQ(utf8_length(text), is_scalar_value ? text.size() : 0) << c;
    if (text.size() > 1) {
      ASSERT_EQ(utf8_length(text.substr(0, text.size() - 1)), 0u) << c;
    }
  }
  for (const char* overlong : {"\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF"})
    EXPECT_EQ(utf8_length(overlong), 0u);
  EXPECT_TRUE(is_valid_utf8("añ世🦙"));
  EXPECT_FALSE(is_valid_utf8("a\x80"));
}

TEST(Error, CarriesItsCode) {
  try {
    fail(ErrorCode::kResource, "{} of {}", 3, 2);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResource);
    EXPECT_STREQ(error.what(), "3 of 2");
  }
}

TEST(Error, NamesTheSystemsReason) {
  try {
    fail_errno(ENOENT, "cannot open 'x'");
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_STREQ(error.what(), "cannot open 'x': No such file or directory");
  }
}

TEST(ErrorDeathTest, AFailedCheckNamesTheConditionAndAborts) {
  EXPECT_DEATH(QUERN_CHECK(1 + 1 == 3), "internal error: .*error_test.cc:[0-9]+: 1 \\+ 1 == 3");
}

}  // namespace
}  // namespace quern
