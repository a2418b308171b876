// Files of tokenizers (tokenizer.json, tekken.json, lists of ranks, and whatever else is taken for one):
// sound or refused, and what is sound encodes.
#include "convert/tokenizer_file.h"

#include "runtime/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern;
  fuzz::take([&] {
    const bool is_ranks = recognise_tokenizer_file({data, size}) == TokenizerFile::kRanks;
    Vocabulary vocabulary = read_tokenizer_file({data, size}, "fuzz.json", is_ranks ? "qwen2" : "", {});
    const auto tokenizer = make_tokenizer(std::move(vocabulary));
    for (const TextRole role : {TextRole::kRaw, TextRole::kRawSpecial})
      static_cast<void>(tokenizer->decode(tokenizer->encode_document("ab <end> a\u0301\n1234 \xFF", role)));
  });
  return 0;
}
