// Where a forward pass runs: memory, and operations on float buffers. One forward pass (runtime/arch/) serves
// every device.
//
// Shapes are row-major; a buffer is [rows, width] floats on the device. y[M,N] = x[M,K] * W[N,K]^T.
// Operations run in the order of the calls and each has finished (CPU) or is ordered before the next (other
// devices) when it returns; the host sees results through download(). Operations belong inside run_pass(),
// where they may come from any thread: passes of different threads follow one another. upload() and
// download() may run outside of a pass too, while no operation uses the buffer. All other calls come from one
// thread at a time, except for allocate() and its relatives. Arithmetic: every operation's bits are defined
// (arithmetic.md); CPU devices give exactly these, whatever the number of threads.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/kernel_set.h"
#include "quant/error.h"
#include "quant/tensor_view.h"

namespace quern {

// [rows, width] floats, owned by a device, not initialised.
class DeviceBuffer {
 public:
  virtual ~DeviceBuffer() = default;
  size_t rows() const { return rows_; }
  size_t width() const { return width_; }

 protected:
  DeviceBuffer(size_t rows, size_t width) : rows_(rows), width_(width) {}

 private:
  size_t rows_, width_;
};

// A weight matrix [rows, columns] in the device's layout.
class DeviceMatrix {
 public:
  virtual ~DeviceMatrix() = default;
  DType dtype() const { return dtype_; }
  size_t rows() const { return rows_; }
  size_t columns() const { return columns_; }
  // Bytes that one product with this matrix reads.
  uint64_t bytes() const { return bytes_; }

 protected:
  DeviceMatrix(DType dtype, size_t rows, size_t columns, uint64_t bytes)
      : dtype_(dtype), rows_(rows), columns_(columns), bytes_(bytes) {}

 private:
  DType dtype_;
  size_t rows_, columns_;
  uint64_t bytes_;
};

// Keys and values of one sequence for all layers of one device.
class DeviceKvCache {
 public:
  virtual ~DeviceKvCache() = default;
};

// What a cache keeps of one layer.
struct KvLayer {
  size_t n_kv_heads = 0;  // 0: nothing
  size_t head_dim = 0;
  // Positions that must stay readable behind the last one stored, itself counted; 0: all. What lies further
  // back may be overwritten.
  size_t kept = 0;
  // Floats of a recurrent state, which knows one position; it starts as zeros.
  uint64_t state_floats = 0;
  bool operator==(const KvLayer&) const = default;
};

struct KvShape {
  std::vector<KvLayer> layers;
  size_t capacity = 0;  // positions
  KvType type = KvType::kF16;
  // Places for a recurrent state of every layer. The first is the one that passes go on with; those below
  // kStateRows hold what it was after each row but the last of the last pass, where a pass of at most
  // kStateRows rows wrote them; the others are the caller's (SequenceRows).
  static constexpr size_t kStateRows = 16;
  size_t state_slots = 1;

