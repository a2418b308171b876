#include "kernels/cpu_device.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "kernels/cpu_attention.h"
#include "kernels/cpu_matmul.h"
#include "kernels/cpu_matrix.h"
#include "kernels/cpu_router.h"
#include "kernels/dispatch.h"
#include "kernels/math_f64.h"
#include "kernels/scalar/exp2q.h"
#include "kernels/scalar/fold16.h"
#include "quant/checked_math.h"
#include "quant/machine/cache_sizes.h"
#include "quant/machine/cpu_count.h"
#include "quant/machine/host_memory.h"
#include "quant/parallel.h"

namespace quern {

namespace {

constexpr size_t kTokenGrain = 4;  // rows of some thousand values, one or two microseconds each

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
CpuRouting& cpu(DeviceRouting& routing) { return static_cast<CpuRouting&>(routing); }
const CpuRouting& cpu(const DeviceRouting& routing) { return static_cast<const CpuRouting&>(routing); }
const float* values_of(const DeviceBuffer* vector) {
  return vector == nullptr ? nullptr : cpu(*vector).row(0);
}

// 1 / sqrt(sum of squares + 1e-6), sixteen lanes as in RMSNorm.
float inverse_length(const float* x, size_t n) {
  float lanes[16] = {};
  for (size_t i = 0; i < n; ++i) lanes[i % 16] = std::fma(x[i], x[i], lanes[i % 16]);
  return 1 / std::sqrt(scalar::fold16(lanes) + 1e-6f);
}

// exp(a softplus(x)), in f64.
float gate_decay(float a, float x) {
  constexpr double kLog2e = 0x1.71547652b82fep0;
  const double y = x, softplus = y > 20 ? y : ln(1 + exp2d(y * kLog2e));
  return static_cast<float>(exp2d(static_cast<double>(a) * softplus * kLog2e));
}

class CpuDevice final : public Device {
 public:
  CpuDevice(const KernelSet& kernels, int n_threads, Notice notice)
      : kernels_(kernels),
        n_threads_(n_threads),
        pool_(n_threads, usable_cpus()),
        notice_(std::move(notice)),
        matmul_(kernels, pool_),
        attention_(kernels, pool_) {}

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

  std::unique_ptr<DeviceRouting> allocate_routing(size_t rows, size_t n_experts, size_t n_used) override {
    return std::make_unique<CpuRouting>(rows, n_experts, n_used);
  }
  uint64_t buffer_bytes(uint64_t rows, uint64_t width) const override;
  uint64_t kv_bytes(const KvShape& shape) const override { return shape.bytes(); }
  uint64_t scratch_bytes(size_t max_rows, uint64_t widest_input, std::span<const AttentionShape> attention,
                         uint64_t capacity) const override;

  bool copies_blocks() const override { return true; }
  void save_kv(const DeviceKvCache& cache, size_t segment, size_t state_slot,
               std::span<uint8_t> block) override {
    static_cast<const CpuKvCache&>(cache).save(segment, state_slot, block);
  }
  void load_kv(DeviceKvCache& cache, size_t segment, KvBlockParts parts,
               std::span<const uint8_t> block) override {
    static_cast<CpuKvCache&>(cache).load(segment, parts, block);
  }

  void observe(ProductFn observer) { observer_ = std::move(observer); }

  void run_pass(const std::function<void()>& pass) override {
    const std::lock_guard lock(pass_);
    pool_.parallel_region(pass);
  }
  std::optional<NanPlace> take_nan() override { return std::exchange(nan_, std::nullopt); }

