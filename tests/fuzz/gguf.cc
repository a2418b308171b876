// GGUF files: whatever is read lies within the file, and a vocabulary in it is sound or refused.
#include "quant/gguf_reader.h"

#include "quant/vocabulary.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern;
  fuzz::take([&] {
    const GgufReader gguf({data, size}, "fuzz.gguf");
    for (const TensorView& tensor : gguf.tensors())
      if (tensor.data < data || tensor.n_bytes > size ||
          static_cast<size_t>(tensor.data - data) > size - tensor.n_bytes)
        fuzz::found("a tensor outside the file");
    const GgufValue* pieces = gguf.find("tokenizer.ggml.tokens");
    if (pieces == nullptr) return;
    const Vocabulary vocabulary = read_vocabulary(gguf, pieces->count, {});
    if (vocabulary.types.size() != vocabulary.size()) fuzz::found("a vocabulary that is not sound");
  });
  return 0;
}
