#include "tests/support/two_devices.h"

#include <algorithm>
#include <charconv>
#include <tuple>

#include "quant/panel_layout.h"

namespace quern::test {
namespace {

constexpr int kDevices = 2;
constexpr size_t kLeastSplitRows = 32;

struct TwoBuffer final : DeviceBuffer {
  TwoBuffer(size_t rows, size_t width) : DeviceBuffer(rows, width) {}
  std::unique_ptr<DeviceBuffer> on[kDevices];
  bool valid[kDevices] = {true, true};
};

// Rows of a matrix that lie on one device.
struct Piece {
  int device;
  uint64_t begin, end;
  std::unique_ptr<DeviceMatrix> matrix;
};

struct TwoMatrix final : DeviceMatrix {
  explicit TwoMatrix(const TensorView& tensor)
      : DeviceMatrix(tensor.dtype, tensor.rows(), tensor.columns(), tensor.n_bytes) {}
  std::vector<Piece> pieces;  // ascending, all rows
};

struct TwoCache final : DeviceKvCache {
  std::unique_ptr<DeviceKvCache> on[kDevices];
  uint64_t block_bytes[kDevices] = {};
};

struct TwoRouting final : DeviceRouting {
  std::unique_ptr<DeviceRouting> on[kDevices];
};

TwoMatrix& two(DeviceMatrix& matrix) { return static_cast<TwoMatrix&>(matrix); }
const TwoMatrix& two(const DeviceMatrix& matrix) { return static_cast<const TwoMatrix&>(matrix); }

int device_of_layer(size_t layer) { return static_cast<int>(layer % kDevices); }

// "blk.3.attn_q.weight": that of layer 3; else the first.
int device_of_tensor(const std::string& name) {
  size_t layer = 0;
  if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return device_of_layer(layer);
}

// Where the rows of a matrix go, without the matrices.
std::vector<Piece> pieces_of(const TensorView& tensor, MatrixUse use) {
  std::vector<Piece> pieces;
  const int device = device_of_tensor(tensor.name);
  const uint64_t rows = tensor.rows();
  uint64_t border = rows / 2 / kPanelRows * kPanelRows;
  if (use != MatrixUse::kProduct || rows < kLeastSplitRows) border = 0;
  if (border != 0) pieces.push_back({device, 0, border, nullptr});
  pieces.push_back({border == 0 ? device : 1 - device, border, rows, nullptr});
  return pieces;
}

// The matrices of one piece of every expert, as Device takes them; given back at the end.
class BorrowedPieces {
 public:
  BorrowedPieces(std::span<const std::unique_ptr<DeviceMatrix>> matrices, size_t piece)
      : owners_(matrices), piece_(piece) {
    for (const auto& matrix : owners_) pieces_.push_back(std::move(two(*matrix).pieces[piece_].matrix));
  }
  ~BorrowedPieces() {
    for (size_t i = 0; i < pieces_.size(); ++i)
      two(*owners_[i]).pieces[piece_].matrix = std::move(pieces_[i]);
  }
  BorrowedPieces(const BorrowedPieces&) = delete;
  BorrowedPieces& operator=(const BorrowedPieces&) = delete;
  std::span<const std::unique_ptr<DeviceMatrix>> all() const { return pieces_; }

 private:
  std::span<const std::unique_ptr<DeviceMatrix>> owners_;
  size_t piece_;
  std::vector<std::unique_ptr<DeviceMatrix>> pieces_;
};

class TwoDevices final : public Device {
 public:
  TwoDevices(std::unique_ptr<Device> first, std::unique_ptr<Device> second, TwoDevicesCounts* counts)
      : devices_{std::move(first), std::move(second)}, counts_(counts == nullptr ? own_counts_ : *counts) {}

  std::string name() const override { return devices_[0]->name() + " and " + devices_[1]->name(); }
  DeviceTimes times() const override {
    DeviceTimes sum = devices_[0]->times();
    const DeviceTimes other = devices_[1]->times();
    sum.attention_seconds += other.attention_seconds;
    sum.attention_kv_bytes += other.attention_kv_bytes;
    sum.attention_macs += other.attention_macs;
    return sum;
  }

