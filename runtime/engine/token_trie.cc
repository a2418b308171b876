#include "runtime/engine/token_trie.h"

#include <algorithm>
#include <utility>

#include "quant/error.h"
#include "quant/utf8.h"

namespace quern {
namespace {

constexpr size_t kMaxTokenBytes = 1024;  // a longer one is never picked under a constraint

using Entry = std::pair<std::string_view, TokenId>;

Trie make_trie(std::vector<Entry> entries) {
  std::sort(entries.begin(), entries.end());
  Trie trie;
  std::vector<uint32_t> open;  // the nodes that lead to the last one
  std::string_view last;
  const auto close_to = [&](size_t depth) {
    for (; open.size() > depth; open.pop_back()) trie.ends[open.back()] = static_cast<uint32_t>(trie.size());
  };
  for (const auto& [text, id] : entries) {
    size_t common = 0;
    while (common < std::min(text.size(), last.size()) && text[common] == last[common]) ++common;
    close_to(common);
    for (size_t i = common; i < text.size(); ++i) {
      open.push_back(static_cast<uint32_t>(trie.size()));
      trie.bytes.push_back(static_cast<uint8_t>(text[i]));
      trie.depths.push_back(static_cast<uint16_t>(i + 1));
      trie.ends.push_back(0);
      trie.first_ids.push_back(static_cast<uint32_t>(trie.ids.size()));
    }
    trie.ids.push_back(id);  // in the order of the nodes: the next one's begin behind it
    trie.depth = std::max(trie.depth, text.size());
    last = text;
  }
  close_to(0);
  trie.first_ids.push_back(static_cast<uint32_t>(trie.ids.size()));
  return trie;
}

// Characters of a text of whole plain ones; 0: it is none.
size_t count_plain(std::string_view text) {
  size_t n = 0;
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0 || !TokenTrie::is_plain(static_cast<uint8_t>(text[0]))) return 0;
    text.remove_prefix(length);
    ++n;
  }
  return n;
}

}  // namespace

TokenTrie::TokenTrie(const Tokenizer& tokenizer, size_t vocab_size, std::span<const TokenId> spelled)
    : texts_(vocab_size), begins_with_prefix_(vocab_size), plain_mask_((vocab_size + 63) / 64) {
  QUERN_CHECK(vocab_size >= tokenizer.size());
  const std::vector<TokenType>& types = tokenizer.vocabulary().types;
  std::vector<Entry> plain, rest, first;
  for (size_t i = 0; i < tokenizer.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (std::find(spelled.begin(), spelled.end(), id) != spelled.end()) {
      texts_[i] = tokenizer.piece(id);
    } else {
      const bool is_text = types[i] == TokenType::kNormal || types[i] == TokenType::kUserDefined ||
                           types[i] == TokenType::kByte;
      if (!is_text || tokenizer.ends_text(id)) continue;
      const DecodedPiece& piece = tokenizer.decoded(id);
      if (piece.kind == DecodedPiece::Kind::kControl) continue;
      texts_[i] = piece.text;
      begins_with_prefix_[i] = piece.begins_with_prefix;
    }
    if (texts_[i].size() > kMaxTokenBytes) texts_[i] = {};
    const std::string_view text = texts_[i];
    if (text.empty()) continue;
    const size_t n_plain = count_plain(text);
    if (n_plain > 0 && n_plain <= kMaxPlainChars) {
      plain.emplace_back(text, id);
      set_bit(plain_mask_, id);
      longest_plain_ = std::max(longest_plain_, n_plain);
    } else {
      rest.emplace_back(text, id);
    }
    const std::string_view begin = text.substr(begins_with_prefix_[i] ? 1 : 0);
    if (!begin.empty()) first.emplace_back(begin, id);
  }
  plain_ = make_trie(std::move(plain));
  rest_ = make_trie(std::move(rest));
  first_ = make_trie(std::move(first));
}

}  // namespace quern
