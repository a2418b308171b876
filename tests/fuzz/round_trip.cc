// Texts through tokenizers and back: a byte-level vocabulary gives every well-formed text back, whatever role
// it has, at once and piece by piece. The first byte of an input chooses the pre-tokenizer and the role.
#include <array>
#include <memory>

#include "quant/byte_level.h"
#include "quant/utf8.h"
#include "quant/vocabulary.h"
#include "runtime/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace quern {
namespace {

constexpr std::array<std::string_view, 6> kPreTokenizers = {"gpt-2",        "llama-bpe", "qwen2",
                                                            "deepseek-llm", "tekken",    "gpt-4o"};

// Every byte by its number, some merges, and tokens that are found by their spelling.
Vocabulary small_vocabulary(std::string_view pre_tokenizer) {
  Vocabulary vocabulary;
  vocabulary.model = "gpt2";
  for (int byte = 0; byte < 256; ++byte)
    vocabulary.pieces.push_back(byte_level_spelling(std::string(1, static_cast<char>(byte))));
  for (const char* const piece : {"ab", "abc", "\u0120a", "bc", "\u00c3\u00a9"})
    vocabulary.pieces.emplace_back(piece);
  vocabulary.types.assign(vocabulary.pieces.size(), TokenType::kNormal);
  for (const char* const piece : {"<|end|>", "<think>"}) vocabulary.pieces.emplace_back(piece);
  vocabulary.types.push_back(TokenType::kControl);
  vocabulary.types.push_back(TokenType::kUserDefined);
  vocabulary.eos = static_cast<TokenId>(vocabulary.pieces.size() - 2);
  vocabulary.add_bos = vocabulary.add_space_prefix = false;
  vocabulary.parts = BytePairParts{std::string(pre_tokenizer), {"b c", "a b", "\u0120 a", "a bc"}};
  check_vocabulary(vocabulary, "fuzz", {});
  return vocabulary;
}

const Tokenizer& tokenizer(size_t i) {
  static std::array<std::unique_ptr<Tokenizer>, kPreTokenizers.size()> made;
  if (made[i] == nullptr) made[i] = make_tokenizer(small_vocabulary(kPreTokenizers[i]));
  return *made[i];
}

void check(std::string_view text, const Tokenizer& tokenizer, TextRole role) {
  const std::vector<TokenId> ids = tokenizer.encode(text, role);
  const std::string decoded = tokenizer.decode(ids);
  if (!is_valid_utf8(decoded)) fuzz::found("decoded text that is not well formed");
  // Where control tokens are found by their spelling they are gone from the text.
  if (role != TextRole::kRawSpecial && is_valid_utf8(text) && decoded != text)
    fuzz::found("another text than was encoded");
  StreamDecoder stream(tokenizer, {});
  std::string streamed;
  for (const TokenId id : ids) streamed += stream.push(id);
  if (streamed + stream.finish() != decoded) fuzz::found("streamed text that is not the decoded one");
}

}  // namespace
}  // namespace quern

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern;
  if (size == 0) return 0;
  constexpr TextRole kRoles[] = {TextRole::kRaw, TextRole::kRawSpecial, TextRole::kMessage};
  const size_t choice = data[0];
  fuzz::take([&] {
    check(fuzz::as_text({data + 1, size - 1}), tokenizer(choice % kPreTokenizers.size()),
          kRoles[choice / kPreTokenizers.size() % 3]);
  });
  return 0;
}
