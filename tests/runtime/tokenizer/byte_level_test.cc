#include "quant/byte_level.h"

#include <gtest/gtest.h>

#include "quant/utf8.h"

namespace quern::test {
namespace {

TEST(ByteLevel, SpellsEveryByteAsOneCharacterAndReadsItBack) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  const std::string spelling = byte_level_spelling(all);
  EXPECT_TRUE(is_valid_utf8(spelling));
  EXPECT_EQ(byte_level_bytes(spelling), all);
}

TEST(ByteLevel, SpellsAsGpt2Does) {
  EXPECT_EQ(byte_level_spelling(" the"), "\u0120the");
  EXPECT_EQ(byte_level_spelling("\n\t"), "\u010A\u0109");
  EXPECT_EQ(byte_level_spelling("\u00E9"), "\u00C3\u00A9");
  EXPECT_EQ(byte_level_spelling(std::string_view("\0\xAD", 2)), "\u0100\u0143");
}

TEST(ByteLevel, ReadsNothingFromOtherCharacters) {
  for (const char* const text : {" ", "a b", "\u0144", "\u2581", "\xC4", "\u00AD", "\x7F"})
    EXPECT_EQ(byte_level_bytes(text), std::nullopt) << text;
  EXPECT_EQ(byte_level_bytes(""), "");
}

TEST(ByteLevel, KnowsBytePiecesByTheirExactForm) {
  EXPECT_EQ(parse_byte_piece("<0x0A>"), 10);
  EXPECT_EQ(parse_byte_piece("<0xFF>"), 255);
  for (const char* const piece : {"<0x0a>", "<0xA>", "<0x00A>", "<0x-1>", "0x0A", "<0x0A", ""})
    EXPECT_EQ(parse_byte_piece(piece), std::nullopt) << piece;
}

}  // namespace
}  // namespace quern::test
