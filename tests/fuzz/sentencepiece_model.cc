// tokenizer.model files of SentencePiece: sound or refused.
#include "convert/sentencepiece_model.h"

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern;
  fuzz::take([&] {
    const Vocabulary vocabulary = read_sentencepiece_model({data, size}, "fuzz.model", {});
    if (vocabulary.types.size() != vocabulary.size()) fuzz::found("a vocabulary that is not sound");
  });
  return 0;
}