  void embed(const DeviceMatrix& table, std::span<const int32_t> ids, DeviceBuffer& x) override;
  void rms_norm(const DeviceBuffer& x, size_t x_row, size_t n, const DeviceBuffer& weight, float eps,
                DeviceBuffer& y, size_t y_row) override;
  void matmul(const DeviceBuffer& x, size_t n, std::span<const Product> products, bool add) override;
  void layer_norm(const DeviceBuffer& x, size_t x_row, size_t n, const DeviceBuffer& weight,
                  const DeviceBuffer* bias, float eps, DeviceBuffer& y, size_t y_row) override;
  void route(const DeviceBuffer& logits, size_t n, const RouterRule& rule, DeviceRouting& routing) override;
  void expert_matmul(const DeviceBuffer& x, bool sorted, const DeviceRouting& routing,
                     std::span<const ExpertProduct> products) override;
  void combine_experts(const DeviceBuffer& y, const DeviceRouting& routing, DeviceBuffer& out,
                       bool add) override;
  void store_heads(const AttentionShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                   const HeadSteps& steps, DeviceBuffer& q, DeviceBuffer& k, DeviceBuffer& v) override;
  void norm_heads(DeviceBuffer& x, size_t n, const DeviceBuffer& weight, float eps) override;
  void layer_norm_heads(DeviceBuffer& x, size_t n, const DeviceBuffer& weight, size_t head_dim,
                        float eps) override;
  void copy_columns(const DeviceBuffer& x, Columns from, size_t width, size_t n, DeviceBuffer& y,
                    Columns to) override;
  void matmul_columns(const DeviceBuffer& x, Columns from,
                      std::span<const std::unique_ptr<DeviceMatrix>> weights, size_t n, DeviceBuffer& y,
                      Columns to) override;
  void convolve(size_t layer, std::span<const SequenceRows> sequences, const DeviceBuffer& weights,
                const DeviceBuffer* bias, size_t kernel, size_t state_begin, const DeviceBuffer& x,
                DeviceBuffer& y) override;
  void delta_rule(const DeltaShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                  const DeviceBuffer& qkv, const DeviceBuffer& beta, const DeviceBuffer& alpha,
                  const DeviceBuffer& a, const DeviceBuffer& dt, DeviceBuffer& out) override;
  void multiply(DeviceBuffer& x, const DeviceBuffer& y, size_t n) override;
  void attention(const AttentionShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                 const DeviceBuffer& q, DeviceBuffer& out, const DeviceBuffer* sinks) override;
  void activate(Activation kind, DeviceBuffer& gate, const DeviceBuffer* up, size_t n) override;
  void add(DeviceBuffer& x, const DeviceBuffer& y, float factor, size_t n) override;
  void scale(DeviceBuffer& x, float factor, size_t n) override;
  void add_gated(DeviceBuffer& x, const DeviceBuffer& y, const DeviceBuffer& gate, size_t n) override;
  void softcap(DeviceBuffer& x, float cap, size_t n) override;
  void clamp(DeviceBuffer& x, float limit, size_t n) override;
  void upload(std::span<const float> values, DeviceBuffer& x, size_t row) override;
  void download(const DeviceBuffer& x, size_t row, std::span<float> values) override;

 private:
  const MatmulKernel* find_kernel(const TensorView& tensor, MatrixUse use) const;
  void tell_about_fallback(DType dtype);
  // Calls body(begin, end), noexcept, for parts of [0, n_values).
  template <class Body>
  void for_values(size_t n_values, Body&& body) {
    pool_.parallel_for(n_values, matmul_.elementwise_grain(n_values),
                       [&](int, size_t begin, size_t end) noexcept { body(begin, end); });
  }

  const KernelSet& kernels_;
  const int n_threads_;
  std::recursive_mutex pass_;  // held during a pass, by the thread that called it
  ThreadPool pool_;
  const Notice notice_;
  std::vector<DType> told_;  // formats whose fallback the notice has named
  // Of x's rows [begin, end), or of those that `row` names there, from a column on.
  void tell_observer(const DeviceMatrix& weight, const DeviceBuffer& x, size_t begin, size_t end,
                     const uint32_t* row, size_t column = 0) const;

