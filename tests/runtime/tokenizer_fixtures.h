// Tokenizers of the bundled vocabularies, and the golden lines about them.
#pragma once

#include <string>
#include <vector>

#include "runtime/tokenizer/tokenizer.h"
#include "tests/support/json.h"

namespace quern::test {

// "mistral-v1", "tiny-mistral", "stories260k", and the small ones of tests/data/tokenizers.
std::string tokenizer_model_path(const std::string& name);

enum class Route { kModelFile, kGguf };
inline constexpr Route kRoutes[] = {Route::kModelFile, Route::kGguf};
// For test names.
std::string route_name(Route route);

// From tokenizer.model, or from a GGUF file that its vocabulary was written to.
Vocabulary load_vocabulary(const std::string& name, Route route = Route::kModelFile);

// A tokenizer as a value, its texts raw ones unless a test says otherwise.
class OwnedTokenizer {
 public:
  explicit OwnedTokenizer(Vocabulary vocabulary) : tokenizer_(make_tokenizer(std::move(vocabulary))) {}
  operator const Tokenizer&() const { return *tokenizer_; }
  const Tokenizer* operator->() const { return tokenizer_.get(); }

  const Vocabulary& vocabulary() const { return tokenizer_->vocabulary(); }
  size_t size() const { return tokenizer_->size(); }
  std::vector<TokenId> encode(std::string_view text, TextRole role = TextRole::kRaw) const {
    return tokenizer_->encode(text, role);
  }
  std::vector<TokenId> encode_message(std::string_view text) const {
    return tokenizer_->encode_message(text);
  }
  std::vector<TokenId> encode_prompt(std::string_view text) const { return tokenizer_->encode_prompt(text); }
  std::string decode(std::span<const TokenId> ids) const { return tokenizer_->decode(ids); }

 private:
  std::unique_ptr<Tokenizer> tokenizer_;
};

// The text of `ids` behind `context`, as a StreamDecoder gives it; expects each piece to be whole characters.
std::string stream(const Tokenizer& tokenizer, const std::vector<TokenId>& context,
                   const std::vector<TokenId>& ids);

// Lines of mistral_v1_tokens.jsonl of one kind.
std::vector<Json> golden_lines(const std::string& kind);

}  // namespace quern::test
