#include "kernels/split_device.h"

#include <algorithm>
#include <string>
#include <tuple>

namespace quern {
namespace {

constexpr size_t kHost = 0;

// On each device where it was needed up to now. Rows [0, n_valid[d]) of device d's are current.
struct SplitBuffer final : DeviceBuffer {
  SplitBuffer(size_t rows, size_t width, size_t n_devices)
      : DeviceBuffer(rows, width), on(n_devices), n_valid(n_devices) {}
  std::vector<std::unique_ptr<DeviceBuffer>> on;
  std::vector<size_t> n_valid;
};

// A tied embedding whose product is elsewhere than its rows.
struct TiedMatrix final : DeviceMatrix {
  TiedMatrix(std::unique_ptr<DeviceMatrix> rows_in, std::unique_ptr<DeviceMatrix> product_in)
      : DeviceMatrix(product_in->dtype(), product_in->rows(), product_in->columns(), product_in->bytes()),
        gathered(std::move(rows_in)),
        multiplied(std::move(product_in)) {}
  std::unique_ptr<DeviceMatrix> gathered, multiplied;
};

struct SplitCache final : DeviceKvCache {
  std::vector<std::unique_ptr<DeviceKvCache>> on;
};

struct SplitRouting final : DeviceRouting {
  std::vector<std::unique_ptr<DeviceRouting>> on;
};

// Every object that a SplitDevice is given was made by one, or, matrices, by the device of their layer.
const SplitBuffer& split(const DeviceBuffer& buffer) { return static_cast<const SplitBuffer&>(buffer); }

class SplitDevice final : public Device {
 public:
  SplitDevice(std::vector<std::unique_ptr<Device>> devices, LayerPlaces places, CrossingCounts* counts)
      : devices_(std::move(devices)),
        places_(std::move(places)),
        counts_(counts == nullptr ? own_counts_ : *counts) {
    QUERN_CHECK(!devices_.empty() && places_.output < devices_.size());
    for (const size_t place : places_.layers) QUERN_CHECK(place < devices_.size());
  }

  std::string name() const override {
    std::string name;
    for (const auto& device : devices_) name += (name.empty() ? "" : " and ") + device->name();
    return name;
  }
  DeviceTimes times() const override {
    DeviceTimes sum;
    for (const auto& device : devices_) {
      const DeviceTimes times = device->times();
      sum.attention_seconds += times.attention_seconds;
      sum.attention_kv_bytes += times.attention_kv_bytes;
      sum.attention_macs += times.attention_macs;
    }
    return sum;
  }

  // --- memory ---
  MatrixMemory matrix_memory(const TensorView& tensor, MatrixUse use) const override {
    if (here_ == kHost || use == MatrixUse::kGather) return devices_[kHost]->matrix_memory(tensor, use);
    if (use == MatrixUse::kBoth) return devices_[kHost]->matrix_memory(tensor, MatrixUse::kGather);
    return {0, false};
  }
  std::unique_ptr<DeviceMatrix> load_matrix(const TensorView& tensor, MatrixUse use,
                                            const SourceDone& done) override {
    if (here_ == kHost || use == MatrixUse::kGather) return devices_[kHost]->load_matrix(tensor, use, done);
    if (use == MatrixUse::kProduct) return here().load_matrix(tensor, use, done);
    // The rows stay where the host reads them, so nothing is done with.
    auto product = here().load_matrix(tensor, MatrixUse::kProduct, {});
    return std::make_unique<TiedMatrix>(devices_[kHost]->load_matrix(tensor, MatrixUse::kGather, done),
                                        std::move(product));
  }
  std::unique_ptr<DeviceBuffer> load_vector(const TensorView& tensor) override {
    auto buffer = std::make_unique<SplitBuffer>(1, tensor.n_elements(), devices_.size());
    buffer->on[here_] = here().load_vector(tensor);
    buffer->n_valid[here_] = 1;
    return buffer;
  }
  std::unique_ptr<DeviceBuffer> allocate(size_t rows, size_t width) override {
    auto buffer = std::make_unique<SplitBuffer>(rows, width, devices_.size());
    for (size_t d = 0; d < devices_.size(); ++d) buffer->on[d] = devices_[d]->allocate(rows, width);
    return buffer;
  }
  std::unique_ptr<DeviceKvCache> allocate_kv(const KvShape& shape) override {
    auto cache = std::make_unique<SplitCache>();
    for (size_t d = 0; d < devices_.size(); ++d)
      cache->on.push_back(devices_[d]->allocate_kv(shape_on(d, shape)));
    return cache;
  }
  std::unique_ptr<DeviceRouting> allocate_routing(size_t rows, size_t n_experts, size_t n_used) override {
    auto routing = std::make_unique<SplitRouting>();
    for (const auto& device : devices_)
      routing->on.push_back(device->allocate_routing(rows, n_experts, n_used));
    return routing;
  }
  uint64_t buffer_bytes(uint64_t rows, uint64_t width) const override {
    return devices_[kHost]->buffer_bytes(rows, width);
  }
  uint64_t kv_bytes(const KvShape& shape) const override {
    return devices_[kHost]->kv_bytes(shape_on(kHost, shape));
  }
  uint64_t scratch_bytes(size_t max_rows, uint64_t widest_input, std::span<const AttentionShape> attention,
                         uint64_t capacity) const override {
    return devices_[kHost]->scratch_bytes(max_rows, widest_input, attention, capacity);
  }
  void reserve_scratch(size_t max_rows, uint64_t widest_input, std::span<const AttentionShape> attention,
                       uint64_t capacity) override {
    for (const auto& device : devices_) device->reserve_scratch(max_rows, widest_input, attention, capacity);
  }