  // --- memory ---
  MatrixMemory matrix_memory(const TensorView& tensor, MatrixUse use) const override {
    MatrixMemory all{0, false};
    for (const Piece& piece : pieces_of(tensor, use)) {
      const MatrixMemory memory =
          devices_[piece.device]->matrix_memory(rows_of(tensor, piece.begin, piece.end), use);
      all.allocated += memory.allocated;
      all.keeps_source = all.keeps_source || memory.keeps_source;
    }
    return all;
  }
  std::unique_ptr<DeviceMatrix> load_matrix(const TensorView& tensor, MatrixUse use,
                                            const SourceDone& done) override {
    auto matrix = std::make_unique<TwoMatrix>(tensor);
    matrix->pieces = pieces_of(tensor, use);
    for (Piece& piece : matrix->pieces)
      piece.matrix = devices_[piece.device]->load_matrix(rows_of(tensor, piece.begin, piece.end), use, done);
    return matrix;
  }
  std::unique_ptr<DeviceBuffer> load_vector(const TensorView& tensor) override {
    auto buffer = std::make_unique<TwoBuffer>(1, tensor.n_elements());
    for (int d = 0; d < kDevices; ++d) buffer->on[d] = devices_[d]->load_vector(tensor);
    return buffer;
  }
  std::unique_ptr<DeviceBuffer> allocate(size_t rows, size_t width) override {
    auto buffer = std::make_unique<TwoBuffer>(rows, width);
    for (int d = 0; d < kDevices; ++d) buffer->on[d] = devices_[d]->allocate(rows, width);
    return buffer;
  }
  std::unique_ptr<DeviceKvCache> allocate_kv(const KvShape& shape) override {
    auto cache = std::make_unique<TwoCache>();
    for (int d = 0; d < kDevices; ++d) {
      cache->on[d] = devices_[d]->allocate_kv(shape_on(d, shape));
      cache->block_bytes[d] = shape_on(d, shape).block_bytes();
    }
    return cache;
  }
  bool copies_blocks() const override { return devices_[0]->copies_blocks() && devices_[1]->copies_blocks(); }
  // The one's part of a block, then the other's.
  void save_kv(const DeviceKvCache& cache, size_t segment, size_t state_slot,
               std::span<uint8_t> block) override {
    const auto& two = static_cast<const TwoCache&>(cache);
    devices_[0]->save_kv(*two.on[0], segment, state_slot, block.first(two.block_bytes[0]));
    devices_[1]->save_kv(*two.on[1], segment, state_slot, block.subspan(two.block_bytes[0]));
  }
  void load_kv(DeviceKvCache& cache, size_t segment, KvBlockParts parts,
               std::span<const uint8_t> block) override {
    auto& two = static_cast<TwoCache&>(cache);
    devices_[0]->load_kv(*two.on[0], segment, parts, block.first(two.block_bytes[0]));
    devices_[1]->load_kv(*two.on[1], segment, parts, block.subspan(two.block_bytes[0]));
  }
  std::unique_ptr<DeviceRouting> allocate_routing(size_t rows, size_t n_experts, size_t n_used) override {
    auto routing = std::make_unique<TwoRouting>();
    for (int d = 0; d < kDevices; ++d)
      routing->on[d] = devices_[d]->allocate_routing(rows, n_experts, n_used);
    return routing;
  }
  uint64_t buffer_bytes(uint64_t rows, uint64_t width) const override {
    return devices_[0]->buffer_bytes(rows, width) + devices_[1]->buffer_bytes(rows, width);
  }
  uint64_t kv_bytes(const KvShape& shape) const override {
    return devices_[0]->kv_bytes(shape_on(0, shape)) + devices_[1]->kv_bytes(shape_on(1, shape));
  }
  uint64_t scratch_bytes(size_t max_rows, uint64_t widest_input, std::span<const AttentionShape> attention,
                         uint64_t capacity) const override {
    return devices_[0]->scratch_bytes(max_rows, widest_input, attention, capacity) +
           devices_[1]->scratch_bytes(max_rows, widest_input, attention, capacity);
  }

