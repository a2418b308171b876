#include "kernels/cuda/gpu_list.h"

#include <charconv>
#include <cstdlib>
#include <optional>

#include "kernels/cuda/driver.h"
#include "kernels/cuda/gpu.h"
#include "quant/error.h"

namespace quern::cuda {
namespace {

constexpr std::string_view kEmulated = "emulated";
constexpr uint64_t kEmulatedMiB = 4096, kMostMiB = uint64_t{1} << 24;
constexpr size_t kMostGpus = 16;

struct Wanted {
  std::string_view from, list;  // "--gpu"
};

Wanted wanted_of(std::string_view list) {
  if (!list.empty()) return {"--gpu", list};
  const char* const environment = std::getenv("QUERN_GPU");
  if (environment != nullptr && *environment != '\0') return {"QUERN_GPU", environment};
  return {"--gpu", "auto"};
}

std::optional<uint64_t> number(std::string_view text, uint64_t most) {
  uint64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || end != text.data() + text.size() || n > most) return std::nullopt;
  return n;
}

std::unique_ptr<Gpu> open_one(const Wanted& wanted, std::string_view name) {
  if (name == kEmulated) return make_emulated_gpu(kEmulatedMiB << 20);
  if (name.starts_with(kEmulated) && name.substr(kEmulated.size()).starts_with(':'))
    if (const auto mib = number(name.substr(kEmulated.size() + 1), kMostMiB))
      return make_emulated_gpu(*mib << 20);
  if (const auto index = number(name, INT32_MAX)) {
    std::string why;
    const Driver* const driver = find_driver(&why);
    const int n = driver == nullptr ? 0 : count_gpus(*driver, &why);
    if (n == 0) fail(ErrorCode::kUsage, "{} {}: {}; leave it out", wanted.from, printable(name), why);
    if (*index >= static_cast<uint64_t>(n))
      fail(ErrorCode::kUsage, "{} {}: expected 0 to {}", wanted.from, printable(name), n - 1);
    return make_driver_gpu(*driver, static_cast<int>(*index), device_code());
  }
  fail(ErrorCode::kUsage, "{}: expected auto, none, or numbers of GPUs (0,1), found '{}'", wanted.from,
       printable(wanted.list));
}

}  // namespace

std::vector<std::unique_ptr<CudaDevice>> open_gpus(std::string_view list) {
  const Wanted wanted = wanted_of(list);
  std::vector<std::unique_ptr<CudaDevice>> gpus;
  if (wanted.list == "none") return gpus;
  if (wanted.list == "auto") {
    std::string why;
    const Driver* const driver = find_driver(&why);
    const int n = driver == nullptr ? 0 : count_gpus(*driver, &why);
    for (int i = 0; i < n; ++i) gpus.push_back(make_cuda_device(make_driver_gpu(*driver, i, device_code())));
    return gpus;
  }
  for (std::string_view left = wanted.list;;) {
    const size_t comma = left.find(',');
    gpus.push_back(make_cuda_device(open_one(wanted, left.substr(0, comma))));
    if (gpus.size() > kMostGpus) fail(ErrorCode::kUsage, "{}: at most {} GPUs", wanted.from, kMostGpus);
    if (comma == std::string_view::npos) return gpus;
    left.remove_prefix(comma + 1);
  }
}

std::string why_no_gpu(std::string_view list) {
  if (wanted_of(list).list == "none") return "none is asked for";
  std::string why;
  if (const Driver* const driver = find_driver(&why)) (void)count_gpus(*driver, &why);
  return why;
}

}  // namespace quern::cuda
