#include "quant/calibrated/code_search.h"

#include "quant/machine/cpu_features.h"

namespace quern::calibrated {

const CodeSearch& code_search() noexcept {
  static const CodeSearch& chosen =
      kAvx2CodeSearch != nullptr && cpu_features().avx2 ? *kAvx2CodeSearch : kBaselineCodeSearch;
  return chosen;
}

}  // namespace quern::calibrated