  void run_pass(const std::function<void()>& pass) override {
    devices_[0]->run_pass([&] { devices_[1]->run_pass(pass); });
  }
  std::optional<NanPlace> take_nan() override {
    const std::optional<NanPlace> a = devices_[0]->take_nan(), b = devices_[1]->take_nan();
    if (!a || !b) return a ? a : b;
    return std::tie(a->layer, a->row) < std::tie(b->layer, b->row) ? a : b;
  }

  // --- operations ---
  void embed(const DeviceMatrix& table, std::span<const int32_t> ids, DeviceBuffer& x) override {
    const Piece& piece = two(table).pieces.front();
    devices_[piece.device]->embed(*piece.matrix, ids, change(x, piece.device));
  }
  void rms_norm(const DeviceBuffer& x, size_t x_row, size_t n, const DeviceBuffer& weight, float eps,
                DeviceBuffer& y, size_t y_row) override {
    const int d = place(x);
    devices_[d]->rms_norm(read(x, d), x_row, n, read(weight, d), eps, change(y, d), y_row);
  }
  void layer_norm(const DeviceBuffer& x, size_t x_row, size_t n, const DeviceBuffer& weight,
                  const DeviceBuffer* bias, float eps, DeviceBuffer& y, size_t y_row) override {
    const int d = place(x);
    devices_[d]->layer_norm(read(x, d), x_row, n, read(weight, d), read(bias, d), eps, change(y, d), y_row);
  }
  void matmul(const DeviceBuffer& x, size_t n, std::span<const Product> products, bool add) override {
    for (const Product& product : products)
      for (const Piece& piece : two(*product.weight).pieces) {
        const int d = piece.device;
        const Columns part = columns_of(piece, product.weight->rows());
        const size_t rows = piece.end - piece.begin;
        if (rows == part.stride) {
          const Product whole{piece.matrix.get(), &change(*product.y, d), read(product.bias, d)};
          devices_[d]->matmul(read(x, d), n, {&whole, 1}, add);
          continue;
        }
        ++counts_.split_products;
        const auto y = devices_[d]->allocate(n, rows);
        if (add) devices_[d]->copy_columns(read(*product.y, d), part, rows, n, *y, {0, rows});
        const auto bias = bias_of(product.bias, piece, part);
        const Product half{piece.matrix.get(), y.get(), bias.get()};
        devices_[d]->matmul(read(x, d), n, {&half, 1}, add);
        devices_[d]->copy_columns(*y, {0, rows}, rows, n, change(*product.y, d), part);
      }
  }
  // Both know the choices, since the rows of experts are split as well.
  void route(const DeviceBuffer& logits, size_t n, const RouterRule& rule, DeviceRouting& routing) override {
    for (int d = 0; d < kDevices; ++d) {
      RouterRule there = rule;
      there.bias = read(rule.bias, d);
      there.factors = read(rule.factors, d);
      devices_[d]->route(read(logits, d), n, there, on(routing, d));
    }
  }
  void expert_matmul(const DeviceBuffer& x, bool sorted, const DeviceRouting& routing,
                     std::span<const ExpertProduct> products) override {
    for (const ExpertProduct& product : products) {
      const TwoMatrix& first = two(*product.weights.front());
      for (size_t p = 0; p < first.pieces.size(); ++p) {
        const Piece& piece = first.pieces[p];
        const int d = piece.device;
        const Columns part = columns_of(piece, first.rows());
        const size_t rows = piece.end - piece.begin;
        const auto y = devices_[d]->allocate(product.y->rows(), rows);
        const auto bias = bias_of(product.bias, piece, part);
        const BorrowedPieces weights(product.weights, p);
        const ExpertProduct half{weights.all(), y.get(), bias.get()};
        devices_[d]->expert_matmul(read(x, d), sorted, on(routing, d), {&half, 1});
        devices_[d]->copy_columns(*y, {0, rows}, rows, y->rows(), change(*product.y, d), part);
      }
    }
  }
  void combine_experts(const DeviceBuffer& y, const DeviceRouting& routing, DeviceBuffer& out,
                       bool add) override {
    const int d = place(y);
    devices_[d]->combine_experts(read(y, d), on(routing, d), change(out, d), add);
  }
  void store_heads(const AttentionShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                   const HeadSteps& steps, DeviceBuffer& q, DeviceBuffer& k, DeviceBuffer& v) override {
    const int d = device_of_layer(layer);
    HeadSteps there = steps;
    there.q_norm = read(steps.q_norm, d);
    there.k_norm = read(steps.k_norm, d);
    there.rope = read(steps.rope, d);
    there.q_scale = read(steps.q_scale, d);
    devices_[d]->store_heads(shape, layer, on(sequences, d), there, change(q, d), change(k, d), change(v, d));
  }
  void convolve(size_t layer, std::span<const SequenceRows> sequences, const DeviceBuffer& weights,
                const DeviceBuffer* bias, size_t kernel, size_t state_begin, const DeviceBuffer& x,
                DeviceBuffer& y) override {
    const int d = device_of_layer(layer);
    devices_[d]->convolve(layer, on(sequences, d), read(weights, d), read(bias, d), kernel, state_begin,
                          read(x, d), change(y, d));
  }
  void delta_rule(const DeltaShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                  const DeviceBuffer& qkv, const DeviceBuffer& beta, const DeviceBuffer& alpha,
                  const DeviceBuffer& a, const DeviceBuffer& dt, DeviceBuffer& out) override {
    const int d = device_of_layer(layer);
    devices_[d]->delta_rule(shape, layer, on(sequences, d), read(qkv, d), read(beta, d), read(alpha, d),
                            read(a, d), read(dt, d), change(out, d));
  }
  void multiply(DeviceBuffer& x, const DeviceBuffer& y, size_t n) override {
    const int d = place(x);
    devices_[d]->multiply(change(x, d), read(y, d), n);
  }
  void norm_heads(DeviceBuffer& x, size_t n, const DeviceBuffer& weight, float eps) override {
    const int d = place(x);
    devices_[d]->norm_heads(change(x, d), n, read(weight, d), eps);
  }
  void layer_norm_heads(DeviceBuffer& x, size_t n, const DeviceBuffer& weight, size_t head_dim,
                        float eps) override {
    const int d = place(x);
    devices_[d]->layer_norm_heads(change(x, d), n, read(weight, d), head_dim, eps);
  }
  void copy_columns(const DeviceBuffer& x, Columns from, size_t width, size_t n, DeviceBuffer& y,
                    Columns to) override {
    const int d = place(x);
    devices_[d]->copy_columns(read(x, d), from, width, n, change(y, d), to);
  }
  void matmul_columns(const DeviceBuffer& x, Columns from,
                      std::span<const std::unique_ptr<DeviceMatrix>> weights, size_t n, DeviceBuffer& y,
                      Columns to) override {
    const TwoMatrix& first = two(*weights.front());
    for (size_t p = 0; p < first.pieces.size(); ++p) {
      const int d = first.pieces[p].device;
      const Columns part{to.column + first.pieces[p].begin, to.stride};
      const BorrowedPieces pieces(weights, p);
      devices_[d]->matmul_columns(read(x, d), from, pieces.all(), n, change(y, d), part);
    }
  }
  void attention(const AttentionShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                 const DeviceBuffer& q, DeviceBuffer& out, const DeviceBuffer* sinks) override {
    const int d = device_of_layer(layer);
    devices_[d]->attention(shape, layer, on(sequences, d), read(q, d), change(out, d), read(sinks, d));
  }
  void activate(Activation kind, DeviceBuffer& gate, const DeviceBuffer* up, size_t n) override {
    const int d = place(gate);
    devices_[d]->activate(kind, change(gate, d), read(up, d), n);
  }
  void add(DeviceBuffer& x, const DeviceBuffer& y, float factor, size_t n) override {
    const int d = place(x);
    devices_[d]->add(change(x, d), read(y, d), factor, n);
  }
  void scale(DeviceBuffer& x, float factor, size_t n) override {
    const int d = place(x);
    devices_[d]->scale(change(x, d), factor, n);
  }
  void add_gated(DeviceBuffer& x, const DeviceBuffer& y, const DeviceBuffer& gate, size_t n) override {
    const int d = place(x);
    devices_[d]->add_gated(change(x, d), read(y, d), read(gate, d), n);
  }
  void softcap(DeviceBuffer& x, float cap, size_t n) override {
    const int d = place(x);
    devices_[d]->softcap(change(x, d), cap, n);
  }
  void clamp(DeviceBuffer& x, float limit, size_t n) override {
    const int d = place(x);
    devices_[d]->clamp(change(x, d), limit, n);
  }
  void upload(std::span<const float> values, DeviceBuffer& x, size_t row) override {
    devices_[0]->upload(values, change(x, 0), row);
  }
  void download(const DeviceBuffer& x, size_t row, std::span<float> values) override {
    const int d = place(x);
    devices_[d]->download(read(x, d), row, values);
  }

