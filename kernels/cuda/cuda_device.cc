#include "kernels/cuda/cuda_device.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <mutex>
#include <vector>

#include "kernels/cpu_attention.h"
#include "kernels/cuda/device_objects.h"
#include "kernels/cuda/launch_queue.h"
#include "quant/checked_math.h"
#include "quant/panel_layout.h"

namespace quern::cuda {
namespace {

constexpr double kLog2e = 0x1.71547652b82fep0;
constexpr size_t kMostFew = 8;  // tokens that the kernels for few tokens take
// Below so many parts in all, segments of attention are blocks of their own; their results may take so much.
constexpr uint64_t kMostParts = 4096;
constexpr uint64_t kMostPartBytes = uint64_t{64} << 20;
constexpr uint32_t kNoNan = UINT32_MAX;

int blocks_of(size_t n, size_t of_block) { return static_cast<int>((n + of_block - 1) / of_block); }

// Every object that a CudaDevice is given was made by one.
const CudaBuffer& on_gpu(const DeviceBuffer& buffer) { return static_cast<const CudaBuffer&>(buffer); }
const CudaMatrix& on_gpu(const DeviceMatrix& matrix) { return static_cast<const CudaMatrix&>(matrix); }
const CudaKvCache& cache_of(const SequenceRows& rows) { return static_cast<const CudaKvCache&>(*rows.cache); }
const float* vector_of(const DeviceBuffer* buffer) {
  return buffer == nullptr ? nullptr : on_gpu(*buffer).row(0);
}

class CudaDeviceImpl final : public CudaDevice {
 public:
  explicit CudaDeviceImpl(std::unique_ptr<Gpu> gpu) : gpu_(std::make_unique<LaunchQueue>(std::move(gpu))) {
    nan_ = GpuMemory(*gpu_, sizeof(uint32_t), "a flag");
    gpu_->upload(nan_.as<void>(), &kNoNan, sizeof kNoNan);
  }

  std::string name() const override { return "GPU (" + gpu_->name() + ")"; }
  std::string driver() const override { return gpu_->driver(); }
  DeviceTimes times() const override { return times_; }
  bool can_multiply(DType dtype) const override { return find_kernels(dtype) != nullptr; }
  uint64_t free_memory() override { return gpu_->memory().free; }
  uint64_t total_memory() override { return gpu_->memory().total; }

  MatrixMemory matrix_memory(const TensorView& tensor, MatrixUse) const override {
    (void)kernels_of(tensor);
    return {panel_bytes(tensor.dtype, tensor.rows(), tensor.columns()), false};
  }
  std::unique_ptr<DeviceMatrix> load_matrix(const TensorView& tensor, MatrixUse,
                                            const SourceDone& done) override {
    return std::make_unique<CudaMatrix>(*gpu_, tensor, kernels_of(tensor), done);
  }
  std::unique_ptr<DeviceBuffer> load_vector(const TensorView& tensor) override;
  std::unique_ptr<DeviceBuffer> allocate(size_t rows, size_t width) override {
    return std::make_unique<CudaBuffer>(*gpu_, rows, width);
  }
  std::unique_ptr<DeviceKvCache> allocate_kv(const KvShape& shape) override {
    return std::make_unique<CudaKvCache>(*gpu_, shape);
  }
  std::unique_ptr<DeviceRouting> allocate_routing(size_t rows, size_t n_experts, size_t n_used) override {
    return std::make_unique<CudaRouting>(*gpu_, rows, n_experts, n_used);
  }
  uint64_t buffer_bytes(uint64_t rows, uint64_t width) const override {
    uint64_t bytes = sizeof(float);
    return checked_mul(bytes, rows, &bytes) && checked_mul(bytes, width, &bytes) ? bytes : UINT64_MAX;
  }
  uint64_t kv_bytes(const KvShape& shape) const override { return CudaKvCache::bytes(shape); }
  uint64_t scratch_bytes(size_t max_rows, uint64_t widest_input, std::span<const AttentionShape> attention,
                         uint64_t capacity) const override {
    const ScratchSizes sizes = scratch_of(max_rows, widest_input, attention, capacity);
    return sizes.codes + 3 * sizes.scales + sizes.parts + 2 * sizes.ids;
  }
  void reserve_scratch(size_t max_rows, uint64_t widest_input, std::span<const AttentionShape> attention,
                       uint64_t capacity) override {
    const ScratchSizes sizes = scratch_of(max_rows, widest_input, attention, capacity);
    (void)at_least(&codes_, sizes.codes);
    (void)at_least(&scales_, sizes.scales);
    (void)at_least(&offsets_, sizes.scales);
    (void)at_least(&sums_, sizes.scales);
    (void)at_least(&parts_, sizes.parts);
    (void)at_least(&ids_, sizes.ids);
    (void)at_least(&positions_, sizes.ids);
  }

