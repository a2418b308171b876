// What bench/gpu_check.sh asks beside the tests and `quern bench`, without a network, a tokenizer or a
// checkpoint:
//
//     bench_gpu model OUT.gguf TYPE [LAYERS]
//         random weights of Mistral-7B's shape (32 layers), of a type's mix or, where there is no such type,
//         in the format of that name ("iq2_xxs"), the output in Q6_K; llama.cpp runs them too
//     bench_gpu stream GPU
//         bytes a second that a kernel reads and writes
//     bench_gpu compare FILE.gguf GPU
//         logits of a prompt and of single tokens, all layers on the GPU, against the CPU's: exit status 1
//         where a bit differs
//
// GPU: as --gpu takes it ("0", "emulated"). Results: lines of `name value unit`.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cuda/gpu_list.h"
#include "quant/block_format.h"
#include "quant/error.h"
#include "quant/recipe.h"
#include "quant/utf8.h"
#include "runtime/model.h"
#include "runtime/session.h"
#include "tests/support/random_model.h"

namespace quern {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

int make_model(const std::string& path, const std::string& type, uint32_t n_layers) {
  test::RandomModel model{.n_layers = n_layers,
                          .dim = 4096,
                          .hidden_dim = 14336,
                          .n_heads = 32,
                          .n_kv_heads = 8,
                          .vocab_size = 32000,
                          .context_length = 32768};
  const auto format = std::ranges::find_if(
      block_formats(), [&](const BlockFormat& row) { return lower_ascii(row.name) == type; });
  if (find_recipe(type) == nullptr && format != block_formats().end()) {
    model.matrices = model.embedding = format->dtype;
    model.output = DType::Q6_K;
  } else {
    model.recipe = type;
  }
  const auto begin = std::chrono::steady_clock::now();
  test::write_random_model(model, path);
  fmt::print("made {:.1f} s\n", seconds_since(begin));
  return 0;
}

// In place, times 1: what is read is written. The best of ten rounds.
int measure_stream(const std::string& gpu) {
  const auto devices = cuda::open_gpus(gpu);
  if (devices.empty()) fail(ErrorCode::kResource, "no GPU is there ({})", cuda::why_no_gpu(gpu));
  Device& device = *devices[0];
  constexpr size_t kWidth = 1 << 20;
  const size_t rows = gpu.starts_with("emulated") ? 2 : 512;  // 2 GiB, beyond every cache
  const auto x = device.allocate(rows, kWidth);
  const std::vector<float> row(kWidth, 1.0f);
  for (size_t i = 0; i < rows; ++i) device.upload(row, *x, i);
  std::vector<float> last(kWidth);
  const double bytes = 2.0 * static_cast<double>(rows * kWidth * sizeof(float));
  double best = 0;
  for (int round = 0; round < 10; ++round) {
    constexpr int kPasses = 10;
    device.run_pass([&] { device.scale(*x, 1.0f, rows); });
    device.download(*x, 0, std::span(last));
    const auto begin = std::chrono::steady_clock::now();
    device.run_pass([&] {
      for (int i = 0; i < kPasses; ++i) device.scale(*x, 1.0f, rows);
    });
    device.download(*x, rows - 1, std::span(last));
    best = std::max(best, kPasses * bytes / seconds_since(begin));
  }
  if (last != row) fail(ErrorCode::kIntegrity, "{}: values times 1 have changed", device.name());
  fmt::print("stream {:.1f} GB/s\n", best / 1e9);
  return 0;
}

std::vector<float> logits_of(const std::string& path, const std::string& gpu, std::span<const int32_t> ids) {
  constexpr size_t kSingle = 4;
  ModelOptions options;
  options.context = 1024;
  options.gpu = gpu;
  if (gpu != "none") options.gpu_layers = UINT64_MAX;
  const auto model =
      Model::load(path, options, [](std::string_view line) { fmt::print(stderr, "{}\n", line); });
  Session session(*model);
  std::vector<float> logits;
  const auto keep = [&](size_t, std::span<const float> z) {
    logits.insert(logits.end(), z.begin(), z.end());
  };
  session.eval(ids.first(ids.size() - kSingle), 3, keep);
  for (size_t i = ids.size() - kSingle; i < ids.size(); ++i) session.eval(ids.subspan(i, 1), 1, keep);
  return logits;
}

// Beyond a segment of 512 positions, so that parts of attention are merged.
int compare(const std::string& path, const std::string& gpu) {
  std::mt19937 random(1);
  std::vector<int32_t> ids(gpu.starts_with("emulated") ? 24 : 560);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % 32000);
  const std::vector<float> there = logits_of(path, gpu, ids), here = logits_of(path, "none", ids);
  const bool same =
      there.size() == here.size() && std::memcmp(there.data(), here.data(), here.size() * sizeof(float)) == 0;
  const auto n_different = std::inner_product(
      there.begin(), there.end(), here.begin(), size_t{0}, std::plus<>(),
      [](float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0 ? size_t{0} : size_t{1}; });
  fmt::print("logits {} of {} differ\n", n_different, here.size());
  return same ? 0 : 1;
}

int run(std::span<char* const> arguments) {
  const std::vector<std::string> a(arguments.begin(), arguments.end());
  if ((a.size() == 4 || a.size() == 5) && a[1] == "model")
    return make_model(a[2], a[3], a.size() == 5 ? static_cast<uint32_t>(std::stoul(a[4])) : 32);
  if (a.size() == 3 && a[1] == "stream") return measure_stream(a[2]);
  if (a.size() == 4 && a[1] == "compare") return compare(a[2], a[3]);
  fmt::print(stderr, "usage: bench_gpu model OUT.gguf TYPE [LAYERS] | stream GPU | compare FILE.gguf GPU\n");
  return 1;
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  try {
    return quern::run({argv, static_cast<size_t>(argc)});
  } catch (const quern::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}
