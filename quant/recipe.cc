#include "quant/recipe.h"

#include <algorithm>

#include "quant/panel_layout.h"

namespace quern {
namespace {

// Formats.md 2.4; the numbers of general.file_type: 2.1.
constexpr Recipe kRecipes[] = {
    // name, base, output, file_type
    {"q4_0", DType::Q4_0, DType::Q6_K, 2}, {"q4_1", DType::Q4_1, DType::Q6_K, 3},
    {"q5_0", DType::Q5_0, DType::Q6_K, 8}, {"q5_1", DType::Q5_1, DType::Q6_K, 9},
    {"q8_0", DType::Q8_0, DType::Q8_0, 7}, {"q6_k", DType::Q6_K, DType::Q6_K, 18},
    {"f16", DType::F16, DType::F16, 1},    {"bf16", DType::BF16, DType::BF16, 32},
    {"f32", DType::F32, DType::F32, 0},
};

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool is_weight_matrix(std::string_view name, const Shape& shape) {
  return shape.size() >= 2 && name.ends_with("weight") && !name.ends_with("_norm.weight");
}

// What takes the place of a format whose blocks do not divide a row. F16 takes any width.
DType narrower(DType dtype) { return dtype == DType::Q6_K ? DType::Q8_0 : DType::F16; }

}  // namespace

std::span<const Recipe> recipes() noexcept { return kRecipes; }

const Recipe* find_recipe(std::string_view name) noexcept {
  const auto* found = std::ranges::find_if(kRecipes, [name](const Recipe& recipe) {
    return std::ranges::equal(recipe.name, name, {}, {}, lower);
  });
  return found == std::end(kRecipes) ? nullptr : found;
}

FormatChoice choose_format(const Recipe& recipe, std::string_view tensor_name, const Shape& shape,
                           bool tied) {
  if (!is_weight_matrix(tensor_name, shape)) return {DType::F32, DType::F32};
  const bool is_output = tensor_name == (tied ? "token_embd.weight" : "output.weight");
  const DType wanted = is_output ? recipe.output : recipe.base;
  // The reference has one more rule, an output that the base's block does not divide becomes Q8_0; with these
  // recipes it gives what the chain below gives.
  DType dtype = wanted;
  while (shape.back() % block_format(dtype).block_weights != 0) dtype = narrower(dtype);
  return {dtype, wanted};
}

TensorLayout choose_layout(TensorLayout wanted, std::string_view tensor_name, DType dtype, const Shape& shape,
                           bool tied) {
  const bool multiplied =
      is_weight_matrix(tensor_name, shape) && (tied || tensor_name != "token_embd.weight");
  const bool panels = wanted == TensorLayout::kPanels && multiplied && can_be_panels(dtype, shape);
  return panels ? TensorLayout::kPanels : TensorLayout::kRows;
}

}  // namespace quern
