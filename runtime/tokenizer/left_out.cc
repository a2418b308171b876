// In place of what needs sentencepiece and PCRE2, in a build without them (QUERN_TOKENIZERS): every
// vocabulary is refused, by a line that says why. Models without one run.
#include "quant/error.h"
#include "runtime/tokenizer/pattern.h"
#include "runtime/tokenizer/sentencepiece_tokenizer.h"

namespace quern {
namespace {

[[noreturn]] void refuse() {
  fail(ErrorCode::kMalformed,
       "this quern was built without sentencepiece and PCRE2 (QUERN_TOKENIZERS), and tokenizes no text");
}

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(Vocabulary) { refuse(); }

struct Pattern::Code {};
Pattern::Pattern(std::string_view, Sees) { refuse(); }
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;
bool Pattern::matches(std::string_view) const { refuse(); }

struct PatternSearch::Room {};
PatternSearch::PatternSearch() { refuse(); }
PatternSearch::~PatternSearch() = default;
bool PatternSearch::find(const Pattern&, std::string_view, size_t, size_t*, size_t*) { refuse(); }

}  // namespace quern
