// GGUF files of random weights in any format, written directly: without a checkpoint, an encoder or a
// tokenizer.
#pragma once

#include <string>

#include "quant/tensor_view.h"

namespace quern::test {

// A model of the llama architecture without a vocabulary.
struct RandomModel {
  uint32_t n_layers = 2, dim = 256, hidden_dim = 512;
  uint32_t n_heads = 4, n_kv_heads = 2;  // heads of dim / n_heads
  uint32_t vocab_size = 300;
  uint32_t context_length = 1024;
  uint32_t window = 0;
  DType embedding = DType::Q8_0, matrices = DType::Q8_0, output = DType::Q8_0;
  std::string recipe{};  // "q4_k_m" (quant/recipe.h): its formats in place of these; empty: none
  bool tied = false;     // without an output matrix
  TensorLayout layout = TensorLayout::kRows;  // of the matrices that can be panels
};

// Writes the same bytes every time. Gigabytes take seconds: weights are drawn from a pool of some thousand
// blocks.
void write_random_model(const RandomModel& model, const std::string& path);

}  // namespace quern::test