  void run_pass(const std::function<void()>& pass) override {
    const std::lock_guard lock(pass_);
    gpu_->begin_pass();
    try {
      pass();
    } catch (...) {
      gpu_->drop_pass();
      throw;
    }
    gpu_->end_pass();
  }
  std::optional<NanPlace> take_nan() override;

  void embed(const DeviceMatrix& table, std::span<const int32_t> ids, DeviceBuffer& x) override;
  void rms_norm(const DeviceBuffer& x, size_t x_row, size_t n, const DeviceBuffer& weight, float eps,
                DeviceBuffer& y, size_t y_row) override {
    norm(Kernel::rms_norm, x, x_row, n, weight, nullptr, eps, y, y_row);
  }
  void layer_norm(const DeviceBuffer& x, size_t x_row, size_t n, const DeviceBuffer& weight,
                  const DeviceBuffer* bias, float eps, DeviceBuffer& y, size_t y_row) override {
    norm(Kernel::layer_norm, x, x_row, n, weight, bias, eps, y, y_row);
  }
  void matmul(const DeviceBuffer& x, size_t n, std::span<const Product> products, bool add) override;
  void route(const DeviceBuffer& logits, size_t n, const RouterRule& rule, DeviceRouting& routing) override;
  void expert_matmul(const DeviceBuffer& x, bool sorted, const DeviceRouting& routing,
                     std::span<const ExpertProduct> products) override;
  void combine_experts(const DeviceBuffer& y, const DeviceRouting& routing, DeviceBuffer& out,
                       bool add) override;
  void store_heads(const AttentionShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                   const HeadSteps& steps, DeviceBuffer& q, DeviceBuffer& k, DeviceBuffer& v) override;
  void attention(const AttentionShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                 const DeviceBuffer& q, DeviceBuffer& out, const DeviceBuffer* sinks) override;
  void convolve(size_t, std::span<const SequenceRows>, const DeviceBuffer&, const DeviceBuffer*, size_t,
                size_t, const DeviceBuffer&, DeviceBuffer&) override {
    refuse_recurrence();
  }
  void delta_rule(const DeltaShape&, size_t, std::span<const SequenceRows>, const DeviceBuffer&,
                  const DeviceBuffer&, const DeviceBuffer&, const DeviceBuffer&, const DeviceBuffer&,
                  DeviceBuffer&) override {
    refuse_recurrence();
  }
  void norm_heads(DeviceBuffer& x, size_t n, const DeviceBuffer& weight, float eps) override;
  void layer_norm_heads(DeviceBuffer& x, size_t n, const DeviceBuffer& weight, size_t head_dim,
                        float eps) override;
  void clamp(DeviceBuffer& x, float limit, size_t n) override {
    on_values(Kernel::clamp_values, x, nullptr, n, {.factor = limit});
  }
  void copy_columns(const DeviceBuffer& x, Columns from, size_t width, size_t n, DeviceBuffer& y,
                    Columns to) override;
  void matmul_columns(const DeviceBuffer& x, Columns from,
                      std::span<const std::unique_ptr<DeviceMatrix>> weights, size_t n, DeviceBuffer& y,
                      Columns to) override;
  void activate(Activation kind, DeviceBuffer& gate, const DeviceBuffer* up, size_t n) override {
    QUERN_CHECK(is_gated(kind) == (up != nullptr));
    on_values(Kernel::activate, gate, up, n, {.activation = kind});
  }
  void multiply(DeviceBuffer& x, const DeviceBuffer& y, size_t n) override {
    on_values(Kernel::multiply_values, x, &y, n, {});
  }
  void add(DeviceBuffer& x, const DeviceBuffer& y, float factor, size_t n) override {
    on_values(Kernel::add_values, x, &y, n, {.factor = factor});
  }
  void scale(DeviceBuffer& x, float factor, size_t n) override {
    on_values(Kernel::scale_values, x, nullptr, n, {.factor = factor});
  }
  void add_gated(DeviceBuffer& x, const DeviceBuffer& y, const DeviceBuffer& gate, size_t n) override {
    QUERN_CHECK(gate.width() == 1 && x.width() == y.width());
    on_values(Kernel::add_gated, x, &y, n,
              {.width = static_cast<int>(x.width()), .gate = on_gpu(gate).row(0)});
  }
  void softcap(DeviceBuffer& x, float cap, size_t n) override {
    on_values(Kernel::softcap_values, x, nullptr, n, {.cap = softcap_of(cap, /*log2_units=*/false)});
  }
  void upload(std::span<const float> values, DeviceBuffer& x, size_t row) override {
    QUERN_CHECK(values.size() % x.width() == 0 && row + values.size() / x.width() <= x.rows());
    gpu_->upload(on_gpu(x).row(row), values.data(), values.size_bytes());
  }
  void download(const DeviceBuffer& x, size_t row, std::span<float> values) override {
    QUERN_CHECK(values.size() % x.width() == 0 && row + values.size() / x.width() <= x.rows());
    gpu_->download(values.data(), on_gpu(x).row(row), values.size_bytes());
  }

