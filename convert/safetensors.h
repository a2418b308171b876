// Reads the header of a safetensors file from bytes: which tensors lie where.
//
// Source: Hugging Face, safetensors format (README "Format" and tests of safetensors 0.5). Every rule of
// robustness.md 1.3 is checked here; a file that breaks one throws kMalformed "<path>: ...". The weights
// themselves are not looked at. Takes bytes, so that tests and fuzzers feed it directly. Thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quant/tensor_view.h"

namespace quern {

struct SafetensorsDType {
  std::string_view name;       // "BF16"
  uint32_t bits;               // of one element
  std::optional<DType> dtype;  // empty: a type that no tensor of ours has
};

// The types that the format knows. Static.
std::span<const SafetensorsDType> safetensors_dtypes() noexcept;

struct SafetensorsTensor {
  std::string name;
  const SafetensorsDType* type = nullptr;
  Shape shape;                  // outermost first; empty for a scalar
  uint64_t begin = 0, end = 0;  // bytes, from the start of the file
};

struct SafetensorsHeader {
  std::vector<SafetensorsTensor> tensors;                     // in order of their data
  std::vector<std::pair<std::string, std::string>> metadata;  // "__metadata__"
  uint64_t data_offset = 0;                                   // bytes, from the start of the file
};

// bytes: the whole file. `path` only names it in messages.
SafetensorsHeader read_safetensors_header(std::span<const uint8_t> bytes, const std::string& path);

}  // namespace quern