  void run_pass(const std::function<void()>& pass) override { run_on(0, pass); }
  void enter_layer(size_t layer) override {
    here_ = layer < places_.layers.size() ? places_.layers[layer]
            : layer == kBeforeLayers      ? kHost
                                          : places_.output;
  }
  std::optional<NanPlace> take_nan() override {
    std::optional<NanPlace> first;
    for (const auto& device : devices_) {
      const std::optional<NanPlace> found = device->take_nan();
      if (found && (!first || std::tie(found->layer, found->row) < std::tie(first->layer, first->row)))
        first = found;
    }
    return first;
  }

  // --- operations ---
  void embed(const DeviceMatrix& table, std::span<const int32_t> ids, DeviceBuffer& x) override {
    const auto* const tied = dynamic_cast<const TiedMatrix*>(&table);
    devices_[kHost]->embed(tied != nullptr ? *tied->gathered : table, ids, write(x, 0, ids.size(), kHost));
  }
  void rms_norm(const DeviceBuffer& x, size_t x_row, size_t n, const DeviceBuffer& weight, float eps,
                DeviceBuffer& y, size_t y_row) override {
    const DeviceBuffer& from = read(x, x_row + n);
    here().rms_norm(from, x_row, n, read(weight, 1), eps, write(y, y_row, n), y_row);
  }
  void layer_norm(const DeviceBuffer& x, size_t x_row, size_t n, const DeviceBuffer& weight,
                  const DeviceBuffer* bias, float eps, DeviceBuffer& y, size_t y_row) override {
    const DeviceBuffer& from = read(x, x_row + n);
    here().layer_norm(from, x_row, n, read(weight, 1), vector(bias), eps, write(y, y_row, n), y_row);
  }
  void matmul(const DeviceBuffer& x, size_t n, std::span<const Product> products, bool add) override {
    std::vector<Product> there;
    for (const Product& product : products) {
      const auto* const tied = dynamic_cast<const TiedMatrix*>(product.weight);
      there.push_back({tied != nullptr ? tied->multiplied.get() : product.weight,
                       add ? &change(*product.y, n) : &write(*product.y, 0, n), vector(product.bias)});
    }
    here().matmul(read(x, n), n, there, add);
  }
  void route(const DeviceBuffer& logits, size_t n, const RouterRule& rule, DeviceRouting& routing) override {
    RouterRule there = rule;
    there.bias = vector(rule.bias);
    there.factors = vector(rule.factors);
    here().route(read(logits, n), n, there, on_here(routing));
  }
  void expert_matmul(const DeviceBuffer& x, bool sorted, const DeviceRouting& routing,
                     std::span<const ExpertProduct> products) override {
    std::vector<ExpertProduct> there;
    for (const ExpertProduct& product : products)
      there.push_back({product.weights, &write(*product.y, 0, product.y->rows()), vector(product.bias)});
    here().expert_matmul(read(x, most_valid(x)), sorted, on_here(routing), there);
  }
  void combine_experts(const DeviceBuffer& y, const DeviceRouting& routing, DeviceBuffer& out,
                       bool add) override {
    const size_t rows = add ? most_valid(out) : out.rows();
    here().combine_experts(read(y, most_valid(y)), on_here(routing),
                           add ? change(out, rows) : write(out, 0, rows), add);
  }
  void store_heads(const AttentionShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                   const HeadSteps& steps, DeviceBuffer& q, DeviceBuffer& k, DeviceBuffer& v) override {
    const size_t n = count_rows(sequences);
    HeadSteps there = steps;
    there.q_norm = vector(steps.q_norm);
    there.k_norm = vector(steps.k_norm);
    if (steps.rope != nullptr) there.rope = &read(*steps.rope, n);
    if (steps.q_scale != nullptr) there.q_scale = &read(*steps.q_scale, n);
    here().store_heads(shape, layer, on_here(sequences), there, change(q, n), change(k, n), change(v, n));
  }
  void convolve(size_t layer, std::span<const SequenceRows> sequences, const DeviceBuffer& weights,
                const DeviceBuffer* bias, size_t kernel, size_t state_begin, const DeviceBuffer& x,
                DeviceBuffer& y) override {
    const size_t n = count_rows(sequences);
    here().convolve(layer, on_here(sequences), read(weights, 1), vector(bias), kernel, state_begin,
                    read(x, n), write(y, 0, n));
  }
  void delta_rule(const DeltaShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                  const DeviceBuffer& qkv, const DeviceBuffer& beta, const DeviceBuffer& alpha,
                  const DeviceBuffer& a, const DeviceBuffer& dt, DeviceBuffer& out) override {
    const size_t n = count_rows(sequences);
    here().delta_rule(shape, layer, on_here(sequences), read(qkv, n), read(beta, n), read(alpha, n),
                      read(a, 1), read(dt, 1), write(out, 0, n));
  }
  void multiply(DeviceBuffer& x, const DeviceBuffer& y, size_t n) override {
    const DeviceBuffer& from = read(y, n);
    here().multiply(change(x, n), from, n);
  }
  void norm_heads(DeviceBuffer& x, size_t n, const DeviceBuffer& weight, float eps) override {
    here().norm_heads(change(x, n), n, read(weight, 1), eps);
  }
  void layer_norm_heads(DeviceBuffer& x, size_t n, const DeviceBuffer& weight, size_t head_dim,
                        float eps) override {
    here().layer_norm_heads(change(x, n), n, read(weight, 1), head_dim, eps);
  }
  void clamp(DeviceBuffer& x, float limit, size_t n) override { here().clamp(change(x, n), limit, n); }
  void copy_columns(const DeviceBuffer& x, Columns from, size_t width, size_t n, DeviceBuffer& y,
                    Columns to) override {
    const DeviceBuffer& source = read(x, n);
    here().copy_columns(source, from, width, n, change(y, n), to);
  }
  void matmul_columns(const DeviceBuffer& x, Columns from,
                      std::span<const std::unique_ptr<DeviceMatrix>> weights, size_t n, DeviceBuffer& y,
                      Columns to) override {
    here().matmul_columns(read(x, n), from, weights, n, change(y, n), to);
  }
  // Of the layer whose cache is read, wherever the layer is that reads it.
  void attention(const AttentionShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                 const DeviceBuffer& q, DeviceBuffer& out, const DeviceBuffer* sinks) override {
    const size_t before = here_, n = count_rows(sequences);
    enter_layer(layer);
    here().attention(shape, layer, on_here(sequences), read(q, n), write(out, 0, n), vector(sinks));
    here_ = before;
  }
  void activate(Activation kind, DeviceBuffer& gate, const DeviceBuffer* up, size_t n) override {
    const DeviceBuffer* const from = up == nullptr ? nullptr : &read(*up, n);
    here().activate(kind, change(gate, n), from, n);
  }
  void add(DeviceBuffer& x, const DeviceBuffer& y, float factor, size_t n) override {
    const DeviceBuffer& from = read(y, n);
    here().add(change(x, n), from, factor, n);
  }
  void scale(DeviceBuffer& x, float factor, size_t n) override { here().scale(change(x, n), factor, n); }
  void add_gated(DeviceBuffer& x, const DeviceBuffer& y, const DeviceBuffer& gate, size_t n) override {
    const DeviceBuffer &from = read(y, n), &by = read(gate, n);
    here().add_gated(change(x, n), from, by, n);
  }
  void softcap(DeviceBuffer& x, float cap, size_t n) override { here().softcap(change(x, n), cap, n); }
  void upload(std::span<const float> values, DeviceBuffer& x, size_t row) override {
    const size_t d = where(x), n = values.size() / x.width();  // where its other rows are
    devices_[d]->upload(values, write(x, row, n, d), row);
  }
  void download(const DeviceBuffer& x, size_t row, std::span<float> values) override {
    const size_t d = where(x);
    devices_[d]->download(*split(x).on[d], row, values);
  }

