// Text <-> token ids with a SentencePiece vocabulary (formats.md 3).
//
// Encoding is sentencepiece's own, on a model rebuilt from the vocabulary; decoding is ours, so that it can
// stream. Immutable after construction, thread-safe.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/vocabulary.h"

namespace quern {

class Tokenizer {
 public:
  // Throws kMalformed when no working model can be built from the vocabulary.
  explicit Tokenizer(Vocabulary vocabulary);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  size_t size() const { return vocabulary_.size(); }

  // Ids of raw text, no BOS or EOS; the space prefix as the vocabulary says. Any bytes: each malformed UTF-8
  // byte counts as U+FFFD. Control pieces never match text.
  std::vector<TokenId> encode(std::string_view text) const;
  // The same with the space prefix always put in: what chat messages use (formats.md 3.4).
  std::vector<TokenId> encode_message(std::string_view text) const;
  // Prompt of a completion: BOS first when the vocabulary adds one.
  std::vector<TokenId> encode_prompt(std::string_view text) const;

  // formats.md 3.3. Always valid UTF-8. Throws kUsage for an id that is not in the vocabulary.
  std::string decode(std::span<const TokenId> ids) const;

 private:
  friend class StreamDecoder;
  struct Encoder;
  Vocabulary vocabulary_;
  std::unique_ptr<Encoder> encoder_;
};

// Decodes ids as they come: push() returns what became certain, whole UTF-8 characters only. The pieces
// joined with finish() equal decode(context + pushed) less decode(context).
class StreamDecoder {
 public:
  // `context`: ids before the first pushed one (the prompt; empty: the first emitted piece loses its leading
  // space).
  StreamDecoder(const Tokenizer& tokenizer, std::span<const TokenId> context);
  std::string push(TokenId id);  // throws kUsage for an id that is not in the vocabulary
  std::string finish();          // what was held back; incomplete bytes become U+FFFD

 private:
  const Tokenizer& tokenizer_;
  bool at_start_;        // no piece has been emitted yet
  std::string pending_;  // bytes of an incomplete character
};

}  // namespace quern
