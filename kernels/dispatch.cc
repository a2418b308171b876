#include "kernels/dispatch.h"

#include <cstdlib>

#include "kernels/scalar/scalar_ops.h"
#include "quant/error.h"
#if defined(__x86_64__)
#include "kernels/avx2/avx2_ops.h"
#include "kernels/avx512/avx512_kernels.h"
#include "kernels/avxvnni/avxvnni_kernels.h"
#endif

namespace quern {

namespace {

constexpr KernelSetRow kRows[] = {
    {&scalar::kKernelSet, [](const CpuFeatures&) noexcept { return true; }, "nothing special"},
#if defined(__x86_64__)
    {&avx2::kKernelSet, [](const CpuFeatures& f) noexcept { return f.avx2 && f.fma && f.f16c; },
     "AVX2, FMA and F16C"},
    {&avxvnni::kKernelSet,
     [](const CpuFeatures& f) noexcept { return f.avx2 && f.fma && f.f16c && f.avx_vnni; }, "AVX-VNNI"},
    {&avx512::kKernelSet,
     [](const CpuFeatures& f) noexcept { return f.avx2 && f.fma && f.f16c && f.avx512_vnni; },
     "AVX-512 (F, BW, DQ, VL) with VNNI"},
#endif
};

std::string supported_names(const CpuFeatures& features) {
  std::string names;
  for (const KernelSetRow& row : kRows) {
    if (!row.supported(features)) continue;
    if (!names.empty()) names += ", ";
    names += row.set->name;
  }
  return names;
}

const KernelSet& named_set(std::string_view name, const char* origin, const CpuFeatures& features) {
  for (const KernelSetRow& row : kRows) {
    if (name != row.set->name) continue;
    if (row.supported(features)) return *row.set;
    fail(ErrorCode::kUsage,
         "{}: the instruction set '{}' needs {}, which this CPU or system lacks; here work: {}", origin, name,
         row.needs, supported_names(features));
  }
  fail(ErrorCode::kUsage, "{}: unknown instruction set '{}'; here work: {}", origin, printable(name),
       supported_names(features));
}

}  // namespace

std::span<const KernelSetRow> kernel_sets() noexcept { return kRows; }

std::string explain_kernel_set(const KernelSet& chosen, const CpuFeatures& features) {
  std::string hidden, lacking;
  bool better = false;  // the rows behind the chosen one
  for (const KernelSetRow& row : kRows) {
    if (better && row.supported(features))
      hidden += fmt::format("{}{}", hidden.empty() ? "" : ", ", row.set->name);
    if (better && !row.supported(features))
      lacking += fmt::format("{}{} needs {}", lacking.empty() ? "" : " and ", row.set->name, row.needs);
    better = better || row.set == &chosen;
  }
  std::string text;
  if (!hidden.empty()) text = fmt::format("asked for; this CPU could also run {}", hidden);
  if (!lacking.empty()) text += fmt::format("{}{}, which this CPU lacks", text.empty() ? "" : "; ", lacking);
  return text;
}

const KernelSet& select_kernel_set(std::string_view forced, const CpuFeatures& features) {
  if (!forced.empty()) return named_set(forced, "--isa", features);
  const char* environment = std::getenv("QUERN_ISA");
  if (environment != nullptr && *environment != '\0') return named_set(environment, "QUERN_ISA", features);
  const KernelSet* best = kRows[0].set;
  for (const KernelSetRow& row : kRows)
    if (row.supported(features)) best = row.set;
  return *best;
}

}  // namespace quern