 private:
  Device& here() const { return *devices_[here_]; }
  void run_on(size_t d, const std::function<void()>& pass) {
    if (d == devices_.size()) return pass();
    devices_[d]->run_pass([&] { run_on(d + 1, pass); });
  }
  KvShape shape_on(size_t d, const KvShape& shape) const {
    KvShape there = shape;
    for (size_t layer = 0; layer < there.layers.size(); ++layer)
      if (places_.layers[layer] != d) there.layers[layer] = {};
    return there;
  }
  static size_t count_rows(std::span<const SequenceRows> sequences) {
    return sequences.empty() ? 0 : sequences.back().row_begin + sequences.back().n;
  }

  // The device that has most current rows; of several the first.
  static size_t where(const DeviceBuffer& x) {
    const std::vector<size_t>& n = split(x).n_valid;
    return static_cast<size_t>(std::max_element(n.begin(), n.end()) - n.begin());
  }
  static size_t most_valid(const DeviceBuffer& x) { return split(x).n_valid[where(x)]; }

  // Makes the first n rows current on device d, as far as they are anywhere.
  SplitBuffer& bring(const DeviceBuffer& x, size_t n, size_t d) {
    SplitBuffer& buffer = const_cast<SplitBuffer&>(split(x));  // where it lies is no value
    if (buffer.on[d] == nullptr) buffer.on[d] = devices_[d]->allocate(x.rows(), x.width());
    const size_t from = where(x), begin = buffer.n_valid[d], end = std::min(n, buffer.n_valid[from]);
    if (begin >= end) return buffer;
    crossing_.resize((end - begin) * x.width());
    devices_[from]->download(*buffer.on[from], begin, crossing_);
    devices_[d]->upload(crossing_, *buffer.on[d], begin);
    buffer.n_valid[d] = end;
    ++counts_.copies;
    counts_.bytes += crossing_.size() * sizeof(float);
    return buffer;
  }
  const DeviceBuffer& read(const DeviceBuffer& x, size_t n) { return *bring(x, n, here_).on[here_]; }
  const DeviceBuffer* vector(const DeviceBuffer* x) { return x == nullptr ? nullptr : &read(*x, 1); }
  // Rows [row, row + n) will be written; those before them stay.
  DeviceBuffer& write(DeviceBuffer& x, size_t row, size_t n, size_t d) {
    SplitBuffer& buffer = bring(x, row, d);
    for (size_t& n_valid : buffer.n_valid)
      n_valid = &n_valid == &buffer.n_valid[d] ? std::max(n_valid, row + n) : std::min(n_valid, row);
    return *buffer.on[d];
  }
  DeviceBuffer& write(DeviceBuffer& x, size_t row, size_t n) { return write(x, row, n, here_); }
  // The first n rows will be changed, or some of their columns written.
  DeviceBuffer& change(DeviceBuffer& x, size_t n) {
    bring(x, n, here_);
    return write(x, 0, n, here_);
  }

  DeviceRouting& on_here(DeviceRouting& routing) const {
    return *static_cast<SplitRouting&>(routing).on[here_];
  }
  const DeviceRouting& on_here(const DeviceRouting& routing) const {
    return *static_cast<const SplitRouting&>(routing).on[here_];
  }
  std::span<const SequenceRows> on_here(std::span<const SequenceRows> sequences) {
    sequences_.assign(sequences.begin(), sequences.end());
    for (SequenceRows& rows : sequences_) rows.cache = static_cast<SplitCache*>(rows.cache)->on[here_].get();
    return sequences_;
  }

  const std::vector<std::unique_ptr<Device>> devices_;
  const LayerPlaces places_;
  CrossingCounts own_counts_;
  CrossingCounts& counts_;
  size_t here_ = kHost;
  std::vector<float> crossing_;
  std::vector<SequenceRows> sequences_;
};

}  // namespace

std::unique_ptr<Device> make_split_device(std::vector<std::unique_ptr<Device>> devices, LayerPlaces places,
                                          CrossingCounts* counts) {
  return std::make_unique<SplitDevice>(std::move(devices), std::move(places), counts);
}

}  // namespace quern