 private:
  static KvShape shape_on(int d, const KvShape& shape) {
    KvShape there = shape;
    for (size_t layer = 0; layer < there.layers.size(); ++layer)
      if (device_of_layer(layer) != d) there.layers[layer] = {};
    return there;
  }

  // A device that has it.
  static int place(const DeviceBuffer& x) { return static_cast<const TwoBuffer&>(x).valid[0] ? 0 : 1; }
  TwoBuffer& bring(const DeviceBuffer& x, int d) {
    TwoBuffer& buffer =
        const_cast<TwoBuffer&>(static_cast<const TwoBuffer&>(x));  // where it lies is no value
    if (!buffer.valid[d]) {
      ++counts_.copied_buffers;
      std::vector<float> values(x.rows() * x.width());
      devices_[1 - d]->download(*buffer.on[1 - d], 0, values);
      devices_[d]->upload(values, *buffer.on[d], 0);
      buffer.valid[d] = true;
    }
    return buffer;
  }
  const DeviceBuffer& read(const DeviceBuffer& x, int d) { return *bring(x, d).on[d]; }
  const DeviceBuffer* read(const DeviceBuffer* x, int d) { return x == nullptr ? nullptr : &read(*x, d); }
  // To be written; rows that are not keep what they have.
  DeviceBuffer& change(DeviceBuffer& x, int d) {
    TwoBuffer& buffer = bring(x, d);
    buffer.valid[1 - d] = false;
    return *buffer.on[d];
  }

