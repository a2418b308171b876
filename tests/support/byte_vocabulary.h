// Vocabularies of SentencePiece's kind that spell any text.
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "quant/vocabulary.h"

namespace quern::test {

// <unk>, <s>, </s> (ids 0, 1, 2), the 256 bytes, then `words` (normal tokens) and `others`; scores fall.
inline Vocabulary byte_vocabulary(const std::vector<std::string>& words,
                                  const std::vector<std::pair<std::string, TokenType>>& others = {}) {
  Vocabulary v;
  SentencePieceParts parts;
  const auto add = [&](const std::string& piece, TokenType type) {
    v.pieces.push_back(piece);
    v.types.push_back(type);
    parts.scores.push_back(-static_cast<float>(v.pieces.size()));
  };
  add("<unk>", TokenType::kUnknown);
  add("<s>", TokenType::kControl);
  add("</s>", TokenType::kControl);
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), TokenType::kByte);
  for (const std::string& word : words) add(word, TokenType::kNormal);
  for (const auto& [piece, type] : others) add(piece, type);
  v.unk = 0;
  v.bos = 1;
  v.eos = 2;
  v.parts = std::move(parts);
  check_vocabulary(v, "a test", {});
  return v;
}

}  // namespace quern::test
