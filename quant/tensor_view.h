// A tensor that somebody else owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quant/block_format.h"

namespace quern {

// Outermost dimension first: [rows, columns] for a matrix, [n] for a vector. GGUF's reversed order is turned
// round once, in GgufReader; safetensors' order is already this one.
using Shape = std::vector<uint64_t>;

// "[4096, 14336]"
std::string to_string(const Shape& shape);

// In which order the bytes of a tensor stand. Its size does not depend on that.
enum class TensorLayout : uint8_t {
  kRows,    // row after row, as everybody writes them
  kPanels,  // a matrix of at least 16 rows: whole panels, then the rest as rows (panel_layout.h)
};

// "standard", "p16": as options and reports name them.
std::string_view to_string(TensorLayout layout);

struct TensorView {
  std::string name;
  DType dtype = DType::F32;
  Shape shape;
  const uint8_t* data = nullptr;  // n_bytes, not necessarily aligned; rows are whole blocks
  uint64_t n_bytes = 0;
  TensorLayout layout = TensorLayout::kRows;

  uint64_t columns() const { return shape.empty() ? 1 : shape.back(); }
  uint64_t n_elements() const {
    uint64_t n = 1;
    for (const uint64_t d : shape) n *= d;
    return n;
  }
  uint64_t rows() const { return columns() == 0 ? 0 : n_elements() / columns(); }
};

}  // namespace quern
