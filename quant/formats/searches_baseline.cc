// The searches that any CPU can run.
#include "quant/formats/searches_impl.h"

namespace quern::formats {

constinit const Searches kBaselineSearches = kTable;

}  // namespace quern::formats
