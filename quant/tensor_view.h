// A tensor that somebody else owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quant/block_format.h"
#include "quant/tensor_layout.h"

namespace quern {

// Outermost dimension first: [rows, columns] for a matrix, [n] for a vector. GGUF's reversed order is turned
// round once, in GgufReader; safetensors' order is already this one.
using Shape = std::vector<uint64_t>;

// "[4096, 14336]"
std::string to_string(const Shape& shape);

// Without dimensions of 1 at its outer end, which say nothing, as long as more than n_dims are left: writers
// of GGUF pad to four.
Shape without_outer_ones(Shape shape, size_t n_dims);

// "standard", "p16": as options and reports name them.
std::string_view to_string(TensorLayout layout);

struct TensorView {
  std::string name;
  DType dtype = DType::F32;
  Shape shape;
  const uint8_t* data = nullptr;  // n_bytes, not necessarily aligned; rows are whole blocks
  uint64_t n_bytes = 0;           // the same in either layout
  TensorLayout layout = TensorLayout::kRows;
  float factor =
      1;  // of products with a matrix: its `.scale` in the file (formats.md 2.6); decoding ignores it

  uint64_t columns() const { return shape.empty() ? 1 : shape.back(); }
  uint64_t n_elements() const {
    uint64_t n = 1;
    for (const uint64_t d : shape) n *= d;
    return n;
  }
  uint64_t rows() const { return columns() == 0 ? 0 : n_elements() / columns(); }
};

}  // namespace quern
