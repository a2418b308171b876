// Checkpoints made for tests: small safetensors files, and twins of tiny-mistral.
#pragma once

#include <string>
#include <vector>

#include "quant/tensor_view.h"

namespace quern::test {

struct TestTensor {
  std::string name;
  std::string dtype;  // as in the file: "BF16"
  Shape shape;
  std::string bytes;
};

// The bytes of a safetensors file with these tensors in this order.
std::string safetensors_file(const std::vector<TestTensor>& tensors);
std::vector<TestTensor> read_safetensors_file(const std::string& path);

// A Mistral model of one layer without a tokenizer, small enough to be evaluated at tens of thousands of
// positions. Its random BF16 weights are the same every time; folder is made.
struct SmallCheckpoint {
  size_t dim = 32, hidden_dim = 32, n_heads = 2, n_kv_heads = 1, head_dim = 32, vocab_size = 64;
  size_t window = 0;  // 0: none
};
void write_small_checkpoint(const SmallCheckpoint& shape, const std::string& folder);

// Write a copy of the checkpoint `source` (tiny-mistral) into `folder`, which is made:
// the tied twin has no lm_head, and says so;
void write_tied_twin(const std::string& source, const std::string& folder);
// the other has Mistral's own layout: consolidated.safetensors with its names and with the rows of wq and wk
// interleaved, and params.json.
void write_mistral_layout_twin(const std::string& source, const std::string& folder);

}  // namespace quern::test
