#include "quant/machine/cpu_features.h"

#include <gtest/gtest.h>

namespace quern {
namespace {

TEST(CpuFeatures, AreReadOnceAndAgreeWithTheCompiler) {
  EXPECT_EQ(&cpu_features(), &cpu_features());
#if defined(__x86_64__)
  EXPECT_EQ(cpu_features().avx2, __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(cpu_features().fma, __builtin_cpu_supports("fma") != 0);
  EXPECT_EQ(cpu_features().avx512_vnni, __builtin_cpu_supports("avx512vnni") != 0);
#endif
}

}  // namespace
}  // namespace quern