  // Positions of one segment (kernel_set.h KvHead): kAttentionSegment, or, when capacity is less, that
  // rounded up to whole tiles.
  uint64_t segment_keys() const;
  // Segments that a layer keeps; layers that keep fewer than the capacity has use them in a ring.
  uint64_t segments_of(const KvLayer& layer) const;
  bool is_ring(const KvLayer& layer) const {
    return layer.n_kv_heads != 0 && segments_of(layer) * segment_keys() < capacity;
  }
  // Bytes of one segment of a layer, and of all layers: whole segments, and the states. The largest number
  // when it overflows.
  uint64_t segment_bytes(const KvLayer& layer) const;
  uint64_t state_bytes() const;  // of one slot of all layers
  uint64_t bytes() const;
  // Of one segment of all layers and one slot of their states, as Device::save_kv writes them.
  uint64_t block_bytes() const;
};

// What of a block goes into a cache.
struct KvBlockParts {
  bool whole = true;   // of layers that keep everything
  bool rings = true;   // of the others
  bool states = true;  // to the first slot
};

// Attention of a layer. Query head h reads keys and values of head h / (n_heads / n_kv_heads): multi-head
// attention where there are as many, multi-query where there is one, else grouped-query (Ainslie et al.,
// "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints", 2023, section 2.2).
struct AttentionShape {
  size_t n_heads, n_kv_heads, head_dim;
  size_t window = 0;   // a query at p sees keys max(0, p - window + 1)..p; 0: all
  double scale = 0;    // of scores; 0: 1 / sqrt(head_dim)
  double softcap = 0;  // scores stay within it; 0: none
};

// The gated delta rule of a layer (Yang, Kautz and Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with
// Delta Rule", 2024, section 3.1): v heads share k heads in turn, v head h that of h % n_k_heads.
struct DeltaShape {
  size_t n_k_heads, n_v_heads, k_dim, v_dim;
  size_t state_begin;  // of the layer's state: [n_v_heads, k_dim, v_dim]
};

// Some neighbouring rows of a micro-batch: the next positions of one sequence.
struct SequenceRows {
  DeviceKvCache* cache;
  size_t position;   // of the first
  size_t row_begin;  // in the buffers of the micro-batch
  size_t n;
  // Slots of KvShape: where the state before the first row lies, and where the one after the last goes, too;
  // 0: the first slot alone.
  size_t state_from = 0, state_to = 0;
};

// Which elements of a head a rotation turns together.
enum class RopePairs : uint8_t {
  kNeighbours,  // 2i and 2i + 1
  kHalves,      // i and i + rotary_dim / 2
};

// What happens to the heads of Q and K before K and V are stored.
struct HeadSteps {
  // Of every head, before the rotation: [1, head_dim]; null: none.
  const DeviceBuffer *q_norm = nullptr, *k_norm = nullptr;
  float eps = 0;
  // [micro-batch, rotary_dim]: cosines and sines of each row's position, as kernel_set.h's rope() and
  // rope_halves() take them; null: no rotation.
  const DeviceBuffer* rope = nullptr;
  RopePairs pairs = RopePairs::kNeighbours;
  // [micro-batch, 1]: a factor of each row's queries, after the rotation; null: none.
  const DeviceBuffer* q_scale = nullptr;
  // Heads of V are normalised too, with weights of 1.
  bool normalise_v = false;
};

// To which experts the rows of a micro-batch go, and with which weights.
class DeviceRouting {
 public:
  virtual ~DeviceRouting() = default;
};

// How a router's logits become choices (arithmetic.md "Router").
enum class RouterScore : uint8_t {
  kSoftmax,          // over all experts
  kSoftmaxOfChosen,  // over those that are chosen
  kSigmoid,
};
struct RouterRule {
  RouterScore score = RouterScore::kSoftmax;
  bool normalise = false;                 // weights are divided by their sum
  float scale = 1;                        // of weights, last
  const DeviceBuffer* bias = nullptr;     // [1, n_experts], of the choice alone; kSigmoid only
  const DeviceBuffer* factors = nullptr;  // [1, n_experts], of the weights, before the scale; null: none
  // Experts stand in so many groups of neighbours, which divide n_experts; only those of the best groups are
  // chosen. A group counts as its best expert, with kSigmoid as the sum of its best two.
  static constexpr size_t kMaxGroups = 64;
  size_t n_groups = 1, n_groups_used = 1;
};

// What attention has cost a device since it was made.
struct DeviceTimes {
  double attention_seconds = 0;
  uint64_t attention_kv_bytes = 0;  // keys and values that calls had to see, each once a call
  uint64_t attention_macs = 0;      // multiply-adds of both products

  // Counts the bytes and multiply-adds of queries at positions [position, position + n).
  void count_attention(const AttentionShape& shape, KvType type, size_t position, size_t n) noexcept;
};

// Adds the time from its making to its end to `times`.
class AttentionClock {
 public:
  explicit AttentionClock(DeviceTimes* times) : times_(times), start_(std::chrono::steady_clock::now()) {}
  ~AttentionClock() {
    times_->attention_seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  AttentionClock(const AttentionClock&) = delete;
  AttentionClock& operator=(const AttentionClock&) = delete;

 private:
  DeviceTimes* times_;
  std::chrono::steady_clock::time_point start_;
};

// How a matrix will be used, which decides what is kept of it.
enum class MatrixUse : uint8_t {
  kProduct,  // multiplied
  kGather,   // rows are read one by one (embeddings)
  kBoth,     // a tied embedding
};

// Memory of a loaded matrix.
struct MatrixMemory {
  uint64_t allocated;  // bytes beyond the source's own
  bool keeps_source;   // the source's bytes are read as long as the matrix lives
};

// Told, from any thread, that `n_bytes` of a tensor from `begin` on will not be read again.
using SourceDone = std::function<void(const uint8_t* begin, uint64_t n_bytes)>;

// Where a pass met its first NaN in K or V: in the first such layer, the first row of the micro-batch.
struct NanPlace {
  size_t layer, row;
  bool operator==(const NanPlace&) const = default;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;  // "CPU (avx2, 2 threads)"
  virtual DeviceTimes times() const = 0;

