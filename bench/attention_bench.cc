// Attention of every kernel set but the reference, one layer, as CpuAttention runs it.
//
// decode/SET/KV/HEADSxKV_HEADSxHEAD_DIM/depth:D/threads:T: one token at position D - 1. The cache holds as
// many layers as fill half a GiB, taken in turn, so that keys and values come from memory; each call is
// followed by a plain read of as many bytes of another layer, so that both meet the same neighbours:
//   GB/s   keys and values attended to, median
//   read   the set's plain read (kernels/machine_probe.h), median
//   share  median of the ratios of neighbours
// prefill/SET/KV/SHAPE/depth:D: 512 tokens behind D others, one thread, its own CPU time, and the clock
// measured around every call:
//   MAC/s, MAC/cycle   multiply-adds of scores and of values, medians
#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "kernels/cpu_attention.h"
#include "kernels/dispatch.h"
#include "quant/parallel.h"

namespace quern {
namespace {

constexpr uint64_t kDecodeBytes = uint64_t{1} << 29;
constexpr size_t kPrefillTokens = 512;

// Cycles per second, by a chain of 2-cycle steps that no compiler shortens.
double clock_rate() {
  constexpr uint64_t kSteps = 200'000;
  uint64_t x = 1;
  const double seconds = seconds_of(CLOCK_THREAD_CPUTIME_ID, [&] {
    for (uint64_t i = 0; i < kSteps; ++i) x = (x ^ i) + 1;
    benchmark::DoNotOptimize(x);
  });
  return 2.0 * kSteps / seconds;
}

struct Case {
  KvType kv;
  const char* kv_name;
  size_t n_heads, n_kv_heads, head_dim;