  CpuMatmul matmul_;
  ProductFn observer_;
  Scratch<float> sums_{"sums of experts"}, columns_in_{"columns"}, columns_out_{"columns"};
  CpuAttention attention_;
  DeviceTimes times_;
  std::optional<NanPlace> nan_;
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
  return std::make_unique<CpuMatrix>(tensor, kernel, pool_, done);
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
  pool_.parallel_for(ids.size(), kTokenGrain, [&](int, size_t begin, size_t end) noexcept {
    for (size_t t = begin; t < end; ++t) matrix.decode_row(static_cast<size_t>(ids[t]), cpu(x).row(t));
  });
}

void CpuDevice::rms_norm(const DeviceBuffer& x, size_t x_row, size_t n, const DeviceBuffer& weight, float eps,
                         DeviceBuffer& y, size_t y_row) {
  pool_.parallel_for(n, kTokenGrain, [&](int, size_t begin, size_t end) noexcept {
    for (size_t t = begin; t < end; ++t)
      kernels_.rms_norm(cpu(x).row(x_row + t), cpu(weight).row(0), x.width(), eps, cpu(y).row(y_row + t));
  });
}

void CpuDevice::store_heads(const AttentionShape& shape, size_t layer,
                            std::span<const SequenceRows> sequences, const HeadSteps& steps, DeviceBuffer& q,
                            DeviceBuffer& k, DeviceBuffer& v) {
  const CpuHeadSteps on_host{.q_norm = values_of(steps.q_norm),
                             .k_norm = values_of(steps.k_norm),
                             .eps = steps.eps,
                             .rope = values_of(steps.rope),
                             .rotary_dim = steps.rope == nullptr ? 0 : steps.rope->width(),
                             .pairs = steps.pairs,
                             .q_scale = values_of(steps.q_scale),
                             .normalise_v = steps.normalise_v};
  const size_t bad =
      attention_.store_heads(shape, layer, sequences, on_host, cpu(q).row(0), cpu(k).row(0), cpu(v).row(0));
  const bool is_bad = bad < sequences.back().row_begin + sequences.back().n;
  if (is_bad && !nan_) nan_ = NanPlace{layer, bad};
}

void CpuDevice::norm_heads(DeviceBuffer& x, size_t n, const DeviceBuffer& weight, float eps) {
  const size_t width = weight.width();
  QUERN_CHECK(x.width() % width == 0);
  pool_.parallel_for(n, kTokenGrain, [&](int, size_t begin, size_t end) noexcept {
    for (size_t t = begin; t < end; ++t)
      for (float *head = cpu(x).row(t), *last = head + x.width(); head < last; head += width)
        kernels_.rms_norm(head, cpu(weight).row(0), width, eps, head);
  });
}

void CpuDevice::layer_norm_heads(DeviceBuffer& x, size_t n, const DeviceBuffer& weight, size_t head_dim,
                                 float eps) {
  QUERN_CHECK(x.width() % head_dim == 0 && weight.width() == x.width());
  pool_.parallel_for(n, kTokenGrain, [&](int, size_t begin, size_t end) noexcept {
    for (size_t t = begin; t < end; ++t)
      for (size_t d = 0; d < x.width(); d += head_dim) {
        float* const head = cpu(x).row(t) + d;
        kernels_.layer_norm(head, cpu(weight).row(0) + d, nullptr, head_dim, eps, head);
      }
  });
}

void CpuDevice::copy_columns(const DeviceBuffer& x, Columns from, size_t width, size_t n, DeviceBuffer& y,
                             Columns to) {
  const size_t groups = x.width() / from.stride;
  QUERN_CHECK(groups * from.stride == x.width() && groups * to.stride == y.width());
  QUERN_CHECK(from.column + width <= from.stride && to.column + width <= to.stride);
  pool_.parallel_for(n, kTokenGrain, [&](int, size_t begin, size_t end) noexcept {
    for (size_t t = begin; t < end; ++t)
      for (size_t g = 0; g < groups; ++g)
        std::copy_n(cpu(x).row(t) + g * from.stride + from.column, width,
                    cpu(y).row(t) + g * to.stride + to.column);
  });
}

// Group by group, so that each matrix meets rows that follow one another.
void CpuDevice::matmul_columns(const DeviceBuffer& x, Columns from,
                               std::span<const std::unique_ptr<DeviceMatrix>> weights, size_t n,
                               DeviceBuffer& y, Columns to) {
  const size_t n_groups = weights.size(), k = weights[0]->columns(), rows = weights[0]->rows();
  QUERN_CHECK(n_groups * from.stride == x.width() && n_groups * to.stride == y.width());
  QUERN_CHECK(from.column + k <= from.stride && to.column + rows <= to.stride);
  float* const in = columns_in_.at_least(n_groups * n * k);
  float* const out = columns_out_.at_least(n_groups * n * rows);
  pool_.parallel_for(n_groups, 1, [&](int, size_t begin, size_t end) noexcept {
    for (size_t g = begin; g < end; ++g)
      for (size_t t = 0; t < n; ++t)
        std::copy_n(cpu(x).row(t) + g * from.stride + from.column, k, in + (g * n + t) * k);
  });
  std::vector<CpuRowGroup> groups;
  for (size_t g = 0; g < n_groups; ++g) {
    groups.push_back({g * n, n, {{&cpu(*weights[g]), out, rows}}});
    if (observer_) tell_observer(*weights[g], x, 0, n, nullptr, g * from.stride + from.column);
  }
  matmul_.run_groups(in, n_groups * n, k, nullptr, n_groups * n, groups);
  pool_.parallel_for(n_groups, 1, [&](int, size_t begin, size_t end) noexcept {
    for (size_t g = begin; g < end; ++g)
      for (size_t t = 0; t < n; ++t)
        std::copy_n(out + (g * n + t) * rows, rows, cpu(y).row(t) + g * to.stride + to.column);
  });
}

// A part of the states that a layer has for a sequence.
class StateSlots {
 public:
  StateSlots(const SequenceRows& sequence, size_t layer, size_t begin)
      : cache_(static_cast<const CpuKvCache&>(*sequence.cache)),
        layer_(layer),
        begin_(begin),
        n_rows_(sequence.n) {}
  float* at(size_t slot) const { return cache_.state(layer_, slot) + begin_; }
  // After so many rows the state is kept, in slots from 1 on.
  size_t n_row_slots() const {
    return n_rows_ <= std::min(KvShape::kStateRows, cache_.shape().state_slots) ? n_rows_ - 1 : 0;
  }

