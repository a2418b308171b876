#include "quant/formats/searches.h"

#include "quant/machine/cpu_features.h"

namespace quern::formats {

const Searches& searches() noexcept {
  static const Searches& chosen =
      kAvx2Searches != nullptr && cpu_features().avx2 ? *kAvx2Searches : kBaselineSearches;
  return chosen;
}

}  // namespace quern::formats