  AttentionShape shape() const { return {n_heads, n_kv_heads, head_dim}; }
  KvShape cache(size_t n_layers, size_t capacity) const {
    return {std::vector<KvLayer>(n_layers, {n_kv_heads, head_dim}), capacity, kv};
  }
  std::string name() const {
    return std::string(kv_name) + "/" + std::to_string(n_heads) + "x" + std::to_string(n_kv_heads) + "x" +
           std::to_string(head_dim);
  }
  uint64_t bytes(size_t depth) const { return 2 * depth * n_kv_heads * kv_row_bytes(kv, head_dim); }
};

constexpr Case kCases[] = {
    {KvType::kF16, "f16", 32, 8, 128},   {KvType::kF32, "f32", 32, 8, 128},
    {KvType::kQ8_0, "q8_0", 32, 8, 128}, {KvType::kF16, "f16", 9, 3, 64},
    {KvType::kF16, "f16", 32, 32, 128},
};

void fill(const KernelSet& set, const Case& c, size_t n_layers, size_t n_keys, const CpuKvCache& cache) {
  const std::vector<float> x = some_floats(c.head_dim + 64);
  ThreadPool(2).parallel_for(n_layers * c.n_kv_heads, 1, [&](int, size_t begin, size_t end) noexcept {
    for (size_t i = begin; i < end; ++i)
      for (size_t key = 0; key < n_keys; ++key)
        set.store_kv({x.data() + key % 64, x.data() + key % 61, c.head_dim, key, c.kv,
                      cache.head(i / c.n_kv_heads, i % c.n_kv_heads)});
  });
}

void decode(benchmark::State& state, const KernelSet& set, const Case& c, size_t depth, int n_threads) {
  const size_t n_layers = std::max<size_t>(2, kDecodeBytes / c.bytes(depth));
  CpuKvCache cache(c.cache(n_layers, depth));
  fill(set, c, n_layers, depth, cache);
  ThreadPool pool(n_threads);
  CpuAttention attention(set, pool);
  const std::vector<float> q = some_floats(c.n_heads * c.head_dim);
  std::vector<float> out(q.size());
  const SequenceRows rows{&cache, depth - 1, 0, 1};
  std::vector<double> attended, read;
  const double bytes = static_cast<double>(c.bytes(depth));
  for (size_t i = 0; auto _ : state) {
    attended.push_back(seconds_of(CLOCK_MONOTONIC, [&] {
      attention.attend(c.shape(), i % n_layers, {&rows, 1}, q.data(), out.data());
    }));
    // The first head of a layer is followed by all of its others in a segment.
    const KvHead other = cache.head((i + n_layers / 2) % n_layers, 0);
    const size_t segment_keys = cache.shape().segment_keys();
    const size_t n_segments = (depth + segment_keys - 1) / segment_keys;
    const size_t layer_bytes = 2 * segment_keys * kv_row_bytes(c.kv, c.head_dim) * c.n_kv_heads;
    const size_t part = layer_bytes / static_cast<size_t>(n_threads) / kProbeReadStep * kProbeReadStep;
    const double seconds = seconds_of(CLOCK_MONOTONIC, [&] {
      pool.parallel_for(
          n_segments * static_cast<size_t>(n_threads), 1, [&](int, size_t begin, size_t) noexcept {
            const size_t segment = begin / static_cast<size_t>(n_threads),
                         piece = begin % static_cast<size_t>(n_threads);
            benchmark::DoNotOptimize(
                set.probe->read(other.base + segment * other.segment_stride + piece * part, part));
          });
    });
    const double read_bytes = static_cast<double>(part * static_cast<size_t>(n_threads) * n_segments);
    read.push_back(seconds * bytes / read_bytes);
    state.SetIterationTime(attended.back());
    ++i;
  }
  state.counters["GB/s"] = bytes / median(attended) * 1e-9;
  state.counters["read"] = bytes / median(read) * 1e-9;
  state.counters["share"] = median(ratios(read, attended));
}

void prefill(benchmark::State& state, const KernelSet& set, const Case& c, size_t depth) {
  CpuKvCache cache(c.cache(1, depth + kPrefillTokens));
  fill(set, c, 1, depth + kPrefillTokens, cache);
  ThreadPool pool(1);
  CpuAttention attention(set, pool);
  const std::vector<float> q = some_floats(kPrefillTokens * c.n_heads * c.head_dim);
  std::vector<float> out(q.size());
  const double keys = static_cast<double>(kPrefillTokens * depth + kPrefillTokens * (kPrefillTokens + 1) / 2);
  const double macs = keys * 2 * static_cast<double>(c.n_heads * c.head_dim);
  const SequenceRows rows{&cache, depth, 0, kPrefillTokens};
  std::vector<double> rate, per_cycle;
  for (auto _ : state) {
    const double clock = clock_rate();
    const double seconds = seconds_of(CLOCK_THREAD_CPUTIME_ID, [&] {
      attention.attend(c.shape(), 0, {&rows, 1}, q.data(), out.data());
    });
    rate.push_back(macs / seconds);
    per_cycle.push_back(macs / seconds / std::max(clock, clock_rate()));
    state.SetIterationTime(seconds);
  }
  state.counters["MAC/s"] = median(rate);
  state.counters["MAC/cycle"] = median(per_cycle);
}

void register_cases(const KernelSet& set) {
  for (const Case& c : kCases) {
    const std::string name = std::string(set.name) + "/" + c.name() + "/depth:";
    for (const size_t depth : {512, 8192})
      for (const int threads : {1, 2})
        benchmark::RegisterBenchmark(
            ("decode/" + name + std::to_string(depth) + "/threads:" + std::to_string(threads)).c_str(),
            [=, &set, &c](benchmark::State& state) { decode(state, set, c, depth, threads); })
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
    for (const size_t depth : {0, 8192})
      benchmark::RegisterBenchmark(("prefill/" + name + std::to_string(depth)).c_str(),
                                   [=, &set, &c](benchmark::State& state) { prefill(state, set, c, depth); })
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  for (const quern::KernelSetRow& row : quern::kernel_sets())
    if (row.supported(quern::cpu_features()) && &row != &quern::kernel_sets().front())
      quern::register_cases(*row.set);
  return quern::run_benchmarks(argc, argv);
}
