// The searches compiled for AVX2 (quant/CMakeLists.txt), without fused multiply-add.
#include "quant/formats/searches_impl.h"

namespace quern::formats {

#ifdef __AVX2__
constinit const Searches* const kAvx2Searches = &kTable;
#else
constinit const Searches* const kAvx2Searches = nullptr;
#endif

}  // namespace quern::formats
