// Grammars, expressions and JSON schemas from anywhere: refused with a reason, or a language in which every
// token that may come next may come, and whose texts are well formed.
#include <memory>
#include <string>

#include "quant/utf8.h"
#include "runtime/engine/constraint.h"
#include "runtime/engine/grammar_gbnf.h"
#include "runtime/engine/grammar_regex.h"
#include "runtime/engine/grammar_schema.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/byte_vocabulary.h"

namespace quern {
namespace {

// The bytes, and a few tokens of several.
std::unique_ptr<Tokenizer> make_fuzz_tokenizer() {
  Vocabulary v = test::byte_vocabulary({"ab", "\":", "{\"", "}]", "12", "\u00E9t", "\\u", "tru"});
  v.add_bos = false;
  return make_tokenizer(std::move(v));
}

Grammar compile(char kind, std::string_view text) {
  switch (kind) {
    case 'g':
      return parse_gbnf(text, "fuzz");
    case 'r':
      return compile_regex(text, "fuzz");
    default:
      return compile_json_schema(parse_json(text, "fuzz", kSchemaLimits), "fuzz");
  }
}

// The first byte says which: g, r, or a schema.
void check(std::string_view source) {
  static const std::unique_ptr<Tokenizer> tokenizer = make_fuzz_tokenizer();
  static const auto trie = std::make_shared<const TokenTrie>(*tokenizer, tokenizer->size());
  if (source.empty()) return;
  ConstraintState state(std::make_shared<const Constraint>(compile(source[0], source.substr(1)), trie),
                        false);
  std::string text;
  TokenMask mask;
  for (uint32_t step = 1; step < 40 && !state.must_end(); ++step) {
    state.next_tokens(&mask);
    TokenId picked = kNoToken;
    uint32_t n = 0;
    for (size_t i = 0; i < trie->vocab_size(); ++i) {
      const auto id = static_cast<TokenId>(i);
      ConstraintState copy = state;
      const bool may_come = copy.push(id);
      if (may_come != has_bit(mask, id)) fuzz::found("a mask that differs from what may come");
      if (may_come && (step * 2654435761u >> 16) % ++n == 0) picked = id;
    }
    if (picked == kNoToken) fuzz::found("a beginning that nothing goes on with");
    text += trie->text(picked);
    state.push(picked);
  }
  if (state.must_end() && !is_valid_utf8(text)) fuzz::found("a text that is not well formed");
}

}  // namespace
}  // namespace quern

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  quern::fuzz::take([&] { quern::check(quern::fuzz::as_text({data, size})); });
  return 0;
}
