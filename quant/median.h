// The median of measured values. Pure, any thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace quern {

// The mean of the two in the middle where the number of values is even; 0 for none.
inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace quern
