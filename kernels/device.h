// Where a forward pass runs: about ten operations on float buffers. One forward pass (runtime/arch/) serves
// every device.
//
// Shapes are row-major; a buffer is [rows, width] floats on the device. y[M,N] = x[M,K] * W[N,K]^T.
// Operations run in the order of the calls and each has finished (CPU) or is ordered before the next (other
// devices) when it returns; the host sees results through read(). Calls come from one thread at a time.
// Arithmetic: every operation's bits are defined (arithmetic.md); CPU devices give exactly these, whatever
// the number of threads.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

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

struct KvShape {
  size_t n_layers, n_kv_heads, head_dim;
  size_t capacity;  // positions
  KvType type;

  // Positions of one segment (kernel_set.h KvHead): kAttentionSegment, or, when capacity is less, that
  // rounded up to whole tiles.
  uint64_t segment_keys() const;
  // Bytes that a cache of this shape takes: capacity rounded up to whole segments. Memory is taken from the
  // system when it is first written: the first segment page by page, later ones segment by segment.
  uint64_t bytes() const;
};

struct AttentionShape {
  size_t n_heads, n_kv_heads, head_dim;
  size_t rotary_dim;
  size_t window;  // a query at p sees keys max(0, p - window + 1)..p; 0: all
};

// What attention has cost a device since it was made.
struct DeviceTimes {
  double attention_seconds = 0;
  uint64_t attention_kv_bytes = 0;  // keys and values that calls had to see, each once a call
  uint64_t attention_macs = 0;      // multiply-adds of both products

  // Counts a call's bytes and multiply-adds: queries at positions [position, position + n).
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

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;  // "CPU (avx2, 2 threads)"
  virtual DeviceTimes times() const = 0;

  // --- memory ---
  // What load_matrix will take; throws kMalformed when the device has no kernel for the format (message names
  // tensor and format).
  virtual MatrixMemory matrix_memory(const TensorView& tensor, MatrixUse use) const = 0;
  // A tensor of either layout, 2-D; columns obey the format's block. Where matrix_memory says keeps_source,
  // the view's data must outlive the matrix; else `done` is told, piece by piece, what has been taken over.
  virtual std::unique_ptr<DeviceMatrix> load_matrix(const TensorView& tensor, MatrixUse use,
                                                    const SourceDone& done = {}) = 0;
  // A vector of floats on the device: decoded exactly from any float format. As a buffer of one row.
  virtual std::unique_ptr<DeviceBuffer> load_vector(const TensorView& tensor) = 0;
  virtual std::unique_ptr<DeviceBuffer> allocate(size_t rows, size_t width) = 0;
  virtual std::unique_ptr<DeviceKvCache> allocate_kv(const KvShape& shape) = 0;

  // Calls pass(), which holds a series of operations; a device may keep its threads ready from one to the
  // next. What pass throws comes out of run_pass.
  virtual void run_pass(const std::function<void()>& pass) = 0;

  // --- operations; the first `n` rows of buffers unless said ---
  // x[t] = decoded row ids[t] of table. ids are in range.
  virtual void embed(const DeviceMatrix& table, std::span<const int32_t> ids, DeviceBuffer& x) = 0;
  // y[t] = rms_norm(x[row_begin + t]) for t < n.
  virtual void rms_norm(const DeviceBuffer& x, size_t row_begin, size_t n, const DeviceBuffer& weight,
                        float eps, DeviceBuffer& y) = 0;
  struct Product {
    const DeviceMatrix* weight;
    DeviceBuffer* y;  // [n, weight->rows()]
  };
  // y = x * W^T for each product; they share x, which is quantized once. add: y = y + x * W^T.
  virtual void matmul(const DeviceBuffer& x, size_t n, std::span<const Product> products, bool add) = 0;
  // Rotates q and k in place and stores k and v of positions [position, position + n) of `layer` in the
  // cache. cos_sin: host, [n, rotary_dim / 2, 2]. Returns the first t with a NaN in K or V, or n.
  virtual size_t rope_and_store(const AttentionShape& shape, size_t layer, size_t position, size_t n,
                                std::span<const float> cos_sin, DeviceBuffer& q, DeviceBuffer& k,
                                const DeviceBuffer& v, DeviceKvCache& cache) = 0;
  // out[t] = attention of q[t] at position + t over the cache. All n keys have been stored.
  virtual void attention(const AttentionShape& shape, size_t layer, size_t position, size_t n,
                         const DeviceBuffer& q, const DeviceKvCache& cache, DeviceBuffer& out) = 0;
  // gate = silu(gate) * up, elementwise on n rows.
  virtual void swiglu(DeviceBuffer& gate, const DeviceBuffer& up, size_t n) = 0;
  // Copies row `row` to the host; out: [width].
  virtual void read(const DeviceBuffer& x, size_t row, std::span<float> out) = 0;
};

}  // namespace quern
