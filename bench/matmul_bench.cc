// Products of every kernel set and format.
//
// decode/SET/FORMAT/TOKENS/threads: weights come from memory, 1 GiB in huge pages, one segment after another.
// Each segment's product is followed by a plain read of another segment, so that both meet the same
// neighbours:
//   GB/s   weights multiplied, median of the segments        read   the plain read's median        share
//   their ratio
// prefill/SET/FORMAT/TOKENS: one thread, a 1024 x 4096 matrix; the thread's own CPU time, and the clock
// measured around every product:
//   MAC/s, MAC/cycle   medians
// pack/FORMAT: one thread repacks warm rows of 4096 weights as panels: GB/s of rows.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/host_memory.h"
#include "quant/panel_layout.h"
#include "quant/parallel.h"

namespace quern {
namespace {

constexpr size_t kColumns = 4096;
constexpr uint64_t kDecodeBytes = uint64_t{1} << 30;
// Short, so that most segments meet no other process; each has left every cache when its turn comes again.
constexpr uint64_t kSegmentBytes = uint64_t{4} << 20;
constexpr size_t kPrefillRows = 1024;

double seconds_on(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <class Body>
double seconds_of(clockid_t clock, Body&& body) {
  const double start = seconds_on(clock);
  body();
  return seconds_on(clock) - start;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// A repeated byte whose f16, bf16 and f32 values are ordinary numbers: speed does not depend on the codes.
void fill(const HostMemory& memory) { std::memset(memory.data(), 0x2c, memory.size()); }

const HostMemory& decode_weights() {
  static const HostMemory memory = [] {
    HostMemory m(kDecodeBytes, "weights");
    fill(m);
    return m;
  }();
  return memory;
}

// Activations of `n_tokens` rows of kColumns, and a place for results.
struct Tokens {
  std::vector<float> x, scales, y;
  std::vector<int8_t> codes;
  std::vector<int16_t> sums;
  std::vector<uint8_t> tiles;
  size_t y_stride;

  Tokens(const KernelSet& set, const MatmulKernel& kernel, size_t n_tokens, size_t rows)
      : x(n_tokens * kColumns),
        scales(n_tokens * kColumns / 32),
        y(n_tokens * rows),
        codes(n_tokens * kColumns),
        sums(n_tokens * kColumns / 8),
        y_stride(rows) {
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 2654435761u % 1000) * 0.001f - 0.5f;
    set.quantize_activations(x.data(), n_tokens, kColumns, rows_view());
    if (kernel.tiles == nullptr) return;
    tiles.resize(kernel.tiles->bytes(n_tokens, kColumns));
    kernel.tiles->pack(rows_view(), n_tokens, kColumns, 0, n_tokens, tiles.data());
  }

  QuantizedRows rows_view() { return {codes.data(), scales.data(), sums.data()}; }

  MatmulArgs args(const uint8_t* weights, size_t n_tokens, IndexRange rows) {
    return {weights,     kColumns,     rows.begin, rows.end, n_tokens, x.data(),
            rows_view(), tiles.data(), y.data(),   y_stride, false};
  }
};

// Two streams, which reads a little faster than one.
uint64_t plain_read(const uint8_t* bytes, size_t n) {
  const size_t half = n / 2 / 64 * 64;
  uint64_t sums[8] = {};
  for (size_t i = 0; i < half; i += 64) {
    uint64_t words[2][8];
    std::memcpy(words[0], bytes + i, 64);
    std::memcpy(words[1], bytes + half + i, 64);
    for (size_t j = 0; j < 8; ++j) sums[j] += words[0][j] + words[1][j];
  }
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

void decode(benchmark::State& state, const KernelSet& set, const MatmulKernel& kernel, size_t n_tokens,
            int n_threads) {
  const uint64_t row_bytes = block_format(kernel.dtype).row_bytes(kColumns);
  const size_t rows = kSegmentBytes / row_bytes / kPanelRows * kPanelRows;
  const uint64_t segment_bytes = rows * row_bytes;
  const size_t n_segments = kDecodeBytes / segment_bytes;
  const uint8_t* weights = decode_weights().data();
  Tokens tokens(set, kernel, n_tokens, rows);
  std::vector<double> product, read;
  for (size_t i = 0; auto _ : state) {
    const uint8_t* segment = weights + i % n_segments * segment_bytes;
    product.push_back(seconds_of(CLOCK_MONOTONIC, [&] {
      parallel_for(n_threads, rows, kPanelRows, [&](size_t begin, size_t end) {
        kernel.run(tokens.args(segment, n_tokens, {begin, end}));
      });
    }));
    const uint8_t* other = weights + (i + n_segments / 2) % n_segments * segment_bytes;
    read.push_back(seconds_of(CLOCK_MONOTONIC, [&] {
      parallel_for(n_threads, segment_bytes, 64, [&](size_t begin, size_t end) {
        benchmark::DoNotOptimize(plain_read(other + begin, end - begin));
      });
    }));
    state.SetIterationTime(product.back());
    ++i;
  }
  const double bytes = static_cast<double>(segment_bytes);
  state.counters["GB/s"] = bytes / median(product) * 1e-9;
  state.counters["read"] = bytes / median(read) * 1e-9;
  state.counters["share"] = median(read) / median(product);
}

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

void prefill(benchmark::State& state, const KernelSet& set, const MatmulKernel& kernel, size_t n_tokens) {
  const HostMemory weights(kPrefillRows * block_format(kernel.dtype).row_bytes(kColumns), "weights");
  fill(weights);
  Tokens tokens(set, kernel, n_tokens, kPrefillRows);
  const double macs = static_cast<double>(n_tokens * kPrefillRows * kColumns);
  std::vector<double> rate, per_cycle;
  for (auto _ : state) {
    const double clock = clock_rate();
    const double seconds = seconds_of(CLOCK_THREAD_CPUTIME_ID, [&] {
      kernel.run(tokens.args(weights.data(), n_tokens, {0, kPrefillRows}));
    });
    rate.push_back(macs / seconds);
    per_cycle.push_back(macs / seconds / std::max(clock, clock_rate()));
    state.SetIterationTime(seconds);
  }
  state.counters["MAC/s"] = median(rate);
  state.counters["MAC/cycle"] = median(per_cycle);
}

void pack(benchmark::State& state, const BlockFormat& format) {
  const uint64_t row_bytes = format.row_bytes(kColumns);
  std::vector<uint8_t> rows(kPanelRows * row_bytes, 0x2c), panel(rows.size());
  for (auto _ : state) {
    pack_panel(format.dtype, rows.data(), kPanelRows, kColumns, panel.data());
    benchmark::ClobberMemory();
  }
  state.counters["GB/s"] = benchmark::Counter(1e-9 * static_cast<double>(rows.size()),
                                              benchmark::Counter::kIsIterationInvariantRate);
}

void register_kernels(const KernelSet& set) {
  const bool is_reference = &set == kernel_sets().front().set;  // measured for scale, with little patience
  for (size_t i = 0; i < set.n_matmuls; ++i) {
    const MatmulKernel& kernel = set.matmuls[i];
    const std::string name = std::string(set.name) + "/" + std::string(block_format(kernel.dtype).name) + "/";
    if (!is_reference) {
      for (const size_t n : {1, 2, 3, 4, 8})
        for (const int threads : {1, 2})
          benchmark::RegisterBenchmark(
              ("decode/" + name + std::to_string(n) + "/threads:" + std::to_string(threads)).c_str(),
              [=, &set, &kernel](benchmark::State& state) { decode(state, set, kernel, n, threads); })
              ->UseManualTime()
              ->Unit(benchmark::kMillisecond);
    }
    const std::vector<size_t> batches =
        is_reference ? std::vector<size_t>{8} : std::vector<size_t>{8, 16, 32, 128, 512};
    for (const size_t n : batches)
      benchmark::RegisterBenchmark(
          ("prefill/" + name + std::to_string(n)).c_str(),
          [=, &set, &kernel](benchmark::State& state) { prefill(state, set, kernel, n); })
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  for (const quern::KernelSetRow& row : quern::kernel_sets())
    if (row.supported(quern::cpu_features())) quern::register_kernels(*row.set);
  for (const quern::BlockFormat& format : quern::block_formats())
    if (quern::has_panel_layout(format.dtype))
      benchmark::RegisterBenchmark(("pack/" + std::string(format.name)).c_str(),
                                   [&format](benchmark::State& state) { quern::pack(state, format); });
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
