#include "kernels/dispatch.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "quant/error.h"

namespace quern {
namespace {

// QUERN_ISA as a test wants it, put back at the end.
class Environment {
 public:
  explicit Environment(const char* value) {
    if (const char* before = std::getenv("QUERN_ISA")) before_ = before, had_ = true;
    value != nullptr ? setenv("QUERN_ISA", value, 1) : unsetenv("QUERN_ISA");
  }
  ~Environment() { had_ ? setenv("QUERN_ISA", before_.c_str(), 1) : unsetenv("QUERN_ISA"); }

 private:
  std::string before_;
  bool had_ = false;
};

TEST(Dispatch, TableBeginsWithTheReferenceAndNamesAreDistinct) {
  ASSERT_FALSE(kernel_sets().empty());
  EXPECT_STREQ(kernel_sets().front().set->name, "scalar");
  EXPECT_TRUE(kernel_sets().front().supported(CpuFeatures{}));
  std::set<std::string> names;
  for (const KernelSetRow& row : kernel_sets()) EXPECT_TRUE(names.insert(row.set->name).second);
}

TEST(Dispatch, SetsAreComplete) {
  for (const KernelSetRow& row : kernel_sets()) {
    const KernelSet& set = *row.set;
    EXPECT_TRUE(set.quantize_activations && set.rms_norm && set.rope && set.swiglu && set.store_kv &&
                set.attend_segment && set.merge_segment && set.sum_exp)
        << set.name;
    EXPECT_GT(set.n_matmuls, 0u) << set.name;
    std::set<DType> formats;
    for (size_t i = 0; i < set.n_matmuls; ++i) {
      EXPECT_TRUE(formats.insert(set.matmuls[i].dtype).second) << set.name;
      EXPECT_EQ(set.find_matmul(set.matmuls[i].dtype), &set.matmuls[i]);
      EXPECT_NE(kernel_sets().front().set->find_matmul(set.matmuls[i].dtype), nullptr)
          << set.name << ": a format that the reference lacks";
    }
    EXPECT_EQ(set.find_matmul(DType::I64), nullptr);
  }
}

TEST(Dispatch, PicksTheLastSupportedSetByItself) {
  const Environment environment(nullptr);
  const KernelSet* best = nullptr;
  for (const KernelSetRow& row : kernel_sets())
    if (row.supported(cpu_features())) best = row.set;
  EXPECT_EQ(&select_kernel_set(), best);
}

TEST(Dispatch, ObeysTheArgumentBeforeTheEnvironment) {
  for (const KernelSetRow& row : kernel_sets()) {
    if (!row.supported(cpu_features())) continue;
    const Environment environment(row.set->name);
    EXPECT_EQ(&select_kernel_set(), row.set);
    EXPECT_STREQ(select_kernel_set("scalar").name, "scalar");
  }
  const Environment empty("");
  EXPECT_NO_THROW(select_kernel_set());
}

void expect_usage_error(std::string_view forced, std::string_view origin) {
  try {
    select_kernel_set(forced);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_NE(std::string_view(error.what()).find(origin), std::string_view::npos) << error.what();
    EXPECT_NE(std::string_view(error.what()).find("scalar"), std::string_view::npos) << error.what();
  }
}

TEST(Dispatch, RefusesAnUnknownNameAndListsThoseThatWork) {
  expect_usage_error("sse9", "--isa");
  expect_usage_error("AVX2 ", "--isa");
  const Environment environment("neon\x1b[2J");
  expect_usage_error("", "QUERN_ISA");
}

TEST(Dispatch, RefusesASetThatThisCpuCannotRun) {
  for (const KernelSetRow& row : kernel_sets())
    if (!row.supported(cpu_features())) expect_usage_error(row.set->name, row.needs);
}

}  // namespace
}  // namespace quern
