#include "kernels/cpu_device.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu_attention.h"
#include "kernels/cpu_features.h"
#include "kernels/cpu_matrix.h"
#include "kernels/dispatch.h"
#include "kernels/host_memory.h"
#include "quant/parallel.h"

namespace quern {

namespace {

constexpr size_t kActivationGroup = 32;                     // values that share one activation scale
constexpr uint64_t kUnknownCacheBytes = uint64_t{8} << 20;  // a small laptop's, where the system tells none
constexpr size_t kTokenGrain = 4;    // rows of some thousand values, one or two microseconds each
constexpr size_t kBlockTokens = 64;  // a multiple of every ActivationTiles::tokens
constexpr size_t kLeastBlockTokens = 128;

// The CPUs that this process may keep busy at once.
int usable_cpus() {
  const CpuCount count = count_cpus();
  return count.quota > 0 ? std::min(count.affinity, count.quota) : count.affinity;
}

class CpuBuffer final : public DeviceBuffer {
 public:
  CpuBuffer(size_t rows, size_t width)
      : DeviceBuffer(rows, width),
        memory_(uint64_t{rows} * width * sizeof(float), "a buffer of activations") {}
  float* row(size_t i) { return memory_.as<float>() + i * width(); }
  const float* row(size_t i) const { return memory_.as<float>() + i * width(); }

 private:
  HostMemory memory_;
};

// Every object that a CpuDevice is given was made by one.
CpuBuffer& cpu(DeviceBuffer& buffer) { return static_cast<CpuBuffer&>(buffer); }
const CpuBuffer& cpu(const DeviceBuffer& buffer) { return static_cast<const CpuBuffer&>(buffer); }
const CpuMatrix& cpu(const DeviceMatrix& matrix) { return static_cast<const CpuMatrix&>(matrix); }
const CpuKvCache& cpu(const DeviceKvCache& cache) { return static_cast<const CpuKvCache&>(cache); }

class CpuDevice final : public Device {
 public:
  CpuDevice(const KernelSet& kernels, int n_threads, Notice notice)
      : kernels_(kernels),
        n_threads_(n_threads),
        team_(n_threads, usable_cpus()),
        notice_(std::move(notice)),
        attention_(kernels, team_) {}

  std::string name() const override {
    return fmt::format("CPU ({}, {} thread{})", kernels_.name, n_threads_, n_threads_ == 1 ? "" : "s");
  }

  DeviceTimes times() const override { return times_; }

  MatrixMemory matrix_memory(const TensorView& tensor, MatrixUse use) const override;
  std::unique_ptr<DeviceMatrix> load_matrix(const TensorView& tensor, MatrixUse use,
                                            const SourceDone& done) override;
  std::unique_ptr<DeviceBuffer> load_vector(const TensorView& tensor) override;
  std::unique_ptr<DeviceBuffer> allocate(size_t rows, size_t width) override {
    return std::make_unique<CpuBuffer>(rows, width);
  }
  std::unique_ptr<DeviceKvCache> allocate_kv(const KvShape& shape) override {
    return std::make_unique<CpuKvCache>(shape);
  }

  void run_pass(const std::function<void()>& pass) override { team_.assemble(pass); }
  void embed(const DeviceMatrix& table, std::span<const int32_t> ids, DeviceBuffer& x) override;
  void rms_norm(const DeviceBuffer& x, size_t row_begin, size_t n, const DeviceBuffer& weight, float eps,
                DeviceBuffer& y) override;
  void matmul(const DeviceBuffer& x, size_t n, std::span<const Product> products, bool add) override;
  size_t rope_and_store(const AttentionShape& shape, size_t layer, size_t position, size_t n,
                        std::span<const float> cos_sin, DeviceBuffer& q, DeviceBuffer& k,
                        const DeviceBuffer& v, DeviceKvCache& cache) override {
    return attention_.rope_and_store(shape, layer, position, n, cos_sin, cpu(q).row(0), cpu(k).row(0),
                                     cpu(v).row(0), cpu(cache));
  }
  void attention(const AttentionShape& shape, size_t layer, size_t position, size_t n, const DeviceBuffer& q,
                 const DeviceKvCache& cache, DeviceBuffer& out) override {
    const AttentionClock clock(&times_);
    times_.count_attention(shape, cpu(cache).shape().type, position, n);
    attention_.attend(shape, layer, position, n, cpu(q).row(0), cpu(cache), cpu(out).row(0));
  }
  void swiglu(DeviceBuffer& gate, const DeviceBuffer& up, size_t n) override;
  void read(const DeviceBuffer& x, size_t row, std::span<float> out) override;

