// A text as a vector: the states of its tokens, pooled into one and brought to length 1. Which pooling a
// model was trained for is in its file, where somebody has said so (Reimers and Gurevych, "Sentence-BERT:
// Sentence Embeddings using Siamese BERT-Networks", 2019, section 3, compares poolings; models with causal
// attention take the last token: Wang et al., "Improving Text Embeddings with Large Language Models", 2024,
// section 3.1).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "quant/gguf_reader.h"

namespace quern {

enum class Pooling : uint8_t {
  kMean,  // of the states of all tokens
  kLast,  // the last token's
};

// "mean" or "last"; nothing for other words.
std::optional<Pooling> parse_pooling(std::string_view word);
std::string_view pooling_name(Pooling pooling);
// What "<architecture>.pooling_type" of the file says; nothing: it says none, or one that is not here.
std::optional<Pooling> pooling_of(const GgufReader& gguf);

struct EmbeddingOptions {
  Pooling pooling = Pooling::kMean;
  // The first so many elements are kept, and brought to length 1 by themselves (Kusupati et al., "Matryoshka
  // Representation Learning", 2022); 0: all.
  size_t dimensions = 0;
};

// Pools the states of one text, which come in order. Not thread-safe.
class Pooler {
 public:
  explicit Pooler(const EmbeddingOptions& options) : options_(options) {}

  // state: [dim].
  void add(std::span<const float> state);
  // [dimensions or dim], of length 1; zeros where all of it is zero. Throws kIntegrity for what is not
  // finite. At least one state was added.
  std::vector<float> finish() const;

 private:
  EmbeddingOptions options_;
  std::vector<double> sum_;
  uint64_t n_ = 0;
};

}  // namespace quern
