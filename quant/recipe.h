// Which tensor gets which format under a type name: llama-quantize's mixes (formats.md 2.4).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/gguf_writer.h"

namespace quern {

struct Recipe {
  std::string_view name;  // "q4_0"
  DType base;
  DType output;        // output.weight, or token_embd.weight where it serves as the output
  uint32_t file_type;  // general.file_type
};

std::span<const Recipe> recipes() noexcept;
const Recipe* find_recipe(std::string_view name) noexcept;  // case-insensitive; null when unknown

struct FormatChoice {
  DType dtype;
  DType wanted;  // differs from dtype when the width forced a fallback
};

// `tied`: the model has no output.weight. Tensors that are not quantized (vectors, *_norm.weight) get F32.
FormatChoice choose_format(const Recipe& recipe, std::string_view tensor_name, const Shape& shape, bool tied);

// The layout of a tensor in a file whose layout is `wanted`. Panels are the matrices that are multiplied:
// token_embd is one only when it serves as the output too (rows are gathered from panels then).
TensorLayout choose_layout(TensorLayout wanted, std::string_view tensor_name, DType dtype, const Shape& shape,
                           bool tied);

}  // namespace quern
