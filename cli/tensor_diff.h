// What differs between the tensors of two models: `inspect A --diff B`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "quant/tensor_source.h"

namespace quern {

struct TensorDiff {
  enum class State : uint8_t {
    kCompared,
    kOtherShape,
    kOnlyInFirst,
    kOnlyInSecond,
    kUnreadable,  // a format of either that cannot be decoded
  };
  std::string name;
  State state = State::kCompared;
  Shape shape, base_shape;                    // empty where it is missing
  std::string_view format, base_format;       // likewise
  uint64_t n_elements = 0, n_not_finite = 0;  // the latter count nothing else
  // Of kCompared: the root of the mean squared difference, over that of the base's values (0 where both are
  // 0, infinite where the base alone is); the largest difference, and the first element that has it.
  double relative_rms_error = 0, largest_difference = 0;
  uint64_t largest_at = 0;
};

// Tensor by tensor in A's order, then what only the base has. Decoded piece by piece: memory is some MiB a
// thread beside what load() of the sources takes. stop: polled; true ends with what is done.
std::vector<TensorDiff> diff_tensors(TensorSource& a, TensorSource& base, int n_threads,
                                     const std::function<bool()>& stop);

// A table and a line of sums. names: of the two models.
std::string render_diff_text(const std::vector<TensorDiff>& diffs, const std::string& a,
                             const std::string& base);
std::string render_diff_json(const std::vector<TensorDiff>& diffs, const std::string& a,
                             const std::string& base);

}  // namespace quern