 private:
  struct ScratchSizes {
    uint64_t codes, scales, parts, ids;  // bytes; ids: of tokens, and positions
  };
  static ScratchSizes scratch_of(uint64_t max_rows, uint64_t widest_input,
                                 std::span<const AttentionShape> attention, uint64_t capacity) {
    ScratchSizes sizes{max_rows * widest_input, max_rows * (widest_input / kGroup) * sizeof(float), 0,
                       max_rows * sizeof(int32_t)};
    const uint64_t n_segments = (capacity + kAttentionSegment - 1) / kAttentionSegment;
    for (const AttentionShape& shape : attention)
      if (shape.n_heads != 0 && n_segments > 1)
        sizes.parts = std::max(
            sizes.parts,
            std::min<uint64_t>({kMostPartBytes,
                                max_rows * shape.n_heads * n_segments * (shape.head_dim + 2) * sizeof(float),
                                kMostParts * kAttendRows * (shape.head_dim + 2) * sizeof(float)}));
    return sizes;
  }

  const FormatKernels& kernels_of(const TensorView& tensor) const {
    const FormatKernels* const kernels = find_kernels(tensor.dtype);
    if (kernels == nullptr) {
      const BlockFormat* const format = find_block_format(tensor.dtype);
      fail(ErrorCode::kMalformed, "tensor '{}': no GPU kernel for its format {}", printable(tensor.name),
           format == nullptr ? "(unknown)" : format->name);
    }
    return *kernels;
  }
  [[noreturn]] static void refuse_recurrence() {
    fail(ErrorCode::kUsage, "recurrent layers have no kernels on the GPU yet; --gpu-layers 0 runs them");
  }

  template <class T = uint8_t>
  T* at_least(GpuMemory* memory, uint64_t n_bytes) {
    if (memory->size() < n_bytes) {
      memory->reset();  // first give back: both need not fit
      sent_positions_.clear();
      *memory = GpuMemory(*gpu_, n_bytes, "scratch");
    }
    return memory->as<T>();
  }
  template <class Args>
  void launch(Kernel kernel, const LaunchShape& shape, Args args) {
    static_assert(alignof(Args) <= 8 && sizeof(Args) % 8 == 0);  // one behind the other they stay aligned
    // What lies between its members would keep equal launches from being the same bytes. clang has no such
    // word before 18: there a graph may be missed, and launches go one by one.
#if defined(__GNUC__) && !defined(__clang__)
    __builtin_clear_padding(&args);
#endif
    gpu_->launch(kernel, shape, &args, sizeof args);
  }
  // Of the sequences' first rows, on the GPU, in the sequences' order. Sent once a pass, where all layers ask
  // for the same.
  const int* positions_of(std::span<const SequenceRows> sequences);