 private:
  const CpuKvCache& cache_;
  size_t layer_, begin_, n_rows_;
};

void CpuDevice::convolve(size_t layer, std::span<const SequenceRows> sequences, const DeviceBuffer& weights,
                         const DeviceBuffer* bias, size_t kernel, size_t state_begin, const DeviceBuffer& x,
                         DeviceBuffer& y) {
  const size_t width = x.width(), n_before = kernel - 1;
  QUERN_CHECK(weights.width() == width * kernel && y.width() == width);
  // Columns are independent; their rows follow one another.
  constexpr size_t kColumns = 64;
  pool_.parallel_for(width, kColumns, [&](int, size_t begin, size_t end) noexcept {
    float taps[kColumns];
    for (const SequenceRows& sequence : sequences) {
      const StateSlots states(sequence, layer, state_begin);
      float* const state = states.at(0);
      const auto columns = [&](float* rows, size_t r) { return rows + r * width + begin; };
      for (size_t r = 0; r < n_before; ++r) {
        if (sequence.position == 0)
          std::fill_n(columns(state, r), end - begin, 0.0f);
        else if (sequence.state_from != 0)
          std::copy_n(columns(states.at(sequence.state_from), r), end - begin, columns(state, r));
      }
      const auto row =
          [&](size_t t) -> const float* {  // n_before + t is the first of the sequence's rows here
        return t < n_before ? state + t * width : cpu(x).row(sequence.row_begin + t - n_before);
      };
      for (size_t t = 0; t < sequence.n; ++t) {
        float* const out = cpu(y).row(sequence.row_begin + t);
        std::fill(out + begin, out + end, 0.0f);
        for (size_t j = 0; j < kernel; ++j) {
          for (size_t c = begin; c < end; ++c) taps[c - begin] = cpu(weights).row(0)[c * kernel + j];
          kernels_.add_products(taps, row(t + j) + begin, end - begin, out + begin);
        }
        if (bias != nullptr)
          for (size_t c = begin; c < end; ++c) out[c] = out[c] + cpu(*bias).row(0)[c];
      }
      const auto keep = [&](size_t n_rows, float* to) {  // the state after so many rows
        for (size_t r = 0; r < n_before; ++r)  // ascending: what is read lies behind what is written
          std::copy_n(row(n_rows + r) + begin, end - begin, columns(to, r));
      };
      for (size_t t = 1; t <= states.n_row_slots(); ++t) keep(t, states.at(t));
      keep(sequence.n, state);
      if (sequence.state_to != 0)
        for (size_t r = 0; r < n_before; ++r)
          std::copy_n(columns(state, r), end - begin, columns(states.at(sequence.state_to), r));
    }
  });
}

void CpuDevice::delta_rule(const DeltaShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                           const DeviceBuffer& qkv, const DeviceBuffer& beta, const DeviceBuffer& alpha,
                           const DeviceBuffer& a, const DeviceBuffer& dt, DeviceBuffer& out) {
  const size_t k_width = shape.n_k_heads * shape.k_dim, n_heads = shape.n_v_heads;
  QUERN_CHECK(qkv.width() == 2 * k_width + n_heads * shape.v_dim && shape.k_dim <= kMaxHeadDim);
  const float scale = 1 / std::sqrt(static_cast<float>(shape.k_dim));
  pool_.parallel_for(sequences.size() * n_heads, 1, [&](int, size_t begin, size_t end) noexcept {
    float q[kMaxHeadDim], k[kMaxHeadDim];
    for (size_t item = begin; item < end; ++item) {
      const SequenceRows& sequence = sequences[item / n_heads];
      const size_t h = item % n_heads, size = shape.k_dim * shape.v_dim;
      const StateSlots states(sequence, layer, shape.state_begin + h * size);
      float* const state = states.at(0);
      if (sequence.position == 0)
        std::fill_n(state, size, 0.0f);
      else if (sequence.state_from != 0)
        std::copy_n(states.at(sequence.state_from), size, state);
      for (size_t t = 0; t < sequence.n; ++t) {
        const size_t row = sequence.row_begin + t;
        const float* const values = cpu(qkv).row(row);
        const size_t at = h % shape.n_k_heads * shape.k_dim;
        const float q_norm = inverse_length(values + at, shape.k_dim) * scale;
        const float k_norm = inverse_length(values + k_width + at, shape.k_dim);
        for (size_t i = 0; i < shape.k_dim; ++i) {
          q[i] = values[at + i] * q_norm;
          k[i] = values[k_width + at + i] * k_norm;
        }
        const float decay = gate_decay(cpu(a).row(0)[h], cpu(alpha).row(row)[h] + cpu(dt).row(0)[h]);
        const float b = 1 / (1 + scalar::exp2q(cpu(beta).row(row)[h] * -0x1.715476p0f));
        kernels_.delta_step(state, q, k, values + 2 * k_width + h * shape.v_dim, decay, b, shape.k_dim,
                            shape.v_dim, cpu(out).row(row) + h * shape.v_dim);
        if (t < states.n_row_slots()) std::copy_n(state, size, states.at(t + 1));
      }
      if (sequence.state_to != 0) std::copy_n(state, size, states.at(sequence.state_to));
    }
  });
}

void CpuDevice::multiply(DeviceBuffer& x, const DeviceBuffer& y, size_t n) {
  float* const to = cpu(x).row(0);
  const float* const from = cpu(y).row(0);
  for_values(n * x.width(), [&](size_t begin, size_t end) noexcept {
    for (size_t i = begin; i < end; ++i) to[i] = to[i] * from[i];
  });
}

void CpuDevice::attention(const AttentionShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                          const DeviceBuffer& q, DeviceBuffer& out, const DeviceBuffer* sinks) {
  const AttentionClock clock(&times_);
  for (const SequenceRows& sequence : sequences)
    times_.count_attention(shape, static_cast<const CpuKvCache&>(*sequence.cache).shape().type,
                           sequence.position, sequence.n);
  attention_.attend(shape, layer, sequences, cpu(q).row(0), cpu(out).row(0), values_of(sinks));
}

uint64_t CpuDevice::buffer_bytes(uint64_t rows, uint64_t width) const {
  uint64_t bytes = sizeof(float);
  return checked_mul(bytes, rows, &bytes) && checked_mul(bytes, width, &bytes) ? bytes : UINT64_MAX;
}

uint64_t CpuDevice::scratch_bytes(size_t max_rows, uint64_t widest_input,
                                  std::span<const AttentionShape> attention, uint64_t capacity) const {
  uint64_t bytes = CpuMatmul::scratch_bytes(max_rows, widest_input) + n_threads_ * kMatmulStackBytes;
  uint64_t most = 0;
  for (const AttentionShape& shape : attention)
    if (shape.n_heads != 0)  // a layer without attention
      most = std::max(most, CpuAttention::scratch_bytes(shape, capacity, max_rows, n_threads_));
  return bytes + most;
}

void CpuDevice::layer_norm(const DeviceBuffer& x, size_t x_row, size_t n, const DeviceBuffer& weight,
                           const DeviceBuffer* bias, float eps, DeviceBuffer& y, size_t y_row) {
  pool_.parallel_for(n, kTokenGrain, [&](int, size_t begin, size_t end) noexcept {
    for (size_t t = begin; t < end; ++t)
      kernels_.layer_norm(cpu(x).row(x_row + t), cpu(weight).row(0), values_of(bias), x.width(), eps,
                          cpu(y).row(y_row + t));
  });
}

void CpuDevice::matmul(const DeviceBuffer& x, size_t n, std::span<const Product> products, bool add) {
  std::vector<CpuProduct> on_host;
  for (const Product& product : products) {
    QUERN_CHECK(product.weight->rows() == product.y->width() && product.weight->columns() == x.width());
    on_host.push_back(
        {&cpu(*product.weight), cpu(*product.y).row(0), product.y->width(), values_of(product.bias)});
  }
  if (observer_)
    for (const Product& product : products) tell_observer(*product.weight, x, 0, n, nullptr);
  matmul_.run(cpu(x).row(0), n, x.width(), on_host, add);
}

void CpuDevice::tell_observer(const DeviceMatrix& weight, const DeviceBuffer& x, size_t begin, size_t end,
                              const uint32_t* row, size_t column) const {
  std::vector<const float*> rows;
  for (size_t i = begin; i < end; ++i) rows.push_back(cpu(x).row(row != nullptr ? row[i] : i) + column);
  observer_(weight, rows);
}

void CpuDevice::route(const DeviceBuffer& logits, size_t n, const RouterRule& rule, DeviceRouting& routing) {
  CpuRouting& r = cpu(routing);
  QUERN_CHECK(logits.width() == r.n_experts && n * r.n_used <= r.place.size());
  pool_.parallel_for(n, kTokenGrain, [&](int, size_t begin, size_t end) noexcept {
    for (size_t t = begin; t < end; ++t)
      choose_experts(rule, cpu(logits).row(t), values_of(rule.bias), values_of(rule.factors), r.n_experts,
                     r.n_used, &r.expert[t * r.n_used], &r.weight[t * r.n_used]);
  });
  sort_by_expert(n, &r);
}

void CpuDevice::expert_matmul(const DeviceBuffer& x, bool sorted, const DeviceRouting& routing,
                              std::span<const ExpertProduct> products) {
  const CpuRouting& r = cpu(routing);
  std::vector<CpuRowGroup> groups;
  for (size_t e = 0; e < r.n_experts; ++e) {
    if (r.begin[e] == r.begin[e + 1]) continue;
    CpuRowGroup group{r.begin[e], r.begin[e + 1] - r.begin[e], {}};
    for (const ExpertProduct& product : products) {
      const CpuMatrix& weight = cpu(*product.weights[e]);
      QUERN_CHECK(weight.rows() == product.y->width() && weight.columns() == x.width());
      const float* bias = values_of(product.bias);
      group.products.push_back({&weight, cpu(*product.y).row(0), product.y->width(),
                                bias == nullptr ? nullptr : bias + e * weight.rows()});
      if (observer_)
        tell_observer(*product.weights[e], x, r.begin[e], r.begin[e + 1], sorted ? nullptr : r.row.data());
    }
    groups.push_back(std::move(group));
  }
  const size_t n_choices = r.n * r.n_used;
  matmul_.run_groups(cpu(x).row(0), sorted ? n_choices : r.n, x.width(), sorted ? nullptr : r.row.data(),
                     n_choices, groups);
}

void CpuDevice::combine_experts(const DeviceBuffer& y, const DeviceRouting& routing, DeviceBuffer& out,
                                bool add) {
  const CpuRouting& r = cpu(routing);
  const size_t width = y.width();
  QUERN_CHECK(out.width() == width);
  float* const sums = sums_.at_least(width * static_cast<size_t>(pool_.size()));
  pool_.parallel_for(r.n, kTokenGrain, [&](int thread, size_t begin, size_t end) noexcept {
    float* const sum = sums + width * static_cast<size_t>(thread);
    for (size_t t = begin; t < end; ++t) {
      std::fill(sum, sum + width, 0.0f);
      for (size_t s = t * r.n_used; s < (t + 1) * r.n_used; ++s)
        kernels_.add_scaled(cpu(y).row(r.place[s]), r.weight[s], width, sum);
      float* const to = cpu(out).row(t);
      for (size_t i = 0; i < width; ++i) to[i] = add ? to[i] + sum[i] : sum[i];
    }
  });
}

void CpuDevice::activate(Activation kind, DeviceBuffer& gate, const DeviceBuffer* up, size_t n) {
  QUERN_CHECK(is_gated(kind) == (up != nullptr));
  float* const g = cpu(gate).row(0);
  const float* const u = values_of(up);
  for_values(n * gate.width(), [&](size_t begin, size_t end) noexcept {  // rows follow one another
    kernels_.activate(kind, g + begin, u == nullptr ? nullptr : u + begin, end - begin, g + begin);
  });
}

void CpuDevice::add(DeviceBuffer& x, const DeviceBuffer& y, float factor, size_t n) {
  float* const to = cpu(x).row(0);
  const float* const from = cpu(y).row(0);
  for_values(n * x.width(), [&](size_t begin, size_t end) noexcept {
    for (size_t i = begin; i < end; ++i) to[i] = to[i] + from[i] * factor;
  });
}

void CpuDevice::scale(DeviceBuffer& x, float factor, size_t n) {
  float* const values = cpu(x).row(0);
  for_values(n * x.width(), [&](size_t begin, size_t end) noexcept {
    for (size_t i = begin; i < end; ++i) values[i] = values[i] * factor;
  });
}

void CpuDevice::add_gated(DeviceBuffer& x, const DeviceBuffer& y, const DeviceBuffer& gate, size_t n) {
  QUERN_CHECK(gate.width() == 1 && x.width() == y.width());
  pool_.parallel_for(n, kTokenGrain, [&](int, size_t begin, size_t end) noexcept {
    for (size_t t = begin; t < end; ++t) {
      const float s = 1 / (1 + scalar::exp2q(*cpu(gate).row(t) * -0x1.715476p0f));
      float* const to = cpu(x).row(t);
      const float* const from = cpu(y).row(t);
      for (size_t i = 0; i < x.width(); ++i) to[i] = to[i] + from[i] * s;
    }
  });
}

void CpuDevice::softcap(DeviceBuffer& x, float cap, size_t n) {
  float* const values = cpu(x).row(0);
  const Softcap shape = softcap_of(cap, /*log2_units=*/false);
  for_values(n * x.width(), [&](size_t begin, size_t end) noexcept {
    kernels_.softcap(values + begin, end - begin, shape);
  });
}

void CpuDevice::clamp(DeviceBuffer& x, float limit, size_t n) {
  float* const values = cpu(x).row(0);
  for_values(n * x.width(), [&](size_t begin, size_t end) noexcept {
    for (size_t i = begin; i < end; ++i) {
      const float v = values[i];
      values[i] = v > limit ? limit : v < -limit ? -limit : v;
    }
  });
}

void CpuDevice::upload(std::span<const float> values, DeviceBuffer& x, size_t row) {
  QUERN_CHECK(values.size() % x.width() == 0 && row + values.size() / x.width() <= x.rows());
  std::memcpy(cpu(x).row(row), values.data(), values.size_bytes());
}

void CpuDevice::download(const DeviceBuffer& x, size_t row, std::span<float> values) {
  QUERN_CHECK(values.size() % x.width() == 0 && row + values.size() / x.width() <= x.rows());
  std::memcpy(values.data(), cpu(x).row(row), values.size_bytes());
}

}  // namespace

void observe_products(Device& device, ProductFn observer) {
  auto* const cpu_device = dynamic_cast<CpuDevice*>(&device);
  QUERN_CHECK(cpu_device != nullptr);
  cpu_device->observe(std::move(observer));
}

std::unique_ptr<Device> make_cpu_device(const KernelSet& kernels, int n_threads, Notice notice) {
  QUERN_CHECK(n_threads >= 1);
  return std::make_unique<CpuDevice>(kernels, n_threads, std::move(notice));
}

}  // namespace quern