  // --- memory ---
  // What load_matrix will take; throws kMalformed when the device has no kernel for the format (message names
  // tensor and format).
  virtual MatrixMemory matrix_memory(const TensorView& tensor, MatrixUse use) const = 0;
  // A tensor of either layout, 2-D; columns obey the format's block. Some rows of one: a view of them
  // (panel_layout.h rows_of). Where matrix_memory says keeps_source, the view's data must outlive the matrix;
  // else `done` is told, piece by piece, what has been taken over.
  virtual std::unique_ptr<DeviceMatrix> load_matrix(const TensorView& tensor, MatrixUse use,
                                                    const SourceDone& done = {}) = 0;
  // A vector of floats on the device: decoded exactly from any float format. As a buffer of one row.
  virtual std::unique_ptr<DeviceBuffer> load_vector(const TensorView& tensor) = 0;
  virtual std::unique_ptr<DeviceBuffer> allocate(size_t rows, size_t width) = 0;
  virtual std::unique_ptr<DeviceKvCache> allocate_kv(const KvShape& shape) = 0;
  // Of up to `rows` rows, which choose n_used of n_experts.
  virtual std::unique_ptr<DeviceRouting> allocate_routing(size_t rows, size_t n_experts, size_t n_used) = 0;
  virtual uint64_t buffer_bytes(uint64_t rows, uint64_t width) const = 0;
  virtual uint64_t kv_bytes(const KvShape& shape) const = 0;
  // What operations on micro-batches of up to max_rows rows can take beside buffers and caches.
  // widest_input: columns of the widest matrix; capacity: positions of the longest sequence.
  virtual uint64_t scratch_bytes(size_t max_rows, uint64_t widest_input,
                                 std::span<const AttentionShape> attention, uint64_t capacity) const = 0;
  // Takes that scratch now, where a device has other memory than the host's, of which more may not be had
  // later.
  virtual void reserve_scratch(size_t max_rows, uint64_t widest_input,
                               std::span<const AttentionShape> attention, uint64_t capacity) {
    (void)max_rows, (void)widest_input, (void)attention, (void)capacity;
  }

  // Calls pass(), which holds a series of operations; a device may keep its threads ready from one to the
  // next. What pass throws comes out of run_pass. Passes that several threads ask for run one after the
  // other; a pass must not ask for another one.
  virtual void run_pass(const std::function<void()>& pass) = 0;
  // What follows, operations of a pass or matrices and vectors that are loaded, belongs to this layer; to
  // what stands before the first one (kBeforeLayers) or behind the last (the number of layers). A device that
  // is several puts it where the layer is; no result depends on it.
  static constexpr size_t kBeforeLayers = SIZE_MAX;
  virtual void enter_layer(size_t layer) { (void)layer; }
  // The first NaN that operations have met since the last call.
  virtual std::optional<NanPlace> take_nan() = 0;

  // Whether blocks can be copied: the next two calls are for such devices alone.
  virtual bool copies_blocks() const { return false; }
  // Copies segment `segment` of all layers, which the rings still hold, and the states of a slot into a block
  // of KvShape::block_bytes(), whose bytes no instruction set and no number of threads changes; and back. Not
  // while a pass uses the cache.
  virtual void save_kv(const DeviceKvCache&, size_t /*segment*/, size_t /*state_slot*/,
                       std::span<uint8_t> /*block*/) {
    QUERN_CHECK(copies_blocks());
  }
  virtual void load_kv(DeviceKvCache&, size_t /*segment*/, KvBlockParts, std::span<const uint8_t> /*block*/) {
    QUERN_CHECK(copies_blocks());
  }

