// Text <-> token ids, whatever the family of the vocabulary (formats.md 3).
//
// A family is a class of its own behind this interface and a row in tokenizer.cc. Tokenizers are immutable
// after construction and thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "quant/vocabulary.h"
#include "runtime/tokenizer/added_tokens.h"

namespace quern {

// What one id contributes to decoded text.
struct DecodedPiece {
  enum class Kind {
    kText,     // whole characters (well-formed UTF-8)
    kBytes,    // any bytes: together with those of its neighbours they make characters
    kControl,  // nothing
  };
  Kind kind = Kind::kText;
  bool begins_with_prefix = false;  // its first byte is a space that a text's first piece loses
  std::string text;
};

// Text between added tokens, for a family to encode.
struct TextStretch {
  std::string_view text;            // not empty
  bool space_prefix = false;        // where the family has one, it stands before this stretch
  std::vector<TextRange> messages;  // parts of the text of role kMessage; ascending, apart from each other
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // The facts that a vocabulary states: special ids, what is added to a prompt, the chat template.
  const Vocabulary& vocabulary() const { return vocabulary_; }
  size_t size() const { return vocabulary_.size(); }

  // Ids of a text, no BOS or EOS; the space prefix as the vocabulary says. Any bytes: malformed UTF-8 is the
  // family's affair, and never an error. Throws kResource for a text too large to be tokenized.
  std::vector<TokenId> encode(std::string_view text, TextRole role) const;
  // One text that several wrote, as a chat template makes it. Ordinary text joins across the borders; an
  // added token is found only in one piece's own text, or in neighbours of like role.
  std::vector<TokenId> encode(std::span<const TextSpan> spans) const;
  // A message's text as mistral_common encodes it: by itself, SentencePiece's space prefix always put in
  // (formats.md 3.4).
  std::vector<TokenId> encode_message(std::string_view text) const;
  // Prompt of a completion: BOS first when the vocabulary adds one and the text does not begin with it. No
  // EOS, since the text goes on.
  std::vector<TokenId> encode_prompt(std::string_view text, TextRole role = TextRole::kRaw) const;
  // A text that is complete: as a prompt, and EOS last when the vocabulary adds one.
  std::vector<TokenId> encode_document(std::string_view text, TextRole role = TextRole::kRaw) const;

  // Always valid UTF-8 (formats.md 3.3). Throws kUsage for an id that is not in the vocabulary.
  std::string decode(std::span<const TokenId> ids) const;

  // The id whose piece is spelled so in the vocabulary, the lowest of several.
  std::optional<TokenId> find(std::string_view piece) const;
  // The rest throws kUsage for an id that is not in the vocabulary.
  const std::string& piece(TokenId id) const;     // as the vocabulary spells it
  const DecodedPiece& decoded(TokenId id) const;  // as it reads in text
  bool is_control(TokenId id) const;              // type 3
  bool ends_text(TokenId id) const;               // an answer ends here
  std::span<const TokenId> end_ids() const { return end_ids_; }
  // Ids that stand for nothing (type 5): padding of the embedding, and what no text becomes. Never generated.
  std::span<const TokenId> unused_ids() const { return unused_ids_; }
  size_t longest_piece_bytes() const { return longest_piece_bytes_; }

 protected:
  // `decoded`: [size], one an id. `added`: the tokens that are cut out of a text before the family sees it.
  Tokenizer(Vocabulary vocabulary, std::vector<DecodedPiece> decoded, AddedTokens added);

 private:
  // Appends the ids of what stands between the tokens that are cut out of the text as it is: what is cut out
  // of normalized text, and stretches.
  void encode_between(std::span<const TextSpan> spans, const TextPiece& piece,
                      std::vector<TokenId>* ids) const;
  // Appends the ids of a stretch.
  virtual void encode_stretch(const TextStretch& stretch, std::vector<TokenId>* ids) const = 0;
  size_t index(TokenId id) const;  // checked

  const Vocabulary vocabulary_;
  const std::vector<DecodedPiece> decoded_;
  const AddedTokens added_, normalized_;
  std::unordered_map<std::string_view, TokenId> ids_;  // of vocabulary_.pieces
  std::vector<TokenId> end_ids_, unused_ids_;
  size_t longest_piece_bytes_ = 0;
};

// Throws kMalformed when no working tokenizer can be built from the vocabulary.
std::unique_ptr<Tokenizer> make_tokenizer(Vocabulary vocabulary);

// Decodes ids as they come: push() returns what became certain, whole UTF-8 characters only. The pieces
// joined with finish() equal decode(context + pushed) less decode(context).
class StreamDecoder {
 public:
  // `context`: ids before the first pushed one (the prompt). Where it is empty, the first emitted piece loses
  // its leading space if the vocabulary puts one before a text, or if the ids are a text of their own (an
  // answer in a conversation).
  StreamDecoder(const Tokenizer& tokenizer, std::span<const TokenId> context, bool own_text = false);
  std::string push(TokenId id);                  // throws kUsage for an id that is not in the vocabulary
  std::string push_text(std::string_view text);  // whole characters that no id stands for
  std::string finish();                          // what was held back; incomplete bytes become U+FFFD
  // The next piece loses the space that it may begin with.
  bool drops_next_space() const { return at_start_ && drops_space_; }

 private:
  const Tokenizer& tokenizer_;
  bool drops_space_;     // of the first piece
  bool at_start_;        // no piece has been emitted yet
  std::string pending_;  // bytes of an incomplete character
};

}  // namespace quern
