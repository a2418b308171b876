// How fast products run: kernel by kernel, format by format, shape by shape, beside what the machine gives
// and what OpenBLAS makes of the same product. bench/README.md says how to read the output.
#include <benchmark/benchmark.h>
#include <cblas.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "kernels/cpu_device.h"
#include "kernels/dispatch.h"
#include "quant/machine/host_memory.h"
#include "quant/panel_layout.h"
#include "quant/parallel.h"

namespace quern {
namespace {

constexpr size_t kColumns = 4096;
constexpr uint64_t kDecodeBytes = uint64_t{1} << 30;
// Short, so that most segments meet no other process; each has left every cache when its turn comes again.
constexpr uint64_t kSegmentBytes = uint64_t{4} << 20;

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
      : x(some_floats(n_tokens * kColumns)),
        scales(n_tokens * kColumns / 32),
        y(n_tokens * rows),
        codes(n_tokens * kColumns),
        sums(n_tokens * kColumns / 8),
        y_stride(rows) {
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

void decode(benchmark::State& state, const KernelSet& set, const MatmulKernel& kernel, size_t n_tokens,
            int n_threads) {
  const uint64_t row_bytes = block_format(kernel.dtype).row_bytes(kColumns);
  const size_t rows = kSegmentBytes / row_bytes / kPanelRows * kPanelRows;
  const uint64_t segment_bytes = rows * row_bytes;
  const size_t n_segments = kDecodeBytes / segment_bytes;
  const uint8_t* weights = decode_weights().data();
  Tokens tokens(set, kernel, n_tokens, rows);
  std::vector<double> product, read;
  ThreadPool pool(n_threads);
  // body(begin, end) for the contiguous part of each thread.
  const auto by_parts = [&](size_t n, size_t grain, const auto& body) {
    pool.broadcast([&](int thread) noexcept {
      const IndexRange part = split_range(n, grain, thread, n_threads);
      if (!part.empty()) body(part.begin, part.end);
    });
  };
  for (size_t i = 0; auto _ : state) {
    const uint8_t* segment = weights + i % n_segments * segment_bytes;
    product.push_back(seconds_of(CLOCK_MONOTONIC, [&] {
      by_parts(rows, kPanelRows, [&](size_t begin, size_t end) {
        kernel.run(tokens.args(segment, n_tokens, {begin, end}));
      });
    }));
    const uint8_t* other = weights + (i + n_segments / 2) % n_segments * segment_bytes;
    read.push_back(seconds_of(CLOCK_MONOTONIC, [&] {
      by_parts(segment_bytes / kProbeReadStep * kProbeReadStep, kProbeReadStep,
               [&](size_t begin, size_t end) {
                 benchmark::DoNotOptimize(set.probe->read(other + begin, end - begin));
               });
    }));
    state.SetIterationTime(product.back());
    ++i;
  }
  const double bytes = static_cast<double>(segment_bytes);
  state.counters["GB/s"] = bytes / median(product) * 1e-9;
  state.counters["read GB/s"] = bytes / median(read) * 1e-9;
  state.counters["of read"] = median(ratios(read, product));
}

// One thread's rates next to a product, of its own processor time: what other processes take does not count.
struct Peaks {
  std::vector<double> multiply_seconds, read_seconds;  // of kMacs and kReadBytes

  static constexpr uint64_t kMacs = 20'000'000;  // some 0.2 ms, as is the read
  static constexpr uint64_t kReadBytes = uint64_t{4} << 20;

  void measure(const KernelSet& set) {
    multiply_seconds.push_back(
        seconds_of(CLOCK_THREAD_CPUTIME_ID, [&] { benchmark::DoNotOptimize(set.probe->multiply(kMacs)); }));
    // Elsewhere each time, so that it comes from memory.
    const uint8_t* const from = decode_weights().data() + next_++ % (kDecodeBytes / kReadBytes) * kReadBytes;
    read_seconds.push_back(seconds_of(CLOCK_THREAD_CPUTIME_ID,
                                      [&] { benchmark::DoNotOptimize(set.probe->read(from, kReadBytes)); }));
  }

 private:
  static inline uint64_t next_ = 0;
};

// A product [n_tokens, columns] x [rows, columns]^T.
struct Shape2 {
  size_t rows, columns, n_tokens;

  double macs() const { return static_cast<double>(rows * columns * n_tokens); }
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(columns) + "/" + std::to_string(n_tokens);
  }
};

// Matrices of one shape and format, more of them than the caches hold: a model has many, too.
template <class Make>
auto enough_matrices(uint64_t bytes_each, Make&& make) {
  constexpr uint64_t kBytes = uint64_t{96} << 20;
  std::vector<decltype(make())> matrices;
  for (uint64_t bytes = 0; bytes < kBytes; bytes += bytes_each) matrices.push_back(make());
  return matrices;
}

void count(benchmark::State& state, const Shape2& shape, const KernelSet& set, DType dtype,
           const std::vector<double>& seconds, const Peaks& peaks) {
  const double bytes = static_cast<double>(shape.rows * block_format(dtype).row_bytes(shape.columns));
  state.counters["GMAC/s"] = shape.macs() / median(seconds) * 1e-9;
  state.counters["GB/s"] = bytes / median(seconds) * 1e-9;
  // A set's float products use no int8 multiplies: their share says what int8 weights would gain.
  state.counters["of multiply"] =
      median(ratios(peaks.multiply_seconds, seconds)) * shape.macs() / static_cast<double>(Peaks::kMacs);
  state.counters["of read"] =
      median(ratios(peaks.read_seconds, seconds)) * bytes / static_cast<double>(Peaks::kReadBytes);
  state.SetLabel(set.probe->multiply_name);
}

TensorView weights_of(DType dtype, const Shape2& shape) {
  const uint64_t bytes = shape.rows * block_format(dtype).row_bytes(shape.columns);
  return {"weights", dtype, {shape.rows, shape.columns}, decode_weights().data(), bytes};
}

// As a model's layer runs it, on one thread: activations quantized, laid out and multiplied.
void product(benchmark::State& state, const KernelSet& set, DType dtype, const Shape2& shape) {
  const auto device = make_cpu_device(set, 1);
  const TensorView view = weights_of(dtype, shape);
  const auto matrices =
      enough_matrices(view.n_bytes, [&] { return device->load_matrix(view, MatrixUse::kProduct); });
  // The one way to fill a buffer from here: as an embedding of f32 rows.
  const std::vector<float> x = some_floats(shape.n_tokens * shape.columns);
  const TensorView rows{"activations",
                        DType::F32,
                        {shape.n_tokens, shape.columns},
                        reinterpret_cast<const uint8_t*>(x.data()),
                        x.size() * sizeof(float)};
  const auto table = device->load_matrix(rows, MatrixUse::kGather);
  std::vector<int32_t> ids(shape.n_tokens);
  std::iota(ids.begin(), ids.end(), 0);
  const auto input = device->allocate(shape.n_tokens, shape.columns);
  const auto output = device->allocate(shape.n_tokens, shape.rows);
  device->embed(*table, ids, *input);

  std::vector<double> seconds;
  Peaks peaks;
  for (auto _ : state) {
    peaks.measure(set);
    const Device::Product wanted{matrices[seconds.size() % matrices.size()].get(), output.get()};
    seconds.push_back(seconds_of(CLOCK_THREAD_CPUTIME_ID, [&] {
      device->matmul(*input, shape.n_tokens, {&wanted, 1}, /*add=*/false);
    }));
    state.SetIterationTime(seconds.back());
  }
  count(state, shape, set, dtype, seconds, peaks);
}

// The same product by way of f32: rows decoded, OpenBLAS's sgemm on one thread.
void sgemm(benchmark::State& state, const KernelSet& set, DType dtype, const Shape2& shape) {
  openblas_set_num_threads(1);
  const BlockFormat& format = block_format(dtype);
  const TensorView view = weights_of(dtype, shape);
  const size_t n_blocks = shape.rows * shape.columns / format.block_weights;
  const std::vector<float> x = some_floats(shape.n_tokens * shape.columns);
  std::vector<float> w(shape.rows * shape.columns), y(shape.n_tokens * shape.rows);
  const auto m = static_cast<blasint>(shape.n_tokens), n = static_cast<blasint>(shape.rows),
             k = static_cast<blasint>(shape.columns);
  std::vector<double> seconds, decode_seconds;
  Peaks peaks;
  for (auto _ : state) {
    peaks.measure(set);
    decode_seconds.push_back(
        seconds_of(CLOCK_THREAD_CPUTIME_ID, [&] { format.decode(view.data, n_blocks, w.data()); }));
    seconds.push_back(decode_seconds.back() + seconds_of(CLOCK_THREAD_CPUTIME_ID, [&] {
                        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, x.data(), k,
                                    w.data(), k, 0, y.data(), n);
                      }));
    state.SetIterationTime(seconds.back());
  }
  count(state, shape, set, dtype, seconds, peaks);
  state.counters["of it decoding"] = median(ratios(decode_seconds, seconds));
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

// Mistral-7B's layers, and a small model's.
constexpr Shape2 kMatrices[] = {{4096, 4096, 0}, {14336, 4096, 0}, {4096, 14336, 0},
                                {576, 576, 0},   {1536, 576, 0},   {576, 1536, 0}};

using Run = void (*)(benchmark::State&, const KernelSet&, DType, const Shape2&);

// kind: a set's name, or "sgemm".
void register_product(const std::string& kind, Run run, const KernelSet& set, DType dtype,
                      const Shape2& shape, double expected_gmac_per_second) {
  // Some tenths of a second each, five pairs at least.
  const double wanted = 0.3e9 * expected_gmac_per_second / shape.macs();
  const std::string name =
      "product/" + kind + "/" + std::string(block_format(dtype).name) + "/" + shape.name();
  benchmark::RegisterBenchmark(name.c_str(),
                               [=, &set](benchmark::State& state) { run(state, set, dtype, shape); })
      ->UseManualTime()
      ->Iterations(static_cast<int64_t>(std::clamp(wanted, 5.0, 500.0)))
      ->Unit(benchmark::kMillisecond);
}

// sgemm stands beside the best set's products.
void register_products(const KernelSet& set, DType dtype, bool beside_sgemm) {
  for (Shape2 shape : kMatrices) {
    for (const size_t n : {1, 8, 32, 512}) {
      shape.n_tokens = n;
      register_product(set.name, product, set, dtype, shape, n == 1 ? 20 : 100);
      if (beside_sgemm) register_product("sgemm", sgemm, set, dtype, shape, n == 1 ? 1 : 20);
    }
  }
}

void register_kernels(const KernelSet& set, bool is_best) {
  const bool is_reference = &set == kernel_sets().front().set;  // measured for scale, with little patience
  set.for_each_matmul([&](const MatmulKernel& kernel) {
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
    if (is_reference)
      register_product(set.name, product, set, kernel.dtype, {576, 576, 8}, 1);
    else
      register_products(set, kernel.dtype, is_best);
  });
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  const quern::KernelSet& best = quern::select_kernel_set();
  for (const quern::KernelSetRow& row : quern::kernel_sets())
    if (row.supported(quern::cpu_features())) quern::register_kernels(*row.set, row.set == &best);
  for (const quern::BlockFormat& format : quern::block_formats())
    if (quern::has_panel_layout(format.dtype))
      benchmark::RegisterBenchmark(("pack/" + std::string(format.name)).c_str(),
                                   [&format](benchmark::State& state) { quern::pack(state, format); });
  return quern::run_benchmarks(argc, argv);
}
