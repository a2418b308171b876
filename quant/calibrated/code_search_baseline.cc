// The inner loops that any CPU can run.
#include "quant/calibrated/code_search_impl.h"

namespace quern::calibrated {

constinit const CodeSearch kBaselineCodeSearch = kCodeSearch;

}  // namespace quern::calibrated
