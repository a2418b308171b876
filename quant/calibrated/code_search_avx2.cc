// The inner loops compiled for AVX2 (quant/CMakeLists.txt), without fused multiply-add.
#include "quant/calibrated/code_search_impl.h"

namespace quern::calibrated {

#ifdef __AVX2__
constinit const CodeSearch* const kAvx2CodeSearch = &kCodeSearch;
#else
constinit const CodeSearch* const kAvx2CodeSearch = nullptr;
#endif

}  // namespace quern::calibrated
