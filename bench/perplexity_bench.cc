// What it is good for that perplexity puts several short chunks into one pass: the same chunks in passes of
// 512 tokens and one in a pass, in turns, on one thread.
//   bench_perplexity MODEL.gguf [PAIRS]
// Prints for each length of chunk the tokens that both do in a second of processor time, and the median ratio
// with the lowest and the highest.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "bench/measure.h"
#include "quant/error.h"
#include "runtime/perplexity.h"

namespace quern {
namespace {

void measure(const std::string& path, uint64_t n_ctx, size_t n_pairs) {
  ModelOptions options;
  options.context = n_ctx;
  options.n_threads = 1;  // whose processor time does not depend on what else runs
  const auto model = Model::load(path, options, {});
  const size_t n_tokens = 1024;
  std::mt19937 random(1);
  std::vector<int32_t> ids(n_tokens);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % model->hparams().vocab_size);
  const auto seconds = [&](uint64_t micro_batch) {
    PerplexityOptions perplexity;
    perplexity.n_ctx = n_ctx;
    perplexity.micro_batch = micro_batch;
    return seconds_of(CLOCK_PROCESS_CPUTIME_ID,
                      [&] { measure_perplexity(*model, ids, perplexity, {}, {}, {}); });
  };
  seconds(Engine::kMicroBatch);  // page faults
  std::vector<double> together, apart;
  for (size_t i = 0; i < n_pairs; ++i) {
    together.push_back(seconds(Engine::kMicroBatch));
    apart.push_back(seconds(n_ctx - 1));
  }
  std::vector<double> gain = ratios(apart, together);
  std::sort(gain.begin(), gain.end());
  std::printf("chunks of %4llu: together %8.1f tok/s, apart %8.1f tok/s, ratio %.2f (%.2f-%.2f)\n",
              static_cast<unsigned long long>(n_ctx), static_cast<double>(n_tokens) / median(together),
              static_cast<double>(n_tokens) / median(apart), median(gain), gain.front(), gain.back());
  std::fflush(stdout);
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) try {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_perplexity MODEL.gguf [PAIRS]\n");
    return 1;
  }
  const size_t n_pairs = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 7;
  for (const uint64_t n_ctx : {16, 32, 64, 128, 256})
    quern::measure(argv[1], n_ctx, std::max<size_t>(n_pairs, 1));
  return 0;
} catch (const quern::Error& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return static_cast<int>(error.code());
}
