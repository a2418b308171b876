// In which order the bytes of a matrix stand, in a file and in memory. Plain data: kernels compiled for one
// instruction set include it.
#pragma once

#include <cstdint>

namespace quern {

enum class TensorLayout : uint8_t {
  kRows,    // row after row, as everybody writes them
  kPanels,  // 16 rows interleaved, for SIMD kernels; what becomes of the last rows: panel_layout.h
};

}  // namespace quern
