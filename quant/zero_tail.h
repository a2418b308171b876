// Zeros where a tensor should go on: what a download that stopped half-way leaves in a file of the right
// length. Such a model loads, and answers nonsense.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/gguf.h"
#include "quant/tensor_view.h"

namespace quern {

struct ZeroTail {
  std::string tensor;
  uint64_t first_row = 0, n_rows = 0;  // the zero rows; of a vector: its elements
  uint64_t rows = 0;                   // that were looked at

  bool is_whole() const { return first_row == 0; }
};

// The zero rows at the end of a tensor's first `rows` rows (elements of a vector), when they are more than
// happens by itself: all, or from 16 on, or from 5 % on. Reads backwards and stops at the first weight that
// is not 0, so that a sound tensor costs a page. Biases and empty tensors never count. Thread-safe.
std::optional<ZeroTail> find_zero_tail(const TensorView& tensor, uint64_t rows);
// All of them.
std::optional<ZeroTail> find_zero_tail(const TensorView& tensor);

// How many rows of an embedding, or of an output matrix, stand for tokens that text is made of: up to the
// last one whose type (tokenizer.ggml.token_type) is neither control nor unused nor unknown. Rows behind it,
// of reserved tokens and padding, are often left at zero. `types`: null, or another value than an array of
// integers: all `rows`.
uint64_t rows_of_text(const GgufValue* types, uint64_t rows);

// The same for every tensor of a model by GGUF's names.
std::vector<ZeroTail> find_zero_tails(const std::vector<TensorView>& tensors, const GgufValue* token_types);

// "blk.1.ffn_up.weight (all), output.weight (rows 512 to 1023)": at most `max_named`, then how many more.
std::string describe(const std::vector<ZeroTail>& tails, size_t max_named = SIZE_MAX);
// The notice: "warning: <path>: zeros where weights should be: ...; ...". Empty when there are none.
std::string zero_tail_warning(std::string_view path, const std::vector<ZeroTail>& tails);

}  // namespace quern