  static DeviceRouting& on(DeviceRouting& routing, int d) { return *static_cast<TwoRouting&>(routing).on[d]; }
  static const DeviceRouting& on(const DeviceRouting& routing, int d) {
    return *static_cast<const TwoRouting&>(routing).on[d];
  }
  std::span<const SequenceRows> on(std::span<const SequenceRows> sequences, int d) {
    ++counts_.operations[d];
    sequences_.assign(sequences.begin(), sequences.end());
    for (SequenceRows& rows : sequences_) rows.cache = static_cast<TwoCache*>(rows.cache)->on[d].get();
    return sequences_;
  }

  // Where a piece's rows stand among the columns of a product with all `rows`.
  static Columns columns_of(const Piece& piece, size_t rows) { return {piece.begin, rows}; }
  // The same part of a bias, of each expert where there are several; null for null.
  std::unique_ptr<DeviceBuffer> bias_of(const DeviceBuffer* bias, const Piece& piece, Columns part) {
    if (bias == nullptr) return nullptr;
    const size_t rows = piece.end - piece.begin;
    auto out = devices_[piece.device]->allocate(1, bias->width() / part.stride * rows);
    devices_[piece.device]->copy_columns(read(*bias, piece.device), part, rows, 1, *out, {0, rows});
    return out;
  }

  const std::unique_ptr<Device> devices_[kDevices];
  TwoDevicesCounts own_counts_;
  TwoDevicesCounts& counts_;
  std::vector<SequenceRows> sequences_;
};

}  // namespace

std::unique_ptr<Device> make_two_devices(std::unique_ptr<Device> first, std::unique_ptr<Device> second,
                                         TwoDevicesCounts* counts) {
  return std::make_unique<TwoDevices>(std::move(first), std::move(second), counts);
}

}  // namespace quern::test
