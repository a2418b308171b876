// Tokens that are found in a text by their spelling before anything is merged: control tokens (type 3) and
// the added tokens of Hugging Face's tokenizers (type 4). One rule for every family.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/vocabulary.h"

namespace quern {

// Who wrote a text decides which tokens its bytes may spell (formats.md 3.6).
enum class TextRole {
  kRaw,         // a prompt, a corpus: added tokens, not control tokens
  kRawSpecial,  // the same with --parse-special: control tokens too
  kMessage,     // what somebody says in a conversation: none
  kTemplate,    // a chat template's own text: both
};

// A part of a text, and who wrote it.
struct TextSpan {
  std::string_view text;
  TextRole role = TextRole::kRaw;
};

struct AddedToken {
  std::string text;  // not empty
  TokenId id = kNoToken;
  bool special = false;                            // a control token: found where the role allows these
  bool strips_left = false, strips_right = false;  // white space of the text beside it is dropped
  bool single_word = false;                        // found only where no word character is beside it
};

// The control, unknown and added tokens of a vocabulary, spelled as its pieces; without the user-defined ones
// (ascending) that its family finds by a rule of its own, and without Vocabulary::normalized.
std::vector<AddedToken> added_tokens_of(const Vocabulary& vocabulary, std::span<const TokenId> user_defined);
// Those that are looked for in normalized text, in form C; none where text is not normalized.
std::vector<AddedToken> normalized_tokens_of(const Vocabulary& vocabulary);

struct TextRange {
  size_t begin = 0, end = 0;
};

// A stretch of a text: an added token, or what stands between two of them.
struct TextPiece {
  size_t begin = 0, end = 0;
  TokenId id = kNoToken;  // kNoToken: plain text, not empty
};

// Immutable, thread-safe.
class AddedTokens {
 public:
  AddedTokens() = default;
  // Of tokens spelled alike the first counts; ones without text never match.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }

  // The pieces of the text that the spans make together, in order, from end to end but for stripped white
  // space. The longest token is cut out first wherever it stands, then the next shorter one in what is left;
  // of like length the one further left (llama.cpp's rule). A token is found only inside neighbouring spans
  // whose roles allow it.
  std::vector<TextPiece> cut(std::string_view text, std::span<const TextSpan> spans) const;

 private:
  // Calls visit(index of token) for each token that `text` begins with, the shortest first.
  template <class Visit>
  void for_each_match(std::string_view text, Visit visit) const;
  const AddedToken* find(std::string_view text, bool special) const;
  void cut_region(std::string_view text, TextRange region, bool special, std::vector<TextPiece>* found) const;
  void cut_cluster(std::string_view text, TextRange cluster, std::span<const size_t> lengths, bool special,
                   std::vector<TextPiece>* found) const;
  void strip(std::string_view text, std::vector<TextPiece>* pieces) const;

  std::vector<AddedToken> tokens_;  // by text, each once
  std::array<bool, 256> begins_{};  // bytes that a token begins with
  bool strips_ = false;             // some token strips
};

}  // namespace quern