  void norm(Kernel kernel, const DeviceBuffer& x, size_t x_row, size_t n, const DeviceBuffer& weight,
            const DeviceBuffer* bias, float eps, DeviceBuffer& y, size_t y_row) {
    if (n == 0) return;
    launch(kernel, {.x = static_cast<int>(n), .threads = kRowThreads, .shared_bytes = 2 * sizeof(float)},
           NormArgs{on_gpu(x).row(x_row), vector_of(&weight), vector_of(bias), on_gpu(y).row(y_row),
                    static_cast<int>(x.width()), eps});
  }
  void on_values(Kernel kernel, DeviceBuffer& x, const DeviceBuffer* y, size_t n, ValuesArgs args) {
    if (n == 0) return;
    args.x = on_gpu(x).row(0);
    args.y = vector_of(y);
    args.n = n * x.width();  // rows follow one another
    launch(kernel, {.x = blocks_of(args.n, kRowThreads * kValuesPerThread), .threads = kRowThreads}, args);
  }

  // Rows as products take them: floats, and codes where a quantized matrix wants them.
  struct Input {
    const float* x;
    size_t x_stride, k, n;
    const uint32_t* rows = nullptr;  // of x, on the GPU; null: one after the other
    bool quantized = false;
  };
  void quantize(const Input& input) {
    QUERN_CHECK(input.k % kGroup == 0);
    const size_t n_groups = input.k / kGroup;
    launch(
        Kernel::quantize,
        {.x = blocks_of(n_groups, kRowThreads / 32), .y = static_cast<int>(input.n), .threads = kRowThreads},
        QuantizeArgs{input.x, input.x_stride, input.rows, static_cast<int>(input.k),
                     at_least<int8_t>(&codes_, input.n * input.k),
                     at_least<float>(&scales_, input.n * n_groups * sizeof(float)),
                     at_least<float>(&offsets_, input.n * n_groups * sizeof(float)),
                     at_least<int>(&sums_, input.n * n_groups * sizeof(int)), static_cast<int>(input.n)});
  }
  // Rows [begin, begin + n) of `input`.
  void multiply(Input& input, size_t begin, size_t n, const CudaMatrix& weight, float* y, size_t y_stride,
                const float* bias, bool add);