  // --- operations; the first `n` rows of buffers unless said ---
  // x[t] = decoded row ids[t] of table. ids are in range.
  virtual void embed(const DeviceMatrix& table, std::span<const int32_t> ids, DeviceBuffer& x) = 0;
  // y[y_row + t] = rms_norm(x[x_row + t]) for t < n. y may be x where rows are the same.
  virtual void rms_norm(const DeviceBuffer& x, size_t x_row, size_t n, const DeviceBuffer& weight, float eps,
                        DeviceBuffer& y, size_t y_row) = 0;
  // bias: [1, width], or null.
  virtual void layer_norm(const DeviceBuffer& x, size_t x_row, size_t n, const DeviceBuffer& weight,
                          const DeviceBuffer* bias, float eps, DeviceBuffer& y, size_t y_row) = 0;
  struct Product {
    const DeviceMatrix* weight;
    DeviceBuffer* y;                     // [n, weight->rows()]
    const DeviceBuffer* bias = nullptr;  // [1, weight->rows()], added last
  };
  // y = x * W^T for each product; they share x, which is quantized once. add: y = y + x * W^T.
  virtual void matmul(const DeviceBuffer& x, size_t n, std::span<const Product> products, bool add) = 0;
  // Each of n rows chooses its experts. logits: [n, n_experts].
  virtual void route(const DeviceBuffer& logits, size_t n, const RouterRule& rule,
                     DeviceRouting& routing) = 0;
  struct ExpertProduct {
    std::span<const std::unique_ptr<DeviceMatrix>> weights;  // of each expert, all of one shape and format
    DeviceBuffer* y;                                         // a row for every choice, sorted by expert
    const DeviceBuffer* bias = nullptr;                      // [1, n_experts * rows], added last
  };
  // Products of the rows that chose an expert with its matrices, each of which is read once. x: the routed
  // rows; with `sorted`, a row for every choice, as products have left them.
  virtual void expert_matmul(const DeviceBuffer& x, bool sorted, const DeviceRouting& routing,
                             std::span<const ExpertProduct> products) = 0;
  // out[r] = the weighted sum of the rows of y that r's choices have come to; out[r] + it with `add`.
  virtual void combine_experts(const DeviceBuffer& y, const DeviceRouting& routing, DeviceBuffer& out,
                               bool add) = 0;
  // Takes the heads of q and k through `steps`, in place, and stores k and v of all rows of `sequences` in
  // their caches as `layer`. A NaN in K or V is kept for take_nan().
  virtual void store_heads(const AttentionShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                           const HeadSteps& steps, DeviceBuffer& q, DeviceBuffer& k, DeviceBuffer& v) = 0;
  // y = causal convolution of each column of x with its `kernel` weights, the last of which is its own row's.
  // weights: [1, width * kernel]; bias: [1, width], added last, or null. The layer's states hold the last
  // kernel - 1 rows of x from state_begin on.
  virtual void convolve(size_t layer, std::span<const SequenceRows> sequences, const DeviceBuffer& weights,
                        const DeviceBuffer* bias, size_t kernel, size_t state_begin, const DeviceBuffer& x,
                        DeviceBuffer& y) = 0;
  // qkv: [n, 2 * n_k_heads * k_dim + n_v_heads * v_dim]; beta, alpha: [n, n_v_heads]; a, dt: [1, n_v_heads];
  // out: [n, n_v_heads * v_dim].
  virtual void delta_rule(const DeltaShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                          const DeviceBuffer& qkv, const DeviceBuffer& beta, const DeviceBuffer& alpha,
                          const DeviceBuffer& a, const DeviceBuffer& dt, DeviceBuffer& out) = 0;
  // x = x * y, on n rows.
  virtual void multiply(DeviceBuffer& x, const DeviceBuffer& y, size_t n) = 0;
  // Norms every head_dim = weight.width() neighbouring values of n rows, in place.
  virtual void norm_heads(DeviceBuffer& x, size_t n, const DeviceBuffer& weight, float eps) = 0;
  // LayerNorm, without a bias, of every head_dim neighbouring values of n rows, in place; each group of a row
  // has its own weights. weight: [1, x.width()].
  virtual void layer_norm_heads(DeviceBuffer& x, size_t n, const DeviceBuffer& weight, size_t head_dim,
                                float eps) = 0;
  // Of groups of `stride` values in each row, those from `column` on.
  struct Columns {
    size_t column, stride;
  };
  // `width` values of every group of x[t] to those of y[t]; both have as many groups.
  virtual void copy_columns(const DeviceBuffer& x, Columns from, size_t width, size_t n, DeviceBuffer& y,
                            Columns to) = 0;
  // The same by a matrix for each group: W_h of the values of group h.
  virtual void matmul_columns(const DeviceBuffer& x, Columns from,
                              std::span<const std::unique_ptr<DeviceMatrix>> weights, size_t n,
                              DeviceBuffer& y, Columns to) = 0;
  // out[r] = attention of q[r] over the cache of r's sequence, whose keys up to r's have been stored. sinks:
  // [1, n_heads] (kernel_set.h AttentionArgs), or null.
  virtual void attention(const AttentionShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                         const DeviceBuffer& q, DeviceBuffer& out, const DeviceBuffer* sinks = nullptr) = 0;
  // gate = what the activation makes of gate (and up, where it is gated; else null), elementwise on n rows.
  virtual void activate(Activation kind, DeviceBuffer& gate, const DeviceBuffer* up, size_t n) = 0;
  // x = x + y * factor, on n rows.
  virtual void add(DeviceBuffer& x, const DeviceBuffer& y, float factor, size_t n) = 0;
  virtual void scale(DeviceBuffer& x, float factor, size_t n) = 0;
  // x[t] = x[t] + y[t] * sigmoid(gate[t]), on n rows. gate: [n, 1].
  virtual void add_gated(DeviceBuffer& x, const DeviceBuffer& y, const DeviceBuffer& gate, size_t n) = 0;
  virtual void softcap(DeviceBuffer& x, float cap, size_t n) = 0;
  // Values of n rows beyond +-limit become that; limit > 0.
  virtual void clamp(DeviceBuffer& x, float limit, size_t n) = 0;
  // Rows from `row` on, to and from the host: as many as `values` has, row by row.
  virtual void upload(std::span<const float> values, DeviceBuffer& x, size_t row) = 0;
  virtual void download(const DeviceBuffer& x, size_t row, std::span<float> values) = 0;
};

}  // namespace quern
