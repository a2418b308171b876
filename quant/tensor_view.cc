#include "quant/tensor_view.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace quern {

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

Shape without_outer_ones(Shape shape, size_t n_dims) {
  while (shape.size() > n_dims && shape.front() == 1) shape.erase(shape.begin());
  return shape;
}

std::string_view to_string(TensorLayout layout) {
  return layout == TensorLayout::kPanels ? "p16" : "standard";
}

}  // namespace quern