  const std::unique_ptr<LaunchQueue> gpu_;
  std::recursive_mutex pass_;  // held during a pass, by the thread that called it
  GpuMemory codes_, scales_, offsets_, sums_, parts_, ids_, positions_, nan_;
  std::vector<int> sent_positions_;  // what positions_ holds
  uint64_t readers_flush_ = 0;       // the queue's n_flushes() when a launch that reads it was asked for
  DeviceTimes times_;
};

std::unique_ptr<DeviceBuffer> CudaDeviceImpl::load_vector(const TensorView& tensor) {
  const BlockFormat* const format = find_block_format(tensor.dtype);
  if (format == nullptr || !format->is_float())
    fail(ErrorCode::kMalformed, "tensor '{}': expected a vector of floats, found format {}",
         printable(tensor.name), format != nullptr ? format->name : "unknown");
  std::vector<float> values(tensor.n_elements());
  format->decode(tensor.data, values.size(), values.data());
  auto vector = std::make_unique<CudaBuffer>(*gpu_, 1, values.size());
  upload(values, *vector, 0);
  return vector;
}

std::optional<NanPlace> CudaDeviceImpl::take_nan() {
  uint32_t place = kNoNan;
  gpu_->download(&place, nan_.as<void>(), sizeof place);
  if (place == kNoNan) return std::nullopt;
  gpu_->upload(nan_.as<void>(), &kNoNan, sizeof kNoNan);
  return NanPlace{place >> 16, place & 0xffff};
}

void CudaDeviceImpl::embed(const DeviceMatrix& table, std::span<const int32_t> ids, DeviceBuffer& x) {
  if (ids.empty()) return;
  const CudaMatrix& matrix = on_gpu(table);
  int32_t* const on_device = at_least<int32_t>(&ids_, ids.size_bytes());
  gpu_->upload(on_device, ids.data(), ids.size_bytes());
  launch(matrix.kernels.gather(),
         {.x = blocks_of(matrix.columns(), kRowThreads),
          .y = static_cast<int>(ids.size()),
          .threads = kRowThreads},
         GatherArgs{matrix.panels.as<uint8_t>(), static_cast<int>(matrix.columns()), on_device,
                    on_gpu(x).row(0), x.width()});
}

void CudaDeviceImpl::multiply(Input& input, size_t begin, size_t n, const CudaMatrix& weight, float* y,
                              size_t y_stride, const float* bias, bool add) {
  QUERN_CHECK(weight.columns() == input.k);
  ProductArgs args{};
  args.panels = weight.panels.as<uint8_t>();
  args.k = static_cast<int>(input.k);
  args.n_rows = static_cast<int>(weight.rows());
  args.n_tokens = static_cast<int>(n);
  args.y = y;
  args.y_stride = y_stride;
  args.bias = bias;
  args.factor = weight.factor;
  args.add = add;
  if (weight.kernels.is_float) {
    args.x = input.rows == nullptr ? input.x + begin * input.x_stride : input.x;
    args.x_stride = input.x_stride;
    args.rows = input.rows == nullptr ? nullptr : input.rows + begin;
    const size_t tokens = n == 1 ? 1 : 8;
    return launch(weight.kernels.at(n == 1 ? 0 : 1),
                  {.x = blocks_of(weight.rows(), kFloatThreads),
                   .y = blocks_of(n, tokens),
                   .threads = kFloatThreads,
                   .shared_bytes = float_shared_bytes(static_cast<int>(tokens))},
                  args);
  }
  if (!input.quantized) quantize(input);
  input.quantized = true;
  args.codes = codes_.as<int8_t>() + begin * input.k;
  args.scales = scales_.as<float>() + begin;
  args.offsets = offsets_.as<float>() + begin;
  args.sums = sums_.as<int>() + begin;
  args.scales_stride = static_cast<int>(input.n);
  if (n <= kMostFew) {
    const size_t i = n == 1 ? 0 : n == 2 ? 1 : n <= 4 ? 2 : 3;
    return launch(weight.kernels.at(i),
                  {.x = blocks_of(weight.rows(), kPanelRows),
                   .threads = kFewThreads,
                   .shared_bytes = few_shared_bytes(1 << i)},
                  args);
  }
  launch(weight.kernels.at(4),
         {.x = blocks_of(weight.rows(), kManyRows),
          .y = blocks_of(n, kManyTokens),
          .threads = kManyThreads,
          .shared_bytes = kManySharedBytes},
         args);
}

void CudaDeviceImpl::matmul(const DeviceBuffer& x, size_t n, std::span<const Product> products, bool add) {
  if (n == 0) return;
  Input input{on_gpu(x).row(0), x.width(), x.width(), n};
  for (const Product& product : products) {
    QUERN_CHECK(product.weight->rows() == product.y->width() && product.weight->columns() == x.width());
    multiply(input, 0, n, on_gpu(*product.weight), on_gpu(*product.y).row(0), product.y->width(),
             vector_of(product.bias), add);
  }
}

void CudaDeviceImpl::matmul_columns(const DeviceBuffer& x, Columns from,
                                    std::span<const std::unique_ptr<DeviceMatrix>> weights, size_t n,
                                    DeviceBuffer& y, Columns to) {
  if (n == 0) return;
  const size_t n_groups = weights.size(), k = weights[0]->columns(), rows = weights[0]->rows();
  QUERN_CHECK(n_groups * from.stride == x.width() && n_groups * to.stride == y.width());
  QUERN_CHECK(from.column + k <= from.stride && to.column + rows <= to.stride);
  for (size_t g = 0; g < n_groups; ++g) {
    Input input{on_gpu(x).row(0) + g * from.stride + from.column, x.width(), k, n};
    multiply(input, 0, n, on_gpu(*weights[g]), on_gpu(y).row(0) + g * to.stride + to.column, y.width(),
             nullptr, false);
  }
}

// The choice is the host's: one download a layer of experts.
void CudaDeviceImpl::route(const DeviceBuffer& logits, size_t n, const RouterRule& rule,
                           DeviceRouting& routing) {
  CudaRouting& r = static_cast<CudaRouting&>(routing);
  CpuRouting& host = r.host;
  QUERN_CHECK(logits.width() == host.n_experts && n * host.n_used <= host.place.size());
  std::vector<float> z(n * host.n_experts), bias, factors;
  download(logits, 0, z);
  const auto fetch = [&](const DeviceBuffer* from, std::vector<float>* to) -> const float* {
    if (from == nullptr) return nullptr;
    to->resize(host.n_experts);
    download(*from, 0, *to);
    return to->data();
  };
  const float *const biases = fetch(rule.bias, &bias), *const of_weights = fetch(rule.factors, &factors);
  for (size_t t = 0; t < n; ++t)
    choose_experts(rule, &z[t * host.n_experts], biases, of_weights, host.n_experts, host.n_used,
                   &host.expert[t * host.n_used], &host.weight[t * host.n_used]);
  sort_by_expert(n, &host);
  const uint64_t n_bytes = n * host.n_used * sizeof(uint32_t);
  gpu_->upload(r.row.as<void>(), host.row.data(), n_bytes);
  gpu_->upload(r.place.as<void>(), host.place.data(), n_bytes);
  gpu_->upload(r.weight.as<void>(), host.weight.data(), n_bytes);
}

void CudaDeviceImpl::expert_matmul(const DeviceBuffer& x, bool sorted, const DeviceRouting& routing,
                                   std::span<const ExpertProduct> products) {
  const CudaRouting& r = static_cast<const CudaRouting&>(routing);
  const CpuRouting& host = r.host;
  const size_t n_choices = host.n * host.n_used;
  if (n_choices == 0) return;
  Input input{on_gpu(x).row(0), x.width(), x.width(), n_choices, sorted ? nullptr : r.row.as<uint32_t>()};
  for (size_t e = 0; e < host.n_experts; ++e) {
    const size_t begin = host.begin[e], n = host.begin[e + 1] - begin;
    if (n == 0) continue;
    for (const ExpertProduct& product : products) {
      const CudaMatrix& weight = on_gpu(*product.weights[e]);
      QUERN_CHECK(weight.rows() == product.y->width());
      const float* const bias = vector_of(product.bias);
      multiply(input, begin, n, weight, on_gpu(*product.y).row(begin), product.y->width(),
               bias == nullptr ? nullptr : bias + e * weight.rows(), false);
    }
  }
}

void CudaDeviceImpl::combine_experts(const DeviceBuffer& y, const DeviceRouting& routing, DeviceBuffer& out,
                                     bool add) {
  const CudaRouting& r = static_cast<const CudaRouting&>(routing);
  if (r.host.n == 0) return;
  QUERN_CHECK(out.width() == y.width());
  launch(Kernel::combine_experts,
         {.x = blocks_of(y.width(), kRowThreads), .y = static_cast<int>(r.host.n), .threads = kRowThreads},
         CombineArgs{on_gpu(y).row(0), r.place.as<uint32_t>(), r.weight.as<float>(),
                     static_cast<int>(r.host.n_used), static_cast<int>(y.width()), on_gpu(out).row(0), add});
}

void CudaDeviceImpl::norm_heads(DeviceBuffer& x, size_t n, const DeviceBuffer& weight, float eps) {
  const size_t width = weight.width();
  QUERN_CHECK(x.width() % width == 0);
  if (n == 0) return;
  float* const values = on_gpu(x).row(0);
  launch(Kernel::rms_norm,
         {.x = static_cast<int>(n * x.width() / width),
          .threads = kRowThreads,
          .shared_bytes = 2 * sizeof(float)},
         NormArgs{values, vector_of(&weight), nullptr, values, static_cast<int>(width), eps});
}

void CudaDeviceImpl::layer_norm_heads(DeviceBuffer& x, size_t n, const DeviceBuffer& weight, size_t head_dim,
                                      float eps) {
  QUERN_CHECK(x.width() % head_dim == 0 && weight.width() == x.width());
  if (n == 0) return;
  float* const values = on_gpu(x).row(0);
  const size_t n_heads = x.width() / head_dim;
  launch(Kernel::layer_norm,
         {.x = static_cast<int>(n * n_heads), .threads = kRowThreads, .shared_bytes = 2 * sizeof(float)},
         NormArgs{values, vector_of(&weight), nullptr, values, static_cast<int>(head_dim), eps,
                  static_cast<int>(n_heads)});
}

void CudaDeviceImpl::copy_columns(const DeviceBuffer& x, Columns from, size_t width, size_t n,
                                  DeviceBuffer& y, Columns to) {
  const size_t groups = x.width() / from.stride;
  QUERN_CHECK(groups * from.stride == x.width() && groups * to.stride == y.width());
  QUERN_CHECK(from.column + width <= from.stride && to.column + width <= to.stride);
  if (n == 0) return;
  const auto number = [](size_t value) { return static_cast<int>(value); };
  launch(Kernel::copy_columns,
         {.x = blocks_of(groups * width, kRowThreads), .y = number(n), .threads = kRowThreads},
         CopyColumnsArgs{on_gpu(x).row(0), on_gpu(y).row(0), number(x.width()), number(y.width()),
                         number(from.column), number(from.stride), number(to.column), number(to.stride),
                         number(width), number(groups)});
}

const int* CudaDeviceImpl::positions_of(std::span<const SequenceRows> sequences) {
  std::vector<int> positions;
  for (const SequenceRows& rows : sequences) positions.push_back(static_cast<int>(rows.position));
  if (positions != sent_positions_) {
    const uint64_t n_bytes = positions.size() * sizeof(int);
    int* const to = at_least<int>(&positions_, n_bytes);
    sent_positions_.clear();
    // In front of what waits, so that this stays one run; not where some of that reads the old ones.
    if (readers_flush_ == gpu_->n_flushes() + 1)
      gpu_->upload(to, positions.data(), n_bytes);
    else
      gpu_->upload_ahead(to, positions.data(), n_bytes);
    sent_positions_ = positions;
  }
  readers_flush_ = gpu_->n_flushes() + 1;
  return positions_.as<int>();
}

void CudaDeviceImpl::store_heads(const AttentionShape& shape, size_t layer,
                                 std::span<const SequenceRows> sequences, const HeadSteps& steps,
                                 DeviceBuffer& q, DeviceBuffer& k, DeviceBuffer& v) {
  const size_t rotary_dim = steps.rope == nullptr ? 0 : steps.rope->width();
  const int* const positions = positions_of(sequences);
  for (const SequenceRows& rows : sequences) {
    if (rows.n == 0) continue;
    const CudaKvCache& cache = cache_of(rows);
    QUERN_CHECK(rows.position + rows.n <= cache.shape().capacity && layer < (1u << 16) &&
                rows.row_begin + rows.n <= 0xffff);
    StoreHeadsArgs args{};
    args.q = on_gpu(q).row(rows.row_begin);
    args.k = on_gpu(k).row(rows.row_begin);
    args.v = on_gpu(v).row(rows.row_begin);
    args.n_heads = static_cast<int>(shape.n_heads);
    args.n_kv_heads = static_cast<int>(shape.n_kv_heads);
    args.head_dim = static_cast<int>(shape.head_dim);
    args.q_norm = vector_of(steps.q_norm);
    args.k_norm = vector_of(steps.k_norm);
    args.eps = steps.eps;
    if (steps.rope != nullptr) args.rope = on_gpu(*steps.rope).row(rows.row_begin);
    args.rotary_dim = static_cast<int>(rotary_dim);
    args.halves = steps.pairs == RopePairs::kHalves;
    if (steps.q_scale != nullptr) args.q_scale = on_gpu(*steps.q_scale).row(rows.row_begin);
    args.normalise_v = steps.normalise_v;
    args.cache = cache.place(layer);
    args.type = cache.shape().type;
    args.position = positions + (&rows - sequences.data());
    args.nan_place = static_cast<uint32_t>(layer << 16 | rows.row_begin);
    args.nan = nan_.as<uint32_t>();
    launch(Kernel::store_heads,
           {.x = blocks_of(shape.n_heads + shape.n_kv_heads, kRowThreads / 32),
            .y = static_cast<int>(rows.n),
            .threads = kRowThreads},
           args);
  }
}

void CudaDeviceImpl::attention(const AttentionShape& shape, size_t layer,
                               std::span<const SequenceRows> sequences, const DeviceBuffer& q,
                               DeviceBuffer& out, const DeviceBuffer* sinks) {
  QUERN_CHECK(shape.n_heads % shape.n_kv_heads == 0);
  const int* const positions = positions_of(sequences);
  for (const SequenceRows& rows : sequences) {
    if (rows.n == 0) continue;
    const CudaKvCache& cache = cache_of(rows);
    const KvType type = cache.shape().type;
    times_.count_attention(shape, type, rows.position, rows.n);
    AttendArgs args{};
    args.q = on_gpu(q).row(rows.row_begin);
    args.out = on_gpu(out).row(rows.row_begin);
    args.q_dim = static_cast<int>(q.width());
    args.n_tokens = static_cast<int>(rows.n);
    args.group_heads = static_cast<int>(shape.n_heads / shape.n_kv_heads);
    args.head_dim = static_cast<int>(shape.head_dim);
    args.cache = cache.place(layer);
    args.position = positions + (&rows - sequences.data());
    // Beyond every position a window is none.
    args.window = shape.window >= cache.shape().capacity ? 0 : static_cast<int>(shape.window);
    args.kappa = static_cast<float>(
        shape.scale != 0 ? kLog2e * shape.scale : kLog2e / std::sqrt(static_cast<double>(shape.head_dim)));
    if (shape.softcap != 0) args.cap = softcap_of(shape.softcap, /*log2_units=*/true);
    args.sinks = vector_of(sinks);
    // What a block keeps must fit into 48 KiB of shared memory, which every GPU has.
    args.most_rows = shape.head_dim <= 256 ? kAttendRows : 2;
    const size_t query_rows = rows.n * static_cast<size_t>(args.group_heads);
    const size_t first =
        first_visible_key(rows.position, static_cast<size_t>(args.window)) / kAttentionSegment;
    const size_t n_segments = (rows.position + rows.n - 1) / kAttentionSegment - first + 1;
    // More than there are, so that few steps ask for other blocks than the step before.
    const size_t n_parts =
        std::max(n_segments, std::min(std::bit_ceil(n_segments),
                                      (cache.shape().capacity + kAttentionSegment - 1) / kAttentionSegment));
    const uint64_t part_bytes =
        uint64_t{query_rows} * shape.n_kv_heads * n_parts * (shape.head_dim + 2) * sizeof(float);
    const int row_blocks = blocks_of(query_rows, static_cast<size_t>(args.most_rows));
    const bool by_segment = n_parts > 1 && part_bytes <= kMostPartBytes &&
                            static_cast<uint64_t>(row_blocks) * shape.n_kv_heads * n_parts <= kMostParts;
    LaunchShape blocks{.x = static_cast<int>(shape.n_kv_heads),
                       .y = row_blocks,
                       .threads = kRowThreads,
                       .shared_bytes = attend_shared_bytes(args.most_rows, args.head_dim)};
    if (by_segment) {
      args.parts = at_least<float>(&parts_, part_bytes);
      args.n_parts = blocks.z = static_cast<int>(n_parts);
    }
    launch(type == KvType::kF16   ? Kernel::attend_f16
           : type == KvType::kF32 ? Kernel::attend_f32
                                  : Kernel::attend_q8_0,
           blocks, args);
    if (by_segment)
      launch(Kernel::merge_parts,
             {.x = static_cast<int>(shape.n_kv_heads),
              .y = static_cast<int>(query_rows),
              .threads = kRowThreads},
             args);
  }
}

}  // namespace

std::unique_ptr<CudaDevice> make_cuda_device(std::unique_ptr<Gpu> gpu) {
  return std::make_unique<CudaDeviceImpl>(std::move(gpu));
}

}  // namespace quern::cuda
