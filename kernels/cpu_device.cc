#include "kernels/cpu_device.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu_attention.h"
#include "kernels/dispatch.h"
#include "kernels/host_memory.h"
#include "quant/panel_layout.h"
#include "quant/parallel.h"

namespace quern {

namespace {

constexpr size_t kActivationGroup = 32;  // values that share one activation scale

size_t count_panels(size_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }

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

class CpuMatrix final : public DeviceMatrix {
 public:
  // kernel: null when rows are only gathered. owned: the panels that it reads, or empty when it reads the
  // tensor's own rows.
  CpuMatrix(const TensorView& tensor, const MatmulKernel* kernel, HostMemory owned)
      : DeviceMatrix(tensor.dtype, tensor.rows(), tensor.columns(),
                     owned.size() != 0 ? owned.size() : tensor.n_bytes),
        kernel_(kernel),
        file_rows_(tensor.data),
        owned_(std::move(owned)) {}

  const BlockFormat& format() const { return block_format(dtype()); }
  const MatmulKernel& kernel() const { return *kernel_; }
  const uint8_t* weights() const { return owned_.size() != 0 ? owned_.data() : file_rows_; }
  const uint8_t* file_row(size_t i) const { return file_rows_ + i * format().row_bytes(columns()); }

 private:
  const MatmulKernel* kernel_;
  const uint8_t* file_rows_;  // not owned; read by gathers and by kernels of WeightLayout::kRows
  HostMemory owned_;
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
        notice_(std::move(notice)),
        attention_(kernels, n_threads) {}

  std::string name() const override {
    return fmt::format("CPU ({}, {} thread{})", kernels_.name, n_threads_, n_threads_ == 1 ? "" : "s");
  }

  uint64_t matrix_memory(const TensorView& tensor, MatrixUse use) const override;
  std::unique_ptr<DeviceMatrix> load_matrix(const TensorView& tensor, MatrixUse use) override;
  std::unique_ptr<DeviceBuffer> load_vector(const TensorView& tensor) override;
  std::unique_ptr<DeviceBuffer> allocate(size_t rows, size_t width) override {
    return std::make_unique<CpuBuffer>(rows, width);
  }
  std::unique_ptr<DeviceKvCache> allocate_kv(const KvShape& shape) override {
    return std::make_unique<CpuKvCache>(shape);
  }

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
    attention_.attend(shape, layer, position, n, cpu(q).row(0), cpu(cache), cpu(out).row(0));
  }
  void swiglu(DeviceBuffer& gate, const DeviceBuffer& up, size_t n) override;
  void read(const DeviceBuffer& x, size_t row, std::span<float> out) override;

 private:
  const MatmulKernel* find_kernel(const TensorView& tensor, MatrixUse use) const;
  void tell_about_fallback(DType dtype);
  HostMemory pack(const TensorView& tensor) const;
  QuantizedRows quantize(const CpuBuffer& x, size_t n);
  const uint8_t* pack_tiles(const ActivationTiles& tiles, const QuantizedRows& a, size_t n, size_t k);
  void run_products(const MatmulArgs& shared, std::span<const Product> products, IndexRange panels) const;

