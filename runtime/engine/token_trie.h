// The tokens of a vocabulary by the bytes that they put into text, to walk many of them at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/tokenizer.h"

namespace quern {

// A tree of bytes, in the order in which it is walked: a node, then all that is below it.
struct Trie {
  std::vector<uint8_t> bytes;       // [nodes]
  std::vector<uint16_t> depths;     // [nodes] bytes from the start to here, from 1
  std::vector<uint32_t> ends;       // [nodes] the first node that is not below this one
  std::vector<uint32_t> first_ids;  // [nodes + 1] of `ids`
  std::vector<TokenId> ids;         // that end at a node
  size_t depth = 0;                 // of the deepest node
  size_t size() const { return bytes.size(); }
};

// A set of ids, 64 a word, the lowest first.
using TokenMask = std::vector<uint64_t>;
inline void set_bit(TokenMask& mask, TokenId id) {
  mask[static_cast<size_t>(id) / 64] |= uint64_t{1} << (static_cast<size_t>(id) % 64);
}
inline void clear_bit(TokenMask& mask, TokenId id) {
  mask[static_cast<size_t>(id) / 64] &= ~(uint64_t{1} << (static_cast<size_t>(id) % 64));
}
inline bool has_bit(std::span<const uint64_t> mask, TokenId id) {
  return (mask[static_cast<size_t>(id) / 64] >> (static_cast<size_t>(id) % 64) & 1) != 0;
}

// The tokens that put bytes into text: neither control tokens, but for those that are named, nor the unknown
// one, nor ends, nor what stands for nothing. Immutable; thread-safe.
class TokenTrie {
 public:
  // Characters that a JSON string holds as they are: all but quotes, backslashes and what is below U+0020.
  static bool is_plain(uint8_t byte) { return byte >= 0x20 && byte != '"' && byte != '\\'; }
  // A token of more characters is not in plain(), whatever they are.
  static constexpr size_t kMaxPlainChars = 32;

  // The tokenizer outlives it. vocab_size: of the model's logits, at least the tokenizer's. spelled: control
  // tokens that count as text, spelled as the vocabulary has them.
  TokenTrie(const Tokenizer& tokenizer, size_t vocab_size, std::span<const TokenId> spelled = {});

  size_t vocab_size() const { return texts_.size(); }
  size_t mask_words() const { return (vocab_size() + 63) / 64; }
  // What a token puts into text, in its middle; empty: it is none of these tokens.
  std::string_view text(TokenId id) const { return texts_[static_cast<size_t>(id)]; }
  // Its first byte is a space that a text's first piece loses.
  bool begins_with_prefix(TokenId id) const { return begins_with_prefix_[static_cast<size_t>(id)]; }

  // Tokens of whole plain characters alone, and those of them that are in the trie.
  const Trie& plain() const { return plain_; }
  const TokenMask& plain_mask() const { return plain_mask_; }
  size_t longest_plain() const { return longest_plain_; }  // in characters
  const Trie& rest() const { return rest_; }
  // All tokens as the first of a text that loses the space.
  const Trie& first() const { return first_; }

 private:
  std::vector<std::string_view> texts_;  // [vocab_size]
  std::vector<bool> begins_with_prefix_;
  Trie plain_, rest_, first_;
  TokenMask plain_mask_;
  size_t longest_plain_ = 0;
};

}  // namespace quern
