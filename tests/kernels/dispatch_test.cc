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
    EXPECT_TRUE(set.quantize_activations && set.rms_norm && set.rope && set.activate && set.layer_norm &&
                set.softcap && set.store_kv && set.attend_segment && set.merge_segment && set.sum_exp)
        << set.name;
    EXPECT_GT(set.n_matmuls, 0u) << set.name;
    ASSERT_NE(set.probe, nullptr) << set.name;
    EXPECT_TRUE(set.probe->multiply_name && set.probe->multiply && set.probe->read) << set.name;
    std::set<DType> formats;
    set.for_each_matmul([&](const MatmulKernel& kernel) {
      EXPECT_TRUE(formats.insert(kernel.dtype).second) << set.name;
      EXPECT_EQ(set.find_matmul(kernel.dtype), &kernel);
      EXPECT_NE(kernel_sets().front().set->find_matmul(kernel.dtype), nullptr)
          << set.name << ": a format that the reference lacks";
    });
    EXPECT_EQ(set.find_matmul(DType::I64), nullptr);
  }
}

// A product that falls back to the scalar kernel has the same bits, so that nothing but the time would tell.
TEST(Dispatch, EverySetMultipliesEveryFormatItself) {
  const KernelSet& reference = *kernel_sets().front().set;
  for (const KernelSetRow& row : kernel_sets())
    reference.for_each_matmul([&](const MatmulKernel& kernel) {
      const MatmulKernel* const own = row.set->find_matmul(kernel.dtype);
      ASSERT_NE(own, nullptr) << row.set->name << " lacks " << block_format(kernel.dtype).name;
      EXPECT_EQ(own->run == kernel.run, row.set == &reference) << block_format(kernel.dtype).name;
    });
}

TEST(Dispatch, PicksTheLastSupportedSetByItself) {
  const Environment environment(nullptr);
  const KernelSet* best = nullptr;
  for (const KernelSetRow& row : kernel_sets())
    if (row.supported(cpu_features())) best = row.set;
  EXPECT_EQ(&select_kernel_set(), best);
}

#if defined(__x86_64__)
struct Cpu {
  const char* name;
  bool avx2, fma, f16c, avx_vnni, avx512, avx512_vnni;
  const char* best;  // the set that is chosen
};
constexpr Cpu kCpus[] = {
    {"none", false, false, false, false, false, false, "scalar"},
    {"haswell_to_zen3", true, true, true, false, false, false, "avx2"},
    {"skylake_server", true, true, true, false, true, false, "avx2"},  // AVX-512 without VNNI
    {"ice_lake_to_zen4", true, true, true, false, true, true, "avx512"},
    {"alder_lake", true, true, true, true, false, false, "avxvnni"},
    {"sapphire_rapids", true, true, true, true, true, true, "avx512"},
    {"avx512_without_vnni", true, true, true, true, true, false, "avxvnni"},
    // The system or a hypervisor hides some: every set takes the AVX2 set's functions.
    {"without_fma", true, false, true, true, true, true, "scalar"},
    {"without_f16c", true, true, false, true, true, true, "scalar"},
    {"without_avx2", false, true, true, true, true, true, "scalar"},
};

class DispatchOn : public testing::TestWithParam<Cpu> {
 protected:
  CpuFeatures features() const {
    const Cpu& cpu = GetParam();
    CpuFeatures features;
    features.avx2 = cpu.avx2, features.fma = cpu.fma, features.f16c = cpu.f16c;
    features.avx_vnni = cpu.avx_vnni, features.avx512 = cpu.avx512, features.avx512_vnni = cpu.avx512_vnni;
    return features;
  }
};
INSTANTIATE_TEST_SUITE_P(Cpus, DispatchOn, testing::ValuesIn(kCpus),
                         [](const auto& cpu) { return cpu.param.name; });

TEST_P(DispatchOn, TakesTheBestSetOfWhichNothingIsMissing) {
  const Environment environment(nullptr);
  EXPECT_STREQ(select_kernel_set({}, features()).name, GetParam().best);
}

TEST_P(DispatchOn, GivesWhatIsAskedForOrNamesWhatIsMissingAndWhatWorks) {
  std::string working;
  for (const KernelSetRow& row : kernel_sets())
    if (row.supported(features())) working += (working.empty() ? "" : ", ") + std::string(row.set->name);
  for (const KernelSetRow& row : kernel_sets()) {
    if (row.supported(features())) {
      EXPECT_EQ(&select_kernel_set(row.set->name, features()), row.set);
      continue;
    }
    try {
      select_kernel_set(row.set->name, features());
      ADD_FAILURE() << row.set->name << " is chosen";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      EXPECT_EQ(error.what(), std::string("--isa: the instruction set '") + row.set->name + "' needs " +
                                  row.needs + ", which this CPU or system lacks; here work: " + working);
    }
  }
}
#endif

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

TEST(Dispatch, SaysWhyNoBetterSetRuns) {
  const CpuFeatures old_cpu{};
  CpuFeatures best_cpu;
  best_cpu.avx2 = best_cpu.fma = best_cpu.f16c = best_cpu.avx512 = best_cpu.avx512_vnni = best_cpu.avx_vnni =
      true;
  const auto sets = kernel_sets();
  for (size_t i = 0; i < sets.size(); ++i) {
    const std::string lacking = explain_kernel_set(*sets[i].set, old_cpu);
    const std::string hidden = explain_kernel_set(*sets[i].set, best_cpu);
    EXPECT_EQ(lacking.empty(), i + 1 == sets.size()) << lacking;
    EXPECT_EQ(hidden.empty(), i + 1 == sets.size()) << hidden;
    for (size_t j = 0; j < sets.size(); ++j) {
      const std::string needs = std::string(sets[j].set->name) + " needs " + sets[j].needs;
      EXPECT_EQ(lacking.find(needs) != std::string::npos, j > i) << lacking;
      EXPECT_EQ(hidden.find(needs), std::string::npos) << hidden;
    }
    EXPECT_EQ(lacking.find("which this CPU lacks") != std::string::npos, i + 1 < sets.size()) << lacking;
    EXPECT_EQ(hidden.find("this CPU could also run") != std::string::npos, i + 1 < sets.size()) << hidden;
  }
}

}  // namespace
}  // namespace quern