  const KernelSet& kernels_;
  const int n_threads_;
  const Notice notice_;
  std::vector<DType> told_;  // formats whose fallback the notice has named
  Scratch<int8_t> codes_{"quantized activations"};
  Scratch<float> scales_{"quantized activations"};
  Scratch<int16_t> sums_{"quantized activations"};
  Scratch<uint8_t> tiles_{"quantized activations"};
  CpuAttention attention_;
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

uint64_t CpuDevice::matrix_memory(const TensorView& tensor, MatrixUse use) const {
  const MatmulKernel* kernel = find_kernel(tensor, use);
  if (kernel == nullptr || kernel->layout == WeightLayout::kRows) return 0;
  return panel_bytes(tensor.dtype, tensor.rows(), tensor.columns());
}

// Each thread packs, and so places in memory, about the panels that it will multiply.
HostMemory CpuDevice::pack(const TensorView& tensor) const {
  const size_t rows = tensor.rows(), columns = tensor.columns();
  const uint64_t row_bytes = block_format(tensor.dtype).row_bytes(columns);
  HostMemory panels(panel_bytes(tensor.dtype, rows, columns), "weights");
  parallel_for(n_threads_, count_panels(rows), 1, [&](size_t begin, size_t end) noexcept {
    for (size_t panel = begin; panel < end; ++panel) {
      const size_t row = panel * kPanelRows;
      pack_panel(tensor.dtype, tensor.data + row * row_bytes, std::min(kPanelRows, rows - row), columns,
                 panels.data() + row * row_bytes);
    }
  });
  return panels;
}

std::unique_ptr<DeviceMatrix> CpuDevice::load_matrix(const TensorView& tensor, MatrixUse use) {
  const MatmulKernel* kernel = find_kernel(tensor, use);
  if (kernel != nullptr) tell_about_fallback(tensor.dtype);
  const bool panels = kernel != nullptr && kernel->layout == WeightLayout::kPanels;
  return std::make_unique<CpuMatrix>(tensor, kernel, panels ? pack(tensor) : HostMemory());
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
  const BlockFormat& format = matrix.format();
  const size_t n_blocks = matrix.columns() / format.block_weights;
  parallel_for(n_threads_, ids.size(), 1, [&](size_t begin, size_t end) noexcept {
    for (size_t t = begin; t < end; ++t)
      format.decode(matrix.file_row(static_cast<size_t>(ids[t])), n_blocks, cpu(x).row(t));
  });
}

void CpuDevice::rms_norm(const DeviceBuffer& x, size_t row_begin, size_t n, const DeviceBuffer& weight,
                         float eps, DeviceBuffer& y) {
  parallel_for(n > 1 ? n_threads_ : 1, n, 1, [&](size_t begin, size_t end) noexcept {
    for (size_t t = begin; t < end; ++t)
      kernels_.rms_norm(cpu(x).row(row_begin + t), cpu(weight).row(0), x.width(), eps, cpu(y).row(t));
  });
}

QuantizedRows CpuDevice::quantize(const CpuBuffer& x, size_t n) {
  const size_t k = x.width(), groups = k / kActivationGroup;
  const QuantizedRows all{codes_.at_least(n * k), scales_.at_least(n * groups),
                          sums_.at_least(n * groups * 4)};
  parallel_for(n > 1 ? n_threads_ : 1, n, 1, [&](size_t begin, size_t end) noexcept {
    const QuantizedRows part{all.codes + begin * k, all.scales + begin * groups,
                             all.sums + begin * groups * 4};
    kernels_.quantize_activations(x.row(begin), end - begin, k, part);
  });
  return all;
}

const uint8_t* CpuDevice::pack_tiles(const ActivationTiles& tiles, const QuantizedRows& a, size_t n,
                                     size_t k) {
  uint8_t* const out = tiles_.at_least(tiles.bytes(n, k));
  parallel_for(n > tiles.tokens ? n_threads_ : 1, n, tiles.tokens,
               [&](size_t begin, size_t end) noexcept { tiles.pack(a, n, k, begin, end, out); });
  return out;
}

// Computes the part [panels.begin, panels.end) of all products' panels, laid one after the other.
void CpuDevice::run_products(const MatmulArgs& shared, std::span<const Product> products,
                             IndexRange panels) const {
  size_t first = 0;  // this product's first panel
  for (const Product& product : products) {
    const CpuMatrix& weight = cpu(*product.weight);
    const size_t n_panels = count_panels(weight.rows());
    const size_t begin = std::max(panels.begin, first), end = std::min(panels.end, first + n_panels);
    if (begin < end) {
      MatmulArgs args = shared;
      args.weights = weight.weights();
      args.y = cpu(*product.y).row(0);
      args.y_stride = product.y->width();
      // Many tokens: panel by panel, so that each is brought in once and used for all of them. Few: kernels
      // keep several panels going at once.
      const size_t step = args.n_tokens == 1 ? end - begin : args.n_tokens < 4 ? 4 : 1;
      for (size_t panel = begin; panel < end; panel += step) {
        args.row_begin = (panel - first) * kPanelRows;
        args.row_end = std::min(weight.rows(), (std::min(panel + step, end) - first) * kPanelRows);
        weight.kernel().run(args);
      }
    }
    first += n_panels;
  }
}

void CpuDevice::matmul(const DeviceBuffer& x, size_t n, std::span<const Product> products, bool add) {
  if (n == 0) return;
  size_t n_panels = 0;
  bool quantized = false;
  const ActivationTiles* tiles = nullptr;
  for (const Product& product : products) {
    const CpuMatrix& weight = cpu(*product.weight);
    QUERN_CHECK(weight.columns() == x.width() && weight.rows() == product.y->width());
    n_panels += count_panels(weight.rows());
    quantized = quantized || !weight.format().is_float();
    if (weight.kernel().tiles != nullptr) tiles = weight.kernel().tiles;  // a set has one form
  }
  MatmulArgs shared{};
  shared.k = x.width();
  shared.n_tokens = n;
  shared.x = cpu(x).row(0);
  shared.add = add;
  if (quantized) shared.a = quantize(cpu(x), n);
  if (tiles != nullptr) shared.tiles = pack_tiles(*tiles, shared.a, n, shared.k);
  parallel_for(n_threads_, n_panels, 1, [&](size_t begin, size_t end) noexcept {
    run_products(shared, products, {begin, end});
  });
}

void CpuDevice::swiglu(DeviceBuffer& gate, const DeviceBuffer& up, size_t n) {
  parallel_for(n > 1 ? n_threads_ : 1, n, 1, [&](size_t begin, size_t end) noexcept {
    // Rows follow one another: one call for all of a thread's.
    float* const g = cpu(gate).row(begin);
    kernels_.swiglu(g, cpu(up).row(begin), (end - begin) * gate.width(), g);
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