 private:
  const MatmulKernel* find_kernel(const TensorView& tensor, MatrixUse use) const;
  void tell_about_fallback(DType dtype);
  QuantizedRows quantize(const CpuBuffer& x, size_t n);
  const uint8_t* pack_tiles(const ActivationTiles& tiles, const QuantizedRows& a, size_t n, size_t k);
  void multiply_by_blocks(MatmulArgs shared, const CpuBuffer& x, size_t n, std::span<const Product> products,
                          const ActivationTiles* tiles);
  void run_products(const MatmulArgs& block, size_t first_token, std::span<const Product> products,
                    IndexRange panels) const;
  size_t tokens_of_block(size_t n, uint64_t bytes_per_token) const;
  size_t panels_of_chunk(size_t n_panels, uint64_t weight_bytes, size_t n_tokens) const;
  size_t elementwise_grain(size_t n_values) const;

  const KernelSet& kernels_;
  const int n_threads_;
  ThreadTeam team_;
  const uint64_t last_level_cache_ =
      cache_sizes().last_level() != 0 ? cache_sizes().last_level() : kUnknownCacheBytes;
  const Notice notice_;
  std::vector<DType> told_;  // formats whose fallback the notice has named
  Scratch<int8_t> codes_{"quantized activations"};
  Scratch<float> scales_{"quantized activations"};
  Scratch<int16_t> sums_{"quantized activations"};
  Scratch<uint8_t> tiles_{"quantized activations"};
  CpuAttention attention_;
  DeviceTimes times_;
};

// Null when the matrix is only gathered.
const MatmulKernel* CpuDevice::find_kernel(const TensorView& tensor, MatrixUse use) const {
  const BlockFormat* format = find_block_format(tensor.dtype);
  const MatmulKernel* kernel = kernels_.find_matmul(tensor.dtype);
  if (kernel == nullptr) kernel = kernel_sets().front().set->find_matmul(tensor.dtype);
  const bool gathered = use != MatrixUse::kProduct, multiplied = use != MatrixUse::kGather;
  if (format == nullptr || (gathered && format->decode == nullptr) || (multiplied && kernel == nullptr))
    fail(ErrorCode::kMalformed, "tensor '{}': no CPU kernel for its format {}", printable(tensor.name),
         format != nullptr ? std::string(format->name)
                           : fmt::format("(type id {})", static_cast<uint32_t>(tensor.dtype)));
  return multiplied ? kernel : nullptr;
}

void CpuDevice::tell_about_fallback(DType dtype) {
  if (kernels_.find_matmul(dtype) != nullptr || std::find(told_.begin(), told_.end(), dtype) != told_.end())
    return;
  told_.push_back(dtype);
  if (notice_)
    notice_(fmt::format("{}: no {} kernel yet, using the scalar one (slow)", block_format(dtype).name,
                        kernels_.name));
}

MatrixMemory CpuDevice::matrix_memory(const TensorView& tensor, MatrixUse use) const {
  return CpuMatrix::memory(tensor, find_kernel(tensor, use));
}

std::unique_ptr<DeviceMatrix> CpuDevice::load_matrix(const TensorView& tensor, MatrixUse use,
                                                     const SourceDone& done) {
  const MatmulKernel* kernel = find_kernel(tensor, use);
  if (kernel != nullptr) tell_about_fallback(tensor.dtype);
  return std::make_unique<CpuMatrix>(tensor, kernel, team_, done);
}

std::unique_ptr<DeviceBuffer> CpuDevice::load_vector(const TensorView& tensor) {
  const BlockFormat* format = find_block_format(tensor.dtype);
  if (format == nullptr || !format->is_float())
    fail(ErrorCode::kMalformed, "tensor '{}': expected a vector of floats, found format {}",
         printable(tensor.name), format != nullptr ? format->name : "unknown");
  const size_t n = tensor.n_elements();
  auto vector = std::make_unique<CpuBuffer>(1, n);
  format->decode(tensor.data, n, vector->row(0));
  return vector;
}

void CpuDevice::embed(const DeviceMatrix& table, std::span<const int32_t> ids, DeviceBuffer& x) {
  const CpuMatrix& matrix = cpu(table);
  team_.share(ids.size(), kTokenGrain, [&](int, size_t begin, size_t end) noexcept {
    for (size_t t = begin; t < end; ++t) matrix.decode_row(static_cast<size_t>(ids[t]), cpu(x).row(t));
  });
}

void CpuDevice::rms_norm(const DeviceBuffer& x, size_t row_begin, size_t n, const DeviceBuffer& weight,
                         float eps, DeviceBuffer& y) {
  team_.share(n, kTokenGrain, [&](int, size_t begin, size_t end) noexcept {
    for (size_t t = begin; t < end; ++t)
      kernels_.rms_norm(cpu(x).row(row_begin + t), cpu(weight).row(0), x.width(), eps, cpu(y).row(t));
  });
}

// Rows follow one another, so that threads may cut them anywhere between two groups.
QuantizedRows CpuDevice::quantize(const CpuBuffer& x, size_t n) {
  const size_t k = x.width(), groups = k / kActivationGroup;
  const QuantizedRows all{codes_.at_least(n * k), scales_.at_least(n * groups),
                          sums_.at_least(n * groups * 4)};
  const float* const values = x.row(0);
  team_.share(n * groups, elementwise_grain(n * k) / kActivationGroup,
              [&](int, size_t begin, size_t end) noexcept {
                const size_t at = begin * kActivationGroup;
                kernels_.quantize_activations(values + at, 1, (end - begin) * kActivationGroup,
                                              {all.codes + at, all.scales + begin, all.sums + begin * 4});
              });
  return all;
}

const uint8_t* CpuDevice::pack_tiles(const ActivationTiles& tiles, const QuantizedRows& a, size_t n,
                                     size_t k) {
  uint8_t* const out = tiles_.at_least(tiles.bytes(n, k));
  team_.share(n, tiles.tokens,
              [&](int, size_t begin, size_t end) noexcept { tiles.pack(a, n, k, begin, end, out); });
  return out;
}

// Computes the part [panels.begin, panels.end) of all products' panels, laid one after the other, for the
// tokens of `block`.
void CpuDevice::run_products(const MatmulArgs& block, size_t first_token, std::span<const Product> products,
                             IndexRange panels) const {
  size_t first = 0;  // this product's first panel
  for (const Product& product : products) {
    const CpuMatrix& weight = cpu(*product.weight);
    const size_t n_panels = count_panels(weight.rows());
    const size_t begin = std::max(panels.begin, first), end = std::min(panels.end, first + n_panels);
    if (begin < end) {
      MatmulArgs args = block;
      args.y_stride = product.y->width();
      // Many tokens: panel by panel, so that each is brought in once and used for all of them. Few: kernels
      // keep several panels going at once.
      const size_t step = args.n_tokens == 1 ? end - begin : args.n_tokens < 4 ? 4 : 1;
      for (size_t panel = begin - first; panel < end - first;) {
        size_t panel_end = std::min(panel + step, end - first);
        args.weights = weight.panels(panel, &panel_end);
        const size_t row = panel * kPanelRows;
        args.row_begin = 0;
        args.row_end = std::min(weight.rows(), panel_end * kPanelRows) - row;
        args.y = cpu(*product.y).row(first_token) + row;
        weight.kernel().run(args);
        panel = panel_end;
      }
    }
    first += n_panels;
  }
}

// Tokens whose activations take a small part of the last-level cache, which other cores and processes use
// too, so that every panel finds them there. Panels are read and taken apart again for each block, which
// costs one or two percent from some hundred tokens on.
size_t CpuDevice::tokens_of_block(size_t n, uint64_t bytes_per_token) const {
  const size_t fit = static_cast<size_t>(last_level_cache_ / 8 / std::max<uint64_t>(bytes_per_token, 1));
  const size_t most = std::max(fit / kBlockTokens * kBlockTokens, kLeastBlockTokens);
  if (n <= most) return n;
  const size_t n_blocks = (n + most - 1) / most;
  return ((n + n_blocks - 1) / n_blocks + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
}

// Small enough that a thread which is held up delays the others little, and that the last chunks end
// together; large enough that memory is read in long runs: tens of microseconds each.
size_t CpuDevice::panels_of_chunk(size_t n_panels, uint64_t weight_bytes, size_t n_tokens) const {
  constexpr uint64_t kChunkBytes = 512 << 10;
  constexpr size_t kChunksOfThread = 8;
  const uint64_t panel_bytes = std::max<uint64_t>(weight_bytes / n_panels, 1);
  const size_t by_bytes = n_tokens < 16 ? kChunkBytes / panel_bytes : 1;
  const size_t by_threads = n_panels / (static_cast<size_t>(n_threads_) * kChunksOfThread);
  const size_t panels = std::max(std::min(by_bytes, by_threads), size_t{1});
  // Kernels for few tokens read up to four panels at once.
  return panels >= 4 ? panels / 4 * 4 : panels;
}

// A chunk takes some microseconds, a whole number of activation groups and of cache lines.
size_t CpuDevice::elementwise_grain(size_t n_values) const {
  constexpr size_t kLeast = 4096;
  const size_t even = n_values / (static_cast<size_t>(n_threads_) * 4);
  return std::max(even, kLeast) / kLeast * kLeast;
}

void CpuDevice::matmul(const DeviceBuffer& x, size_t n, std::span<const Product> products, bool add) {
  if (n == 0) return;
  MatmulArgs shared{};
  shared.k = x.width();
  shared.add = add;
  for (const Product& product : products) {
    const CpuMatrix& weight = cpu(*product.weight);
    QUERN_CHECK(weight.columns() == x.width() && weight.rows() == product.y->width());
    if (!weight.format().is_float() && shared.a.codes == nullptr) shared.a = quantize(cpu(x), n);
  }
  // All that read the same tiles at once; there is room for one form of them.
  while (!products.empty()) {
    const ActivationTiles* tiles = nullptr;
    size_t n_products = 0;
    for (; n_products < products.size(); ++n_products) {
      const ActivationTiles* form = cpu(*products[n_products].weight).kernel().tiles;
      if (form == nullptr) continue;
      if (tiles != nullptr && form != tiles) break;
      tiles = form;
    }
    multiply_by_blocks(shared, cpu(x), n, products.first(n_products), tiles);
    products = products.subspan(n_products);
  }
}

// shared: quantized activations, where some product reads them. tiles: the form that products read; or null.
void CpuDevice::multiply_by_blocks(MatmulArgs shared, const CpuBuffer& x, size_t n,
                                   std::span<const Product> products, const ActivationTiles* tiles) {
  if (tiles != nullptr) shared.tiles = pack_tiles(*tiles, shared.a, n, shared.k);
  size_t n_panels = 0;
  uint64_t weight_bytes = 0;
  for (const Product& product : products) {
    n_panels += count_panels(cpu(*product.weight).rows());
    weight_bytes += cpu(*product.weight).bytes();
  }
  const bool quantized = shared.a.codes != nullptr;
  const size_t k = shared.k, groups = k / kActivationGroup;
  const uint64_t token_bytes = tiles != nullptr ? tiles->bytes(kBlockTokens, k) / kBlockTokens
                               : quantized      ? k + groups * 12
                                                : k * sizeof(float);
  const size_t block_tokens = tokens_of_block(n, token_bytes);
  const size_t n_blocks = (n + block_tokens - 1) / block_tokens;
  const size_t grain = panels_of_chunk(n_panels, weight_bytes, n);
  const size_t n_chunks = (n_panels + grain - 1) / grain;
  const auto run_chunk = [&](size_t item) noexcept {
    const size_t token = item / n_chunks * block_tokens, panel = item % n_chunks * grain;
    MatmulArgs block = shared;
    block.n_tokens = std::min(block_tokens, n - token);
    block.x = x.row(token);
    if (quantized)
      block.a = {shared.a.codes + token * k, shared.a.scales + token * groups,
                 shared.a.sums + token * groups * 4};
    if (tiles != nullptr) block.tiles = shared.tiles + tiles->bytes(token, k);
    run_products(block, token, products, {panel, std::min(panel + grain, n_panels)});
  };
  // Block by block: all threads then read the same activations.
  for (size_t b = 0; b < n_blocks; ++b)
    team_.share(n_chunks, 1, [&](int, size_t begin, size_t end) noexcept {
      for (size_t chunk = begin; chunk < end; ++chunk) run_chunk(b * n_chunks + chunk);
    });
}

void CpuDevice::swiglu(DeviceBuffer& gate, const DeviceBuffer& up, size_t n) {
  const size_t n_values = n * gate.width();  // rows follow one another
  team_.share(n_values, elementwise_grain(n_values), [&](int, size_t begin, size_t end) noexcept {
    float* const g = cpu(gate).row(0) + begin;
    kernels_.swiglu(g, cpu(up).row(0) + begin, end - begin, g);
  });
}

void CpuDevice::read(const DeviceBuffer& x, size_t row, std::span<float> out) {
  QUERN_CHECK(row < x.rows() && out.size() == x.width());
  std::memcpy(out.data(), cpu(x).row(row), out.size_bytes());
}

}  // namespace

std::unique_ptr<Device> make_cpu_device(const KernelSet& kernels, int n_threads, Notice notice) {
  QUERN_CHECK(n_threads >= 1);
  return std::make_unique<CpuDevice>(kernels, n_threads, std::move(notice));
}

}  // namespace quern
