#include "quant/tensor_view.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace quern {

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

}  // namespace quern
